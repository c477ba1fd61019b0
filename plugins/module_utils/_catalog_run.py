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
from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_apply as executor
from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_plan as words
from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_report as report
from ansible_collections.hx_infra.llm.plugins.module_utils import _ollama_store as stores
from ansible_collections.hx_infra.llm.plugins.module_utils import _registry as registry
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_api import OllamaApi
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import Http


@dataclass(frozen=True)
class Io:
    """What a run needs from outside."""

    api: OllamaApi
    registry: Http
    progress: Callable[[str, str, int, int, str], None]
    moment: Callable[[], catalog.Moment]
    free_bytes: Callable[[str], int]


def reconcile(params: dict[str, Any], io: Io, check_mode: bool, result: dict[str, Any]) -> None:
    """Plan, act unless in check mode, and verify; ``result`` is filled as far as it gets."""
    declaration = words.read_declaration(params)
    store = stores.read_store(params["store"])
    remotes = {
        item.name.key: registry.look_up(
            io.registry, item.source, insecure=item.insecure, model=str(item.name)
        )
        for item in catalog.to_look_up(declaration, store)
    }
    stores.hash_blobs(store, catalog.to_hash(declaration, store, remotes))
    plan = catalog.make_plan(declaration, store, remotes, io.moment())
    before = report.entries(store, declaration)
    after = report.predicted(plan, store, declaration, remotes)
    result.update(_planned(plan, store, before, after))
    result["diff"] = {
        "before": report.diff_text(before, store.partials),
        "after": report.diff_text(after, plan.kept_partials),
    }
    catalog.check_pins(declaration, store, remotes)
    space_path = params["space_path"] or params["store"]
    catalog.check_space(plan, declaration.reserve_bytes, io.free_bytes(space_path), space_path)
    needs_engine = any(step.names_model for step in plan.changes)
    _check_served(io.api, store, optional=check_mode or not needs_engine)
    outcomes: list[executor.Outcome] = []
    evidence = "read from the store"
    if check_mode and plan.changes:
        evidence = "as planned"
    elif plan.changes:
        work = executor.Executor(store, declaration, io.api, io.progress, params["prove"])
        outcomes = work.apply(plan)
        now = stores.read_store(params["store"])
        result.update(_done(store, now, outcomes))
        after = report.entries(now, declaration)
        result["env"] = report.environment(after)
        result["diff"]["after"] = report.diff_text(after, now.partials)
        store, plan = now, catalog.make_plan(declaration, now, {}, io.moment())
        result["undeclared"] = [str(model.name) for model in plan.undeclared]
        if needs_engine:
            _check_served(io.api, store, optional=False)
    result["catalog"] = {"before": before, "after": after}
    result["verdicts"] = report.verdicts(
        declaration, after, plan, store, outcomes, evidence=evidence
    )
    _check_done(result, outcomes, [] if check_mode else plan.changes)


def _planned(
    plan: words.Plan, store: stores.Store, before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "changed": bool(plan.changes),
        "actions": words.sentences(plan.steps),
        "plan": [step.as_dict() for step in plan.steps],
        "totals": {
            "bytes_to_download": plan.bytes_to_download,
            "bytes_to_free": plan.bytes_to_free,
            "space_needed": plan.space_needed,
        },
        "catalog": {"before": before, "after": after},
        "undeclared": [str(model.name) for model in plan.undeclared],
        **report.to_be_freed(plan, store),
        "downloaded_bytes": plan.bytes_to_download,
        "verdicts": [],
        "outcomes": [],
        "env": report.environment(after),
    }


def _done(
    before: stores.Store, now: stores.Store, outcomes: list[executor.Outcome]
) -> dict[str, Any]:
    return {
        **report.freed(before, now),
        "downloaded_bytes": report.downloaded(before, now),
        "outcomes": [outcome.as_dict() for outcome in outcomes],
    }


def _check_served(api: OllamaApi, store: stores.Store, *, optional: bool) -> None:
    """Make sure that the engine serves the store that was read."""
    try:
        listed = set(api.tags())
    except HostError:
        if optional:
            return
        raise
    whole = {key for key, model in store.models.items() if not store.defects(model)}
    odd = sorted((listed - set(store.models)) | (whole - listed))
    if odd and not optional:
        raise HostError(
            f"the engine at {api.url} doesn't serve the store {store.root}: they differ in "
            f"{', '.join(odd)}.",
            "Compare the engine's OLLAMA_MODELS with the option store.",
        )


def _check_done(
    result: dict[str, Any], outcomes: list[executor.Outcome], left: list[words.Step]
) -> None:
    failed = [f"{outcome.target}: {outcome.detail}" for outcome in outcomes if not outcome.ok]
    if not failed:
        failed = [f"{sentence} (still needed)" for sentence in words.sentences(left)]
    if failed:
        raise HostError(f"the models are not as declared: {' '.join(failed)}")


def free_bytes(path: str) -> int:
    """Return the free space of the disk that a path is on, or will be on."""
    while not os.path.exists(path):
        path = os.path.dirname(path) or "/"
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
