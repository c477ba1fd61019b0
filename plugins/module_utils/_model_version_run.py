# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""One run of the module model_version: observe, plan, apply, verify."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import _model_version as versions
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import SHORT
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._model_version_record import (
    RESTORED,
    RESTORING,
    kept_name,
    read_record,
    write_record,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_api import OllamaApi
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import (
    ModelName,
    parse_name,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import Store, read_store
from ansible_collections.hx_infra.llm.plugins.module_utils._store_ledger import (
    Ledger,
    ledger_path,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._store_lock import StoreLock
from ansible_collections.hx_infra.llm.plugins.module_utils._store_verify import verify


@dataclass(frozen=True)
class VersionIo:
    """What a run needs from outside.

    Attributes:
        api: the engine that serves the store.
        at: the time now, RFC 3339.
        progress: called with the path of a blob that is read, bytes done and bytes in total.
    """

    api: OllamaApi
    at: Callable[[], str]
    progress: Callable[[str, int, int], None] = lambda _path, _done, _total: None


def run_version(
    params: Mapping[str, Any], io: VersionIo, check_mode: bool, result: dict[str, Any]
) -> None:
    """Bring a model's version to the state that is wanted; ``result`` is filled as far as it gets.

    Raises:
        HostError: it can't be had, or was not found when the store was read back.
    """
    name, wish, root = parse_name(params["name"]), params["state"], params["store"]
    kept_name(name)  # refuses a name of which no version can be kept
    with StoreLock(root, f"model_version ({wish} {name})", look_only=check_mode):
        now = observe(name, root, params["state_dir"])
        if wish in (versions.KEPT, RESTORED):
            _read_blobs(now, params, io, check_mode)
        steps = versions.plan_version(
            wish,
            now,
            io.at(),
            offered=params["offered"],
            reason=params["reason"],
            remember=params["remember"],
        )
        result.update(_planned(now, steps))
        if check_mode:
            result["version"] = described(now)
            return
        versions.carry_out(
            steps,
            copy=io.api.copy,
            delete=io.api.delete,
            note=lambda model, record: write_record(params["state_dir"], model, record),
        )
        after = observe(name, root, params["state_dir"])
        _check_done(wish, now, after)
        result["version"] = described(after)
        result["diff"]["after"] = diff_text(after)
        if wish == RESTORED and any(step.action == versions.COPY for step in steps):
            _check_served(io.api, after)
            result["proof_s"] = round(io.api.prove(name), 3) if params["prove"] else None


def observe(name: ModelName, root: str, state_dir: str) -> versions.Situation:
    """Read how a model and its kept version stand.

    Raises:
        HostError: the store isn't there, or can't be read.
    """
    store = read_store(root)
    if not store.exists:
        raise HostError(f"the model store {root} is not there, wanted the one with {name}.")
    return versions.Situation(name, store, read_record(state_dir, name))


def described(now: versions.Situation) -> dict[str, Any]:
    """Return the form of a situation that results carry."""
    return {
        "name": str(now.name),
        "state": state_of(now),
        "digest": now.present.digest if now.present else "",
        "kept_as": str(now.kept.name) if now.kept else "",
        "kept_digest": now.kept.digest if now.kept else "",
        "kept_whole": bool(now.kept) and not now.store.defects(now.kept),
        "since": now.record.since,
        "offered": now.record.offered,
        "rejected": asdict(now.record.rejected) if now.record.rejected else {},
    }


def state_of(now: versions.Situation) -> str:
    """Say in one word what is to be made of a kept version.

    ``none``: there is none. ``kept``: the model is still that version. ``pending``: another version
    is in use and was not judged. ``restoring``: a way back was broken off. ``restored``,
    ``accepted``: it was decided, and the kept version is still there.
    """
    if now.record.state == RESTORING and (now.kept is not None or now.replaced is not None):
        return RESTORING
    if now.kept is None:
        return "none"
    if now.undecided:
        return versions.PENDING
    if now.record.state in (versions.ACCEPTED, RESTORED):
        return now.record.state
    return versions.KEPT


def diff_text(now: versions.Situation) -> str:
    """Return both versions as text, one line each."""
    lines = [
        f"{model.name} {model.digest[:SHORT]}"
        for model in (now.present, now.kept, now.replaced)
        if model is not None
    ]
    return "".join(f"{line}\n" for line in [*lines, f"update: {state_of(now)}"])


def _read_blobs(
    now: versions.Situation, params: Mapping[str, Any], io: VersionIo, check_mode: bool
) -> None:
    """Read those blobs of the version in question that the ledger doesn't vouch for."""
    model = now.kept if params["state"] == RESTORED else now.present
    if not params["verify"] or model is None:
        return
    ledger = Ledger(ledger_path(params["state_dir"], now.store.root))
    digests = [layer.digest for layer in model.layers]
    verify(now.store, digests, ledger, progress=io.progress)
    if not check_mode:
        ledger.save(keep=now.store.blobs)


def _planned(now: versions.Situation, steps: list[versions.VersionStep]) -> dict[str, Any]:
    told = [step for step in steps if step.sentence] or steps[-1:]
    predicted = _predicted(now, steps)
    return {
        "changed": bool(steps),
        "actions": [step.sentence or f"Note how {now.name} stands" for step in told],
        "plan": [
            {
                "action": step.action,
                "target": str(step.target),
                "source": str(step.source or ""),
                "digest": step.digest,
            }
            for step in told
        ],
        "diff": {"before": diff_text(now), "after": diff_text(predicted)},
    }


def _predicted(now: versions.Situation, steps: list[versions.VersionStep]) -> versions.Situation:
    """Return the situation after the steps."""
    store = Store(now.store.root, blobs=now.store.blobs, models=dict(now.store.models))
    record = now.record
    for step in steps:
        if step.action == versions.COPY and step.source is not None:
            model = store.models[step.source.key]
            store.models[step.target.key] = replace(model, name=step.target)
        elif step.action == versions.DELETE:
            store.models.pop(step.target.key, None)
        elif step.record is not None:
            record = step.record
    return versions.Situation(now.name, store, record)


def _check_done(wish: str, before: versions.Situation, after: versions.Situation) -> None:
    """Make sure that the store says what the steps were to bring."""
    name, wanted = {
        versions.KEPT: (kept_name(after.name), before.present),
        versions.ACCEPTED: (after.name, before.present),
        RESTORED: (after.name, before.kept),
        versions.DROPPED: (kept_name(after.name), None),
    }[wish]
    found = after.store.find(name)
    if (found.digest if found else "") != (wanted.digest if wanted else ""):
        raise HostError(
            f"{name} is {found.digest[:SHORT] if found else 'not there'} after the engine was asked"
            f" for it, wanted {wanted.digest[:SHORT] if wanted else 'it gone'}.",
            "Compare the engine's OLLAMA_MODELS with the option store.",
        )


def _check_served(api: OllamaApi, after: versions.Situation) -> None:
    """Make sure that the engine lists, and answers with, the version that the store has."""
    wanted = after.present.digest if after.present else ""
    if api.loaded().get(after.name.key, wanted) != wanted:
        api.unload(after.name)  # or the next answers came from the version that was given up
    served = api.tags().get(after.name.key, "")
    if served != wanted:
        raise HostError(
            f"the engine at {api.url} lists {after.name} with {served[:SHORT] or 'no digest'},"
            f" wanted {wanted[:SHORT]}."
        )
