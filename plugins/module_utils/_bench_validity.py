# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Whether a measurement may be relied on: what disturbed it, and what the client did to it.

What can't be seen (no GPU, no metrics of the engine, no calibration) raises no doubt by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import Measurement
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_metrics import good_samples
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import CLOSED
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_stats import median

VALID, UNRELIABLE, INVALID = "VALID", "UNRELIABLE", "INVALID"

# Names as NVML's clocks event reasons (nvml.h, nvmlClocksEventReason*), as `gpu_info` gives them.
# The power limit (sw_power_cap) is none of them: at it a card regulates itself whenever it works
# hard, and GeForce cards report it while idle too.
THROTTLES = (
    "hw_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
    "sw_thermal_slowdown",
)
LEAST_OVERHEAD_MS = 2.0
OVERHEAD_SHARE = 0.05

Row = Mapping[str, Any]


@dataclass(frozen=True)
class TrustLimits:
    """From where on a measurement is doubted; a limit of None is worked out or not applied.

    Attributes:
        min_samples: answered requests; None for 3, or one per place of a wider closed loop.
        error_percent: requests that failed or were not sent, of all that were due.
        cv_percent: coefficient of variation of tokens per second; 0 judges none.
        disturbed_percent: samples of the timeline that may show other load.
        cpu_percent: median of the host's processors in use while a GPU does the work.
        gpu_ratio: least part of the model in GPU memory, on a host that has a GPU.
        overhead_ms: what the client adds to TTFT; None for 2 ms or 5 % of the median TTFT,
            whichever is more.
        loop_lag_ms: p99 of the time that an arrival waited for the client.
        dispatch_lag_ms: p99 of the time by which a request of a schedule went out late.
        in_service: whether clients used the host meanwhile, with leave.
    """

    min_samples: int | None = None
    error_percent: float = 1.0
    cv_percent: float = 20.0
    disturbed_percent: float = 10.0
    cpu_percent: float = 90.0
    gpu_ratio: float = 1.0
    overhead_ms: float | None = None
    loop_lag_ms: float = 25.0
    dispatch_lag_ms: float = 10.0
    in_service: bool = False


def judge_validity(
    measured: Measurement,
    metrics: Mapping[str, Any],
    *,
    timeline: Mapping[str, Any] | None,
    client: Mapping[str, Any] | None,
    server_truth: Mapping[str, Any] | None,
    limits: TrustLimits,
) -> dict[str, Any]:
    """Return ``{"state": VALID|UNRELIABLE|INVALID, "reasons": [sentence, ...]}``.

    INVALID says that the figures are the client's rather than the server's, UNRELIABLE that they
    are the server's, but not of a quiet and healthy one, or too few.
    """
    rows: Sequence[Row] = (timeline or {}).get("rows") or []
    invalid = _client_limited(measured, metrics, client or {}, limits)
    doubts = [
        *_samples(measured, metrics, limits),
        *_capped(measured, client or {}, limits),
        *_throttled(rows),
        *_placement(measured, rows, limits),
        *_other_load(measured, rows, server_truth or {}, limits),
    ]
    state = INVALID if invalid else UNRELIABLE if doubts else VALID
    return {"state": state, "reasons": invalid + doubts}


def overhead_limit_ms(metrics: Mapping[str, Any], limits: TrustLimits) -> float:
    """Return how much the client may add to TTFT."""
    if limits.overhead_ms is not None:
        return limits.overhead_ms
    ttft = metrics["ttft_ms"]["median"] or 0.0
    return round(max(LEAST_OVERHEAD_MS, OVERHEAD_SHARE * ttft), 3)


def _client_limited(
    measured: Measurement,
    metrics: Mapping[str, Any],
    client: Mapping[str, Any],
    limits: TrustLimits,
) -> list[str]:
    reasons = []
    most, overhead = overhead_limit_ms(metrics, limits), client.get("overhead_ms")
    if overhead is not None and overhead > most:
        reasons.append(
            f"client-limited: the client adds {overhead:.2f} ms to TTFT, wanted at most"
            f" {most:.2f} ms"
        )
    lag = client.get("loop_lag_p99_ms")
    if lag is not None and lag > limits.loop_lag_ms:
        reasons.append(
            f"client-limited: arrivals waited {lag:.2f} ms for the client (p99), wanted at most"
            f" {limits.loop_lag_ms:g} ms"
        )
    late = client.get("dispatch_lag_p99_ms")
    if late is not None and late > limits.dispatch_lag_ms and not _cap_reached(measured):
        reasons.append(
            f"client-limited: requests went out {late:.2f} ms late (p99), wanted at most"
            f" {limits.dispatch_lag_ms:g} ms"
        )
    return reasons


def _cap_reached(measured: Measurement) -> bool:
    stage = measured.stage
    return stage.shape != CLOSED and measured.in_flight >= stage.concurrency


def _capped(measured: Measurement, client: Mapping[str, Any], limits: TrustLimits) -> list[str]:
    """Doubt a schedule that the server held up: the wait counts as latency, the rate is less."""
    late = client.get("dispatch_lag_p99_ms")
    if late is None or late <= limits.dispatch_lag_ms or not _cap_reached(measured):
        return []
    return [
        f"the server did not keep up with {measured.stage.rate:g} requests/s: with"
        f" {measured.stage.concurrency} in flight, the most allowed, requests waited"
        f" {late:.2f} ms to be sent (p99), wanted at most {limits.dispatch_lag_ms:g} ms"
    ]


