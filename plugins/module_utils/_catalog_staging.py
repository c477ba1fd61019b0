# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The names that models are pulled by, where they are declared under other ones.

An engine pulls by the name of a source. What came is copied to the declared name, and the source's
name goes again, unless it is declared as well. Somebody may have a model of that name already:

* It is what an interrupted pull left when its blobs are those of a declared model that is pulled
  by that name: one that is there and whole, or the version that has to come. Nothing but a name is
  lost with it. It goes when that declared model is whole, and stays as long as it isn't.
* Any other, also one whose manifest can't be read, stays and is reported like all that nobody
  declared. Nothing is pulled over it: the registry counts as one that can't give the model, and
  the reason names what is in the way. That ends when it is declared, forbidden or removed.
* What a registry shows to the engine's own login only can't be compared; then the pin tells.
* One that is declared itself has no pin, or the declaration is refused. It comes along when the
  other one is pulled, so that the plan says so.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence, Set
from dataclasses import dataclass, replace

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_decide import Decision, decide
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import (
    REGISTRY,
    Offer,
    Offers,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import (
    ADOPT,
    PREVIOUS_SUFFIX,
    Declaration,
    Wanted,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import ModelName
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    Layer,
    Store,
    StoredModel,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._registry import Remote


@dataclass(frozen=True)
class Leftover:
    """What an interrupted pull left under the name of a source.

    Attributes:
        keeper: the declared model that has its blobs.
        coming: whether a download has to bring them to that one first.
    """

    keeper: ModelName
    coming: bool


def previous_of(name: ModelName) -> str:
    """Return the key of the model that a name keeps an earlier version of; else nothing."""
    tag = name.tag.lower()
    if not tag.endswith(PREVIOUS_SUFFIX):
        return ""
    return name._replace(tag=tag[: -len(PREVIOUS_SUFFIX)]).key


def same_name(store: Store, key: str) -> list[StoredModel]:
    """List the readable manifests of a name, whose paths may differ in upper and lower case."""
    first = store.models.get(key)
    return [first, *(twin for twin in store.twins if twin.name.key == key)] if first else []


def decisions(declaration: Declaration, store: Store, offers: Offers) -> dict[str, Decision]:
    """Decide about each declared model, by the key of its name, in the declared order."""
    allowed = {
        item.name.key: [
            _guarded(offer, item, declaration, store) for offer in offers.get(item.name.key, ())
        ]
        for item in declaration.wanted
    }
    found = {item.name.key: decide(item, store, allowed) for item in declaration.wanted}
    for decision in list(found.values()):
        other = found.get(decision.item.source.key, decision)
        pulled = any(offer.kind == REGISTRY for offer in decision.offers)
        if other is decision or other.action != ADOPT or not (pulled and decision.downloads):
            continue
        along = decide(replace(other.item, update=True), store, allowed)
        if along.downloads:
            reason = f"{along.reason}, and {decision.item.name} is pulled by its name"
            found[other.item.name.key] = replace(along, item=other.item, reason=reason)
    return found


def in_the_way(item: Wanted, remote: Remote | None, declaration: Declaration, store: Store) -> str:
    """Say why a declared model can't be pulled: the pull would replace what is no leftover.

    Args:
        item: the declared model.
        remote: what its registry has; None when that isn't known.
        declaration: what was declared.
        store: the store as it is.

    Returns:
        The reason, as a part of a sentence; empty when nothing is in the way.
    """
    source = item.source
    found, flaw = same_name(store, source.key), store.corrupt_reason(source)
    if source.key == item.name.key or not (found or flaw):
        return ""
    declared = declaration.keys
    if source.key in declared or source.key in declaration.forbidden_keys:
        return ""
    if previous_of(source) not in declared:
        blobs = _blobs_of(store, source)
        ours = blobs is not None and (
            awaited(item, found[0], remote) or _keeper(blobs, source, declaration.wanted, store)
        )
        if ours or declaration.exclusive:
            return ""
    what = f"an unreadable manifest ({flaw})" if flaw else "a model that nobody declared"
    return (
        f"it is pulled by the name {source}, and {what} of that name is in the way, which stays: "
        "declare, forbid or remove it"
    )


def awaited(item: Wanted, there: StoredModel, remote: Remote | None) -> bool:
    """Whether a model of the source's name is what a pull of the declared one would bring."""
    if remote is None:
        return bool(item.pin) and there.digest.startswith(item.pin)
    return _digests(there.layers) == _digests(remote.layers)


def leftover(
    name: ModelName, found: Sequence[Decision], store: Store, brought: Container[str]
) -> Leftover | None:
    """Say whether a model that nobody declared is what an interrupted pull left.

    Args:
        name: its name.
        found: what is decided about the declared models that are pulled by that name.
        store: the store as it is.
        brought: the digests of the blobs that come, for whatever model.
    """
    blobs = _blobs_of(store, name)
    if blobs is None:
        return None
    keeper = _keeper(blobs, name, [decision.item for decision in found], store)
    if keeper:
        return Leftover(keeper, coming=False)
    for decision in found:
        if _will_have(decision, blobs, store, brought):
            return Leftover(decision.item.name, coming=True)
    return None


def why_kept(name: ModelName, keeper: ModelName, store: Store) -> str:
    """Say why a leftover can't go now; empty when it can, or when it has gone already."""
    if not same_name(store, name.key):
        return ""
    model = store.find(keeper)
    if model is None or store.defects(model):
        return f"{keeper} isn't whole"
    return "" if _digests(model.layers) == _blobs_of(store, name) else f"{keeper} has other blobs"


def _guarded(offer: Offer, item: Wanted, declaration: Declaration, store: Store) -> Offer:
    """Say in a registry's offer what is in the way of it, and what a pin tells about it."""
    if offer.kind != REGISTRY or not offer.usable or item.source.key == item.name.key:
        return offer
    problem = in_the_way(item, offer.remote, declaration, store)
    if problem:
        return replace(offer, blocked=problem)
    there = store.find(item.source)
    if offer.remote is None and there and awaited(item, there, None):
        return replace(offer, remote=Remote("", (there.digest,), there.layers))
    return offer


def _will_have(decision: Decision, blobs: Set[str], store: Store, brought: Container[str]) -> bool:
    """Whether a declared model will be whole and have just these blobs."""
    if decision.downloads:
        return not decision.unknown and _digests(decision.layers) == blobs
    model = decision.model
    return (
        model is not None
        and _digests(model.layers) == blobs
        and all(layer.digest in brought for layer, _state in store.defects(model))
    )


def _keeper(
    blobs: Set[str], source: ModelName, items: Iterable[Wanted], store: Store
) -> ModelName | None:
    """Find a declared model that is pulled by a name, is whole, and has just these blobs."""
    for item in items:
        model = store.find(item.name)
        if item.source.key != source.key or item.name.key == source.key or model is None:
            continue
        if _digests(model.layers) == blobs and not store.defects(model):
            return item.name
    return None


def _blobs_of(store: Store, name: ModelName) -> Set[str] | None:
    """Return the blobs of a model; None when its manifests, or the lack of them, leave it open."""
    found = {_digests(model.layers) for model in same_name(store, name.key)}
    return found.pop() if len(found) == 1 and not store.corrupt_reason(name) else None


def _digests(layers: Iterable[Layer]) -> frozenset[str]:
    return frozenset(layer.digest for layer in layers)
