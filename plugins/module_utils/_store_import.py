# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Writing models into a store of Ollama without its engine.

A blob is collected in ``.hx/incoming``, where no engine looks: one that starts removes what it
doesn't know below ``blobs``. It gets its place there when its content has the digest of its name.
A manifest gets its place when all of its blobs are there. Both are single renames, so that an
engine that runs sees a model whole or not at all.

The store belongs to the engine's account, which may put links anywhere in it. So directories are
opened one by one, none through a link, and everything is done relative to what was opened.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import human_size
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import CHUNK
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import ModelName
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    BLOBS,
    INCOMING,
    Layer,
    parse_manifest,
    unique,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._store_folder import Folder

_KEPT = "What has come is kept; the next run goes on from there."


class StoreWriter:
    """Brings blobs and manifests into one store; several threads may use it.

    Args:
        root: the store's directory. It has to be there when something is written.
        uid: owner of what is written; that of the store's directory by default.
        gid: its group.
    """

    def __init__(self, root: str, *, uid: int | None = None, gid: int | None = None) -> None:
        self._root = root
        self._owner = (uid, gid)
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def need(self, layers: Iterable[Layer]) -> list[Layer]:
        """Return the blobs that the store doesn't have in full length, each once.

        A blob of the right length counts as one that is there: whoever knows that its content is
        wrong has to set it aside first.
        """
        return [layer for layer in unique(layers) if not self._has(layer)]

    def bring(
        self,
        layer: Layer,
        open_at: Callable[[int], Iterator[bytes]],
        on_bytes: Callable[[int], None] = lambda _done: None,
    ) -> None:
        """Bring one blob, from where an earlier run stopped.

        Args:
            layer: the blob.
            open_at: opens its content at an offset.
            on_bytes: called with the bytes of it that are here and read.

        Raises:
            HostError: it couldn't be had or written, or isn't what its name says.
        """
        with self._guard:
            lock = self._locks[layer.digest]
        with lock:  # two models that are brought at once may share it
            if self._has(layer):
                return
            with self._incoming() as incoming:
                _Part(layer, incoming, on_bytes).complete(open_at)
                self._give_place(layer, incoming)

    def place_manifest(self, name: ModelName, content: bytes, expect_digest: str) -> None:
        """Write a manifest, in place of one that may be there.

        Args:
            name: the model.
            content: the manifest, byte for byte.
            expect_digest: its SHA-256 in hexadecimal digits.

        Raises:
            HostError: it is another one, a blob of it is missing, or it can't be written.
        """
        found = hashlib.sha256(content).hexdigest()
        if found != expect_digest:
            raise HostError(
                f"the manifest of {name} has the digest {found}, wanted {expect_digest}."
            )
        try:
            missing = self.need(parse_manifest(content))
        except ValueError as error:
            raise HostError(f"the manifest of {name} can't be used: {error}.") from error
        if missing:
            raise HostError(
                f"the manifest of {name} wasn't written: its blob sha256-{missing[0].digest} is "
                f"not in {self._root}.",
                "Something took it away meanwhile. Run again.",
            )
        *parents, tag = name.manifest.split("/")
        # Of this model alone: others that come at the same time may have the same manifest.
        temporary = f"manifest-{hashlib.sha256(name.key.encode()).hexdigest()[:16]}.new"
        with self._incoming() as incoming:
            try:
                with incoming.open_new(temporary) as stream:
                    _write_all(stream.fileno(), content)
                    incoming.make_like_the_store(stream.fileno())
                    os.fsync(stream.fileno())
                with self._folder("/".join(parents), make=True, any_case=True) as folder:
                    incoming.move(temporary, folder, folder.spelled(tag))
            except OSError as error:
                incoming.remove(temporary)
                raise HostError(
                    f"the manifest of {name} can't be written in {self._root}: {_said(error)}."
                ) from error

    def _incoming(self) -> Folder:
        try:
            return self._folder(INCOMING, make=True)
        except OSError as error:
            raise HostError(
                f"nothing can be written to the store {self._root}: {_said(error)}.",
                "Check that its disk is mounted and writable.",
            ) from error

    def _folder(self, relative: str, *, make: bool = False, any_case: bool = False) -> Folder:
        return Folder.below(self._root, relative, self._owner, make=make, any_case=any_case)

    def _has(self, layer: Layer) -> bool:
        try:
            with self._folder(BLOBS) as blobs:
                status = blobs.status(f"sha256-{layer.digest}", follow=True)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise HostError(f"the store {self._root} can't be used: {_said(error)}.") from error
        return status is not None and stat.S_ISREG(status.st_mode) and status.st_size == layer.size

    def _give_place(self, layer: Layer, incoming: Folder) -> None:
        """Rename a verified blob; what stands there has another length, so it is no good one."""
        name = f"sha256-{layer.digest}"
        try:
            with self._folder(BLOBS, make=True) as blobs:
                incoming.move(f"{name}.part", blobs, name)
        except OSError as error:
            raise HostError(
                f"{self._root}/{INCOMING}/{name}.part can't become {BLOBS}/{name}: {_said(error)}.",
                _KEPT,
            ) from error


