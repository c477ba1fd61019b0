# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Models of a store written to an archive, and its checksum to a file beside it.

What an archive will be follows from the store's manifests, but for the blobs' content, which is
verified while it is written. So an archive that begins as it would be written now, has the length
that it would get, and has its checksum beside it, stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import human_size
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    CHUNK,
    file_sha256,
    fsync_directory,
    write_atomic,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._model_archive_format import (
    INDEX,
    ending,
    header,
    index_of,
    padding,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import (
    ModelName,
    parse_name,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    BLOBS,
    Layer,
    Store,
    StoredModel,
    unique,
)

_SIDECAR = re.compile(rb"([0-9a-f]{64}) [ *]([^\n]+)\n")


@dataclass(frozen=True)
class Draft:
    """What an archive will be.

    Attributes:
        models: what goes in.
        head: its first bytes, up to the first blob.
        blobs: what follows, in order.
        size: its length.
    """

    models: tuple[StoredModel, ...]
    head: bytes
    blobs: tuple[Layer, ...]
    size: int


def whole_models(store: Store, names: Iterable[str]) -> list[StoredModel]:
    """Return some models of a store, each once.

    Raises:
        HostError: one isn't there, or isn't whole.
    """
    models = (_whole(store, parse_name(text)) for text in names)
    return list({model.name.key: model for model in models}.values())


def draft(store: Store, names: Iterable[str]) -> Draft:
    """Plan the archive of some models of a store.

    Raises:
        HostError: one isn't there, or isn't whole.
    """
    models = whole_models(store, names)
    index = index_of((model.name, model.digest, model.layers) for model in models)
    head = header(INDEX, len(index)) + index + padding(len(index))
    for model in models:
        content = _manifest(store, model)
        head += header(model.name.manifest, len(content)) + content + padding(len(content))
    blobs = tuple(unique(layer for model in models for layer in model.layers))
    size = len(head) + sum(
        len(header(_path(layer), layer.size)) + layer.size + len(padding(layer.size))
        for layer in blobs
    )
    return Draft(tuple(models), head, blobs, size + len(ending(size)))


def standing(path: str, wanted: Draft) -> str:
    """Return the checksum of an archive that is there as it would be written; else nothing."""
    try:
        with open(path, "rb") as stream:
            same = os.fstat(stream.fileno()).st_size == wanted.size
            same = same and stream.read(len(wanted.head)) == wanted.head
        with open(sidecar(path), "rb") as stream:
            match = _SIDECAR.fullmatch(stream.read(4096))
    except FileNotFoundError:
        return ""
    if not same or match is None or os.fsdecode(match.group(2)) != os.path.basename(path):
        return ""
    return match.group(1).decode()


def intact(path: str, checksum: str, progress: Callable[[int], None]) -> bool:
    """Read an archive and say whether it has its checksum; ``progress`` gets the bytes read."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(done)

    return file_sha256(path, count) == checksum


def sidecar(path: str) -> str:
    """Name the file with the checksum of an archive."""
    return f"{path}.sha256"


def leftovers(path: str) -> list[str]:
    """List what there is of an archive: itself, its checksum, one that wasn't finished."""
    return [name for name in (path, sidecar(path), _part(path)) if os.path.lexists(name)]


def check_space(path: str, wanted: Draft) -> None:
    """Refuse when the disk can't take the archive beside what it holds.

    Raises:
        HostError: what is needed and what is free, or that the directory isn't there.
    """
    folder = os.path.dirname(path) or "."
    try:
        status = os.statvfs(folder)
        unfinished = os.stat(_part(path)).st_size if os.path.exists(_part(path)) else 0
    except OSError as error:
        raise HostError(f"{path} can't be written: {folder}: {error.strerror}.") from error
    free = status.f_bavail * status.f_frsize + unfinished
    if free < wanted.size:
        raise HostError(
            f"the archive {path} takes {human_size(wanted.size)}, {human_size(free)} are free.",
            "Nothing was written. Free disk space, or choose another path.",
        )


def write(store: Store, path: str, wanted: Draft, progress: Callable[[int], None]) -> str:
    """Write an archive and its checksum, in place of one that may be there.

    Args:
        store: where the blobs are.
        path: the archive.
        wanted: what it will be.
        progress: called with the bytes written.

    Returns:
        Its SHA-256 in hexadecimal digits.

    Raises:
        HostError: a blob isn't what its name says, or something can't be read or written. An
            archive that was there before stays as it is.
    """
    part = _part(path)
    try:
        with _opened(part) as stream:
            sink = _Sink(stream, progress)
            try:
                sink.put(wanted.head)
                for layer in wanted.blobs:
                    sink.put(header(_path(layer), layer.size))
                    _copy(store, layer, sink)
                    sink.put(padding(layer.size))
                sink.put(ending(sink.count))
                os.fsync(stream.fileno())
            except BaseException:
                os.unlink(part)
                raise
        with contextlib.suppress(FileNotFoundError):
            os.unlink(sidecar(path))  # first: it must never stand beside another archive
        os.rename(part, path)
        fsync_directory(os.path.dirname(path) or ".")
        checksum = sink.checksum.hexdigest()
        write_atomic(sidecar(path), f"{checksum}  {os.path.basename(path)}\n".encode())
    except OSError as error:
        text = error.strerror or str(error)
        raise HostError(f"the archive {path} can't be written: {text}.") from error
    return checksum


class _Sink:
    """The archive while it is written."""

    def __init__(self, stream: BinaryIO, progress: Callable[[int], None]) -> None:
        self.count = 0
        self.checksum = hashlib.sha256()
        self._stream = stream
        self._progress = progress

    def put(self, data: bytes) -> None:
        """Append bytes."""
        self._stream.write(data)
        self.checksum.update(data)
        self.count += len(data)
        self._progress(self.count)


def _copy(store: Store, layer: Layer, sink: _Sink) -> None:
    """Append a blob and make sure that it is what its name says."""
    path = os.path.join(store.root, store.blobs[layer.digest].path)
    checksum, count = hashlib.sha256(), 0
    for data in _pieces(path):
        checksum.update(data)
        count += len(data)
        if count <= layer.size:
            sink.put(data)
    if count != layer.size or checksum.hexdigest() != layer.digest:
        raise HostError(
            f"{path} is damaged: {count} bytes with the digest {checksum.hexdigest()}, wanted "
            f"{layer.size} bytes with {layer.digest}.",
            "Let model_catalog repair it first.",
        )


def _pieces(path: str) -> Iterator[bytes]:
    try:
        with open(path, "rb", buffering=0) as stream:
            yield from iter(lambda: stream.read(CHUNK), b"")
    except OSError as error:
        raise HostError(f"{path} can't be read: {error.strerror}.") from error


@contextlib.contextmanager
def _opened(part: str) -> Iterator[BinaryIO]:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(part, flags, 0o644), "r+b", buffering=0) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HostError(f"{part} is being written by another run.") from error
        stream.truncate(0)
        os.fchmod(stream.fileno(), 0o644)
        yield stream


def _whole(store: Store, name: ModelName) -> StoredModel:
    model = store.find(name)
    if model is None:
        why = store.corrupt_reason(name)
        raise HostError(
            f"{name} can't be given away: "
            + (f"its manifest can't be used: {why}." if why else f"{store.root} doesn't have it.")
        )
    defects = store.defects(model)
    if defects:
        layer, state = defects[0]
        raise HostError(
            f"{name} can't be given away: its blob sha256-{layer.digest} is {state}.",
            "Let model_catalog repair it first.",
        )
    return model


def _manifest(store: Store, model: StoredModel) -> bytes:
    path = os.path.join(store.root, model.path or model.name.manifest)
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except OSError as error:
        raise HostError(f"{path} can't be read: {error.strerror}.") from error
    if hashlib.sha256(content).hexdigest() != model.digest:
        raise HostError(f"{path} was changed just now.", "Run again when no pull goes on.")
    return content


def _path(layer: Layer) -> str:
    return f"{BLOBS}/sha256-{layer.digest}"


def _part(path: str) -> str:
    return f"{path}.part"
