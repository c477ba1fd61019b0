# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The client's own error: what it measures of a server whose every write is known.

Right before a run the client that will measure it is pointed at a server on loopback
(``_bench_loopback``), at the same concurrency and in the same dialect. All processes of a host
share CLOCK_MONOTONIC, so each stamp of the client is held against the write that it belongs to:

error of an arrival   its stamp minus the write's, 0 while the stamp lies between the times before
                      and after the write
error of a TTFT       (arrival of the request at the server - start) + error of the first arrival
error of a gap        error of its second arrival - error of its first

That the server is late, on a host with few cores, is not part of them.
"""

from __future__ import annotations

import json
import math
import os
import select
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_loopback
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_child import (
    end_child,
    start_child,
)
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
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import Measurement
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import (
    CLOSED,
    Stage,
    feeder_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_stats import (
    mean,
    percentile,
    summarize,
)

SECONDS = 2.5
TTFT_MS, GAP_MS, TOKENS = 30.0, 10.0, 40
TOKENS_PER_S = 6400.0  # what loopback is asked to deliver at most: 64 streams with gaps of 10 ms
LEAST_TOKENS = 4
ROUNDS = 4  # requests per place that the time is to suffice for
START_S = 5.0
ANSWER_S = 10.0
REPORT_LIMIT = 256 * 2**20
FLAGS = ("-I", "-B", "-S")  # nothing but the standard library is needed


@dataclass(frozen=True)
class Schedule:
    """What the server on loopback does.

    Attributes:
        gap_ms: between two tokens of a stream.
        tokens: per answer.
        requests: to send at most.
        seconds: no request starts later than this before the end.
    """

    gap_ms: float
    tokens: int
    requests: int
    seconds: float


@dataclass
class Errors:
    """How far off the client was, in milliseconds, one entry per request or per gap."""

    ttft: list[float] = field(default_factory=list)
    gap: array = field(default_factory=lambda: array("d"))
    client_gaps: array = field(default_factory=lambda: array("d"))
    true_gaps: array = field(default_factory=lambda: array("d"))
    late: array = field(default_factory=lambda: array("d"))


def places_of(stage: Stage, latency_s: float | None) -> int:
    """Return how many streams a stage will have open at once, for the calibration.

    An open loop has about rate x latency (J. Little's law), at most its limit.
    """
    if stage.shape == CLOSED:
        return min(stage.concurrency, max(1, stage.requests))
    expected = math.ceil(stage.rate * (latency_s or 1.0))
    return max(1, min(stage.concurrency, expected, stage.requests))


def schedule_of(concurrency: int, seconds: float) -> Schedule:
    """Fit answers into the time, without asking more of loopback than it can deliver."""
    gap_ms = max(GAP_MS, concurrency / TOKENS_PER_S * 1e3)
    one_ms = seconds * 1e3 / ROUNDS
    tokens = max(LEAST_TOKENS, min(TOKENS, int((one_ms - TTFT_MS) / gap_ms)))
    answer_s = (TTFT_MS + tokens * gap_ms) / 1e3
    rounds = max(2, int(seconds / answer_s) + 1)
    return Schedule(gap_ms, tokens, concurrency * rounds, max(0.1, seconds - answer_s))


def calibrate(
    concurrency: int,
    dialect: str,
    *,
    tls: bool = False,
    seconds: float = SECONDS,
    python: str = "",
) -> dict[str, Any]:
    """Measure the client's own error at a concurrency.

    Args:
        concurrency: streams at once.
        dialect: one of ``_bench_dialect.PATHS``.
        tls: whether the run goes through TLS.
        seconds: how long to take, about.
        python: interpreter of the server; this one's unless given.

    Returns:
        ``client.calibration`` of the result; ``failed`` says why there are no figures in it.
    """
    begun = time.monotonic()
    result: dict[str, Any] = {"concurrency": concurrency, "requests": 0, "tls": tls, "failed": ""}
    try:
        figures = _calibrated(concurrency, dialect, tls, seconds, python or sys.executable)
        if tls and figures["failed"]:
            # Without suites that need no certificate; the cost of decryption is not in it then.
            figures = _calibrated(concurrency, dialect, False, seconds, python or sys.executable)
            result["tls"] = False
        result.update(figures)
    except (OSError, ValueError) as error:
        result["failed"] = f"the client could not be calibrated: {error}"
    result["seconds"] = round(time.monotonic() - begun, 2)
    return result


def client_error(
    calibration: Mapping[str, Any], measured: Measurement, limit_ms: float
) -> dict[str, Any]:
    """Return ``client`` of a result: the calibration, and how the client fared in the run."""
    account = measured.account
    lags = [
        sample.dispatch_lag_ms for sample in measured.samples if sample.dispatch_lag_ms is not None
    ]
    loop_lag = percentile(account.read_age_ms, 99)
    error = (calibration.get("ttft_error_ms") or {}).get("mean")
    cpu = 100.0 * account.cpu_s / measured.wall_s if measured.wall_s > 0 else None
    return {
        "overhead_ms": None if error is None else round(max(0.0, error), 3),
        "itl_overhead_ms": calibration.get("gap_error_ms"),
        "loop_lag_p99_ms": _rounded(
            loop_lag if loop_lag is not None else calibration.get("loop_lag_p99_ms")
        ),
        "dispatch_lag_p99_ms": _rounded(percentile(lags, 99)),
        "kernel_stamps": account.kernel_stamps,
        "connects": account.connects,
        "reconnects": account.reconnects,
        "cpu_percent_of_core": _rounded(cpu, 1),
        "calibration": dict(calibration),
        "limit_ms": limit_ms,
    }


def compare(jobs: Sequence[GenerationJob], account: Mapping[str, Any]) -> Errors:
    """Hold the client's stamps against the server's account, see the head of this file."""
    base = account["base"]
    told = {entry[0]: entry for entry in account["requests"]}
    errors = Errors()
    for job in jobs:
        times = job.answer.times
        _number, arrived, before, after = told.get(job.sample.number, (0, 0, (), ()))
        if job.sample.error_kind or not times or len(times) != len(after):
            continue
        excess = [
            _excess((at - base) * 1e3, early / 1e3, late / 1e3)
            for at, early, late in zip(times, before, after)
        ]
        errors.ttft.append(base * 1e3 + arrived / 1e3 - job.begin * 1e3 + excess[0])
        errors.late.extend(max(0.0, one) for one in excess)
        for index in range(1, len(times)):
            gap = (times[index] - times[index - 1]) * 1e3
            error = excess[index] - excess[index - 1]
            errors.gap.append(abs(error))
            errors.client_gaps.append(gap)
            errors.true_gaps.append(gap - error)
    return errors


def _excess(at: float, before: float, after: float) -> float:
    if at > after:
        return at - after
    return min(0.0, at - before)


def _calibrated(
    concurrency: int, dialect: str, tls: bool, seconds: float, python: str
) -> dict[str, Any]:
    schedule = schedule_of(concurrency, seconds)
    settings = {
        "dialect": dialect,
        "tls": tls,
        "ttft_ms": TTFT_MS,
        "gap_ms": schedule.gap_ms,
        "tokens": schedule.tokens,
        "limit_s": seconds + START_S + 2 * ANSWER_S,
    }
    server = start_child(python, _bench_loopback, settings, subprocess.PIPE, FLAGS)
    try:
        port = json.loads(_line(server, START_S))["port"]
        context = _bench_loopback.anonymous_tls(server=False) if tls else None
        address = Address(socket.AF_INET, ("127.0.0.1", port), "", context, START_S)
        jobs: list[GenerationJob] = []
        engine = Engine(address)
        try:
            engine.warm_up(concurrency)
            begin = time.monotonic()
            stage = Stage(CLOSED, concurrency, 0.0, schedule.requests, schedule.seconds)
            make = _maker(dialect, schedule, jobs)
            engine.run(feeder_of(stage, begin, make), begin + schedule.seconds)
        finally:
            engine.close()
        server.stdin.close()  # type: ignore[union-attr]
        account = json.loads(_line(server, ANSWER_S))
    except OSError as error:
        return {"failed": f"no calibration over loopback{' with TLS' if tls else ''}: {error}"}
    finally:
        end_child(server, 0.2)
    return _figures(engine.account, compare(jobs, account), jobs, account, schedule)


def _maker(dialect: str, schedule: Schedule, jobs: list[GenerationJob]) -> Any:
    setting = Setting("http://127.0.0.1", dialect, timeout_s=ANSWER_S)

    def make(number: int, intended: float | None) -> GenerationJob:
        sample = Sample(number=number, model=f"calibration-{number}")
        body = render(dialect, Ask(sample.model, "calibration", schedule.tokens))
        job = GenerationJob(
            setting,
            sample,
            body,
            intended=intended,
            finished=lambda _job: None,
            wall=lambda _at: "",
        )
        jobs.append(job)
        return job

    return make


def _figures(
    own: Account,
    errors: Errors,
    jobs: Sequence[GenerationJob],
    account: Mapping[str, Any],
    schedule: Schedule,
) -> dict[str, Any]:
    if not errors.gap:
        said = sorted({job.sample.error for job in jobs if job.sample.error})
        return {"failed": f"no calibration: no whole answer from loopback; {'; '.join(said[:3])}"}
    wall = max(job.end for job in jobs) - min(job.begin for job in jobs)
    ages = own.read_age_ms if own.kernel_stamps and own.read_age_ms else errors.late
    gap_error = percentile(errors.client_gaps, 99) - percentile(errors.true_gaps, 99)
    return {
        "failed": "",
        "requests": len(errors.ttft),
        "ttft_error_ms": summarize(errors.ttft, 3),
        "gap_error_ms": _rounded(mean(errors.gap)),
        "gap_p99_error_ms": _rounded(gap_error),
        "loop_lag_p99_ms": _rounded(percentile(ages, 99)),
        "cpu_percent_of_core": _rounded(100.0 * own.cpu_s / wall, 1),
        "tokens_per_s": _rounded((len(errors.gap) + len(errors.ttft)) / wall, 1),
        "kernel_stamps": own.kernel_stamps,
        "truth": "kernel and writes" if account["kernel"] else "program and writes",
        "gap_ms": round(schedule.gap_ms, 3),
        "tokens": schedule.tokens,
    }


def _line(process: subprocess.Popen[bytes], timeout_s: float) -> bytes:
    """Read one line from a child.

    Raises:
        OSError: it ended, or said nothing in time.
    """
    data: list[bytes] = []
    length = 0
    end = time.monotonic() + timeout_s
    descriptor = process.stdout.fileno()  # type: ignore[union-attr]
    while not data or not data[-1].endswith(b"\n"):
        ready, _out, _wrong = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        piece = os.read(descriptor, 1 << 20) if ready else b""
        length += len(piece)
        if not piece or length > REPORT_LIMIT:
            how = "ended" if ready else f"said nothing for {timeout_s:g} s"
            raise OSError(f"its server {how}")
        data.append(piece)
    return b"".join(data)


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
