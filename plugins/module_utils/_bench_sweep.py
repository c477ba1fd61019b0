# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A sweep: which load comes next, when to stop, and where the knee is.

A *point* is what one step told (``point_of``): ``value`` (requests at once, or requests per
second), the latencies and rates, and ``broken``, the objectives that it missed, as sentences.
An objective holds at a percentile of the requests, 95 unless declared otherwise: at a median,
half of the users may wait as long as they like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_options import stage_of
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import Stage
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_stats import percentile

CONCURRENCY, RATE = "concurrency", "rate"
PERCENTILE = 95  # of the requests of a step, for which an objective has to hold
ERROR_PERCENT = 1.0  # requests of a step that may fail
GAIN_SHARE = 0.1  # throughput that grows by less than this part of the load's growth stands still
FLAT_STEPS = 2  # steps without gain after which a sweep without objectives ends
PROMINENCE = 0.05  # least distance of a knee from the straight line, of the whole range
STEPS = 32  # most steps of a sweep

# objective -> (metric, unit, whether the value may be at most the limit)
OBJECTIVES = {
    "ttft_ms": ("ttft_ms", "ms", True),
    "tpot_ms": ("tpot_ms", "ms", True),
    "latency_ms": ("latency_ms", "ms", True),
    "gap_ms": ("gap_ms", "ms", True),
    "itl_p99_ms": ("gap_ms", "ms", True),
    "tokens_per_s": ("tokens_per_s", "tokens/s", False),
}
_NAMES = {
    "ttft_ms": "TTFT",
    "tpot_ms": "TPOT",
    "latency_ms": "end-to-end latency",
    "gap_ms": "gap between tokens",
    "itl_p99_ms": "gap between tokens",
    "tokens_per_s": "tokens per second of a request",
}
_FIXED = {"itl_p99_ms": 99}  # objectives whose percentile is in their name
Point = Mapping[str, Any]


def point_of(
    value: float,
    metrics: Mapping[str, Any],
    *,
    requests: int,
    failed: int,
    slo: Mapping[str, Any] | None = None,
    rates: Sequence[float] = (),
) -> dict[str, Any]:
    """Return what a step of a sweep told.

    Args:
        value: the load, requests at once or requests per second.
        metrics: of the step, summaries by name.
        requests: that were due, those not sent among them.
        failed: of them, without a whole answer.
        slo: objectives: ``ttft_ms``, ``tpot_ms``, ``latency_ms``, ``gap_ms`` (at most),
            ``itl_p99_ms`` (the p99 of ``gap_ms``), ``tokens_per_s`` (at least), ``percentile``.
        rates: tokens per second of each answered request.
    """
    point: dict[str, Any] = {"value": value, "requests": requests, "failed": failed}
    for name in ("ttft_ms", "latency_ms", "tpot_ms", "gap_ms"):
        summary = metrics.get(name) or {}
        for at in ("p50", "p95", "p99"):
            point[f"{name[:-3]}_{at}_ms"] = summary.get("median" if at == "p50" else at)
    for name in ("total_tokens_per_s", "requests_per_s", "goodput_per_s", "slo_attainment"):
        point[name] = metrics.get(name)
    point["objectives"] = _declared(slo)
    point["broken"] = broken(metrics, slo or {}, requests=requests, failed=failed, rates=rates)
    return point


def broken(
    metrics: Mapping[str, Any],
    slo: Mapping[str, Any],
    *,
    requests: int,
    failed: int,
    rates: Sequence[float] = (),
) -> list[str]:
    """Return the objectives that a step missed, one sentence each.

    Requests that fail break every step, with or without objectives, when they are more than
    ``ERROR_PERCENT``: the latencies of the others say nothing about those.
    """
    told = []
    if requests and 100.0 * failed / requests > ERROR_PERCENT:
        told.append(f"{failed} of {requests} requests failed, wanted at most {ERROR_PERCENT:g} %")
    percent = int(slo.get("percentile") or PERCENTILE)
    for name, (metric, unit, at_most) in OBJECTIVES.items():
        limit = slo.get(name)
        if not limit:
            continue
        if at_most:
            at, value = _value_at(metrics.get(metric) or {}, _FIXED.get(name, percent))
        else:  # the same share of the requests has to be above it
            at, value = _named(100 - percent), percentile(rates, 100 - percent)
        if value is None:
            told.append(f"{_NAMES[name]} was not measured, wanted {limit:g} {unit}")
        elif (value > limit) if at_most else (value < limit):
            bound = "at most" if at_most else "at least"
            told.append(
                f"{_NAMES[name]} ({at}) is {value:.4g} {unit}, wanted {bound} {limit:g} {unit}"
            )
    return told


