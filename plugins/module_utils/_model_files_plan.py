# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The planner of model files: what is wanted and what was found become a plan. No I/O."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import human_size
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._hub_download import partial_name
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files import (
    ARCHIVE,
    Declaration,
    Wanted,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_tree import Tree, defect

ADOPT, RECORD, PULL, REPULL = "adopt", "record", "pull", "repull"
REMOVE, SET_ACCESS, PRUNE_PARTIAL = "remove", "set_access", "prune_partial"
BRINGS = (PULL, REPULL)


@dataclass(frozen=True)
class Access:
    """Who the files belong to and their mode; None where it isn't declared."""

    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    said: str = ""

    @property
    def directory_mode(self) -> int | None:
        """The mode of directories: who may read may enter."""
        return None if self.mode is None else self.mode | (self.mode & 0o444) >> 2

    def differs(self, info: Any) -> bool:
        """Say whether a file or directory has another access than declared."""
        mode = self.directory_mode if stat.S_ISDIR(info.st_mode) else self.mode
        return (
            (self.uid is not None and info.st_uid != self.uid)
            or (self.gid is not None and info.st_gid != self.gid)
            or (mode is not None and stat.S_IMODE(info.st_mode) != mode)
        )


@dataclass(frozen=True)
class Step:
    """One thing to do; ``size`` is what it downloads or frees."""

    action: str
    target: str
    reason: str
    size: int = 0
    files: int = 0
    origin: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the form that results carry."""
        return {
            "action": self.action,
            "target": self.target,
            "reason": self.reason,
            "bytes": self.size,
            "files": self.files,
        }


@dataclass
class Plan:
    """What to do.

    Attributes:
        steps: in order.
        fetch: the files to bring, those excepted that an earlier run has verified.
        staged: paths that an earlier run has brought and verified.
        keep: paths in the directory that stay, declared or not.
        drop: paths in the directory that go.
        stale: full paths beside the directory that go.
        undeclared: paths that nobody declared.
        resumed: bytes that earlier runs have brought.
        whole: whether everything has to come from the archive.
    """

    steps: list[Step] = field(default_factory=list)
    fetch: list[Wanted] = field(default_factory=list)
    staged: list[str] = field(default_factory=list)
    keep: list[str] = field(default_factory=list)
    drop: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    undeclared: list[str] = field(default_factory=list)
    resumed: int = 0
    whole: bool = False
    space_needed: int = 0

    @property
    def changes(self) -> list[Step]:
        """The steps that change the host."""
        return [step for step in self.steps if step.action != ADOPT]

    def size_of(self, *actions: str) -> int:
        """Sum the bytes of the steps of some kinds."""
        return sum(step.size for step in self.steps if step.action in actions)

    @property
    def builds(self) -> bool:
        """Whether the directory is replaced by a new one."""
        return any(step.action in (PULL, REPULL, REMOVE) for step in self.steps)


@dataclass(frozen=True)
class Found:
    """What was found on the host.

    Attributes:
        dest: the directory, its wanted files identified.
        staging: what an unfinished run left beside it, wanted files identified.
        old: what a finished run left beside it.
        same_source: whether the note in the directory names the declared source.
        recorded: whether the note says what it has to say.
        archive_size: the size of the archive that everything would have to come from; -1 unknown.
        archive_remote: whether it would have to be downloaded.
    """

    dest: Tree
    staging: Tree
    old: Tree
    same_source: bool = False
    recorded: bool = False
    archive_size: int = -1
    archive_remote: bool = False


def make_plan(
    declaration: Declaration, wanted: Sequence[Wanted] | None, found: Found, access: Access
) -> Plan:
    """Compare; ``wanted`` is None when only the archive knows which files there are."""
    plan = Plan()
    dest, staging = found.dest, found.staging
    names = None if wanted is None else {item.path for item in wanted}
    defects = {
        item.path: defect(item, dest.entries.get(item.path))
        for item in wanted or ()
        if defect(item, dest.entries.get(item.path))
    }
    missing = [item for item in wanted or () if item.path in defects]
    plan.whole = wanted is None or (_from_archive(declaration) and bool(missing))
    if not plan.whole:
        plan.staged = [
            item.path for item in missing if not defect(item, staging.entries.get(item.path))
        ]
        plan.fetch = [item for item in missing if item.path not in plan.staged]
    foreign = [path for path in dest.entries if names is None or path not in names]
    _sort_out(plan, declaration, dest, foreign)
    plan.keep += [] if plan.whole else sorted((names or set()) & set(dest.entries) - set(defects))
    _prune(plan, declaration, found, bool(missing) or wanted is None)
    _pull(plan, declaration, found, defects, missing)
    if not declaration.in_place:
        plan.steps += [
            Step(REMOVE, dest.path(path), "it is not declared", dest.entries[path].size, 1)
            for path in plan.drop
        ]
    _touch_up(plan, declaration, found, access, names)
    return plan


def plan_absence(declaration: Declaration, found: Found) -> Plan:
    """Remove the directory and what is beside it.

    Raises:
        HostError: it may be something else than a model.
    """
    dest, plan = found.dest, Plan()
    if dest.exists:
        if not dest.note and "config.json" not in dest.entries:
            raise HostError(
                f"{dest.root} holds neither a note of this module nor a config.json, so it may be "
                "something else than a model.",
                "Look at it and remove it by hand.",
            )
        entries = dest.entries.values()
        size = sum(entry.size for entry in entries)
        plan.steps.append(Step(REMOVE, dest.root, "it is declared absent", size, len(entries)))
    _prune(plan, declaration, found, False)
    return plan


def _sort_out(plan: Plan, declaration: Declaration, dest: Tree, foreign: Iterable[str]) -> None:
    """Decide about files that aren't wanted: those an earlier source brought go."""
    for path in sorted(foreign):
        ours = path in dest.noted_files
        if (ours or declaration.exclusive) and not declaration.in_place:
            plan.drop.append(path)
        else:
            plan.keep.append(path)
            plan.undeclared.append(path)


def _prune(plan: Plan, declaration: Declaration, found: Found, pulls: bool) -> None:
    """Remove what is beside the directory and doesn't serve this plan."""
    wished = {partial_name(item.sha256, item.git_sha1) for item in plan.fetch}
    if plan.whole and declaration.source:
        wished.add(partial_name(declaration.source.pin, ""))
    for tree in (found.staging, found.old):
        if not tree.exists:
            continue
        useful = set(plan.staged) | wished | set(plan.keep) if tree is found.staging else set()
        if pulls and tree is found.staging:  # whatever stays there becomes part of the model
            stale = [entry for path, entry in tree.entries.items() if path not in useful]
            plan.stale += [tree.path(entry.path) for entry in stale]
        elif declaration.prune_partials or tree is found.staging:
            stale = list(tree.entries.values())
            plan.stale.append(tree.root)
        else:
            continue
        if pulls and not stale:
            continue
        size = sum(entry.size for entry in stale if entry.info.st_nlink == 1)
        plan.steps.append(
            Step(PRUNE_PARTIAL, tree.root, "an unfinished run left it", size, len(stale))
        )
    for item in plan.fetch:
        partial = found.staging.entries.get(partial_name(item.sha256, item.git_sha1))
        plan.resumed += min(partial.size, max(item.size, 0)) if partial else 0
    sizes = found.staging.entries
    plan.resumed += sum(sizes[path].size for path in plan.staged)


def _pull(
    plan: Plan,
    declaration: Declaration,
    found: Found,
    defects: Mapping[str, str],
    missing: Sequence[Wanted],
) -> None:
    source = declaration.source
    if not source or not (missing or plan.whole):
        return
    if plan.whole:
        total, count = max(found.archive_size, 0), 0
        partial = found.staging.entries.get(partial_name(source.pin, ""))
        plan.resumed = min(partial.size, total) if partial and found.archive_remote else 0
        # unpacked it takes about as much again, watched while it is unpacked
        plan.space_needed = total + (total - plan.resumed if found.archive_remote else 0)
    else:
        total, count = sum(max(item.size, 0) for item in missing), len(missing)
        plan.space_needed = total - plan.resumed
    again = found.same_source and found.dest.exists
    reason = "it is not there"
    if found.dest.exists:
        listed = [f"{path}: {why}" for path, why in defects.items()]
        more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
        if again or not found.dest.note:
            reason = "; ".join(listed[:3]) + more or "what is there is not from this archive"
        else:
            reason = f"the source is another ({len(defects)} files differ)"
    plan.steps.append(
        Step(
            REPULL if again else PULL,
            declaration.name,
            reason,
            total - plan.resumed,
            count,
            source.said,
        )
    )


def _touch_up(
    plan: Plan,
    declaration: Declaration,
    found: Found,
    access: Access,
    names: set[str] | None,
) -> None:
    """Adopt what is as declared, note it, and give it its owner and mode."""
    dest = found.dest
    if not plan.builds:
        count = len(names or ())
        size = sum(dest.entries[path].size for path in names or ())
        plan.steps.append(Step(ADOPT, declaration.name, "it is as declared", size, count))
        if not found.recorded:
            why = "so that the next run needn't read them"
            plan.steps.append(Step(RECORD, declaration.name, why, 0, count))
    if declaration.in_place:
        return
    ours = [dest.entries[path].info for path in plan.keep if path not in plan.undeclared]
    ours += list(dest.directories.values())
    ours += [dest.note_info] if dest.note_info and not plan.builds else []
    differing = sum(1 for info in ours if access.differs(info))
    if differing:
        plan.steps.append(Step(SET_ACCESS, dest.root, access.said, 0, differing))


def _from_archive(declaration: Declaration) -> bool:
    return declaration.source is not None and declaration.source.kind == ARCHIVE


def check_space(plan: Plan, reserve: int, free: int, path: str) -> None:
    """Refuse a plan that the disk can't hold.

    Raises:
        HostError: it would leave less than the reserve.
    """
    freed = plan.size_of(PRUNE_PARTIAL)
    if plan.space_needed and free + freed - plan.space_needed < reserve:
        raise HostError(
            f"the disk of {path} has {human_size(free)} free; the plan needs "
            f"{human_size(plan.space_needed)} and {human_size(reserve)} must stay free.",
            "Free some space, or lower reserve_bytes.",
        )


def sentences(steps: Iterable[Step]) -> list[str]:
    """Say what the steps change, one sentence each."""
    return [_sentence(step) for step in steps if step.action != ADOPT]


def _sentence(step: Step) -> str:
    size = human_size(step.size)
    if step.action in (PULL, REPULL):
        verb = "Pull" if step.action == PULL else "Pull again"
        return f"{verb} {step.target} ({size}) from {step.origin}: {step.reason}"
    if step.action == RECORD:
        return f"Note the checksums of the {step.files} files of {step.target}, {step.reason}"
    if step.action == SET_ACCESS:
        return f"Give {step.files} entries of {step.target} {step.reason}"
    if step.action == REMOVE:
        return f"Remove {step.target} ({size}): {step.reason}"
    return f"Prune {step.files} files in {step.target} ({size}): {step.reason}"
