# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Putting a symbolic link where something else stands, without losing what stands there."""

from __future__ import annotations

import contextlib
import filecmp
import os
import stat
import time
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    fsync_directory,
    place_symlink,
    set_access,
)

NOTHING = "nothing"
LINK = "link"
FILE = "file"
EMPTY_DIRECTORY = "empty directory"
FULL_DIRECTORY = "directory with content"
MOUNT_POINT = "mount point"
SPECIAL = "special file"

KEEP_TRIES = 1000


@dataclass(frozen=True)
class PathState:
    """What stands at a path, not following a link there."""

    kind: str
    link: str = ""
    mtime_ns: int = 0


def read_path(path: str) -> PathState:
    """Look at a path."""
    try:
        info = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return PathState(NOTHING)
    if stat.S_ISLNK(info.st_mode):
        return PathState(LINK, link=os.readlink(path))
    if stat.S_ISREG(info.st_mode):
        return PathState(FILE, mtime_ns=info.st_mtime_ns)
    if not stat.S_ISDIR(info.st_mode):
        return PathState(SPECIAL)
    if os.path.ismount(path):
        return PathState(MOUNT_POINT)
    with os.scandir(path) as entries:
        return PathState(FULL_DIRECTORY if any(entries) else EMPTY_DIRECTORY)


def kept_name(path: str, state: PathState) -> str:
    """Name under which a file in the way is kept, after the time of its last change (UTC).

    A dry run names the same file as the real run, and a run that was cut off in between finds
    the name that it had begun to use.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(state.mtime_ns // 10**9))
    for number in range(1, KEEP_TRIES):
        suffix = "" if number == 1 else f".{number}"
        name = f"{path}.local-{stamp}{suffix}.bak"
        if not os.path.lexists(name) or _same_content(path, name):
            return name
    raise HostError(f"{path}: {KEEP_TRIES} kept files of the same second exist, wanted fewer.")


def _same_content(path: str, other: str) -> bool:
    if not stat.S_ISREG(os.lstat(other).st_mode):
        return False
    return os.path.samefile(path, other) or filecmp.cmp(path, other, shallow=False)


def plan_link(
    path: str, target: str, state: PathState, *, keep: bool, kept: str, host: str
) -> list[dict[str, Any]]:
    """Return the steps after which ``path`` is a link with the text ``target``.

    Args:
        path: where the link must stand.
        target: the link's text.
        state: what stands there now.
        keep: whether a regular file in the way may be kept aside.
        kept: the name for that file.
        host: the host's name, for messages.
    """
    link = {"target": path, "link": target}
    if state.kind == NOTHING:
        return [{"action": "create_link", **link}]
    if state.kind == LINK:
        if state.link == target:
            return []
        return [{"action": "replace_link", **link, "was": state.link}]
    if state.kind == FILE and keep:
        return [
            {"action": "keep_file", "target": kept, "source": path},
            {"action": "replace_file", **link},
        ]
    if state.kind == EMPTY_DIRECTORY:
        return [
            {"action": "remove_empty_directory", "target": path},
            {"action": "create_link", **link},
        ]
    raise HostError(
        f"{host}: {path} is a {state.kind}, wanted a symbolic link to {target}.",
        "Look at what is there, move it away and run again.",
    )


def check_target(path: str, target: str, host: str) -> None:
    """Refuse a link that would point nowhere."""
    if not os.path.exists(os.path.join(os.path.dirname(path), target)):
        raise HostError(
            f"{host}: {path} is to point to {target}, which doesn't exist.",
            "Create it first, or set require_target to false.",
        )


def check_path(path: str, target: str, host: str) -> None:
    """Refuse paths that can't become a link that anybody can follow."""
    if not target or "\0" in target or "\n" in target:
        raise HostError(f"{host}: target is {target!r}, wanted a path.")
    if not os.path.isabs(path) or os.path.normpath(path) == "/":
        raise HostError(f"{host}: path is {path!r}, wanted an absolute path below /.")
    whole = os.path.normpath(os.path.join(os.path.dirname(path), target))
    if whole == os.path.normpath(path):
        raise HostError(f"{host}: {path} would point to itself.", "Name another target.")


def apply_link(plan: list[dict[str, Any]], host: str) -> None:
    """Carry out a plan of :func:`plan_link`; at any moment the path has something in it.

    Only an empty directory has to go before the link can take its place.
    """
    for step in plan:
        path = step["target"]
        if step["action"] == "keep_file":
            _keep(step["source"], path)
        elif step["action"] == "remove_empty_directory":
            os.rmdir(path)
        else:
            _put_link(path, step["link"], host)


def _keep(source: str, kept: str) -> None:
    # A second name for the same file: it costs nothing, and the first name is never gone.
    with contextlib.suppress(FileExistsError):
        os.link(source, kept, follow_symlinks=False)
    # A copy that anybody else may write to is worth nothing as a record.
    info = os.lstat(kept)
    set_access(kept, info, mode=stat.S_IMODE(info.st_mode) & 0o7755)
    fsync_directory(os.path.dirname(kept))


def _put_link(path: str, target: str, host: str) -> None:
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise HostError(f"{host}: the directory {directory} doesn't exist.", "Create it first.")
    place_symlink(path, target)
