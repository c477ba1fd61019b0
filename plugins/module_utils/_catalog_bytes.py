# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Counting what has come of a model and what has still to come."""

from __future__ import annotations

from collections.abc import Iterable

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import REGISTRY
from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import human_size
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    PRESENT,
    Layer,
    Store,
    StoredFile,
    resumable,
    unique,
)


def new_bytes(before: Store, after: Store, layers: Iterable[Layer]) -> int:
    """Count what came of some blobs, finished or not, without what an earlier run had left."""
    return sum(_came(before, after, layer) for layer in unique(layers))


def begun(before: Store, blob: StoredFile) -> int:
    """Count what an earlier run had left of a blob that is whole now.

    A copy gets the blob's name when it is whole. A pull doesn't go on from it, and downloads all.
    """
    copies = [file for file in before.incoming if file.digest == blob.digest]
    if any(file.inode == blob.inode for file in copies):
        return resumable(copies)
    return before.resumable(blob.digest)


def still_to_come(store: Store, layers: Iterable[Layer], kind: str = "") -> int:
    """Count what of some blobs isn't there, nor in unfinished files that can be gone on from.

    Args:
        store: the store as it is.
        layers: the blobs.
        kind: the kind of source that would bring them, since a pull doesn't go on from a copy nor
            a copy from a pull; whichever has come further by default.
    """
    lacking = [layer for layer in unique(layers) if store.blob_state(layer) != PRESENT]
    return sum(max(0, layer.size - _resumed(store, layer.digest, kind)) for layer in lacking)


def lacking_space(left: int, free: int, reserve: int) -> str:
    """Say, with figures, that what has to come doesn't fit on a disk; empty when it does."""
    if not left or free - left >= reserve:
        return ""
    return (
        f"{human_size(left)} would have to come, {human_size(free)} are free on the store's disk "
        f"and {human_size(reserve)} must stay free"
    )


def _came(before: Store, after: Store, layer: Layer) -> int:
    if after.blob_state(layer) == PRESENT != before.blob_state(layer):
        return max(0, layer.size - begun(before, after.blobs[layer.digest]))
    return max(0, _held(after, layer) - _held(before, layer))


def _held(store: Store, layer: Layer) -> int:
    """Return how much of a blob there is, in good state or on its way."""
    if store.blob_state(layer) == PRESENT:
        return layer.size
    return min(layer.size, store.resumable(layer.digest, copies=True))


def _resumed(store: Store, digest: str, kind: str) -> int:
    if kind in ("", REGISTRY):
        return store.resumable(digest, copies=not kind)
    return resumable([file for file in store.incoming if file.digest == digest])
