# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The planner of the model catalog: what is declared and what is observed become a plan.

Everything here is a pure function. Order of a plan: what frees disk space comes first, then the
pulls in the declared order, then what must wait for them because they share blobs with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Union

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import (
    ADOPT,
    PRUNE_ORPHAN,
    PRUNE_PARTIAL,
    PULL,
    REMOVE,
    REPULL,
    SHORT,
    Declaration,
    Plan,
    Step,
    Wanted,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import human_size
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import manifest_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    CORRUPT,
    MANIFESTS,
    PRESENT,
    WRONG_SIZE,
    Layer,
    Store,
    StoredFile,
    StoredModel,
    unique,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._registry import Remote

Remotes = Mapping[str, Union[Remote, None]]  # by the key of the declared name


@dataclass(frozen=True)
class Moment:
    """What a plan depends on besides the store.

    Attributes:
        now: wall-clock seconds.
        busy: inodes that processes have open.
        sees_all: whether ``busy`` covers all processes.
    """

    now: float
    busy: Set[tuple[int, int]] = frozenset()
    sees_all: bool = False


def why_pull(item: Wanted, store: Store) -> str:
    """Say why a declared model can't stay as it is; empty when it can."""
    model = store.find(item.name)
    if model is None:
        corrupt = store.corrupt_reason(item.name)
        return f"its manifest can't be used: {corrupt}" if corrupt else "it is not there"
    if not model.digest.startswith(item.pin):
        return f"its digest is {model.digest[:SHORT]}, wanted {item.pin[:SHORT]}"
    defects = store.defects(model)
    if defects:
        layer, state = defects[0]
        more = f" and {len(defects) - 1} more" if len(defects) > 1 else ""
        return f"blob sha256-{layer.digest[:SHORT]} is {_said(store, layer, state)}{more}"
    return ""


def to_look_up(declaration: Declaration, store: Store) -> list[Wanted]:
    """List the models that a registry has to be asked about."""
    return [
        item
        for item in declaration.wanted
        if why_pull(item, store) or (item.update and not item.pin)
    ]


def to_hash(declaration: Declaration, store: Store, remotes: Remotes) -> list[str]:
    """List the blobs that pulls would find in place and that no whole model vouches for.

    An engine verifies only what it has just downloaded: what an interrupted or failed pull left
    would be taken as it is.
    """
    pulled = [item for item in declaration.wanted if _pull_reason(item, store, remotes)]
    vouched = store.referenced(model for model in store.models.values() if not store.defects(model))
    layers = (layer for item in pulled for layer in _pulled_layers(item, store, remotes))
    return [
        layer.digest
        for layer in unique(layers)
        if store.blob_state(layer) == PRESENT and layer.digest not in vouched
    ]


def check_pins(declaration: Declaration, store: Store, remotes: Remotes) -> None:
    """Refuse when a registry's model isn't the pinned one.

    Raises:
        HostError: the names of all such models, with both digests.
    """
    unmet = []
    for item in declaration.wanted:
        remote = remotes.get(item.name.key)
        if remote and item.pin and not remote.meets(item.pin) and why_pull(item, store):
            offered = remote.digests[0][:SHORT]
            unmet.append(f"{item.name} is pinned to {item.pin[:SHORT]}, {remote.url} has {offered}")
    if unmet:
        raise HostError(
            f"The registry can't meet a pinned digest: {'; '.join(unmet)}.",
            "Correct the pin, or provide the pinned version at the registry.",
        )


def check_space(plan: Plan, reserve_bytes: int, free: int, path: str) -> None:
    """Refuse when a pull would leave less free space than the reserve.

    Raises:
        HostError: what is needed, what is free and what is missing.
    """
    needed = plan.space_needed
    missing = needed + reserve_bytes - free
    if plan.bytes_to_download and missing > 0:
        raise HostError(
            f"The pulls need {human_size(needed)} on the disk of {path}, where "
            f"{human_size(free)} are free and {human_size(reserve_bytes)} must stay free: "
            f"{human_size(missing)} are missing.",
            "Nothing was pulled. Free disk space, or declare fewer models.",
        )


def make_plan(declaration: Declaration, store: Store, remotes: Remotes, moment: Moment) -> Plan:
    """Compare what is declared with what is there."""
    plan = Plan()
    removals = _removals(declaration, store)
    removed = {model.name.key for model, _why in removals}
    reasons = {item.name.key: _pull_reason(item, store, remotes) for item in declaration.wanted}
    needed: dict[str, Layer] = {}
    for item in declaration.wanted:
        if reasons[item.name.key]:
            needed.update((layer.digest, layer) for layer in _pulled_layers(item, store, remotes))
    early, late, freed = _remove_steps(removals, store, set(needed))
    orphans, replaced = _orphans(store, reasons, removed, freed, set(needed))
    prune, plan.kept_partials = _partials(declaration, store, needed, moment)
    plan.steps += prune
    if declaration.prune_orphans:
        plan.steps += [_prune_orphan(blob, "no model refers to it") for blob in orphans]
    else:
        plan.orphans = [*orphans, *replaced]
    plan.steps += early
    planned: set[str] = set()
    for item in declaration.wanted:
        plan.steps.append(_model_step(item, store, remotes, reasons[item.name.key], planned))
    plan.steps += late
    if declaration.prune_orphans:
        plan.steps += [_prune_orphan(blob, "its model was replaced") for blob in replaced]
    known = declaration.keys | removed
    plan.undeclared = [model for key, model in sorted(store.models.items()) if key not in known]
    return plan


def _pull_reason(item: Wanted, store: Store, remotes: Remotes) -> str:
    reason = why_pull(item, store)
    remote, model = remotes.get(item.name.key), store.find(item.name)
    if reason or not remote or not model or item.pin or not item.update:
        return reason
    here = {layer.digest for layer in model.layers}
    moved = here != {layer.digest for layer in remote.layers}
    return f"the registry has {remote.digests[0][:SHORT]}" if moved else ""


def _pulled_layers(item: Wanted, store: Store, remotes: Remotes) -> Sequence[Layer]:
    remote, model = remotes.get(item.name.key), store.find(item.name)
    if remote:
        return unique(remote.layers)
    return unique(model.layers) if model else ()


def _model_step(
    item: Wanted, store: Store, remotes: Remotes, reason: str, planned: set[str]
) -> Step:
    """Plan one declared model; ``planned`` collects the blobs that earlier pulls bring."""
    model = store.find(item.name)
    if model and not reason:
        return Step(ADOPT, str(item.name), "as declared", digest=model.digest)
    remote = remotes.get(item.name.key)
    size = files = freed = 0
    frees = []
    for layer in _pulled_layers(item, store, remotes):
        state = store.blob_state(layer)
        if state == PRESENT or layer.digest in planned:
            continue
        planned.add(layer.digest)
        files += 1
        size += max(0, layer.size - store.resumable(layer.digest))
        if state in (WRONG_SIZE, CORRUPT):
            frees.append(store.blobs[layer.digest].path)
            freed += store.blobs[layer.digest].held
    present = model is not None or bool(store.corrupt_reason(item.name))
    return Step(
        REPULL if present else PULL,
        str(item.name),
        reason,
        size=size,
        files=files,
        digest=remote.digest_for(item.pin) if remote else "",
        source=str(item.source),
        frees=tuple(frees),
        freed=freed,
    )


def _removals(declaration: Declaration, store: Store) -> list[tuple[StoredModel, str]]:
    """List what must go, with the reason; an unreadable model is taken for one without blobs."""
    present = dict(store.models)
    for path in store.corrupt:
        name = manifest_name(path[len(MANIFESTS) + 1 :])
        if name:
            present.setdefault(name.key, StoredModel(name, "", ()))
    forbidden = {name.key for name in declaration.forbidden}
    staged = {item.source.key for item in declaration.wanted} - declaration.keys
    found = []
    for key, model in sorted(present.items()):
        if key in forbidden:
            found.append((model, "it is forbidden"))
        elif key in staged:
            found.append((model, "an interrupted pull left it"))
        elif declaration.exclusive and key not in declaration.keys:
            found.append((model, "it is not declared"))
    return found


def _remove_steps(
    removals: list[tuple[StoredModel, str]], store: Store, needed: Set[str]
) -> tuple[list[Step], list[Step], set[str]]:
    """Plan removals, and say which blobs they free.

    Those that share blobs with a pull come after it, so that it finds them.
    """
    early: list[Step] = []
    late: list[Step] = []
    freed_blobs: set[str] = set()
    left = dict(store.models)
    for model, reason in sorted(removals, key=lambda item: bool(_refs(item[0]) & needed)):
        left.pop(model.name.key, None)
        gone = (_refs(model) - store.referenced(left.values()) - needed) & set(store.blobs)
        freed = sum(store.blobs[digest].held for digest in gone)
        freed_blobs |= gone
        step = Step(
            REMOVE,
            str(model.name),
            reason,
            freed,
            len(gone),
            model.digest,
            frees=tuple(sorted(store.blobs[digest].path for digest in gone)),
            freed=freed,
        )
        (late if _refs(model) & needed else early).append(step)
    return early, late, freed_blobs


def _refs(model: StoredModel) -> set[str]:
    return {layer.digest for layer in model.layers}


def _orphans(
    store: Store, reasons: Mapping[str, str], removed: Set[str], freed: Set[str], needed: Set[str]
) -> tuple[list[StoredFile], list[StoredFile]]:
    """List the blobs that nothing refers to now, and those that nothing will refer to.

    While a manifest can't be read and stays so, nobody knows what it refers to: then there are
    none.
    """
    names = (manifest_name(path[len(MANIFESTS) + 1 :]) for path in store.corrupt)
    if any(name and not reasons.get(name.key) and name.key not in removed for name in names):
        return [], []
    kept = [
        model for key, model in store.models.items() if not reasons.get(key) and key not in removed
    ]
    in_use = store.referenced(kept) | needed | freed
    loose = [blob for digest, blob in sorted(store.blobs.items()) if digest not in in_use]
    now = store.referenced()
    return (
        [blob for blob in loose if blob.digest not in now],
        [blob for blob in loose if blob.digest in now],
    )


def _prune_orphan(blob: StoredFile, reason: str) -> Step:
    return _prune(PRUNE_ORPHAN, blob, reason)


def _prune(action: str, file: StoredFile, reason: str) -> Step:
    return Step(
        action,
        file.path,
        reason,
        file.held,
        1,
        file.digest,
        frees=(file.path,),
        freed=file.held,
    )


def _partials(
    declaration: Declaration, store: Store, needed: Mapping[str, Layer], moment: Moment
) -> tuple[list[Step], list[StoredFile]]:
    """Decide download by download; one that is going on or that a pull resumes stays."""
    steps: list[Step] = []
    kept: list[StoredFile] = []
    for digest in dict.fromkeys(file.digest for file in store.partials):
        files = [file for file in store.partials if file.digest == digest]
        wanted = digest in needed and digest not in store.blobs
        damaged = any(file.damaged for file in files)
        age = moment.now - max(file.mtime for file in files)
        open_now = any(file.inode in moment.busy for file in files)
        going_on = open_now or age < declaration.partial_min_age_s
        if wanted and damaged and moment.sees_all and not open_now:
            going_on = False  # nobody works on it, and the pull would fail on it
        resumed = wanted and not damaged
        if not declaration.prune_partials or going_on or resumed:
            kept += [] if resumed else files
            continue
        reason = "a pull would fail on it" if wanted else "a download that nobody finishes"
        steps += [_prune(PRUNE_PARTIAL, file, reason) for file in files]
    return steps, kept


def _said(store: Store, layer: Layer, state: str) -> str:
    if state != WRONG_SIZE:
        return state
    found = store.blobs[layer.digest].size
    return f"{human_size(found)} long, wanted {human_size(layer.size)}"
