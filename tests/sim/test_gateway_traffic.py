# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""gateway_traffic and gateway_info with a real HAProxy and real streams on loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_host import HAPROXY, Client, Engine, GatewayHost, Load, wait_until
from relocate_host import killed

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_files import read_state

pytestmark = pytest.mark.skipif(not HAPROXY, reason="needs haproxy")

LLAMA, QWEN = "m_llama/llm-01.ollama", "m_qwen/llm-01.ollama"
CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def gateway() -> Iterator[GatewayHost]:
    """A started gateway; its directory has a short name because sockets' paths are limited."""
    root = Path(tempfile.mkdtemp(prefix="hx-gw-"))
    host = GatewayHost(root)
    try:
        yield host.start()
    finally:
        host.close()
        shutil.rmtree(root)


class Running(threading.Thread):
    """A run of the module beside the test."""

    def __init__(self, gateway: GatewayHost, state: str, **changes: Any) -> None:
        super().__init__(daemon=True)
        self._call = (gateway, state, changes)
        self.result: dict[str, Any] = {}
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        """Keep the result, or the error."""
        gateway, state, changes = self._call
        try:
            self.result = gateway.run(state, **changes)
        except HostError as error:
            self.error = error

    def end(self) -> dict[str, Any]:
        """Wait for the result."""
        self.join(30)
        assert not self.is_alive(), "the run does not end"
        assert self.error is None, self.error
        return self.result


def states(result: dict[str, Any]) -> dict[str, str]:
    return {f"{row['backend']}/{row['server']}": row["state"] for row in result["servers"]}


def drained(gateway: GatewayHost) -> bool:
    return gateway.statuses()[LLAMA] == gateway.statuses()[QWEN] == "DRAIN"


def all_whole(clients: list[Client]) -> bool:
    for client in clients:
        client.join(20)
    return all(client.ok for client in clients)


def test_drain_waits_for_the_last_stream_and_loses_nothing(gateway: GatewayHost) -> None:
    held = gateway.streams_on("llm-01")
    engine = gateway.engines["llm-01"]
    gateway.engines["llm-03"].release()
    running = Running(gateway, "drained")
    wait_until(lambda: drained(gateway), "both backends' servers are drained")
    before = engine.requests
    with Load(gateway, "llama3.2:3b") as load, Load(gateway, "qwen3:1.7b") as other:
        wait_until(lambda: load.done > 40 and other.done > 40, "answers while it drains")
        assert running.is_alive(), "it returned while streams were open"
        assert engine.requests == before, "a drained host got a new request"
        repeated = gateway.run("drained", budget=0)
        assert (repeated["changed"], repeated["plan"]) == (False, [])
        assert repeated["open_streams"] == sum(client.port == engine.port for client in held)
        gateway.release()
        result = running.end()
        again = gateway.run("drained")
    assert (load.failed, other.failed) == (0, 0)
    assert all_whole(held)
    assert (result["changed"], result["open_streams"], result["failure"]) == (True, 0, "")
    assert result["verdicts"][0]["status"] == "PASS"
    assert states(result) == {LLAMA: "drained", QWEN: "drained"}
    assert (result["drained_by"], result["drained_before"]) == ("remediate", False)
    assert (again["changed"], again["drained_before"]) == (False, True)
    assert again["noted_since"] == result["noted_since"] != ""
    assert engine.requests == before


def test_undrain_gives_requests_again_under_load(gateway: GatewayHost) -> None:
    gateway.run("drained")
    before = gateway.engines["llm-01"].requests
    with Load(gateway, "llama3.2:3b") as load:
        result = gateway.run("ready", only_owner=True)
        wait_until(lambda: gateway.engines["llm-01"].requests > before, "requests come back")
        again = gateway.run("ready", only_owner=True)
    assert load.failed == 0
    assert (result["changed"], result["drained_by"], result["drained_before"]) == (True, "", True)
    assert (again["changed"], again["actions"]) == (False, [])
    assert gateway.notes() == {}


