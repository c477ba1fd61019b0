# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An engine and sources in memory over a store on disk, for the tests that carry out plans."""

from __future__ import annotations

import json
import os
import threading

from catalog_samples import declare
from store_samples import LONG_AGO, digest_of

from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog as catalog
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_apply import Executor
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_aside import Aside
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_bring import Tools
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_check import Checker
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import Offer
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import Moment
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_progress import CatalogProgress
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import Watch
from ansible_collections.hx_infra.llm.plugins.module_utils._registry import exact_remote
from ansible_collections.hx_infra.llm.plugins.module_utils._store_ledger import Ledger

NOW = LONG_AGO + 1_000_000.0


class Told:
    """Keeps what would be written to the progress file."""

    def __init__(self):
        self.states = []

    def update(self, item, phase, done=None, total=None, *, unit="", note=""):
        self.states.append((item, phase, done, total, note))


class Engine:
    """Keeps what it was asked; models that are named as failing don't answer."""

    def __init__(self, root, failing=(), loaded=()):
        self.root = root
        self.failing = set(failing)
        self.in_memory = {parse_name(name).key: "" for name in loaded}
        self.asked = []

    def loaded(self):
        return dict(self.in_memory)

    def unload(self, name):
        self.asked.append(("unload", str(name)))
        return self.in_memory.pop(name.key, None) is not None

    def prove(self, name):
        self.asked.append(("prove", str(name)))
        if str(name) in self.failing:
            raise HostError(f"prompting {name} failed: no.")
        return 0.5

    def delete(self, name):
        self.asked.append(("delete", str(name)))
        (self.root / name.manifest).unlink(missing_ok=True)  # being gone already is no error


class Source:
    """Gives models as an engine's pull does: a file that is there counts as the blob.

    ``trouble`` is called with the model's name before each blob and before the manifest; it may
    raise. ``change`` may give a blob another content. About the models of ``silent`` it gives no
    answer.
    """

    def __init__(self, root, models, label="registry r", kind="registry"):
        self.root = root
        self.label = label
        self.kind = kind
        self.contents = {parse_name(name).key: list(layers) for name, layers in models.items()}
        self.trouble = lambda _name, _count: None
        self.change = lambda content: content
        self.silent = set()
        self.lock = threading.Lock()

    def manifest(self, key):
        config, *layers = [
            {"digest": f"sha256:{digest_of(content)}", "size": len(content)}
            for content in (b"config", *self.contents[key])
        ]
        return json.dumps({"config": config, "layers": layers}).encode()

    def offer(self, item):
        if item.name.model in self.silent:
            return Offer(self.label, self.kind, None, "it can't be reached: timed out", False)
        if item.name.key not in self.contents:
            return Offer(self.label, self.kind, None, "it doesn't have it (404)")
        remote = exact_remote("http://r", self.manifest(item.name.key))
        return Offer(self.label, self.kind, remote)

    def fetch(self, item, offer, on_progress):
        contents = [b"config", *self.contents[item.name.key]]
        (self.root / "blobs").mkdir(exist_ok=True)
        for count, content in enumerate(contents):
            self.trouble(str(item.name), count)
            with self.lock:
                path = self.root / "blobs" / f"sha256-{digest_of(content)}"
                if not path.exists():
                    path.write_bytes(self.change(content))
            on_progress("pulling", count + 1, len(contents))
        self.trouble(str(item.name), len(contents))
        path = self.root / item.name.manifest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(offer.remote.content)


class World:
    """A store, what is declared about it, an engine and sources."""

    def __init__(self, root, *models, sources=(), **options):
        self.root = root
        self.declaration = declare(*models, **options)
        self.sources = list(sources)
        self.engine = Engine(root)
        self.told = Told()
        self.stop = ""
        self.prove = True
        self.free = 10**12
        self.ledger = None
        self.path = None
        self.watch = Watch(stopped=lambda: self.stop)

    def checker(self):
        """Make what reads the store."""
        self.ledger = Ledger(self.path)
        self.progress = CatalogProgress(self.told)
        return Checker(
            str(self.root), self.ledger, self.progress, self.watch, keep=self.path is not None
        )

    def observe(self):
        """Read and verify the store as a run does; return it with checker, offers and plan."""
        checker = self.checker()
        store = checker.read_store()
        checker.check(store, list(store.blobs), "all")
        offers = {
            item.name.key: [source.offer(item) for source in self.sources]
            for item in catalog.to_look_up(self.declaration, store)
        }
        return store, checker, offers, self.plan(store, offers)

    def plan(self, store, offers):
        """Make a plan."""
        return catalog.make_plan(self.declaration, store, offers, Moment(NOW, frozenset(), True))

    def apply(self, disturb=lambda: None):
        """Make a plan and carry it out; ``disturb`` is called in between."""
        store, checker, offers, plan = self.observe()
        tools = Tools(
            declaration=self.declaration,
            engine=self.engine,
            sources=self.sources,
            offers=offers,
            checker=checker,
            aside=Aside(str(self.root)),
            progress=self.progress,
            watch=self.watch,
            free_bytes=lambda: self.free,
            prove=self.prove,
        )
        disturb()
        return Executor(store, tools).apply(plan)

    def left(self):
        """Return what a further plan would change."""
        return [(step.action, step.target) for step in self.observe()[3].changes]

    def blobs(self):
        """Return the digests of the contents of all blobs by name, also of those set aside."""
        found = {}
        for folder in ("blobs", ".hx/aside"):
            if (self.root / folder).is_dir():
                for name in sorted(os.listdir(self.root / folder)):
                    path = self.root / folder / name
                    found[f"{folder}/{name}"] = digest_of(path.read_bytes())
        return found

    def good(self):
        """Say whether every blob is what its name says and nothing is set aside."""
        return all(
            path.startswith("blobs/sha256-") and path.endswith(digest)
            for path, digest in self.blobs().items()
        )
