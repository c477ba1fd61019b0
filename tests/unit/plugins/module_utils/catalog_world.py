# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A store and an engine in memory that plans are carried out on, in steps that can be cut off.

The world knows which blobs are good; a planner knows only what was read.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

from catalog_samples import NOW

from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog as catalog
from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_plan as words
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import (
    manifest_name,
    parse_name,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    Store,
    StoredFile,
    StoredModel,
)


def blob_path(digest):
    return f"blobs/sha256-{digest}"


@dataclass
class World:
    """What is really there.

    Attributes:
        models: readable manifests by key.
        unreadable: paths of the others.
        blobs, aside: files by digest.
        good: the digests of the blobs whose content is right.
        partials, copies: unfinished downloads of the engine and copies, by digest.
        noprune: whether the engine leaves replaced layers alone.
        failing: labels of the sources whose downloads fail.
    """

    models: dict[str, StoredModel] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    blobs: dict[str, StoredFile] = field(default_factory=dict)
    good: set[str] = field(default_factory=set)
    aside: dict[str, StoredFile] = field(default_factory=dict)
    partials: dict[str, StoredFile] = field(default_factory=dict)
    copies: dict[str, StoredFile] = field(default_factory=dict)
    noprune: bool = True
    failing: frozenset[str] = frozenset()

    def copy(self):
        return copy.deepcopy(self)

    @property
    def held(self):
        """All bytes on the disk."""
        groups = (self.blobs, self.aside, self.partials, self.copies)
        return sum(file.held for group in groups for file in group.values())

    def referenced(self):
        return {layer.digest for model in self.models.values() for layer in model.layers}

    def intact(self, digest):
        return digest in self.good and digest in self.blobs

    def held_of(self, model):
        """The digests of a model's blobs that are there, as they were."""
        return {layer.digest for layer in model.layers if layer.digest in self.blobs}

    def whole(self, model):
        return all(self.intact(layer.digest) for layer in model.layers)

    def look(self, declaration, offers):
        """Read the store as a run does: what declared models have, and what pulls would take."""
        store = self._read()
        declared = [store.models[key] for key in declaration.keys if key in store.models]
        self._verify(store, store.referenced(declared))
        self._verify(store, catalog.to_hash(declaration, store, offers))
        return store

    def _read(self):
        return Store(
            "/store",
            models=dict(self.models),
            corrupt=dict.fromkeys(self.unreadable, "it is empty"),
            blobs=dict(self.blobs),
            partials=list(self.partials.values()),
            aside=dict(self.aside),
            incoming=list(self.copies.values()),
        )

    def _verify(self, store, digests):
        for digest in digests:
            if digest in store.blobs and digest not in self.good:
                store.blobs[digest] = replace(store.blobs[digest], flaw="its content is another")

    def carry_out(self, plan, declaration, store, offers):
        """Do what the executor does; each yield is a moment at which it may be killed."""
        for step in plan.changes:
            if step.downloads:
                yield from self._download(step, declaration, store, offers)
            elif step.action == words.REMOVE:
                if self._keeps(step):
                    yield from self._remove(parse_name(step.target))
            elif step.action == words.RESTORE:
                self._restore(step.digest)
            elif self._may_go(step):
                for group in (self.blobs, self.aside, self.partials, self.copies):
                    if step.digest in group and group[step.digest].path == step.target:
                        del group[step.digest]
            yield step

    def run(self, plan, declaration, store, offers, cut=None):
        """Carry out a plan, or only so many moments of it; return the most space it took."""
        start = worst = self.held
        for count, _step in enumerate(self.carry_out(plan, declaration, store, offers)):
            worst = max(worst, self.held)
            if cut is not None and count >= cut:
                break
        return worst - start

    def _may_go(self, step):
        if not self.blobs.keys() >= set(step.after):
            return False
        if step.action == words.PRUNE_PARTIAL or (step.action == words.DISCARD and step.after):
            return True
        return not self.unreadable and step.digest not in self.referenced()

    def _keeps(self, step):
        """Whether nothing is lost with a model: what a pull left has to be another one's."""
        model = self.models.get(parse_name(step.target).key)
        if not step.keeper or model is None:
            return True
        keeper = self.models.get(parse_name(step.keeper).key)
        return bool(keeper) and self.whole(keeper) and set(keeper.layers) == set(model.layers)

    def _restore(self, digest):
        if digest not in self.blobs:
            self.blobs[digest] = replace(self.aside.pop(digest), path=blob_path(digest))
            self.good.discard(digest)

    def _download(self, step, declaration, store, offers):
        [item] = [item for item in declaration.wanted if str(item.name) == step.target]
        known = {offer.source: offer for offer in offers[item.name.key]}
        for layer in step.layers:
            if store.blob_state(layer) not in ("present", "missing") and not self.intact(
                layer.digest
            ):
                self._set_aside(layer.digest)
                yield step
        for label in step.sources:
            offer = known[label]
            by_engine = offer.kind == "registry"
            parts = self.partials if by_engine else self.copies
            yield from self._bring(step, offer.remote.layers, parts, label in self.failing)
            if label not in self.failing and not self._stuck(offer.remote.layers, parts):
                model = StoredModel(item.name, offer.remote.digests[0], offer.remote.layers)
                yield from self._place(step, item, model, by_engine, declaration)
                break
        for layer in step.layers:
            if layer.digest in self.aside and layer.digest not in self.blobs:
                self._restore(layer.digest)
            elif layer.digest in self.aside:
                del self.aside[layer.digest]
            yield step

    def _set_aside(self, digest):
        if digest in self.blobs:
            self.aside[digest] = replace(self.blobs.pop(digest), path=f".hx/aside/sha256-{digest}")

    def _stuck(self, layers, parts):
        missing = [layer.digest for layer in layers if layer.digest not in self.blobs]
        return any(digest in parts and parts[digest].damaged for digest in missing)

    def _bring(self, step, layers, parts, fails):
        for layer in layers:
            digest = layer.digest
            if digest in self.blobs:
                continue
            if digest in parts and parts[digest].damaged:
                return
            where = "blobs" if parts is self.partials else ".hx/incoming"
            path = f"{where}/sha256-{digest}{'-partial-0' if where == 'blobs' else '.part'}"
            begun = parts[digest].completed if digest in parts else 0
            half = max(begun, layer.size // 2)
            parts[digest] = StoredFile(path, digest, half, half, NOW, completed=half)
            yield step
            if fails:
                return
            del parts[digest]
            size = layer.size
            self.blobs[digest] = StoredFile(blob_path(digest), digest, size, size, NOW)
            self.good.add(digest)
            yield step

    def _place(self, step, item, model, by_engine, declaration):
        """Write the manifest; an engine pulls by the source's name and copies."""
        if by_engine and item.source.key != item.name.key:
            yield from self._write(step, replace(model, name=item.source), by_engine=True)
        yield from self._write(step, model, by_engine=by_engine)
        if by_engine and item.source.key not in declaration.keys:
            self.models.pop(item.source.key, None)
            yield step

    def _write(self, step, model, *, by_engine):
        old = self.models.get(model.name.key)
        self.models[model.name.key] = model
        self.unreadable = [path for path in self.unreadable if _name_of(path).key != model.name.key]
        yield step
        if old and by_engine and not self.noprune:
            self._drop_unused(old)

    def _remove(self, name):
        model = self.models.pop(name.key, None)
        self.unreadable = [path for path in self.unreadable if _name_of(path).key != name.key]
        yield name
        if model:
            self._drop_unused(model)

    def _drop_unused(self, model):
        for layer in model.layers:
            if layer.digest not in self.referenced():
                self.blobs.pop(layer.digest, None)


def _name_of(path):
    return manifest_name(path[len("manifests/") :])


def world_of(store):
    """Make a world of a store that was read; all blobs but the flawed ones are good."""
    return World(
        models=dict(store.models),
        unreadable=list(store.corrupt),
        blobs=dict(store.blobs),
        good={digest for digest, blob in store.blobs.items() if not blob.bad},
        aside=dict(store.aside),
        partials={file.digest: file for file in store.partials},
        copies={file.digest: file for file in store.incoming},
    )
