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
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_bring import (
    Outcome,
    Tools,
    bring,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import (
    ADOPT,
    DISCARD,
    PRUNE_ORPHAN,
    PRUNE_PARTIAL,
    REMOVE,
    RESTORE,
    UNAVAILABLE,
    Plan,
    Step,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_staging import (
    same_name,
    why_kept,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    PRESENT,
    Layer,
    Store,
)


@dataclass(frozen=True)
class Executor:
    """Everything that carrying out a plan needs.

    Attributes:
        store: the store as it was when the plan was made.
        tools: what bringing models needs.
    """

    store: Store
    tools: Tools

    def apply(self, plan: Plan) -> list[Outcome]:
        """Carry out the steps in order and say how each of them went.

        Downloads that follow each other run at once, as many as the plan allows.
        """
        steps = [step for step in plan.steps if step.action != ADOPT]
        outcomes: list[Outcome] = []
        for downloads, group in groupby(steps, key=lambda step: step.downloads):
            if downloads and plan.parallel > 1:
                with ThreadPoolExecutor(plan.parallel) as pool:
                    outcomes += pool.map(self._carry_out, group)
            else:
                outcomes += map(self._carry_out, group)
        return outcomes

    def _carry_out(self, step: Step) -> Outcome:
        if step.action == UNAVAILABLE:
            return Outcome(step.action, step.target, False, f"{step.reason}.")
        reason = self.tools.watch.stopped()
        if reason:
            text = f"it was not begun: the run was stopped by {reason}."
            return Outcome(step.action, step.target, False, text)
        if step.downloads:
            return bring(step, self.tools)
        began = time.monotonic()
        problem = self._problem(step)
        seconds = time.monotonic() - began
        return Outcome(step.action, step.target, not problem, problem, seconds=seconds)

    def _problem(self, step: Step) -> str:
        """Carry out a step that brings nothing, and say what went wrong."""
        work: dict[str, Callable[[Step], object]] = {
            PRUNE_PARTIAL: self._prune_partial,
            PRUNE_ORPHAN: self._prune_orphan,
            REMOVE: self._remove,
            RESTORE: lambda step: self.tools.aside.restore(step.digest),
            DISCARD: self._discard,
        }
        try:
            work[step.action](step)
        except HostError as error:
            return str(error)
        except OSError as error:
            return f"{step.target}: {error.strerror or error}."
        return ""

    def _prune_partial(self, step: Step) -> None:
        files = (*self.store.partials, *self.store.incoming)
        seen = next(file for file in files if file.path == step.target)
        try:
            status = os.lstat(self._path(step.target))
        except FileNotFoundError:
            return
        if (status.st_mtime, status.st_size) != (seen.mtime, seen.size):
            raise HostError(f"{step.target} was kept: its download has just gone on.")
        self._check_came(step)
        _unlink(self._path(step.target))

    def _prune_orphan(self, step: Step) -> None:
        """Look once more: when a download failed, the old manifest still refers to the blob.

        Or somebody has begun to download since then: an engine takes what it finds for downloaded,
        and writes the manifest at the end.
        """
        self._check_came(step)
        self._check_unused(step)
        self._check_nothing_began(step)
        _unlink(self._path(step.target))

    def _discard(self, step: Step) -> None:
        """Look once more: the good blob has to be there, or no model may refer to it."""
        if not step.after:
            self._check_unused(step)
        elif not self._in_place(*step.after):
            now = self.tools.checker.read_store()
            wanted = step.digest in now.referenced() or now.corrupt
            if wanted and step.digest not in now.blobs and self.tools.aside.restore(step.digest):
                raise HostError(f"{step.target} was put back: no good blob came.")
            raise HostError(f"{step.target} was kept: no good blob is in its place.")
        self.tools.aside.drop(step.digest)

    def _check_came(self, step: Step) -> None:
        if not self._in_place(*step.after):
            said = ", ".join(f"sha256-{digest[:12]}" for digest in step.after)
            raise HostError(f"{step.target} was kept: no good blob {said} came.")

    def _check_unused(self, step: Step) -> None:
        now = self.tools.checker.read_store()
        if step.digest in now.referenced() or now.corrupt:
            raise HostError(f"{step.target} was kept: a model may refer to it.")

    def _check_nothing_began(self, step: Step) -> None:
        was, now = self.store, self.tools.checker.read_store()
        known = {file.path for file in (*was.partials, *was.incoming)}
        began = {file.path for file in (*now.partials, *now.incoming)} - known
        if began or now.blobs.keys() - was.blobs.keys() - now.referenced():
            raise HostError(f"{step.target} was kept: a download has begun that may want it.")

    def _in_place(self, *digests: str) -> bool:
        """Say whether blobs are there, of the size that models give them and a good content."""
        if not digests:
            return True
        store = self.tools.checker.read_store()
        if not store.blobs.keys() >= set(digests):
            return False
        for digest in digests:
            self.tools.checker.check(store, [digest], f"blob sha256-{digest[:12]}")
        models = (*store.models.values(), *store.twins)
        layers = [layer for model in models for layer in model.layers if layer.digest in digests]
        layers += [Layer(digest, store.blobs[digest].size) for digest in digests]
        return all(store.blob_state(layer) == PRESENT for layer in layers)

    def _remove(self, step: Step) -> None:
        name = parse_name(step.target)
        if step.keeper:
            now = self.tools.checker.read_store()
            why = why_kept(name, parse_name(step.keeper), now)
            if why:
                raise HostError(f"{step.target} was kept: {why}.")
        for model in same_name(self.store, name.key):
            self.tools.engine.delete(model.name)
        for path in self.store.corrupt:  # the engine can't remove what it can't read
            if path.lower() == name.manifest.lower():
                _unlink(self._path(path))

    def _path(self, relative: str) -> str:
        return os.path.join(self.store.root, relative)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
