# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Which peers have which of a host's missing models, and the sources that a run then has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import (
    parse_name,
    read_pin,
)

PEER, REGISTRY, ARCHIVE = "peer", "registry", "archive"
# The actions of a plan that need a model from somewhere. What no other source has, a peer may have.
NEEDS = ("pull", "update", "repull", "repair", "unavailable")

Json = Any


def model_peers(
    looks: Iterable[Mapping[str, Json]],
    plan: Iterable[Mapping[str, Json]],
    declared: Iterable[Mapping[str, Json]],
) -> dict[str, list[Json]]:
    """Say which peers can give what a plan needs.

    A peer counts that has the model whole, and, where the declaration pins it, in that version.
    Which version of another model is right is decided by who copies it: a registry that can be
    asked is the truth about a tag, and its manifests have two digests, of old and new servers.

    Args:
        looks: what the module model_store_info said about each peer's store, with the peer's name
            as ``item``; failed and unreachable ones among them.
        plan: the plan of the module model_catalog.
        declared: the declared models.

    Returns:
        ``offers``, each with ``peer`` and ``models`` (names as they are declared), and
        ``problems``, a sentence about each peer that could not be asked or has no store.
    """
    pins = {
        parse_name(entry["name"]).key: read_pin(entry.get("digest") or "") for entry in declared
    }
    needed = {
        parse_name(step["target"]).key: str(step["target"])
        for step in plan
        if step.get("action") in NEEDS
    }
    offers: list[Json] = []
    problems: list[Json] = []
    for look in looks:
        peer = str(look["item"])
        if "models" not in look:
            problems.append(f"{peer} could not be asked which models it has: {_why(look)}")
            continue
        if not look.get("exists", True):
            problems.append(f"{peer} has no model store at {look['store']}")
            continue
        has = {parse_name(model["name"]).key: model for model in look["models"] if model["whole"]}
        models = [
            name
            for key, name in needed.items()
            if key in has and str(has[key]["digest"]).startswith(pins.get(key, ""))
        ]
        if models:
            offers.append({"peer": peer, "models": models})
    return {"offers": offers, "problems": problems}


def _why(look: Mapping[str, Json]) -> str:
    """Say in one line why a peer gave no answer."""
    lines = str(look.get("msg") or "no message").strip().splitlines()
    return lines[0].rstrip(".") if lines else "no message"


def model_sources(
    declared: Sequence[Json], served: Iterable[Mapping[str, Json]] = (), token: str = ""
) -> list[dict[str, Json]]:
    """Return the sources of a run in their declared order, as the module model_catalog takes them.

    Args:
        declared: ``peer``, ``registry``, or a mapping with ``type`` and what belongs to it, which
            an archive needs.
        served: what the module model_store_serve said on each peer, with an item that has ``peer``;
            those where it failed are no sources.
        token: what lets into the peers' stores.

    Raises:
        HostError: an entry is none of these.
    """
    peers = [
        {"type": PEER, "name": str(answer["item"]["peer"]), "url": answer["url"], "token": token}
        for answer in served
        if answer.get("url")
    ]
    found: list[dict[str, Json]] = []
    for entry in declared:
        source = _source(entry)
        if source["type"] != PEER:
            found.append(source)
        elif source == {"type": PEER}:
            found += peers
        else:
            found.append(source)  # one that stands there always, with an address and token
    if not any(source["type"] in (REGISTRY, ARCHIVE) for source in found):
        found.append({"type": REGISTRY})
    return found


def _source(entry: Json) -> dict[str, Json]:
    source = {"type": entry} if isinstance(entry, str) else entry
    if not isinstance(source, Mapping) or source.get("type") not in (PEER, REGISTRY, ARCHIVE):
        raise HostError(
            f"llm_model_sources has {entry!r}, wanted {PEER}, {REGISTRY} or a mapping with the type"
            f" {ARCHIVE}."
        )
    return dict(source)
