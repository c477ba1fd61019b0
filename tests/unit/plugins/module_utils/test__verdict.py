# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _verdict
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import FAIL, PASS, WARN, Verdict


def test_a_verdict_has_one_form_in_results():
    verdict = Verdict("ttft", FAIL, "qwen3:1.7b", 812.5, 500.0, "ms", "median of 3 requests")
    assert verdict.as_dict() == {
        "check": "ttft",
        "status": "FAIL",
        "subject": "qwen3:1.7b",
        "value": 812.5,
        "limit": 500.0,
        "unit": "ms",
        "evidence": "median of 3 requests",
    }


def test_a_status_that_nobody_counts_is_refused():
    with pytest.raises(ValueError, match="OK"):
        Verdict("ttft", "OK")


@pytest.mark.parametrize(
    ("judge", "value", "status"),
    [
        (_verdict.at_most, 10, PASS),
        (_verdict.at_most, 10.1, FAIL),
        (_verdict.at_most, None, FAIL),
        (_verdict.at_least, 10, PASS),
        (_verdict.at_least, 9.9, FAIL),
        (_verdict.at_least, None, FAIL),
    ],
)
def test_limits_are_inclusive_and_no_value_is_no_pass(judge, value, status):
    assert judge("x", value, 10).status == status


def test_what_a_miss_means_can_be_chosen():
    assert _verdict.at_most("x", 11, 10, otherwise=WARN).status == WARN


@pytest.mark.parametrize(
    ("statuses", "worst"),
    [([], PASS), ([PASS, PASS], PASS), ([PASS, WARN], WARN), ([FAIL, WARN, PASS], FAIL)],
)
def test_worst(statuses, worst):
    verdicts = [Verdict("x", status) for status in statuses]
    assert _verdict.worst(verdicts) == worst
    assert _verdict.worst(_verdict.as_dicts(verdicts)) == worst


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        (
            Verdict("ttft", FAIL, "qwen3:1.7b", 812.456, 500.0, "ms", "median of 3"),
            "llm-01 qwen3:1.7b: ttft is 812.46 ms, wanted 500 ms (median of 3)",
        ),
        (Verdict("gpu", FAIL, "", None, 2), "llm-01: gpu is not known, wanted 2"),
        (Verdict("catalog", FAIL, "", [], ["a"]), "llm-01: catalog is none, wanted a"),
    ],
)
def test_a_sentence_names_host_thing_found_and_wanted(verdict, text):
    assert _verdict.sentence(verdict, "llm-01") == text
    assert _verdict.sentence(verdict.as_dict(), "llm-01") == text


def test_a_sentence_without_host_and_subject_is_only_the_check():
    assert _verdict.sentence(Verdict("x", PASS, value=1)) == "x is 1"


@pytest.mark.parametrize(
    ("fail_on", "message"),
    [
        ("never", ""),
        ("FAIL", "FAIL: llm-01 b: x is 2"),
        ("WARN", "WARN: llm-01 a: x is 1; FAIL: llm-01 b: x is 2"),
    ],
)
def test_failure_message(fail_on, message):
    verdicts = [Verdict("x", PASS), Verdict("x", WARN, "a", 1), Verdict("x", FAIL, "b", 2)]
    assert _verdict.failure_message(_verdict.as_dicts(verdicts), fail_on, "llm-01") == message
