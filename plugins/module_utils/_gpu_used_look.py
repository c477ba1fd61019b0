# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Watch the cards while a model generates, as long as it takes to see them work.

The cards are sampled by the benchmark's sampler, a process of its own: a driver that hangs costs
the readings, not the answer, and the sampler is killed at the end. A known answer of a few tokens
is over before a card has averaged its utilisation. So the model is made to talk on, and is cut
off as soon as everything agrees: within a second or two on a healthy host. Where it doesn't, the
model is kept at work for the time that was set, and no longer.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_sampler import (
    SILENT,
    Sampler,
    Watch,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_sampler_child import PROCESSES
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Prepare
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used import (
    Claim,
    Limits,
    Owners,
    Seen,
    as_dict,
    falls_short,
    judge_used,
    seen_between,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used_engines import Engine
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used_host import (
    elsewhere,
    owners_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import PASS, Verdict

STEP_S = 0.2  # between two readings through NVML; the shortest average of a card is 1/6 s
SMI_STEP_S = 1.0  # between two runs of nvidia-smi, each of which opens the driver anew
LOOK_S = 0.1  # between two looks at what the sampler wrote
CLAIM_TIMEOUT_S = 5.0  # for an answer that needs no work
NONE = "none: "  # how the sampler begins when it can't read the cards


@dataclass(frozen=True)
class Looking:
    """How to look.

    Attributes:
        url: base URL of the engine.
        seconds: how long a model is kept generating at most.
        limits: what is wanted.
        python: an interpreter with nvidia-ml-py; empty when there is none.
        smi: path of nvidia-smi, for hosts without such an interpreter.
        proc: where the host's processes are.
    """

    url: str
    seconds: float = 10.0
    limits: Limits = field(default_factory=Limits)
    python: str = ""
    smi: str = ""
    proc: str = "/proc"


@dataclass
class _Generation:
    """What one model's generation, made of one request or several, has come to."""

    first: float | None = None
    last: float = 0.0
    problem: str = ""
    claim: Claim | None = None
    owners: Owners = field(default_factory=Owners)
    lines: list[dict[str, Any]] = field(default_factory=list)
    looked: float = 0.0


class Lookout:
    """Judges model by model whether it runs on a GPU; use it as a context.

    ``figures`` has what was seen of each model, see ``as_dict``.
    """

    def __init__(
        self,
        looking: Looking,
        engine: Engine,
        prepare: Prepare,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._looking = looking
        self._engine = engine
        self._prepare = prepare
        self._clock = clock
        self.figures: list[dict[str, Any]] = []
        self._offset = 0
        self._why = ""
        self._sampler = Sampler(
            Watch(
                step_s=STEP_S,
                gpu_python=looking.python,
                smi=looking.smi,
                proc=looking.proc,
                host=False,
                gpu_readings=("utilization", "memory", PROCESSES),
                smi_step_s=SMI_STEP_S,
            )
        )

    def __enter__(self) -> Lookout:
        self._why = elsewhere(self._looking.url)
        if not self._why:
            self._sampler.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._sampler.stop()

    def watch(self, model: str) -> Verdict:
        """Let a model generate while the cards are watched; return what is to be said of it."""
        run = _Generation()
        why = self._why or self._unreadable()
        if not why:
            self._read()  # what was read before belongs to no generation
            self._generate(run, model)
            run.lines += self._read()
            why = run.problem or self._silence()
        if run.claim is None:
            run.claim = self._engine.claim(self._prepare, model, CLAIM_TIMEOUT_S)
        seen = self._seen(run, why)
        if run.first is not None and not seen.samples and not run.problem:
            self._why = seen.why  # not every model has to wait for a driver that hangs
        self.figures.append(as_dict(model, run.claim, seen, run.owners))
        return judge_used(model, run.claim, seen, run.owners, self._looking.limits)

    def _generate(self, run: _Generation, model: str) -> None:
        """Ask for long answers, one after the other, until enough was seen or the time is over."""
        end = self._clock() + self._looking.seconds
        try:
            while self._clock() < end and not self._one_answer(run, model, end):
                pass
        except (OSError, http.client.HTTPException) as error:
            if self._clock() < end:
                run.problem = f"the generation broke off: {error or type(error).__name__}"
        if run.first is None and not run.problem:
            run.problem = f"no token came within {self._looking.seconds:g} s"

    def _one_answer(self, run: _Generation, model: str, end: float) -> bool:
        """Read one answer; tell whether no more is needed."""
        engine = self._engine
        left = max(end - self._clock(), LOOK_S)
        answer = self._prepare("POST", engine.path, engine.body(model), left)()
        pieces = 0
        try:
            for piece in answer.chunks:
                if answer.status != 200 or b'{"error"' in piece:
                    said = " ".join(piece[:200].decode("utf-8", "replace").split())
                    run.problem = f"the generation failed with status {answer.status}: {said}"
                    return True
                pieces += 1
                if self._enough(run, model):
                    return True
        finally:
            answer.close()
        if not pieces:
            run.problem = f"the generation is empty, with status {answer.status}"
        return not pieces

    def _enough(self, run: _Generation, model: str) -> bool:
        """Look, at every token but not too often, whether the verdict stands."""
        now = run.last = self._clock()
        if run.first is None:
            run.first = now
            # Now, as the model may be unloaded right after its answer.
            run.claim = self._engine.claim(self._prepare, model, CLAIM_TIMEOUT_S)
            run.owners = owners_of(self._looking.url, self._engine, self._looking.proc)
        if run.claim is None or now - run.looked < LOOK_S:
            return False
        run.looked = now
        run.lines += self._read()
        seen = self._seen(run, "")
        if not seen.samples:
            return False
        limits = self._looking.limits
        settled = run.claim.ratio is None or falls_short(run.claim, limits)
        verdict = judge_used(model, run.claim, seen, run.owners, limits)
        return settled or verdict.status == PASS

    def _seen(self, run: _Generation, why: str) -> Seen:
        if run.first is None:
            return Seen(why=why)
        return seen_between(run.lines, run.first, run.last, why)

    def _read(self) -> list[dict[str, Any]]:
        lines, self._offset = self._sampler.lines(self._offset)
        return lines

    def _unreadable(self) -> str:
        """Say why the cards can't be read at all; empty when they can."""
        state = self._sampler.state("gpu")
        why = state[len(NONE) :] if state.startswith(NONE) else ""
        return "the driver has not answered" if why == SILENT else why

    def _silence(self) -> str:
        source = self._sampler.state("gpu")
        return f"{source} gave no reading within {self._looking.seconds:g} s"
