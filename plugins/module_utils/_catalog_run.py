# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""One run of the model catalog: observe, plan, apply, verify."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog as catalog
from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_plan as words
from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_report as report
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_apply import Executor
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_aside import Aside
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_bring import Outcome, Tools
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_check import Checker
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_engine import EnginePull
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import Offers
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_progress import CatalogProgress
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_verdicts import verdicts
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_api import OllamaApi
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import Store
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import Watch
from ansible_collections.hx_infra.llm.plugins.module_utils._sources import Source, make_sources
from ansible_collections.hx_infra.llm.plugins.module_utils._store_import import StoreWriter
from ansible_collections.hx_infra.llm.plugins.module_utils._store_ledger import Ledger, ledger_path
from ansible_collections.hx_infra.llm.plugins.module_utils._store_lock import StoreLock
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import Http


@dataclass(frozen=True)
class Io:
    """What a run needs from outside.

    Attributes:
        api: the engine that serves the store.
        registry: asks registries for manifests.
        progress: is told how far the work is.
        moment: says what the plan depends on besides the store.
        free_bytes: the free space of the disk that a path is on.
        watch: when to give up.
        warn: told what is worth a warning.
    """

    api: OllamaApi
    registry: Http
    progress: CatalogProgress
    moment: Callable[[], words.Moment]
    free_bytes: Callable[[str], int]
    watch: Watch
    warn: Callable[[str], None]


def reconcile(params: dict[str, Any], io: Io, check_mode: bool, result: dict[str, Any]) -> None:
    """Plan, act unless in check mode, and verify; ``result`` is filled as far as it gets.

    Raises:
        HostError: the models are not as declared, or nothing could be done.
    """
    declaration = words.read_declaration(params)
    with StoreLock(params["store"], "model_catalog", look_only=check_mode):
        _Run(params, io, check_mode, declaration).go(result)


