# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The inventory of a store: what each model and each blob is, occupies, and shares.

Pure functions over a store that was read, each in time linear in its models and files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import human_size
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    CORRUPT,
    MISSING,
    PRESENT,
    WRONG_SIZE,
    Layer,
    Store,
    StoredFile,
    StoredModel,
    unique,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._store_access import Entry
from ansible_collections.hx_infra.llm.plugins.module_utils._timestamp import utc

Row = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """What was seen of a store at one moment.

    Attributes:
        store: what it holds; blobs that were found bad carry their flaw.
        entries: all names in it.
        verified: when a blob was last read and found good, by digest, in seconds since the epoch.
        now: the moment, in seconds since the epoch.
        busy: device and inode of what processes have open.
        sees_all: whether that covers all processes.
        min_age_s: what changed more recently than this may be part of a download that goes on.
        holder: who is changing the store right now, as its lock says; empty when nobody does.
    """

    store: Store
    entries: Sequence[Entry] = ()
    verified: Mapping[str, float] = field(default_factory=dict)
    now: float = 0.0
    busy: Set[tuple[int, int]] = frozenset()
    sees_all: bool = False
    min_age_s: float = 3600
    holder: str = ""

    def active(self, files: Iterable[StoredFile]) -> bool:
        """Whether some files are being worked on, as far as that can be told."""
        return any(
            file.inode in self.busy or self.now - file.mtime < self.min_age_s for file in files
        )


@dataclass(frozen=True)
class Download:
    """The files of one blob's unfinished download.

    Attributes:
        files: its data file and its part records.
        size: the length that the blob will have; 0 when that isn't known.
        completed: the bytes that are there and count.
    """

    digest: str
    files: tuple[StoredFile, ...]
    size: int
    completed: int

    @property
    def damaged(self) -> bool:
        """Whether the engine can't go on with it, and fails with ``EOF`` each time."""
        return any(file.damaged for file in self.files)

    @property
    def held(self) -> int:
        """What the files occupy."""
        return sum(file.held for file in self.files)


