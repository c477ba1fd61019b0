# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_compare as bench
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_baselines import (
    ARRAYS,
    Identity,
    Record,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_stats import MannWhitney
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

IDENTITY = Identity(
    "m", "sha256:1", "ollama", "0.5.7", "ollama_generate", prompt_tokens=100, gpus=("L4",)
)


def noisy(middle, count=30, spread=0.03, seed=1):
    draw = random.Random(seed)
    return [middle * (1 + draw.gauss(0, spread)) for _number in range(count)]


def arrays(ttft=100.0, rate=50.0, **more):
    return {
        "ttft_ms": noisy(ttft, **more),
        "tpot_ms": noisy(1000 / rate, **more),
        "latency_ms": noisy(2000.0, **more),
        "tokens_per_s": noisy(rate, **more),
    }


def record(identity=IDENTITY, validity="VALID", gap=30.0, **more):
    values = arrays(**more)
    counts = {name: len(found) for name, found in values.items()}
    return Record(identity, "2026-08-20T12:00:00.000Z", 60.0, validity, counts, values, gap)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"extra_digest": "ab"}, "digest of extra_body is ab"),
        ({"unique_prompts": False}, "uniqueness of prompts is False"),
        ({"run_from": "controller"}, "place that requests come from is controller"),
    ],
)
def test_what_changes_the_figures_of_a_request_makes_them_incomparable(changed, told):
    found = compared(identity=replace(IDENTITY, **changed))
    assert found["comparable"] is False
    assert told in found["why_not"][0]
    with pytest.raises(HostError, match="may not differ"):
        bench.Rules(may_differ=list(changed))


def compared(before=None, identity=IDENTITY, gap=30.0, rules=None, **more):
    return bench.compare(
        "release",
        [before or record()],
        identity,
        arrays=arrays(**{"seed": 2, **more}),
        gap_p99_ms=gap,
        rules=rules or bench.Rules(),
    )


def verdicts_of(found):
    return {name: metric["verdict"] for name, metric in found["metrics"].items()}


def test_the_same_again_passes_and_is_neither_better_nor_worse():
    found = compared()
    assert (found["comparable"], found["why_not"], found["notes"]) == (True, [], [])
    assert verdicts_of(found) == dict.fromkeys([*ARRAYS, "gap_p99_ms"], "PASS")
    assert {metric["better"] for metric in found["metrics"].values()} == {None}


@pytest.mark.parametrize(
    ("ttft", "verdict", "better"),
    [
        (70.0, "PASS", True),
        (104.0, "PASS", False),  # surely slower, not by much
        (112.0, "WARN", False),
        (130.0, "FAIL", False),
    ],
)
def test_a_change_of_the_time_to_the_first_token(ttft, verdict, better):
    metric = compared(ttft=ttft, count=200)["metrics"]["ttft_ms"]
    assert (metric["verdict"], metric["better"]) == (verdict, better)
    assert metric["change_percent"] == pytest.approx(ttft - 100, abs=1.5)
    assert metric["low_percent"] <= metric["change_percent"] <= metric["high_percent"]
    assert metric["p_value"] < 0.05
    assert (metric["count_before"], metric["count_after"]) == (30, 200)


@pytest.mark.parametrize(
    ("rate", "verdict", "better"),
    [(70.0, "PASS", True), (45.0, "WARN", False), (35.0, "FAIL", False)],
)
def test_of_tokens_per_second_more_is_better(rate, verdict, better):
    metric = compared(rate=rate)["metrics"]["tokens_per_s"]
    assert (metric["verdict"], metric["better"]) == (verdict, better)


def test_a_large_change_within_the_noise_passes():
    before = record(spread=0.8, count=6)
    found = compared(before, ttft=130.0, spread=0.8, count=6)["metrics"]["ttft_ms"]
    assert found["change_percent"] > 20
    assert (found["verdict"], found["better"]) == ("PASS", None)


@pytest.mark.parametrize(
    ("p_value", "interval", "verdict"),
    [
        (0.049, (1.01, 1.6), "FAIL"),
        (0.051, (1.01, 1.6), "PASS"),
        (0.049, (0.99, 1.6), "PASS"),
        (0.049, None, "PASS"),
    ],
)
def test_both_tests_have_to_say_so(monkeypatch, p_value, interval, verdict):
    monkeypatch.setattr(bench, "mann_whitney", lambda _a, _b: MannWhitney(0, p_value, False))
    monkeypatch.setattr(bench, "ratio_interval", lambda _a, _b: interval)
    metric = compared(ttft=130.0)["metrics"]["ttft_ms"]
    assert (metric["verdict"], metric["better"]) == (verdict, False if verdict == "FAIL" else None)


def test_limits_may_be_set():
    rules = bench.Rules(fail_percent=40.0, warn_percent=15.0)
    assert compared(ttft=130.0, rules=rules)["metrics"]["ttft_ms"]["verdict"] == "WARN"
    assert compared(ttft=112.0, rules=rules)["metrics"]["ttft_ms"]["verdict"] == "PASS"


@pytest.mark.parametrize(
    ("ttft", "verdict", "better"),
    [(300.0, "WARN", False), (101.0, "PASS", None), (50.0, "PASS", True)],
)
def test_few_samples_are_judged_by_size_with_a_warning_at_most(ttft, verdict, better):
    before = record(count=3, spread=0.0)
    metric = compared(before, ttft=ttft, count=3, spread=0.0)["metrics"]["ttft_ms"]
    assert (metric["verdict"], metric["better"]) == (verdict, better)
    assert "fewer than 5 requests" in metric["note"]


