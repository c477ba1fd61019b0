# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from gpu_health_samples import (
    DATA_CENTRE,
    NOW,
    card,
    facts,
    of_card,
    outcome,
    report,
)

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_card import replay_limit

AN_HOUR_AGO = NOW - 3600


def earlier(**fields):
    return {"time": AN_HOUR_AGO, "gpus": [card(**fields)]}


@pytest.mark.parametrize(
    ("fields", "expected", "status"),
    [
        ({"temperature_c": 89}, {}, "PASS"),
        ({"temperature_c": 90}, {}, "PASS"),
        ({"temperature_c": 91}, {}, "WARN"),
        ({"temperature_c": 96}, {}, "CRITICAL"),
        ({"temperature_c": 70}, {"temperature_max_c": 65}, "CRITICAL"),
        ({"temperature_c": 65}, {"temperature_max_c": 65}, "PASS"),
        ({"temperature_c": 97}, {"temperature_max_c": 99}, "CRITICAL"),
        ({"temperature_c": None}, {}, "N/A"),
        ({"temperature_slowdown_c": None, "temperature_max_c": None}, {}, "PASS"),
    ],
)
def test_temperature(fields, expected, status):
    assert of_card("gpu_temperature", expected=expected, **fields).status == status


@pytest.mark.parametrize(
    ("fields", "status", "limit"),
    [
        ({"temperature_margin_c": 50}, "PASS", 0),
        ({"temperature_margin_c": 1}, "PASS", 0),
        ({"temperature_margin_c": 0}, "WARN", 0),
        ({"temperature_margin_c": -2}, "CRITICAL", -2),
        ({"temperature_margin_c": -5}, "CRITICAL", -2),
        ({"temperature_margin_c": 0, "temperature_tlimit_supported": False}, "INFO", None),
        (
            {
                "temperature_margin_c": -3,
                "temperature_tlimit_supported": None,
                "temperature_slowdown_margin_c": None,
            },
            "INFO",
            None,
        ),
        ({"temperature_margin_c": None}, "N/A", None),
    ],
)
def test_margin(fields, status, limit):
    health = of_card("gpu_temperature_margin", base=DATA_CENTRE, **fields)
    assert (health.status, health.limit) == (status, limit)


