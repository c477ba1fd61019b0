# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The planner of the model catalog: what is declared and what is observed become a plan.

Everything here is a pure function. Order of a plan: what frees disk space comes first, then the
downloads in the declared order, then what must wait for them because they share blobs with it.
"""

from __future__ import annotations

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_decide import (
    Decision,
    why_pull,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import Offers
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_picture import Picture
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import (
    ADOPT,
    Declaration,
    Moment,
    Plan,
    Step,
    Wanted,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_prune import (
    aside_steps,
    orphan_steps,
    partial_steps,
    remove_steps,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_staging import decisions
from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import human_size
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    PRESENT,
    Layer,
    Store,
    resumable,
)


def to_look_up(declaration: Declaration, store: Store) -> list[Wanted]:
    """List the models that the sources have to be asked about.

    One by whose name another one is pulled comes along, so that it is asked about as well.
    """
    wanted = declaration.wanted
    asked = [item for item in wanted if why_pull(item, store) or (item.update and not item.pin)]
    keys = {key for item in asked for key in (item.name.key, item.source.key)}
    return [item for item in wanted if item.name.key in keys]


def to_hash(declaration: Declaration, store: Store, offers: Offers) -> list[str]:
    """List the blobs whose content a plan depends on, besides those of the declared models.

    Downloads would find them in place and take them as they are, since an engine verifies only
    what it has just downloaded; or one of the same digest is set aside.
    """
    decided = decisions(declaration, store, offers).values()
    layers = (layer for decision in decided if decision.downloads for layer in decision.layers)
    found = {layer.digest for layer in layers if store.blob_state(layer) == PRESENT}
    return sorted(found | (set(store.aside) & set(store.blobs)))


def check_space(plan: Plan, reserve_bytes: int, free: int, path: str) -> None:
    """Refuse when a download would leave less free space than the reserve.

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


def make_plan(declaration: Declaration, store: Store, offers: Offers, moment: Moment) -> Plan:
    """Compare what is declared with what is there and with what the sources offer."""
    decided = decisions(declaration, store, offers)
    picture = Picture(declaration, store, moment, decided)
    removals, late_removals, freed = remove_steps(picture)
    orphans, replaced, kept_orphans = orphan_steps(picture, freed)
    partials, late_partials, kept_partials = partial_steps(picture)
    asides, late_asides = aside_steps(picture)
    planned: set[str] = set()
    models = [_model_step(decision, picture, planned) for decision in decided.values()]
    known = {*decided, *picture.removed, *(model.name.key for model in picture.kept_versions)}
    return Plan(
        [
            *asides,
            *partials,
            *orphans,
            *removals,
            *models,
            *late_removals,
            *late_partials,
            *replaced,
            *late_asides,
        ],
        undeclared=[model for key, model in sorted(store.models.items()) if key not in known],
        kept_partials=kept_partials,
        orphans=kept_orphans,
        kept_versions=picture.kept_versions,
        unasked=[str(found.item.name) for found in decided.values() if found.unasked],
        parallel=declaration.parallel,
    )


def _model_step(decision: Decision, picture: Picture, planned: set[str]) -> Step:
    """Plan one declared model; ``planned`` collects the blobs that earlier downloads bring."""
    store = picture.store
    name = str(decision.item.name)
    if picture.healing_of(decision):
        model = decision.model.digest if decision.model else ""
        return Step(ADOPT, name, "another model's download brings what it lacks", digest=model)
    if not decision.downloads:
        return Step(decision.action, name, decision.reason, digest=decision.digest)
    coming: list[Layer] = []
    for layer in decision.layers:
        if store.blob_state(layer) != PRESENT and layer.digest not in planned:
            planned.add(layer.digest)
            coming.append(layer)
    bad = [store.blobs[layer.digest] for layer in coming if layer.digest in store.blobs]
    return Step(
        decision.action,
        name,
        decision.reason,
        size=sum(_missing(layer, decision, picture) for layer in coming),
        files=len(coming),
        digest=decision.digest,
        source=str(decision.item.source),
        frees=tuple(file.path for file in bad),
        freed=sum(file.held for file in bad),
        sources=tuple(offer.source for offer in decision.offers),
        layers=decision.layers,
        model_size=decision.size,
    )


def _missing(layer: Layer, decision: Decision, picture: Picture) -> int:
    """Return what is left of a blob to download from the source that is tried first."""
    begun = picture.pulled if decision.by_engine else picture.copied
    return max(0, layer.size - resumable(begun.get(layer.digest, ())))
