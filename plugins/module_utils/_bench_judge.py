# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What a measurement means: its verdicts, and whether it may become a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_csv import Baseline
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_job import (
    HTTP_5XX,
    OUT_OF_MEMORY,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import Measurement
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_metrics import (
    errors_of,
    good_samples,
    values_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_stats import percentile
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    PASS,
    WARN,
    Verdict,
    at_least,
    at_most,
    judge,
)

NOISE_FLOOR_MS = 20.0  # a first token that is this much later is nobody's regression

PERCENTILES = {"p50": 50, "p90": 90, "p95": 95, "p99": 99}
VALID, INVALID = "VALID", "INVALID"
TRUST = {VALID: PASS, "UNRELIABLE": WARN}
# Check, key of the objective and of the figure, unit, whether it is a largest value.
PER_REQUEST = (
    ("ttft", "ttft_ms", "ms", True),
    ("tokens_per_s", "tokens_per_s", "tokens/s", False),
    ("tpot", "tpot_ms", "ms", True),
    ("latency", "latency_ms", "ms", True),
)


@dataclass(frozen=True)
class Limits:
    """What a measurement is held against.

    Attributes:
        slo: objectives per model; a missing or empty one is not judged. ``ttft_ms``, ``tpot_ms``,
            ``latency_ms`` (largest) and ``tokens_per_s`` (smallest) hold for the percentile that
            ``slo_percentile`` names (p50); ``itl_p99_ms`` (largest), ``target_throughput_rps``
            and ``goodput_rps`` (smallest) for the stage.
        cv_percent: largest coefficient of variation of tokens per second; 0 judges none.
        tolerance_percent: how much worse than its baseline in the CSV file a model may be.
        invalid: status of a measurement that its client has limited.
    """

    slo: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cv_percent: float = 20.0
    tolerance_percent: float = 20.0
    invalid: str = FAIL


def judge_model(
    measured: Measurement,
    metrics: Mapping[str, Any],
    limits: Limits,
    baseline: Baseline | None,
    validity: Mapping[str, Any] | None = None,
) -> list[Verdict]:
    """Return the verdicts about one model under one stage.

    Those of a comparison with a named baseline are ``_bench_compare.comparison_verdicts``.
    """
    rate = metrics["tokens_per_s"]
    verdicts = _error_verdicts(measured)
    verdicts += _objectives(measured, metrics, limits.slo.get(measured.model) or {})
    if limits.cv_percent:
        verdicts.append(
            at_most(
                "stability",
                rate["cv_percent"],
                limits.cv_percent,
                subject=measured.model,
                unit="%",
                evidence=f"coefficient of variation of tokens/s over {rate['count']} requests",
                otherwise=WARN if rate["count"] < 2 else FAIL,
            )
        )
    if baseline is not None:
        verdicts += _against(baseline, metrics, limits.tolerance_percent)
    if validity is not None:
        verdicts.append(trust_verdict(measured.model, validity, limits.invalid))
    return verdicts


def trust_verdict(model: str, validity: Mapping[str, Any], invalid: str = FAIL) -> Verdict:
    """Return whether the figures may be relied on, as ``_bench_validity`` found."""
    return Verdict(
        "trust",
        invalid if validity["state"] == INVALID else TRUST[validity["state"]],
        subject=model,
        value=validity["state"],
        limit=VALID,
        evidence="; ".join(validity["reasons"]) or "no reason for doubt was found",
    )


def fit_for_baseline(verdicts: Sequence[Verdict]) -> bool:
    """Tell whether a measurement is sound enough to be compared with later.

    Nothing that can't be trusted is: a first baseline stays, and later figures are held against it.
    Missing an objective does not matter here: the baseline states how the model is, not how it
    should be.
    """
    soundness = ("answered", "out_of_memory", "server_errors", "stability")
    return not any(
        (v.check in soundness and v.status == FAIL) or (v.check == "trust" and v.value != VALID)
        for v in verdicts
    )


def _objectives(
    measured: Measurement, metrics: Mapping[str, Any], slo: Mapping[str, Any]
) -> list[Verdict]:
    model, good = measured.model, good_samples(measured)
    rank = slo.get("slo_percentile") or "p50"
    if rank not in PERCENTILES:
        raise HostError(
            f"slo_percentile of {model} is {rank!r}, wanted one of {', '.join(PERCENTILES)}."
        )
    verdicts = []
    for check, name, unit, largest in PER_REQUEST:
        limit = slo.get(name)
        if not limit:
            continue
        # Of a smallest value, the same share of the requests has to be above it.
        percent = PERCENTILES[rank] if largest else 100 - PERCENTILES[rank]
        values = values_of(good, name)
        value = percentile(values, percent)
        over = "median" if percent == 50 else f"p{percent}"
        verdicts.append(
            (at_most if largest else at_least)(
                check,
                None if value is None else round(value, 3),
                limit,
                subject=model,
                unit=unit,
                evidence=f"{over} of {len(values)} requests",
            )
        )
    return verdicts + _stage_objectives(measured, metrics, slo)


def _stage_objectives(
    measured: Measurement, metrics: Mapping[str, Any], slo: Mapping[str, Any]
) -> list[Verdict]:
    model, gaps = measured.model, metrics["gap_ms"]
    answered = f"{len(good_samples(measured))} answered requests in {measured.wall_s:.1f} s"
    verdicts = []
    if slo.get("itl_p99_ms"):
        verdicts.append(
            at_most(
                "itl_p99",
                gaps["p99"],
                slo["itl_p99_ms"],
                subject=model,
                unit="ms",
                evidence=f"p99 of {gaps['count']} gaps",
            )
        )
    if slo.get("target_throughput_rps"):
        verdicts.append(
            at_least(
                "throughput",
                metrics["requests_per_s"],
                slo["target_throughput_rps"],
                subject=model,
                unit="requests/s",
                evidence=answered,
            )
        )
    if slo.get("goodput_rps"):
        share = metrics["slo_attainment"]
        met = "no objective for requests is declared"
        if share is not None:
            met = f"{share * 100:.1f} % of the requests met every objective"
        verdicts.append(
            at_least(
                "goodput",
                metrics["goodput_per_s"],
                slo["goodput_rps"],
                subject=model,
                unit="requests/s",
                evidence=f"{answered}; {met}",
            )
        )
    return verdicts


def _error_verdicts(measured: Measurement) -> list[Verdict]:
    model, errors = measured.model, errors_of(measured)
    wanted = len(measured.samples) + measured.not_sent
    answered = len(good_samples(measured))
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
