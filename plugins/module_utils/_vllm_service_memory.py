# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What a service was last known to work with, and putting that back.

Below a service's own folder ``good`` holds the files and the release that served a request last,
``previous`` the state before that. Each is a directory that is renamed into place as a whole.
``rollback.json`` is there while a rollback is under way, and says what it goes back to: by its
content and not by its name, because the names are exchanged at the end. Secrets are not among the
files.
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
_SWAP = "swap"
_STATE = "state.json"
_ROLLBACK = "rollback.json"


class DamagedError(Exception):
    """A remembered state can't be read, or isn't whole any more.

    Args:
        path: the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} is damaged ({reason}), wanted what an earlier run wrote there.")
        self.path = path


@dataclass(frozen=True)
class Kept:
    """A remembered state: the release, and the files with their access."""

    release: str = ""
    files: tuple[dict[str, Any], ...] = field(default_factory=tuple)

    def sums(self) -> dict[str, str]:
        """Return the digest of each file."""
        return {entry["path"]: entry["sha256"] for entry in self.files}


@dataclass(frozen=True)
class Memory:
    """What is remembered of a service.

    Attributes:
        good: what served last.
        previous: what served before that.
        unfinished: what a rollback that has not come to its end goes back to.
        damage: what could not be read, in sentences.
    """

    good: Kept | None = None
    previous: Kept | None = None
    unfinished: Kept | None = None
    damage: tuple[str, ...] = ()


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
    """Let a service lead to a release, in one step; an empty one stands for no link."""
    if release_of(folder) == release:
        return
    if release:
        make_directories(folder)
        place_symlink(link_of(folder), release)
    else:
        os.unlink(link_of(folder))
        fsync_directory(folder)


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
    """Return a remembered state, None when there is none.

    Raises:
        DamagedError: it can't be read, or one of its files isn't what was remembered.
    """
    place = _place(folder, name)
    state = _load(os.path.join(place, _STATE))
    for number, entry in enumerate(state.files if state else ()):
        copy = os.path.join(place, str(number))
        try:
            found = file_sha256(copy)
        except FileNotFoundError as error:
            raise DamagedError(copy, "it is missing") from error
        if found != entry["sha256"]:
            raise DamagedError(copy, "its content has another checksum")
    return state


def _load(path: str) -> Kept | None:
    try:
        with open(path, encoding="utf-8") as stream:
            state = json.load(stream)
        return Kept(str(state["release"]), tuple(_entry(entry) for entry in state["files"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(path, f"{type(error).__name__}: {error}") from error


def _entry(entry: Any) -> dict[str, Any]:
    names = {name: str(entry[name]) for name in ("path", "sha256")}
    return {**names, **{name: int(entry[name]) for name in ("mode", "uid", "gid")}}


def readable(folder: str, name: str) -> Kept | None:
    """Return a remembered state; a damaged one counts as none."""
    try:
        return read(folder, name)
    except DamagedError:
        return None


def recall(folder: str) -> Memory:
    """Return all that is remembered; what is damaged is named, and counts as none.

    Raises:
        DamagedError: what an unfinished rollback goes back to can't be read.
    """
    damage = []
    for name in (GOOD, PREVIOUS):
        try:
            read(folder, name)
        except DamagedError as error:
            damage.append(str(error))
    return Memory(
        readable(folder, GOOD),
        readable(folder, PREVIOUS),
        _load(os.path.join(folder, _ROLLBACK)),
        tuple(damage),
    )


def paths_of(folder: str) -> set[str]:
    """Return the files of every remembered state.

    A unit stands elsewhere for a container than without one, and elsewhere for another engine.
    """
    states = [readable(folder, name) for name in (GOOD, PREVIOUS)]
    return {entry["path"] for state in states if state for entry in state.files}


def same(one: Kept | None, other: Kept | None) -> bool:
    """Tell whether two states start a service with the same."""
    if one is None or other is None:
        return one is other
    return one.release == other.release and one.sums() == other.sums()


def remember(folder: str, paths: Sequence[str]) -> bool:
    """Keep the present state as the good one and that as the previous; tell whether it is new."""
    _complete(folder)
    now = current(folder, paths)
    if same(now, readable(folder, GOOD)):
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
    write_atomic(os.path.join(target, _STATE), _dump(state), 0o600)  # last: it makes it whole


def _dump(state: Kept) -> bytes:
    return (json.dumps({"release": state.release, "files": state.files}, indent=2) + "\n").encode()


def _rotate(folder: str) -> None:
    good, previous, new = (os.path.join(folder, name) for name in (GOOD, PREVIOUS, _NEW))
    if os.path.isdir(good) and readable(folder, GOOD) is not None:
        _discard(previous)
        os.rename(good, previous)
    else:
        _discard(good)  # a damaged one must not take the place of what can be gone back to
    os.rename(new, good)
    fsync_directory(folder)


def _discard(place: str) -> None:
    """Remove a state; first what makes it one, so that a kill leaves no half of it."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(os.path.join(place, _STATE))
    shutil.rmtree(place, ignore_errors=True)


def _place(folder: str, name: str) -> str:
    """Return where a state is, also when a run was killed in the middle of its renames."""
    good, previous, new, swap = (
        os.path.join(folder, item) for item in (GOOD, PREVIOUS, _NEW, _SWAP)
    )
    if os.path.isdir(swap):
        if name == GOOD:
            return swap
        return previous if os.path.isdir(previous) else good
    if name == GOOD and not os.path.isdir(good) and os.path.isfile(os.path.join(new, _STATE)):
        return new
    return os.path.join(folder, name)


def _complete(folder: str) -> None:
    """Finish the renames of a run that was killed in the middle of them."""
    good, previous, new, swap = (
        os.path.join(folder, item) for item in (GOOD, PREVIOUS, _NEW, _SWAP)
    )
    if os.path.isdir(swap):
        if os.path.isdir(good) and not os.path.isdir(previous):
            os.rename(good, previous)
        os.rename(swap, good)
        fsync_directory(folder)
    elif os.path.isfile(os.path.join(new, _STATE)) and not os.path.isdir(good):
        os.rename(new, good)
        fsync_directory(folder)


def put_back(folder: str, name: str, paths: Iterable[str]) -> Kept:
    """Write a remembered state's files and link; files that it doesn't have go.

    Raises:
        DamagedError: it isn't whole; nothing was written.
    """
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
            with open(os.path.join(_place(folder, name), str(number)), "rb") as stream:
                return stream.read()
    return b""


def begin_rollback(folder: str, name: str) -> None:
    """Write down which state a rollback goes back to, before anything of it is put back."""
    state = read(folder, name)
    if state is None:
        raise FileNotFoundError(os.path.join(folder, name))
    write_atomic(os.path.join(folder, _ROLLBACK), _dump(state), 0o600)


def end_rollback(folder: str, name: str) -> None:
    """After a rollback that serves: what it went back to is the good state."""
    if name == PREVIOUS:
        swap(folder)
    forget_rollback(folder)


def forget_rollback(folder: str) -> None:
    """Let no later rollback go on with one that has not come to its end."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(os.path.join(folder, _ROLLBACK))
        fsync_directory(folder)


def swap(folder: str) -> None:
    """Let the previous state be the good one, and the reverse."""
    _complete(folder)
    os.rename(os.path.join(folder, PREVIOUS), os.path.join(folder, _SWAP))
    _complete(folder)
