# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Reading an archive of models where it is: as a stream from its beginning, or one blob of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._model_archive_format import (
    FormatError,
    Packed,
    blob_digest,
    read_head,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._source_http import CHUNK, Client

OnTrouble = Callable[[str], None]  # told why a web server is asked once more
OnBlob = Callable[[str, Callable[[int], Iterator[bytes]]], None]  # digest, opens it at an offset


class Reader:
    """An archive at a path of this host, or at an http or https address."""

    def __init__(self, place: str, client: Client) -> None:
        self._place = place
        self._client = client
        self._at: dict[str, tuple[int, int]] = {}
        self._version: tuple[int, ...] = ()

    def head(self, on_read: Callable[[int], None], on_trouble: OnTrouble) -> dict[str, Packed]:
        """Return the models that the index lists, by the key of their name.

        Args:
            on_read: called with the bytes that have been read.
            on_trouble: called before a web server is asked once more.

        Raises:
            FormatError: it is no archive of this collection.
            HostError: its web server doesn't give it, or one of those called fails.
            OSError: it can't be read.
        """
        with contextlib.closing(self._bytes(0, on_trouble)) as content:
            stream = _Stream(content, on_read)
            return self._scan(stream, _pass_by, on_trouble, head_only=True)

    def scan(
        self, on_blob: OnBlob, on_read: Callable[[int], None], on_trouble: OnTrouble
    ) -> tuple[dict[str, Packed], str]:
        """Read all of it once, in order.

        Args:
            on_blob: called with each blob's digest, and what opens it at an offset.
            on_read: called with the bytes of the archive that have been read.
            on_trouble: called before a web server is asked once more.

        Returns:
            Its models, and the SHA-256 of all of its bytes.

        Raises:
            FormatError: it is no archive of this collection.
            HostError: its web server doesn't give it, or ``on_blob`` fails.
            OSError: it can't be read.
        """
        with contextlib.closing(self._bytes(0, on_trouble)) as content:
            stream = _Stream(content, on_read)
            models = self._scan(stream, on_blob, on_trouble)
            return models, stream.finish()

    def blob(self, digest: str, offset: int, on_trouble: OnTrouble) -> Iterator[bytes]:
        """Yield one blob from an offset on, of an archive that was scanned.

        Raises:
            HostError: the archive doesn't have it, or can't be read any more.
        """
        if digest not in self._at:
            raise HostError(f"{self._place} doesn't have the blob sha256-{digest}.")
        start, size = self._at[digest]
        left = size - offset
        with contextlib.closing(self._bytes(start + offset, on_trouble)) as content:
            while left > 0:
                data = next(content, b"")
                if not data:
                    return
                yield data[:left]
                left -= len(data)

    def _scan(
        self, stream: _Stream, on_blob: OnBlob, on_trouble: OnTrouble, *, head_only: bool = False
    ) -> dict[str, Packed]:
        try:
            with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as archive:
                models = read_head(archive, self._place)
                for member in () if head_only else archive:
                    digest = blob_digest(member)
                    if digest:
                        self._at[digest] = (member.offset_data, member.size)
                        on_blob(digest, self._opener(archive, member, digest, on_trouble))
        except tarfile.TarError as error:
            raise FormatError(str(error)) from error
        return models

    def _opener(
        self,
        archive: tarfile.TarFile,
        member: tarfile.TarInfo,
        digest: str,
        on_trouble: OnTrouble,
    ) -> Callable[[int], Iterator[bytes]]:
        """Return what reads the member as it comes by, and, when asked again, on its own."""
        passing = iter([archive.extractfile(member)])

        def open_at(offset: int) -> Iterator[bytes]:
            content = next(passing, None)
            return _from(content, offset) if content else self.blob(digest, offset, on_trouble)

        return open_at

    def _bytes(self, offset: int, on_trouble: OnTrouble) -> Iterator[bytes]:
        if self._place.startswith(("http://", "https://")):
            yield from self._client.bytes_from(self._place, offset, None, on_trouble)
            return
        with open(self._place, "rb", buffering=0) as stream:
            status = os.fstat(stream.fileno())
            version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if self._version not in ((), version):
                raise HostError(f"{self._place} was changed while it was in use.", "Run again.")
            self._version = version
            stream.seek(offset)
            yield from iter(lambda: stream.read(CHUNK), b"")


def _pass_by(_digest: str, _open_at: Callable[[int], Iterator[bytes]]) -> None:
    """Take no blob."""


class _Stream:
    """What ``tarfile`` reads from: bytes as they come, counted and hashed."""

    def __init__(
        self, content: Iterator[bytes], on_read: Callable[[int], None] = lambda _at: None
    ) -> None:
        self._content = content
        self._on_read = on_read
        self._left = b""
        self._count = 0
        self._hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Return some bytes, at most so many; none at the end."""
        if not self._left:
            self._left = next(self._content, b"")
            self._hash.update(self._left)
            self._count += len(self._left)
            self._on_read(self._count)
        data, self._left = self._left[:size], self._left[size:]
        return data

    def finish(self) -> str:
        """Read what is left and return the checksum of everything."""
        while self.read(CHUNK):
            pass
        return self._hash.hexdigest()


def _from(content: Any, offset: int) -> Iterator[bytes]:
    """Yield a file that can't seek from an offset on."""
    while True:
        data = content.read(CHUNK)
        if not data:
            return
        if offset < len(data):
            yield data[offset:]
        offset = max(0, offset - len(data))