def _value_at(summary: Mapping[str, Any], percent: int) -> tuple[str, float | None]:
    name = _named(percent)
    return name, summary.get(name)


def _named(percent: int) -> str:
    return "median" if percent == 50 else f"p{percent}"


def values_of(spec: Mapping[str, Any]) -> list[float]:
    """Return the loads of a sweep in rising order, before any of them was tried.

    ``values`` gives them; otherwise they go from ``start`` (1) to ``limit`` (64), each ``factor``
    (2) times the last one.
    """
    given = spec.get("values")
    if given:
        return sorted({_round(spec, float(value)) for value in given})[:STEPS]
    value, limit = float(spec.get("start") or 1), float(spec.get("limit") or 64)
    factor = max(1.01, float(spec.get("factor") or 2))
    found: list[float] = []
    while value < limit and len(found) < STEPS - 1:
        step = _round(spec, value)
        if not found or step > found[-1]:
            found.append(step)
        value *= factor
    return [*found, _round(spec, limit)] if not found or found[-1] < limit else found


def stages_of(params: Mapping[str, Any]) -> list[Stage]:
    """Return the loads of a run: the declared one, or those of its sweep before any was tried."""
    spec = params["sweep"]
    if not spec:
        return [stage_of(params)]
    return [stage_of(params, spec["over"], value) for value in values_of(spec)]


def next_value(points: Sequence[Point], spec: Mapping[str, Any]) -> float | None:
    """Return the next load to try; None when the sweep is over.

    Loads rise until one breaks. Then the range between the last one that kept the objectives and
    the first that broke them is halved ``refine`` times (0 unless declared). Without objectives
    the sweep ends after ``FLAT_STEPS`` steps in a row in which throughput grew by less than
    ``GAIN_SHARE`` of what the load grew by, both in percent.

    Args:
        points: the steps so far, in the order in which they ran.
        spec: ``over`` (``concurrency`` or ``rate``), ``values`` or ``start``, ``limit`` and
            ``factor``, ``refine``, ``stop`` (false: try every value).
    """
    tried = {float(point["value"]) for point in points}
    planned = [value for value in values_of(spec) if value not in tried]
    if len(points) >= STEPS:
        return None
    if spec.get("stop") is False:
        return planned[0] if planned else None
    first = _first_broken(points)
    if first is None:
        return None if _flat(points) or not planned else planned[0]
    kept = [value for value in tried if value < first]
    if not kept or _refined(points) >= int(spec.get("refine") or 0):
        return None
    middle = _round(spec, (max(kept) + first) / 2)
    return middle if max(kept) < middle < first else None


