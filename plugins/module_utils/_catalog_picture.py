# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What all parts of a plan of the model catalog look at: what comes, what goes, what stays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_decide import Decision
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import REGISTRY
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import (
    REPAIR,
    UNAVAILABLE,
    Declaration,
    Moment,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_staging import (
    Leftover,
    leftover,
    previous_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import manifest_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    MANIFESTS,
    PRESENT,
    Layer,
    Store,
    StoredFile,
    StoredModel,
)


@dataclass
class Picture:
    """Everything that the parts of a plan have in common.

    Attributes:
        decisions: what is to be done about the declared models, by the key of their names.
        removed: the models that go, with the reason, by the key of their names.
        leftovers: those of them that interrupted pulls left, by the key of their names.
        needed: the blobs of all downloads by digest.
        bringers: the download that brings a blob which isn't there, or isn't good, by digest.
        pullable: the blobs that the engine may have to download.
        pulled: files of unfinished downloads by digest.
        copied: unfinished copies by digest.
    """

    declaration: Declaration
    store: Store
    moment: Moment
    decisions: Mapping[str, Decision]
    removed: dict[str, tuple[StoredModel, str]] = field(default_factory=dict)
    leftovers: dict[str, Leftover] = field(default_factory=dict)
    kept_versions: list[StoredModel] = field(default_factory=list)
    needed: dict[str, Layer] = field(default_factory=dict)
    bringers: dict[str, Decision] = field(default_factory=dict)
    pullable: set[str] = field(default_factory=set)
    pulled: dict[str, list[StoredFile]] = field(default_factory=dict)
    copied: dict[str, list[StoredFile]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pulled, self.copied = by_digest(self.store.partials), by_digest(self.store.incoming)
        for decision in self.decisions.values():
            for layer in decision.layers if decision.downloads else ():
                self.needed[layer.digest] = layer
                if self.store.blob_state(layer) != PRESENT:
                    self.bringers.setdefault(layer.digest, decision)
                    if any(offer.kind == REGISTRY for offer in decision.offers):
                        self.pullable.add(layer.digest)
        _choose_removals(self)

    @cached_property
    def staying(self) -> set[str]:
        """The digests that manifests refer to which neither go nor are replaced."""
        gone = {key for key, decision in self.decisions.items() if decision.downloads}
        kept = [model for key, model in self.store.models.items() if key not in gone]
        kept = [model for model in (*kept, *self.store.twins) if model.name.key not in self.removed]
        return self.store.referenced(kept)

    @cached_property
    def unreadable(self) -> bool:
        """Whether a manifest stays that can't be read: nobody knows what it refers to."""
        for path in self.store.corrupt:
            name = manifest_name(path[len(MANIFESTS) + 1 :])
            key = name.key if name else ""
            decision = self.decisions.get(key)
            if key not in self.removed and not (decision and decision.action == REPAIR):
                return True
        return False

    @cached_property
    def unknown(self) -> bool:
        """Whether blobs may be wanted that nobody can name now."""
        unknown = [decision for decision in self.decisions.values() if decision.unknown]
        return not all(self.healing_of(decision) for decision in unknown)

    @cached_property
    def healing(self) -> tuple[str, ...]:
        """The blobs by which other models' downloads make those whole that no source can give.

        When they are in place, nothing is wanted of a silent source any more.
        """
        decisions = self.decisions.values()
        return tuple(
            sorted({digest for decision in decisions for digest in self.healing_of(decision)})
        )

    def healing_of(self, decision: Decision) -> list[str]:
        """Return the blobs by which other downloads make a model whole that no source can give."""
        if decision.action != UNAVAILABLE or decision.model is None:
            return []
        if not decision.model.digest.startswith(decision.item.pin):
            return []
        found = [layer.digest for layer, _state in self.store.defects(decision.model)]
        return found if all(digest in self.bringers for digest in found) else []

    def in_use(self, file: StoredFile) -> bool:
        """Whether somebody may be working on a file."""
        age = self.moment.now - file.mtime
        return file.inode in self.moment.busy or age < self.declaration.partial_min_age_s


def _choose_removals(picture: Picture) -> None:
    """Find what must go; an unreadable model is taken for one without blobs."""
    declaration, store = picture.declaration, picture.store
    present = dict(store.models)
    for path in store.corrupt:
        name = manifest_name(path[len(MANIFESTS) + 1 :])
        if name:
            present.setdefault(name.key, StoredModel(name, "", (), path))
    declared, forbidden = set(picture.decisions), declaration.forbidden_keys
    pulled: dict[str, list[Decision]] = {}
    for decision in picture.decisions.values():
        pulled.setdefault(decision.item.source.key, []).append(decision)
    for key, model in sorted(present.items()):
        if key in declared:
            continue
        if key in forbidden:
            picture.removed[key] = (model, "it is forbidden")
        elif previous_of(model.name) in declared:
            picture.kept_versions.append(model)
        elif key in pulled and (left := leftover(model.name, pulled[key], store, picture.bringers)):
            picture.removed[key] = (model, "an interrupted pull left it")
            picture.leftovers[key] = left
        elif declaration.exclusive:
            picture.removed[key] = (model, "it is not declared")


def by_digest(files: Iterable[StoredFile]) -> dict[str, list[StoredFile]]:
    found: dict[str, list[StoredFile]] = {}
    for file in files:
        found.setdefault(file.digest, []).append(file)
    return found
