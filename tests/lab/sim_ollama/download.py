# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloading one blob in parts: resumable, shared by pulls that want the same blob."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

from sim_ollama import log
from sim_ollama.registry_client import Client, RegistryError, open_url
from sim_ollama.settings import Settings

PART_COUNT = 16
MIN_PART_BYTES = 100_000_000
MAX_PART_BYTES = 1_000_000_000
MAX_TRIES = 6
STALL_SECONDS = 30.0
CHUNK_BYTES = 1 << 16


class StalledError(Exception):
    """A part of which nothing has come for too long; what came is kept."""


class Part:
    """One range of the blob, with its progress kept in a JSON file beside the data."""

    def __init__(self, path: Path, values: dict[str, int]) -> None:
        self.path = path
        self.number = int(values["N"])
        self.offset = int(values["Offset"])
        self.size = int(values["Size"])
        self.completed = int(values["Completed"])

    def write(self) -> None:
        """Write the progress."""
        values = {
            "N": self.number,
            "Offset": self.offset,
            "Size": self.size,
            "Completed": self.completed,
        }
        self.path.write_text(json.dumps(values, separators=(",", ":")) + "\n")
        self.path.chmod(0o644)


class Download:
    """One blob on its way; it goes on while somebody waits for it."""

    def __init__(self, client: Client, target: Path, digest: str, settings: Settings) -> None:
        self.client = client
        self.target = target
        self.digest = digest
        self.settings = settings
        self.total = 0
        self.waiting = 0
        self.error: Exception | None = None
        self.done = threading.Event()
        self.prepared = threading.Event()
        self._parts: list[Part] = []
        self._cancel = threading.Event()
        self._progress: dict[int, int] = {}
        self._lock = threading.Lock()
        self._lines: set[socket.socket] = set()

    @property
    def completed(self) -> int:
        """The bytes that have arrived; it goes down when a part is rolled back."""
        return sum(self._progress.values())

    def cancel(self) -> None:
        """Stop: nobody waits any more; the parts stay for a later pull."""
        self._cancel.set()
        with self._lock:
            for line in self._lines:
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """Do all of it: the body of the download's thread."""
        try:
            self._prepare()
            self.prepared.set()
            self._fetch_all()
        except (OSError, ValueError, RegistryError) as exc:
            self.error = exc
        finally:
            self.prepared.set()
            self.done.set()

    @property
    def partial(self) -> Path:
        """The file that the data is written to."""
        return self.target.with_name(self.target.name + "-partial")

    def _prepare(self) -> None:
        found = sorted(self.partial.parent.glob(f"{self.partial.name}-*"))
        for path in found:
            text = path.read_text()
            if not text.strip():
                raise RegistryError("EOF")
            self._parts.append(Part(path, json.loads(text)))
        if not found:
            self._new_parts(self.client.blob_size(self.digest))
        self._parts.sort(key=lambda part: part.number)
        self.total = sum(part.size for part in self._parts)
        self._progress = {part.number: part.completed for part in self._parts}

    def _new_parts(self, total: int) -> None:
        smallest = int(self.settings.section("pull").get("min_part_bytes", MIN_PART_BYTES))
        size = max(smallest, min(total // PART_COUNT, MAX_PART_BYTES))
        for number, offset in enumerate(range(0, total, size)):
            length = min(size, total - offset)
            path = self.partial.with_name(f"{self.partial.name}-{number}")
            values = {"N": number, "Offset": offset, "Size": length, "Completed": 0}
            part = Part(path, values)
            part.write()
            self._parts.append(part)

    def _fetch_all(self) -> None:
        handle = os.open(self.partial, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            os.ftruncate(handle, self.total)
            url = self.client.direct_url(self.digest) if self._parts else ""
            failures: list[Exception] = []
            threads = []
            for part in self._parts:
                if part.completed >= part.size:
                    continue
                task = threading.Thread(
                    target=self._fetch_part, args=(handle, url, part, failures), daemon=True
                )
                task.start()
                threads.append(task)
            for task in threads:
                task.join()
        finally:
            os.close(handle)
        if failures:
            raise failures[0]
        for part in self._parts:
            part.path.unlink()
        self.partial.replace(self.target)
        self.target.chmod(0o644)

    def _fetch_part(self, handle: int, url: str, part: Part, failures: list[Exception]) -> None:
        base = float(self.settings.section("pull").get("retry_base_seconds", 1.0))
        last: Exception = RegistryError("no try was made")
        number = 0
        while number < MAX_TRIES:
            try:
                self._fetch_once(handle, url, part)
                return
            except StalledError:
                text = f"{self.digest[7:19]} part {part.number} stalled; retrying."
                log.info("download.go:374", text)
                continue
            except OSError as exc:
                if exc.errno == errno.ENOSPC:
                    self._stop(failures, RegistryError(f"write {self.partial}: {_text(exc)}"))
                    return
                last = exc
            except RegistryError as exc:
                last = exc
            log.info("download.go:295", f"{self.digest[7:19]} part {part.number} failed: {last}")
            if self._cancel.wait(base * 2**number):
                break
            number += 1
        canceled = self._cancel.is_set()
        text = "context canceled" if canceled else f"max retries exceeded: {last}"
        self._stop(failures, RegistryError(text))

    def _stop(self, failures: list[Exception], failure: Exception) -> None:
        failures.append(failure)
        self._cancel.set()

    def _fetch_once(self, handle: int, url: str, part: Part) -> None:
        start = part.offset + part.completed
        headers = {"Range": f"bytes={start}-{part.offset + part.size - 1}"}
        stall = float(self.settings.section("pull").get("stall_seconds", STALL_SECONDS))
        response = open_url("GET", url, headers, stall)
        begun = part.completed
        try:
            with self._watched(response):
                self._copy(response, handle, part)
        except TimeoutError:
            raise StalledError from None
        except OSError as exc:
            if exc.errno == errno.ENOSPC or not isinstance(exc, ConnectionError):
                part.completed = begun
                self._progress[part.number] = begun
            raise
        finally:
            response.close()
            if part.path.exists():
                _quietly(part.write)

    @contextlib.contextmanager
    def _watched(self, response: Any) -> Iterator[None]:
        """Let cancel() end the reading of an answer at once, even where nothing comes."""
        line = socket.socket(fileno=os.dup(response.fileno()))
        with line:
            with self._lock:
                self._lines.add(line)
            try:
                if self._cancel.is_set():
                    raise RegistryError("context canceled")
                yield
            finally:
                with self._lock:
                    self._lines.discard(line)

    def _copy(self, response: Any, handle: int, part: Part) -> None:
        limit = self.settings.fault("disk_full_after_bytes")
        while part.completed < part.size:
            data = response.read1(min(CHUNK_BYTES, part.size - part.completed))
            if self._cancel.is_set():
                raise RegistryError("context canceled")
            if not data:
                raise ConnectionError("unexpected EOF")
            if limit is not None and self.completed + len(data) > int(limit):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.pwrite(handle, data, part.offset + part.completed)
            part.completed += len(data)
            self._progress[part.number] = part.completed


class Downloads:
    """The downloads under way, so that two pulls of one blob share one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._running: dict[str, Download] = {}

    def join(self, client: Client, target: Path, digest: str) -> Download:
        """Return the download of a blob, started if need be, and count one more that waits."""
        with self._lock:
            found = self._running.get(digest)
            if found is None or found.done.is_set():
                found = Download(client, target, digest, self._settings)
                self._running[digest] = found
                threading.Thread(target=found.run, daemon=True).start()
            found.waiting += 1
            return found

    def leave(self, download: Download) -> None:
        """Count one less; the last one to leave an unfinished download cancels it."""
        with self._lock:
            download.waiting -= 1
            if download.waiting == 0:
                download.cancel()
                self._running.pop(download.digest, None)


def wait(download: Download, report: Callable[[int, int], None], cancelled: Any) -> None:
    """Report progress about every 60 ms until a download ends."""
    while not download.done.wait(0.06):
        if cancelled():
            raise RegistryError("context canceled")
        if download.prepared.is_set():
            report(download.total, download.completed)
    if download.error is not None:
        raise download.error
    report(download.total, download.completed)


def _text(exc: OSError) -> str:
    return (exc.strerror or str(exc)).lower()


def _quietly(action: Callable[[], None]) -> None:
    try:
        action()
    except OSError as exc:
        log.warn("download.go:340", "couldn't write part", error=exc, at=time.time())
