# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_judge as bench
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_csv import Baseline
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_load import Measurement
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_ollama import Sample
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError


def sample(number=1, ttft=100.0, rate=50.0, error="", **more):
    return Sample(
        "m",
        number,
        ttft_ms=None if error else ttft,
        latency_ms=1000.0,
        load_ms=2.0,
        prompt_tokens=20,
        prompt_eval_ms=40.0,
        gen_tokens=0 if error else 50,
        tokens_per_s=None if error else rate,
        error_kind=error,
        error=f"it was {error}" if error else "",
        **more,
    )


def measured(*samples, **more):
    return Measurement("m", list(samples), wall_s=2.0, **more)


def judged(measurement, limits=None, baseline=None):
    metrics = bench.metrics_of(measurement)
    verdicts = bench.judge_model(measurement, metrics, limits or bench.Limits(), baseline)
    return {verdict.check: verdict for verdict in verdicts}


def statuses(*args, **more):
    return {check: verdict.status for check, verdict in judged(*args, **more).items()}


GOOD = measured(
    sample(1, rate=50), sample(2, rate=52), sample(3, rate=51), warmup=[sample(ttft=900)]
)


def test_metrics():
    metrics = bench.metrics_of(GOOD)
    assert metrics["tokens_per_s"]["median"] == 51
    assert metrics["ttft_ms"]["median"] == 100
    assert metrics["prompt_tokens_per_s"]["median"] == 500
    assert (metrics["load_ms"], metrics["cold_ttft_ms"]) == (2.0, 900.0)
    assert (metrics["total_tokens_per_s"], metrics["requests_per_s"]) == (75.0, 1.5)
    assert (metrics["tokens_from"], metrics["rate_from"]) == (["server"], ["server"])


def test_failed_requests_are_counted_not_averaged():
    metrics = bench.metrics_of(measured(sample(1), sample(2, error="timeout")))
    assert metrics["ttft_ms"]["count"] == 1


def test_nothing_measured_gives_no_figures_and_no_pass():
    empty = measured(not_sent=3, warmup=[sample(error="connection")])
    assert bench.metrics_of(empty)["ttft_ms"]["median"] is None
    assert bench.errors_of(empty) == {"connection": 1, "not_sent": 3}
    assert statuses(empty) == {
        "answered": "FAIL",
        "out_of_memory": "PASS",
        "server_errors": "PASS",
        "stability": "WARN",
    }


def test_a_sound_measurement_passes():
    assert set(statuses(GOOD).values()) == {"PASS"}


@pytest.mark.parametrize(
    ("kind", "failed"),
    [
        ("out_of_memory", {"answered", "out_of_memory"}),
        ("http_5xx", {"answered", "server_errors"}),
        ("truncated", {"answered"}),
    ],
)
def test_errors_fail_by_kind(kind, failed):
    found = judged(measured(sample(1), sample(2), sample(3, error=kind)))
    assert {check for check, verdict in found.items() if verdict.status == "FAIL"} == failed
    assert f"1 {kind}; first error: it was {kind}" in found["answered"].evidence


@pytest.mark.parametrize(
    ("slo", "wanted"),
    [
        ({"ttft_ms": 100.0, "tokens_per_s": 51.0}, ("PASS", "PASS")),
        ({"ttft_ms": 99.0, "tokens_per_s": 51.1}, ("FAIL", "FAIL")),
        ({"ttft_ms": None, "tokens_per_s": None}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_objectives(slo, wanted):
    found = statuses(GOOD, bench.Limits(slo={"m": slo}))
    assert (found.get("ttft"), found.get("tokens_per_s")) == wanted


@pytest.mark.parametrize(
    ("rates", "limit", "status"),
    [
        ((50, 51, 52), 20.0, "PASS"),
        ((20, 50, 90), 20.0, "FAIL"),
        ((20, 50, 90), 0.0, None),
        ((50,), 20.0, "WARN"),
    ],
)
def test_stability(rates, limit, status):
    run = measured(*[sample(number, rate=rate) for number, rate in enumerate(rates)])
    assert statuses(run, bench.Limits(cv_percent=limit)).get("stability") == status


@pytest.mark.parametrize(
    ("ttft", "rate", "wanted"),
    [
        (100.0, 51.0, ("PASS", "PASS")),
        (85.0, 63.0, ("PASS", "PASS")),  # 20 ms and 20 % are noise
        (79.0, 65.0, ("WARN", "WARN")),
    ],
)
def test_comparison_with_the_baseline(ttft, rate, wanted):
    found = statuses(GOOD, baseline=Baseline("t", "m", ttft, rate))
    assert (found["ttft_vs_baseline"], found["tokens_per_s_vs_baseline"]) == wanted


@pytest.mark.parametrize(
    ("run", "fit"),
    [
        (GOOD, True),
        (measured(sample(1)), True),
        (measured(sample(1, rate=20), sample(2, rate=90)), False),
        (measured(sample(1), sample(2, error="truncated")), False),
        (measured(not_sent=3), False),
    ],
)
def test_only_a_sound_measurement_becomes_a_baseline(run, fit):
    assert bench.fit_for_baseline(list(judged(run).values())) is fit


def test_a_missed_objective_does_not_keep_a_baseline_from_being_recorded():
    found = judged(GOOD, bench.Limits(slo={"m": {"ttft_ms": 1.0}}))
    assert bench.fit_for_baseline(list(found.values()))


def test_a_measurement_survives_its_way_through_a_result():
    entry = {
        "model": "m",
        "samples": [s.as_dict() for s in GOOD.samples],
        "warmup": [s.as_dict() for s in GOOD.warmup],
        "wall_s": 2.0,
        "not_sent": 0,
        "metrics": {"gpu_ratio": 0.5},
    }
    again = bench.measurement_from(entry)
    assert bench.metrics_of(again) == {**bench.metrics_of(GOOD), "gpu_ratio": 0.5}


@pytest.mark.parametrize("entry", [{}, {"model": "m", "samples": [{"odd": 1}]}])
def test_what_is_no_measurement_is_refused(entry):
    with pytest.raises(HostError, match="no measurement"):
        bench.measurement_from(entry)
