# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What a measurement means: its metrics, its verdicts, and whether it may become a baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_csv import Baseline
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_load import Measurement
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_ollama import (
    HTTP_5XX,
    OUT_OF_MEMORY,
    Sample,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_stats import (
    summarize,
    tokens_per_second,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    WARN,
    Verdict,
    at_least,
    at_most,
    judge,
)

NOT_SENT = "not_sent"
NOISE_FLOOR_MS = 20.0  # a first token that is this much later is nobody's regression


@dataclass(frozen=True)
class Limits:
    """What a measurement is held against.

    Attributes:
        slo: per model ``ttft_ms`` and ``tokens_per_s``; a missing one is not judged.
        cv_percent: largest coefficient of variation of tokens per second; 0 judges none.
        tolerance_percent: how much worse than its baseline a model may be.
    """

    slo: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    cv_percent: float = 20.0
    tolerance_percent: float = 20.0


def metrics_of(measured: Measurement) -> dict[str, Any]:
    """Return the figures of a model; requests that failed are counted, not averaged."""
    good = [sample for sample in measured.samples if not sample.error_kind]
    tokens = sum(sample.gen_tokens for sample in good)
    cold = next((sample for sample in measured.warmup if not sample.error_kind), None)
    return {
        "ttft_ms": summarize(_values(good, "ttft_ms")),
        "latency_ms": summarize(_values(good, "latency_ms")),
        "tokens_per_s": summarize(_values(good, "tokens_per_s")),
        "prompt_tokens_per_s": summarize(_prompt_rates(good)),
        "load_ms": _rounded(cold.load_ms if cold else None),
        "cold_ttft_ms": _rounded(cold.ttft_ms if cold else None),
        "total_tokens_per_s": _rounded(tokens_per_second(tokens, measured.wall_s)),
        "requests_per_s": _rounded(len(good) / measured.wall_s if measured.wall_s > 0 else None),
        "tokens_from": sorted({sample.tokens_from for sample in good}),
        "rate_from": sorted({sample.rate_from for sample in good}),
        "gpu_ratio": measured.gpu_ratio,
    }


def errors_of(measured: Measurement) -> dict[str, int]:
    """Count errors by their kind, those of the warm-up among them."""
    kinds = [sample.error_kind for sample in (*measured.warmup, *measured.samples)]
    counted = Counter(kind for kind in kinds if kind)
    if measured.not_sent:
        counted[NOT_SENT] = measured.not_sent
    return dict(sorted(counted.items()))


def judge_model(
    measured: Measurement, metrics: Mapping[str, Any], limits: Limits, baseline: Baseline | None
) -> list[Verdict]:
    """Return the verdicts about one model."""
    model = measured.model
    verdicts = _error_verdicts(measured)
    ttft, rate = metrics["ttft_ms"], metrics["tokens_per_s"]
    slo = limits.slo.get(model, {})
    over = f"median of {rate['count']} requests"
    if slo.get("ttft_ms"):
        verdicts.append(
            at_most(
                "ttft", ttft["median"], slo["ttft_ms"] or 0, subject=model, unit="ms", evidence=over
            )
        )
    if slo.get("tokens_per_s"):
        verdicts.append(
            at_least(
                "tokens_per_s",
                rate["median"],
                slo["tokens_per_s"] or 0,
                subject=model,
                unit="tokens/s",
                evidence=over,
            )
        )
    if limits.cv_percent:
        verdicts.append(
            at_most(
                "stability",
                rate["cv_percent"],
                limits.cv_percent,
                subject=model,
                unit="%",
                evidence=f"coefficient of variation of tokens/s over {rate['count']} requests",
                otherwise=WARN if rate["count"] < 2 else FAIL,
            )
        )
    if baseline is not None:
        verdicts += _against(baseline, metrics, limits.tolerance_percent)
    return verdicts


def fit_for_baseline(verdicts: Sequence[Verdict]) -> bool:
    """Tell whether a measurement is sound enough to be compared with later.

    Missing an objective does not matter here: the baseline states how the model is, not how it
    should be.
    """
    soundness = ("answered", "out_of_memory", "server_errors", "stability")
    return not any(v.check in soundness and v.status == FAIL for v in verdicts)


def measurement_from(entry: Mapping[str, Any]) -> Measurement:
    """Rebuild a measurement from a result, to judge what was measured elsewhere."""
    try:
        return Measurement(
            model=entry["model"],
            samples=[Sample(**sample) for sample in entry["samples"]],
            warmup=[Sample(**sample) for sample in entry["warmup"]],
            wall_s=float(entry["wall_s"]),
            not_sent=int(entry["not_sent"]),
            gpu_ratio=entry["metrics"]["gpu_ratio"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise HostError(
            f"measurements holds an entry that is no measurement: {error!r}.",
            "Give the list that an earlier run returned as benchmark.",
        ) from error


def _error_verdicts(measured: Measurement) -> list[Verdict]:
    model, errors = measured.model, errors_of(measured)
    wanted = len(measured.samples) + measured.not_sent
    answered = sum(1 for sample in measured.samples if not sample.error_kind)
    first = next((s.error for s in (*measured.warmup, *measured.samples) if s.error_kind), "")
    counted = ", ".join(f"{count} {kind}" for kind, count in errors.items())
    evidence = f"{counted}; first error: {first}" if first else counted
    return [
        judge(
            "answered",
            answered == wanted and not errors and wanted > 0,
            subject=model,
            value=answered,
            limit=wanted,
            unit="requests",
            evidence=evidence or "every request was answered completely",
        ),
        at_most("out_of_memory", errors.get(OUT_OF_MEMORY, 0), 0, subject=model, unit="errors"),
        at_most("server_errors", errors.get(HTTP_5XX, 0), 0, subject=model, unit="errors"),
    ]


def _against(
    baseline: Baseline, metrics: Mapping[str, Any], tolerance_percent: float
) -> list[Verdict]:
    share = tolerance_percent / 100
    latest = baseline.first_token_ms + max(NOISE_FLOOR_MS, baseline.first_token_ms * share)
    slowest = baseline.tokens_per_s * (1 - share)
    since = f"of {baseline.timestamp}"
    return [
        at_most(
            "ttft_vs_baseline",
            metrics["ttft_ms"]["median"],
            round(latest, 2),
            subject=baseline.model,
            unit="ms",
            evidence=f"the baseline {since} is {baseline.first_token_ms:.2f} ms",
            otherwise=WARN,
        ),
        at_least(
            "tokens_per_s_vs_baseline",
            metrics["tokens_per_s"]["median"],
            round(slowest, 2),
            subject=baseline.model,
            unit="tokens/s",
            evidence=f"the baseline {since} is {baseline.tokens_per_s:.2f} tokens/s",
            otherwise=WARN,
        ),
    ]


def _values(samples: Sequence[Sample], name: str) -> list[float]:
    values = [getattr(sample, name) for sample in samples]
    return [value for value in values if value is not None]


def _prompt_rates(samples: Sequence[Sample]) -> list[float]:
    rates = [tokens_per_second(s.prompt_tokens, (s.prompt_eval_ms or 0) / 1000) for s in samples]
    return [rate for rate in rates if rate is not None]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
