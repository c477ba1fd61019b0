# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Watch the cards while a model generates, as long as it takes to see them work.

The cards are sampled by the benchmark's sampler, a process of its own: a driver that hangs costs
the readings, not the answer, and the sampler is killed at the end. A known answer of a few tokens
is over before a card has averaged its utilisation. So the model is made to talk on. What a card
shows in the first second may still be the work of the model before, of which the engine has a
process and memory on the card too: it doesn't count. Then the model is cut off as soon as
everything agrees, after little more than that second on a healthy host. Where it doesn't, the
model is kept at work for the time that was set, and no longer.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_sampler import (
    SILENT,
    Sampler,
    Watch,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_sampler_child import PROCESSES
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Prepare
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used import (
    PERIOD_S,
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
# Of work, so that a reading counts: the second that doesn't, and the longest step to the next one.
LEAST_S = PERIOD_S + SMI_STEP_S
CLAIM_TIMEOUT_S = 5.0  # for an answer that needs no work
NONE = "none: "  # how the sampler begins when it can't read the cards


@dataclass(frozen=True)
class Looking:
    """How to look.

    Attributes:
        url: base URL of the engine.
        seconds: how long a model is kept generating at most, ``LEAST_S`` or more.
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

    @property
    def lasted_s(self) -> float:
        """Return the time from the first token to the last."""
        return 0.0 if self.first is None else self.last - self.first


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
        self._away = ""  # why the cards of this host are none of the engine's
        self._silent = ""  # why no reading comes, until the next one does
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
        self._away = elsewhere(self._looking.url)
        if not self._away:
            self._sampler.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._sampler.stop()

    def watch(self, model: str) -> Verdict:
        """Let a model generate while the cards are watched; return what is to be said of it."""
        run = _Generation()
        # What was read before belongs to no generation, but tells that a driver answers again.
        if _readings(self._read()):
            self._silent = ""
        blind = "" if self._away else self._silent or self._unreadable()
        if not self._away and not blind:
            self._generate(run, model)
            run.lines += self._read()
        if run.claim is None:
            run.claim = self._engine.claim(self._prepare, model, CLAIM_TIMEOUT_S)
        seen = self._outcome(run, blind)
        self.figures.append(as_dict(model, run.claim, seen, run.owners))
        return judge_used(model, run.claim, seen, run.owners, self._looking.limits)

    def _outcome(self, run: _Generation, blind: str) -> Seen:
        """Return what was seen; where that is nothing, whether cards or model are the reason."""
        if self._away or blind:
            return Seen(why=self._away or blind, blind=bool(blind))
        if run.problem:
            return self._seen(run, run.problem)
        seen = self._seen(run, self._silence())
        if seen.samples:
            return seen
        if _readings(run.lines) and run.lasted_s < LEAST_S:
            return replace(seen, why="it generated too late or too briefly to tell")
        self._silent = seen.why  # not every model has to wait for a driver that hangs
        return replace(seen, blind=True)

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
        verdict = judge_used(model, run.claim, seen, run.owners, self._looking.limits)
        return self._settled(run) or verdict.status == PASS

    def _settled(self, run: _Generation) -> bool:
        """Tell whether the verdict stands by the engine's word, whatever the cards show."""
        claim = run.claim
        return claim is not None and (
            claim.ratio is None or falls_short(claim, self._looking.limits)
        )

    def _seen(self, run: _Generation, why: str) -> Seen:
        if run.first is None:
            return Seen(why=why)
        skip_s = 0.0 if self._settled(run) else PERIOD_S
        return seen_between(run.lines, run.first, run.last, why, skip_s)

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


def _readings(lines: list[dict[str, Any]]) -> bool:
    """Tell whether a sampler has read the cards."""
    return any("gpu" in line for line in lines)
