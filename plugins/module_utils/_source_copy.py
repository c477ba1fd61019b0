# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What peers and archives have in common: one model copied into the store, with its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import Offer
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import SHORT, Wanted
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import ModelName
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import Layer, unique
from ansible_collections.hx_infra.llm.plugins.module_utils._registry import Remote
from ansible_collections.hx_infra.llm.plugins.module_utils._store_import import StoreWriter

COPYING, PLACING = "copying", "writing manifest"  # what on_progress is told
Tell = Callable[[str, str], None]  # a model that is asked for, and what that waits for


def tell_nobody(_name: str, _note: str) -> None:
    """Keep to oneself what asking for a model waits for."""


def remote_of(item: Wanted, offer: Offer) -> Remote:
    """Return what an offer promises, when it is what was declared.

    Raises:
        HostError: it promises nothing, or another version.
    """
    remote = offer.remote
    if remote is None:
        raise HostError(f"{offer.source} can't give {item.name}: {offer.problem}.")
    if item.pin and not remote.meets(item.pin):
        raise HostError(
            f"{offer.source} has {item.name} with the digest {remote.digests[0][:SHORT]}, wanted "
            f"{item.pin[:SHORT]}."
        )
    return remote


def asking_again(problem: str) -> str:
    """Return what on_progress is told while a source is asked once more."""
    return f"asking again ({problem})"


class Copying:
    """One model on its way into the store.

    Attributes:
        missing: the blobs that have to be brought.
    """

    def __init__(
        self, writer: StoreWriter, remote: Remote, on_progress: Callable[[str, int, int], None]
    ) -> None:
        self.missing = writer.need(unique(remote.layers))
        self._writer = writer
        self._remote = remote
        self._tell = on_progress
        self._done = 0
        self._total = sum(layer.size for layer in self.missing)

    def bring(self, layer: Layer, open_at: Callable[[int], Iterator[bytes]]) -> None:
        """Bring one of the missing blobs; ``open_at`` opens it at an offset.

        Raises:
            HostError: it couldn't be brought.
        """
        before = self._done

        def count(here: int) -> None:
            self._done = before + here
            self._tell(COPYING, self._done, self._total)

        self._writer.bring(layer, open_at, count)
        count(layer.size)

    def trouble(self, problem: str) -> None:
        """Say that the source is being asked once more, and why."""
        self._tell(asking_again(problem), self._done, self._total)

    def finish(self, name: ModelName) -> None:
        """Write the manifest, which makes the model one that the engine lists."""
        self._tell(PLACING, self._total, self._total)
        self._writer.place_manifest(name, self._remote.content, self._remote.digests[0])
