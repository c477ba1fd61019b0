# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._integration_judge import (
    judge,
    row,
    table,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_model import (
    Found,
    IntegrationError,
    Wanted,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import FAIL, Verdict


def wanted(**fields):
    return Wanted("redis", "cache-01", "cache", 6379, **fields)


def sound(**fields):
    usual = {
        "address": "192.0.2.1",
        "connect_ms": 0.42,
        "answer_ms": 1.5,
        "authenticated": "AUTH as default",
        "version": "7.0.15",
        "ready": "PING answers",
    }
    return Found(**{**usual, **fields})


def statuses(of, found):
    return {verdict.check: verdict.status for verdict in judge(of, found)}


def refused():
    return IntegrationError("reachable", "connection refused", "Start it.", "refused")


LOCKED = IntegrationError("authenticated", "wrong password", "", "password")


@pytest.mark.parametrize(
    ("fields", "found", "expected"),
    [
        ({}, sound(), ["PASS", "PASS", "PASS", "PASS"]),
        ({}, Found(trouble=refused()), ["FAIL"]),
        ({"required": False}, Found(trouble=refused()), ["WARN"]),
        ({}, Found(address="a", trouble=LOCKED), ["PASS", "FAIL"]),
        ({}, sound(unasked=True), ["PASS", "WARN", "PASS", "PASS"]),
        ({"version_min": "7.2"}, sound(), ["PASS", "PASS", "FAIL", "PASS"]),
        ({"version_min": "7.2", "required": False}, sound(), ["PASS", "PASS", "WARN", "PASS"]),
        ({"version_max": "6"}, sound(), ["PASS", "PASS", "FAIL", "PASS"]),
        ({"version_min": "7"}, sound(version=""), ["PASS", "PASS", "FAIL", "PASS"]),
        ({}, sound(version=""), ["PASS", "PASS", "PASS"]),
        ({"version_min": "7"}, Found(address="a", trouble=LOCKED), ["PASS", "FAIL"]),
        (
            {},
            sound(ready="", trouble=IntegrationError("ready", "loading")),
            ["PASS", "PASS", "PASS", "FAIL"],
        ),
        ({}, sound(more=[Verdict("more", FAIL)]), ["PASS", "PASS", "PASS", "PASS", "FAIL"]),
    ],
)
def test_verdicts_as_far_as_the_check_got(fields, found, expected):
    assert [verdict.status for verdict in judge(wanted(**fields), found)] == expected


def test_a_row_holds_figures_and_sentences():
    of, found = wanted(version_min="8"), sound(role="master")
    entry = row(of, found, judge(of, found), "llm-01")
    assert (entry["status"], entry["version"], entry["ready"]) == ("FAIL", "FAIL", "PASS")
    assert (entry["connect_ms"], entry["role"], entry["cause"]) == (0.42, "master", "")
    assert entry["problems"] == ["FAIL: llm-01 cache: version is 7.0.15, wanted 8 or newer"]


def test_a_failure_says_what_was_found_what_was_wanted_and_what_to_do():
    of, found = wanted(), Found(trouble=refused())
    entry = row(of, found, judge(of, found), "llm-01")
    assert entry["problems"] == [
        "FAIL: llm-01 cache: reachable is connection refused,"
        " wanted Redis on cache-01:6379 (Start it.)"
    ]
    assert (entry["authenticated"], entry["cause"]) == ("", "refused")


def test_the_table():
    pairs = [
        (wanted(), sound()),
        (wanted(version_max="6"), sound()),
        (wanted(), Found(trouble=refused())),
    ]
    rows = [row(of, found, judge(of, found), "llm-01") for of, found in pairs]
    lines = table(rows)
    assert [line.split() for line in lines if not line.startswith(" ")] == [
        ["integration", "kind", "address", "reachable", "authenticated", "version", "ready"],
        ["cache", "redis", "cache-01:6379", "0.4", "ms", "yes", "7.0.15", "1.5", "ms", "PASS"],
        [
            "cache",
            "redis",
            "cache-01:6379",
            "0.4",
            "ms",
            "yes",
            "7.0.15",
            "FAIL",
            "1.5",
            "ms",
            "FAIL",
        ],
        ["cache", "redis", "cache-01:6379", "FAIL", "-", "-", "-", "FAIL"],
    ]
    assert lines[-1].startswith("    FAIL: llm-01 cache: reachable is connection refused")


def test_a_table_of_nothing():
    assert len(table([])) == 1
