# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What the catalog asks of an engine, and how one pulls a model for it."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Protocol

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import Declaration, Wanted
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_progress import CatalogProgress
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_staging import (
    awaited,
    in_the_way,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import ModelName
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import Store
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import OnProgress
from ansible_collections.hx_infra.llm.plugins.module_utils._registry import Remote


class Engine(Protocol):
    """What is asked of an engine; ``OllamaApi`` has it."""

    def pull(
        self,
        name: ModelName,
        *,
        insecure: bool,
        on_progress: OnProgress,
        on_stall: Callable[[int], None],
    ) -> None:
        """Download a model."""

    def copy(self, source: ModelName, target: ModelName) -> None:
        """Give a model a further name."""

    def delete(self, name: ModelName) -> None:
        """Remove a model."""

    def loaded(self) -> Mapping[str, str]:
        """Return the models in memory by the key of their name."""

    def unload(self, name: ModelName) -> bool:
        """Take a model out of memory and say whether it went."""

    def prove(self, name: ModelName) -> float:
        """Let a model answer and return the seconds that it took.

        Raises:
            HostError: it did not answer.
            UnreachableError: the engine gives no answer at all.
        """


class EnginePull:
    """How a registry's model gets into the store: the engine pulls it.

    Args:
        engine: the engine that owns the store.
        declaration: what was declared.
        progress: is told when the download stands still.
        look: reads the store.
    """

    def __init__(
        self,
        engine: Engine,
        declaration: Declaration,
        progress: CatalogProgress,
        look: Callable[[], Store],
    ) -> None:
        self._engine = engine
        self._declaration = declaration
        self._keys = declaration.keys
        self._progress = progress
        self._look = look
        self._guard = threading.Lock()
        self._taken: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def __call__(self, item: Wanted, remote: Remote | None, on_progress: OnProgress) -> None:
        """Pull a model and give it its declared name.

        Raises:
            HostError: it can't be had, or somebody else's model has the name that it is pulled by.
        """
        if item.source.key == item.name.key:
            self._pull(item, on_progress)
            return
        with self._guard:
            taken = self._taken[item.source.key]
        with taken:  # of two models that are pulled by one name, each takes it away at its end
            store = self._look()
            problem = in_the_way(item, remote, self._declaration, store)
            if problem:
                raise HostError(f"{item.name} can't be pulled: {problem}.")
            there = store.find(item.source)
            if not (there and awaited(item, there, remote) and not store.defects(there)):
                self._pull(item, on_progress)
            self._engine.copy(item.source, item.name)
            if item.source.key not in self._keys:
                self._engine.delete(item.source)

    def _pull(self, item: Wanted, on_progress: OnProgress) -> None:
        def tell(status: str, done: int, total: int) -> None:
            phase = "pulling" if status.startswith("pulling ") else status or "pulling"
            on_progress(phase, done, total)

        def stalled(seconds: int) -> None:
            self._progress.note(str(item.name), f"stalled for {seconds} s")

        self._engine.pull(item.source, insecure=item.insecure, on_progress=tell, on_stall=stalled)