@pytest.mark.parametrize("state", ["drained", "ready", "weighted"])
def test_check_mode_says_what_a_run_does_and_does_nothing(gateway: GatewayHost, state: str) -> None:
    gateway.run("drained", model="qwen3:1.7b")
    changes = {"weight": 3} if state == "weighted" else {}
    files = [gateway.state_file, gateway.notes_file]
    before = (gateway.rows(), [(file.read_bytes(), file.stat().st_ino) for file in files])
    predicted = gateway.run(state, check=True, **changes)
    assert before == (gateway.rows(), [(file.read_bytes(), file.stat().st_ino) for file in files])
    done = gateway.run(state, **changes)
    for key in ("changed", "actions", "plan", "diff", "drained_before", "drained_by", "last_for"):
        assert predicted[key] == done[key], key
    assert predicted.keys() == done.keys()
    assert states(predicted) == states(done)
    assert done["changed"]
    assert not gateway.run(state, **changes)["changed"]


def test_a_dry_run_plans_the_release_of_what_it_only_pretended_to_drain(
    gateway: GatewayHost,
) -> None:
    options = {"owner": "remediate", "only_owner": True}
    dry = gateway.run("ready", check=True, assume_drained="remediate", **options)
    gateway.run("drained")
    real = gateway.run("ready", **options)
    assert (dry["actions"], dry["plan"]) == (real["actions"], real["plan"])
    assert dry["changed"]


def test_streams_that_stay_fail_at_the_deadline(gateway: GatewayHost) -> None:
    held = gateway.streams_on("llm-01")
    result = gateway.run("drained", budget=1)
    open_ = sum(client.port == gateway.engines["llm-01"].port for client in held)
    assert f"llm-01 still has {open_} open streams, 0 queued after 1 s" in result["failure"]
    assert result["verdicts"][0]["status"] == "FAIL"
    assert drained(gateway), "the drain stands, so that the next run goes on"
    left = gateway.run("drained", budget=1, on_deadline="leave")
    assert (left["failure"], left["open_streams"], left["changed"]) == ("", open_, False)
    assert "still has" in left["warnings"][0]
    cut = gateway.run("drained", budget=0, on_deadline="cut")
    assert (cut["failure"], cut["open_streams"], cut["cut_streams"]) == ("", 0, open_)
    gateway.release()
    for client in held:
        client.join(20)
    assert sum(not client.ok for client in held) == open_, "others' streams were cut too"


def test_a_dead_host_counts_as_drained(gateway: GatewayHost) -> None:
    port = gateway.engines["llm-01"].port
    gateway.engines["llm-01"].stop()
    wait_until(lambda: gateway.statuses()[LLAMA] == gateway.statuses()[QWEN] == "DOWN", "DOWN")
    result = gateway.run("drained")
    assert (result["changed"], result["failure"]) == (True, "")
    assert states(result) == {LLAMA: "drained", QWEN: "drained"}
    assert {row["status"] for row in result["servers"]} == {"DOWN"}
    gateway.engines["llm-01"] = Engine(port)
    wait_until(lambda: drained(gateway), "it comes back drained")
    assert not gateway.run("drained")["changed"]


def test_waits_for_a_reloads_old_worker_before_it_drains(gateway: GatewayHost) -> None:
    held = gateway.streams_on("llm-01")
    gateway.reload()
    old = gateway.info()["old_workers"]
    assert [worker["open_streams"] for worker in old] == [len(held)]
    progress = gateway.root / "progress.json"
    running = Running(gateway, "drained", reload_wait=20, progress_file=str(progress))
    wait_until(progress.exists, "a word about its progress")
    told = json.loads(progress.read_text())
    assert (told["phase"], drained(gateway)) == ("before draining", False)
    assert f"a reload left old worker {old[0]['pid']}" in told["note"]
    gateway.release()
    assert running.end()["failure"] == ""
    assert drained(gateway)
    assert gateway.info()["old_workers"] == []
    assert all_whole(held)


def test_an_old_worker_that_stays_is_named_and_its_streams_count(gateway: GatewayHost) -> None:
    held = gateway.streams_on("llm-01")
    gateway.reload()
    pid = gateway.info()["old_workers"][0]["pid"]
    result = gateway.run("drained", reload_wait=0, budget=1)
    streams = sum(client.port == gateway.engines["llm-01"].port for client in held)
    assert drained(gateway)
    assert result["open_streams"] == streams
    assert f"a reload left old worker {pid} ({streams} streams of this host)" in result["failure"]
    cut = gateway.run("drained", reload_wait=0, budget=0, on_deadline="cut")
    assert (cut["cut_streams"], cut["open_streams"], cut["failure"]) == (streams, 0, "")
    assert str(pid) in " ".join(cut["warnings"])
    held_back = gateway.run("drained", reload_wait=0, budget=1)
    assert held_back["open_streams"] == 0
    assert f"old worker {pid} (0 streams" in held_back["failure"], "it may still give it requests"
    waited = Running(gateway, "drained")
    gateway.release()
    assert waited.end()["failure"] == ""
    assert gateway.info()["old_workers"] == []