class Inventory:
    """Who uses what in a store.

    Attributes:
        seen: what was seen.
        users: names of the models that refer to a blob, by its digest.
        layers: the blobs that models refer to, by digest.
        downloads: unfinished downloads by digest.
    """

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.store = seen.store
        self.users: dict[str, list[str]] = {}
        self.layers: dict[str, Layer] = {}
        self._sizes: dict[str, set[int]] = {}
        for model in (*self.store.models.values(), *self.store.twins):
            for layer in unique(model.layers):
                self.users.setdefault(layer.digest, []).append(str(model.name))
                self.layers.setdefault(layer.digest, layer)
                self._sizes.setdefault(layer.digest, set()).add(layer.size)
        self.downloads = {item.digest: item for item in _downloads(self.store.partials)}
        self._copied = {file.digest: file.completed for file in self.store.incoming}

    def state(self, digest: str) -> str:
        """Judge a blob by what all models say about it."""
        blob = self.store.blobs.get(digest)
        if blob is None:
            return MISSING
        if self._sizes.get(digest, {blob.size}) != {blob.size}:
            return WRONG_SIZE
        return CORRUPT if blob.bad else PRESENT

    def detail(self, digest: str) -> str:
        """Say what is wrong with a blob; empty when nothing is known to be."""
        state = self.state(digest)
        if state == MISSING:
            size = self.layers[digest].size
            held = self.resumable(digest)
            return f"{human_size(held)} of its {human_size(size)} are downloaded" if held else ""
        blob = self.store.blobs[digest]
        if state == WRONG_SIZE:
            wanted = " and ".join(f"{size:,}" for size in sorted(self._sizes[digest]))
            return f"it has {blob.size:,} bytes, wanted {wanted}"
        return blob.flaw

    def resumable(self, digest: str) -> int:
        """Return the bytes of a blob that an unfinished download or copy holds."""
        download = self.downloads.get(digest)
        held = download.completed if download and not download.damaged else 0
        return max(held, self._copied.get(digest, 0))

    @property
    def missing(self) -> list[str]:
        """The digests that models refer to and that aren't there."""
        return [digest for digest in self.layers if digest not in self.store.blobs]

    @property
    def orphans(self) -> list[StoredFile]:
        """The blobs that no readable manifest refers to."""
        return [blob for digest, blob in self.store.blobs.items() if digest not in self.users]

    @property
    def bad(self) -> list[StoredFile]:
        """The blobs that are there with a wrong size or content."""
        return [blob for digest, blob in self.store.blobs.items() if self.state(digest) != PRESENT]

    def models(self, *, full: bool = False) -> list[Row]:
        """Describe each model; with ``full`` with the digests of its blobs."""
        models = sorted(self.store.models.values(), key=lambda model: str(model.name))
        return [self._model(model, full) for model in models]

    def blobs(self, *, full: bool = False) -> list[Row]:
        """Describe the blobs: all of them, or those that something is to be said about."""
        return [
            self._blob(blob)
            for digest, blob in sorted(self.store.blobs.items())
            if full or digest not in self.users or self.state(digest) != PRESENT
        ]

    def missing_blobs(self) -> list[Row]:
        """Describe the blobs that models refer to and that aren't there."""
        return [
            {
                "digest": digest,
                "size_bytes": self.layers[digest].size,
                "media_type": self.layers[digest].media_type,
                "resumable_bytes": self.resumable(digest),
                "models": self.users[digest],
            }
            for digest in self.missing
        ]

    def shared(self) -> list[Row]:
        """Describe the blobs that several models refer to, the largest first."""
        digests = [digest for digest, names in self.users.items() if len(names) > 1]
        digests.sort(key=lambda digest: (-self.layers[digest].size, digest))
        return [
            {
                "digest": digest,
                "size_bytes": self.layers[digest].size,
                "models": self.users[digest],
            }
            for digest in digests
        ]

    def partials(self) -> list[Row]:
        """Describe the unfinished downloads of the engine."""
        return [self._download(item) for item in self.downloads.values()]

    def totals(self) -> Row:
        """Add up."""
        store, blobs = self.store, self.store.blobs.values()
        missing, orphans, bad = self.missing, self.orphans, self.bad
        return {
            "models": len(store.models),
            "whole_models": sum(self._whole(model) for model in store.models.values()),
            "declared_bytes": sum(model.size for model in store.models.values()),
            "blobs": len(blobs),
            "blob_bytes": sum(blob.size for blob in blobs),
            "held_bytes": sum(blob.held for blob in blobs),
            "verified_blobs": sum(blob.digest in self.seen.verified for blob in blobs),
            "missing_blobs": len(missing),
            "missing_bytes": sum(self.layers[digest].size for digest in missing),
            "bad_blobs": len(bad),
            "bad_bytes": sum(blob.held for blob in bad),
            "orphans": len(orphans),
            "orphan_bytes": sum(blob.held for blob in orphans),
            "partial_files": len(store.partials),
            "partial_bytes": sum(file.held for file in store.partials),
        }

    def _whole(self, model: StoredModel) -> bool:
        return all(self.state(layer.digest) == PRESENT for layer in model.layers)

    def _model(self, model: StoredModel, full: bool) -> Row:
        layers, verified = unique(model.layers), self.seen.verified
        present = {
            layer.digest: self.store.blobs[layer.digest].held
            for layer in layers
            if layer.digest in self.store.blobs
        }
        own = sum(held for digest, held in present.items() if len(self.users[digest]) == 1)
        whole = self._whole(model)
        times = [verified.get(layer.digest) for layer in layers]
        known = whole and None not in times
        row = {
            "name": str(model.name),
            "digest": model.digest,
            "manifest": model.path,
            "size_bytes": model.size,
            "held_bytes": sum(present.values()),
            "own_bytes": own,
            "shared_bytes": sum(present.values()) - own,
            "blobs": len(layers),
            "whole": whole,
            "verified": known,
            "verified_at": utc(min(times, default=None) if known else None),
            "defects": [
                {
                    "digest": layer.digest,
                    "media_type": layer.media_type,
                    "state": self.state(layer.digest),
                    "detail": self.detail(layer.digest),
                }
                for layer in layers
                if self.state(layer.digest) != PRESENT
            ],
        }
        if full:
            row["layers"] = [layer.digest for layer in layers]
        return row

    def _blob(self, blob: StoredFile) -> Row:
        users = self.users.get(blob.digest, [])
        return {
            "digest": blob.digest,
            "path": blob.path,
            "size_bytes": blob.size,
            "held_bytes": blob.held,
            "state": self.state(blob.digest),
            "detail": self.detail(blob.digest),
            "verified_at": utc(self.seen.verified.get(blob.digest)),
            "orphan": not users,
            "in_use": not users and self.seen.active([blob]),
            "models": users,
        }

    def _download(self, item: Download) -> Row:
        seen = self.seen
        opened = any(file.inode in seen.busy for file in item.files)
        ended = item.damaged and seen.sees_all  # a record is damaged while it is being written, too
        return {
            "digest": item.digest,
            "files": [file.path for file in item.files],
            "size_bytes": item.size,
            "completed_bytes": item.completed,
            "percent": round(100 * item.completed / item.size, 1) if item.size else None,
            "held_bytes": item.held,
            "age_s": max(0, int(seen.now - max(file.mtime for file in item.files))),
            "damaged": item.damaged,
            "open": True if opened else (False if seen.sees_all else None),
            "going_on": opened or (seen.active(item.files) and not ended),
            "models": self.users.get(item.digest, []),
        }


def _downloads(partials: Iterable[StoredFile]) -> list[Download]:
    groups: dict[str, list[StoredFile]] = {}
    for file in partials:
        groups.setdefault(file.digest, []).append(file)
    found = []
    for digest, files in groups.items():
        # The data file has its full length from the start; other files hold what is there.
        size = max((file.size for file in files if file.path.endswith("-partial")), default=0)
        completed = sum(file.completed for file in files)
        completed += sum(file.size for file in files if file.path.endswith(".tmp"))
        found.append(Download(digest, tuple(files), size, completed))
    return found
