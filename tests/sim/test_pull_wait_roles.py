# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The wait before a drain: where the phases have it, and for what the roles do it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ansible_collections.hx_infra.llm.plugins.module_utils._store_lock import StoreLock

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"


def entries(phase):
    """Return the roles that a phase enters, and where, in order."""
    [block] = yaml.safe_load((ROOT / f"playbooks/tasks/{phase}.yml").read_text())
    roles = [task.get("ansible.builtin.import_role", {}) for task in block["block"]]
    return [(role["name"].rpartition(".")[2], role.get("tasks_from")) for role in roles if role]


@pytest.mark.parametrize(
    ("phase", "role", "plan"),
    [("services", "ollama", "plan"), ("storage", "storage_topology", "preflight")],
)
def test_a_phase_waits_between_its_plan_and_the_drain(phase, role, plan):
    order = [(role, plan), (role, "wait"), ("traffic", "drain"), (role, None)]
    assert [entry for entry in entries(phase) if entry in order] == order


def planned(action):
    return {"plan": [{"action": action, "target": "o.service"}]}


def test_only_what_would_be_broken_off_is_waited_for(tmp_path):
    """Each host's store is held by a run; those that would break nothing off pass."""
    given = {
        "ollama": {
            "restarts": {"__ollama_planned_service": planned("restart")},
            "starts": {"__ollama_planned_service": planned("start")},
            "unplanned": {"__ollama_planned_service": {"skipped": True}},
        },
        "storage_topology": {
            "moves": {"__storage_topology_planned_store": planned("stop")},
            "mounts": {"__storage_topology_planned_mount": planned("stop")},
            "links": {"__storage_topology_planned_store": planned("link")},
        },
    }
    store = {"ollama_models_dir": str(tmp_path), "storage_topology_store_now": str(tmp_path)}
    waits = {"ollama_pull_wait": 0, "storage_topology_pull_wait": 0}
    hosts = {name: host for role in given.values() for name, host in role.items()}
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory = {"all": {"hosts": hosts, "vars": {**local, **store, **waits}}}
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))
    plays = [
        {
            "hosts": list(found),
            "gather_facts": False,
            "tasks": [
                {
                    "name": "Wait",
                    "ansible.builtin.import_role": {
                        "name": f"hx_infra.llm.{role}",
                        "tasks_from": "wait",
                    },
                }
            ],
        }
        for role, found in given.items()
    ]
    (tmp_path / "play.yml").write_text(json.dumps(plays))
    with StoreLock(str(tmp_path), "model_catalog"):
        done = subprocess.run(
            [str(PLAYBOOK), "-i", str(tmp_path / "hosts.json"), str(tmp_path / "play.yml")],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    output = done.stdout + done.stderr
    failed = dict(re.findall(r"^(\w+) +: ok=.* failed=(\d)", output, re.MULTILINE))
    assert failed == {
        **{"restarts": "1", "starts": "0", "unplanned": "0"},
        **{"moves": "1", "mounts": "1", "links": "0"},
    }, output
    assert "the restart of ollama.service was not begun: model_catalog (pid" in output
    assert output.count("the stop of ollama.service was not begun: model_catalog (pid") >= 2
