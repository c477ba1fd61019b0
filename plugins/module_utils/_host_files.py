# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Bring directories and files to a host: everything is looked at before anything is written."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import _env_install as install
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import set_access

NOT_TEXT = "(not shown: it is no text)\n"
Step = dict[str, Any]


@dataclass(frozen=True)
class Directory:
    """A directory that has to be there."""

    path: str
    access: install.Access


@dataclass(frozen=True)
class File:
    """A file that has to be there with this content."""

    path: str
    access: install.Access
    content: bytes


@dataclass
class Plan:
    """What has to be done, and what it changes.

    Attributes:
        entries: everything that is wanted, the missing parents of directories included.
        steps: ``{action, target, access[, found]}`` in order; the actions are ``make_directory``,
            ``create``, ``update`` and ``permissions``.
        diff: entries as Ansible's ``--diff`` shows them.
    """

    entries: list[Directory | File]
    steps: list[Step] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)


def plan(directories: Iterable[Directory], files: Iterable[File], host: str) -> Plan:
    """Compare what is there with what has to be.

    Missing parents of a directory are made like it.

    Raises:
        HostError: something else stands at one of the paths, or a path is named twice.
    """
    entries: list[Directory | File] = [*directories, *files]
    seen = set()
    for entry in entries:
        if not os.path.isabs(entry.path):
            raise HostError(f"{host}: found the path {entry.path!r}, wanted an absolute one.")
        if entry.path in seen:
            raise HostError(f"{host}: {entry.path} is named twice, wanted it once.")
        seen.add(entry.path)
    found = Plan(_with_parents(entries, seen))
    for entry in found.entries:
        if isinstance(entry, Directory):
            _plan_directory(found, entry, host)
        else:
            _plan_file(found, entry, host)
    return found


def _with_parents(entries: Iterable[Directory | File], named: set[str]) -> list[Directory | File]:
    complete: list[Directory | File] = []
    for entry in entries:
        missing = []
        parent = os.path.dirname(entry.path)
        while isinstance(entry, Directory) and parent not in named and not os.path.lexists(parent):
            missing.append(Directory(parent, entry.access))
            named.add(parent)
            parent = os.path.dirname(parent)
        complete += [*reversed(missing), entry]
    return complete


def apply(found: Plan, host: str) -> None:
    """Carry a plan out; each file is replaced as a whole.

    Raises:
        HostError: an account or a directory is missing.
    """
    by_path = {entry.path: entry for entry in found.entries}
    for step in found.steps:
        entry = by_path[step["target"]]
        install.check_possible(entry.path, entry.access, host)
        if isinstance(entry, Directory):
            _make(entry, step)
        else:
            state = install.read_state(entry.path, host)
            install.apply_install([step], state, entry.content, entry.access)


def _plan_directory(found: Plan, wanted: Directory, host: str) -> None:
    step = {"target": wanted.path, "access": str(wanted.access)}
    try:
        info = os.stat(wanted.path)
    except FileNotFoundError:
        if os.path.islink(wanted.path):
            raise HostError(
                f"{host}: {wanted.path} is a link that leads nowhere, wanted a directory."
            ) from None
        found.steps.append({"action": "make_directory", **step})
        found.diff.append(_entry(wanted.path, "", f"directory {wanted.access}\n"))
        return
    except OSError as error:
        raise HostError(f"{host}: {wanted.path} can't be read: {error.strerror}.") from error
    if not stat.S_ISDIR(info.st_mode):
        raise HostError(
            f"{host}: {wanted.path} is no directory, wanted one.", "Move it away and run again."
        )
    state = install.FileState(b"", info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode))
    _compare_access(found, wanted, state)


def _plan_file(found: Plan, wanted: File, host: str) -> None:
    state = install.read_state(wanted.path, host)
    steps = install.plan_install(
        wanted.path, state, wanted.content, wanted.access, backup="", backup_exists=False
    )
    if not steps:
        return
    if steps[0]["action"] == "permissions":
        _compare_access(found, wanted, state)
        return
    found.steps += steps
    found.diff.append(_entry(wanted.path, _text(state.content), _text(wanted.content)))


def _compare_access(found: Plan, wanted: Directory | File, state: install.FileState) -> None:
    if wanted.access.matches(state):
        return
    was = install.describe_access(state)
    found.steps.append(
        {
            "action": "permissions",
            "target": wanted.path,
            "access": str(wanted.access),
            "found": was,
        }
    )
    entry = _entry(wanted.path, f"{was}\n", f"{wanted.access}\n")
    found.diff.append({**entry, "after_header": f"{wanted.path} (permissions)"})


def _make(wanted: Directory, step: Step) -> None:
    if step["action"] == "make_directory":
        # For nobody else until it belongs to who shall have it; a killed run's is made right later.
        with contextlib.suppress(FileExistsError):
            os.mkdir(wanted.path, 0o700)
    path = os.path.realpath(wanted.path)
    owner = (
        -1 if wanted.access.uid is None else wanted.access.uid,
        -1 if wanted.access.gid is None else wanted.access.gid,
    )
    set_access(path, os.lstat(path), owner=owner, mode=wanted.access.mode)


def _entry(path: str, before: str, after: str) -> dict[str, str]:
    return {"before_header": path, "after_header": path, "before": before, "after": after}


def _text(content: bytes | None) -> str:
    if content is None:
        return ""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return NOT_TEXT


def sentence(step: Step, files: Iterable[File]) -> str:
    """Say what a step does."""
    path, access = step["target"], step["access"]
    if step["action"] == "make_directory":
        return f"Make the directory {path} for {access}"
    if step["action"] == "permissions":
        return f"Give {path} to {access}, it was {step['found']}"
    size = next(len(entry.content) for entry in files if entry.path == path)
    word = "Write" if step["action"] == "create" else "Replace"
    return f"{word} {path}, {size} bytes, {access}"
