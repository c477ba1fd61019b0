# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.hx_infra.llm.plugins.plugin_utils import _progress

STATE = {"item": "qwen3:1.7b", "phase": "pulling", "done": 50, "total": 100}


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Action:
    """An action plugin on a host whose job ends after some looks at it."""

    def __init__(self, looks=3, check_mode=False, result=None, delegate_to=None):
        self._task = SimpleNamespace(check_mode=check_mode, async_val=0, delegate_to=delegate_to)
        shell = SimpleNamespace(tmpdir=None, join_path=lambda *parts: "/".join(parts))
        self._connection = SimpleNamespace(_shell=shell, reset=lambda: None)
        self.looks = looks
        self.result = {"changed": True, "actions": ["a"], **(result or {})}
        self.calls = []
        self.commands = []
        self.trouble = None
        self.gone = False

    def _make_tmp_path(self):
        self._connection._shell.tmpdir = "/tmp/ansible-tmp-1"  # noqa: S108

    def _execute_module(self, module_name, module_args, task_vars, wrap_async=False):
        self.calls.append((module_name, module_args, wrap_async, self._task.async_val))
        if module_name != "ansible.legacy.async_status":
            if not wrap_async:
                return dict(self.result)
            return {"ansible_job_id": "j1.2", "results_file": "/root/.ansible_async/j1.2"}
        if self.looks > 0:
            return {"started": True, "finished": False}
        return {**self.result, "ansible_job_id": "j1.2", "finished": True, "started": True}

    def _low_level_execute_command(self, command):
        self.commands.append(command)
        if self.trouble:
            raise self.trouble
        if "cmdline" in command:
            return {"stdout": "gone\n" if self.gone else ""}
        self.looks -= 1
        fingerprint = "1 1" if self.looks > 0 else "2 2"
        return {"stdout": f"{fingerprint}\n{json.dumps(STATE)}"}


@pytest.fixture
def shown(monkeypatch):
    lines = []
    display = SimpleNamespace(
        display=lines.append,
        vv=lambda text: None,
        warning=lambda text: lines.append(f"WARNING {text}"),
    )
    monkeypatch.setattr(_progress, "Display", lambda: display)
    monkeypatch.setattr(_progress, "time", Clock())
    return lines


def run(action, **more):
    options = {"deadline_s": 60.0, **more}
    return _progress.run_with_progress(
        action, "hx_infra.llm.slow", {"x": 1}, {"inventory_hostname": "llm-01"}, **options
    )


def test_a_long_module_runs_as_a_job_and_is_shown(shown):
    action = Action()
    assert run(action) == {"changed": True, "actions": ["a"]}
    assert shown == ["llm-01 | qwen3:1.7b | pulling 50 % | 50 of 100"]
    name, args, wrapped, limit = action.calls[0]
    assert (name, wrapped, limit) == ("hx_infra.llm.slow", True, 60 + _progress.KILL_GRACE_S)
    assert args == {"x": 1, "progress_file": "/tmp/ansible-tmp-1/progress.json"}  # noqa: S108
    assert action._task.async_val == 0


def test_a_delegated_job_is_shown_with_both_hosts_and_blamed_on_the_one_that_runs_it(shown):
    run(Action(delegate_to="gw-01"))
    assert shown == ["llm-01 at gw-01 | qwen3:1.7b | pulling 50 % | 50 of 100"]
    run(Action(delegate_to="llm-01"))
    assert shown[1].startswith("llm-01 | ")
    with pytest.raises(AnsibleActionFail, match=r"^gw-01 has not finished .* running on gw-01;"):
        run(Action(looks=10**6, delegate_to="gw-01"), deadline_s=5.0)


def test_job_and_progress_file_are_removed(shown):
    action = Action()
    run(action)
    progress = f"{action._connection._shell.tmpdir}/progress.json"
    assert action.commands[-1] == f"rm -f /root/.ansible_async/j1.2 {progress} {progress}.new"


def test_the_job_is_asked_for_only_when_its_file_changed(shown):
    action = Action(looks=10)
    run(action)
    asked = [call for call in action.calls if call[1].get("mode") == "status"]
    assert len(asked) == 2  # first look and last look


def test_the_result_of_a_failed_module_comes_back(shown):
    result = run(Action(result={"failed": True, "msg": "llm-01: no space"}))
    assert (result["failed"], result["msg"]) == (True, "llm-01: no space")


def test_check_mode_runs_at_once_and_shows_nothing(shown):
    action = Action(check_mode=True)
    assert run(action)["actions"] == ["a"]
    assert action.calls == [("hx_infra.llm.slow", {"x": 1}, False, 0)]
    assert shown == []


def test_the_deadline_leaves_the_job_and_says_so(shown):
    with pytest.raises(AnsibleActionFail, match=r"within 5 s\. The job j1\.2 .* left running"):
        run(Action(looks=10**6), deadline_s=5.0)


def test_a_killed_job_is_not_waited_for(shown):
    action = Action(looks=10**6)
    action.gone = True
    with pytest.raises(AnsibleActionFail, match=r"llm-01: the job j1\.2 .* without a result"):
        run(action, deadline_s=86400.0)
    assert len(action.commands) < 30
    assert any("grep -qs '[j]1' " in command for command in action.commands)


def test_a_quiet_job_is_waited_for(shown):
    action = Action(looks=40)
    assert run(action)["changed"]


def test_a_host_out_of_reach_is_asked_again_until_patience_ends(shown):
    action = Action()
    action.trouble = ConnectionError("no route to host")
    with pytest.raises(AnsibleActionFail, match=r"not answered for 121 s: no route.*left running"):
        run(action, deadline_s=600.0)


def test_a_job_that_does_not_start_is_reported_as_it_is(shown, monkeypatch):
    action = Action()
    monkeypatch.setattr(action, "_execute_module", lambda **_: {"failed": True, "msg": "no python"})
    assert run(action) == {"failed": True, "msg": "no python"}


def test_an_interrupt_names_the_job_that_is_left(shown, monkeypatch):
    action = Action()

    def interrupt(_command):
        raise KeyboardInterrupt

    monkeypatch.setattr(action, "_low_level_execute_command", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(action)
    assert "job j1.2 of hx_infra.llm.slow was left running on llm-01" in shown[0]
