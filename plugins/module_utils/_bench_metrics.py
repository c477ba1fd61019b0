# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""From the samples of a measurement to its figures; docs/benchmark.md defines each of them."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_job import Sample
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import Measurement
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import CLOSED, Stage
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_stats import (
    histogram,
    summarize,
    tokens_per_second,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

NOT_SENT = "not_sent"
STALL_MS = 500.0

AT_MOST = ("ttft_ms", "tpot_ms", "latency_ms")  # objectives that each request meets or misses
AT_LEAST = ("tokens_per_s",)
BETWEEN_TOKENS = ("tpot_ms", "tokens_per_s")

Slo = Mapping[str, Any]


def metrics_of(
    measured: Measurement, slo: Slo | None = None, stall_ms: float = STALL_MS
) -> dict[str, Any]:
    """Return the figures of a stage; requests that failed are counted, not averaged.

    Args:
        measured: the stage.
        slo: the model's objectives, for the goodput; the ones that are empty don't count.
        stall_ms: a gap over it is a stall.
    """
    good = good_samples(measured)
    tokens = sum(sample.gen_tokens for sample in good)
    cold = next((sample for sample in measured.warmup if not sample.error_kind), None)
    return {
        "ttft_ms": summarize(values_of(good, "ttft_ms")),
        "latency_ms": summarize(values_of(good, "latency_ms")),
        "tpot_ms": summarize(values_of(good, "tpot_ms"), digits=3),
        "gap_ms": _gaps(measured.gaps_ms, stall_ms),
        "tokens_per_s": summarize(values_of(good, "tokens_per_s")),
        "prompt_tokens_per_s": summarize(_prompt_rates(good)),
        "dispatch_lag_ms": summarize(values_of(measured.samples, "dispatch_lag_ms"), digits=3),
        "load_ms": _rounded(cold.load_ms if cold else None),
        "cold_ttft_ms": _rounded(cold.ttft_ms if cold else None),
        "total_tokens_per_s": _rounded(tokens_per_second(tokens, measured.wall_s)),
        "requests_per_s": _per_second(len(good), measured.wall_s),
        **_goodput(measured, good, slo or {}),
        "tokens_from": sorted({sample.tokens_from for sample in good}),
        "rate_from": sorted({sample.rate_from for sample in good}),
        "gpu_ratio": measured.gpu_ratio,
    }


def metrics_from(entry: Mapping[str, Any], slo: Slo | None = None) -> dict[str, Any]:
    """Return the figures of a result entry that was measured elsewhere.

    A result holds no single gaps, so that their figures are taken over.
    """
    metrics = metrics_of(measurement_from(entry), slo)
    metrics["gap_ms"] = entry["metrics"].get("gap_ms") or metrics["gap_ms"]
    return metrics


def errors_of(measured: Measurement) -> dict[str, int]:
    """Count errors by their kind, those of the warm-up among them."""
    kinds = [sample.error_kind for sample in (*measured.warmup, *measured.samples)]
    counted = Counter(kind for kind in kinds if kind)
    if measured.not_sent:
        counted[NOT_SENT] = measured.not_sent
    return dict(sorted(counted.items()))


def good_samples(measured: Measurement) -> list[Sample]:
    """Return the measured requests that were answered completely."""
    return [sample for sample in measured.samples if not sample.error_kind]


def values_of(samples: Sequence[Sample], name: str) -> list[float]:
    """Return a figure of each request that has it."""
    values = [getattr(sample, name) for sample in samples]
    return [value for value in values if value is not None]


def meets(sample: Sample, slo: Slo) -> bool:
    """Tell whether a request met the objectives that a single request can meet.

    A request that failed met none. A figure that is not known met nothing, except that an
    answer which came as one piece had no time between tokens to keep.
    """
    if sample.error_kind:
        return False
    one_piece = sample.ttft_ms is not None and sample.chunks <= 1
    for name in (*AT_MOST, *AT_LEAST):
        limit, value = slo.get(name), getattr(sample, name)
        if not limit or (value is None and one_piece and name in BETWEEN_TOKENS):
            continue
        if value is None or (value > limit if name in AT_MOST else value < limit):
            return False
    return True


def measurement_from(entry: Mapping[str, Any]) -> Measurement:
    """Rebuild a measurement from a result, to judge what was measured elsewhere."""
    known = {item.name for item in fields(Stage)}
    try:
        stage = {name: value for name, value in entry.get("stage", {}).items() if name in known}
        return Measurement(
            model=str(entry["model"]),
            stage=Stage(**stage),
            samples=[Sample.from_dict(sample) for sample in entry["samples"]],
            warmup=[Sample.from_dict(sample) for sample in entry["warmup"]],
            wall_s=float(entry["wall_s"]),
            not_sent=int(entry["not_sent"]),
            begun_at=str(entry.get("begun_at", "")),
            in_flight=int(entry.get("in_flight", 0)),
            gpu_ratio=entry["metrics"]["gpu_ratio"],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise HostError(
            f"measurements holds an entry that is no measurement: {error!r}.",
            "Give the list that an earlier run returned as benchmark.",
        ) from error


def _gaps(gaps: array, stall_ms: float) -> dict[str, Any]:
    return {
        **summarize(gaps, digits=3),
        "stalls": sum(gap > stall_ms for gap in gaps),
        "stall_limit_ms": stall_ms,
        "histogram": histogram(gaps),
    }


def _goodput(measured: Measurement, good: Sequence[Sample], slo: Slo) -> dict[str, Any]:
    if not any(slo.get(name) for name in (*AT_MOST, *AT_LEAST)):
        return {"goodput_per_s": None, "slo_attainment": None}
    met = sum(meets(sample, slo) for sample in good)
    wanted = len(measured.samples)
    if measured.stage.shape != CLOSED:
        wanted += measured.not_sent  # they were due on the schedule, whatever held them up
    return {
        "goodput_per_s": _per_second(met, measured.wall_s),
        "slo_attainment": round(met / wanted, 4) if wanted else None,
    }


def _prompt_rates(samples: Sequence[Sample]) -> list[float]:
    rates = [tokens_per_second(s.prompt_tokens, (s.prompt_eval_ms or 0) / 1000) for s in samples]
    return [rate for rate in rates if rate is not None]


def _per_second(count: int, seconds: float) -> float | None:
    return round(count / seconds, 3) if seconds > 0 else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
