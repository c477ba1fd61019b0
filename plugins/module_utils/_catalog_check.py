# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The content of blobs during a run of the catalog: what was read, and what was found wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_progress import CatalogProgress
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    Store,
    StoredFile,
    read_store,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import Watch
from ansible_collections.hx_infra.llm.plugins.module_utils._store_ledger import SAVE_S, Ledger
from ansible_collections.hx_infra.llm.plugins.module_utils._store_verify import verify

VERIFYING = "verifying"


class Checker:
    """Verifies blobs with the help of a ledger; threads may share it.

    Args:
        root: the store.
        ledger: what earlier runs have verified.
        progress: is told how far the reading is.
        watch: when to give up.
        keep: whether the ledger's file is written, which check mode doesn't do.
        idle: whether the disks are read at idle priority.
        warn: told what goes wrong with the ledger, which costs time and nothing else.
    """

    def __init__(
        self,
        root: str,
        ledger: Ledger,
        progress: CatalogProgress,
        watch: Watch,
        *,
        keep: bool,
        idle: bool = False,
        warn: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._root = root
        self._ledger = ledger
        self._progress = progress
        self._watch = watch
        self._keep = keep
        self._idle = idle
        self._warn = warn
        self._lock = threading.Lock()
        self._bad: dict[str, StoredFile] = {}
        self._seen: set[str] = set()
        self._found: dict[str, str] = {}
        self._read = self._remembered = self._bytes = 0
        self._seconds = 0.0
        self._saved_at = watch.clock()

    def read_store(self) -> Store:
        """Read the store, with the flaws that were found so far in files that are the same."""
        store = read_store(self._root)
        with self._lock:
            for digest, bad in self._bad.items():
                now = store.blobs.get(digest)
                if now and _same(now, bad):
                    store.blobs[digest] = replace(now, flaw=bad.flaw)
        return store

    def check(self, store: Store, digests: Iterable[str], item: str, *, full: bool = False) -> None:
        """Read those blobs that nobody vouches for, and mark the bad ones in the store.

        Args:
            store: the store as it was just read.
            digests: the blobs; those that the store doesn't hold, or that are known to be bad,
                are passed over.
            item: what they belong to, for the progress.
            full: whether all are read, whatever the ledger says.

        Raises:
            HostError: it is time to give up.
        """
        wanted = [
            digest
            for digest in dict.fromkeys(digests)
            if digest in store.blobs and not store.blobs[digest].bad
        ]

        def tell(_name: str, done: int, total: int) -> None:
            self._watch.check(f"verifying {item}")
            self._progress.update(item, VERIFYING, done, total)
            if self._watch.clock() - self._saved_at >= SAVE_S:
                self._save()

        with self._lock:
            new = [digest for digest in wanted if digest not in self._seen]
            if not full:
                known = [self._ledger.verified_at(store.blobs[digest]) for digest in new]
                self._remembered += sum(when is not None for when in known)
            try:
                self._verify(store, new, tell, full=full)
                self._verify(store, [digest for digest in wanted if digest in self._seen], tell)
            finally:
                self._progress.end(item)
                self._save()
            self._seen.update(new)
            for digest in wanted:
                if digest in store.blobs and store.blobs[digest].bad:
                    self._bad[digest] = store.blobs[digest]
                else:
                    self._bad.pop(digest, None)

    def forget_missing(self, store: Store) -> None:
        """Drop from the ledger what the store doesn't hold any more."""
        with self._lock:
            self._save(store.blobs)

    def as_dict(self) -> dict[str, Any]:
        """Return what was verified, in the form that results carry."""
        return {
            "read": self._read,
            "remembered": self._remembered,
            "bytes": self._bytes,
            "seconds": round(self._seconds, 3),
            "corrupt": [
                {"path": f"blobs/sha256-{digest}", "flaw": flaw}
                for digest, flaw in sorted(self._found.items())
            ],
        }

    def _verify(
        self,
        store: Store,
        digests: list[str],
        tell: Callable[[str, int, int], None],
        *,
        full: bool = False,
    ) -> None:
        found = verify(store, digests, self._ledger, full=full, idle=self._idle, progress=tell)
        self._read += found.read
        self._bytes += found.bytes_read
        self._seconds += found.seconds
        self._found.update({**found.corrupt, **found.unreadable})

    def _save(self, keep: Iterable[str] | None = None) -> None:
        self._saved_at = self._watch.clock()
        if not self._keep:
            return
        try:
            self._ledger.save(keep)
        except HostError as error:
            self._keep = False
            self._warn(str(error))


def _same(one: StoredFile, other: StoredFile) -> bool:
    return (one.inode, one.size, one.mtime_ns) == (other.inode, other.size, other.mtime_ns)
