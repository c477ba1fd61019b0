# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which load comes next, when a sweep stops, and where its knee is."""

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_sweep as sweep

SLO = {"ttft_ms": 500}


def point(value, rate=None, broken=()):
    return {"value": value, "total_tokens_per_s": rate, "broken": list(broken)}


def drive(spec, outcome):
    """Run a sweep against a function from load to a point; return the loads tried."""
    points = []
    while (value := sweep.next_value(points, spec)) is not None:
        points.append(outcome(value))
        assert len(points) < 40
    return [p["value"] for p in points], points


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, [1, 2, 4, 8, 16, 32, 64]),
        ({"limit": 1}, [1]),
        ({"limit": 20}, [1, 2, 4, 8, 16, 20]),
        ({"values": [8, 2, 2, 4]}, [2, 4, 8]),
        ({"start": 1, "limit": 4, "factor": 1.2}, [1, 2, 3, 4]),
        ({"over": "rate", "start": 0.5, "limit": 3}, [0.5, 1, 2, 3]),
        ({"start": 8, "limit": 4}, [4]),
    ],
)
def test_the_loads_of_a_sweep_rise_and_end_at_the_limit(spec, expected):
    assert sweep.values_of(spec) == expected


def test_a_factor_of_one_ends():
    assert len(sweep.values_of({"over": "rate", "factor": 1.0, "limit": 1e9})) <= sweep.STEPS


def test_a_sweep_stops_at_the_first_step_that_breaks_an_objective():
    loads, _points = drive({"limit": 64}, lambda v: point(v, v, ["slow"] if v > 10 else []))
    assert loads == [1, 2, 4, 8, 16]


def test_a_sweep_halves_the_range_around_the_break_as_often_as_told():
    loads, points = drive(
        {"limit": 64, "refine": 3}, lambda v: point(v, v, ["slow"] if v > 10 else [])
    )
    assert loads == [1, 2, 4, 8, 16, 12, 10, 11]
    assert sweep.find_knee(points, SLO)["value"] == 10


def test_refinement_ends_when_nothing_lies_between():
    loads, _points = drive(
        {"values": [1, 2], "refine": 5}, lambda v: point(v, v, ["x"] if v > 1 else [])
    )
    assert loads == [1, 2]


def test_a_sweep_whose_first_step_breaks_ends_there():
    loads, points = drive({"refine": 4}, lambda v: point(v, v, ["slow"]))
    assert loads == [1]
    assert sweep.find_knee(points, SLO) is None
    assert sweep.summarise(points, SLO)["stopped_because"] == "At 1 slow."


def test_a_sweep_that_must_not_stop_tries_every_value():
    spec = {"values": [1, 2, 4], "stop": False}
    loads, points = drive(spec, lambda v: point(v, v, ["slow"]))
    assert loads == [1, 2, 4]
    assert (
        "Every declared load was tried, up to 4"
        in sweep.summarise(points, SLO, spec)["stopped_because"]
    )


def test_without_objectives_a_sweep_ends_where_throughput_stands_still():
    loads, points = drive({"limit": 256}, lambda v: point(v, min(v, 8) * 100.0))
    assert loads == [1, 2, 4, 8, 16, 32]
    assert "grew by less than a tenth" in sweep.summarise(points)["stopped_because"]


def test_small_steps_of_a_load_that_still_pays_are_not_taken_for_a_standstill():
    values = list(range(30, 40))
    loads, _points = drive({"values": values}, lambda v: point(v, v * 10.0))
    assert loads == values


def test_with_objectives_a_standstill_alone_ends_nothing():
    flat = {"total_tokens_per_s": 100.0}
    loads, _points = drive(
        {"limit": 256},
        lambda v: sweep.point_of(v, {**flat, **metrics(ttft_ms=9)}, requests=9, failed=0, slo=SLO),
    )
    assert loads[-1] == 256


def test_time_that_ran_out_is_said():
    told = sweep.summarise([point(1, 1.0)], SLO, {"limit": 8})["stopped_because"]
    assert told == "The time of the run ended before 2 was measured."
    told = sweep.summarise([], SLO, {"over": "rate", "values": [3.0]})["stopped_because"]
    assert told == "The time of the run ended before 3 was measured."
    assert sweep.summarise([], SLO)["stopped_because"] == "No step was run."