@pytest.mark.parametrize("restart", [False, True])
def test_drains_and_weights_outlive_reload_and_restart(gateway: GatewayHost, restart: bool) -> None:
    gateway.run("drained", model="qwen3:1.7b")
    gateway.run("weighted", weight=3)
    gateway.run("weighted", host="llm-03", engine="vllm", weight=7)
    if restart:
        gateway.stop()
        gateway.start()
    else:
        gateway.reload(save=False)  # what the module has saved is enough
    rows = {
        f"{row['backend']}/{row['server']}": (row["state"], row["weight"])
        for row in gateway.info()["servers"]
    }
    assert rows[QWEN] == ("drained", 3)
    assert rows[LLAMA] == ("ready", 3)
    assert rows["m_llama/llm-03.vllm.tiny"] == ("ready", 7)
    assert not gateway.run("weighted", weight=3)["changed"]


def test_a_saved_state_does_not_bring_back_a_port_that_the_routes_have_left(
    gateway: GatewayHost,
) -> None:
    server = gateway.routes[0]["servers"][0]
    server["port"] = gateway.engines["vllm"].port
    gateway.routes_file.write_text(json.dumps(gateway.routes))
    gateway.write_config()
    gateway.run("weighted", host="llm-03", engine="vllm", weight=7)
    gateway.reload(save=False)
    [line] = [
        line
        for line in gateway.ask("show servers state").splitlines()
        if " m_llama " in line and " llm-01.ollama " in line
    ]
    assert f" {server['port']} " in line


def test_a_host_that_has_moved_is_named_and_not_drained_behind_another_ones_back(
    gateway: GatewayHost,
) -> None:
    first, second, *_more = gateway.routes[0]["servers"]
    first["address"], second["address"] = "moved-01", "moved-03"
    gateway.routes_file.write_text(json.dumps(gateway.routes))
    now = {"moved-01": {"192.0.2.1"}, "moved-03": {"127.0.0.1"}, "127.0.0.1": {"127.0.0.1"}}
    hooks = {"resolve": now.__getitem__}
    drained = gateway.run("drained", hooks=hooks)
    [warning] = [text for text in drained["warnings"] if "192.0.2.1" in text]
    place = f"127.0.0.1:{first['port']}; wanted moved-01:{first['port']}"
    assert f"gw-01: {LLAMA} goes to {place}, which is 192.0.2.1 now" in warning
    gateway.run("ready", hooks=hooks)
    first["port"] = second["port"]  # what llm-01 is now, HAProxy takes for llm-03
    gateway.routes_file.write_text(json.dumps(gateway.routes))
    hooks = {"resolve": {**now, "moved-01": {"127.0.0.1"}}.__getitem__}
    with pytest.raises(HostError, match=r"llm-01.ollama can't be drained: .* m_llama/llm-03"):
        gateway.run("drained", hooks=hooks)
    assert gateway.info()["notes"] == []


def test_info_names_a_server_that_goes_elsewhere_than_the_routes(gateway: GatewayHost) -> None:
    assert gateway.info()["moved"] == []
    gateway.routes[0]["servers"][0]["address"] = "127.0.0.9"
    gateway.routes_file.write_text(json.dumps(gateway.routes))
    [text] = gateway.info()["moved"]
    assert "m_llama/llm-01.ollama goes to 127.0.0.1" in text
    assert "wanted 127.0.0.9" in text


def test_a_weight_does_not_undrain_and_ready_keeps_the_weight(gateway: GatewayHost) -> None:
    gateway.run("drained")
    weighted = gateway.run("weighted", weight=2)
    assert weighted["changed"]
    assert drained(gateway)
    assert [row["weight"] for row in weighted["servers"]] == [2, 2]
    assert (weighted["drained_by"], gateway.notes()[LLAMA]) == ("remediate", "remediate")
    ready = gateway.run("ready")
    assert [(row["state"], row["weight"]) for row in ready["servers"]] == [("ready", 2)] * 2


