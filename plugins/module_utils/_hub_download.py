# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""One file over HTTP: resumed where the last connection, or the last run, ended, and verified."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._hub import RetryError
from ansible_collections.hx_infra.llm.plugins.module_utils._hub_http import Reply

CHUNK = 1024 * 1024
GUARD_EVERY = 64 * CHUNK
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True)
class Wish:
    """What is downloaded; ``size`` is -1 when nobody has said it; a checksum may be empty."""

    label: str
    size: int = -1
    sha256: str = ""
    git_sha1: str = ""

    @property
    def partial_name(self) -> str:
        """The name under which it is collected: another content never continues it."""
        return partial_name(self.sha256, self.git_sha1)


def partial_name(sha256: str, git_sha1: str) -> str:
    """Name the file in which a download is collected."""
    return f".{sha256 or f'git-{git_sha1}'}.partial"


class Digests:
    """The checksums of what has been read; git's own needs the size beforehand."""

    def __init__(self, size: int) -> None:
        self.sha256 = hashlib.sha256()
        # git names blobs so; the hub's small files have no other checksum
        self.git = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)

    def update(self, data: bytes) -> None:
        """Take more bytes in."""
        self.sha256.update(data)
        self.git.update(data)


@dataclass(frozen=True)
class Line:
    """How downloads are made: who opens them, who waits, who is told, who watches the disk.

    Attributes:
        wait: called with number of fruitless tries, error and label; raises to give up.
        tell: called with the bytes that were gained or lost, and a note.
        guard: raises when the disk has become too full.
    """

    wait: Callable[[int, RetryError, str], None]
    tell: Callable[[int, str], None]
    guard: Callable[[], None]
    deadline: float
    stall_timeout_s: float = 30.0


