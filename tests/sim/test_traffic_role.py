# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role traffic, run by ansible-playbook against a real HAProxy on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract_http import free_port
from gateway_host import HAPROXY, GatewayHost
from harness import Ollama, start_ollama

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="no haproxy")

ROOT = Path(__file__).resolve().parent.parent.parent
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
MODEL = "tiny:1b"


@pytest.fixture
def gateway() -> Iterator[GatewayHost]:
    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short
        host = GatewayHost(Path(folder))
        try:
            yield host
        finally:
            host.close()


@pytest.fixture
def ollama(tmp_path: Path) -> Iterator[Ollama]:
    with start_ollama(tmp_path) as host:
        yield host


def play(
    gateway: GatewayHost, host: str, part: str, variables: dict[str, Any], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a part of the role on a host; the one gateway is gw-01."""
    files = ("socket", "master_socket", "notes_file", "routes_file")
    where = {name: value for name, value in gateway.params().items() if name in files}
    role = {"name": "hx_infra.llm.traffic", "tasks_from": part}
    book = {
        "hosts": host,
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable},
        "module_defaults": {
            "hx_infra.llm.gateway_info": where,
            "hx_infra.llm.gateway_traffic": {**where, "state_file": str(gateway.state_file)},
        },
        "tasks": [{"name": part, "ansible.builtin.import_role": role, "vars": variables}],
    }
    path = gateway.root / "play.yml"
    path.write_text(json.dumps([book]))
    return subprocess.run(
        [
            *(str(PLAYBOOK), "-i", "gw-01,llm-01,", "-e", "ansible_connection=local"),
            *(str(path), *arguments),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def undrain(gateway: GatewayHost, ollama: Ollama) -> subprocess.CompletedProcess[str]:
    variables = {
        "traffic_gateways": ["gw-01"],
        "traffic_url": ollama.url,
        "traffic_models": [MODEL],
        "traffic_gpu_ratio": 0,
        "traffic_timeout": 3,
    }
    return play(gateway, "llm-01", "undrain", variables)


@pytest.mark.parametrize("reached", [True, False])
def test_a_host_is_back_when_the_gateway_finds_it(
    gateway: GatewayHost, ollama: Ollama, reached: bool
) -> None:
    server = {
        "name": "llm-01.ollama",
        "host": "llm-01",
        "engine": "ollama",
        "address": "127.0.0.1",
        "port": ollama.port if reached else free_port(),
        "weight": 10,
    }
    gateway.routes = [{"model": MODEL, "backend": "m_tiny", "servers": [server]}]
    gateway.routes_file.write_text(json.dumps(gateway.routes))
    gateway.write_config()
    gateway.start()
    gateway.run("drained", allow_last=True)
    result = undrain(gateway, ollama)
    told = " ".join((result.stdout + result.stderr).split())
    assert (result.returncode == 0) is reached, told
    if not reached:
        assert f"the gateway gw-01 finds llm-01.ollama {MODEL} DOWN; wanted UP" in told
    assert gateway.info()["servers"][0]["state"] == "ready"


def test_a_dry_shift_passes_the_steps_of_a_real_one(gateway: GatewayHost) -> None:
    # One server on each side: without the new one's weight, the old one is the last that serves.
    del gateway.routes[0]["servers"][1]
    gateway.routes_file.write_text(json.dumps(gateway.routes))
    gateway.write_config()
    gateway.start()
    before = gateway.rows()
    variables = {
        "traffic_model": "llama3.2:3b",
        "traffic_from": "ollama",
        "traffic_to": "vllm",
        "traffic_steps": [1, 10],
    }
    result = play(gateway, "gw-01", "shift", variables, "--check")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "changed=2" in result.stdout
    assert gateway.rows() == before


def test_a_shift_that_is_done_is_not_begun_anew(gateway: GatewayHost) -> None:
    gateway.start()
    gateway.run("weighted", host="llm-03", engine="vllm", model="llama3.2:3b", weight=10)
    for host in ("llm-01", "llm-03"):
        gateway.run("weighted", host=host, engine="ollama", model="llama3.2:3b", weight=0)
    variables = {
        "traffic_model": "llama3.2:3b",
        "traffic_from": "ollama",
        "traffic_to": "vllm",
        "traffic_steps": [1, 10],
    }
    result = play(gateway, "gw-01", "shift", variables, "--check")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "changed=0" in result.stdout
