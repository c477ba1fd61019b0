# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What GPUs, host and engine did while a stage ran, on the time axis of its requests.

Row k of a timeline covers the time from ``t`` = k steps after the start of the stage to the next
row. Most readings speak of the step before them, so a row takes the one nearest to its end, if
there is one near enough; the last row may be cut short and looks further.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_job import Sample
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import Measurement

SOURCES = ("gpu", "host", "engine")
REACH, LAST_REACH = 0.75, 1.0  # steps; readings are late by turns
HOST_FIELDS = ("cpu_percent", "memory_used_bytes", "memory_total_bytes", "load1")

Line = Mapping[str, Any]
Readings = tuple[list[float], list[Any], float]  # times, values, how far one may serve


def timeline(
    measured: Measurement, lines: Sequence[Line], states: Mapping[str, str], step_s: float
) -> dict[str, Any]:
    """Lay readings and arrivals of a stage on one axis.

    Args:
        measured: the stage.
        lines: what the sampler wrote, see ``_bench_sampler_child``.
        states: per source where its readings come from, or why there are none.
        step_s: seconds between two readings.
    """
    found = {name: _readings(lines, name, step_s) for name in SOURCES}
    count = max(1, math.ceil(measured.wall_s / step_s - 1e-9))
    in_flight = most_in_flight(measured.samples, step_s, count)
    rows = [_row(index, in_flight, measured, found, step_s) for index in range(count)]
    _engine_rates(rows, found["engine"], measured.begun, step_s)
    return {
        "step_s": step_s,
        "begun_at": measured.begun_at,
        "rows": rows,
        "sources": {
            name: _described(name, state, lines, measured, found[name])
            for name, state in states.items()
        },
        "sampler_cpu_ms": cpu_ms_per_step(lines),
    }


def tokens_per_record(samples: Iterable[Sample]) -> float:
    """Return how many tokens an arrival carried on average."""
    counted = [(sample.gen_tokens, sample.chunks) for sample in samples if sample.chunks]
    tokens, chunks = (sum(column) for column in zip(*counted)) if counted else (0, 0)
    return tokens / chunks if tokens else 1.0


def arrived_between(arrivals: Mapping[int, int], begin: float, end: float) -> float:
    """Return the records that arrived between two times, taken as even within a second."""
    total = 0.0
    for second in range(int(begin), math.ceil(end)):
        share = min(end, second + 1) - max(begin, second)
        total += arrivals.get(second, 0) * share
    return total


def most_in_flight(samples: Iterable[Sample], step_s: float, count: int) -> list[int]:
    """Return how many requests were unanswered at once at most, per step of the stage."""
    events = []
    for sample in samples:
        sent = sample.at_s + (sample.dispatch_lag_ms or 0.0) / 1e3
        events += [(sent, 1), (sample.at_s + (sample.latency_ms or 0.0) / 1e3, -1)]
    events.sort()  # at one moment, an answer comes before the request that takes its place
    most, now, place = [], 0, 0
    for index in range(count):
        highest = now
        while place < len(events) and events[place][0] < (index + 1) * step_s:
            now += events[place][1]
            highest = max(highest, now)
            place += 1
        most.append(highest)
    return most


def cpu_ms_per_step(lines: Sequence[Line]) -> float | None:
    """Return what the sampler itself cost: CPU milliseconds per step, its start left out."""
    used = [line["cpu_s"] for line in lines if "cpu_s" in line]
    return round((used[-1] - used[0]) * 1e3 / (len(used) - 1), 2) if len(used) > 1 else None


def _row(
    index: int,
    in_flight: Sequence[int],
    measured: Measurement,
    found: Mapping[str, Readings],
    step_s: float,
) -> dict[str, Any]:
    last = index == len(in_flight) - 1
    begin = index * step_s
    end = begin + step_s
    width = max(min(end, measured.wall_s) - begin, 1e-3)
    # Arrivals are counted by whole seconds: the last one ends with the stage, not with its row.
    records = arrived_between(measured.arrivals, begin, max(end, math.ceil(end)) if last else end)
    at = measured.begun + end
    reach = LAST_REACH * step_s if last else 0.0
    host = _nearest(found["host"], at, reach) or {}
    return {
        "t": round(begin, 3),
        "gpu": _nearest(found["gpu"], at, reach) or [],
        **{name: host.get(name) for name in HOST_FIELDS},
        "engine": dict(_nearest(found["engine"], at, reach) or {}),
        "client": {
            "tokens_per_s": round(records * tokens_per_record(measured.samples) / width, 1),
            "in_flight": in_flight[index],
        },
    }


def _readings(lines: Sequence[Line], name: str, step_s: float) -> Readings:
    pairs = sorted(((line["at"], line[name]) for line in lines if name in line), key=_time)
    own = [line.get("step_s", step_s) for line in lines if line.get("source") == name]
    reach = REACH * (own[-1] if own else step_s)  # nvidia-smi is read less often
    return [at for at, _value in pairs], [value for _at, value in pairs], reach


def _time(pair: tuple[float, Any]) -> float:
    return pair[0]


def _nearest(readings: Readings, at: float, least: float) -> Any:
    times, values, reach = readings
    index = bisect.bisect_left(times, at)
    near = [other for other in (index - 1, index) if 0 <= other < len(times)]
    best = min(near, key=lambda other: abs(times[other] - at), default=None)
    return values[best] if best is not None and abs(times[best] - at) <= max(reach, least) else None


def _engine_rates(
    rows: list[dict[str, Any]], readings: Readings, begun: float, step_s: float
) -> None:
    """Add tokens per second between a row's reading and the one before it."""
    times, values, _reach = readings
    for row in rows:
        total = row["engine"].get("generation_tokens_total")
        if total is None:
            continue
        at = begun + row["t"] + step_s
        index = min(range(len(times)), key=lambda other: abs(times[other] - at))
        if index and times[index] > times[index - 1]:
            more = total - values[index - 1].get("generation_tokens_total", total)
            if more >= 0:  # else it was restarted
                rate = more / (times[index] - times[index - 1])
                row["engine"]["generation_tokens_per_s"] = round(rate, 1)


def _described(
    name: str, state: str, lines: Sequence[Line], measured: Measurement, readings: Readings
) -> str:
    """Return where a source's readings come from, and what is missing of them."""
    if state.startswith("none"):
        return state
    begin, end = measured.begun, measured.begun + measured.wall_s
    missed = [line for line in lines if line.get("missed") == name and begin <= line["at"] <= end]
    if missed:
        return f"{state}; {len(missed)} readings failed, the last one: {missed[-1]['why']}"
    times, _values, reach = readings
    if not any(begin - 2 * reach <= at <= end + 2 * reach for at in times):
        return f"{state}; it gave no reading during this stage"
    return state
