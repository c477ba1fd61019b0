# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Plan how a model store comes to its declared place; no host is touched here."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._engine_unit import RUNNING
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

SPACE_FACTOR = 1.05
_SHOWN = 3


@dataclass(frozen=True)
class Declared:
    """Where the store belongs, whose it is and who uses it."""

    host: str
    target: str
    canonical: str
    old_paths: tuple[str, ...] = ()
    owner: str = "ollama"
    group: str = "ollama"
    unit: str = ""
    url: str = ""
    mount_path: str = ""
    reserve_bytes: int = 0
    allow_damaged: bool = False


@dataclass(frozen=True)
class Place:
    """What stands at a path: ``absent``, ``link``, ``directory`` or ``other``.

    ``resolved`` is the directory that the path leads to, as it will be called once the disk is
    mounted at its declared place; empty when it leads nowhere.
    """

    path: str
    kind: str = "absent"
    value: str = ""
    resolved: str = ""
    is_mount: bool = False


@dataclass(frozen=True)
class Tree:
    """A directory with its content, counted."""

    path: str
    at: str = ""
    files: int = 0
    entries: int = 0
    size: int = 0
    is_store: bool = False
    blobs: int = 0
    manifests: int = 0
    differing: int = 0
    problems: tuple[str, ...] = ()
    partials: tuple[str, ...] = ()


@dataclass(frozen=True)
class Observed:
    """What was found on the host."""

    target: Place
    names: tuple[Place, ...]
    trees: dict[str, Tree] = field(default_factory=dict)
    same_filesystem: bool = False
    identical: bool = False
    free_bytes: int | None = None
    free_inodes: int | None = None
    staged_bytes: int = 0
    staged_entries: int = 0
    mounted: bool = True
    unit_state: str = "inactive"
    engine_path: str = ""
    obstacle: str = ""
    journal: dict[str, Any] = field(default_factory=dict)
    retained: str = ""