def test_the_knee_by_objectives_is_the_last_step_before_the_break():
    points = [point(1), point(2), point(4, broken=["slow"]), point(8)]
    knee = sweep.find_knee(points, SLO)
    assert (knee["value"], knee["index"], knee["rule"]) == (2, 1, "slo")
    assert knee["at_least"] is False


def test_a_knee_that_was_not_reached_is_a_lower_bound():
    knee = sweep.find_knee([point(4), point(1)], SLO)
    assert (knee["value"], knee["at_least"]) == (4, True)


def test_kneedle_finds_the_corner_of_a_curve_that_saturates():
    points = [point(v, min(v, 8) * 50.0) for v in (1, 2, 4, 8, 16, 32)]
    knee = sweep.find_knee(points)
    assert (knee["value"], knee["rule"]) == (8, "kneedle")


def test_kneedle_finds_the_corner_when_throughput_falls_after_it():
    points = [point(v, r) for v, r in ((1, 10), (4, 40), (8, 75), (16, 80), (32, 60))]
    assert sweep.find_knee(points)["value"] == 8


@pytest.mark.parametrize(
    "points",
    [
        [],
        [point(1, 10.0), point(2, 20.0)],
        [point(v, v * 10.0) for v in (1, 2, 4, 8)],
        [point(v, 10.0) for v in (1, 2, 4)],
        [point(v) for v in (1, 2, 4)],
    ],
    ids=["none", "two", "straight", "flat", "unmeasured"],
)
def test_no_knee_is_made_up(points):
    assert sweep.find_knee(points) is None


def metrics(**given):
    return {name: {"median": value, "p95": value, "p99": value} for name, value in given.items()}


@pytest.mark.parametrize(
    ("slo", "expected"),
    [
        ({"ttft_ms": 500}, ["TTFT (p95) is 501 ms, wanted at most 500 ms"]),
        ({"ttft_ms": 501}, []),
        ({"ttft_ms": 500, "percentile": 99}, ["TTFT (p99) is 501 ms, wanted at most 500 ms"]),
        (
            {"tokens_per_s": 30},
            ["tokens per second of a request (p5) is 20 tokens/s, wanted at least 30 tokens/s"],
        ),
        ({"tokens_per_s": 30, "percentile": 50}, []),
        ({"itl_p99_ms": 80}, ["gap between tokens (p99) is 90 ms, wanted at most 80 ms"]),
        ({"itl_p99_ms": 90, "percentile": 50}, []),
        ({"tpot_ms": 40}, ["TPOT was not measured, wanted 40 ms"]),
        ({}, []),
        ({"ttft_ms": None}, []),
    ],
)
def test_objectives_hold_at_their_percentile(slo, expected):
    found = metrics(ttft_ms=501, gap_ms=90)
    rates = [20.0] * 10 + [40.0] * 90  # slow for a tenth of the requests: the median hides it
    assert sweep.broken(found, slo, requests=100, failed=1, rates=rates) == expected


def test_failed_requests_break_a_step_without_objectives():
    told = sweep.broken({}, {}, requests=100, failed=2)
    assert told == ["2 of 100 requests failed, wanted at most 1 %"]


def test_a_point_holds_what_the_page_draws():
    made = sweep.point_of(
        8, {**metrics(ttft_ms=600), "total_tokens_per_s": 700.0}, requests=20, failed=0, slo=SLO
    )
    assert made["value"] == 8
    assert (made["ttft_p50_ms"], made["ttft_p95_ms"], made["ttft_p99_ms"]) == (600, 600, 600)
    assert made["total_tokens_per_s"] == 700.0
    assert made["broken"] == ["TTFT (p95) is 600 ms, wanted at most 500 ms"]
    assert made["latency_p95_ms"] is None


def test_a_summary_sorts_its_points_and_keeps_the_objectives():
    made = sweep.summarise([point(4, 1.0), point(1, 1.0)], SLO, {"over": "rate"})
    assert [p["value"] for p in made["points"]] == [1, 4]
    assert (made["over"], made["slo"]) == ("rate", SLO)