@pytest.mark.parametrize(
    ("check", "fields", "status"),
    [
        ("gpu_memory_temperature", {}, "N/A"),
        ("gpu_memory_temperature", {"temperature_memory_c": 60}, "PASS"),
        (
            "gpu_memory_temperature",
            {"temperature_memory_c": 94, "temperature_memory_max_c": 95},
            "PASS",
        ),
        (
            "gpu_memory_temperature",
            {"temperature_memory_c": 95, "temperature_memory_max_c": 95},
            "WARN",
        ),
        ("gpu_hw_slowdown", {"clocks_event_reasons": ["sw_power_cap", "gpu_idle"]}, "PASS"),
        ("gpu_hw_slowdown", {"clocks_event_reasons": ["hw_slowdown"]}, "WARN"),
        ("gpu_hw_slowdown", {"clocks_event_reasons": ["hw_thermal_slowdown"]}, "WARN"),
        ("gpu_hw_slowdown", {"clocks_event_reasons": ["hw_power_brake_slowdown"]}, "WARN"),
        ("gpu_hw_slowdown", {"clocks_event_reasons": None}, "N/A"),
        ("gpu_sw_thermal", {}, "PASS"),
        ("gpu_sw_thermal", {"clocks_event_reasons": ["sw_thermal_slowdown"]}, "INFO"),
        ("gpu_sw_thermal", {"clocks_event_reasons": None}, "N/A"),
        ("gpu_throttle_time", {}, "INFO"),
        ("gpu_throttle_time", {"throttle_ns": None}, "N/A"),
        ("gpu_throttle_time", {"throttle_ns": {"sw_power_cap": 5}}, "N/A"),
        ("gpu_power_draw", {}, "PASS"),
        ("gpu_power_draw", {"power_draw_watts": None}, "N/A"),
        ("gpu_power_limit", {}, "PASS"),
        ("gpu_power_limit", {"power_limit_watts": 150.0}, "INFO"),
        ("gpu_power_limit", {"power_limit_watts": None}, "N/A"),
        ("gpu_pcie_width", {}, "PASS"),
        ("gpu_pcie_width", {"pcie_link_width_current": 8}, "WARN"),
        ("gpu_pcie_width", {"pcie_link_width_current": 5}, "WARN"),
        ("gpu_pcie_width", {"pcie_link_width_current": 4}, "CRITICAL"),
        ("gpu_pcie_width", {"pcie_link_width_current": 8, "pcie_link_width_max": 8}, "PASS"),
        ("gpu_pcie_width", {"pcie_link_width_current": None}, "N/A"),
        ("gpu_pcie_generation", {}, "INFO"),
        ("gpu_pcie_generation", {"utilization_gpu_ratio": 0.5}, "WARN"),
        ("gpu_pcie_generation", {"utilization_gpu_ratio": 0.05}, "INFO"),  # a desktop's
        ("gpu_pcie_generation", {"utilization_gpu_ratio": 0.06}, "WARN"),
        ("gpu_pcie_generation", {"performance_state": 0}, "WARN"),
        (
            "gpu_pcie_generation",
            {"utilization_gpu_ratio": 0.5, "pcie_link_gen_current": 4},
            "PASS",
        ),
        (
            "gpu_pcie_generation",
            {"utilization_gpu_ratio": None, "performance_state": None},
            "UNKNOWN",
        ),
        ("gpu_pcie_generation", {"utilization_gpu_ratio": None}, "INFO"),
        ("gpu_pcie_generation", {"performance_state": None}, "INFO"),
        ("gpu_pcie_generation", {"pcie_link_gen_current": None}, "N/A"),
        ("gpu_pcie_slot", {}, "PASS"),
        ("gpu_pcie_slot", {"pcie_link_gen_gpu_max": 5}, "INFO"),
        ("gpu_pcie_slot", {"pcie_link_gen_gpu_max": None}, "N/A"),
        ("gpu_pcie_replays", {"pcie_replay_count": 4000}, "INFO"),
        ("gpu_pcie_replays", {"pcie_replay_count": None}, "N/A"),
    ],
)
def test_a_card(check, fields, status):
    assert of_card(check, **fields).status == status


def test_a_power_brake_points_at_the_power_supply():
    health = of_card("gpu_hw_slowdown", clocks_event_reasons=["hw_power_brake_slowdown"])
    assert "power supply" in health.remedy
    assert health.action == "service"


@pytest.mark.parametrize(
    ("found", "status"),
    [(250.0, "PASS"), (250.5, "PASS"), (250.6, "WARN"), (285.0, "WARN"), (150.0, "WARN")],
)
def test_the_power_limit_of_a_policy(found, status):
    policy = {"gpu_power_limit": {"limit": 250}}
    health = of_card("gpu_power_limit", policy=policy, power_limit_watts=found)
    assert (health.status, health.limit) == (status, 250)
    assert health.source == "policy: gpu_power_limit.limit"


def test_lanes_and_generation_of_a_policy():
    policy = {"gpu_pcie_width": {"limit": 8}, "gpu_pcie_generation": {"limit": 3}}
    assert of_card("gpu_pcie_width", policy=policy, pcie_link_width_current=8).status == "PASS"
    assert of_card("gpu_pcie_width", policy=policy, pcie_link_width_current=2).status == "CRITICAL"
    busy = {"utilization_gpu_ratio": 0.5, "policy": policy}
    assert of_card("gpu_pcie_generation", pcie_link_gen_current=3, **busy).status == "PASS"
    assert of_card("gpu_pcie_generation", pcie_link_gen_current=2, **busy).status == "WARN"


@pytest.mark.parametrize(
    ("lanes", "generation", "limit"),
    [(16, 1, 3), (16, 4, 16), (16, 6, 62), (8, 5, 16), (1, 1, 1), (16, 7, 62)],
)
def test_replays_that_a_healthy_link_may_have(lanes, generation, limit):
    assert replay_limit(lanes, generation) == limit


