# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stores, declarations and registries in memory, for the tests of the catalog."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog as catalog
from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_plan as words
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import Offer
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    Layer,
    Store,
    StoredFile,
    StoredModel,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._registry import Remote

NOW = 1_000_000.0
OLD = NOW - 10_000
MOMENT = catalog.Moment(NOW, frozenset(), True)
SIZES = {"a": 1000, "b": 2000, "c": 10, "d": 20, "s": 500, "n": 3000}


def hexa(letter):
    return hashlib.sha256(letter.encode()).hexdigest()


def layers(letters):
    return tuple(Layer(hexa(letter), SIZES[letter]) for letter in letters)


def blob(letter, size=None):
    size = SIZES[letter] if size is None else size
    return StoredFile(f"blobs/sha256-{hexa(letter)}", hexa(letter), size, size, OLD)


def partial(letter, suffix="", mtime=OLD, size=100, **values):
    path = f"blobs/sha256-{hexa(letter)}-partial{suffix}"
    return StoredFile(path, hexa(letter), size, 100, mtime, **{"inode": (1, 1), **values})


def make_store(models, blobs=None, partials=(), corrupt=None):
    """Make a store from a dictionary of names and the letters of their layers."""
    store = Store("/store", corrupt=dict(corrupt or {}), partials=list(partials))
    for text, letters in models.items():
        name = parse_name(text)
        store.models[name.key] = StoredModel(name, hexa(text), layers(letters))
    present = "".join(models.values()) if blobs is None else blobs
    store.blobs = {hexa(letter): blob(letter) for letter in present}
    return store


def declare(*models, **options):
    params = {
        "models": [{"name": entry} if isinstance(entry, str) else entry for entry in models],
        "forbidden": [],
        "exclusive": False,
        "reserve_bytes": 0,
        "prune_partials": True,
        "partial_min_age_s": 3600,
        "prune_orphans": False,
        **options,
    }
    return words.read_declaration(params)


def aside(letter):
    return replace(blob(letter), path=f".hx/aside/sha256-{hexa(letter)}")


def incoming(letter, size=100, **values):
    path = f".hx/incoming/sha256-{hexa(letter)}.part"
    file = StoredFile(path, hexa(letter), size, size, OLD, completed=size)
    return replace(file, **values)


def offer(letters, version="remote", kind="registry", source="registry r"):
    """Make an offer of a model; ``version`` stands for its digest."""
    found = Remote("http://r", (hexa(version),), layers(letters))
    return Offer(source, kind, found)


def peer(letters, version="remote", source="peer llm-02"):
    return offer(letters, version, "peer", source)


def lacking(problem, kind="registry", source="registry r", reachable=True):
    return Offer(source, kind, None, problem, reachable)


def offered(text, *offers):
    return {parse_name(text).key: offers}


def remote(text, letters):
    return offered(text, offer(letters, f"remote {text}"))


def steps(plan):
    return [(step.action, step.target, step.size) for step in plan.changes]


def short(letter):
    return f"blobs/sha256-{hexa(letter)}"


def plan_of(declaration, store, offers=None, moment=MOMENT):
    return catalog.make_plan(declaration, store, offers or {}, moment)
