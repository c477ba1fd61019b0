# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Blobs of a store are read and compared with the digests in their names, on all cores.

The engine keeps serving meanwhile: nothing is locked or changed, and pages that were not cached
before are not left in the page cache, where they would push the engine's own out.
"""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import Store, StoredFile
from ansible_collections.hx_infra.llm.plugins.module_utils._page_cache import (
    WINDOW,
    be_idle,
    cached_windows,
    drop_window,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._store_ledger import Ledger

CHUNK = 1024 * 1024  # what each worker holds of its blob
TELL_S = 0.25  # between two calls of the progress function
_ATTEMPTS = 2  # a blob that changes while it is read is read once more
_TICK_S = 0.02  # file systems step the time of the last change with the kernel's clock
_COARSE_TICK_S = 2.0  # some store whole seconds, or even ones


@dataclass(frozen=True)
class Verified:
    """What a verification found.

    Attributes:
        read: number of blobs that were read.
        remembered: number of blobs that the ledger vouches for.
        bytes_read: what was read, in bytes.
        seconds: how long it took.
        corrupt: what is wrong, by the digest of a blob whose content isn't what its name says.
        unreadable: why, by the digest of a blob that can't be read.
        idle: whether the disks were read at idle priority.
    """

    read: int = 0
    remembered: int = 0
    bytes_read: int = 0
    seconds: float = 0.0
    corrupt: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    idle: bool = False


@dataclass(frozen=True)
class _Reading:
    """How the reading of one blob went; ``status`` is its file when that stayed the same."""

    digest: str
    found: str = ""
    problem: str = ""
    gone: bool = False
    status: os.stat_result | None = None


def verify(
    store: Store,
    digests: Iterable[str],
    ledger: Ledger,
    *,
    full: bool = False,
    workers: int | None = None,
    idle: bool = False,
    progress: Callable[[str, int, int], None] = lambda _name, _done, _total: None,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], float] = time.time,
) -> Verified:
    """Read the blobs that the ledger doesn't vouch for, and mark the bad ones in the store.

    A bad blob gets its ``flaw`` in ``store.blobs`` and is forgotten by the ledger, which remembers
    the good ones; the caller saves it. One that went away meanwhile is taken out of the store.

    Args:
        store: the store as it was just read.
        digests: which of its blobs; those that it doesn't hold are passed over.
        ledger: what is remembered from earlier.
        full: whether every blob is read, whatever the ledger says.
        workers: how many blobs are read at once; None stands for one per core.
        idle: whether to read at the idle I/O class and the lowest CPU priority.
        progress: called with the path of a blob, the bytes read and the bytes to read in total.
        clock: monotonic seconds.
        now: seconds since the epoch.
    """
    begin = clock()
    asked = [store.blobs[digest] for digest in dict.fromkeys(digests) if digest in store.blobs]
    files = [file for file in asked if full or ledger.verified_at(file) is None]
    files.sort(key=lambda file: (-file.size, file.digest))
    crew = _Crew(store.root, files, idle)
    corrupt, unreadable = {}, {}
    for reading in crew.work(min(workers or cores(), len(files)), progress):
        digest = reading.digest
        if reading.gone:
            del store.blobs[digest]
            ledger.forget(digest)
            continue
        if reading.found == digest and not reading.problem:
            if reading.status is not None:
                ledger.note(digest, reading.status, now())
            continue
        flaw = reading.problem or f"its content has the digest {reading.found[:12]}…"
        (unreadable if reading.problem else corrupt)[digest] = flaw
        store.blobs[digest] = replace(store.blobs[digest], flaw=flaw)
        ledger.forget(digest)
    return Verified(
        read=len(files),
        remembered=len(asked) - len(files),
        bytes_read=crew.done,
        seconds=clock() - begin,
        corrupt=corrupt,
        unreadable=unreadable,
        idle=crew.idle,
    )


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) or 1


class _Crew:
    """Threads that read blobs, the largest first; the hashing runs without Python's lock."""

    def __init__(self, root: str, files: list[StoredFile], idle: bool) -> None:
        self.idle = idle and bool(files)
        self.done = 0
        self._root = root
        self._files = files
        self._total = sum(file.size for file in files)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._at_work: dict[str, None] = {}  # paths, the longest at work first
        self._own = threading.local()

    def work(self, workers: int, progress: Callable[[str, int, int], None]) -> Iterator[_Reading]:
        """Yield how each blob's reading went, in the order in which they end."""
        if not self._files:
            return
        ended: queue.SimpleQueue[Future[_Reading]] = queue.SimpleQueue()
        pool = ThreadPoolExecutor(workers, initializer=self._begin)
        told = time.monotonic() - TELL_S
        try:
            for file in self._files:
                pool.submit(self._read, file).add_done_callback(ended.put)
            left = len(self._files)
            while left:
                if time.monotonic() - told >= TELL_S:
                    told = time.monotonic()
                    self._tell(progress)
                try:
                    future = ended.get(timeout=TELL_S)
                except queue.Empty:
                    continue
                left -= 1
                yield future.result()
            self._tell(progress)
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)

    def _begin(self) -> None:
        self._own.buffer = memoryview(bytearray(CHUNK))
        if self.idle and not be_idle():
            self.idle = False

    def _tell(self, progress: Callable[[str, int, int], None]) -> None:
        with self._lock:
            name, done = next(iter(self._at_work), ""), self.done
        progress(name or self._files[-1].path, min(done, self._total), self._total)

    def _read(self, file: StoredFile) -> _Reading:
        with self._lock:
            self._at_work[file.path] = None
        try:
            for _attempt in range(_ATTEMPTS):
                found, before, after = self._hash(os.path.join(self._root, file.path))
                if _identity(before) == _identity(after):
                    return _Reading(file.digest, found, status=after)
            return _Reading(file.digest, problem="it changes while it is being read")
        except FileNotFoundError:
            return _Reading(file.digest, gone=True)
        except OSError as error:
            return _Reading(file.digest, problem=f"it can't be read: {error.strerror}")
        finally:
            with self._lock:
                del self._at_work[file.path]

    def _hash(self, path: str) -> tuple[str, os.stat_result, os.stat_result]:
        """Read a file; return its SHA-256 and its status before and after."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise OSError(errno.EINVAL, "it is no regular file any more", path)
            found = self._content(descriptor, before.st_size)
            _wait_for_tick(before)
            return found, before, os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def _content(self, descriptor: int, size: int) -> str:
        cached = cached_windows(descriptor, size)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        checksum, buffer, offset, window = hashlib.sha256(), self._own.buffer, 0, 0
        while True:
            if self._stop.is_set():
                raise InterruptedError(errno.EINTR, "the verification was stopped")
            count = os.readv(descriptor, [buffer])
            if count:
                checksum.update(buffer[:count])
                offset += count
                with self._lock:
                    self.done += count
            while window < len(cached) and (not count or offset >= (window + 1) * WINDOW):
                if not cached[window]:
                    drop_window(descriptor, window)
                window += 1
            if not count:
                return checksum.hexdigest()


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _wait_for_tick(status: os.stat_result) -> None:
    """Let a file become old enough that a later change shows in the time of its last change."""
    tick = _TICK_S if status.st_mtime_ns % 1_000_000_000 else _COARSE_TICK_S
    age = time.time() - status.st_mtime
    if 0 <= age < tick:
        time.sleep(tick - age)