def _samples(measured: Measurement, metrics: Mapping[str, Any], limits: TrustLimits) -> list[str]:
    reasons = []
    good = len(good_samples(measured))
    least = limits.min_samples
    if least is None:
        least = 3
        if measured.stage.shape == CLOSED:
            least = max(least, measured.stage.concurrency)
    if good < least:
        reasons.append(f"{good} requests were answered, wanted at least {least}")
    due = len(measured.samples) + measured.not_sent
    missed = 100.0 * (due - good) / due if due else 0.0
    if missed > limits.error_percent:
        reasons.append(
            f"{missed:.1f} % of {due} requests failed or were not sent, wanted at most"
            f" {limits.error_percent:g} %"
        )
    if measured.cut:
        reasons.append("the time of the run ended before the load did, wanted the whole load")
    spread = metrics["tokens_per_s"]["cv_percent"]
    if limits.cv_percent and spread is not None and spread > limits.cv_percent:
        reasons.append(
            f"tokens/s vary by {spread:.1f} % (coefficient of variation), wanted at most"
            f" {limits.cv_percent:g} %"
        )
    return reasons


def _throttled(rows: Sequence[Row]) -> list[str]:
    seen: dict[Any, int] = Counter()
    found: dict[Any, Counter[str]] = {}
    for row in rows:
        for gpu in row.get("gpu") or []:
            index = gpu.get("index")
            seen[index] += 1
            found.setdefault(index, Counter()).update(set(gpu.get("throttle") or []))
    reasons = []
    for index, counted in sorted(found.items(), key=lambda item: str(item[0])):
        active = [f"{name} in {counted[name]}" for name in THROTTLES if counted[name]]
        if active:
            reasons.append(
                f"GPU {index} was throttled: {', '.join(active)} of {seen[index]} samples,"
                " wanted none"
            )
    return reasons


def _placement(measured: Measurement, rows: Sequence[Row], limits: TrustLimits) -> list[str]:
    ratio = measured.gpu_ratio
    if ratio is None or ratio >= limits.gpu_ratio or (ratio == 0 and not _has_gpu(rows)):
        return []
    return [
        f"{ratio * 100:.0f} % of {measured.model} lie in GPU memory, wanted at least"
        f" {limits.gpu_ratio * 100:g} %"
    ]


def _has_gpu(rows: Sequence[Row]) -> bool:
    return any(row.get("gpu") for row in rows)


def _other_load(
    measured: Measurement,
    rows: Sequence[Row],
    server_truth: Mapping[str, Any],
    limits: TrustLimits,
) -> list[str]:
    reasons = []
    counted, sent = server_truth.get("requests"), len(measured.samples)
    if counted is not None and counted > sent:
        reasons.append(
            f"other load: the engine counted {counted:g} requests while {sent} were ours, wanted"
            " no other"
        )
    if limits.in_service and server_truth.get("engine") != "vllm":
        reasons.append(
            "other load: clients used the host meanwhile, and the engine doesn't say how much;"
            " wanted it drained"
        )
    reasons += _foreign_requests(measured, rows, limits)
    others = sorted(
        {str(name) for row in rows for gpu in row.get("gpu") or [] for name in _others(gpu)}
    )
    if others:
        reasons.append(f"other load: {', '.join(others)} used the GPU, wanted no other process")
    busy = median([row["cpu_percent"] for row in rows if row.get("cpu_percent") is not None])
    # An engine without a GPU works with the processors: that they are busy is its own doing.
    on_gpu = _has_gpu(rows) and (measured.gpu_ratio is None or measured.gpu_ratio >= 1)
    if busy is not None and on_gpu and busy > limits.cpu_percent:
        reasons.append(
            f"other load: the host's processors were {busy:.0f} % busy (median), wanted at most"
            f" {limits.cpu_percent:g} %"
        )
    return reasons


def _others(gpu: Mapping[str, Any]) -> Sequence[Any]:
    return gpu.get("other_processes") or []


def _foreign_requests(measured: Measurement, rows: Sequence[Row], limits: TrustLimits) -> list[str]:
    """Compare the requests that the engine has with the ones that are ours.

    Both are sampled, not at the same instant, so that a sample is held against the most that was
    in flight in it and its two neighbours.
    """
    ours = [(row.get("client") or {}).get("in_flight") for row in rows]
    looked, more, worst, beside = 0, 0, 0, 0
    for number, row in enumerate(rows):
        engine = row.get("engine") or {}
        if engine.get("running") is None:
            continue
        near = [count for count in ours[max(0, number - 1) : number + 2] if count is not None]
        mine = max(near) if near else measured.in_flight
        theirs = engine["running"] + (engine.get("waiting") or 0)
        looked += 1
        more += theirs > mine
        if theirs - mine > worst - beside:
            worst, beside = theirs, mine
    if not looked or 100.0 * more / looked <= limits.disturbed_percent:
        return []
    return [
        f"other load: the engine had more requests than ours in {more} of {looked} samples (up to"
        f" {worst:g} while {beside:g} were ours), wanted in at most"
        f" {limits.disturbed_percent:g} %"
    ]
