# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The lock of a model store: one run at a time changes it, and others can tell who.

The kernel gives the lock back when its holder ends, however it ends. The file stays; what it
says about a holder counts only while somebody holds the lock.

A move locks the store's directory itself, of which all others who hold the store have a share. That
lock goes along when the directory gets another name, and writes nothing into a store that is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import LOCK
from ansible_collections.hx_infra.llm.plugins.module_utils._store_folder import Folder
from ansible_collections.hx_infra.llm.plugins.module_utils._timestamp import utc

_TRIES = 5  # somebody who only looks holds the lock for a moment
_PAUSE_S = 0.1
_MOST_BYTES = 4096
_MOVE = "a move (model_store_relocate)"
_UNKNOWN = "a process that has not said yet who it is"


class StoreLock:
    """Hold a store for one run, as a context manager.

    A store that isn't there has nothing to protect: then nothing is locked and nothing is made.

    Args:
        root: the store.
        purpose: what the holder does, for those that it keeps out.
        look_only: refuse when somebody holds the lock, but take and write nothing (check mode).
        pause: waits some seconds.

    Raises:
        HostError: somebody else holds it; the message names the holder.
    """

    def __init__(
        self,
        root: str,
        purpose: str,
        *,
        look_only: bool = False,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._root = root
        self._purpose = purpose
        self._look_only = look_only
        self._pause = pause
        self._held = contextlib.ExitStack()

    def __enter__(self) -> StoreLock:
        """Take the lock."""
        if self._look_only:
            holder = held(self._root)
            if holder:
                raise _refusal(self._root, holder)
        elif os.path.isdir(self._root):
            with contextlib.ExitStack() as taken:
                self._take(taken)
                self._held = taken.pop_all()
        return self

    def __exit__(self, *_unused: object) -> None:
        """Give the lock back."""
        self._held.close()

    def _take(self, taken: contextlib.ExitStack) -> None:
        with _named(self._root, "made"):
            directory = taken.enter_context(_opened(self._root, os.O_DIRECTORY))
        if not _takes(directory, fcntl.LOCK_SH, self._root, self._pause):
            raise _refusal(self._root, _MOVE)
        with _named(self._root, "made"):
            stream = taken.enter_context(self._file())
        if not _takes(stream.fileno(), fcntl.LOCK_EX, self._root, self._pause):
            raise _refusal(self._root, _describe(stream.fileno()))
        record = {
            "pid": os.getpid(),
            "host": platform.node(),
            "since": utc(time.time()),
            "purpose": self._purpose,
        }
        with contextlib.suppress(OSError):  # on a full disk it is held all the same
            stream.truncate(0)
            os.pwrite(stream.fileno(), json.dumps(record).encode() + b"\n", 0)

    def _file(self) -> BinaryIO:
        folder, name = os.path.split(LOCK)
        with Folder.below(self._root, folder, (None, None), make=True) as place:
            stream = place.open_part(name)
            place.make_like_the_store(stream.fileno())  # a run as its owner can go on with it
        return stream


class MoveLock:
    """Hold a store that is moved, as a context manager. Nothing is written.

    Args:
        root: the store; it stays locked under whatever name it gets.
        pause: waits some seconds.

    Raises:
        HostError: somebody else holds it; the message names the holder.
    """

    def __init__(self, root: str, *, pause: Callable[[float], None] = time.sleep) -> None:
        self._root = root
        self._pause = pause
        self._held = contextlib.ExitStack()

    def __enter__(self) -> MoveLock:
        """Take the lock."""
        with contextlib.ExitStack() as taken:
            with _named(self._root, "read"):
                directory = taken.enter_context(_opened(self._root, os.O_DIRECTORY))
            if not _takes(directory, fcntl.LOCK_EX, self._root, self._pause):
                raise _refusal(self._root, held(self._root) or _UNKNOWN)
            self._held = taken.pop_all()
        return self

    def __exit__(self, *_unused: object) -> None:
        """Give the lock back."""
        self._held.close()


def held(root: str) -> str:
    """Say who holds a store's lock; empty when nobody does. Nothing is written.

    Raises:
        HostError: the lock is there but can't be looked at.
    """
    with _named(root, "read"):
        try:
            with _opened(root, os.O_DIRECTORY) as directory:
                if not _locks(directory, fcntl.LOCK_SH, root):
                    return _MOVE
            with _opened(os.path.join(root, LOCK), os.O_NOFOLLOW) as file:
                return "" if _locks(file, fcntl.LOCK_SH, root) else _describe(file)
        except (FileNotFoundError, NotADirectoryError):
            return ""


@contextlib.contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    """Open what is to be locked, for reading."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _named(root: str, verb: str) -> Iterator[None]:
    """Name the lock in an error that tells that it can't be made or read."""
    try:
        yield
    except OSError as error:
        raise HostError(
            f"the lock {os.path.join(root, LOCK)} can't be {verb}: {error.strerror}.",
            "Run as root, or as the account that owns the store.",
        ) from error


def _takes(descriptor: int, kind: int, root: str, pause: Callable[[float], None]) -> bool:
    """Lock the open file, trying for a moment; say whether that was done."""
    for attempt in range(_TRIES):
        if attempt:
            pause(_PAUSE_S)
        if _locks(descriptor, kind, root):
            return True
    return False


def _refusal(root: str, holder: str) -> HostError:
    return HostError(
        f"another run works on the model store {root}: {holder}.",
        "Nothing was done. Wait until it has ended, then run again.",
    )


def _locks(descriptor: int, kind: int, root: str) -> bool:
    """Lock the open file unless another one has; say whether that was done.

    Raises:
        HostError: its file system can't lock it.
    """
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise HostError(
            f"the lock {os.path.join(root, LOCK)} can't be taken: {error.strerror}.",
            "The store has to be on a file system that has locks (flock).",
        ) from error
    return True


def _describe(descriptor: int) -> str:
    """Say who holds the lock, from what the holder wrote; it may be about to write."""
    record: Any = None
    with contextlib.suppress(OSError, ValueError):
        record = json.loads(os.pread(descriptor, _MOST_BYTES, 0))
    if not isinstance(record, dict) or not record.get("pid"):
        return _UNKNOWN
    purpose, since = record.get("purpose", "it"), record.get("since", "an unknown time")
    return f"{purpose} (pid {record['pid']} on {record.get('host', '?')}, since {since})"
