# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from bench_samples import good, measured, sample

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_judge as bench
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_csv import Baseline
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_metrics import metrics_of
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

GOOD = good()


def judged(measurement, limits=None, baseline=None, validity=None):
    limits = limits or bench.Limits()
    metrics = metrics_of(measurement, limits.slo.get("m"))
    verdicts = bench.judge_model(measurement, metrics, limits, baseline, validity)
    assert {verdict.subject for verdict in verdicts} == {"m"}
    return {verdict.check: verdict for verdict in verdicts}


def statuses(*args, **more):
    return {check: verdict.status for check, verdict in judged(*args, **more).items()}


def test_nothing_measured_is_no_pass():
    empty = measured(not_sent=3, warmup=[sample(error="connection")])
    assert statuses(empty) == {
        "answered": "FAIL",
        "out_of_memory": "PASS",
        "server_errors": "PASS",
        "stability": "WARN",
    }


def test_a_sound_measurement_passes():
    assert statuses(GOOD) == dict.fromkeys(
        ("answered", "out_of_memory", "server_errors", "stability"), "PASS"
    )


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
    ("slo", "check", "status", "value"),
    [
        ({"tpot_ms": 19.7}, "tpot", "PASS", 19.608),
        ({"tpot_ms": 19.5}, "tpot", "FAIL", 19.608),
        ({"latency_ms": 1000.0}, "latency", "PASS", 1000.0),
        ({"latency_ms": 999.0}, "latency", "FAIL", 1000.0),
        ({"itl_p99_ms": 590.0}, "itl_p99", "PASS", 582.6),
        ({"itl_p99_ms": 580.0}, "itl_p99", "FAIL", 582.6),
        ({"target_throughput_rps": 1.5}, "throughput", "PASS", 1.5),
        ({"target_throughput_rps": 1.6}, "throughput", "FAIL", 1.5),
        ({"goodput_rps": 1.0, "tokens_per_s": 51.0}, "goodput", "PASS", 1.0),
        ({"goodput_rps": 1.1, "tokens_per_s": 51.0}, "goodput", "FAIL", 1.0),
        ({"goodput_rps": 1.1}, "goodput", "FAIL", None),  # nothing says what is good
    ],
)
def test_further_objectives(slo, check, status, value):
    found = judged(GOOD, bench.Limits(slo={"m": slo}))[check]
    assert (found.status, found.value) == (status, value)


def test_an_objective_may_hold_for_a_percentile():
    run = measured(*[sample(number, ttft=float(number), rate=number) for number in range(1, 102)])
    slo = {"ttft_ms": 96.0, "tokens_per_s": 6.0, "slo_percentile": "p95"}
    found = judged(run, bench.Limits(slo={"m": slo}, cv_percent=0))
    assert (found["ttft"].value, found["ttft"].status) == (96.0, "PASS")
    # 95 % of the requests are at least this fast.
    assert (found["tokens_per_s"].value, found["tokens_per_s"].status) == (6.0, "PASS")
    assert found["tokens_per_s"].evidence == "p5 of 101 requests"
    stricter = {**slo, "slo_percentile": "p99"}
    assert statuses(run, bench.Limits(slo={"m": stricter}))["ttft"] == "FAIL"


def test_a_percentile_that_is_none_is_refused():
    with pytest.raises(HostError, match="'p42', wanted one of p50, p90, p95, p99"):
        judged(GOOD, bench.Limits(slo={"m": {"slo_percentile": "p42"}}))


def test_no_request_answered_meets_no_objective():
    slo = {"ttft_ms": 1.0, "itl_p99_ms": 1.0, "target_throughput_rps": 1.0}
    found = statuses(measured(sample(1, error="timeout")), bench.Limits(slo={"m": slo}))
    assert (found["ttft"], found["itl_p99"], found["throughput"]) == ("FAIL",) * 3


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
def test_comparison_with_the_first_baseline(ttft, rate, wanted):
    found = statuses(GOOD, baseline=Baseline("t", "m", ttft, rate))
    assert (found["ttft_vs_baseline"], found["tokens_per_s_vs_baseline"]) == wanted


@pytest.mark.parametrize(
    ("state", "status", "fit"),
    [("VALID", "PASS", True), ("UNRELIABLE", "WARN", False), ("INVALID", "FAIL", False)],
)
def test_trust(state, status, fit):
    reasons = [] if state == "VALID" else ["2 requests, wanted 3", "GPU 0 was throttled"]
    found = judged(GOOD, validity={"state": state, "reasons": reasons})
    assert (found["trust"].status, found["trust"].value) == (status, state)
    assert found["trust"].evidence == ("; ".join(reasons) or "no reason for doubt was found")
    assert bench.fit_for_baseline(list(found.values())) is fit


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
    found = judged(GOOD, bench.Limits(slo={"m": {"ttft_ms": 1.0, "tpot_ms": 1.0}}))
    assert bench.fit_for_baseline(list(found.values()))


def test_where_a_limited_client_is_no_failure_it_still_makes_no_baseline():
    invalid = {"state": "INVALID", "reasons": ["the client adds 9 ms"]}
    verdict = bench.trust_verdict("a", invalid, "WARN")
    assert (verdict.status, verdict.value) == ("WARN", "INVALID")
    assert not bench.fit_for_baseline([verdict])
