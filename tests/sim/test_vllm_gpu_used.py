# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Does vllm.yml see where vLLM computes? The playbook, with stand-ins on a simulated GPU.

What would install and start services, and the gateways, are stubs; who looks at the GPUs is not.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from gpu_machine import SIM, build
from vllm_standin import GIB, start_vllm

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
ROLE = ROOT / "roles" / "vllm"
STUBS = ("prepare", "plan", "service")


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    if not shutil.which("gcc"):
        pytest.skip("gcc is needed to build the simulated NVML")
    return build(tmp_path_factory.mktemp("sim_gpu"))


@pytest.fixture
def site(libraries, tmp_path, monkeypatch):
    """A copy of the collection with stubs in the place of what needs a host."""
    (tmp_path / "activity").mkdir()
    monkeypatch.setenv("SIM_GPU_ACTIVITY_DIR", str(tmp_path / "activity"))
    monkeypatch.setenv("SIM_NVML_PROFILE", str(SIM / "profiles" / "rtx-4070-ti-x2.conf"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries))
    copy = tmp_path / "ansible_collections" / "hx_infra" / "llm"
    shutil.copytree(ROLE, copy / "roles" / "vllm")
    for name in ("plugins", "playbooks", "meta", "galaxy.yml"):
        (copy / name).symlink_to(ROOT / name)
    facts = {"prepare": {"__vllm_plan": {"services": "{{ given }}"}},
             "plan": {"vllm_interruption": ["restart"]}, "service": {"started": True}}  # fmt: skip
    for name in STUBS:
        stub = [{"name": name, "ansible.builtin.set_fact": facts[name]}]
        (copy / "roles" / "vllm" / "tasks" / f"{name}.yml").write_text(yaml.safe_dump(stub))
    traffic = copy / "roles" / "traffic" / "tasks"
    traffic.mkdir(parents=True)
    for name in ("main", "drain", "undrain"):
        told = {"traffic_to_return": ["gw-01"], "traffic_drained": True, "traffic_look": {}}
        stub = [{"name": f"Stub of {name}", "ansible.builtin.set_fact": told}]
        (traffic / f"{name}.yml").write_text(yaml.safe_dump(stub))
    return tmp_path


def vllm_yml(site, hosts):
    """Run vllm.yml for hosts, one after another; return its status and what it says."""
    given = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    groups = {"llm_hosts": {"hosts": hosts}, "llm_gateway": {"hosts": {"gw-01": {}}}}
    inventory = {"all": {"children": groups, "vars": given}}
    (site / "hosts.json").write_text(json.dumps(inventory))
    venv = str(Path(sys.executable).parents[1])
    more = {"ansible_become": False, "llm_venv": venv, "__vllm_gpu_seconds": 3}
    book = site / "ansible_collections" / "hx_infra" / "llm" / "playbooks" / "vllm.yml"
    ended = subprocess.run(
        [str(PLAYBOOK), "-i", str(site / "hosts.json"), str(book), "-e", json.dumps(more)],
        cwd=site,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_COLLECTIONS_PATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, " ".join((ended.stdout + ended.stderr).split())


def service(engine, name="qwen3", **more):
    """What the plan says of a service."""
    return {
        "name": name,
        "unit": f"citadel-llm@{name}.service",
        "host": "127.0.0.1",
        "port": engine.port,
        "serves": True,
        "served_names": ["m", "m:latest"],
        "api_key": False,
        **more,
    }


def task(said, name, host):
    """Return what a task said of a host; empty when it said nothing of it."""
    found = re.findall(r"TASK \[(?:[^]]* : )?([^]]+)\] \*+(.*?)(?=TASK \[|PLAY)", said)
    return " ".join(text for title, text in found if title == name and f"[{host}" in text)


def test_a_service_that_computes_on_the_cpu_fails_the_playbook_and_gets_no_requests(site):
    """The engines of the fourth host say that they have a GPU, and that they have none."""
    with (
        start_vllm(site, held=6 * GIB) as healthy,
        start_vllm(site) as idle,
        start_vllm(site, metrics="cpu") as processors,
    ):
        member = service(idle, port=1, serves=False)
        fourth = [member, service(idle), service(processors, "phi4")]
        hosts = {
            "llm-01": {"given": [service(healthy)], "llm_gpus": {"count": 2}},
            "llm-02": {"given": [service(idle)], "llm_vllm_build": "cpu"},
            "llm-03": {"given": [service(idle)], "llm_gpus": {"count": 0}},
            "llm-04": {"given": fourth},
            "llm-05": {"given": [service(healthy)]},
        }
        status, said = vllm_yml(site, hosts)
        assert status != 0, said
        assert healthy.streams == 2  # the proof, and the answer that is watched
    shown = task(said, "Show what the engines and the GPUs said", "llm-01")
    assert "llm-01 citadel-llm@qwen3.service: PASS, 573 blocks of GPU cache" in shown
    assert re.search(r"GPU 1: 80 % busy, VLLM::EngineCore \(pid \d+\) holds 6.44 GB", shown)
    why = "Say why nobody looks whether a GPU computes"
    for host, reason in (
        ("llm-02", "vllm_build is cpu"),
        ("llm-03", "the host is declared to have no GPU (count 0)"),
    ):
        assert f"{host}: whether a GPU computes is not looked at: {reason}" in task(said, why, host)
    look = task(said, "Look whether the GPUs compute what each service answers", "llm-04")
    wrong = "FAIL: llm-04 citadel-llm@{}.service m: gpu_used is 0, wanted 1 "
    assert wrong.format("qwen3") + "(the engine says 573 blocks of GPU cache" in look
    assert "but no process of the engine is on a GPU" in look
    assert wrong.format("phi4") + "(4.29 GB of cache in main memory" in look
    for host in ("llm-01", "llm-02", "llm-03"):
        assert f"ok: [{host}]" in task(said, "Stub of undrain", host)
    assert "ok: [" not in task(said, "Stub of undrain", "llm-04")
    assert "ok: [llm-05]" not in said  # the next host isn't touched


def test_the_role_itself_verifies_the_same():
    tasks = yaml.safe_load((ROLE / "tasks" / "verify.yml").read_text(encoding="utf-8"))
    assert tasks[-1]["ansible.builtin.import_tasks"] == "gpu_used.yml"
