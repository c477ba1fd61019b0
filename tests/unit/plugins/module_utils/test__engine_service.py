# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _engine_service as service

HEALTHY = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "no",
    "ActiveEnterTimestampMonotonic": "5000000",
}


@pytest.mark.parametrize(
    ("state", "changed", "newer", "wanted"),
    [
        ({}, False, [], []),
        ({}, True, [], ["reload_systemd", "restart"]),
        ({}, False, ["/etc/x"], ["restart"]),
        ({"NeedDaemonReload": "yes"}, False, ["/etc/x"], ["reload_systemd", "restart"]),
        ({"ActiveState": "failed"}, False, [], ["start"]),
        ({"ActiveState": "inactive", "UnitFileState": "disabled"}, False, [], ["enable", "start"]),
        (
            {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""},
            True,
            [],
            ["reload_systemd", "enable", "start"],
        ),
    ],
)
def test_plan(state, changed, newer, wanted):
    plan = service.plan("o.service", {**HEALTHY, **state}, True, changed, newer)
    assert [item["action"] for item in plan] == wanted


def test_an_environment_that_is_out_of_date_is_a_reason_for_a_restart():
    plan = service.plan("o", HEALTHY, True, False, [], outdated=["OLLAMA_HOST"])
    assert [item["action"] for item in plan] == ["restart"]


def test_only_a_restart_waits_for_pulls():
    stopped = service.plan("o", {**HEALTHY, "ActiveState": "failed"}, True, True, [])
    assert not service.interrupts(stopped)
    plan = service.plan("o", HEALTHY, True, True, [])
    assert service.interrupts(plan)
    assert [item["say"] for item in service.postponed(plan, "a pull goes on", 600)] == [
        "reload systemd",
        "restart o (waits at most 600 s because a pull goes on)",
    ]


def test_a_unit_that_need_not_start_at_boot_is_left_as_it_is():
    assert service.plan("o", {**HEALTHY, "UnitFileState": "disabled"}, False, False, []) == []


def test_commands_follow_the_plan():
    plan = service.plan("o.service", {**HEALTHY, "ActiveState": "failed"}, True, True, [])
    assert service.commands(plan) == [
        ["systemctl", "daemon-reload"],
        ["systemctl", "start", "o.service"],
    ]


def test_started_at_is_wall_clock_and_zero_for_a_stopped_service():
    assert service.started_at(HEALTHY, now=1000.0, monotonic=25.0) == 980.0
    assert service.started_at({**HEALTHY, "ActiveState": "failed"}, 1000.0, 25.0) == 0.0
    broken = {**HEALTHY, "ActiveEnterTimestampMonotonic": "n/a"}
    assert service.started_at(broken, 1000.0, 25.0) == 0.0


def test_newer_files_ignores_missing_ones(tmp_path):
    file = tmp_path / "unit"
    file.write_text("x")
    changed = os.stat(file).st_ctime
    paths = [str(file), str(tmp_path / "missing")]
    assert service.newer_files(paths, changed - 1) == [str(file)]
    assert service.newer_files(paths, changed + 1) == []


def test_parse_show_keeps_values_with_equals_signs():
    assert service.parse_show("A=b=c\nnothing\nD=\n") == {"A": "b=c", "D": ""}


def test_parse_environ_keeps_values_with_equals_signs_and_drops_what_is_no_assignment():
    content = b"A=b=c\0EMPTY=\0nothing\0\xff=\xfe\0"
    assert service.parse_environ(content) == {"A": "b=c", "EMPTY": "", "\ufffd": "\ufffd"}


@pytest.mark.parametrize(
    ("state", "seconds", "effective", "failed"),
    [
        ({}, 0.4, {"OLLAMA_MODELS": "/mnt"}, []),
        ({"ActiveState": "failed"}, 0.4, {"OLLAMA_MODELS": "/mnt"}, ["engine_active"]),
        ({}, 61.0, {"OLLAMA_MODELS": "/mnt"}, ["engine_ready"]),
        ({}, 0.4, {"OLLAMA_MODELS": "/data"}, ["effective_environment"]),
        ({}, 0.4, {}, ["effective_environment"]),
    ],
)
def test_judge_service(state, seconds, effective, failed):
    verdicts = service.judge_service(
        "o.service",
        {**HEALTHY, **state},
        seconds,
        60,
        wanted={"OLLAMA_MODELS": "/mnt"},
        effective=effective,
    )
    assert [verdict.check for verdict in verdicts if verdict.status == "FAIL"] == failed
    assert len(verdicts) == 3