@dataclass(frozen=True)
class Step:
    """One line of the plan."""

    action: str
    target: str
    sentence: str
    source: str = ""
    value: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the step as data."""
        data = {"action": self.action, "target": self.target}
        if self.source:
            data["source"] = self.source
        if self.value:
            data["value"] = self.value
        return data


@dataclass(frozen=True)
class Plan:
    """The steps and how the store is moved: none, create, adopt, rename or copy."""

    mode: str
    source: str
    steps: tuple[Step, ...]
    restart: bool = False

    def of(self, action: str) -> list[Step]:
        """Return the steps of one kind."""
        return [step for step in self.steps if step.action == action]


def plan_relocation(declared: Declared, found: Observed) -> Plan:
    """Compare what is declared with what was found.

    Raises:
        HostError: the move is not possible or not safe; nothing was changed.
    """
    _check_geometry(declared)
    if declared.mount_path and not found.mounted:
        raise HostError(
            f"{declared.host}: nothing is mounted at {declared.mount_path}; wanted the bulk disk, "
            f"because the store belongs to {declared.target} on it.",
            "Mount it first; nothing is written below an absent mount.",
        )
    sources = _sources(declared, found)
    if len(sources) > 1:
        raise HostError(
            f"{declared.host}: models stand at more than one place: {sources[0].path} "
            f"({sources[0].files} files) and {sources[1].path} ({sources[1].files} files); wanted "
            "one store.",
            "Empty the one that is not in use, or take it out of old_paths.",
        )
    source = sources[0] if sources else None
    _check_names(declared, found, source)
    _check_engine(declared, found, source)
    mode = _mode(declared, found, source)
    if source is not None:
        _check_source(declared, source)
        if mode == "copy":
            _check_space(declared, found, source)
    if found.obstacle:
        raise HostError(
            f"{declared.host}: {found.obstacle}",
            "Give that directory to the account or add x to its mode, then run again.",
        )
    return _build(declared, found, source, mode)


def _check_geometry(declared: Declared) -> None:
    names = (declared.canonical, *declared.old_paths)
    for name in (declared.target, *names):
        if not name.startswith("/") or name != posixpath.normpath(name) or name == "/":
            raise HostError(
                f"{declared.host}: the path is {name!r}; wanted an absolute one below / without "
                "'..' and '//'."
            )
    for name in names:
        if name == declared.target and name == declared.canonical:
            raise HostError(
                f"{declared.host}: target and canonical are both {name}; wanted two paths, because "
                "the canonical one becomes a link to the target."
            )
        if name != declared.target and _nested(name, declared.target):
            raise HostError(
                f"{declared.host}: {name} and the store's place {declared.target} lie inside each "
                "other; wanted separate paths.",
                "Choose a target outside of the canonical and the old paths.",
            )
    mount = declared.mount_path
    if mount and not declared.target.startswith(f"{mount.rstrip('/')}/"):
        raise HostError(
            f"{declared.host}: the store's place {declared.target} is not below the mount {mount}."
        )


def _nested(first: str, second: str) -> bool:
    return first.startswith(f"{second}/") or second.startswith(f"{first}/")


def _sources(declared: Declared, found: Observed) -> list[Tree]:
    """List the directories with files that the old names, and a linked target, lead to."""
    by_name = {place.path: place for place in found.names}
    ordered = [by_name[name] for name in (*declared.old_paths, declared.canonical)]
    if found.target.kind == "link":
        ordered.append(found.target)
    seen: list[Tree] = []
    for place in ordered:
        tree = found.trees.get(place.resolved)
        if tree is None or tree.path == declared.target or tree in seen or not tree.files:
            continue
        seen.append(tree)
    return seen


def _check_names(declared: Declared, found: Observed, source: Tree | None) -> None:
    for place in (*found.names, found.target):
        if place.kind == "other":
            raise HostError(
                f"{declared.host}: {place.path} is neither a directory nor a link; wanted a link "
                f"to the store {declared.target}.",
                "Move it away, then run again.",
            )
    for place in found.names:
        moves = place.kind == "directory" and place.resolved != declared.target
        if place.is_mount and moves:
            raise HostError(
                f"{declared.host}: {place.path} is a mount point and cannot become a link.",
                "Mount that file system elsewhere first.",
            )
    if source is None:
        return
    if found.target.is_mount:
        raise HostError(
            f"{declared.host}: the store's place {declared.target} is a mount point; wanted a "
            "directory below it, because a copy gets its name only once it is verified."
        )
    if not source.is_store:
        raise HostError(
            f"{declared.host}: {source.path} holds {source.files} files but no model store (no "
            "blobs or manifests directory); wanted a store or an empty directory.",
            "Move these files away, or take the path out of old_paths.",
        )
    if _nested(source.path, declared.target):
        raise HostError(
            f"{declared.host}: the store {source.path} and its place {declared.target} lie inside "
            "each other; wanted separate paths.",
            "Choose a target outside of the present store.",
        )


def _check_engine(declared: Declared, found: Observed, source: Tree | None) -> None:
    known = {declared.target, source.path if source else ""}
    tree = found.trees.get(found.engine_path)
    if found.engine_path and found.engine_path not in known and tree is not None and tree.files:
        raise HostError(
            f"{declared.host}: {declared.unit} reads its models from {found.engine_path} "
            f"({tree.files} files), which is none of the declared paths "
            f"{', '.join((*declared.old_paths, declared.canonical))}.",
            "Add it to old_paths, then run again.",
        )


def _mode(declared: Declared, found: Observed, source: Tree | None) -> str:
    at_target = found.trees.get(declared.target)
    occupied = found.target.kind == "directory" and at_target is not None and at_target.files > 0
    if source is None:
        return "adopt" if found.target.kind == "directory" else "create"
    if occupied and not (_noted(declared, found, "source") == source.path or found.identical):
        count = at_target.files if at_target else 0
        raise HostError(
            f"{declared.host}: {declared.target} holds {count} files that are no copy of "
            f"{source.path} ({source.files} files); wanted an empty or missing directory.",
            "Move one of the two away; nothing is merged or overwritten.",
        )
    return "rename" if found.same_filesystem and not occupied else "copy"


def _check_source(declared: Declared, source: Tree) -> None:
    if source.partials:
        raise HostError(
            f"{declared.host}: a download into {source.path} is in progress "
            f"({_some(source.partials)}); wanted a store that nobody is filling.",
            "Wait for the pull, or stop it, then run again.",
        )
    if source.problems and not declared.allow_damaged:
        raise HostError(
            f"{declared.host}: the store {source.path} is damaged: {_some(source.problems)}.",
            "Pull these models again or remove them; with allow_damaged it is moved as it is.",
        )


def _check_space(declared: Declared, found: Observed, source: Tree) -> None:
    missing = max(0, source.size - found.staged_bytes)
    needed = int(missing * SPACE_FACTOR) + declared.reserve_bytes
    if found.free_bytes is not None and found.free_bytes < needed:
        raise HostError(
            f"{declared.host}: the file system of {declared.target} has {found.free_bytes} bytes "
            f"free; wanted {needed} ({missing} still to copy, 5 % more and a reserve of "
            f"{declared.reserve_bytes}).",
            "Make room there, or declare another target.",
        )
    inodes = max(0, source.entries - found.staged_entries)
    if found.free_inodes is not None and found.free_inodes < inodes:
        raise HostError(
            f"{declared.host}: the file system of {declared.target} has {found.free_inodes} "
            f"inodes free; wanted {inodes}.",
            "Make room there, or declare another target.",
        )


def _build(declared: Declared, found: Observed, source: Tree | None, mode: str) -> Plan:
    steps: list[Step] = []
    target = declared.target
    if mode == "create":
        owners = f"{declared.owner}:{declared.group}"
        steps.append(
            Step("create", target, f"Create the store directory {target} ({owners}, 0755)")
        )
    if mode == "copy" and source is not None:
        steps += _copy_steps(declared, source)
    steps += _switch_steps(declared, found, source, mode)
    tree = source if source is not None else found.trees.get(target)
    if tree is not None and tree.differing:
        what = "the copy" if mode == "copy" else target
        owners = f"{declared.owner}:{declared.group}"
        sentence = f"Give {tree.differing} of {tree.entries} entries of {what} to {owners}"
        own = Step("own", target, f"{sentence}, writable by nobody else")
        steps.insert(1 if mode == "copy" else len(steps), own)
    moving = source is not None
    running = bool(declared.unit) and found.unit_state in RUNNING
    noted = _noted(declared, found, "unit_was_running")
    stopped_by_us = bool(declared.unit and noted) and not running
    if moving and stopped_by_us:
        sentence = f"Start {declared.unit}, which an interrupted run left stopped, on the old store"
        steps.insert(0, Step("resume", declared.unit, sentence))
    if moving and (running or stopped_by_us):
        place = next(i for i, step in enumerate(steps) if step.action in ("switch", "rename"))
        sentence = f"Stop {declared.unit} for the switch"
        steps.insert(place, Step("stop", declared.unit, sentence))
    restart = (moving and running) or stopped_by_us
    if restart:
        proof = " and see that it lists the same models" if declared.url else ""
        steps.append(Step("start", declared.unit, f"Start {declared.unit}{proof}"))
    retained = source.path if source is not None and mode == "copy" else found.retained
    if retained:
        beside = retained.partition(".hx-retained-")[0]
        sentence = f"Keep the old tree, read-only, as {beside}.hx-retained-<time>"
        steps.append(Step("retain", beside, sentence))
    path = source.path if source is not None else ""
    return Plan(mode if steps else "none", path, tuple(steps), restart)


def _copy_steps(declared: Declared, source: Tree) -> list[Step]:
    size = f"{source.files} files, {source.size} bytes"
    return [
        Step(
            "copy",
            declared.target,
            f"Copy the store {source.path} to {declared.target} ({size}) while it is in use",
            source=source.path,
        ),
        Step(
            "verify",
            declared.target,
            f"Verify {source.blobs} blobs and {source.manifests} manifests of the copy by digest",
        ),
    ]


def _switch_steps(
    declared: Declared, found: Observed, source: Tree | None, mode: str
) -> list[Step]:
    steps: list[Step] = []
    target, canonical = declared.target, declared.canonical
    if mode == "rename" and source is not None:
        sentence = f"Rename the store {source.path} to {target}"
        steps.append(Step("rename", target, sentence, source=source.path))
    elif mode == "copy" and source is not None:
        sentence = f"Put a link to the verified copy in the place of {source.path}"
        steps.append(Step("switch", source.path, sentence, value=target))
    by_name = {place.path: place for place in found.names}
    wanted = [(canonical, target)]
    wanted += [(name, canonical) for name in declared.old_paths if name != canonical]
    extra = source.path if source is not None else _noted(declared, found, "source")
    if extra and extra not in (*declared.old_paths, canonical):
        wanted.append((extra, canonical))
    for name, value in wanted:
        place = by_name.get(name)
        if place is not None:
            right = place.kind == "link" and place.value == value
            is_target = place.kind == "directory" and place.resolved == target
            if right or is_target or name == target:
                continue
        steps.append(Step("link", name, f"Link {name} to {value}", value=value))
    return steps


def _noted(declared: Declared, found: Observed, key: str) -> str:
    """Return what an interrupted run of this move noted in the journal."""
    ours = found.journal.get("target") == declared.target
    return str(found.journal.get(key) or "") if ours else ""


def _some(items: Sequence[str]) -> str:
    more = len(items) - _SHOWN
    return "; ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