def test_a_shift_by_weights_moves_the_requests(gateway: GatewayHost) -> None:
    model = "llama3.2:3b"
    with Load(gateway, model) as load:
        for name, weight in (("vllm", 10), ("ollama", 0)):
            gateway.run("weighted", host="llm-03", engine=name, model=model, weight=weight)
        gateway.run("weighted", model=model, weight=0)
        before = gateway.engines["vllm"].requests
        wait_until(lambda: gateway.engines["vllm"].requests > before + 20, "requests on vLLM")
    assert load.failed == 0
    assert gateway.statuses()[QWEN] == "UP"


def test_somebody_elses_drain_is_respected(gateway: GatewayHost) -> None:
    gateway.run("drained", owner="migration", model="qwen3:1.7b")
    gateway.ask(f"set server {LLAMA} state drain")  # by hand: no note
    ours = gateway.run("drained")
    assert (ours["changed"], ours["drained_by"], ours["drained_before"]) == (
        True,  # the drain by hand was not in the state file yet
        "migration",
        True,
    )
    assert [step["action"] for step in ours["plan"]] == ["save_state"]
    left = gateway.run("ready", only_owner=True)
    assert (left["changed"], states(left)) == (False, {LLAMA: "drained", QWEN: "drained"})
    assert left["left_alone"] == [
        {"server": LLAMA, "owner": ""},
        {"server": QWEN, "owner": "migration"},
    ]
    assert f"{QWEN} stays as it is, drained by migration, not by remediate" in left["warnings"][1]
    theirs = gateway.run("ready", owner="migration", only_owner=True)
    assert states(theirs) == {LLAMA: "drained", QWEN: "ready"}
    assert states(gateway.run("ready")) == {LLAMA: "ready", QWEN: "ready"}


def test_maintenance_is_left_as_it_is(gateway: GatewayHost) -> None:
    for target in (LLAMA, QWEN):
        gateway.ask(f"set server {target} state maint")
    result = gateway.run("drained", state_file="")
    assert (result["changed"], states(result)) == (False, {LLAMA: "maint", QWEN: "maint"})
    assert gateway.run("ready", state_file="")["changed"]
    assert gateway.statuses()[LLAMA] in ("UP", "UP 1/2")


def test_the_last_serving_host_is_not_taken_away(gateway: GatewayHost) -> None:
    gateway.run("drained", host="llm-03", model="qwen3:1.7b")
    gateway.ask("set server m_llama/llm-03.ollama weight 0")  # and its vLLM has weight 0
    before = gateway.statuses()
    for check in (True, False):
        with pytest.raises(HostError, match=r"no serving host for llama3.2:3b, qwen3:1.7b"):
            gateway.run("drained", check=check)
        with pytest.raises(HostError, match="weight 0 for llm-01 would leave"):
            gateway.run("weighted", check=check, weight=0)
    assert (gateway.statuses(), gateway.notes()) == (
        before,
        {"m_qwen/llm-03.ollama": "remediate"},
    )
    result = gateway.run("drained", allow_last=True)
    assert (result["changed"], result["last_for"]) == (True, ["llama3.2:3b", "qwen3:1.7b"])
    assert not gateway.run("drained")["changed"], "a drained host serves nobody"


def test_a_dead_host_does_not_serve(gateway: GatewayHost) -> None:
    gateway.engines["llm-03"].stop()
    down = "m_qwen/llm-03.ollama"
    wait_until(lambda: gateway.statuses()[down] == "DOWN", "llm-03 is down")
    with pytest.raises(HostError, match=r"no serving host for qwen3:1.7b"):
        gateway.run("drained", model="qwen3:1.7b")
    dead = gateway.run("drained", host="llm-03", model="qwen3:1.7b")
    assert (dead["changed"], dead["last_for"]) == (True, [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "llm-09"}, "does not know the host llm-09; .* hosts: llm-01, llm-03"),
        ({"host": "llm"}, "does not know the host llm; "),
        ({"server": "llm-09.ollama"}, "the server llm-09.ollama; .*: llm-01.ollama, llm-03.ollama"),
        ({"model": "nope"}, "the model nope; .* models: llama3.2:3b, qwen3:1.7b"),
        ({"engine": "vllm"}, r"a server of llm-01 \(vllm\); .*: m_llama/llm-01.ollama"),
    ],
)
def test_unknown_names_are_errors_that_list_the_known(
    gateway: GatewayHost, changes: dict[str, str], message: str
) -> None:
    for check in (True, False):
        with pytest.raises(HostError, match=message):
            gateway.run("drained", check=check, **changes)


