# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the record says of a drain, and how a report shows it."""

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.plugin_utils import _run_traffic as traffic

DRAINED = {
    "__traffic_gateway": "gw-01",
    "changed": True,
    "drained_by": "remediate",
    "drained_before": False,
    "waited_seconds": 3.21,
    "cut_streams": 0,
}
RETURNED = {"__traffic_gateway": "gw-01", "changed": True}


def variables(drain=(), back=(), **others):
    return {
        "__traffic_result_drain": {"results": list(drain)},
        "__traffic_result_undrain": {"results": list(back)},
        **others,
    }


@pytest.mark.parametrize(
    "nothing",
    [
        {},
        variables(),
        {"__traffic_result_drain": {"skipped": True, "changed": False}},
        variables([{"skipped": True, "__traffic_gateway": "gw-01"}]),
    ],
    ids=["no-results", "no-gateway", "skipped", "skipped-item"],
)
def test_nothing_is_said_where_nothing_was_done(nothing):
    assert traffic.as_data(nothing) == {}


def test_a_drain_is_told_with_its_owner_its_streams_and_its_time():
    second = {**DRAINED, "__traffic_gateway": "gw-02", "waited_seconds": 1}
    found = traffic.as_data(variables([DRAINED, second], traffic_drained_streams="3"))
    assert found == {
        "traffic": {
            "drained": True,
            "drained_by": ["remediate"],
            "gateways": ["gw-01", "gw-02"],
            "drained_before": False,
            "waited_seconds": 4.2,
            "open_streams": 3,
            "cut_streams": 0,
        }
    }


def test_somebody_elses_drain_keeps_its_owner():
    other = {**DRAINED, "drained_by": "operator", "drained_before": True, "changed": False}
    found = traffic.section(variables([other]))
    assert (found["drained_by"], found["drained_before"]) == (["operator"], True)


def test_a_drain_that_failed_at_one_gateway_is_none():
    assert traffic.section(variables([DRAINED, {**DRAINED, "failed": True}]))["drained"] is False


def test_the_way_back_says_how_long_the_host_was_away():
    found = traffic.section(
        variables(back=[RETURNED], traffic_drained_at="100.5", traffic_returned_at="112.0")
    )
    assert found == {"undrained": True, "undrained_at": ["gw-01"], "seconds": 11.5}


def test_a_way_back_that_failed_is_none():
    found = traffic.section(variables(back=[{**RETURNED, "failed": True}], traffic_drained_at=1))
    assert found["undrained"] is False
    assert "seconds" not in found


@pytest.mark.parametrize("trouble", ["failed", "unreachable"])
def test_a_host_that_one_of_two_gateways_still_drains_is_not_back(trouble):
    lost = {"__traffic_gateway": "gw-02", trouble: True}
    found = traffic.section(variables([DRAINED], back=[RETURNED, lost]))
    assert found["undrained"] is False
    record = {"mode": "real", "data": {"traffic": found}}
    assert traffic.figure(record)["label"] == "drained still"


def test_a_drain_at_a_gateway_that_was_lost_is_none():
    lost = {"__traffic_gateway": "gw-02", "unreachable": True}
    assert traffic.section(variables([DRAINED, lost]))["drained"] is False


def shown(mode="real", **data):
    return traffic.figure({"mode": mode, "data": {"traffic": data} if data else {}})


DATA = {"drained": True, "drained_by": ["remediate"], "gateways": ["gw-01"], "open_streams": 2}


@pytest.mark.parametrize(
    ("figure", "label", "value", "note"),
    [
        (
            shown(**DATA, undrained=True, seconds=11.5, waited_seconds=3.2),
            "without requests",
            "12 s",
            "drained at gw-01, 2 open streams waited for in 3.2 s",
        ),
        (shown(**DATA), "drained still", "1", "at gw-01, by remediate"),
        (shown("check", **DATA), "drain planned", "1", "at gw-01, then undrained"),
        (
            shown(undrained=True, undrained_at=["gw-01"]),
            "undrained",
            "1",
            "at gw-01, drained by an earlier run",
        ),
    ],
    ids=["and-back", "left", "dry", "left-by-an-earlier-run"],
)
def test_the_report_shows_it(figure, label, value, note):
    assert figure == {"label": label, "value": value, "note": note}


def test_the_report_shows_nothing_of_a_run_without_a_drain():
    assert shown() is None
    assert shown(drained=False) is None
