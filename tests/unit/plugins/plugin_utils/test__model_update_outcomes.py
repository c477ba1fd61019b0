# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a new version is accepted, and how that is told."""

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _model_update_outcomes as made


def change(percent, verdict="PASS", better=None, note="", before=100.0):
    return {
        "before": before,
        "after": None if percent is None else before * (1 + percent / 100),
        "change_percent": percent,
        "verdict": verdict,
        "better": better,
        "note": note,
    }


def measured(state="VALID", comparable=True, verdicts=(), **metrics):
    found = {"ttft_ms": change(1.0), "tokens_per_s": change(-2.0), **metrics}
    return {
        "model": "tiny:1b",
        "validity": {"state": state, "reasons": ["the GPU throttled"] if state != "VALID" else []},
        "verdicts": list(verdicts),
        "comparison": {
            "comparable": comparable,
            "why_not": [] if comparable else ["driver is 2, the baseline's is 1"],
            "metrics": found if comparable else {},
        },
    }


def failed(check):
    return {"check": check, "status": "FAIL", "value": 3, "limit": 10, "evidence": "7 timeout"}


def test_a_version_that_is_as_good_is_accepted():
    verdict = made.judge(measured())
    assert verdict["accepted"]
    assert verdict["reason"].startswith(
        "not worse by more than 20 %: TTFT +1.0 % (could be chance)"
    )
    assert [item["name"] for item in verdict["metrics"]] == ["ttft_ms", "tokens_per_s"]


@pytest.mark.parametrize("accept_unreliable", [False, True])
@pytest.mark.parametrize("state", ["VALID", "UNRELIABLE"])
def test_one_figure_that_is_worse_is_enough(state, accept_unreliable):
    outcome = measured(state, tokens_per_s=change(-31.2, "FAIL", better=False))
    verdict = made.judge(outcome, fail_percent=25, accept_unreliable=accept_unreliable)
    assert not verdict["accepted"]
    assert verdict["reason"] == (
        "worse by more than 25 %: Tokens per second of a request \N{MINUS SIGN}31.2 %"
    )


@pytest.mark.parametrize(
    ("outcome", "worse"),
    [
        (measured(tokens_per_s=change(-31.2, "FAIL", better=False)), True),
        (measured(verdicts=[failed("out_of_memory")]), True),
        (measured("UNRELIABLE"), False),
        (measured(comparable=False), False),
        (None, False),
    ],
)
def test_only_what_the_version_itself_is_to_blame_for_counts_against_it(outcome, worse):
    verdict = made.judge(outcome)
    assert (verdict["accepted"], verdict["worse"]) == (False, worse)


@pytest.mark.parametrize("limit", [-1.0, float("nan")])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(HostError, match="wanted a number from 0"):
        made.judge(None, fail_percent=limit)


def test_a_figure_that_is_not_judged_decides_nothing():
    outcome = measured(latency_ms=change(80.0, "FAIL", better=False))
    assert made.judge(outcome)["accepted"]
    assert not made.judge(outcome, metrics=["latency_ms"])["accepted"]


def test_a_request_that_failed_outweighs_all():
    for check in made.BROKEN:
        verdict = made.judge(measured(verdicts=[failed(check)]), accept_unreliable=True)
        assert not verdict["accepted"], check
    answered = made.judge(measured(verdicts=[failed("answered")]))
    assert "3 of 10 requests were answered completely (7 timeout)" in answered["reason"]


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (measured("UNRELIABLE"), "the measurement is UNRELIABLE (the GPU throttled)"),
        (measured("INVALID"), "the measurement is INVALID"),
        (measured(comparable=False), "driver is 2, the baseline's is 1"),
        ({**measured(), "comparison": None}, "nothing was measured before"),
        (measured(ttft_ms=change(None), tokens_per_s=change(None)), "no figure that is judged"),
        (
            measured(ttft_ms=change(45.0, "WARN", better=False, note="fewer than 5 requests")),
            "TTFT +45.0 %, fewer than 5 requests",
        ),
    ],
)
def test_what_is_no_verdict_is_accepted_only_when_told_so(outcome, words):
    verdict = made.judge(outcome)
    assert not verdict["accepted"]
    assert verdict["reason"].startswith("no verdict is possible: ")
    assert words in verdict["reason"]
    verdict = made.judge(outcome, accept_unreliable=True)
    assert verdict["accepted"]
    assert "accepted without a verdict" in verdict["reason"]
    assert words in verdict["reason"]


