# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os

import pytest
from gpu_health_samples import NOW, card, facts, outcome, report

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_earlier import (
    keep,
    recall,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy import merge

BOOT = "b" * 32
HOT = {"clocks_event_reasons": ["sw_thermal_slowdown"]}
DAY_S = 86400


def slowed(hw_s=0, sw_s=0):
    return {"hw_thermal_slowdown": hw_s * 10**9, "sw_thermal_slowdown": sw_s * 10**9}


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "health-counters.json")


def asked(path, found=None, *, age_s=3600.0, boot=BOOT, policy=None):
    """Ask for what was kept at NOW, that many seconds later."""
    return recall(path, found or facts(), boot, NOW + age_s, merge(policy, None, "fail"))


def judged(path, check, found, *, age_s=3600.0, policy=None):
    kept = asked(path, found, age_s=age_s, policy=policy)
    given = {"earlier": kept.reading, "lacking": kept.lacking, "policy": policy}
    return outcome(report(found, now=NOW + age_s, **given), check)


def test_a_bad_riser_is_told_by_the_second_run(path):
    bad = facts(card(pcie_replay_count=600_000))
    assert asked(path).replace
    first = judged(path, "gpu_pcie_replays", facts())
    assert first.status == "INFO"
    assert f"{path} does not exist yet" in first.evidence
    assert keep(path, facts(), BOOT, NOW) == ""
    health = judged(path, "gpu_pcie_replays", bad)
    assert (health.status, health.value, health.limit) == ("WARN", 10_000, 3)
    assert judged(path, "gpu_pcie_replays", facts()).status == "PASS"


def test_a_slowdown_of_the_hardware_since_the_last_run(path):
    keep(path, facts(card(throttle_ns=slowed())), BOOT, NOW)
    now = facts(card(throttle_ns=slowed(hw_s=36)))
    assert judged(path, "gpu_throttle_time", now).status == "WARN"


def test_only_counters_are_kept(path):
    keep(path, facts(card(**HOT), card(1, state="lost"), card(2, uuid=None)), BOOT, NOW)
    with open(path, encoding="utf-8") as file:
        kept = json.load(file)
    assert set(kept) == {"schema", "boot_id", "driver", "time", "gpus"}
    (gpu,) = kept["gpus"]
    assert set(gpu) == {"uuid", "clocks_event_reasons", "pcie_replay_count", "throttle_ns"}
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


@pytest.mark.parametrize(
    ("options", "words", "replace"),
    [
        ({"boot": "c" * 32}, "from before the last boot", True),
        ({"boot": ""}, "/proc does not say", False),
        (
            {"found": facts(driver={"version": "580.1"})},
            "from driver 575.64.03, now it is 580.1",
            True,
        ),
        ({"age_s": -1}, "a time that the clock has not reached", True),
        ({"age_s": 59}, "59 s old, wanted at least 60 s", False),
        ({"age_s": 30 * DAY_S + 1}, "older than 30 days", True),
        ({"found": facts(state="timeout", driver={}, gpus=[])}, "no GPU that works", False),
    ],
)
def test_a_reading_that_the_present_one_does_not_go_on_from(path, options, words, replace):
    keep(path, facts(), BOOT, NOW)
    kept = asked(path, **options)
    assert kept.reading is None
    assert words in kept.lacking
    assert kept.replace is replace


@pytest.mark.parametrize(
    ("age_s", "policy", "replace"),
    [
        (60, None, False),
        (1799, None, False),
        (1800, None, True),
        (30 * DAY_S, None, True),
        (1800, {"gpu_sw_thermal": {"limit": 60}}, False),
        (3600, {"gpu_sw_thermal": {"limit": 60}}, True),
        (1800, {"gpu_sw_thermal": {"enabled": False}}, True),
        (60, {"gpu_sw_thermal": {"limit": 0.1}}, True),
    ],
)
def test_it_grows_old_enough_for_every_check_before_it_is_replaced(path, age_s, policy, replace):
    keep(path, facts(), BOOT, NOW)
    kept = asked(path, age_s=age_s, policy=policy)
    assert kept.reading is not None
    assert (kept.lacking, kept.replace) == ("", replace)


@pytest.mark.parametrize(
    ("age_s", "slowed_s", "status"),
    [
        (1800, 1800, "WARN"),
        (1800, 1700, "WARN"),  # read a moment before or after
        (1800, 900, "INFO"),
        (1200, 1200, "INFO"),  # not long enough
        (10 * DAY_S, 10 * DAY_S, "WARN"),
        (10 * DAY_S, 3600, "INFO"),  # two runs under load, and days of rest in between
        (3600, None, "WARN"),  # a card without the counter
        (10 * DAY_S, None, "INFO"),
    ],
)
def test_heat_counts_only_where_it_lasted(path, age_s, slowed_s, status):
    counters = [None, None] if slowed_s is None else [slowed(), slowed(sw_s=slowed_s)]
    keep(path, facts(card(throttle_ns=counters[0], **HOT)), BOOT, NOW)
    now = facts(card(throttle_ns=counters[1], **HOT))
    assert judged(path, "gpu_sw_thermal", now, age_s=age_s).status == status


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "\udcff",
        '{"schema": 2}',
        '{"schema": 1, "boot_id": "b", "driver": "1", "time": "x", "gpus": []}',
        '{"schema": 1, "boot_id": "b", "driver": "1", "time": 1, "gpus": [{"uuid": 1}]}',
        '{"schema": 1, "boot_id": "b", "driver": "1", "time": 1, "gpus": [{"uuid": "g", '
        '"clocks_event_reasons": [], "pcie_replay_count": "4"}]}',
        '{"schema": 1, "boot_id": "b", "driver": "1", "time": 1, "gpus": [{"uuid": "g", '
        '"clocks_event_reasons": [], "throttle_ns": []}]}',
    ],
)
def test_a_file_that_is_none_of_ours_is_replaced(path, text):
    with open(path, "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    kept = asked(path)
    assert (kept.reading, kept.replace) == (None, True)
    assert kept.lacking == f"{path} holds no reading of this collection"


def test_what_another_account_puts_there_is_not_followed(path, tmp_path):
    secret = tmp_path / "secret"
    keep(str(secret), facts(), BOOT, NOW)
    os.symlink(secret, path)
    assert "can't be read" in asked(path).lacking
    os.unlink(path)
    os.mkfifo(path)  # would keep the reader waiting
    assert "holds no reading" in asked(path).lacking
    assert keep(path, facts(), BOOT, NOW) == ""
    assert asked(path).reading is not None


def test_a_directory_that_is_missing_is_told(tmp_path):
    path = str(tmp_path / "gone" / "health-counters.json")
    kept = asked(path)
    assert (kept.lacking, kept.replace) == (f"{path} does not exist yet", False)
    assert keep(path, facts(), BOOT, NOW) == "No such file or directory"
    assert not os.path.exists(os.path.dirname(path))
