# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The copy of a store in staging: made while the engine works, verified, brought up to date."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from ansible_collections.hx_infra.llm.plugins.module_utils._copytree import (
    Ownership,
    copy_tree,
    set_idle_io,
    unseal,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import file_sha256, walk
from ansible_collections.hx_infra.llm.plugins.module_utils._progress import ProgressWriter
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate import Declared, Tree
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate_observe import (
    blob_digest,
    closure_problems,
)

PARTS = ("stop", "delta", "commit", "start")


@dataclass
class Outcome:
    """What a run did, as numbers."""

    bytes_copied: int = 0
    blobs_verified: int = 0
    owned: int = 0
    retained: str = ""
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    def interruption(self) -> dict[str, float]:
        """Return the seconds in which the engine did not answer, by part and in total."""
        rounded = {part: round(self.seconds[part], 3) for part in PARTS}
        return {**rounded, "total": round(sum(self.seconds.values()), 3)}


class StagedCopy:
    """A store's copy beside its final place, under a name of its own.

    Args:
        declared: what is wanted.
        tree: the store that is copied.
        path: where the copy is made.
        owner: owner, group and modes of the copy.
        progress: where to report how far it is.
        outcome: where to count.
    """

    def __init__(
        self,
        declared: Declared,
        tree: Tree,
        path: str,
        *,
        owner: Ownership,
        progress: ProgressWriter,
        outcome: Outcome,
    ) -> None:
        self._declared = declared
        self._tree = tree
        self._path = path
        self._owner = owner
        self._progress = progress
        self._outcome = outcome

    def copy_live(self) -> None:
        """Copy while the engine works, giving way to it."""
        if not os.path.isdir(self._path):
            os.mkdir(self._path, 0o700)
        set_idle_io(True)
        try:
            self._pass("copying", live=True)
        finally:
            set_idle_io(False)
        self._outcome.owned = self._tree.differing

    def verify(self) -> None:
        """Read every blob back from the disk and compare it with the digest in its name."""
        blobs = os.path.join(self._path, "blobs")
        names = [name for name, _info in walk(blobs)] if os.path.isdir(blobs) else []
        self._outcome.blobs_verified = self._verify([f"blobs/{name}" for name in names])
        self._check_closure()

    def bring_up_to_date(self) -> None:
        """Copy what changed since, with the engine stopped, and verify just that."""
        self._verify(self._pass("finishing", live=False))
        self._check_closure()

    def unseal(self) -> None:
        """Let the store's owner into the copy; until now nobody could change what was verified."""
        unseal(self._tree.path, self._path, self._owner)

    def _pass(self, phase: str, live: bool) -> list[str]:
        source = self._tree.path
        tree = self._tree
        total, seen = tree.size, 0

        def report(count: int) -> None:
            nonlocal seen
            seen += count
            self._progress.update(source, phase, min(seen, total), total, unit="B")

        done = copy_tree(source, self._path, self._owner, progress=report, live=live, sealed=True)
        self._outcome.bytes_copied += done.bytes
        return done.changed

    def _verify(self, names: list[str]) -> int:
        """Compare blobs of the copy with the digests in their names; copy a bad one once more."""
        total, seen, count = self._tree.size, 0, 0

        def report(size: int) -> None:
            nonlocal seen
            seen += size
            self._progress.update(
                self._declared.target, "verifying", min(seen, total), total, unit="B"
            )

        for name in names:
            wanted = blob_digest(name)
            path = os.path.join(self._path, name)
            if not wanted or not os.path.isfile(path):
                continue
            if file_sha256(path, report) != wanted and not self._copy_again(name, wanted):
                continue
            count += 1
        return count

    def _copy_again(self, name: str, wanted: str) -> bool:
        origin, path = os.path.join(self._tree.path, name), os.path.join(self._path, name)
        found = file_sha256(origin)
        if found != wanted:
            message = (
                f"{self._declared.host}: the blob {origin} is damaged: its content has the digest "
                f"{found[:12]}, its name says {wanted[:12]}."
            )
            if not self._declared.allow_damaged:
                remedy = "Pull its model again or remove it; with allow_damaged it moves as it is."
                raise HostError(message, f"The engine was not touched. {remedy}")
            self._outcome.warnings.append(message)
            return False
        os.unlink(path)
        self._pass("copying", live=True)
        again = file_sha256(path)
        if again != wanted:
            raise HostError(
                f"{self._declared.host}: the copy {path} reads back with the digest {again[:12]}, "
                f"wanted {wanted[:12]}, and so it did when it was copied once more.",
                "The engine was not touched. Check the disk and the memory of the host.",
            )
        return True

    def _check_closure(self) -> None:
        problems = closure_problems(self._path)
        if problems and not self._declared.allow_damaged:
            raise HostError(
                f"{self._declared.host}: the copy is not complete: {'; '.join(problems[:3])}.",
                "Run again when nobody pulls or removes models.",
            )