def test_one_server_by_its_name(gateway: GatewayHost) -> None:
    result = gateway.run("drained", server="llm-03.vllm.tiny")
    assert states(result) == {"m_llama/llm-03.vllm.tiny": "drained"}
    assert "DRAIN" not in gateway.statuses()[LLAMA]


@pytest.mark.parametrize("state", ["drained", "ready", "weighted"])
def test_a_killed_run_is_completed_by_the_next(gateway: GatewayHost, state: str) -> None:
    changes = {"weight": 4} if state == "weighted" else {}
    if state == "ready":
        gateway.run("drained")
    start = (gateway.state_file, gateway.notes_file)
    kept = [file.read_bytes() if file.exists() else None for file in start]
    number = 0
    while True:
        number += 1
        seen = 0

        def on_step(_name: str, number: int = number) -> None:
            nonlocal seen
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

        hooks = {"on_step": on_step}
        if not killed(lambda hooks=hooks: gateway.run(state, hooks=hooks, **changes)):
            break
        gateway.run(state, only_owner=state == "ready", **changes)
        assert not gateway.run(state, **changes)["changed"]
        saved = read_state(str(gateway.state_file))
        for row in gateway.info()["servers"]:
            admin = saved[(row["backend"], row["server"])]
            assert (admin.name, admin.weight) == (row["state"], row["weight"])
        wanted = {LLAMA: "remediate", QWEN: "remediate"} if state == "drained" else {}
        assert gateway.notes() == wanted
        for target in (LLAMA, QWEN):  # back to where the killed run began
            gateway.ask(f"set server {target} state {'drain' if state == 'ready' else 'ready'}")
            gateway.ask(f"set server {target} weight 10")
        for file, content in zip(start, kept):
            if content is None:
                file.unlink(missing_ok=True)
            else:
                file.write_bytes(content)
    assert number >= 4, "the run was killed at no step"


def test_a_drain_that_a_reload_lost_is_set_again(gateway: GatewayHost) -> None:
    held = gateway.streams_on("llm-01")
    progress = gateway.root / "progress.json"
    running = Running(gateway, "drained", progress_file=str(progress))
    wait_until(progress.exists, "the streams are awaited")
    gateway.state_file.unlink()
    gateway.reload(save=False)
    wait_until(lambda: drained(gateway), "it is drained again")
    gateway.release()
    result = running.end()
    assert "a reload lost the drain" in result["warnings"][0]
    assert all_whole(held)


def test_a_drain_that_somebody_undid_is_an_error(gateway: GatewayHost) -> None:
    gateway.streams_on("llm-01")
    progress = gateway.root / "progress.json"
    running = Running(gateway, "drained", progress_file=str(progress))
    wait_until(progress.exists, "the streams are awaited")
    gateway.ask(f"set server {LLAMA} state ready")
    running.join(30)
    assert f"{LLAMA} got requests again" in str(running.error)


def test_a_stopped_haproxy_is_named_with_its_socket(gateway: GatewayHost) -> None:
    params = {"socket": f"{gateway.root}/none.sock"}
    with pytest.raises(HostError, match=r"none.sock: No such file.*haproxy.service is running"):
        gateway.run("drained", **params)
    with pytest.raises(HostError, match=r"master socket .*none.sock"):
        gateway.run("drained", master_socket=params["socket"])
    with pytest.raises(HostError, match=r"directory /nowhere of the state file"):
        gateway.run("drained", state_file="/nowhere/state")
    assert gateway.statuses()[LLAMA] == "UP"