class Fetch:
    """The download of one file into its partial file."""

    def __init__(
        self, wish: Wish, folder: str, opened: Callable[[int, float], Reply], line: Line
    ) -> None:
        self.wish = wish
        self.path = os.path.join(folder, wish.partial_name)
        self.size = wish.size
        self.at = 0
        self.resumed = 0
        self._open = opened
        self._line = line
        self._pieces = 0
        self._guarded = 0
        self._digests = Digests(self.size)

    def run(self) -> tuple[str, str]:
        """Complete the partial file, verify it, and return its SHA-256 and git's checksum.

        Raises:
            HostError: it couldn't be had, or isn't what was wanted.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self.path, flags, 0o600), "r+b") as stream:
            self._take_over(stream)
            while True:
                if not (self.resumed and self._as_wanted()):
                    self._complete(stream)
                if self._as_wanted():
                    stream.flush()
                    os.fsync(stream.fileno())
                    git = self._digests.git.hexdigest() if self.wish.size >= 0 else ""
                    return self._digests.sha256.hexdigest(), git
                if self._pieces <= 1:
                    break
                self._line.tell(-self.at, "the pieces don't fit together; once more as a whole")
                self._start_over(stream)
        os.unlink(self.path)
        found, wanted = self._found_and_wanted()
        raise HostError(
            f"{self.wish.label}: what was downloaded has {found}, wanted {wanted}.",
            "The source holds another file than the declared one, or something on the way changes "
            "it. Compare with source.files, and check the proxy.",
        )

    def _take_over(self, stream: BinaryIO) -> None:
        """Read what an earlier run left."""
        while True:
            data = stream.read(CHUNK)
            if not data:
                break
            self._digests.update(data)
            self.at += len(data)
            self._line.tell(len(data), "reading what an earlier run downloaded")
        if self.size >= 0 and self.at > self.size:
            self._line.tell(-self.at, "")
            self._start_over(stream)
        self.resumed = self.at
        self._pieces = 1 if self.at else 0

    def _start_over(self, stream: BinaryIO) -> None:
        stream.seek(0)
        stream.truncate()
        self.at = self.resumed = self._pieces = 0
        self._digests = Digests(self.size)

    def _complete(self, stream: BinaryIO) -> None:
        """Ask until all is there, as long as each few tries bring something."""
        fruitless = 0
        while self.size < 0 or self.at < self.size or not self._pieces:
            before = self.at
            try:
                self._connect(stream)
                if self.size < 0 or self.at >= self.size:
                    return
                raise RetryError(f"the connection was cut after {self.at} of {self.size} bytes")
            except RetryError as error:
                fruitless = 1 if self.at > before else fruitless + 1
                self._check_time()
                self._line.wait(fruitless, error, self.wish.label)

    def _connect(self, stream: BinaryIO) -> None:
        """Take what one connection gives."""
        reply = self._open(self.at, self._line.stall_timeout_s)
        try:
            if reply.status == 416:  # there is nothing after what is there
                lost = self.at
                if reply.headers.get("content-range", "") == f"bytes */{lost}":
                    self.size = lost
                    return
                self._start_over(stream)
                self._line.tell(-lost, "the rest isn't offered; once more as a whole")
                raise RetryError(f"{reply.host} offers nothing after byte {lost}")
            self._place(reply, stream)
            self._pieces += 1
            while True:
                data = self._read(reply)
                if not data:
                    return
                self._write(stream, data)
        finally:
            reply.close()
            stream.flush()

    def _place(self, reply: Reply, stream: BinaryIO) -> None:
        """Find out which bytes come, and how many there are altogether."""
        match = _CONTENT_RANGE.match(reply.headers.get("content-range", ""))
        if reply.status == 206 and match and int(match.group(1)) == self.at:
            total = match.group(3)
        else:
            if self.at:  # it can't resume
                lost = self.at
                self._start_over(stream)
                self._line.tell(-lost, "the source can't resume; once more as a whole")
            total = reply.headers.get("content-length", "")
        if total.isdigit() and not reply.headers.get("content-encoding"):
            if self.size < 0:
                self.size = int(total)
            elif int(total) != self.size:
                raise HostError(
                    f"{self.wish.label}: {reply.host} offers {total} bytes, wanted {self.size}.",
                    "The source holds another file than the declared one.",
                )

    def _read(self, reply: Reply) -> bytes:
        try:
            return reply.read(CHUNK)
        except socket.timeout as error:  # a TimeoutError since Python 3.10
            seconds = self._line.stall_timeout_s
            raise RetryError(f"stalled: {reply.host} sent nothing for {seconds:.0f} s") from error
        except OSError as error:
            raise RetryError(f"{reply.host}: {error}") from error

    def _write(self, stream: BinaryIO, data: bytes) -> None:
        try:
            stream.write(data)
        except OSError as error:
            raise HostError(f"{self.path} can't be written: {error.strerror}.") from error
        self._digests.update(data)
        self.at += len(data)
        self._guarded += len(data)
        self._line.tell(len(data), "")
        if self._guarded >= GUARD_EVERY:
            self._guarded = 0
            self._line.guard()
        if self.size >= 0 and self.at > self.size:
            raise HostError(f"{self.wish.label}: more than the {self.size} bytes came.")
        self._check_time()

    def _check_time(self) -> None:
        if time.monotonic() > self._line.deadline:
            total = self.size if self.size >= 0 else "?"
            raise HostError(
                f"{self.wish.label}: the deadline has passed with {self.at} of {total} bytes.",
                "Run again, which goes on from there, or raise deadline_s.",
            )

    def _as_wanted(self) -> bool:
        found, wanted = self._found_and_wanted()
        return found == wanted and (self.wish.size < 0 or self.at == self.wish.size)

    def _found_and_wanted(self) -> tuple[str, str]:
        if self.wish.sha256:
            return f"sha256 {self._digests.sha256.hexdigest()}", f"sha256 {self.wish.sha256}"
        git = self._digests.git.hexdigest()
        return f"git checksum {git}", f"git checksum {self.wish.git_sha1}"