def test_few_requests_that_are_not_much_worse_are_a_verdict():
    outcome = measured(ttft_ms=change(15.0, "WARN", better=False, note="fewer than 5 requests"))
    assert made.judge(outcome)["accepted"]


def test_a_version_that_could_not_be_measured_is_never_accepted():
    verdict = made.judge(None, problem="llm-01: HTTP 500.", accept_unreliable=True)
    assert not verdict["accepted"]
    assert verdict["reason"] == "the new version could not be measured: llm-01: HTTP 500"


@pytest.mark.parametrize("metrics", [["speed"], []])
def test_figures_that_are_none_are_refused(metrics):
    with pytest.raises(HostError, match="wanted some of ttft_ms"):
        made.judge(measured(), metrics=metrics)


def test_the_table_names_both_digests_and_the_figures():
    verdict = made.judge(measured(latency_ms=change(7.0)))
    rows = [
        {
            "host": "llm-01",
            "model": "b:1b",
            "old": "a" * 64,
            "new": "b" * 64,
            "verdict": "ACCEPTED",
            "reason": verdict["reason"],
            "metrics": verdict["metrics"],
        },
        {"host": "llm-01", "model": "c:1b", "old": "c" * 64, "new": "", "verdict": "UNKNOWN"},
        {"host": "llm-02", "model": "d", "verdict": "FAILED", "reason": "the host was lost."},
    ]
    told = made.lines(rows)
    assert told[0].split() == [
        *("host", "model", "old", "new", "figure", "before", "after", "change", "verdict")
    ]
    assert told[1].split() == [
        *("llm-01", "b:1b", "aaaaaaaaaaaa", "bbbbbbbbbbbb", "TTFT", "100", "ms", "101", "ms"),
        *("+1.0", "%", "ACCEPTED"),
    ]
    assert "98 tokens/s" in told[2]
    assert "End-to-end latency (not judged)" in told[3]
    assert told[-3:] == [
        "FAILED: llm-02, d: the host was lost.",
        "UNKNOWN: llm-01, c:1b: no reason was given.",
        f"ACCEPTED: llm-01, b:1b: {verdict['reason']}.",
    ]
    assert made.lines([]) == ["No model was looked at."]


def test_what_nothing_was_done_about_is_told_too():
    def entry(name, todo="none", moved=False, present=True):
        return {
            "name": name,
            "todo": todo,
            "moved": moved,
            "present": present,
            "digest": "a" * 64,
            "registry_digest": "b" * 64,
            "reason": "why",
        }

    entries = [
        entry("same"),
        entry("silent", moved=None),
        entry("gone", moved=None, present=False),
        entry("left", todo="drop"),
        entry("due", todo="update", moved=True),
        entry("done", todo="update", moved=True),
    ]
    rows = made.rest(entries, "llm-01", [{"model": "done"}], "the host was lost.")
    assert [(row["model"], row["verdict"]) for row in rows] == [
        ("same", "UNCHANGED"),
        ("silent", "UNKNOWN"),
        ("gone", "UNCHANGED"),
        ("left", "UNCHANGED"),
        ("due", "FAILED"),
    ]
    assert rows[-1]["reason"] == "why; the host was lost."
    assert made.lines(rows)[-5] == "FAILED: llm-01, due: why; the host was lost."
