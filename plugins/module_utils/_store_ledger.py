# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The ledger of a store: which blobs were read in full, found good, and when.

A blob counts as verified as long as its size, the time of its last change, its inode and its
device are what they were. Content that changes without any of these (a failing disk) is found by
reading everything again, which is what a full verification is for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterable
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    make_directories,
    write_atomic,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import StoredFile

FORMAT = 1
FOLDER = "store"
SAVE_S = 5.0  # a run that is killed has to read again what it has read since the last saving

_Entry = list[Any]
_FIELDS = 5  # size, time of the last change [ns], inode, device, and when it was verified


def ledger_path(state_dir: str, root: str) -> str:
    """Name the ledger of a store; the same for all paths that lead to that store."""
    identity = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    return os.path.join(state_dir, FOLDER, f"{identity}.json")


class Ledger:
    """What is remembered about the blobs of one store; threads may share it.

    Args:
        path: its file, which is read when it is there; None keeps everything in memory.

    Attributes:
        problem: why a file that is there is not made use of; empty when it is.
    """

    def __init__(self, path: str | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._entries, self.problem = ({}, "") if path is None else _read(path)
        self._own: dict[str, _Entry | None] = {}  # not saved yet; None for what was forgotten

    def verified_at(self, file: StoredFile) -> float | None:
        """Return when a blob was last read and found good; None when it has to be read (again)."""
        entry = self._entries.get(file.digest)
        if not isinstance(entry, list) or len(entry) != _FIELDS:
            return None
        device, inode = file.inode
        if entry[:-1] != [file.size, file.mtime_ns, inode, device]:
            return None
        when = entry[-1]
        return float(when) if isinstance(when, (int, float)) and when >= 0 else None

    def note(self, digest: str, status: os.stat_result, when: float) -> None:
        """Remember that a blob was read in full and is what its name says.

        Args:
            digest: the blob's digest, hexadecimal digits only.
            status: its file as it was before and after the reading.
            when: the time of the reading, in seconds since the epoch.
        """
        entry = [status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev, when]
        with self._lock:
            self._entries[digest] = self._own[digest] = entry

    def forget(self, digest: str) -> None:
        """Have a blob read again the next time."""
        with self._lock:
            self._entries.pop(digest, None)
            self._own[digest] = None

    def save(self, keep: Iterable[str] | None = None) -> None:
        """Write what is new since the file was read; nothing is written when nothing is.

        What another run has noted or forgotten meanwhile stays as that run left it.

        Args:
            keep: the digests that the store holds; the others are dropped. None keeps all.

        Raises:
            HostError: it can't be written.
        """
        wanted = None if keep is None else set(keep)
        with self._lock:
            surplus = wanted is not None and not wanted.issuperset(self._entries)
            if not self._own and not surplus:
                return
            before, problem = ({}, "") if self.path is None else _read(self.path)
            merged = dict(self._entries if self.path is None else before)
            for digest, entry in self._own.items():
                if entry is None:
                    merged.pop(digest, None)
                else:
                    merged[digest] = entry
            if wanted is not None:
                merged = {digest: merged[digest] for digest in merged if digest in wanted}
            if self.path is not None and (merged != before or problem):
                _write(self.path, merged)
            self._entries, self._own = merged, {}


def _read(path: str) -> tuple[dict[str, Any], str]:
    """Return what a file says, each entry as it is there, and why it counts for nothing."""
    try:
        with open(path, "rb") as stream:
            data = json.load(stream)
    except FileNotFoundError:
        return {}, ""
    except OSError as error:
        return {}, f"{path} can't be read: {error.strerror}"
    except (ValueError, RecursionError):
        return {}, f"{path} is damaged"
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        return {}, f"{path} has not the format {FORMAT}"
    blobs = data.get("blobs")
    return (blobs, "") if isinstance(blobs, dict) else ({}, f"{path} is damaged")


def _write(path: str, entries: dict[str, Any]) -> None:
    data = {"format": FORMAT, "blobs": entries}
    folder = os.path.dirname(path) or "."
    try:
        make_directories(os.path.dirname(folder) or ".", 0o750)
        make_directories(folder, 0o700)
        content = json.dumps(data, separators=(",", ":"), sort_keys=True)
        write_atomic(path, content.encode(), 0o600)
    except OSError as error:
        with contextlib.suppress(OSError):  # or it would vouch for what was just found bad
            os.unlink(path)
        raise HostError(
            f"the ledger of verified blobs {path} can't be written: {error.strerror}.",
            "Without it every blob is read again the next time.",
        ) from error
