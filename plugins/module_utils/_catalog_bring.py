# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""One declared model from its sources to its proof.

Its sources are tried in order. Bad blobs of it are set aside right before, and get their names
back when no source can give good ones. A download counts when every blob was read and found good
and the pin is met; then the model has to answer.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_aside import Aside, Judgement
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_bytes import (
    lacking_space,
    new_bytes,
    still_to_come,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_check import Checker
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_decide import why_pull
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_engine import Engine
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import Offer, Offers
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import (
    Declaration,
    Step,
    Wanted,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_progress import CatalogProgress
from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import human_size
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import (
    HostError,
    UnreachableError,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    CORRUPT,
    MISSING,
    PRESENT,
    WRONG_SIZE,
    Layer,
    Store,
    unique,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import Watch
from ansible_collections.hx_infra.llm.plugins.module_utils._sources import Source, source_for

_FULL = ("no space left on device", "disk quota exceeded")


@dataclass(frozen=True)
class Outcome:
    """How a step went.

    Attributes:
        detail: why it failed, or what there is to know although it didn't.
        proof_s: how long a new model took to answer.
        source: where a new model came from.
        attempts: how it went with each source that was tried, as source, ok and detail.
        bytes: what was downloaded.
        seconds: how long the step took.
        refuted: whether a new model came and then didn't answer as it should. What was cut off, or
            had no engine to answer it, is not.
    """

    action: str
    target: str
    ok: bool
    detail: str = ""
    proof_s: float | None = None
    source: str = ""
    attempts: tuple[dict[str, Any], ...] = ()
    bytes: int = 0
    seconds: float = 0.0
    refuted: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the form that results carry."""
        return {**self.__dict__, "attempts": list(self.attempts), "seconds": round(self.seconds, 3)}


@dataclass
class Tools:
    """What bringing models needs; shared by those that are brought at once.

    Attributes:
        declaration: what was declared.
        engine: the engine that owns the store.
        sources: where models come from.
        offers: what the sources said about each model.
        checker: reads the store and its blobs.
        aside: where bad blobs wait.
        progress: is told how far the work is.
        watch: when to give up.
        free_bytes: the free space of the store's disk.
        prove: whether each new model has to answer a prompt.
    """

    declaration: Declaration
    engine: Engine
    sources: Sequence[Source]
    offers: Offers
    checker: Checker
    aside: Aside
    progress: CatalogProgress
    watch: Watch
    free_bytes: Callable[[], int]
    prove: bool = True
    proving: threading.Lock = field(default_factory=threading.Lock)


def bring(step: Step, tools: Tools) -> Outcome:
    """Bring the model of a step; a failure is an outcome too."""
    began = time.monotonic()
    item = next(item for item in tools.declaration.wanted if str(item.name) == step.target)
    work = _Bringing(step, item, tools)
    proof_s, detail, ok = None, "", False
    try:
        work.fetch()
        detail, proof_s = work.finish()
        ok = True
    except HostError as error:
        detail = str(error)
    except OSError as error:
        detail = f"{step.target}: {error.strerror or error}."
    finally:
        tools.progress.end(step.target)
    return Outcome(
        step.action,
        step.target,
        ok,
        detail,
        proof_s,
        work.source,
        tuple(work.attempts),
        work.bytes,
        time.monotonic() - began,
        work.refuted,
    )


class _Bringing:
    """One model on its way.

    Attributes:
        attempts: how each source went.
        source: the one that gave the model.
        bytes: what was downloaded.
        refuted: whether the new model didn't answer as it should.
    """

    def __init__(self, step: Step, item: Wanted, tools: Tools) -> None:
        self.attempts: list[dict[str, Any]] = []
        self.source = ""
        self.bytes = 0
        self.refuted = False
        self._step = step
        self._item = item
        self._tools = tools
        self._aside: list[Layer] = []

    def fetch(self) -> None:
        """Try the sources until one has given the model.

        Raises:
            HostError: none could; what had been set aside is back in its place.
        """
        before = self._tools.checker.read_store()
        failures: list[str] = []
        try:
            for offer in self._usable():
                short = self._short_of_space(offer) if failures else ""
                if short:
                    failures.append(self._note(offer, short))
                    continue
                try:
                    self._from(offer)
                except (HostError, OSError) as error:
                    failures.append(self._note(offer, self._why(error)))
                    if self._tools.watch.stopped():
                        break
                    continue
                self.source = offer.source
                self._note(offer, "")
                return
        finally:
            self._settle()
            self.bytes = new_bytes(before, self._tools.checker.read_store(), self._layers(before))
        raise HostError(" ".join(failures) or f"no source can give {self._item.name}.")

    def finish(self) -> tuple[str, float | None]:
        """Let the new model answer; return what there is to say, and the seconds it took.

        Raises:
            HostError: it doesn't answer.
        """
        name, tools, note = self._item.name, self._tools, ""
        if name.key in tools.engine.loaded() and not tools.engine.unload(name):
            note = "Its old files are in use until the requests that run have ended."
        if not tools.prove:
            return note, None
        with tools.proving:  # one after the other: each may need all of the memory
            tools.watch.check(f"prompting {name}")
            tools.progress.update(self._step.target, "proving", note="waiting for its first answer")
            try:
                return note, tools.engine.prove(name)
            except UnreachableError:
                raise
            except HostError:
                self.refuted = not tools.watch.over()
                raise

    def _usable(self) -> list[Offer]:
        offers = self._tools.offers.get(self._item.name.key, ())
        by_label = {offer.source: offer for offer in offers}
        return [by_label[label] for label in self._step.sources]

    def _short_of_space(self, offer: Offer) -> str:
        """Say why a further source isn't tried: it may not go on from what an earlier one left."""
        store = self._tools.checker.read_store()
        layers = offer.remote.layers if offer.remote else self._layers(store)
        left = still_to_come(store, layers, offer.kind)
        lack = lacking_space(left, self._tools.free_bytes(), self._tools.declaration.reserve_bytes)
        return lack and f"{offer.source} wasn't tried: {lack}."

    def _from(self, offer: Offer) -> None:
        """Bring the model from one source and verify what came."""
        tools, item = self._tools, self._item
        source = source_for(tools.sources, offer.source)
        # A repair that fails beside this one puts a bad blob back, which is then taken for whole.
        for _attempt in range(2 if tools.declaration.parallel > 1 else 1):
            tools.watch.check(f"bringing {item.name}")
            self._set_bad_aside(offer)
            source.fetch(item, offer, self._tell)
            now = tools.checker.read_store()
            model = now.find(item.name)
            if model:
                digests = [layer.digest for layer in model.layers]
                tools.checker.check(now, digests, self._step.target)
            problem = why_pull(item, now)
            if not problem:
                return
        raise HostError(f"{item.name} came from {offer.source}, but {problem}.")

    def _set_bad_aside(self, offer: Offer) -> None:
        """Have nothing in place that a source would take for a whole blob."""
        store = self._tools.checker.read_store()
        layers = unique((*(offer.remote.layers if offer.remote else ()), *self._layers(store)))
        present = [layer.digest for layer in layers if store.blob_state(layer) != MISSING]
        self._tools.checker.check(store, present, self._step.target)
        for layer in layers:
            if store.blob_state(layer) in (WRONG_SIZE, CORRUPT):
                self._tools.aside.put(store.blobs[layer.digest])
                self._aside.append(layer)

    def _settle(self) -> None:
        """Drop the bad blobs whose good ones are in place, and put the others back.

        Raises:
            HostError: one can't be put back or removed.
        """
        problems: list[HostError] = []
        while self._aside:
            layer = self._aside.pop()
            try:
                self._tools.aside.settle(layer.digest, partial(self._judge, layer))
            except HostError as error:
                problems.append(error)
        if problems:
            raise problems[0]

    def _judge(self, layer: Layer) -> Judgement:
        """Say what is in a blob's place; nobody knows when there is no time left to read it."""
        store = self._tools.checker.read_store()
        try:
            if store.blob_state(layer) == PRESENT:
                self._tools.checker.check(store, [layer.digest], self._step.target)
        except HostError:
            return Judgement(None)
        if store.blob_state(layer) == PRESENT:
            return Judgement(True)
        blob = store.blobs.get(layer.digest)
        return Judgement(False, blob.inode if blob else None)

    def _layers(self, store: Store) -> tuple[Layer, ...]:
        model = store.find(self._item.name)
        return self._step.layers or (model.layers if model else ())

    def _tell(self, phase: str, done: int, total: int) -> None:
        self._tools.watch.check(f"bringing {self._item.name}")
        self._tools.progress.update(self._step.target, phase, done, total)

    def _note(self, offer: Offer, problem: str) -> str:
        self.attempts.append({"source": offer.source, "ok": not problem, "detail": problem})
        return problem

    def _why(self, error: Exception) -> str:
        """Say why a source failed; when the disk is full, how much more it takes."""
        text = str(error)
        if isinstance(error, OSError) and not isinstance(error, HostError):
            text = f"{self._item.name}: {error.strerror or error}."
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        if not full and not any(words in text.lower() for words in _FULL):
            return text
        store = self._tools.checker.read_store()
        left = still_to_come(store, self._layers(store))
        free = human_size(self._tools.free_bytes())
        return (
            f"{text} {free} are free on the store's disk, and {human_size(left)} have still to "
            "come. What has come is kept; free disk space and run again."
        )
