# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Setting bad blobs aside while a repair looks for good ones, and putting them back.

An engine takes any file of a blob's name for the whole blob, so a bad one has to go before a good
one can come. It goes by a rename inside the store: requests that have it open keep working, and
when no source can give a good one it gets its name back. What a killed run left set aside is
dealt with by the next plan.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    ASIDE,
    BLOBS,
    StoredFile,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._store_folder import Folder

Inode = tuple[int, int]  # device and number

_JUDGED = 3


@dataclass(frozen=True)
class Judgement:
    """What is in the place of a blob that was set aside.

    Attributes:
        good: whether it is a good blob, so that the bad one goes; else that is put back. None when
            nobody knows, which leaves both for the next run.
        bad: the file in its place when that is a bad one too, which makes room.
    """

    good: bool | None
    bad: Inode | None = None


class Aside:
    """The place for set-aside blobs of one store; several repairs may use it at once.

    Args:
        root: the store.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._repairs: dict[str, int] = {}  # how many are at work, by the digest of a blob

    def put(self, file: StoredFile) -> None:
        """Set a bad blob aside; ``settle`` has to follow once for each call.

        What an earlier repair had set aside stays as it is: then the bad blob in its place came
        from that repair, and goes. A blob that isn't the file that was found bad stays: another
        repair was faster.

        Args:
            file: the bad blob, as it was when it was found bad.

        Raises:
            HostError: it can't be done; nothing has changed.
        """
        name = _name(file.digest)
        with self._lock, self._folders("set aside", file.digest) as (blobs, aside):
            found = os.path.basename(file.path)  # very old servers named it another way
            if _inode(blobs.status(found, follow=True)) == file.inode:
                if aside.status(name) is None:
                    blobs.move(found, aside, name)
                else:
                    blobs.remove(found)
            self._repairs[file.digest] = self._repairs.get(file.digest, 0) + 1

    def settle(self, digest: str, judge: Callable[[], Judgement]) -> None:
        """End a repair of a blob.

        With several repairs at work on one blob, the last one to end puts it back.

        Args:
            digest: the blob.
            judge: says what is in the blob's place, at the moment of the call.

        Raises:
            HostError: it can't be put back, or can't be removed.
        """
        with self._lock:
            left = self._repairs.pop(digest, 1) - 1
            if left:
                self._repairs[digest] = left
            for _attempt in range(_JUDGED):  # what is in its place may change meanwhile
                now = judge()
                if now.good:
                    self._drop(digest)
                    return
                if left or now.good is None or self._restore(digest, now.bad):
                    return

    def restore(self, digest: str) -> bool:
        """Put a set-aside blob back, unless a blob of that name is there; say whether it is back.

        Raises:
            HostError: it can't be put back.
        """
        with self._lock:
            return self._restore(digest, None)

    def drop(self, digest: str) -> None:
        """Remove a set-aside blob for good; being gone already is no error.

        Raises:
            HostError: it can't be removed.
        """
        with self._lock:
            self._drop(digest)

    def _restore(self, digest: str, bad: Inode | None) -> bool:
        """Put it back, in place of nothing but the file that is known to be bad."""
        name = _name(digest)
        with self._folders("put back", digest) as (blobs, aside):
            if aside.status(name) is None:
                return True
            if bad is not None and _inode(blobs.status(name, follow=True)) == bad:
                aside.move(name, blobs, name)
                return True
            return aside.move_beside(name, blobs, name)

    def _drop(self, digest: str) -> None:
        with self._folders("removed", digest) as (_blobs, aside):
            aside.remove(_name(digest))

    @contextlib.contextmanager
    def _folders(self, verb: str, digest: str) -> Iterator[tuple[Folder, Folder]]:
        """Open the blobs and the place for the bad ones; say what failed when something does."""
        try:
            with (
                Folder.below(self._root, BLOBS, (None, None), make=True) as blobs,
                Folder.below(self._root, ASIDE, (None, None), make=True) as aside,
            ):
                yield blobs, aside
        except OSError as error:
            raise HostError(
                f"the bad blob {_name(digest)} can't be {verb}: {error.strerror}.",
                f"{ASIDE} has to be on the file system of {BLOBS}."
                if error.errno == errno.EXDEV
                else "",
            ) from error


def _inode(status: os.stat_result | None) -> Inode | None:
    return status and (status.st_dev, status.st_ino)


def _name(digest: str) -> str:
    return f"sha256-{digest}"
