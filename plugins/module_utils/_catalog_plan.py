# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The words of the model catalog: what is declared, a step, and a plan made of steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import human_size
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import (
    DEFAULT_HOST,
    ModelName,
    parse_name,
    read_pin,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    StoredFile,
    StoredModel,
)

ADOPT, PULL, REPULL, REMOVE = "adopt", "pull", "repull", "remove"
PRUNE_PARTIAL, PRUNE_ORPHAN = "prune_partial", "prune_orphan"
SHORT = 12  # digits of a digest that people read


@dataclass(frozen=True)
class Wanted:
    """A declared model; ``source`` is where it comes from when it isn't there."""

    name: ModelName
    source: ModelName
    pin: str = ""
    insecure: bool = False
    update: bool = False


@dataclass(frozen=True)
class Declaration:
    """Everything that was declared about the models of a host."""

    wanted: tuple[Wanted, ...]
    forbidden: tuple[ModelName, ...] = ()
    exclusive: bool = False
    reserve_bytes: int = 0
    prune_partials: bool = True
    partial_min_age_s: float = 3600
    prune_orphans: bool = False

    @property
    def keys(self) -> set[str]:
        """The keys of the declared names."""
        return {item.name.key for item in self.wanted}


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Attributes:
        size: what it downloads or frees on disk.
        frees: the files that go with it, paths relative to the store.
        freed: what they occupy.
    """

    action: str
    target: str
    reason: str
    size: int = 0
    files: int = 0
    digest: str = ""
    source: str = ""
    frees: tuple[str, ...] = ()
    freed: int = 0

    @property
    def names_model(self) -> bool:
        """Whether the target is a model, not a file."""
        return self.action in (ADOPT, PULL, REPULL, REMOVE)

    def as_dict(self) -> dict[str, Any]:
        """Return the form that results carry."""
        return {
            "action": self.action,
            "target": self.target,
            "reason": self.reason,
            "bytes": self.size,
            "files": self.files,
            "digest": self.digest,
            "source": self.source,
        }


@dataclass
class Plan:
    """What to do, in order, and what is left alone on purpose."""

    steps: list[Step] = field(default_factory=list)
    undeclared: list[StoredModel] = field(default_factory=list)
    kept_partials: list[StoredFile] = field(default_factory=list)
    orphans: list[StoredFile] = field(default_factory=list)

    @property
    def changes(self) -> list[Step]:
        """The steps that change the host."""
        return [step for step in self.steps if step.action != ADOPT]

    @property
    def pulls(self) -> list[Step]:
        """The steps that download."""
        return [step for step in self.steps if step.action in (PULL, REPULL)]

    @property
    def bytes_to_download(self) -> int:
        """What all pulls together bring."""
        return sum(step.size for step in self.pulls)

    @property
    def bytes_to_free(self) -> int:
        """What everything else gives back."""
        return sum(step.freed for step in self.steps)

    @property
    def space_needed(self) -> int:
        """The disk space that is missing at the worst moment, compared with the start."""
        used = worst = 0
        for step in self.steps:
            used += (step.size if step.action in (PULL, REPULL) else 0) - step.freed
            worst = max(worst, used)
        return worst


def read_declaration(params: Mapping[str, Any]) -> Declaration:
    """Read the options of the module.

    Raises:
        HostError: a name or a digest is none, or the declaration contradicts itself.
    """
    wanted = tuple(_read_wanted(entry, params) for entry in params["models"])
    forbidden = tuple(parse_name(text) for text in params["forbidden"])
    keys = [item.name.key for item in wanted]
    for item in wanted:
        if keys.count(item.name.key) > 1:
            raise HostError(f"{item.name} is declared more than once.")
    for name in forbidden:
        if name.key in keys:
            raise HostError(f"{name} is both declared and forbidden.", "Decide for one of them.")
    return Declaration(
        wanted=wanted,
        forbidden=forbidden,
        exclusive=params["exclusive"],
        reserve_bytes=params["reserve_bytes"],
        prune_partials=params["prune_partials"],
        partial_min_age_s=params["partial_min_age_s"],
        prune_orphans=params["prune_orphans"],
    )


def _read_wanted(entry: Mapping[str, Any], params: Mapping[str, Any]) -> Wanted:
    name = parse_name(entry["name"])
    source, insecure = name, bool(entry.get("insecure"))
    if entry.get("source"):
        source = parse_name(entry["source"])
    elif params.get("registry") and name.host.lower() == DEFAULT_HOST:
        source = parse_name(name._replace(host=params["registry"]).full)
        insecure = insecure or bool(params.get("registry_insecure"))
    pin = read_pin(entry.get("digest") or "")
    return Wanted(name, source, pin, insecure, bool(entry.get("update")))


def sentences(steps: Iterable[Step]) -> list[str]:
    """Say what the steps change, one sentence each."""
    return [_sentence(step) for step in steps if step.action != ADOPT]


def _sentence(step: Step) -> str:
    size = human_size(step.size)
    if step.action in (PULL, REPULL):
        verb = "Pull" if step.action == PULL else "Pull again"
        origin = f" from {step.source}" if step.source != step.target else ""
        return f"{verb} {step.target}{origin} ({size}): {step.reason}"
    if step.action == REMOVE:
        return f"Remove {step.target} ({size}): {step.reason}"
    kind = "partial download" if step.action == PRUNE_PARTIAL else "orphan blob"
    return f"Prune the {kind} {step.target} ({size}): {step.reason}"