@pytest.mark.parametrize(("gap", "verdict"), [(29.0, "PASS"), (90.0, "WARN")])
def test_the_p99_of_gaps_has_no_noise_of_its_own(gap, verdict):
    metric = compared(gap=gap)["metrics"]["gap_p99_ms"]
    assert metric["verdict"] == verdict
    assert (metric["low_percent"], metric["p_value"]) == (None, None)
    assert "one figure on each side" in metric["note"]


def test_a_figure_that_a_side_lacks_is_not_judged():
    empty = record()
    empty.values["ttft_ms"].clear()
    found = compared(empty, gap=None)
    for name in ("ttft_ms", "gap_p99_ms"):
        metric = found["metrics"][name]
        assert (metric["change_percent"], metric["verdict"]) == (None, "PASS")
        assert metric["note"] == "a side has no figure to compare"
    checks = [verdict.check for verdict in bench.comparison_verdicts("m", found, bench.Rules())]
    assert checks == ["comparison_tpot", "comparison_latency", "comparison_tokens_per_s"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_digest": "sha256:2"}, "digest of the model is sha256:2, the baseline's is"),
        ({"model_digest": ""}, "is not known, the baseline's is sha256:1"),
        ({"engine_version": "0.6"}, "version of the engine is 0.6, the baseline's is 0.5.7"),
        ({"gpus": ("L4", "L4")}, "GPUs is L4, L4, the baseline's is L4"),
        ({"driver": "560"}, "version of the driver is 560, the baseline's is not known"),
        ({"prompt_tokens": 120}, "tokens of a prompt is 120, the baseline's is 100"),
        ({"max_tokens": 64}, "tokens to generate is 64, the baseline's is 0"),
        ({"think": True}, "thinking is True, the baseline's is False"),
    ],
)
def test_another_thing_is_not_comparable(change, reason):
    found = compared(identity=replace(IDENTITY, **change))
    assert (found["comparable"], found["metrics"]) == (False, {})
    assert len(found["why_not"]) == 1
    assert reason in found["why_not"][0]
    (verdict,) = bench.comparison_verdicts("m", found, bench.Rules())
    assert (verdict.check, verdict.status, verdict.subject) == ("comparison", "WARN", "m")
    assert reason in verdict.evidence


def test_a_token_more_in_the_prompt_is_no_difference():
    assert compared(identity=replace(IDENTITY, prompt_tokens=104))["comparable"]


@pytest.mark.parametrize(
    "change", [{"concurrency": 4}, {"shape": "poisson"}, {"shape": "constant", "rate": 2.0}]
)
def test_another_load_has_no_baseline(change):
    found = compared(identity=replace(IDENTITY, **change))
    assert not found["comparable"]
    assert "holds only 1 at once, wanted m under" in found["why_not"][0]


def test_a_baseline_that_is_not_there_is_said():
    found = bench.compare(
        "gone", [], IDENTITY, arrays=arrays(), gap_p99_ms=None, rules=bench.Rules()
    )
    assert found["why_not"] == ["baseline gone holds nothing of it, wanted m under 1 at once"]


def test_what_a_comparison_is_about_may_differ_and_is_noted():
    rules = bench.Rules(may_differ=("model_digest",))
    found = compared(identity=replace(IDENTITY, model_digest="sha256:2"), rules=rules)
    assert found["comparable"]
    assert found["notes"] == [
        "compared although the digest of the model is sha256:2, the baseline's is sha256:1"
    ]
    with pytest.raises(HostError, match="max_tokens may not differ"):
        bench.Rules(may_differ=("max_tokens",))


def test_versions_that_make_other_tokens_of_a_prompt_are_compared_when_told_so():
    more = replace(IDENTITY, prompt_tokens=400)
    rules = bench.Rules(may_differ=("prompt_tokens",))
    assert not compared(identity=more)["comparable"]
    assert compared(identity=more, rules=rules)["comparable"]
    longer = replace(more, prompt_kind="synthetic")
    known = record(identity=replace(IDENTITY, prompt_kind="synthetic"))
    assert not compared(known, identity=longer, rules=rules)["comparable"]


def test_a_weak_or_thinned_out_baseline_is_noted():
    weak = record(validity="UNRELIABLE")
    weak.counts["ttft_ms"] = 5000
    assert compared(weak)["notes"] == [
        "the baseline itself is UNRELIABLE",
        "the baseline keeps 30 of 5000 values, taken evenly",
    ]


def test_verdicts_say_what_was_found_and_by_how_much():
    found = compared(ttft=130.0, rate=40.0)
    verdicts = {v.check: v for v in bench.comparison_verdicts("m", found, bench.Rules())}
    ttft, rate = verdicts["comparison_ttft"], verdicts["comparison_tokens_per_s"]
    assert (ttft.status, ttft.limit, ttft.unit, ttft.subject) == ("FAIL", 20.0, "%", "m")
    assert ttft.value == found["metrics"]["ttft_ms"]["change_percent"]
    assert ttft.evidence.startswith("baseline release: ttft_ms ")
    assert "95 % interval" in ttft.evidence
    assert "p = " in ttft.evidence
    assert (rate.limit, rate.value < -15) == (-20.0, True)
    assert verdicts["comparison_itl_p99"].limit == 5.0
