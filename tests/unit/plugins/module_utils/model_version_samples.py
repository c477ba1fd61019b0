# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A store on disk and an engine that works on it as Ollama does, for tests of versions."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import read_store

NAME = "tiny:1b"
AT = "2026-11-22T04:00:00Z"


class CutOffError(Exception):
    """The run ends here, as by kill -9."""


class DiskStore:
    """A store below a directory; a version of a model is made of texts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs").mkdir(parents=True)

    def put(self, name: str, *texts: str) -> str:
        """Write a model; return its digest."""
        layers = []
        for text in texts:
            digest = hashlib.sha256(text.encode()).hexdigest()
            (self.root / "blobs" / f"sha256-{digest}").write_text(text)
            layers.append({"mediaType": "x", "digest": f"sha256:{digest}", "size": len(text)})
        content = json.dumps({"schemaVersion": 2, "layers": layers, "config": None}).encode()
        path = self.root / parse_name(name).manifest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    def blob(self, text: str) -> Path:
        """Return the path of a text's blob."""
        return self.root / "blobs" / f"sha256-{hashlib.sha256(text.encode()).hexdigest()}"

    def digest(self, name: str) -> str:
        """Return the digest of a model; empty when it isn't there."""
        model = read_store(str(self.root)).find(parse_name(name))
        return model.digest if model else ""

    def names(self) -> list[str]:
        """Return the names of the models."""
        return sorted(str(model.name) for model in read_store(str(self.root)).models.values())

    def texts(self) -> set[str]:
        """Return the content of the blobs."""
        return {path.read_text() for path in (self.root / "blobs").iterdir()}


class DiskEngine:
    """What the module asks of an engine; it may be cut off before its nth change."""

    url = "http://engine"

    def __init__(self, store: DiskStore, changes: int | None = None) -> None:
        self.store = store
        self.changes = changes
        self.in_memory: dict[str, str] = {}
        self.proven: list[str] = []
        self.deaf = False

    def _count(self) -> None:
        if self.changes is not None:
            if self.changes <= 0:
                raise CutOffError
            self.changes -= 1

    def copy(self, source, target):
        self._count()
        if self.deaf:
            return
        path = self.store.root / target.manifest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((self.store.root / source.manifest).read_bytes())

    def delete(self, name):
        self._count()
        model = read_store(str(self.store.root)).find(name)
        assert model
        (self.store.root / name.manifest).unlink()
        left = read_store(str(self.store.root)).referenced()
        for layer in model.layers:
            if layer.digest not in left:
                (self.store.root / "blobs" / f"sha256-{layer.digest}").unlink(missing_ok=True)

    def tags(self):
        return {key: item.digest for key, item in read_store(str(self.store.root)).models.items()}

    def loaded(self):
        return dict(self.in_memory)

    def unload(self, name):
        self.in_memory.pop(name.key, None)
        return True

    def prove(self, name):
        if name.key in self.in_memory:
            raise HostError("the version in memory would answer")
        self.proven.append(str(name))
        return 0.5
