# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The lock of a model store: one run at a time changes it, and others can tell who.

The kernel gives the lock back when its holder ends, however it ends. The file stays; what it
says about a holder counts only while somebody holds the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import LOCK
from ansible_collections.hx_infra.llm.plugins.module_utils._store_folder import Folder

_TRIES = 5  # somebody who only looks holds the lock for a moment
_PAUSE_S = 0.1
_MOST_BYTES = 4096


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
        self._stream: BinaryIO | None = None

    def __enter__(self) -> StoreLock:
        """Take the lock."""
        if self._look_only:
            holder = held(self._root)
            if holder:
                raise self._refusal(holder)
        elif os.path.isdir(self._root):
            self._take()
        return self

    def __exit__(self, *_unused: object) -> None:
        """Give the lock back."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _take(self) -> None:
        folder, name = os.path.split(LOCK)
        try:
            with Folder.below(self._root, folder, (None, None), make=True) as place:
                stream = place.open_part(name)
                place.make_like_the_store(stream.fileno())  # a run as its owner can go on with it
        except OSError as error:
            raise HostError(
                f"the lock {os.path.join(self._root, LOCK)} can't be made: {error.strerror}.",
                "Run as root, or as the account that owns the store.",
            ) from error
        try:
            self._wait(stream.fileno())
        except BaseException:
            stream.close()
            raise
        self._stream = stream
        record = {
            "pid": os.getpid(),
            "host": platform.node(),
            "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "purpose": self._purpose,
        }
        with contextlib.suppress(OSError):  # on a full disk it is held all the same
            stream.truncate(0)
            os.pwrite(stream.fileno(), json.dumps(record).encode() + b"\n", 0)

    def _wait(self, descriptor: int) -> None:
        for attempt in range(_TRIES):
            if attempt:
                self._pause(_PAUSE_S)
            if _locks(descriptor, fcntl.LOCK_EX, self._root):
                return
        raise self._refusal(_describe(descriptor))

    def _refusal(self, holder: str) -> HostError:
        return HostError(
            f"another run works on the model store {self._root}: {holder}.",
            "Nothing was done. Wait until it has ended, then run again.",
        )


def held(root: str) -> str:
    """Say who holds a store's lock; empty when nobody does. Nothing is written.

    Raises:
        HostError: the lock is there but can't be looked at.
    """
    path = os.path.join(root, LOCK)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise HostError(
            f"the lock {path} can't be read: {error.strerror}.",
            "Run as root, or as the account that owns the store.",
        ) from error
    try:
        return "" if _locks(descriptor, fcntl.LOCK_SH, root) else _describe(descriptor)
    finally:
        os.close(descriptor)


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
        return "a process that has not said yet who it is"
    purpose, since = record.get("purpose", "it"), record.get("since", "an unknown time")
    return f"{purpose} (pid {record['pid']} on {record.get('host', '?')}, since {since})"
