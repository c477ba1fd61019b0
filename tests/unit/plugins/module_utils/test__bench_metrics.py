# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from bench_samples import good, measured, sample

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_metrics as bench
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import Stage
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError


def test_metrics():
    metrics = bench.metrics_of(good())
    assert metrics["tokens_per_s"]["median"] == 51
    assert metrics["ttft_ms"]["median"] == 100
    assert metrics["tpot_ms"]["max"] == 20
    assert metrics["prompt_tokens_per_s"]["median"] == 500
    assert (metrics["load_ms"], metrics["cold_ttft_ms"]) == (2.0, 900.0)
    assert (metrics["total_tokens_per_s"], metrics["requests_per_s"]) == (75.0, 1.5)
    assert (metrics["tokens_from"], metrics["rate_from"]) == (["server"], ["server"])
    assert (metrics["goodput_per_s"], metrics["slo_attainment"]) == (None, None)


def test_every_gap_is_kept():
    gaps = bench.metrics_of(good(), stall_ms=500.0)["gap_ms"]
    assert (gaps["count"], gaps["median"], gaps["max"]) == (4, 20.0, 600.0)
    assert (gaps["stalls"], gaps["stall_limit_ms"]) == (1, 500.0)
    assert sum(count for _edge, count in gaps["histogram"]) == 4
    assert bench.metrics_of(good(), stall_ms=600.0)["gap_ms"]["stalls"] == 0


def test_failed_requests_are_counted_not_averaged():
    failed = sample(2, error="timeout", dispatch_lag_ms=7.0)
    metrics = bench.metrics_of(measured(sample(1), failed))
    assert (metrics["ttft_ms"]["count"], metrics["latency_ms"]["count"]) == (1, 1)
    assert metrics["requests_per_s"] == 0.5
    assert metrics["dispatch_lag_ms"]["max"] == 7.0  # it went out late all the same


def test_nothing_measured_gives_no_figures():
    empty = measured(not_sent=3, warmup=[sample(error="connection")], wall_s=0.0)
    metrics = bench.metrics_of(empty, {"ttft_ms": 1.0})
    assert metrics["ttft_ms"]["median"] is None
    assert (metrics["load_ms"], metrics["cold_ttft_ms"]) == (None, None)
    assert (metrics["total_tokens_per_s"], metrics["requests_per_s"]) == (None, None)
    assert (metrics["goodput_per_s"], metrics["slo_attainment"]) == (None, None)
    assert bench.errors_of(empty) == {"connection": 1, "not_sent": 3}


SLO = {"ttft_ms": 150.0, "tpot_ms": 25.0, "latency_ms": 1500.0, "tokens_per_s": 40.0}


@pytest.mark.parametrize(
    ("request_", "met"),
    [
        (sample(), True),
        (sample(ttft=150.0), True),
        (sample(ttft=150.1), False),
        (sample(tpot_ms=25.1), False),
        (sample(latency_ms=1500.1), False),
        (sample(rate=39.9, tpot_ms=1.0), False),
        (sample(error="timeout"), False),
        (sample(ttft=None), False),  # not streamed: it can't be shown
        (sample(tpot_ms=None, tokens_per_s=None, chunks=1), True),  # one piece has no gap
        (sample(tpot_ms=None), False),
    ],
)
def test_which_requests_are_good(request_, met):
    assert bench.meets(request_, SLO) is met


def test_goodput_counts_failed_requests_as_missed():
    run = measured(sample(1), sample(2, ttft=500.0), sample(3, error="timeout"), sample(4))
    metrics = bench.metrics_of(run, SLO)
    assert (metrics["goodput_per_s"], metrics["slo_attainment"]) == (1.0, 0.5)


@pytest.mark.parametrize(("shape", "share"), [("closed", 1.0), ("poisson", 0.25)])
def test_what_a_schedule_could_not_send_is_missed(shape, share):
    run = measured(sample(1), not_sent=3, stage=Stage(shape, 4, 10.0, 4))
    assert bench.metrics_of(run, SLO)["slo_attainment"] == share


def test_empty_objectives_are_none():
    run = measured(sample(1))
    assert bench.metrics_of(run, {"ttft_ms": None, "itl_p99_ms": 5.0})["slo_attainment"] is None


def entry_of(run):
    return {
        "model": "m",
        "stage": {**vars(run.stage), "label": run.stage.label},
        "samples": [s.as_dict() for s in run.samples],
        "warmup": [s.as_dict() for s in run.warmup],
        "wall_s": run.wall_s,
        "not_sent": 0,
        "begun_at": run.begun_at,
        "in_flight": run.in_flight,
        "metrics": {**bench.metrics_of(run), "gpu_ratio": 0.5},
    }


def test_a_measurement_survives_its_way_through_a_result():
    run = good()
    run.stage = Stage("poisson", 16, 2.5, 3, seed=4)
    entry = entry_of(run)
    run.begun_at, run.in_flight = "2026-08-20T12:00:00.123Z", 16
    again = bench.measurement_from(entry_of(run))
    assert again.stage == run.stage
    assert (again.begun_at, again.in_flight) == (run.begun_at, run.in_flight)
    assert bench.metrics_from(entry) == {**bench.metrics_of(run), "gpu_ratio": 0.5}
    assert bench.metrics_from(entry, SLO)["slo_attainment"] == 1.0


def test_a_result_of_an_earlier_version_has_no_stage_and_no_gaps():
    entry = entry_of(good())
    for name in ("stage", "begun_at", "in_flight"):
        del entry[name]
    del entry["metrics"]["gap_ms"]
    assert bench.metrics_from(entry)["gap_ms"]["count"] == 0


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"model": "m", "samples": [{"odd": 1}]},
        {**entry_of(good()), "samples": ["x"]},
        {**entry_of(good()), "stage": "x"},
        {**entry_of(good()), "wall_s": "soon"},
    ],
)
def test_what_is_no_measurement_is_refused(entry):
    with pytest.raises(HostError, match="no measurement"):
        bench.measurement_from(entry)
