# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What a service was last known to work with, and putting that back.

Below a service's own folder ``good`` holds the files and the release that served a request last,
``previous`` the state before that. Each is a directory that is renamed into place as a whole.
Secrets are not among the files.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    file_sha256,
    fsync_directory,
    make_directories,
    place_symlink,
    write_atomic,
)

GOOD = "good"
PREVIOUS = "previous"
_NEW = "new"
_STATE = "state.json"


@dataclass(frozen=True)
class Kept:
    """A remembered state: the release, and the files with their access."""

    release: str = ""
    files: tuple[dict[str, Any], ...] = field(default_factory=tuple)

    def sums(self) -> dict[str, str]:
        """Return the digest of each file."""
        return {entry["path"]: entry["sha256"] for entry in self.files}


def link_of(folder: str) -> str:
    """Return the path of the link to a service's release."""
    return os.path.join(folder, "release")


def release_of(folder: str) -> str:
    """Return the release that a service leads to, empty for none."""
    try:
        return os.readlink(link_of(folder))
    except OSError:
        return ""


def place_release(folder: str, release: str) -> None:
    """Let a service lead to a release, in one step."""
    if release and release_of(folder) != release:
        make_directories(folder)
        place_symlink(link_of(folder), release)


def current(folder: str, paths: Iterable[str]) -> Kept:
    """Return what a service is declared to run with now."""
    files = []
    for path in sorted(set(paths)):
        with contextlib.suppress(FileNotFoundError):
            info = os.stat(path)
            files.append(
                {
                    "path": path,
                    "sha256": file_sha256(path),
                    "mode": info.st_mode & 0o7777,
                    "uid": info.st_uid,
                    "gid": info.st_gid,
                }
            )
    return Kept(release_of(folder), tuple(files))


def read(folder: str, name: str) -> Kept | None:
    """Return a remembered state, None when there is none."""
    try:
        with open(os.path.join(folder, name, _STATE), encoding="utf-8") as stream:
            state = json.load(stream)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Kept(str(state["release"]), tuple(state["files"]))


def same(one: Kept | None, other: Kept | None) -> bool:
    """Tell whether two states start a service with the same."""
    if one is None or other is None:
        return one is other
    return one.release == other.release and one.sums() == other.sums()


def remember(folder: str, paths: Sequence[str]) -> bool:
    """Keep the present state as the good one and that as the previous; tell whether it is new."""
    _complete(folder)
    now = current(folder, paths)
    if same(now, read(folder, GOOD)):
        return False
    _write(folder, now)
    _rotate(folder)
    return True


def _write(folder: str, state: Kept) -> None:
    make_directories(folder)
    target = os.path.join(folder, _NEW)
    shutil.rmtree(target, ignore_errors=True)
    make_directories(target, 0o700)
    for number, entry in enumerate(state.files):
        with open(entry["path"], "rb") as stream:
            write_atomic(os.path.join(target, str(number)), stream.read(), 0o600)
    content = json.dumps({"release": state.release, "files": state.files}, indent=2) + "\n"
    write_atomic(os.path.join(target, _STATE), content.encode(), 0o600)  # last: it makes it whole


def _rotate(folder: str) -> None:
    good, previous, new = (os.path.join(folder, name) for name in (GOOD, PREVIOUS, _NEW))
    if os.path.isdir(good):
        shutil.rmtree(previous, ignore_errors=True)
        os.rename(good, previous)
    os.rename(new, good)
    fsync_directory(folder)


def _complete(folder: str) -> None:
    """Finish the rotation of a run that was killed in the middle of it."""
    new, good = os.path.join(folder, _NEW), os.path.join(folder, GOOD)
    if os.path.isfile(os.path.join(new, _STATE)) and not os.path.isdir(good):
        os.rename(new, good)


def put_back(folder: str, name: str, paths: Iterable[str]) -> Kept:
    """Write a remembered state's files and link; files that it doesn't have go."""
    _complete(folder)
    state = read(folder, name)
    if state is None:
        raise FileNotFoundError(os.path.join(folder, name))
    for number, entry in enumerate(state.files):
        with open(os.path.join(folder, name, str(number)), "rb") as stream:
            content = stream.read()
        owner = (int(entry["uid"]), int(entry["gid"]))
        make_directories(os.path.dirname(entry["path"]))
        write_atomic(entry["path"], content, int(entry["mode"]), owner)
    for path in set(paths) - {entry["path"] for entry in state.files}:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    place_release(folder, state.release)
    return state


def content(folder: str, name: str, path: str) -> bytes:
    """Return the content that a file had in a remembered state; empty when it had none."""
    state = read(folder, name)
    for number, entry in enumerate(state.files if state else ()):
        if entry["path"] == path:
            with open(os.path.join(folder, name, str(number)), "rb") as stream:
                return stream.read()
    return b""


def swap(folder: str) -> None:
    """After a rollback that serves: the good state becomes the previous one, and the reverse."""
    good, previous, new = (os.path.join(folder, name) for name in (GOOD, PREVIOUS, _NEW))
    shutil.rmtree(new, ignore_errors=True)
    os.rename(previous, new)
    os.rename(good, previous)
    os.rename(new, good)
    fsync_directory(folder)
