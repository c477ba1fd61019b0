# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The words of the model catalog: what is declared, a step, and a plan made of steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
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
    Layer,
    StoredFile,
    StoredModel,
)

ADOPT, PULL, UPDATE, REPULL, REPAIR = "adopt", "pull", "update", "repull", "repair"
REMOVE, UNAVAILABLE = "remove", "unavailable"
PRUNE_PARTIAL, PRUNE_ORPHAN = "prune_partial", "prune_orphan"
RESTORE, DISCARD = "restore", "discard"
DOWNLOADS = (PULL, UPDATE, REPULL, REPAIR)
SHORT = 12  # digits of a digest that people read
PREVIOUS_SUFFIX = "-hx-previous"  # of the tag under which an update keeps the version before it


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
    parallel: int = 1

    @property
    def keys(self) -> set[str]:
        """The keys of the declared names."""
        return {item.name.key for item in self.wanted}

    @property
    def forbidden_keys(self) -> set[str]:
        """The keys of the forbidden names."""
        return {name.key for name in self.forbidden}


@dataclass(frozen=True)
class Moment:
    """What a plan depends on besides the store.

    Attributes:
        now: wall-clock seconds.
        busy: inodes that processes have open.
        sees_all: whether ``busy`` covers all processes.
    """

    now: float
    busy: Set[tuple[int, int]] = frozenset()
    sees_all: bool = False


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Attributes:
        size: what it downloads or frees on disk.
        digest: of the model that it leads to, or of the blob that its file is about.
        source: the name that an engine pulls by.
        frees: the files that go with it, paths relative to the store. A download frees bad blobs,
            and those only when the good ones are in place: until then they are set aside.
        freed: what they occupy.
        sources: labels of the sources that can give the model, in the order to try.
        layers: all blobs of the model that a download leads to, as far as they are known.
        model_size: the sum of their sizes; None when it isn't known.
        after: the digests of blobs that have to be in place before the file may go. Without them,
            a set-aside blob goes only while no manifest refers to it.
        keeper: the declared model that has to be whole, with the same blobs, before a model goes
            that an interrupted pull left.
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
    sources: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()
    model_size: int | None = None
    after: tuple[str, ...] = ()
    keeper: str = ""

    @property
    def downloads(self) -> bool:
        """Whether it brings a model."""
        return self.action in DOWNLOADS

    @property
    def names_model(self) -> bool:
        """Whether the target is a model, not a file."""
        return self.downloads or self.action in (ADOPT, REMOVE, UNAVAILABLE)

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
            "sources": list(self.sources),
        }


@dataclass
class Plan:
    """What to do, in order, and what is left alone on purpose.

    Attributes:
        undeclared: models that nobody declared and that stay.
        kept_partials: files of unfinished downloads and copies that stay.
        orphans: blobs that no model refers to, or will refer to, and that stay.
        kept_versions: what updates have kept of declared models to go back to.
        unasked: declared models that may have moved at their registry, which can't tell.
        parallel: how many downloads may run at once.
    """

    steps: list[Step] = field(default_factory=list)
    undeclared: list[StoredModel] = field(default_factory=list)
    kept_partials: list[StoredFile] = field(default_factory=list)
    orphans: list[StoredFile] = field(default_factory=list)
    kept_versions: list[StoredModel] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)
    parallel: int = 1

    @property
    def changes(self) -> list[Step]:
        """The steps that change the host."""
        return [step for step in self.steps if step.action not in (ADOPT, UNAVAILABLE)]

    @property
    def pulls(self) -> list[Step]:
        """The steps that download."""
        return [step for step in self.steps if step.downloads]

    @property
    def unavailable(self) -> list[Step]:
        """The declared models that no source can give; nothing is done about them."""
        return [step for step in self.steps if step.action == UNAVAILABLE]

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
        """The disk space that is missing at the worst moment, compared with the start.

        A bad blob stays until the good one is in place. Of downloads that run at once, it isn't
        known which ends first: none of them counts as freeing anything before all are done.
        """
        used = worst = later = 0
        for step in self.steps:
            if step.downloads:
                used += step.size
                worst = max(worst, used)
            elif later and step.action not in (ADOPT, UNAVAILABLE):
                used, later = used - later, 0
            if step.downloads and self.parallel > 1:
                later += step.freed
            else:
                used -= step.freed
        return worst


def read_declaration(params: Mapping[str, Any]) -> Declaration:
    """Read the options of the module.

    Raises:
        HostError: a name or a digest is none, or the declaration contradicts itself.
    """
    wanted = tuple(_read_wanted(entry, params) for entry in params["models"])
    forbidden = tuple(parse_name(text) for text in params["forbidden"])
    keys: set[str] = set()
    for item in wanted:
        if item.name.key in keys:
            raise HostError(f"{item.name} is declared more than once.")
        keys.add(item.name.key)
    for name in forbidden:
        if name.key in keys:
            raise HostError(f"{name} is both declared and forbidden.", "Decide for one of them.")
    by_key = {item.name.key: item for item in wanted}
    for item in wanted:
        _check_source(item, by_key.get(item.source.key, item))
    return Declaration(
        wanted=wanted,
        forbidden=forbidden,
        exclusive=params["exclusive"],
        reserve_bytes=params["reserve_bytes"],
        prune_partials=params["prune_partials"],
        partial_min_age_s=params["partial_min_age_s"],
        prune_orphans=params["prune_orphans"],
        parallel=params.get("parallel") or 1,
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


def _check_source(item: Wanted, other: Wanted) -> None:
    """Refuse to pull a model by the name of another one that has to be something else."""
    if other is item or not (other.pin or other.source.key != other.name.key):
        return
    why = f"has the pin {other.pin[:SHORT]}" if other.pin else f"comes from {other.source}"
    raise HostError(
        f"{item.name} is pulled by the name {item.source}, and the declared model {other.name}, "
        f"which {why}, would be replaced by that.",
        f"Give {item.name} another source, or {other.name} neither a digest nor a source.",
    )


_VERBS = {
    PULL: "Pull",
    UPDATE: "Update",
    REPULL: "Pull again",
    REPAIR: "Repair",
    REMOVE: "Remove",
    PRUNE_PARTIAL: "Prune the partial download",
    PRUNE_ORPHAN: "Prune the orphan blob",
    RESTORE: "Put back the set-aside blob",
    DISCARD: "Discard the set-aside blob",
}


def sentences(steps: Iterable[Step]) -> list[str]:
    """Say what the steps change, and what can't be had, one sentence each."""
    return [_sentence(step) for step in steps if step.action != ADOPT]


def _sentence(step: Step) -> str:
    size = human_size(step.size)
    if step.downloads:
        origin = f" from {step.source}" if step.source != step.target else ""
        return f"{_VERBS[step.action]} {step.target}{origin} ({size}): {step.reason}"
    if step.action == UNAVAILABLE:
        return f"Leave {step.target} as it is: {step.reason}"
    return f"{_VERBS[step.action]} {step.target} ({size}): {step.reason}"
