# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._store_lock import StoreLock
from ansible_collections.hx_infra.llm.plugins.modules import engine_service

RESTART = [
    {"action": "reload_systemd", "target": "o.service", "say": "reload systemd"},
    {"action": "restart", "target": "o.service", "say": "restart o.service"},
]
START = [{"action": "start", "target": "o.service", "say": "start o.service"}]


@pytest.fixture
def module(tmp_path):
    """What the module's functions ask of Ansible's, with a store that another run holds."""
    params = {
        "unit": "o.service",
        "pull_store": str(tmp_path),
        "pull_wait_s": 0,
        "watch": [],
        "environment_file": str(tmp_path / "o.env"),
    }
    with StoreLock(str(tmp_path), "model_catalog"):
        yield SimpleNamespace(params=params, check_mode=False, run_command=None)


def outcome():
    return {"actions": [], "waits_for": [], "waited_s": 0.0}


def test_a_restart_while_a_run_holds_the_store_is_refused(module):
    result = outcome()
    with pytest.raises(HostError, match=r"o\.service was not restarted: model_catalog \(pid"):
        engine_service.guard(module, RESTART, result)
    assert len(result["waits_for"]) == 1


def test_check_mode_tells_the_same(module):
    module.check_mode = True
    with pytest.raises(HostError, match="was not restarted"):
        engine_service.guard(module, RESTART, outcome())
    module.params["pull_wait_s"] = 600
    result = outcome()
    engine_service.guard(module, RESTART, result)
    assert result["actions"][0] == "reload systemd"
    assert result["actions"][1].startswith("restart o.service (waits at most 600 s because model_")
    assert result["waited_s"] == 0.0


def test_the_wait_ends_with_the_refusal_or_with_the_pull(module, monkeypatch):
    module.params["pull_wait_s"] = 600
    answers = iter([(["a pull goes on"], 600.0), ([], 12.34)])
    monkeypatch.setattr(engine_service.pulls, "wait_for_pulls", lambda *_args: next(answers))
    with pytest.raises(HostError, match="had not ended after 600 s"):
        engine_service.guard(module, RESTART, outcome())
    result = outcome()
    engine_service.guard(module, RESTART, result)
    assert result["waited_s"] == 12.3


@pytest.mark.parametrize(("plan", "store"), [(START, True), ([], True), (RESTART, False)])
def test_what_breaks_nothing_off_is_not_guarded(module, plan, store):
    if not store:
        module.params["pull_store"] = None
    result = outcome()
    engine_service.guard(module, plan, result)
    assert result["waits_for"] == []


def run_command(command):
    if "show-environment" in command:
        return 0, "", ""
    path = command[-1]
    assert "EnvironmentFiles" in path
    return 0, f"EnvironmentFiles={run_command.file} (ignore_errors=no)\n", ""


def test_a_process_without_the_files_settings_is_out_of_date(module, tmp_path):
    """The process is this one: its environment is what the kernel keeps of its start."""
    file = tmp_path / "o.env"
    run_command.file = file
    module.run_command = run_command
    state = {"MainPID": str(os.getpid())}
    file.write_text("MODEL_X=x:1\nOLLAMA_MODELS_COUNT=1\n")
    assert engine_service.out_of_date(module, state, 9e9) == ([], [])
    file.write_text("HX_NOT_THERE=1\n")
    assert engine_service.out_of_date(module, state, 9e9) == ([], ["HX_NOT_THERE"])
    # A service that doesn't run can't be out of date; one that can't be asked is judged by time.
    assert engine_service.out_of_date(module, state, 0.0) == ([], [])
    gone = {"MainPID": "0"}
    assert engine_service.out_of_date(module, gone, 9e9) == ([], [])
    assert engine_service.out_of_date(module, gone, 1.0) == ([str(file)], [])
