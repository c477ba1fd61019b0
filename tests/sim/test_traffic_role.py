# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role traffic, run by ansible-playbook against real HAProxys on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract_http import free_port
from gateway_host import HAPROXY, Client, GatewayHost, wait_until
from harness import Ollama, start_ollama

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="no haproxy")

ROOT = Path(__file__).resolve().parent.parent.parent
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
MODEL = "tiny:1b"
VARS = ("declaration", "report", "traffic")
FILES = ("socket", "master_socket", "notes_file", "routes_file")
# A host that is there until a module is to run on it, and from then on isn't any more.
CUT_OFF = """
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local

DOCUMENTATION = '''
name: cut_off
short_description: A host that is lost
description: For a test.
extends_documentation_fragment: [connection_pipelining]
'''


class Connection(Local):
    transport = "cut_off"

    def put_file(self, source, target):
        if {module!r} in target:
            open({gone!r}, "w").close()
        self._there()
        return super().put_file(source, target)

    def exec_command(self, *args, **kwargs):
        self._there()
        return super().exec_command(*args, **kwargs)

    def _there(self):
        import os

        if os.path.exists({gone!r}):
            raise AnsibleConnectionFailure("No route to host")
"""


@pytest.fixture
def gateway() -> Iterator[GatewayHost]:
    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short
        host = GatewayHost(Path(folder))
        try:
            yield host
        finally:
            host.close()


@pytest.fixture
def gateways() -> Iterator[dict[str, GatewayHost]]:
    """Two gateways that are started."""
    with contextlib.ExitStack() as stack:
        found = {}
        for name in ("gw-01", "gw-02"):
            host = GatewayHost(Path(stack.enter_context(tempfile.TemporaryDirectory())))
            stack.callback(host.close)
            found[name] = host.start()
        yield found


@pytest.fixture
def ollama(tmp_path: Path) -> Iterator[Ollama]:
    with start_ollama(tmp_path) as host:
        yield host


