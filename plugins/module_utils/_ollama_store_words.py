# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What a store of Ollama holds: models, the blobs that they refer to, and other files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import ModelName

PRESENT, MISSING, WRONG_SIZE, CORRUPT = "present", "missing", "wrong size", "corrupt"


@dataclass(frozen=True)
class Layer:
    """A blob as a manifest refers to it; ``digest`` is the bare hexadecimal form."""

    digest: str
    size: int
    media_type: str = ""


@dataclass(frozen=True)
class StoredModel:
    """A model that the store has a readable manifest of; ``path`` is where, below the store."""

    name: ModelName
    digest: str
    layers: tuple[Layer, ...]
    path: str = ""

    @property
    def size(self) -> int:
        """Sum of the sizes in the manifest, as ``ollama list`` shows it."""
        return sum(layer.size for layer in self.layers)


@dataclass(frozen=True)
class StoredFile:
    """A file below ``blobs/`` or ``.hx/``.

    Attributes:
        path: relative to the store.
        digest: the digest that its name speaks of; empty for a foreign file.
        size: its length.
        held: the bytes that it really occupies, never more than its length.
        mtime: time of its last change.
        inode: device and inode number.
        damaged: a part record that Ollama can't read, so that its download can't be resumed.
        completed: bytes that a part record states as downloaded, or that a copy has.
        flaw: what was found wrong with a blob's content, for people; empty when nothing was.
        uid: its owner.
        gid: its group.
        mode: its permission bits.
        mtime_ns: time of its last change, exactly.
    """

    path: str
    digest: str
    size: int
    held: int
    mtime: float
    inode: tuple[int, int] = (0, 0)
    damaged: bool = False
    completed: int = 0
    flaw: str = ""
    uid: int = 0
    gid: int = 0
    mode: int = 0
    mtime_ns: int = 0

    @property
    def bad(self) -> bool:
        """Whether its content is known to be wrong."""
        return self.damaged or bool(self.flaw)


@dataclass
class Store:
    """What a store holds.

    Attributes:
        root: its directory.
        exists: whether the directory is there.
        models: the models by the key of their name.
        twins: further manifests of a model, whose paths differ in upper and lower case only.
        corrupt: the reason by the path of a manifest that can't be read.
        stray: paths below ``manifests/`` that are no manifests.
        blobs: complete files by digest, under their old name where that is the only one.
        partials: files of unfinished downloads.
        foreign: other files below ``blobs/``.
        aside: blobs that a repair has set aside, by digest.
        incoming: unfinished copies from peers and archives.
        old_names: blobs named as very old servers did; a server renames them when it starts.
    """

    root: str
    exists: bool = True
    models: dict[str, StoredModel] = field(default_factory=dict)
    corrupt: dict[str, str] = field(default_factory=dict)
    stray: list[str] = field(default_factory=list)
    blobs: dict[str, StoredFile] = field(default_factory=dict)
    partials: list[StoredFile] = field(default_factory=list)
    foreign: list[StoredFile] = field(default_factory=list)
    twins: list[StoredModel] = field(default_factory=list)
    aside: dict[str, StoredFile] = field(default_factory=dict)
    incoming: list[StoredFile] = field(default_factory=list)
    old_names: list[StoredFile] = field(default_factory=list)

    def find(self, name: ModelName) -> StoredModel | None:
        """Return a model by its name, if it is there."""
        return self.models.get(name.key)

    def corrupt_reason(self, name: ModelName) -> str:
        """Say what is wrong with a model's manifest; empty when nothing is."""
        exact = self.corrupt.get(name.manifest)
        if exact or not self.corrupt:
            return exact or ""
        wanted = name.manifest.lower()
        return next((why for path, why in self.corrupt.items() if path.lower() == wanted), "")

    def blob_state(self, layer: Layer) -> str:
        """Compare a layer with the file that it refers to."""
        blob = self.blobs.get(layer.digest)
        if blob is None:
            return MISSING
        if blob.size != layer.size:
            return WRONG_SIZE
        return CORRUPT if blob.bad else PRESENT

    def defects(self, model: StoredModel) -> list[tuple[Layer, str]]:
        """List the layers of a model that aren't there in full."""
        states = ((layer, self.blob_state(layer)) for layer in unique(model.layers))
        return [(layer, state) for layer, state in states if state != PRESENT]

    def resumable(self, digest: str, *, copies: bool = False) -> int:
        """Return the bytes of a blob that an unfinished download holds and a pull goes on from.

        With ``copies``, a copy from a peer or an archive counts if it has come further.
        """
        held = resumable([file for file in self.partials if file.digest == digest])
        if not copies:
            return held
        return max(held, resumable([file for file in self.incoming if file.digest == digest]))

    def referenced(self, models: Iterable[StoredModel] | None = None) -> set[str]:
        """Return the digests that some models (all manifests by default) refer to."""
        chosen = (*self.models.values(), *self.twins) if models is None else models
        return {layer.digest for model in chosen for layer in model.layers}


def unique(layers: Iterable[Layer]) -> list[Layer]:
    """Return each blob once, in order."""
    return list({layer.digest: layer for layer in layers}.values())


def resumable(files: Iterable[StoredFile]) -> int:
    """Return what the files of one unfinished download, or a copy, hold to go on from."""
    held = 0
    for file in files:
        if file.damaged:
            return 0
        held += file.completed
    return held