def test_info(gateway: GatewayHost) -> None:
    gateway.run("drained")
    info = gateway.info()
    row = next(row for row in info["servers"] if row["server"] == "llm-01.ollama")
    assert (row["host"], row["engine"], row["serves"], row["model"]) == (
        "llm-01",
        "ollama",
        False,
        "llama3.2:3b",
    )
    assert (row["address"], row["port"]) == ("127.0.0.1", gateway.engines["llm-01"].port)
    assert info["models"] == [
        {"model": "llama3.2:3b", "backend": "m_llama", "serving": ["llm-03.ollama"]},
        {"model": "qwen3:1.7b", "backend": "m_qwen", "serving": ["llm-03.ollama"]},
    ]
    assert [(note["server"], note["owner"]) for note in info["notes"]] == [
        ("llm-01.ollama", "remediate")
    ] * 2
    assert info["workers"] == [info["worker"]]
    assert info["version"].split(".")[0].isdigit()
    gateway.ask(f"set server {LLAMA} state ready")
    assert len(gateway.info()["notes"]) == 1, "a note without a drain is no drain"


def fail_once(gateway: GatewayHost, name: str = "llm-01") -> None:
    """Let one request of the first model fail on a host's engine, and no other one."""
    gateway.engines[name].broken = True
    before = gateway.engines[name].requests
    while gateway.engines[name].requests == before:
        Client(gateway.port, "llama3.2:3b").join(20)
    gateway.engines[name].broken = False


def new_errors(info: dict[str, Any]) -> int:
    return sum(row["new_errors"] for row in info["servers"])


def test_errors_are_counted_across_a_reload(gateway: GatewayHost) -> None:
    fail_once(gateway)
    fail_once(gateway)
    first = gateway.info()
    assert first["error_counts"] == {str(first["worker"]): {LLAMA: 2}}
    assert "recounted" not in first
    since = {"worker": first["worker"], "error_counts": first["error_counts"]}
    same = gateway.info(since)
    assert (new_errors(same), same["recounted"]) == (0, [])
    fail_once(gateway)
    assert new_errors(gateway.info(since)) == 1
    gateway.reload()
    wait_until(lambda: not gateway.info()["old_workers"], "the old worker has ended")
    reloaded = gateway.info(since)
    assert new_errors(reloaded) == 0
    [told] = reloaded["recounted"]
    assert f"(worker {first['worker']} then, {reloaded['worker']} now)" in told
    fail_once(gateway)
    after = gateway.info(since)
    # Fewer than before the reload, and new all the same.
    assert sum(row["errors"] for row in after["servers"]) == 1
    assert new_errors(after) == 1


def test_cleared_counters_hide_no_error(gateway: GatewayHost) -> None:
    fail_once(gateway)
    fail_once(gateway)
    first = gateway.info()
    gateway.ask("clear counters all")
    fail_once(gateway)
    since = {"worker": first["worker"], "error_counts": first["error_counts"]}
    after = gateway.info(since)
    assert new_errors(after) == 1
    assert "were cleared since the earlier look" in after["recounted"][0]


def test_an_address_of_ipv6_gets_brackets_in_its_url(gateway: GatewayHost) -> None:
    gateway.routes[0]["servers"][0]["address"] = "::1"
    gateway.routes_file.write_text(json.dumps(gateway.routes))
    urls = {(row["backend"], row["server"]): row["url"] for row in gateway.info()["servers"]}
    port = gateway.engines["llm-01"].port
    assert urls["m_llama", "llm-01.ollama"] == f"http://[::1]:{port}"
    assert urls["m_qwen", "llm-01.ollama"] == f"http://127.0.0.1:{port}"
    assert f"wanted [::1]:{port}, which is ::1 now" in gateway.info()["moved"][0]


def test_a_host_is_known_by_the_routes_where_its_name_is_ambiguous(gateway: GatewayHost) -> None:
    server = gateway.routes[1]["servers"][0]
    server.update(name="gpu-1.vllm.ollama", host="gpu-1.vllm", engine="ollama")
    gateway.routes_file.write_text(json.dumps(gateway.routes))
    gateway.write_config()
    gateway.reload()
    result = gateway.run("drained", host="gpu-1.vllm")
    assert states(result) == {"m_qwen/gpu-1.vllm.ollama": "drained"}
    info = gateway.info()
    row = next(row for row in info["servers"] if row["server"] == "gpu-1.vllm.ollama")
    assert (row["host"], row["engine"]) == ("gpu-1.vllm", "ollama")
    assert [note["host"] for note in info["notes"]] == ["gpu-1.vllm"]