@pytest.mark.parametrize(
    ("before", "now", "status", "rate"),
    [
        (0, 180, "PASS", 3),  # 3 a minute in generation 1 with 16 lanes
        (0, 240, "WARN", 4),
        (1000, 1060, "PASS", 1),
        (1000, 600, "WARN", 10),  # the driver was loaded again
    ],
)
def test_the_rate_of_replays(before, now, status, rate):
    old = earlier(pcie_replay_count=before)
    health = of_card("gpu_pcie_replays", earlier=old, pcie_replay_count=now)
    assert (health.status, health.value, health.limit) == (status, rate, 3)


def test_a_window_under_a_minute_counts_as_one():
    old = {"time": NOW - 1, "gpus": [card()]}
    assert of_card("gpu_pcie_replays", earlier=old, pcie_replay_count=3).value == 3


def test_the_rate_of_a_policy():
    policy = {"gpu_pcie_replays": {"limit": 100}}
    health = of_card("gpu_pcie_replays", earlier=earlier(), policy=policy, pcie_replay_count=4000)
    assert (health.status, health.limit) == ("PASS", 100)


@pytest.mark.parametrize(
    "old",
    [
        {"time": AN_HOUR_AGO, "gpus": []},
        {"time": AN_HOUR_AGO, "gpus": [card(uuid="GPU-another", pcie_replay_count=0)]},
        earlier(pcie_replay_count=None),
    ],
)
def test_a_card_that_was_not_read_earlier_is_only_told(old):
    assert of_card("gpu_pcie_replays", earlier=old, pcie_replay_count=4000).status == "INFO"


def test_what_lacks_an_earlier_reading_says_why():
    hot = card(clocks_event_reasons=["sw_thermal_slowdown"])
    found = report(facts(hot), lacking="x.json does not exist yet")
    for check in ("gpu_pcie_replays", "gpu_throttle_time", "gpu_sw_thermal"):
        health = outcome(found, check)
        assert health.status == "INFO"
        assert "an earlier reading is needed (x.json does not exist yet)" in health.evidence


def test_a_rate_without_a_limit_is_unknown():
    for gone in ("pcie_link_gen_current", "pcie_link_width_current"):
        health = of_card("gpu_pcie_replays", earlier=earlier(), **{gone: None})
        assert health.status == "UNKNOWN"


def test_times_in_the_form_of_rfc_3339():
    old = {**earlier(), "time": "2026-11-18T11:05:40Z"}  # a minute ago
    assert of_card("gpu_pcie_replays", earlier=old, pcie_replay_count=4).value == 4


@pytest.mark.parametrize(
    ("seconds", "status", "ratio"), [(0, "PASS", 0), (36, "WARN", 0.01), (7200, "WARN", 1)]
)
def test_throttle_time(seconds, status, ratio):
    old = earlier(throttle_ns={"hw_thermal_slowdown": 10**9, "hw_power_brake_slowdown": 0})
    now = {"hw_thermal_slowdown": 10**9 + seconds * 10**9, "hw_power_brake_slowdown": 0}
    health = of_card("gpu_throttle_time", earlier=old, throttle_ns=now)
    assert (health.status, health.value) == (status, ratio)


def test_slowdowns_of_the_software_do_not_count():
    old = earlier(throttle_ns={"hw_thermal_slowdown": 0, "sw_power_cap": 0})
    now = {"hw_thermal_slowdown": 0, "sw_power_cap": 10**12}
    assert of_card("gpu_throttle_time", earlier=old, throttle_ns=now).status == "PASS"


def test_a_counter_that_the_earlier_reading_lacks_does_not_count():
    old = earlier(throttle_ns={"hw_thermal_slowdown": 0})
    now = {"hw_thermal_slowdown": 0, "hw_power_brake_slowdown": 10**12}
    assert of_card("gpu_throttle_time", earlier=old, throttle_ns=now).status == "PASS"


@pytest.mark.parametrize(
    ("minutes", "before", "status"),
    [
        (60, ["sw_thermal_slowdown"], "WARN"),
        (30, ["sw_thermal_slowdown"], "WARN"),
        (20, ["sw_thermal_slowdown"], "INFO"),
        (60, [], "INFO"),
    ],
)
def test_heat_that_stays(minutes, before, status):
    old = {"time": NOW - minutes * 60, "gpus": [card(clocks_event_reasons=before)]}
    health = of_card("gpu_sw_thermal", earlier=old, clocks_event_reasons=["sw_thermal_slowdown"])
    assert health.status == status
