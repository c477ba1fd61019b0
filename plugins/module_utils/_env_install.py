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
    return f"{_user(state.uid)}:{_group(state.gid)} {state.mode:04o}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


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
    for step in plan:
        target = step["target"]
        if step["action"] == "backup":
            write_atomic(target, state.content or b"", access, state.mtime_ns)
        elif step["action"] == "permissions":
            _set_access(target, access)
        else:
            write_atomic(target, content, access)


def _set_access(path: str, access: Access) -> None:
    # Closed before it is handed over: nobody reads it in between who must not.
    os.chmod(path, access.mode & 0o600)
    os.chown(path, _number(access.uid), _number(access.gid))
    os.chmod(path, access.mode)


def write_atomic(path: str, content: bytes, access: Access, mtime_ns: int | None = None) -> None:
    """Write a file so that at any moment the old one or the whole new one stands there."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.hx-new")  # one name: a crash leaves one file
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchown(stream.fileno(), _number(access.uid), _number(access.gid))
            os.fchmod(stream.fileno(), access.mode)
            if mtime_ns is not None:
                os.utime(stream.fileno(), ns=(mtime_ns, mtime_ns))
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(directory)


def sync_directory(directory: str) -> None:
    """Make sure that a rename in a directory survives a power cut."""
    handle = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _number(identifier: int | None) -> int:
    return -1 if identifier is None else identifier