class _Run:
    """One run, with what its parts have in common."""

    def __init__(
        self,
        params: dict[str, Any],
        io: Io,
        check_mode: bool,
        declaration: words.Declaration,
    ) -> None:
        self.params = params
        self.io = io
        self.check_mode = check_mode
        self.declaration = declaration
        self.root = str(params["store"])
        ledger = Ledger(ledger_path(params["state_dir"], self.root))
        if ledger.problem:
            io.warn(f"blobs are verified anew: {ledger.problem}.")
        self.checker = Checker(
            self.root,
            ledger,
            io.progress,
            io.watch,
            keep=not check_mode,
            idle=params["idle_io"],
            warn=io.warn,
        )
        self.sources: list[Source] = make_sources(
            params["sources"],
            writer=StoreWriter(self.root),
            registry=EnginePull(io.api, declaration, io.progress, self.checker.read_store),
            http=io.registry,
            watch=io.watch,
            tell=lambda item, note: io.progress.update(item, "asking", note=note),
        )

    def go(self, result: dict[str, Any]) -> None:
        """Observe, plan, apply, verify."""
        try:
            self._go(result)
        finally:
            result["verified"] = self.checker.as_dict()

    def _go(self, result: dict[str, Any]) -> None:
        declaration, io = self.declaration, self.io
        store = self.checker.read_store()
        self._verify_declared(store)
        offers = self._ask_sources(store)
        leftover = catalog.to_hash(declaration, store, offers)
        self.checker.check(store, leftover, "what earlier downloads left")
        plan = catalog.make_plan(declaration, store, offers, io.moment())
        before = report.entries(store, declaration)
        after = report.predicted(plan, store, declaration)
        result.update(report.planned(plan, store, before, after))
        if not self.check_mode:
            result.update(report.untouched(plan, store, before))
        space_path = self.params["space_path"] or self.root
        catalog.check_space(plan, declaration.reserve_bytes, io.free_bytes(space_path), space_path)
        needs_engine = any(step.names_model for step in plan.changes)
        if not self.check_mode:  # a run before this one may yet give the engine its store
            self._check_served(store, optional=not needs_engine)
        outcomes: list[Outcome] = []
        evidence = "read from the store"
        left = plan.unavailable
        if self.check_mode and plan.changes:
            evidence = "as planned"
        elif plan.changes or plan.unavailable:
            begun = {(step.action, step.target) for step in plan.changes}
            result["changed"] = bool(plan.changes)
            del result["env"]  # until the store is read again, nobody knows what is there
            outcomes = self._apply(plan, store, offers)
            now = self.checker.read_store()
            left_plan = catalog.make_plan(declaration, now, {}, io.moment())
            result.update(report.done(store, now, left_plan, declaration, outcomes))
            after, store, plan = result["catalog"]["after"], now, left_plan
            # Files that were too young or in use when the plan was made are for the next run.
            left = [
                step
                for step in plan.changes
                if step.names_model or (step.action, step.target) in begun
            ]
            left += plan.unavailable
            if needs_engine and all(outcome.ok for outcome in outcomes):
                self._check_served(store, optional=False)
        if not self.check_mode:
            self.checker.forget_missing(store)
        result["verdicts"] = verdicts(
            declaration, after, plan, store, outcomes, evidence=evidence, planned=self.check_mode
        )
        _check_done(outcomes, left)

    def _verify_declared(self, store: Store) -> None:
        """Read what has to be read of the blobs of the declared models that are there."""
        if self.params["verify"] == "none":
            return
        models = [store.find(item.name) for item in self.declaration.wanted]
        digests = [layer.digest for model in models if model for layer in model.layers]
        self.checker.check(store, digests, "declared models", full=self.params["verify"] == "full")

    def _ask_sources(self, store: Store) -> Offers:
        offers = {}
        for item in catalog.to_look_up(self.declaration, store):
            self.io.watch.check(f"asking the sources for {item.name}")
            try:
                offers[item.name.key] = [source.offer(item) for source in self.sources]
            finally:
                self.io.progress.end(str(item.name))
        return offers

    def _apply(self, plan: words.Plan, store: Store, offers: Offers) -> list[Outcome]:
        tools = Tools(
            declaration=self.declaration,
            engine=self.io.api,
            sources=self.sources,
            offers=offers,
            checker=self.checker,
            aside=Aside(self.root),
            progress=self.io.progress,
            watch=self.io.watch,
            free_bytes=lambda: self.io.free_bytes(self.root),
            prove=self.params["prove"],
        )
        return Executor(store, tools).apply(plan)

    def _check_served(self, store: Store, *, optional: bool) -> None:
        """Make sure that the engine serves the store that was read.

        Args:
            store: the store.
            optional: whether the engine may be down.
        """
        try:
            listed = set(self.io.api.tags())
        except HostError:
            if optional:
                return
            raise
        unlisted = [
            model
            for key, model in store.models.items()
            if key not in listed and not store.defects(model)
        ]
        # An engine doesn't list a model whose configuration it can't read: that one is damaged.
        digests = [model.layers[-1].digest for model in unlisted if model.layers]
        self.checker.check(store, digests, "models that the engine doesn't list")
        odd = [str(model.name) for model in unlisted if not store.defects(model)]
        odd += listed - set(store.models)
        if odd:
            raise HostError(
                f"the engine at {self.io.api.url} doesn't serve the store {self.root}: they "
                f"differ in {', '.join(sorted(odd))}.",
                "Compare the engine's OLLAMA_MODELS with the option store.",
            )


def _check_done(outcomes: list[Outcome], left: list[words.Step]) -> None:
    failed = [f"{outcome.target}: {outcome.detail}" for outcome in outcomes if not outcome.ok]
    named = {outcome.target for outcome in outcomes if not outcome.ok}
    failed += [
        f"{step.target}: {step.reason}."
        for step in left
        if step.action == words.UNAVAILABLE and step.target not in named
    ]
    failed = failed or [f"{words.sentences([step])[0]} (still needed)." for step in left]
    if failed:
        raise HostError(f"the models are not as declared: {' '.join(failed)}")


def free_bytes(path: str) -> int:
    """Return the free space of the disk that a path is on, or will be on."""
    while not os.path.exists(path):
        path = os.path.dirname(path) or "/"
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
