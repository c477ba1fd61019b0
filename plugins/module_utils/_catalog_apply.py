# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Carrying out a plan of the model catalog, step by step.

A step that fails doesn't stop the others. Each step may be cut off at any point: what it leaves
is something that the next plan starts from.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import (
    PRUNE_ORPHAN,
    PRUNE_PARTIAL,
    PULL,
    REMOVE,
    REPULL,
    Declaration,
    Plan,
    Step,
    Wanted,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import (
    ModelName,
    parse_name,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import Store, read_store


class Engine(Protocol):
    """What the executor asks of an engine; ``OllamaApi`` has it."""

    def pull(
        self, name: ModelName, *, insecure: bool, on_progress: Callable[[str, int, int], None]
    ) -> None:
        """Download a model."""

    def copy(self, source: ModelName, target: ModelName) -> None:
        """Give a model a further name."""

    def delete(self, name: ModelName) -> None:
        """Remove a model."""

    def prove(self, name: ModelName) -> float:
        """Let a model answer and return the seconds that it took."""


@dataclass(frozen=True)
class Outcome:
    """How a step went; ``proof_s`` is how long a new model took to answer."""

    action: str
    target: str
    ok: bool
    detail: str = ""
    proof_s: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the form that results carry."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class Executor:
    """Everything that carrying out a plan needs.

    Attributes:
        store: the store as it was when the plan was made.
        declaration: what was declared.
        engine: the engine that owns the store.
        progress: called with model, phase, bytes done and in total, and a note.
        prove: whether each new model has to answer a prompt.
    """

    store: Store
    declaration: Declaration
    engine: Engine
    progress: Callable[[str, str, int, int, str], None]
    prove: bool = True

    def apply(self, plan: Plan) -> list[Outcome]:
        """Carry out the steps in order and say how each of them went."""
        return [self._carry_out(step) for step in plan.changes]

    def _carry_out(self, step: Step) -> Outcome:
        work = {
            PRUNE_PARTIAL: self._prune_partial,
            PRUNE_ORPHAN: self._prune_orphan,
            REMOVE: self._remove,
            PULL: self._pull,
            REPULL: self._pull,
        }[step.action]
        try:
            proof_s = work(step)
        except HostError as error:
            return Outcome(step.action, step.target, False, str(error))
        except OSError as error:
            text = f"{step.target}: {error.strerror or error}."
            return Outcome(step.action, step.target, False, text)
        return Outcome(step.action, step.target, True, proof_s=proof_s)

    def _prune_partial(self, step: Step) -> None:
        seen = next(file for file in self.store.partials if file.path == step.target)
        try:
            status = os.stat(self._path(step.target))
        except FileNotFoundError:
            return
        if (status.st_mtime, status.st_size) != (seen.mtime, seen.size):
            raise HostError(f"{step.target} was kept: its download has just gone on.")
        _unlink(self._path(step.target))

    def _prune_orphan(self, step: Step) -> None:
        """Look once more: when a pull failed, the old manifest still refers to the blob."""
        now = read_store(self.store.root)
        if step.digest in now.referenced() or now.corrupt:
            raise HostError(f"{step.target} was kept: a model may refer to it.")
        _unlink(self._path(step.target))

    def _remove(self, step: Step) -> None:
        name = parse_name(step.target)
        if name.key in self.store.models:
            self.engine.delete(self.store.models[name.key].name)
            return
        for path in self.store.corrupt:  # the engine can't remove what it can't read
            if path.lower() == name.manifest.lower():
                _unlink(self._path(path))

    def _pull(self, step: Step) -> float | None:
        item = next(item for item in self.declaration.wanted if str(item.name) == step.target)
        for path in step.frees:  # the engine takes any file of that name for the whole blob
            _unlink(self._path(path))
        self._fetch(item)
        if not self.prove:
            return None
        self.progress(step.target, "proving", 0, 0, "waiting for its first answer")
        return self.engine.prove(item.name)

    def _fetch(self, item: Wanted) -> None:
        def tell(status: str, done: int, total: int) -> None:
            phase = "pulling" if status.startswith("pulling ") else status or "pulling"
            self.progress(str(item.name), phase, done, total, "")

        self.engine.pull(item.source, insecure=item.insecure, on_progress=tell)
        if item.source.key == item.name.key:
            return
        self.engine.copy(item.source, item.name)
        if item.source.key not in self.declaration.keys:
            self.engine.delete(item.source)

    def _path(self, relative: str) -> str:
        return os.path.join(self.store.root, relative)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def open_inodes(proc: str = "/proc") -> tuple[set[tuple[int, int]], bool]:
    """Return device and inode of every open file, and whether all processes could be seen.

    Inodes, because an engine in a container knows the store by another path.
    """
    found: set[tuple[int, int]] = set()
    complete = True
    for pid in (name for name in os.listdir(proc) if name.isdigit()):
        try:
            numbers = os.listdir(f"{proc}/{pid}/fd")
        except OSError as error:
            complete = complete and not isinstance(error, PermissionError)
            continue
        for number in numbers:
            try:
                status = os.stat(f"{proc}/{pid}/fd/{number}")
            except OSError as error:
                complete = complete and not isinstance(error, PermissionError)
                continue
            found.add((status.st_dev, status.st_ino))
    return found, complete
