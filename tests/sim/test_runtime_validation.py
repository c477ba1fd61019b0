# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role runtime_validation, run by ansible-playbook against the simulated Ollama.

systemd and its journal are stand-ins, two programs on the PATH that say what the test wants.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from contract_http import free_port
from harness import start_ollama
from integration_standins import listening, silent
from nightly_standins import http_server

ROOT = Path(__file__).resolve().parent.parent.parent
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
ONE, TWO = "tiny:1b", "tiny-think:1b"
UNIT = "ollama.service"
CPU = 'msg="inference compute" id=0 library=cpu total="31 GiB"\n'
GPU = 'msg="inference compute" id=GPU-1 library=cuda variant=v12 name="NVIDIA GeForce"\n'
NO_ROUTE = """
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local

DOCUMENTATION = '''
name: no_route
short_description: A host that is not there
description: For a test.
extends_documentation_fragment: [connection_pipelining]
'''


class Connection(Local):
    transport = "no_route"

    def _connect(self):
        raise AnsibleConnectionFailure("No route to host")
"""


class Host:
    """A host with an engine, stand-ins for systemd and its journal, and peers."""

    def __init__(self, folder, engine):
        self.folder = folder
        self.engine = engine
        self.bin = folder / "bin"
        self.bin.mkdir()
        (folder / "connection_plugins").mkdir()
        (folder / "connection_plugins" / "no_route.py").write_text(NO_ROUTE)
        self.unit()
        self.log(CPU)

    def program(self, name, text):
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def unit(self, **changed):
        pid = self.engine.process.popen.pid
        state = {
            "LoadState": "loaded",
            "ActiveState": "active",
            "SubState": "running",
            "UnitFileState": "enabled",
            "NeedDaemonReload": "no",
            "MainPID": pid,
            "NRestarts": 0,
            "Result": "success",
            "InvocationID": "abc",
            "MemoryCurrent": 12345678,
            "MemoryMax": "infinity",
            **changed,
        }
        (self.folder / "state").write_text(
            "".join(f"{name}={value}\n" for name, value in state.items())
        )
        self.program("systemctl", f"[ $1 = show ] && cat {self.folder}/state")

    def log(self, text):
        (self.folder / "log").write_text(text)
        self.program("journalctl", f"cat {self.folder}/log")

    def service(self, **changed):
        return {
            "name": "ollama",
            "kind": "ollama",
            "unit": UNIT,
            "url": self.engine.url,
            "listen": f"127.0.0.1:{self.engine.port}",
            "version": self.engine.version,
            "models": [{"name": ONE}, {"name": TWO}],
            "gpus": 0,
            **changed,
        }

    def play(self, *services, peers=(), arguments=(), more=None, **variables):
        """Run the role; return status, output in one line, and the registered result."""
        hosts = {
            "llm-01": {},
            "gw-01": {},
            "gone-01": {"ansible_connection": "no_route"},
            "odd-01": {"ansible_python_interpreter": "/none/python3"},
            "wrong-01": {"ansible_connection": "none_such"},
        }
        shared = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory = {"all": {"hosts": hosts, "vars": shared}}
        (self.folder / "hosts.json").write_text(json.dumps(inventory))
        shown = self.folder / "result.json"
        shown.unlink(missing_ok=True)
        given = {
            "runtime_validation_services": list(services or [self.service()]),
            "runtime_validation_peers": list(peers),
            "runtime_validation_timeout": 5,
            "runtime_validation_gpu_python": "/none/python",
            **variables,
        }
        role = {"name": "hx_infra.llm.runtime_validation"}
        result = "{{ __runtime_validation_result_check | to_json }}"
        keep = {
            "name": "Keep the result",
            "ansible.builtin.copy": {"content": result, "dest": str(shown)},
            "check_mode": False,
            "changed_when": False,
        }
        run = {"name": "Run", "ansible.builtin.import_role": role, "vars": given}
        tasks = [{"name": "Look", "block": [run], "always": [keep]}, *(more or [])]
        book = [{"hosts": "llm-01", "gather_facts": False, "tasks": tasks}]
        path = self.folder / "play.yml"
        path.write_text(json.dumps(book))
        done = subprocess.run(
            [str(PLAYBOOK), "-i", str(self.folder / "hosts.json"), str(path), *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                "PATH": f"{self.bin}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        found = json.loads(shown.read_text()) if shown.exists() else None
        return done.returncode, " ".join((done.stdout + done.stderr).split()), found


@pytest.fixture
def engine(tmp_path):
    with start_ollama(tmp_path / "engine") as started:
        yield started


@pytest.fixture
def host(tmp_path, engine):
    return Host(tmp_path, engine)


def status(result):
    return {verdict["check"]: verdict["status"] for verdict in result["verdicts"]}


def test_an_engine_that_runs_as_declared(host):
    rc, output, result = host.play()
    assert rc == 0, output
    assert set(status(result).values()) == {"PASS"}
    assert (result["changed"], result["plan"], result["actions"]) == (False, [], [])
    assert "changed=0" in output
    [service] = result["services"]
    assert service["main_pid"] == host.engine.process.popen.pid
    assert service["bound"] == [f"127.0.0.1:{host.engine.port}"]
    assert service["wildcard"] is False
    assert (service["version"], service["memory_bytes"]) == ("0.11.4", 12345678)
    assert service["models"] == [TWO, ONE]
    assert f"{UNIT} active {service['main_pid']} 12 MiB" in output


def test_nothing_is_loaded_and_a_dry_run_finds_the_same(host):
    rc, output, real = host.play(peers=["gw-01"])
    assert rc == 0, output
    rc, output, dry = host.play(peers=["gw-01"], arguments=["--check"])
    assert rc == 0, output
    assert "changed=0" in output
    assert dry["verdicts"] == real["verdicts"]
    assert host.engine.get("/api/ps").json()["models"] == []


def test_everything_that_is_wrong_is_told_in_one_message(host):
    host.unit(NRestarts=4, UnitFileState="disabled")
    wrong = host.service(
        version="0.12.0", listen=f"0.0.0.0:{host.engine.port}", models=[{"name": "phi3"}], gpus=2
    )
    rc, output, result = host.play(wrong)
    assert rc == 2
    grave = {name: value for name, value in status(result).items() if value != "PASS"}
    assert grave == {
        "unit_enabled": "WARN",
        "unit_restarts": "WARN",
        "bound_address": "FAIL",
        "api_version": "FAIL",
        "models": "FAIL",
        "gpus_visible": "FAIL",
    }
    message = output[output.index("FAILED!") :]
    for part in (
        f"FAIL: llm-01 {UNIT}: bound_address is 127.0.0.1, wanted 0.0.0.0",
        f"FAIL: llm-01 {UNIT}: api_version is 0.11.4, wanted 0.12.0",
        f"FAIL: llm-01 {UNIT}: gpus_visible is 0, wanted 2",
        "missing: phi3:latest",
    ):
        assert part in message
    assert "WARN" not in message.split("PLAY RECAP")[0]


def test_from_warnings_on(host):
    host.unit(NRestarts=4)
    assert host.play()[0] == 0
    rc, output, _result = host.play(runtime_validation_fail_on="WARN")
    assert rc == 2
    assert "unit_restarts is 4, wanted 0" in output
    assert host.play(host.service(version="9"), runtime_validation_fail_on="never")[0] == 0


def test_an_engine_whose_process_is_gone(host):
    host.engine.stop()
    host.unit(ActiveState="failed", SubState="failed", Result="exit-code", MainPID=0)
    rc, output, result = host.play(peers=["gw-01"])
    assert rc == 2
    assert status(result) == {"unit_active": "FAIL"}
    assert f"llm-01 {UNIT}: unit_active is failed, wanted active" in output


def test_an_active_unit_is_no_proof_of_an_engine(host):
    host.engine.stop()
    rc, output, result = host.play()
    assert rc == 2
    assert status(result)["unit_active"] == "PASS"
    assert status(result)["bound_port"] == "FAIL"
    assert status(result)["api_version"] == "FAIL"
    assert "bound_port is nobody listens" in output


def test_somebody_else_on_the_port(host):
    with http_server({"/api/version": (200, {"version": "0.11.4"})}) as there:
        port = int(there.url.rpartition(":")[2])
        other = host.service(url=there.url, listen=f"127.0.0.1:{port}")
        rc, output, result = host.play(other)
    assert rc == 2
    assert status(result)["bound_port"] == "FAIL"
    assert "bound_port is held by" in output
    assert f"(pid {os.getpid()}" in output


def test_an_engine_that_hangs_holds_nobody(host):
    with listening(silent) as port:
        hanging = host.service(url=f"http://127.0.0.1:{port}")
        rc, _output, result = host.play(hanging, runtime_validation_timeout=1)
    assert rc == 2
    assert status(result)["api_version"] == "FAIL"


def test_a_systemd_that_hangs_holds_nobody(host):
    host.program("systemctl", "sleep 300")
    rc, output, result = host.play(runtime_validation_timeout=1)
    assert rc == 2
    assert status(result) == {"unit_active": "FAIL", "api_version": "PASS", "models": "PASS"}
    assert "did not answer" in output


def test_the_gpus_that_the_log_of_the_start_names(host):
    host.log(GPU)
    rc, _output, result = host.play(host.service(gpus=1, min_gpu_ratio=0))
    assert status(result)["gpus_visible"] == "PASS"
    rc, output, result = host.play(host.service(gpus=2, min_gpu_ratio=0))
    assert rc == 2
    assert "gpus_visible is 1, wanted 2" in output


def test_a_loaded_model_on_the_cpu(host):
    host.engine.post("/api/generate", {"model": ONE, "prompt": "x", "stream": False})
    host.log(GPU)
    rc, output, result = host.play(host.service(gpus=1))
    assert rc == 2
    assert status(result)["gpu_placement"] == "FAIL"
    assert f"llm-01 {UNIT} {ONE}: gpu_placement is 0, wanted 1" in output


def reach(host, **changed):
    """Return a service that others have to reach; it listens on the loopback as a public one."""
    url = f"{host.engine.url}/api/version"
    return host.service(listen="", reach=url, **changed)


def test_a_peer_reaches_the_engine(host):
    rc, output, result = host.play(reach(host), peers=["gw-01"])
    assert rc == 0, output
    [verdict] = [item for item in result["verdicts"] if item["check"] == "reachable"]
    assert verdict["subject"] == f"{UNIT} from gw-01"
    assert (verdict["status"], verdict["value"]) == ("PASS", "an answer")


def test_a_peer_that_gets_no_answer(host):
    nowhere = reach(host) | {"reach": f"http://127.0.0.1:{free_port()}/api/version"}
    rc, output, _result = host.play(nowhere, peers=["gw-01"])
    assert rc == 2
    assert f"llm-01 {UNIT} from gw-01: reachable is no answer, wanted an answer" in output


def test_another_engine_under_the_hosts_address(host):
    with http_server({"/api/version": (200, {"version": "9.9.9"})}) as there:
        elsewhere = reach(host) | {"reach": f"{there.url}/api/version"}
        rc, output, _result = host.play(elsewhere, peers=["gw-01"])
    assert rc == 2
    assert "another engine answers under this address" in output


@pytest.mark.parametrize("lost", ["gone-01", "odd-01", "wrong-01"])
def test_a_lost_peer_ends_no_play_without_a_word(host, lost):
    after = [{"name": "After", "ansible.builtin.debug": {"msg": "the play goes on"}}]
    rc, output, result = host.play(reach(host), peers=[lost, "gw-01"], more=after)
    assert rc == 0, output
    assert "the play goes on" in output
    told = {v["subject"]: v["status"] for v in result["verdicts"] if v["check"] == "reachable"}
    assert told == {f"{UNIT} from {lost}": "WARN", f"{UNIT} from gw-01": "PASS"}
    assert f"{lost} could not be asked" in output


def test_no_peer_that_can_be_asked_is_a_failure(host):
    rc, output, result = host.play(reach(host), peers=["gone-01"])
    assert rc == 2
    assert f"llm-01 {UNIT} from gone-01: reachable is not known, wanted an answer" in output
    assert "No route to host" in output
    assert status(result)["api_version"] == "PASS"


def test_two_services_are_both_told(host):
    listed = {"data": [{"id": "qwen3"}]}
    answers = {"/version": (200, {"version": "0.32.0"}), "/v1/models": (200, listed)}
    with http_server(answers) as there:
        vllm = {
            "name": "qwen3",
            "kind": "openai",
            "unit": "citadel-llm@qwen3.service",
            "url": there.url,
            "version": "0.32.0",
            "models": [{"name": "qwen3"}],
            "own_process": False,
            "gpus": 0,
            "reach": f"{there.url}/version",
        }
        rc, output, result = host.play(reach(host), vllm, peers=["gw-01"])
    assert rc == 0, output
    assert [service["name"] for service in result["services"]] == ["ollama", "qwen3"]
    told = [v["subject"] for v in result["verdicts"] if v["check"] == "reachable"]
    assert told == [f"{UNIT} from gw-01", "citadel-llm@qwen3.service from gw-01"]


def test_a_declaration_that_cannot_be_used(host):
    rc, output, _result = host.play(host.service(url="llm-01:11434"))
    assert rc == 2
    assert "llm-01: url is 'llm-01:11434', wanted http://host:port" in output
    rc, output, _result = host.play(host.service(models=[{"digest": "1"}]))
    assert rc == 2
    assert "wanted a mapping with name" in output


def test_a_key_that_others_can_read_is_refused(host):
    key = host.folder / "key"
    key.write_text("sk-Lab-Key")
    key.chmod(0o644)
    rc, output, _result = host.play(host.service(key_file=str(key)))
    assert rc == 2
    assert "has mode 0644" in output
    assert "sk-Lab-Key" not in output


def test_a_host_without_services(host):
    rc, output, _result = host.play(runtime_validation_services=[])
    assert rc == 0, output
    assert "llm-01: no services are declared" in output


def test_the_playbook_makes_the_services_from_the_declaration(host):
    declared = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "ansible_become": False,
        "llm_address": "127.0.0.1",
        "llm_engine_listen": f"127.0.0.1:{host.engine.port}",
        "llm_engine_url": host.engine.url,
        "llm_ollama_version": "0.11.4",
        "llm_models": [{"name": ONE, "slo": {"ttft_ms": 1}}, {"name": TWO}],
        "llm_gpus": {"count": 0},
    }
    inventory = {"llm_hosts": {"hosts": {"llm-01": declared}}}
    (host.folder / "site.json").write_text(json.dumps(inventory))
    given = {"hx_runtime_peers": [], "hx_runtime_fail_on": "FAIL"}
    argv = [str(PLAYBOOK), "-i", str(host.folder / "site.json"), "playbooks/validate_runtime.yml"]
    done = subprocess.run(
        [*argv, "-e", json.dumps(given)],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "PATH": f"{host.bin}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    told = " ".join(done.stdout.split())
    assert done.returncode == 0, told + done.stderr
    assert f"127.0.0.1:{host.engine.port} 0.11.4 2" in told
    assert "changed=0" in told