def find_knee(
    points: Sequence[Point], slo: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Return the load up to which more load is worth it; None when the points show none.

    With objectives: the last step before the first that breaks one. Without: the step at which
    throughput over load, both scaled to 0..1, lies highest above the straight line from the first
    to the last step (V. Satopaa et al., "Finding a Kneedle in a Haystack", ICDCSW 2011, offline
    form); it takes three steps and a distance of ``PROMINENCE``.

    Returns:
        ``value`` and ``index`` (of the points in rising order), ``rule`` (``slo`` or
        ``kneedle``), ``at_least`` (nothing broke: the knee lies there or above), ``text``.
    """
    ordered = sorted(points, key=lambda point: float(point["value"]))
    if _declared(slo) and ordered:
        return _knee_by_objectives(ordered)
    curve = [
        (index, float(point["value"]), _throughput(point))
        for index, point in enumerate(ordered)
        if _throughput(point) is not None and not point.get("broken")
    ]
    if len(curve) < 3:
        return None
    loads = [load for _index, load, _rate in curve]
    rates = [rate or 0.0 for _index, _load, rate in curve]
    wide, high = loads[-1] - loads[0], max(rates) - min(rates)
    if not wide or not high:
        return None
    above = [
        (rate - min(rates)) / high - (load - loads[0]) / wide for load, rate in zip(loads, rates)
    ]
    best = max(range(len(above)), key=lambda number: above[number])
    if above[best] < PROMINENCE:
        return None
    return {
        "value": loads[best],
        "index": curve[best][0],
        "rule": "kneedle",
        "at_least": False,
        "text": f"Beyond {loads[best]:g} more load brings little more throughput.",
    }


def summarise(
    points: Sequence[Point],
    slo: Mapping[str, Any] | None = None,
    spec: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what a result says about a sweep.

    Returns:
        ``over``, ``slo``, ``points`` in rising order, ``knee`` as ``find_knee`` gives it, and
        ``stopped_because``, a sentence.
    """
    spec = spec or {}
    ordered = [dict(point) for point in sorted(points, key=lambda point: float(point["value"]))]
    return {
        "over": spec.get("over") or CONCURRENCY,
        "slo": dict(slo or {}),
        "points": ordered,
        "knee": find_knee(ordered, slo),
        "stopped_because": _why(points, spec),
    }


def _why(points: Sequence[Point], spec: Mapping[str, Any]) -> str:
    if not points:
        ended = f"The time of the run ended before {values_of(spec)[0]:g} was measured."
        return ended if spec.get("over") else "No step was run."
    first = _first_broken(points)
    if first is not None and spec.get("stop") is not False:
        point = next(point for point in points if float(point["value"]) == first)
        return f"At {first:g} {'; '.join(point['broken'])}."
    if spec.get("stop") is not False and _flat(points):
        return (
            f"In the last {FLAT_STEPS} steps throughput grew by less than a tenth of what the load"
            " grew by."
        )
    left = [
        value
        for value in values_of(spec)
        if value not in {float(point["value"]) for point in points}
    ]
    if len(points) >= STEPS:
        return f"{STEPS} steps were run, the most that a sweep takes."
    if left and spec:
        return f"The time of the run ended before {left[0]:g} was measured."
    last = max(float(point["value"]) for point in points)
    return f"Every declared load was tried, up to {last:g}."


def _knee_by_objectives(ordered: Sequence[Point]) -> dict[str, Any] | None:
    index = next(
        (number for number, point in enumerate(ordered) if point.get("broken")), len(ordered)
    )
    if index == 0:
        return None
    value = float(ordered[index - 1]["value"])
    at_least = index == len(ordered)
    return {
        "value": value,
        "index": index - 1,
        "rule": "slo",
        "at_least": at_least,
        "text": (
            f"Every step kept the objectives, the highest at {value:g}."
            if at_least
            else f"{value:g} is the last step that kept the objectives."
        ),
    }


def _declared(slo: Mapping[str, Any] | None) -> bool:
    return any((slo or {}).get(name) for name in OBJECTIVES)


def _throughput(point: Point) -> float | None:
    value = point.get("total_tokens_per_s")
    return point.get("requests_per_s") if value is None else value


def _first_broken(points: Sequence[Point]) -> float | None:
    return min((float(point["value"]) for point in points if point.get("broken")), default=None)


def _refined(points: Sequence[Point]) -> int:
    """Count the steps that ran after the first broken one: those that halved the range."""
    number = next(index for index, point in enumerate(points) if point.get("broken"))
    return len(points) - number - 1


def _flat(points: Sequence[Point]) -> bool:
    """Tell whether throughput stopped growing; objectives, where declared, decide alone."""
    if any(point.get("objectives") for point in points):
        return False
    steps = [(float(point["value"]), _throughput(point) or 0.0) for point in points]
    if len(steps) <= FLAT_STEPS:
        return False
    recent = steps[-FLAT_STEPS - 1 :]
    return all(
        low and later < rate * (1 + GAIN_SHARE * (high / low - 1))
        for (low, rate), (high, later) in zip(recent, recent[1:])
    )


def _round(spec: Mapping[str, Any], value: float) -> float:
    return value if spec.get("over") == RATE else float(max(1, round(value)))