class _Part:
    """The file in which a blob is collected."""

    def __init__(self, layer: Layer, folder: Folder, on_bytes: Callable[[int], None]) -> None:
        self._layer = layer
        self._folder = folder
        self._tell = on_bytes
        self._name = f"sha256-{layer.digest}.part"
        self._at = 0
        self._hash = hashlib.sha256()
        self._stream: Any = None

    def complete(self, open_at: Callable[[int], Iterator[bytes]]) -> None:
        """Have the whole blob in the file, verified and durable.

        Raises:
            HostError: it couldn't be had or written, or isn't what its name says.
        """
        with self._writing("opened"):
            self._stream = self._folder.open_part(self._name)
        with self._stream:
            self._lock()
            self._take_over()
            resumed = self._at
            self._receive(open_at)
            if resumed and not self._good():  # what was left here may be what is wrong
                self._start_over()
                self._receive(open_at)
            if not self._good():
                found = self._hash.hexdigest()
                self._start_over()
                raise HostError(
                    f"the blob sha256-{self._layer.digest} that came has the digest {found}.",
                    "Its source holds a damaged copy, or something on the way changes it.",
                )
            with self._writing("completed"):
                self._folder.make_like_the_store(self._stream.fileno())
                os.fsync(self._stream.fileno())

    def _lock(self) -> None:
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HostError(
                f"{self._path} is being written by another process.", "Wait until it has ended."
            ) from error

    def _take_over(self) -> None:
        """Read what an earlier run left."""
        with self._writing("read"):
            while True:
                data = self._stream.read(CHUNK)
                if not data:
                    break
                self._count(data)
            if self._at > self._layer.size:
                self._start_over()

    def _receive(self, open_at: Callable[[int], Iterator[bytes]]) -> None:
        if self._at >= self._layer.size:
            return
        pieces = open_at(self._at)
        try:
            for data in pieces:
                if self._at + len(data) > self._layer.size:
                    raise HostError(f"{self._label}: more than its {self._layer.size} bytes came.")
                with self._writing("written"):
                    _write_all(self._stream.fileno(), data)
                self._count(data)
        except OSError as error:  # of the source; those of the file are HostErrors by now
            raise HostError(f"{self._label} can't be read: {_said(error)}.", _KEPT) from error
        finally:
            close = getattr(pieces, "close", None)
            if close:
                close()
        if self._at < self._layer.size:
            raise HostError(
                f"{self._label} ends after {self._at} of {self._layer.size} bytes.", _KEPT
            )

    def _count(self, data: bytes) -> None:
        self._hash.update(data)
        self._at += len(data)
        self._tell(min(self._at, self._layer.size))

    def _start_over(self) -> None:
        with self._writing("emptied"):
            self._stream.seek(0)
            self._stream.truncate()
        self._at, self._hash = 0, hashlib.sha256()

    def _good(self) -> bool:
        return self._at == self._layer.size and self._hash.hexdigest() == self._layer.digest

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            here, total = human_size(self._at), human_size(self._layer.size)
            remedy = _KEPT
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                remedy = f"Free disk space and run again. {_KEPT}"
            raise HostError(
                f"{self._path} can't be {what} with {here} of {total} in it: {_said(error)}.",
                remedy,
            ) from error

    @property
    def _label(self) -> str:
        return f"the blob sha256-{self._layer.digest}"

    @property
    def _path(self) -> str:
        return f"{self._folder.path}/{self._name}"


def _write_all(descriptor: int, data: bytes) -> None:
    """Write bytes where the file stands."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _said(error: OSError) -> str:
    return error.strerror or str(error) or repr(error)
