# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A store on disk with an engine and a registry in memory, for whole runs of the catalog."""

from __future__ import annotations

import json
import os
import shutil
import threading

from catalog_rig import NOW, Engine, Told
from store_samples import LONG_AGO, blob_path, write_model

from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_run as runs
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import Moment
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_progress import CatalogProgress
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import ModelName
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import read_store
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import Watch
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import Answer

ONE, TWO = b"weights one", b"weights two"


def write(root, name, *contents):
    """Write a model whose manifest has all that a registry's has."""
    path = write_model(root, name, *contents)
    data = {"schemaVersion": 2, "mediaType": "manifest", **json.loads(path.read_text())}
    path.write_text(json.dumps(data))


class Api(Engine):
    """An engine that lists the models of its store and pulls from a directory."""

    url = "http://engine"

    def __init__(self, root, registry):
        super().__init__(root)
        self.registry = registry
        self.calls = 0
        self.down = False
        self.lock = threading.Lock()

    def tags(self):
        self.calls += 1
        if self.down:
            raise HostError("the engine is down.")
        store = read_store(str(self.root))
        listed = {}
        for key, model in store.models.items():
            config = self.root / "blobs" / f"sha256-{model.layers[-1].digest}"
            if config.exists() and config.read_bytes() == b"config":
                listed[key] = model.digest
        return listed

    def pull(self, name, *, insecure, on_progress, on_stall):
        self.asked.append(("pull", str(name)))
        with self.lock:  # of a blob that two models share, there is one download
            source = self.registry / name.manifest
            for layer in read_store(str(self.registry)).models[name.key].layers:
                target = self.root / "blobs" / f"sha256-{layer.digest}"
                target.parent.mkdir(exist_ok=True)
                if not target.exists():
                    self._download(self.registry / "blobs" / target.name, target)
            self._place(source, name)
        on_progress("success", 1, 1)

    def copy(self, source, target):
        self.asked.append(("copy", str(source), str(target)))
        self._place(self.root / source.manifest, target)

    def delete(self, name):
        """Remove a model and what no other one uses; being gone already is no error."""
        self.asked.append(("delete", str(name)))
        path = self.root / name.manifest
        if not path.exists():
            return
        model = read_store(str(self.root)).models[name.key]
        path.unlink()
        used = read_store(str(self.root)).referenced()
        for layer in model.layers:
            if layer.digest not in used:
                (self.root / "blobs" / f"sha256-{layer.digest}").unlink(missing_ok=True)

    def _download(self, source, target):
        """Go on from the files of an unfinished download, or fail on a record as engines do."""
        part = target.with_name(f"{target.name}-partial")
        records = list(target.parent.glob(f"{part.name}-*"))
        if not all(record.read_bytes() for record in records):
            raise HostError(f"pulling {target.name} failed: EOF.")
        shutil.copyfile(source, part)
        for record in records:
            record.unlink()
        part.rename(target)

    def _place(self, source, name):
        target = self.root / name.manifest
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


class Host:
    """A store with an engine, a registry, and what a run needs of them."""

    def __init__(self, tmp_path):
        self.tmp = tmp_path
        self.root = tmp_path / "store"
        self.registry = tmp_path / "registry"
        for model, content in (("one", ONE), ("two", TWO)):
            write(self.registry, model, content)
        self.root.mkdir()
        self.api = Api(self.root, self.registry)
        self.asked = []
        self.warned = []
        self.told = Told()
        self.free = 10**12
        self.stop = ""
        self.now = lambda: NOW

    def http(self, _method, url, _body, _headers, _timeout):
        self.asked.append(url)
        host, _version, namespace, model, _manifests, tag = url.partition("://")[2].split("/")
        path = self.registry / ModelName(host, namespace, model, tag).manifest
        return Answer(200, path.read_bytes()) if path.exists() else Answer(404)

    def run(self, *models, check=False, **options):
        """Run; return the result, with the message when it failed."""
        params = {
            "models": [{"name": item} if isinstance(item, str) else item for item in models],
            "forbidden": [],
            "exclusive": False,
            "sources": [],
            "store": str(self.root),
            "space_path": None,
            "reserve_bytes": 0,
            "prune_partials": True,
            "partial_min_age_s": 3600,
            "prune_orphans": False,
            "prove": True,
            "verify": "changed",
            "idle_io": False,
            "parallel": 1,
            "state_dir": str(self.tmp / "state"),
            **options,
        }
        io = runs.Io(
            api=self.api,
            registry=self.http,
            progress=CatalogProgress(self.told),
            moment=lambda: Moment(self.now(), frozenset(), True),
            free_bytes=lambda _path: self.free,
            watch=Watch(stopped=lambda: self.stop),
            warn=self.warned.append,
        )
        result = {}
        try:
            runs.reconcile(params, io, check, result)
        except HostError as error:
            result["msg"] = str(error)
        return result

    def files(self):
        """Return everything that a run may leave somewhere."""
        return {
            str(path): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
            for path in sorted(self.tmp.rglob("*"))
        }

    def flip(self, content, folder=None):
        path = blob_path(folder or self.root, content)
        path.write_bytes(content.upper())
        os.utime(path, (LONG_AGO, LONG_AGO))
