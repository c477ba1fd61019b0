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
import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import manifest_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store_words import (
    CORRUPT,
    MISSING,
    PRESENT,
    WRONG_SIZE,
    Layer,
    Store,
    StoredFile,
    StoredModel,
    resumable,
    unique,
)

__all__ = [
    "ASIDE",
    "BLOBS",
    "CORRUPT",
    "INCOMING",
    "LOCK",
    "MANIFESTS",
    "MISSING",
    "PRESENT",
    "WRONG_SIZE",
    "Layer",
    "Store",
    "StoredFile",
    "StoredModel",
    "parse_manifest",
    "read_store",
    "resumable",
    "unique",
]

BLOBS = "blobs"
MANIFESTS = "manifests"
ASIDE = ".hx/aside"  # bad blobs, kept until good ones are in place
INCOMING = ".hx/incoming"  # unfinished copies from peers and archives
LOCK = ".hx/lock"

_BLOB = re.compile(r"sha256-([0-9a-f]{64})")
_OLD_BLOB = re.compile(r"sha256:([0-9a-f]{64})")
_COPY = re.compile(r"sha256-([0-9a-f]{64})\.part")
_PARTIAL = re.compile(r"sha256-([0-9a-f]{64})(?:-partial(-\d+)?|\.tmp)")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MOST_BYTES = 4 << 20  # of a manifest; those of the largest models have some kilobytes
_BLOCK = 512  # the unit of st_blocks, whatever the file system's block size


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
        _read_own(store)
    except OSError as error:
        raise HostError(
            f"the model store {root} can't be read: {error.filename}: {error.strerror}.",
            "Check that it is a directory and that its disk is mounted.",
        ) from error
    return store


def parse_manifest(content: bytes) -> tuple[Layer, ...]:
    """Return the blobs that a manifest refers to, the configuration last.

    Raises:
        ValueError: it is no manifest; the text says why.
    """
    if len(content) > _MOST_BYTES:
        raise ValueError("it is longer than a manifest")
    if not content.strip():
        raise ValueError("it is empty")
    try:
        data = json.loads(content)
    except ValueError as error:
        raise ValueError(f"it is no JSON ({error})") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(data, dict) or not isinstance(data.get("layers"), list):
        raise ValueError("it has no list of layers")
    config = data.get("config") or {}
    if not isinstance(config, dict):
        raise ValueError("its configuration is no object")
    entries = [*data["layers"], *([config] if config.get("digest") else [])]
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
        if name is None or (not os.path.isfile(path) and os.path.lexists(path)):
            store.stray.append(relative)
            continue
        try:
            with open(path, "rb") as stream:
                content = stream.read(_MOST_BYTES + 1)
            layers = parse_manifest(content)
        except ValueError as error:
            store.corrupt[relative] = str(error)
            continue
        except FileNotFoundError:  # removed a moment ago
            continue
        except OSError as error:
            if error.errno != errno.EIO:  # of one file only, as a disk that fails has them
                raise
            store.corrupt[relative] = f"it can't be read: {error.strerror}"
            continue
        model = StoredModel(name, hashlib.sha256(content).hexdigest(), layers, relative)
        if store.models.setdefault(name.key, model) is not model:
            store.twins.append(model)


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
    for entry, status in _entries(store.root, BLOBS):
        blob, partial = _BLOB.fullmatch(entry.name), _PARTIAL.fullmatch(entry.name)
        old = _OLD_BLOB.fullmatch(entry.name)
        found = blob or partial or old
        file = _stored_file(BLOBS, entry, status, found.group(1) if found else "")
        if not found or not stat.S_ISREG(status.st_mode):
            store.foreign.append(file)
        elif partial:
            store.partials.append(_with_record(file, entry.path) if partial.group(2) else file)
        elif blob:
            store.blobs[file.digest] = file
        else:
            store.old_names.append(file)
    for file in store.old_names:
        store.blobs.setdefault(file.digest, file)


def _read_own(store: Store) -> None:
    """Read what the collection itself keeps in a store."""
    for entry, status in _entries(store.root, ASIDE):
        found = _BLOB.fullmatch(entry.name)
        if found and stat.S_ISREG(status.st_mode):
            store.aside[found.group(1)] = _stored_file(ASIDE, entry, status, found.group(1))
    for entry, status in _entries(store.root, INCOMING):
        found = _COPY.fullmatch(entry.name)
        if found and stat.S_ISREG(status.st_mode):
            file = _stored_file(INCOMING, entry, status, found.group(1))
            store.incoming.append(replace(file, completed=file.size))


def _entries(root: str, below: str) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    try:
        entries = sorted(os.scandir(os.path.join(root, below)), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        # A download that just ended was renamed.
        with contextlib.suppress(FileNotFoundError):
            yield entry, entry.stat()


def _stored_file(
    below: str, entry: os.DirEntry[str], status: os.stat_result, digest: str
) -> StoredFile:
    return StoredFile(
        path=f"{below}/{entry.name}",
        digest=digest,
        size=status.st_size,
        held=min(status.st_size, status.st_blocks * _BLOCK),
        mtime=status.st_mtime,
        inode=(status.st_dev, status.st_ino),
        uid=status.st_uid,
        gid=status.st_gid,
        mode=stat.S_IMODE(status.st_mode),
        mtime_ns=status.st_mtime_ns,
    )


def _with_record(file: StoredFile, path: str) -> StoredFile:
    """Read how far a part is; Ollama fails with ``EOF`` for ever on an empty or cut record."""
    completed, damaged = 0, True
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
        with open(path, "rb") as stream:
            record = json.loads(stream.read(4096))
        completed, damaged = max(0, int(record.get("Completed", 0))), False
    return replace(file, damaged=damaged, completed=completed)
