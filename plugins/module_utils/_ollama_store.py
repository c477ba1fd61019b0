# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A store of Ollama read from disk, with the engine running or not.

Nothing is written and no blob's content is read: sizes are compared, hashes are not computed,
except those of the manifests, which are the digests that ``ollama list`` shows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import file_sha256
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import (
    ModelName,
    manifest_name,
)

BLOBS = "blobs"
MANIFESTS = "manifests"
PRESENT, MISSING, WRONG_SIZE, CORRUPT = "present", "missing", "wrong size", "corrupt"

_BLOB = re.compile(r"sha256-([0-9a-f]{64})")
_PARTIAL = re.compile(r"sha256-([0-9a-f]{64})(?:-partial(-\d+)?|\.tmp)")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_BLOCK = 512  # the unit of st_blocks, whatever the file system's block size


@dataclass(frozen=True)
class Layer:
    """A blob as a manifest refers to it; ``digest`` is the bare hexadecimal form."""

    digest: str
    size: int
    media_type: str = ""


@dataclass(frozen=True)
class StoredModel:
    """A model that the store has a readable manifest of."""

    name: ModelName
    digest: str
    layers: tuple[Layer, ...]

    @property
    def size(self) -> int:
        """Sum of the sizes in the manifest, as ``ollama list`` shows it."""
        return sum(layer.size for layer in self.layers)


@dataclass(frozen=True)
class StoredFile:
    """A file below ``blobs/``.

    Attributes:
        path: relative to the store.
        digest: the digest that its name speaks of; empty for a foreign file.
        size: its length.
        held: the bytes that it really occupies, never more than its length.
        mtime: time of its last change.
        inode: device and inode number.
        damaged: a part record that Ollama can't read, so that its download can't be resumed; or
            a blob whose content was found not to be what its name says.
        completed: bytes that a part record states as downloaded.
    """

    path: str
    digest: str
    size: int
    held: int
    mtime: float
    inode: tuple[int, int] = (0, 0)
    damaged: bool = False
    completed: int = 0


@dataclass
class Store:
    """What a store holds.

    Attributes:
        root: its directory.
        exists: whether the directory is there.
        models: the models by the key of their name.
        corrupt: the reason by the path of a manifest that can't be read.
        stray: paths below ``manifests/`` that are no manifests.
        blobs: complete files by digest.
        partials: files of unfinished downloads.
        foreign: other files below ``blobs/``.
    """

    root: str
    exists: bool = True
    models: dict[str, StoredModel] = field(default_factory=dict)
    corrupt: dict[str, str] = field(default_factory=dict)
    stray: list[str] = field(default_factory=list)
    blobs: dict[str, StoredFile] = field(default_factory=dict)
    partials: list[StoredFile] = field(default_factory=list)
    foreign: list[StoredFile] = field(default_factory=list)

    def find(self, name: ModelName) -> StoredModel | None:
        """Return a model by its name, if it is there."""
        return self.models.get(name.key)

    def corrupt_reason(self, name: ModelName) -> str:
        """Say what is wrong with a model's manifest; empty when nothing is."""
        wanted = name.manifest.lower()
        return next((why for path, why in self.corrupt.items() if path.lower() == wanted), "")

    def blob_state(self, layer: Layer) -> str:
        """Compare a layer with the file that it refers to."""
        blob = self.blobs.get(layer.digest)
        if blob is None:
            return MISSING
        if blob.size != layer.size:
            return WRONG_SIZE
        return CORRUPT if blob.damaged else PRESENT

    def defects(self, model: StoredModel) -> list[tuple[Layer, str]]:
        """List the layers of a model that aren't there in full."""
        states = ((layer, self.blob_state(layer)) for layer in unique(model.layers))
        return [(layer, state) for layer, state in states if state != PRESENT]

    def resumable(self, digest: str) -> int:
        """Return the bytes of a blob that an unfinished download holds and a pull goes on from."""
        files = [file for file in self.partials if file.digest == digest]
        if any(file.damaged for file in files):
            return 0
        return sum(file.completed for file in files)

    def referenced(self, models: Iterable[StoredModel] | None = None) -> set[str]:
        """Return the digests that some models (all by default) refer to."""
        chosen = self.models.values() if models is None else models
        return {layer.digest for model in chosen for layer in model.layers}


def unique(layers: Iterable[Layer]) -> list[Layer]:
    """Return each blob once, in order."""
    return list({layer.digest: layer for layer in layers}.values())