def run_book(
    gateways: GatewayHost | dict[str, GatewayHost],
    book: dict[str, Any],
    *arguments: str,
    lost: str = "",
    lost_at: str = "gateway_traffic",
) -> subprocess.CompletedProcess[str]:
    """Run a play with these gateways; a single one is gw-01. A host may be lost at a module."""
    found = gateways if isinstance(gateways, dict) else {"gw-01": gateways}
    root = next(iter(found.values())).root
    hosts: dict[str, Any] = {"llm-01": {}, "llm-03": {}}
    for name, gateway in found.items():
        params = gateway.params()
        files = {key: str(params[key]) for key in (*FILES, "state_file")}
        hosts[name] = {"files": files}
    if lost:
        hosts[lost]["ansible_connection"] = "cut_off"
    none = dict.fromkeys(
        (*FILES, "state_file"), ""
    )  # tasks that aren't delegated have defaults too
    shared = {"ansible_connection": "local", "files": none}
    inventory = {"all": {"hosts": hosts, "vars": shared}}
    (root / "hosts.json").write_text(json.dumps(inventory))
    (root / "connection_plugins").mkdir(exist_ok=True)
    plugin = root / "connection_plugins" / "cut_off.py"
    plugin.write_text(CUT_OFF.format(gone=str(root / "gone"), module=lost_at))
    file = "{{ hostvars[__traffic_gateway | default(inventory_hostname)].files.%s }}"
    where = {name: file % name for name in FILES}
    whole = {
        "gather_facts": False,
        **book,
        "vars": {"ansible_python_interpreter": sys.executable, **book.get("vars", {})},
        "module_defaults": {
            "hx_infra.llm.gateway_info": where,
            "hx_infra.llm.gateway_traffic": {**where, "state_file": file % "state_file"},
        },
    }
    path = root / "play.yml"
    path.write_text(json.dumps([whole]))
    return subprocess.run(
        [str(PLAYBOOK), "-i", str(root / "hosts.json"), str(path), *arguments],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def play(
    gateways: GatewayHost | dict[str, GatewayHost],
    host: str,
    part: str,
    variables: dict[str, Any],
    *arguments: str,
    **how: Any,
) -> subprocess.CompletedProcess[str]:
    """Run a part of the role on a host."""
    cut = {name: how.pop(name) for name in ("lost", "lost_at") if name in how}
    role = {"name": "hx_infra.llm.traffic", "tasks_from": part}
    tasks = [{"name": part, "ansible.builtin.import_role": role, "vars": variables}]
    # As in the playbooks: a failure is everybody's, and a connection that is given up is none.
    book = {"hosts": host, "any_errors_fatal": True, "tasks": tasks, **how}
    return run_book(gateways, book, *arguments, **cut)


def said(result: subprocess.CompletedProcess[str]) -> str:
    return " ".join((result.stdout + result.stderr).split())


def statuses(gateway: GatewayHost, host: str) -> set[str]:
    return {status for name, status in gateway.statuses().items() if f"/{host}." in name}


def undrain(gateway: GatewayHost, ollama: Ollama) -> subprocess.CompletedProcess[str]:
    variables = {
        "traffic_gateways": ["gw-01"],
        "traffic_url": ollama.url,
        "traffic_models": [MODEL],
        "traffic_gpus": {"count": 0},  # as declared; the engine has none
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


BOTH = {"traffic_gateways": ["gw-01", "gw-02"], "traffic_budget": 20}


def test_a_host_is_drained_at_two_gateways_and_back_at_both(
    gateways: dict[str, GatewayHost],
) -> None:
    drained = play(gateways, "llm-01", "drain", BOTH)
    assert drained.returncode == 0, said(drained)
    assert [statuses(gateway, "llm-01") for gateway in gateways.values()] == [{"DRAIN"}] * 2
    again = play(gateways, "llm-01", "drain", BOTH)
    assert "changed=0" in again.stdout, said(again)
    back = play(gateways, "llm-01", "undrain", BOTH)
    assert back.returncode == 0, said(back)
    assert [statuses(gateway, "llm-01") for gateway in gateways.values()] == [{"UP"}] * 2


def test_a_second_gateway_that_refuses_is_told_with_what_stays_drained(
    gateways: dict[str, GatewayHost],
) -> None:
    gateways["gw-02"].run(
        "drained", host="llm-03", owner="operator"
    )  # llm-01 is the last one there
    result = play(gateways, "llm-01", "drain", BOTH)
    assert result.returncode != 0
    told = said(result)
    assert (
        "gw-02: draining llm-01 would leave no serving host for llama3.2:3b, qwen3:1.7b" in told
    ), told
    assert "stays drained: gw-01. It still takes requests from gw-02." in told, told
    assert "undrain.yml -l llm-01 brings it back" in told
    assert statuses(gateways["gw-01"], "llm-01") == {"DRAIN"}
    assert statuses(gateways["gw-02"], "llm-01") == {"UP"}


def test_a_gateway_that_is_lost_before_its_drain_ends_in_a_message(
    gateways: dict[str, GatewayHost],
) -> None:
    result = play(gateways, "llm-01", "drain", BOTH, lost="gw-02")
    assert result.returncode != 0
    told = said(result)
    assert "llm-01: could not be drained everywhere. gw-02 gives no answer:" in told, told
    assert "No route to host" in told
    assert "stays drained: gw-01. No answer from gw-02, where it may be drained." in told
    assert "unreachable=0 failed=1" in told
    assert "rescued=1" in told
    assert statuses(gateways["gw-01"], "llm-01") == {"DRAIN"}


def test_a_gateway_that_is_lost_before_the_plan_stops_the_run_with_a_message(
    gateways: dict[str, GatewayHost],
) -> None:
    result = play(gateways, "llm-01", "preflight", BOTH, lost="gw-02")
    assert result.returncode != 0
    told = said(result)
    assert "can't be drained for that: gw-02 gives no answer:" in told, told
    assert "Nothing was changed." in told
    assert "unreachable=0 failed=1" in told


def test_a_gateway_that_is_lost_before_the_way_back_ends_in_a_message(
    gateways: dict[str, GatewayHost],
) -> None:
    assert play(gateways, "llm-01", "drain", BOTH).returncode == 0
    result = play(gateways, "llm-01", "undrain", BOTH, lost="gw-02")
    assert result.returncode != 0
    told = said(result)
    assert "llm-01: could not be brought back everywhere. gw-02 gives no answer:" in told
    assert "It takes requests again from gw-01." in told
    assert "unreachable=0 failed=1" in told
    assert statuses(gateways["gw-01"], "llm-01") == {"UP"}
    assert statuses(gateways["gw-02"], "llm-01") == {"DRAIN"}


def test_a_gateway_that_gives_no_answer_at_all_ends_in_a_message(
    gateways: dict[str, GatewayHost],
) -> None:
    result = play(gateways, "llm-01", "undrain", BOTH, lost="gw-02", lost_at="gateway_info")
    assert result.returncode != 0
    told = said(result)
    assert "llm-01: can't be brought back at gw-02, which gives no answer:" in told, told
    assert "No route to host" in told
    assert "unreachable=0 failed=1" in told


def test_of_two_hosts_of_a_batch_that_hold_the_same_models_one_is_drained(
    gateway: GatewayHost,
) -> None:
    gateway.start()
    batch = {"serial": 2}
    variables = {"traffic_gateways": ["gw-01"]}
    # Both plans pass while nobody is drained; the drain itself sees what the other host has done.
    planned = play(gateway, "llm-01:llm-03", "preflight", variables, **batch)
    assert planned.returncode == 0, said(planned)
    result = play(gateway, "llm-01:llm-03", "drain", variables, **batch)
    assert result.returncode != 0
    told = said(result)
    assert told.count("would leave no serving host for llama3.2:3b, qwen3:1.7b") > 0
    assert "It still takes requests" in told
    found = {host: statuses(gateway, host) for host in ("llm-01", "llm-03")}
    assert sorted(map(sorted, found.values())) == [["DRAIN"], ["UP"]], found


def ollama_route(gateway: GatewayHost, model: str, *servers: dict[str, Any]) -> None:
    """Route one model alone, and start the gateway."""
    routed = [{"host": "llm-01", "weight": 10, **server} for server in servers]
    gateway.routes = [{"model": model, "backend": "m_tiny", "servers": routed}]
    gateway.routes_file.write_text(json.dumps(gateway.routes))
    gateway.write_config()
    gateway.start()


def test_a_declared_name_without_a_tag_is_held_as_latest(
    gateway: GatewayHost, ollama: Ollama
) -> None:
    assert ollama.post("/api/copy", {"source": MODEL, "destination": "tiny"}).status == 200
    server = {"name": "llm-01.ollama", "engine": "ollama", "address": "127.0.0.1"}
    ollama_route(gateway, "tiny", {**server, "port": ollama.port})
    gateway.run("drained", allow_last=True)
    variables = {
        "traffic_gateways": ["gw-01"],
        "traffic_url": ollama.url,
        "traffic_models": ["tiny", "absent", "tiny:2b"],
        "traffic_gpu_ratio": 0,
        "traffic_timeout": 3,
    }
    ollama.set_faults(wrong_answer="I would rather not")
    sick = play(gateway, "llm-01", "undrain", variables)
    assert sick.returncode != 0, "the model wasn't asked"
    assert "HX-OK" in said(sick)
    ollama.set_faults()
    result = play(gateway, "llm-01", "undrain", variables)
    assert result.returncode == 0, said(result)
    assert gateway.info()["servers"][0]["state"] == "ready"


def test_the_gate_asks_a_service_at_an_address_of_ipv6(
    gateway: GatewayHost, ollama: Ollama
) -> None:
    port = free_port()
    service = {"name": "llm-01.vllm.tiny", "engine": "vllm", "address": "::1", "port": port}
    write = gateway.write_config

    def with_a_way_in() -> None:
        write()
        way = f"listen six\n  bind [::1]:{port}\n  server one 127.0.0.1:{ollama.port} check\n"
        gateway.config.write_text(gateway.config.read_text() + way)

    gateway.write_config = with_a_way_in  # type: ignore[method-assign]
    ollama_route(gateway, MODEL, service)
    gateway.run("drained", allow_last=True)
    variables = {"traffic_gateways": ["gw-01"], "traffic_timeout": 10}
    result = play(gateway, "llm-01", "undrain", variables)
    assert result.returncode == 0, said(result)
    assert "Ask each model of the further services" in result.stdout
    assert gateway.info()["servers"][0]["state"] == "ready"


def ask(gateway: GatewayHost, model: str) -> None:
    Client(gateway.port, model).join(20)


def test_a_reload_in_a_shift_hides_no_error(gateway: GatewayHost, ollama: Ollama) -> None:
    place = {"address": "127.0.0.1", "port": ollama.port}
    old = {"name": "llm-01.ollama", "engine": "ollama", **place}
    new = {"name": "llm-01.vllm.tiny", "engine": "vllm", **place, "weight": 0}
    ollama_route(gateway, MODEL, old, new)
    ollama.set_faults(out_of_memory=True)
    for _request in range(3):
        ask(gateway, MODEL)
    ollama.set_faults()
    assert sum(row["errors"] for row in gateway.info()["servers"]) == 3

    def meddle() -> None:
        wait_until(lambda: gateway.rows()["m_tiny/llm-01.vllm.tiny"]["weight"] == "5", "a step")
        gateway.reload()
        ollama.set_faults(out_of_memory=True)
        ask(gateway, MODEL)
        ollama.set_faults()

    meddler = threading.Thread(target=meddle, daemon=True)
    meddler.start()
    variables = {
        "traffic_model": MODEL,
        "traffic_from": "ollama",
        "traffic_to": "vllm",
        "traffic_steps": [5, 10],
        "traffic_pause": 6,
        "traffic_timeout": 20,
        "traffic_gateway_url": ollama.url,  # this gateway routes POST alone
    }
    result = play(gateway, "gw-01", "shift", variables)
    meddler.join(20)
    told = said(result)
    assert result.returncode != 0, told
    assert "gw-01: HAProxy was reloaded since the earlier look" in told, told
    assert "stopped and taken back: gw-01: at 5 of 10 to vllm" in told
    assert "have 1 errors since the shift began; wanted none" in told
    assert {row["weight"] for row in gateway.rows().values()} == {"10", "0"}


@pytest.mark.parametrize(
    ("phase", "faults", "back"),
    [
        ("harden", {}, True),
        ("harden", {"wrong_answer": "I would rather not"}, False),
        ("services", {}, False),
    ],
    ids=["phase-6", "phase-6-and-the-gate", "an-earlier-phase"],
)
def test_a_drained_host_comes_back_after_a_failure_in_phase_6_if_it_passes_the_gate(
    gateway: GatewayHost, ollama: Ollama, phase: str, faults: dict[str, str], back: bool
) -> None:
    server = {"name": "llm-01.ollama", "engine": "ollama", "address": "127.0.0.1"}
    ollama_route(gateway, MODEL, {**server, "port": ollama.port})
    folder = gateway.root / "host"
    role = {"name": "hx_infra.llm.traffic", "tasks_from": "drain"}
    failed = {"failed_phase": phase, "failed_roles": ["traffic"], "failed_next_step": "Look there."}
    book = {
        "hosts": "llm-01",
        "any_errors_fatal": True,
        "vars_files": [str(ROOT / f"playbooks/vars/{name}.yml") for name in VARS],
        "vars": {
            "llm_base_dir": str(folder),
            **{f"llm_{name}_dir": f"{folder}/{name}" for name in ("scripts", "logs", "models")},
            "llm_engine_url": ollama.url,
            "llm_models": [{"name": MODEL}],
            "llm_report_dir": str(folder / "runs"),
            "llm_drain_allow_last": True,
            "traffic_gpu_ratio": 0,
            "traffic_timeout": 3,
        },
        "tasks": [
            {
                "name": "Phase",
                "block": [
                    {"name": "Drain", "ansible.builtin.import_role": role},
                    {"name": "Fail", "ansible.builtin.fail": {"msg": "no space on disk"}},
                ],
                "rescue": [
                    {
                        "name": "Failed",
                        "ansible.builtin.import_tasks": str(ROOT / "playbooks/tasks/failed.yml"),
                        "vars": failed,
                    }
                ],
            }
        ],
    }
    ollama.set_faults(**faults)
    more = json.dumps({"traffic_gateways": ["gw-01"], "run_report_on_host": False})
    result = run_book(gateway, book, "-e", more)
    told = said(result)
    assert result.returncode != 0, told
    assert f"llm-01: phase {phase} failed: no space on disk" in told, told
    assert statuses(gateway, "llm-01") == ({"UP"} if back else {"DRAIN"})
    [path] = (folder / "runs").glob("llm-01/*/run-record.json")
    failure = json.loads(path.read_text())["failure"]
    assert (failure["phase"], failure["drained"]) == (phase, not back)
    wanted = "proven healthy and takes requests again" if back else "undrain.yml -l llm-01"
    assert wanted in failure["next_step"]
