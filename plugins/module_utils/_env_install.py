# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Putting a small file in place: look, plan, and act so that a crash leaves old or new."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
import time
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    group_name,
    set_access,
    user_name,
    write_atomic,
)

BACKUP_TRIES = 1000


@dataclass(frozen=True)
class FileState:
    """A file as it stands on the host; ``content`` is ``None`` when there is none."""

    content: bytes | None = None
    uid: int = -1
    gid: int = -1
    mode: int = 0
    mtime_ns: int = 0
    is_link: bool = False


@dataclass(frozen=True)
class Access:
    """Who may use a file. An id is ``None`` while the account doesn't exist yet."""

    owner: str
    group: str
    uid: int | None
    gid: int | None
    mode: int

    def matches(self, state: FileState) -> bool:
        """Tell whether a file has this owner, group and mode."""
        return (state.uid, state.gid, state.mode) == (self.uid, self.gid, self.mode)

    def __str__(self) -> str:
        return f"{self.owner}:{self.group} {self.mode:04o}"


def read_state(path: str, host: str) -> FileState:
    """Read what stands at a path; anything but a file or a link to one is an error."""
    try:
        info = os.lstat(path)
        is_link = stat.S_ISLNK(info.st_mode)
        if is_link:
            info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):
            raise HostError(
                f"{host}: {path} is not a regular file, wanted a file or nothing there.",
                "Move it away and run again.",
            )
        with open(path, "rb") as handle:
            content = handle.read()
    except FileNotFoundError:
        return FileState(is_link=os.path.islink(path))
    except OSError as error:
        raise HostError(f"{host}: {path} can't be read: {error.strerror}.") from error
    mode = stat.S_IMODE(info.st_mode)
    return FileState(content, info.st_uid, info.st_gid, mode, info.st_mtime_ns, is_link)


def backup_name(path: str, state: FileState) -> str:
    """Name the backup after the time when the old file was last changed (UTC).

    A dry run names the same file as the real run, and a run that was cut off after its backup
    finds it again.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(state.mtime_ns // 10**9))
    first = f"{path}.bak.{stamp}"
    for number in range(1, BACKUP_TRIES):
        name = first if number == 1 else f"{first}.{number}"
        if not os.path.lexists(name) or holds(name, state.content):
            return name
    raise HostError(f"{path}: {BACKUP_TRIES} backups of the same second exist, wanted fewer.")


def holds(path: str, content: bytes | None) -> bool:
    """Tell whether a regular file has this content."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        with open(path, "rb") as handle:
            return handle.read() == content
    except OSError:
        return False


def plan_install(
    path: str,
    state: FileState,
    content: bytes,
    access: Access,
    *,
    backup: str,
    backup_exists: bool,
) -> list[dict[str, Any]]:
    """Return the steps from the file as it is to the file as it must be.

    Args:
        path: the file.
        state: what stands there now.
        content: what it must hold.
        access: who may use it.
        backup: the name under which the old file is kept; empty keeps none.
        backup_exists: whether the backup is already there.
    """
    if state.content is None:
        return [_step("create", path, access)]
    if state.content != content or state.is_link:
        steps = [_step("update", path, access)]
        if backup and not backup_exists and state.content != content:
            steps.insert(0, {"action": "backup", "target": backup, "source": path})
        return steps
    if not access.matches(state):
        return [{**_step("permissions", path, access), "found": describe_access(state)}]
    return []


def _step(action: str, path: str, access: Access) -> dict[str, Any]:
    return {"action": action, "target": path, "access": str(access)}


def describe_access(state: FileState) -> str:
    """Say who may use a file, in the same form as :class:`Access` does."""
    return f"{user_name(state.uid)}:{group_name(state.gid)} {state.mode:04o}"


def find_access(owner: str, group: str, mode: str, host: str) -> Access:
    """Look the account up and read the mode."""
    try:
        bits = int(mode, 8)
    except ValueError:
        bits = -1
    if not 0 <= bits <= 0o7777:
        raise HostError(f"{host}: mode is {mode!r}, wanted octal digits such as '0640'.")
    uid: int | None = None
    gid: int | None = None
    with contextlib.suppress(KeyError):
        uid = int(owner) if owner.isdigit() else pwd.getpwnam(owner).pw_uid
    with contextlib.suppress(KeyError):
        gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    return Access(owner, group, uid, gid, bits)


def present_access(state: FileState) -> Access:
    """Return the access that a file has, for one whose content alone is to change."""
    owner, group = user_name(state.uid), group_name(state.gid)
    return Access(owner, group, state.uid, state.gid, state.mode)


def check_possible(path: str, access: Access, host: str) -> None:
    """Refuse, before anything is written, what can't succeed."""
    for kind, name, number in (
        ("user", access.owner, access.uid),
        ("group", access.group, access.gid),
    ):
        if number is None:
            raise HostError(
                f"{host}: {path} is to belong to the {kind} {name}, which doesn't exist.",
                "Create the account first.",
            )
    if not os.path.isdir(os.path.dirname(path)):
        raise HostError(
            f"{host}: the directory {os.path.dirname(path)} doesn't exist.", "Create it first."
        )


def apply_install(
    plan: list[dict[str, Any]], state: FileState, content: bytes, access: Access
) -> None:
    """Carry out a plan of :func:`plan_install`."""
    owner = (_number(access.uid), _number(access.gid))
    for step in plan:
        target = step["target"]
        if step["action"] == "backup":
            write_atomic(target, state.content or b"", access.mode, owner, state.mtime_ns)
        elif step["action"] == "permissions":
            info = os.lstat(target)
            # Closed before it is handed over: nobody reads it in between who must not.
            set_access(target, info, mode=access.mode & 0o600)
            set_access(target, info, owner=owner, mode=access.mode)
        else:
            write_atomic(target, content, access.mode, owner)


def _number(identifier: int | None) -> int:
    return -1 if identifier is None else identifier