def read_store(root: str) -> Store:
    """Read a store.

    Raises:
        HostError: the path is there but is no directory, or can't be read.
    """
    store = Store(root=root)
    if not os.path.lexists(root):
        store.exists = False
        return store
    try:
        os.listdir(root)
        _read_manifests(store)
        _read_blobs(store)
    except OSError as error:
        raise HostError(
            f"the model store {root} can't be read: {error.filename}: {error.strerror}.",
            "Check that it is a directory and that its disk is mounted.",
        ) from error
    return store


def hash_blobs(store: Store, digests: Iterable[str]) -> None:
    """Read some blobs and mark those whose content isn't what their name says.

    Raises:
        HostError: one can't be read.
    """
    for digest in digests:
        blob = store.blobs[digest]
        try:
            found = file_sha256(os.path.join(store.root, blob.path))
        except OSError as error:
            raise HostError(f"{blob.path} can't be read: {error.strerror}.") from error
        if found != digest:
            store.blobs[digest] = replace(blob, damaged=True)


def parse_manifest(content: bytes) -> tuple[Layer, ...]:
    """Return the blobs that a manifest refers to, the configuration last.

    Raises:
        ValueError: it is no manifest; the text says why.
    """
    if not content.strip():
        raise ValueError("it is empty")
    try:
        data = json.loads(content)
    except ValueError as error:
        raise ValueError(f"it is no JSON ({error})") from error
    if not isinstance(data, dict) or not isinstance(data.get("layers"), list):
        raise ValueError("it has no list of layers")
    config = data.get("config")
    entries = [*data["layers"], *([config] if config and config.get("digest") else [])]
    return tuple(_layer(entry) for entry in entries)


def _layer(entry: Any) -> Layer:
    digest = _DIGEST.fullmatch(str(entry.get("digest", ""))) if isinstance(entry, dict) else None
    if digest is None:
        raise ValueError("a layer has no digest")
    size = entry.get("size", 0)
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError(f"the size of the layer {entry['digest'][:19]} is {size!r}")
    return Layer(digest.group(1), size, str(entry.get("mediaType", "")))


def _read_manifests(store: Store) -> None:
    for relative in _files(store.root, MANIFESTS):
        name = manifest_name(relative[len(MANIFESTS) + 1 :])
        path = os.path.join(store.root, relative)
        if name is None or not os.path.isfile(path):
            store.stray.append(relative)
            continue
        with open(path, "rb") as stream:
            content = stream.read()
        try:
            layers = parse_manifest(content)
        except ValueError as error:
            store.corrupt[relative] = str(error)
            continue
        store.models[name.key] = StoredModel(name, hashlib.sha256(content).hexdigest(), layers)


def _files(root: str, below: str) -> Iterator[str]:
    top = os.path.join(root, below)
    for directory, subdirectories, names in os.walk(top, followlinks=True, onerror=_not_missing):
        subdirectories.sort()
        for name in sorted(names):
            yield os.path.relpath(os.path.join(directory, name), root)


def _not_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _read_blobs(store: Store) -> None:
    try:
        entries = sorted(os.scandir(os.path.join(store.root, BLOBS)), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        try:
            status = entry.stat()
        except FileNotFoundError:  # renamed by a download that just ended
            continue
        blob, partial = _BLOB.fullmatch(entry.name), _PARTIAL.fullmatch(entry.name)
        found = blob or partial
        file = _stored_file(entry, status, found.group(1) if found else "")
        if not stat.S_ISREG(status.st_mode):
            store.foreign.append(file)
        elif blob:
            store.blobs[file.digest] = file
        elif partial:
            store.partials.append(_with_record(file, entry.path) if partial.group(2) else file)
        else:
            store.foreign.append(file)


def _stored_file(entry: os.DirEntry[str], status: os.stat_result, digest: str) -> StoredFile:
    return StoredFile(
        path=f"{BLOBS}/{entry.name}",
        digest=digest,
        size=status.st_size,
        held=min(status.st_size, status.st_blocks * _BLOCK),
        mtime=status.st_mtime,
        inode=(status.st_dev, status.st_ino),
    )


def _with_record(file: StoredFile, path: str) -> StoredFile:
    """Read how far a part is; Ollama fails with ``EOF`` for ever on an empty or cut record."""
    completed, damaged = 0, True
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        with open(path, "rb") as stream:
            record = json.loads(stream.read(4096))
        completed, damaged = max(0, int(record.get("Completed", 0))), False
    return replace(file, damaged=damaged, completed=completed)
