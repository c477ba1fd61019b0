# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What is to be done about one declared model, and which of its sources can do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import (
    REGISTRY,
    Offer,
    Offers,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import (
    ADOPT,
    DOWNLOADS,
    PULL,
    REPAIR,
    REPULL,
    SHORT,
    UNAVAILABLE,
    UPDATE,
    Wanted,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import human_size
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    WRONG_SIZE,
    Layer,
    Store,
    StoredModel,
    unique,
)


@dataclass(frozen=True)
class Decision:
    """What is to be done about a declared model.

    Attributes:
        action: adopt, a download, or unavailable.
        model: the model as it is, if it is there.
        digest: what the model will have; empty when only its download can tell.
        offers: those of the sources that can give it, in the order to try.
        layers: the blobs that a download leads to, as far as they are known.
        size: the sum of their sizes as its manifest counts them; None when it isn't known.
        unasked: whether its registry was to say if the tag moved, and couldn't.
        unknown: whether blobs may be wanted that nobody can name now: a source gives no answer, or
            one that only its download will show, or nothing may be brought from it yet.
    """

    item: Wanted
    action: str
    reason: str
    model: StoredModel | None = None
    digest: str = ""
    offers: tuple[Offer, ...] = ()
    layers: tuple[Layer, ...] = ()
    size: int | None = None
    unasked: bool = False
    unknown: bool = False

    @property
    def downloads(self) -> bool:
        """Whether something has to come."""
        return self.action in DOWNLOADS

    @property
    def by_engine(self) -> bool:
        """Whether the source that is tried first is a registry, which the engine pulls from."""
        return bool(self.offers) and self.offers[0].kind == REGISTRY


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


def decide(item: Wanted, store: Store, offers: Offers) -> Decision:
    """Compare a declared model with what is there and with what the sources offer."""
    found, model = offers.get(item.name.key, ()), store.find(item.name)
    reason = why_pull(item, store)
    if model and not reason:
        return _whole(item, model, found)
    usable = usable_offers(item.pin, found)
    if not usable:
        digest = model.digest if model else ""
        text = f"{reason}, and no source can give it: {_why_not(item, found)}"
        unknown = not found or any(offer.blocked or not offer.reachable for offer in found)
        return Decision(item, UNAVAILABLE, text, model, digest, unknown=unknown)
    action = REPULL if model else (REPAIR if store.corrupt_reason(item.name) else PULL)
    return _download(item, action, reason, model, usable)


def usable_offers(pin: str, offers: Sequence[Offer]) -> tuple[Offer, ...]:
    """Return the offers that lead to the wanted version, in their order.

    A pin says which that is. Without one a registry does, since it is the truth about a tag; and
    where none tells, the first source that has the model. A blocked offer tells, and gives nothing.
    """
    usable = [offer for offer in offers if offer.usable]
    if pin:
        right = [offer for offer in usable if _meets(offer, pin)]
    else:
        known = [offer for offer in usable if offer.remote]
        registries = [offer for offer in known if offer.kind == REGISTRY]
        truth = next(iter(registries or known), None)
        right = [offer for offer in usable if truth is None or _same(offer, truth)]
    return tuple(offer for offer in right if not offer.blocked)


def given_digest(offer: Offer, pin: str = "") -> str:
    """Return the digest that a model from there will have; empty when only a pull can tell."""
    if offer.remote is None:
        return ""
    # A manifest that is copied stays as it is; an engine may write it anew.
    return offer.remote.digest_for(pin) if offer.kind == REGISTRY else offer.remote.digests[0]


def _meets(offer: Offer, pin: str) -> bool:
    return offer.remote is None or given_digest(offer, pin).startswith(pin)


def _same(offer: Offer, truth: Offer) -> bool:
    if offer.remote is None or truth.remote is None:
        return True
    if offer.kind == REGISTRY:
        return bool(set(offer.remote.digests) & set(truth.remote.digests))
    return offer.remote.digests[0] in truth.remote.digests


def _whole(item: Wanted, model: StoredModel, offers: Sequence[Offer]) -> Decision:
    """Keep a model that is as declared, unless its tag is followed and has moved."""
    adopt = Decision(item, ADOPT, "as declared", model, model.digest)
    if item.pin or not item.update:
        return adopt
    registries = [offer for offer in offers if offer.kind == REGISTRY]
    telling = next((offer for offer in registries or offers if offer.usable and offer.remote), None)
    if telling is None or telling.remote is None:
        why = "; ".join(_problem(offer, "") for offer in registries or offers)
        text = f"as declared; whether its tag moved isn't known: {why or 'no source was asked'}"
        return Decision(item, ADOPT, text, model, model.digest, unasked=True)
    # Digests don't tell: older engines wrote manifests anew.
    if {layer.digest for layer in telling.remote.layers} == {
        layer.digest for layer in model.layers
    }:
        return adopt
    who = "the registry" if telling.kind == REGISTRY else telling.source
    text, usable = f"{who} has {given_digest(telling)[:SHORT]}", usable_offers("", offers)
    if not usable:
        text = f"{text}, and no source can give it: {_why_not(item, offers)}"
        return Decision(item, UNAVAILABLE, text, model, model.digest, unknown=True)
    return _download(item, UPDATE, text, model, usable)


def _download(
    item: Wanted, action: str, reason: str, model: StoredModel | None, usable: tuple[Offer, ...]
) -> Decision:
    # A registry that keeps to itself what it has is still held to the pin, or to what others have.
    telling = next((offer for offer in usable if offer.remote), usable[0])
    digest = given_digest(telling, item.pin)
    if telling.remote:
        layers, size = telling.remote.layers, telling.remote.size
        return Decision(item, action, reason, model, digest, usable, tuple(unique(layers)), size)
    known = tuple(unique(model.layers)) if model else ()
    return Decision(item, action, reason, model, digest, usable, known, unknown=True)


def _why_not(item: Wanted, offers: Sequence[Offer]) -> str:
    return "; ".join(_problem(offer, item.pin) for offer in offers) or "none was asked"


def _problem(offer: Offer, pin: str) -> str:
    """Say why an offer doesn't help; a model that is there is of another version than the pin."""
    if offer.problem:
        return f"{offer.source}: {offer.problem}"
    if offer.blocked and _meets(offer, pin):
        return f"{offer.source}: {offer.blocked}"
    if offer.remote is None:
        return f"{offer.source}: it gives its models to the engine's own login only"
    has = given_digest(offer, pin)[:SHORT]
    return f"{offer.source} has {has}, wanted {pin[:SHORT]}" if pin else f"{offer.source} has {has}"


def _said(store: Store, layer: Layer, state: str) -> str:
    blob = store.blobs.get(layer.digest)
    if blob is None:
        return state
    if state == WRONG_SIZE:
        return f"{human_size(blob.size)} long, wanted {human_size(layer.size)}"
    return f"{state} ({blob.flaw})" if blob.flaw else state
