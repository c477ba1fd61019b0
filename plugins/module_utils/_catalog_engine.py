# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What the catalog asks of an engine, and how one pulls a model for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import Declaration, Wanted
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_progress import CatalogProgress
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import ModelName
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
        """Let a model answer and return the seconds that it took."""


class EnginePull:
    """How a registry's model gets into the store: the engine pulls it.

    Args:
        engine: the engine that owns the store.
        declaration: what was declared.
        progress: is told when the download stands still.
    """

    def __init__(self, engine: Engine, declaration: Declaration, progress: CatalogProgress) -> None:
        self._engine = engine
        self._keys = declaration.keys
        self._progress = progress

    def __call__(self, item: Wanted, _remote: Remote | None, on_progress: OnProgress) -> None:
        """Pull a model and give it its declared name.

        Raises:
            HostError: it can't be had.
        """

        def tell(status: str, done: int, total: int) -> None:
            phase = "pulling" if status.startswith("pulling ") else status or "pulling"
            on_progress(phase, done, total)

        def stalled(seconds: int) -> None:
            self._progress.note(str(item.name), f"stalled for {seconds} s")

        self._engine.pull(item.source, insecure=item.insecure, on_progress=tell, on_stall=stalled)
        if item.source.key == item.name.key:
            return
        self._engine.copy(item.source, item.name)
        if item.source.key not in self._keys:
            self._engine.delete(item.source)
