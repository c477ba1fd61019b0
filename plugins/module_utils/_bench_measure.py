# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Measure one model under one load: warm it up, fit the prompts, send, gather what came back."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import time
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_dialect import Ask, render
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_engine import (
    Account,
    Address,
    Engine,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_job import (
    GenerationJob,
    Sample,
    Setting,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_prompts import Prompts, fitted
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import (
    ClosedLoop,
    OpenLoop,
    Stage,
    feeder_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

PROBE_S = 3.0  # for one of several addresses of a name
SPARE = 32  # connections that stand open before a schedule begins
RECENT = 32  # finished requests that the progress speaks of
Tell = Callable[["Progress"], None]


@dataclass
class Measurement:
    """What a load told about one model.

    Attributes:
        model: the model asked.
        stage: the load.
        samples: the measured requests, in the order of their numbers.
        warmup: the requests before them; the first of them may have loaded the model.
        gaps_ms: every gap between arrivals, of all good samples.
        wall_s: time from the first request's start to the last answer.
        not_sent: requests that were due but not sent.
        begun_at: wall clock at the start of the stage, RFC 3339.
        begun: the same by the monotonic clock.
        arrivals: records with tokens that arrived in each second of the stage.
        in_flight: most requests that were in flight at once.
        cut: whether the time of the run ended before the load's requests or its time did.
        gpu_ratio: part of the model that lies in GPU memory; None when the server did not say.
        account: what the client knows about itself.
    """

    model: str
    stage: Stage = field(default_factory=Stage)
    samples: list[Sample] = field(default_factory=list)
    warmup: list[Sample] = field(default_factory=list)
    gaps_ms: array = field(default_factory=lambda: array("d"))
    wall_s: float = 0.0
    not_sent: int = 0
    begun_at: str = ""
    begun: float = 0.0
    arrivals: dict[int, int] = field(default_factory=dict)
    in_flight: int = 0
    cut: bool = False
    gpu_ratio: float | None = None
    account: Account = field(default_factory=Account)


@dataclass
class Progress:
    """Where a stage stands; handed to whoever shows it.

    ``done`` and ``total`` count ``unit``: requests, or the seconds (``s``) of a load that a time
    ends; ``requests`` are those done in either case.
    """

    model: str
    label: str
    phase: str
    done: float = 0
    total: float = 0
    unit: str = "requests"
    requests: int = 0
    errors: int = 0
    in_flight: int = 0
    elapsed_s: float = 0.0
    ttft_ms: float | None = None
    tokens_per_s: float | None = None


@dataclass(frozen=True)
class Plan:
    """What is asked of every model.

    Attributes:
        setting: where and how.
        prompts: what is asked.
        max_tokens: tokens to generate at most.
        think: let models that can reason do so.
        extra: further fields of each request.
        warmup: requests before the measured ones.
        ends_at: monotonic time after which no request starts.
    """

    setting: Setting
    prompts: Prompts
    max_tokens: int = 128
    think: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    warmup: int = 1
    ends_at: float = float("inf")


def address_of(url: str, ca_path: str | None, validate_certs: bool) -> Address:
    """Resolve a base URL.

    Raises:
        HostError: it is none, or its name isn't known.
    """
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise HostError(
            f"url is {url!r}, wanted http://host:port or https://host:port.",
            "Give the base URL of the inference server.",
        )
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise HostError(f"{parts.hostname} of {url} can't be resolved: {error}.") from error
    context = None
    if parts.scheme == "https":
        try:
            context = ssl.create_default_context(cafile=ca_path)
        except OSError as error:
            raise HostError(f"{ca_path} can't be read as certificates: {error}.") from error
        if not validate_certs:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    family, sockaddr = _answering([(entry[0], entry[4]) for entry in found])
    return Address(family, sockaddr, parts.hostname, context)


def _answering(places: list[tuple[int, Any]]) -> tuple[int, Any]:
    """Return the first place that accepts a connection, else the last one.

    ``localhost`` is ``::1`` first, where an engine that listens on 127.0.0.1 does not answer.
    """
    for family, sockaddr in places[:-1]:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(PROBE_S)
            probe.connect(sockaddr)
            return family, sockaddr
    return places[-1]


def rfc3339(seconds: float) -> str:
    """Return a time of the wall clock in UTC, to the millisecond."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


class Runner:
    """Measures models at one address, stage by stage."""

    def __init__(
        self,
        address: Address,
        plan: Plan,
        tell: Tell = lambda _progress: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._plan = plan
        self._tell = tell
        self._clock = clock
        self._offset = time.time() - clock()

    def warm_up(self, model: str) -> list[Sample]:
        """Send the requests that load the model and fit the length of synthetic prompts.

        Stops at the first one that fails: a model that can't be warmed up can't be measured.
        """
        measured = Measurement(model)
        probes: list[tuple[int, int]] = []
        for number in range(1, self._plan.warmup + 1):
            if self._clock() >= self._plan.ends_at:
                break
            prompts = self._plan.prompts
            self._tell(Progress(model, "", "warming up", number - 1, self._plan.warmup))
            one = Stage(requests=1)
            self._drive(measured, one, "warmup", number - 1)
            if len(measured.warmup) < number:  # the time ended while it connected
                break
            sample = measured.warmup[-1]
            if sample.error_kind:
                break
            probes.append((prompts.words if prompts.tokens else 0, sample.prompt_tokens))
            self._refit(probes)
        return measured.warmup

    def run(self, model: str, stage: Stage, index: int = 0) -> Measurement:
        """Send a stage's requests and return what came back."""
        measured = Measurement(model, stage)
        self._drive(measured, stage, "measure", 0, index)
        measured.samples.sort(key=lambda sample: sample.number)
        return measured

    def _refit(self, probes: list[tuple[int, int]]) -> None:
        prompts = fitted(self._plan.prompts, probes)
        self._plan = Plan(**{**vars(self._plan), "prompts": prompts})

    def _drive(
        self, measured: Measurement, stage: Stage, phase: str, first: int, index: int = 0
    ) -> None:
        account = _Account(measured, stage, phase, self._tell, self._clock)
        engine = Engine(self._address, clock=self._clock, tick=account.tick)
        try:
            places = stage.concurrency if stage.shape == "closed" else min(stage.concurrency, SPARE)
            # A server that can't be reached is an error of each request, counted as such.
            with contextlib.suppress(OSError):
                engine.warm_up(min(places, stage.requests))
            begin = self._clock()
            account.begin(begin, rfc3339(begin + self._offset))
            feeder = feeder_of(
                stage,
                begin,
                lambda number, intended: self._job(
                    Sample(number=first + number, model=measured.model, phase=phase, stage=index),
                    account,
                    intended,
                ),
            )
            engine.run(feeder, self._plan.ends_at)
        finally:
            engine.close()
        measured.account = engine.account
        account.end(feeder, self._plan.ends_at)

    def _job(self, sample: Sample, account: _Account, intended: float | None) -> GenerationJob:
        plan = self._plan
        ask = Ask(
            model=sample.model,
            prompt=plan.prompts.text(sample.model, f"{sample.phase}{sample.stage}", sample.number),
            max_tokens=plan.max_tokens,
            stream=plan.setting.stream,
            think=plan.think,
            extra=plan.extra,
        )
        account.started()
        return GenerationJob(
            plan.setting,
            sample,
            render(plan.setting.dialect, ask),
            intended=intended,
            finished=account.finished,
            wall=lambda at: rfc3339(at + self._offset),
        )


class _Account:
    """Takes in finished requests while a stage runs."""

    def __init__(
        self,
        measured: Measurement,
        stage: Stage,
        phase: str,
        tell: Tell,
        clock: Callable[[], float],
    ) -> None:
        self._measured = measured
        self._stage = stage
        self._phase = phase
        self._tell = tell
        self._clock = clock
        self._in_flight = 0
        self._done = 0
        self._errors = 0
        self._last = 0.0
        self._recent: deque[Sample] = deque(maxlen=RECENT)

    def begin(self, at: float, wall: str) -> None:
        """Start the clock of the stage."""
        self._measured.begun, self._measured.begun_at = at, wall
        self._last = at

    def started(self) -> None:
        """Count a request that goes out."""
        self._in_flight += 1
        self._measured.in_flight = max(self._measured.in_flight, self._in_flight)

    def finished(self, job: GenerationJob) -> None:
        """Keep what a request told."""
        measured, sample = self._measured, job.sample
        self._in_flight -= 1
        self._done += 1
        self._last = max(self._last, job.end)
        sample.at_s = job.begin - measured.begun
        if self._phase == "warmup":
            measured.warmup.append(sample)
            return
        measured.samples.append(sample)
        self._recent.append(sample)
        for at in job.answer.times:
            second = int(at - measured.begun)
            measured.arrivals[second] = measured.arrivals.get(second, 0) + 1
        if sample.error_kind:
            self._errors += 1
        else:
            measured.gaps_ms.extend(job.gaps())

    def tick(self, now: float) -> None:
        """Show where the stage stands."""
        if self._phase == "warmup":
            return
        good = [sample for sample in self._recent if not sample.error_kind]
        ttfts = [sample.ttft_ms for sample in good if sample.ttft_ms is not None]
        rates = [sample.tokens_per_s for sample in good if sample.tokens_per_s]
        elapsed, lasts = now - self._measured.begun, self._stage.duration_s
        self._tell(
            Progress(
                model=self._measured.model,
                label=self._stage.label,
                phase="measuring",
                # How many requests fit into a time isn't known; what the time is, is.
                done=round(min(elapsed, lasts), 1) if lasts else self._done,
                total=lasts or self._stage.requests,
                unit="s" if lasts else "requests",
                requests=self._done,
                errors=self._errors,
                in_flight=self._in_flight,
                elapsed_s=elapsed,
                ttft_ms=sum(ttfts) / len(ttfts) if ttfts else None,
                tokens_per_s=sum(rates) / len(rates) if rates else None,
            )
        )

    def end(self, feeder: ClosedLoop | OpenLoop, ends_at: float) -> None:
        """Close the stage's account."""
        measured = self._measured
        measured.wall_s = self._last - measured.begun
        if self._phase != "warmup":
            measured.not_sent = max(0, feeder.wanted - self._done)
            measured.cut = feeder.cut(ends_at)
            self.tick(self._clock())
