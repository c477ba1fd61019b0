# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role vllm does with a group whose other hosts are elsewhere: its own tasks, stubbed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TASKS = ROOT / "roles" / "vllm" / "tasks"
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
STUBS = ("install", "models", "configure", "container_or_not")


def item(name, apart):
    group = {"apart": apart, "together": "-e llm_serial=2 -l llm-01,llm-02"} if apart else {}
    return {"name": name, "unit": f"citadel-llm@{name}.service", "group": group}


def step(name, apart, *actions):
    """What the service's module plans, as the role registers it."""
    plan = [{"action": action, "target": name} for action in actions]
    return {"__vllm_item": item(name, apart), "plan": plan, "actions": [*actions]}


@pytest.fixture
def judge(tmp_path):
    """Run the last task of the preflight, and what it includes; returns the finished process."""

    def run(*planned):
        for name in STUBS:
            touch = {"name": name, "ansible.builtin.file": {"path": str(tmp_path / "made"),
                     "state": "touch", "mode": "0644"}}  # fmt: skip
            (tmp_path / f"{name}.yml").write_text(yaml.safe_dump([touch]))
        given = {"__vllm_planned_services": {"results": list(planned)}}
        facts = [{"name": "plan", "ansible.builtin.set_fact": given}]
        (tmp_path / "plan.yml").write_text(yaml.safe_dump(facts))
        shutil.copy(TASKS / "group.yml", tmp_path)
        last = yaml.safe_load((TASKS / "preflight.yml").read_text(encoding="utf-8"))[-1]
        services = [planned_one["__vllm_item"] for planned_one in planned]
        play = {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {"__vllm_plan": {"services": services}, "__vllm_batch": ["llm-01"]},
            "tasks": [last],
        }
        (tmp_path / "play.yml").write_text(json.dumps([play]))
        return subprocess.run(
            [
                str(PLAYBOOK),
                "-c",
                "local",
                "-i",
                "localhost,",
                str(tmp_path / "play.yml"),
                "-e",
                f"ansible_python_interpreter={sys.executable}",
            ],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_restart_of_one_host_of_a_group_is_refused_while_nothing_was_changed(judge, tmp_path):
    ended = judge(step("big", ["llm-02"], "switch_release", "restart"), step("own", [], "restart"))
    said = " ".join(ended.stdout.split())
    assert ended.returncode != 0, said
    assert "citadel-llm@big.service would have to restart (switch_release, restart)" in said
    assert "llm-02 of its group would not: not in this batch (llm-01)" in said
    assert "Run with: -e llm_serial=2 -l llm-01,llm-02" in said
    assert not (tmp_path / "made").exists()


def test_a_run_that_changes_nothing_for_the_group_goes_on(judge, tmp_path):
    ended = judge(step("big", ["llm-02"]), step("own", [], "restart"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert not (tmp_path / "made").exists()


def test_without_such_a_group_nothing_is_judged(judge):
    ended = judge(step("own", [], "restart"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "skipping: [localhost]" in ended.stdout


def test_the_role_tells_the_plan_which_hosts_are_worked_on_together(tmp_path):
    group = {"hosts": ["h1", "h2"]}
    services = [{"name": "big", "service": {"port": 18001, "group": group},
                 "model": {"path": str(tmp_path / "none")}}]  # fmt: skip
    variables = {"vllm_services": services, "vllm_build": "cpu", "vllm_address": "127.0.0.1"}

    def said(serial, entry):
        role = {"name": "hx_infra.llm.vllm", "tasks_from": entry}
        task = {"name": "Enter", "ansible.builtin.import_role": role, "vars": variables}
        play = {"hosts": "all", "gather_facts": False, "serial": serial, "tasks": [task]}
        (tmp_path / "play.yml").write_text(json.dumps([play]))
        given = f"ansible_python_interpreter={sys.executable}"
        ended = subprocess.run(
            [PLAYBOOK, "-c", "local", "-i", "h1,h2,", tmp_path / "play.yml", "-e", given],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode != 0  # there is no such model
        text = " ".join(ended.stdout.split())
        assert "services[big].model" in text, text
        return text

    assert "h2 not in this batch (h1)" in said(1, "preflight")
    assert "-e llm_serial=2 -l h1,h2" in said(1, "preflight")
    assert "not in this batch" not in said(2, "preflight")
    assert "not in this batch" not in said(1, "verify")
