# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Permissions: finds what everybody may write to, and plans what has to be put right."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    WARN,
    Verdict,
    judge,
)

OTHERS_WRITE = 0o002


@dataclass(frozen=True)
class Found:
    """A file or directory with its permissions."""

    path: str
    mode: int
    owner: str = ""
    group: str = ""
    kind: str = "file"


@dataclass(frozen=True)
class Expectation:
    """What a critical file or directory must be; an empty field is not looked at.

    ``fix`` is false for a path that another part of a run puts right: it is judged only.
    """

    path: str
    owner: str = ""
    group: str = ""
    mode: str = ""
    fix: bool = True


@dataclass(frozen=True)
class Change:
    """One change of one path: a mode, or an owner and a group."""

    path: str
    action: str
    mode: int | None = None
    owner: str = ""
    group: str = ""
    old_mode: int = 0
    old_owner: str = ""
    old_group: str = ""

    def sentence(self) -> str:
        """Say what the change does."""
        if self.action == "chown":
            return (
                f"Give {self.path} to {self.owner}:{self.group}"
                f" (was {self.old_owner}:{self.old_group})."
            )
        if self.action == "remove_world_write":
            return (
                f"Take the write permission for everybody from {self.path}"
                f" ({self.old_mode:04o} -> {self.mode:04o})."
            )
        return f"Set the mode of {self.path} to {self.mode:04o} (was {self.old_mode:04o})."

    def as_dict(self) -> dict[str, Any]:
        """Return the entry of a plan."""
        entry: dict[str, Any] = {"action": self.action, "target": self.path}
        if self.mode is not None:
            entry.update(mode=f"{self.mode:04o}", old_mode=f"{self.old_mode:04o}")
        if self.action == "chown":
            entry.update(owner=self.owner, group=self.group)
            entry.update(old_owner=self.old_owner, old_group=self.old_group)
        return entry


def world_writable(paths: Iterable[str], exclude: Iterable[str] = ()) -> list[Found]:
    """List files and directories below some paths that everybody may write to.

    Symbolic links and sticky directories are not counted, other file systems not entered.
    Paths are reported with their links resolved, each once, in sorted order.
    """
    skipped = {os.path.realpath(path) for path in exclude} | {os.path.normpath(p) for p in exclude}
    found: dict[str, Found] = {}
    for root in paths:
        real = os.path.realpath(root)
        try:
            device = os.lstat(real).st_dev
        except OSError:
            continue
        _search(real, device, skipped, found)
    return [found[path] for path in sorted(found)]


def _search(path: str, device: int, skipped: set[str], found: dict[str, Found]) -> None:
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current in skipped:
            continue
        try:
            status = os.lstat(current)
        except OSError:
            continue
        directory = stat.S_ISDIR(status.st_mode)
        if status.st_dev != device or not (directory or stat.S_ISREG(status.st_mode)):
            continue
        sticky = directory and status.st_mode & stat.S_ISVTX
        if status.st_mode & OTHERS_WRITE and not sticky:
            kind = "directory" if directory else "file"
            found[current] = Found(current, stat.S_IMODE(status.st_mode), kind=kind)
        if directory:
            try:
                waiting.extend(os.path.join(current, name) for name in os.listdir(current))
            except OSError:
                continue


def plan(
    found: Sequence[Found],
    observed: Mapping[str, Found | None],
    expectations: Sequence[Expectation],
    allowed: Iterable[str] = (),
) -> list[Change]:
    """Return the changes that bring permissions to what is expected; only what differs.

    Args:
        found: what everybody may write to.
        observed: the expected paths as they are; ``None`` for a missing one.
        expectations: what critical paths must be.
        allowed: paths that everybody may write to.
    """
    changes = []
    fixed = {item.path for item in expectations if item.fix and item.mode}
    permitted = set(allowed)
    for item in found:
        if item.path in permitted or item.path in fixed:
            continue
        mode = item.mode & ~OTHERS_WRITE
        changes.append(Change(item.path, "remove_world_write", mode=mode, old_mode=item.mode))
    for wanted in expectations:
        present = observed.get(wanted.path)
        if wanted.fix and present is not None:
            changes.extend(_corrections(wanted, present))
    return changes


def _corrections(wanted: Expectation, present: Found) -> list[Change]:
    changes = []
    owner, group = wanted.owner or present.owner, wanted.group or present.group
    if (owner, group) != (present.owner, present.group):
        changes.append(
            Change(
                wanted.path,
                "chown",
                owner=owner,
                group=group,
                old_owner=present.owner,
                old_group=present.group,
            )
        )
    if wanted.mode and int(wanted.mode, 8) != present.mode:
        changes.append(
            Change(wanted.path, "chmod", mode=int(wanted.mode, 8), old_mode=present.mode)
        )
    return changes


def verdicts(
    found: Sequence[Found],
    observed: Mapping[str, Found | None],
    expectations: Sequence[Expectation],
    allowed: Iterable[str] = (),
) -> list[Verdict]:
    """Judge permissions as they are: one verdict for everybody's write access, one per path."""
    permitted = set(allowed)
    open_paths = [item.path for item in found if item.path not in permitted]
    judged = [
        judge(
            "world_writable",
            not open_paths,
            value=len(open_paths),
            limit=0,
            evidence=", ".join(open_paths[:5]) or "no file or directory that everybody may write",
        )
    ]
    for wanted in expectations:
        present = observed.get(wanted.path)
        judged.append(_judge_path(wanted, present))
    return judged


def _judge_path(wanted: Expectation, present: Found | None) -> Verdict:
    limit = " ".join(
        part for part in (f"{wanted.owner or '*'}:{wanted.group or '*'}", wanted.mode) if part
    )
    if present is None:
        return Verdict(
            "permissions", WARN, wanted.path, "missing", limit, evidence="the path does not exist"
        )
    fits = (
        wanted.owner in ("", present.owner)
        and wanted.group in ("", present.group)
        and (not wanted.mode or int(wanted.mode, 8) == present.mode)
    )
    value = f"{present.owner}:{present.group} {present.mode:04o}"
    return judge(
        "permissions",
        fits,
        subject=wanted.path,
        value=value,
        limit=limit,
        evidence="read with lstat",
        otherwise=FAIL,
    )


def diff(changes: Sequence[Change]) -> dict[str, str]:
    """Return the permissions before and after some changes, a line for each."""
    before, after = [], []
    for change in changes:
        if change.action == "chown":
            before.append(f"{change.path} {change.old_owner}:{change.old_group}\n")
            after.append(f"{change.path} {change.owner}:{change.group}\n")
        else:
            before.append(f"{change.path} {change.old_mode:04o}\n")
            after.append(f"{change.path} {change.mode:04o}\n")
    return {"before": "".join(before), "after": "".join(after)}