SOCAT = """#!{python}
import socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[-1].partition(":")[2])
link.sendall(sys.stdin.buffer.read())
while data := link.recv(65536):
    sys.stdout.buffer.write(data)
"""


def save_state(gateway: GatewayHost) -> subprocess.CompletedProcess[str]:
    """Run the program that the unit runs before a reload, with this gateway's paths."""
    program = CHECKOUT / "roles/gateway/files/usr/local/lib/hx-gateway/save-state"
    text = program.read_text()
    for found, wanted in (
        ("/run/haproxy/admin.sock", f"{gateway.root}/a.sock"),
        ("/var/lib/haproxy/server-state", str(gateway.state_file)),
        ("/etc/haproxy/haproxy.cfg", str(gateway.config)),
    ):
        assert text.count(found) == 1
        text = text.replace(found, wanted)
    socat = gateway.root / "socat"
    socat.write_text(SOCAT.format(python=sys.executable))
    socat.chmod(0o755)
    path = {**os.environ, "PATH": f"{gateway.root}:{os.environ['PATH']}"}
    return subprocess.run(
        ["/bin/sh", "-c", text], env=path, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_what_is_saved_before_a_reload_keeps_drains_and_takes_the_new_port(
    gateway: GatewayHost, address: str
) -> None:
    gateway.ask(f"set server {LLAMA} state drain")  # by hand: only the program can save it
    gateway.ask(f"set server {QWEN} weight 4")
    server = gateway.routes[0]["servers"][0]
    server.update(address=address, port=gateway.engines["vllm"].port)
    gateway.write_config()
    saved = save_state(gateway)
    assert (saved.returncode, saved.stderr) == (0, "")
    gateway.reload(save=False)
    rows = {f"{row['backend']}/{row['server']}": row for row in gateway.info()["servers"]}
    assert (rows[LLAMA]["state"], rows[QWEN]["weight"]) == ("drained", 4)
    [line] = [
        line
        for line in gateway.ask("show servers state").splitlines()
        if " m_llama " in line and " llm-01.ollama " in line
    ]
    assert f" {server['port']} " in line
    assert not list(gateway.root.glob("server-state.*"))


def test_a_reload_after_an_upgrade_runs_the_new_program_and_costs_nothing() -> None:
    root = Path(tempfile.mkdtemp(prefix="hx-gw-"))
    host = GatewayHost(root)
    try:
        host.program = str(root / "haproxy")
        shutil.copy(str(HAPROXY), host.program)
        host.start()
        host.run("drained", model="qwen3:1.7b")
        held = host.streams_on("llm-01")
        shutil.copy(str(HAPROXY), f"{host.program}.dpkg-new")
        os.replace(f"{host.program}.dpkg-new", host.program)
        assert host.process is not None
        running = Path(f"/proc/{host.process.pid}/exe")
        assert str(running.readlink()).endswith("(deleted)")
        host.reload()
        assert str(running.readlink()) == host.program
        assert str(Path(f"/proc/{host.info()['worker']}/exe").readlink()) == host.program
        assert host.statuses()[QWEN] == "DRAIN"
        host.release()
        assert all_whole(held)
    finally:
        host.close()
        shutil.rmtree(root)


def test_ansible_shows_the_open_streams(gateway: GatewayHost) -> None:
    held = gateway.streams_on("llm-01")
    params = gateway.params(state="drained", host="llm-01")
    names = ("host", "state", "socket", "master_socket", "state_file", "notes_file")
    arguments = {name: params[name] for name in (*names, "routes_file", "budget", "owner")}
    inventory = "gw-01 ansible_connection=local ansible_python_interpreter=" + sys.executable
    (gateway.root / "hosts").write_text(f"{inventory}\n")
    command = [f"{Path(sys.executable).parent}/ansible", "-i", str(gateway.root / "hosts")]
    command += ["gw-01", "-m", "hx_infra.llm.gateway_traffic", "-a"]
    command.append(" ".join(f"{name}={value}" for name, value in arguments.items()))
    shown = []
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            shown.append(line)
            if "open streams" in line:
                gateway.release()
    output = "".join(shown)
    assert running.returncode == 0, output
    open_ = sum(client.port == gateway.engines["llm-01"].port for client in held)
    assert f"gw-01 | draining llm-01 | {open_} open streams, 0 queued | " in output
    assert " s left" in output
    assert all_whole(held)
