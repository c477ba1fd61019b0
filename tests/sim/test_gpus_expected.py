# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What phases 5 and 6 do on a host by its declaration: GPUs, none, or nothing said."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_gpu_used import MODEL, libraries, start

__all__ = ["libraries", "start"]  # fixtures

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
VARS = ("declaration", "engines")
DECLARED = {
    "cpu-01": {"llm_gpus": {"count": 0}, "telemetry_textfile_dir": "/srv/exporter"},
    "gpu-01": {"llm_gpus": {"count": 2}, "llm_textfile_dir": "/srv/all"},
    "new-01": {"llm_gpus": {}},
}
FOLDERS = {"cpu-01": "/srv/exporter", "gpu-01": "/srv/all", "new-01": "/var/lib/hxmon/textfile"}


def entered(phase, role):
    """Return how the playbooks enter a role: the task, with its variables."""
    [block] = yaml.safe_load((ROOT / f"playbooks/tasks/{phase}.yml").read_text())
    tasks = [task for task in block["block"] if "ansible.builtin.import_role" in task]
    [found] = [task for task in tasks if task["ansible.builtin.import_role"]["name"] == role]
    return found


def play(folder, tasks, *arguments, **given):
    """Run tasks on all three hosts; return what each of them said, in one line.

    What is given holds for all; a host's own is under its name, with an underscore.
    """
    shared = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {
        name: {**declared, **given.pop(name.replace("-", "_"), {})}
        for name, declared in DECLARED.items()
    }
    inventory = {"all": {"hosts": hosts, "vars": {**shared, **given}}}
    (folder / "hosts.json").write_text(json.dumps(inventory))
    files = [str(ROOT / f"playbooks/vars/{name}.yml") for name in VARS]
    book = {"hosts": "all", "gather_facts": False, "vars_files": files, "tasks": tasks}
    (folder / "play.yml").write_text(json.dumps([book]))
    done = subprocess.run(
        [str(PLAYBOOK), "-i", str(folder / "hosts.json"), str(folder / "play.yml"), *arguments],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return " ".join((done.stdout + done.stderr).split())


def recap(said, host):
    counted = re.findall(rf"{host} : (.*?ignored=\d+)", said)[-1]
    return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", counted)}


def test_gpus_that_cannot_be_read_fail_unless_none_are_declared(start, tmp_path):
    """The engine claims a GPU that nothing on the host reads; without GPUs it says the CPU."""
    said = play(
        tmp_path,
        [entered("validate", "hx_infra.llm.inference_validation")],
        "--tags=inference_validation_inference",
        llm_engine_url=start().url,
        cpu_01={"llm_engine_url": start("0.32.15", cpu_only=True).url},
        llm_models=[{"name": MODEL}],
        llm_venv=str(tmp_path),
    )
    for host in ("gpu-01", "new-01"):
        assert f"FAIL: {host} {MODEL}: gpu_used is 1, wanted 1 (size_vram 3.22 of 3.22 GB" in said
        assert recap(said, host)["failed"] == 1
    assert "nvidia-smi is not installed; GPUs are expected and have to be readable" in said
    assert recap(said, "cpu-01")["failed"] == 0, said


def test_telemetry_and_the_nightly_test_of_a_host_without_gpus(tmp_path):
    telemetry = entered("harden", "hx_infra.llm.telemetry")
    nightly = entered("harden", "hx_infra.llm.nightly_smoke")["vars"]["nightly_smoke_textfile_dir"]
    told = f"{{{{ inventory_hostname }}}} folder {nightly} timers {{{{ hx_timers | join(' ') }}}}."
    debug = {"name": "Say it", "ansible.builtin.debug": {"msg": told}, "tags": ["always"]}
    said = play(tmp_path, [telemetry, debug], "--check", "--diff", "--tags=telemetry_service")
    for host, folder in FOLDERS.items():
        both = "" if host == "cpu-01" else "gpu-telemetry.timer "
        assert f"{host} folder {folder} timers {both}nightly-smoke.timer." in said, said
        changed = 0 if host == "cpu-01" else 2  # it would be started, and take a first sample
        assert {"changed": changed, "failed": 0}.items() <= recap(said, host).items(), said


@pytest.mark.parametrize("role", ["telemetry", "nightly_smoke"])
def test_all_metrics_go_to_one_directory(role):
    given = entered("harden", f"hx_infra.llm.{role}")["vars"]
    assert given[f"{role}_textfile_dir"] == "{{ hx_textfile_dir }}"
