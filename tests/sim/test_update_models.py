# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""update_models.yml on a simulated engine and registry, behind a real HAProxy."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from contract_http import call
from gateway_host import HAPROXY, GatewayHost, wait_until
from harness import FAST, Ollama, Registry, start_ollama, start_registry
from module_process import run_module
from sim_ollama.make_models import SETS, build
from sim_ollama.store import Store
from test_traffic_role import run_book, said, statuses

from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import read_store

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="no haproxy")

ROOT = Path(__file__).resolve().parent.parent.parent
GOOD, SLOW, SAME = "tiny:1b", "tiny-think:1b", "tiny-same:1b"
REFUSED, ROTTEN, BLIND = "tiny-refused:1b", "tiny-rotten:1b", "tiny-blind:1b"
SPECS = {spec.name: spec for spec in [*SETS["tiny"], SETS["tiny"][0]._replace(name=SAME)]}
PLAYS = ROOT / "playbooks/update_models.yml"
IMPORT = "ansible.builtin.import_tasks"
# Whatever the machine is busy with: the slow version takes 40 times as long for a token.
LOAD = {
    "iterations": 5,
    "num_predict": 8,
    "calibrate": False,
    "sample_resources": False,
    "cv_limit": 0,
    "loop_lag_limit_ms": 1e6,
    "overhead_limit_ms": 1e6,
}
SPEED, SLOWLY = 100.0, 2.5


class Update:
    """llm-01 with three models, of which two have moved; everything that it writes is below."""

    def __init__(self, folder: Path, ollama: Ollama, registry: Registry, gateway: GatewayHost):
        self.folder, self.ollama, self.registry, self.gateway = folder, ollama, registry, gateway
        self.env_file = folder / "llm-01/config/ollama/ollama.env"
        self.env_file.parent.mkdir(parents=True)
        self.env_file.write_text('OLLAMA_MODELS="/mnt/active_llm_models"\n')
        self.speed = 0.0
        self.specs = dict(SPECS)
        self.old = {name: self.digest(name) for name in SPECS}
        self.new = {name: self.move(name) for name in (GOOD, SLOW)}
        self.declared: dict[str, Any] = {
            "llm_base_dir": str(folder),
            "llm_logs_dir": f"{folder}/logs/services/ollama",
            "llm_state_dir": f"{folder}/state",
            "llm_store_dir": str(ollama.store),
            "llm_engine_url": ollama.url,
            "llm_models": [{"name": name} for name in SPECS],
            "llm_registry": registry.host,
            "llm_registry_insecure": True,
            "llm_reserve_bytes": 1024,
            "llm_report_dir": f"{folder}/runs",
            "llm_drain_allow_last": True,
            "llm_benchmark_options": LOAD,
            "llm_update_metrics": ["tpot_ms"],
            "llm_update_fail_percent": 500,
            "hx_gateways": ["gw-01"],
            "traffic_gpu_ratio": 0,
            "traffic_timeout": 30,
        }

    def add(self, *names: str) -> None:
        """Let the host have further models, of which the registry has another version."""
        for name in names:
            self.specs[name] = SPECS[GOOD]._replace(name=name)
            self.old[name] = str(build(self.specs[name], Store(self.ollama.store))["digest"])
            self.new[name] = self.move(name)

    def declare(self, *names: str) -> None:
        """Declare these models, and no other one."""
        self.declared["llm_models"] = [{"name": name} for name in names]

    def newer(self, name: str) -> Any:
        """Return another version of a model, with other weights."""
        return self.specs[name]._replace(license="gemma", blocks=9)

    def move(self, name: str) -> str:
        """Let the registry have another version of a model; return its digest."""
        return str(build(self.newer(name), Store(self.registry.store))["digest"])

    def digest(self, name: str) -> str:
        model = read_store(str(self.ollama.store)).find(parse_name(name))
        return model.digest if model else ""

    def names(self) -> list[str]:
        return sorted(str(item.name) for item in read_store(str(self.ollama.store)).models.values())

    def follow(self, stop: threading.Event) -> None:
        """Let the engine be slow as long as it has the slow version."""
        known = ""
        while not stop.wait(0.02):
            found = self.digest(SLOW)
            if found and found != known:
                known = found
                speed = SPEED if found == self.old[SLOW] else SLOWLY
                self.ollama.set_config({**FAST, "models": {SLOW: {"tokens_per_second": speed}}})
                self.speed = speed

    def measure(self, name: str) -> None:
        """Measure the version in use as the playbook does before it pulls another one."""
        args = {
            **LOAD,
            "url": self.ollama.url,
            "models": [{"name": name}],
            "baseline": {
                "directory": f"{self.folder}/logs/services/ollama/perf/baselines",
                "set": f"update-{self.old[name][:12]}",
            },
        }
        result = run_module("inference_benchmark", args)
        assert not result.get("failed"), result["msg"]

    def cut_off(self, name: str) -> None:
        """Leave what a run leaves that is killed after its pull: nobody has judged."""
        self.measure(name)
        where = {"store": str(self.ollama.store), "url": self.ollama.url}
        kept = run_module(
            "model_version", {"name": name, "state_dir": f"{self.folder}/state", **where}
        )
        assert kept["changed"], kept
        build(self.newer(name), Store(self.ollama.store))
        if name == SLOW:
            wait_until(lambda: self.speed == SLOWLY, "the slow version")

    @contextlib.contextmanager
    def when_stalled(self, act: Callable[[], None]) -> Iterator[None]:
        """Do something while a pull stands still."""
        done = threading.Event()

        def wait() -> None:
            while not done.wait(0.05):
                if call("GET", f"{self.registry.url}/sim/requests").json()["stalled"]:
                    act()
                    return

        thread = threading.Thread(target=wait)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def tree(self) -> dict[str, tuple[int, bytes]]:
        """Return the files of the host, without the controller's records, and their content."""
        return {
            str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
            for root in (self.folder, self.ollama.store)
            for path in sorted(root.rglob("*"))
            if self.folder / "runs" not in (path, *path.parents)
        }

    def look(self) -> dict[str, Any]:
        """Return what is known of the updates."""
        args = {
            "models": self.declared["llm_models"],
            "store": str(self.ollama.store),
            "url": self.ollama.url,
            "registry": self.registry.host,
            "registry_insecure": True,
            "state_dir": f"{self.folder}/state",
        }
        return run_module("model_update_info", args)

    def run(
        self, *arguments: str, hosts: str = "llm-01", lost: str = "", **extra: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run the playbook; a host may be lost before it begins."""
        update, end = map(self.here, yaml.safe_load(PLAYS.read_text()))
        second = self.gateway.root / "end.yml"  # a playbook of its own, run_book takes one play
        second.write_text(json.dumps([end]))
        if lost:
            (self.gateway.root / "gone").touch()
        given = json.dumps({**self.declared, "target": hosts, **extra})
        arguments = (str(second), "-e", given, *arguments)
        return run_book(self.gateway, update, *arguments, lost=lost)

    @staticmethod
    def here(play: dict[str, Any]) -> dict[str, Any]:
        """Return a play of the playbook as one that stands elsewhere, and is no other user's."""
        folder = PLAYS.parent
        return {
            **play,
            "become": False,
            "vars_files": [str(folder / name) for name in play["vars_files"]],
            "tasks": [{**task, IMPORT: str(folder / task[IMPORT])} for task in play["tasks"]],
        }


@pytest.fixture
def update(tmp_path: Path) -> Iterator[Update]:
    with tempfile.TemporaryDirectory() as short:  # a socket's path must be short
        gateway = GatewayHost(Path(short))
        registry = start_registry(tmp_path)
        ollama = start_ollama(tmp_path, env={"OLLAMA_NOPRUNE": "1"})
        for store in (registry.store, ollama.store):
            build(SPECS[SAME], Store(store))
        server = {"name": "llm-01.ollama", "host": "llm-01", "engine": "ollama", "weight": 10}
        server.update(address="127.0.0.1", port=ollama.port)
        gateway.routes = [{"model": GOOD, "backend": "m_tiny", "servers": [server]}]
        gateway.routes_file.write_text(json.dumps(gateway.routes))
        gateway.write_config()
        gateway.start()
        stop = threading.Event()
        found = Update(Path(short) / "host", ollama, registry, gateway)
        follower = threading.Thread(target=found.follow, args=(stop,))
        follower.start()
        try:
            wait_until(lambda: found.speed, "the engine's first speed")
            yield found
        finally:
            stop.set()
            follower.join()
            gateway.close()
            ollama.stop()
            registry.stop()


def test_better_ones_stay_worse_ones_go_back_and_what_was_cut_off_is_completed(
    update: Update,
) -> None:
    update.cut_off(SLOW)
    before, calls = update.tree(), len(update.ollama.log())
    update.registry.forget()
    told = said(dry := update.run("--check"))
    assert dry.returncode == 0, told
    assert f"PLANNED: llm-01, {GOOD}: the registry has {update.new[GOOD][:12]}." in told, told
    assert f"PLANNED: llm-01, {SLOW}: it was updated from {update.old[SLOW][:12]}, and " in told
    assert f"UNCHANGED: llm-01, {SAME}: the registry has the same version." in told, told
    assert update.tree() == before
    assert "POST" not in update.ollama.log()[calls:]  # not a prompt
    assert "DELETE" not in update.ollama.log()[calls:]
    assert all("/manifests/" in asked for asked in update.registry.counts())
    assert statuses(update.gateway, "llm-01") == {"UP"}
    assert update.gateway.notes() == {}
    result = update.run()
    told = said(result)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"ACCEPTED: llm-01, {GOOD}: not worse by more than 500 %" in told, told
    assert f"ROLLED BACK: llm-01, {SLOW}: worse by more than 500 %: TPOT +" in told, told
    assert f"UNCHANGED: llm-01, {SAME}: the registry has the same version." in told, told
    assert update.digest(GOOD) == update.new[GOOD]
    assert update.digest(SLOW) == update.old[SLOW]
    assert update.names() == sorted(SPECS)
    assert statuses(update.gateway, "llm-01") == {"UP"}
    file = update.env_file.read_text()
    assert f'"{GOOD}"' in file, file
    assert update.new[GOOD][:12] in file, file
    # What was given up is not tried again, and nothing is left to be decided.
    entries = {entry["name"]: entry for entry in update.look()["models"]}
    assert {name: entry["todo"] for name, entry in entries.items()} == dict.fromkeys(SPECS, "none")
    assert "which was gone back from at" in entries[SLOW]["reason"]


def test_what_fails_is_told_and_no_client_meets_what_nobody_has_judged(update: Update) -> None:
    update.add(REFUSED, ROTTEN, BLIND)
    update.declare(GOOD, REFUSED, ROTTEN, BLIND)
    update.cut_off(GOOD)
    refused = {"status": 500, "paths": [f"/v2/library/{REFUSED.partition(':')[0]}/blobs"]}
    rotten = {ROTTEN: {"wrong_bytes": True}}
    update.registry.set_faults({**rotten, BLIND: {"stall_after_bytes": 1}}, http_status=refused)
    update.ollama.set_faults(http_status={"status": 500, "count": 1, "paths": ["/api/delete"]})
    figures = update.folder / "logs/services/ollama/perf/results.csv"

    def blind() -> None:  # between its two measurements
        figures.unlink()
        figures.mkdir()
        update.registry.set_faults(rotten, http_status=refused)

    with update.when_stalled(blind):
        result = update.run()
    told = said(result)
    assert result.returncode != 0, told
    assert f"FAILED: llm-01, {GOOD}: " in told, told
    assert f"removing {GOOD}-hx-previous failed: HTTP 500" in told, told
    assert "the version in use stays; the next run drops the earlier one." in told
    for name, problem in ((REFUSED, "500"), (ROTTEN, "digest mismatch, ")):
        [why] = [line for line in told.split("FAILED: llm-01, ")[1:] if line.startswith(name)]
        assert f"pulling {update.registry.name(name)} failed: {problem}" in why, told
        assert f"it is {update.old[name][:12]} again" in why, told
    reason = "the new version could not be measured: "
    assert f"ROLLED BACK: llm-01, {BLIND}: {reason}" in told, told
    assert "results.csv" in told.partition(reason)[2]
    assert update.digest(GOOD) == update.new[GOOD]
    assert all(update.digest(name) == update.old[name] for name in (REFUSED, ROTTEN, BLIND))
    assert update.names() == sorted([*update.specs, f"{GOOD}-hx-previous"])
    assert statuses(update.gateway, "llm-01") == {"UP"}  # its gate has asked each of them
    # None of these versions is to blame.
    assert set(update.look()["to_update"]) == {REFUSED, ROTTEN, BLIND}

    # Another model is updated, an earlier one's way is completed, and another host is lost.
    figures.rmdir()
    update.registry.set_faults()
    update.declare(GOOD, REFUSED, SLOW)
    update.cut_off(SLOW)
    hosts, chosen = "llm-03:llm-01", [GOOD, REFUSED]
    result = update.run(hosts=hosts, lost="llm-03", llm_update_models=chosen)
    told = said(result)
    assert result.returncode != 0, told
    assert f"ACCEPTED: llm-01, {REFUSED}: " in told, told
    assert "No route to host; nothing was changed." in told, told
    assert update.digest(REFUSED) == update.new[REFUSED]
    assert f"{GOOD}-hx-previous" not in update.names()
    assert f"UNCHANGED: llm-01, {GOOD}: the registry has the same version;" in told
    assert "; its earlier version was removed." in told
    pending = f"llm-01: nobody has judged the version in use of {SLOW}, wanted it accepted"
    assert pending in told, told
    assert "The host stays drained; run again without llm_update_models." in told
    assert statuses(update.gateway, "llm-01") == {"DRAIN"}

    # It can't be judged now either: where a gateway is silent, nobody knows who uses the host.
    silent = {"hx_gateways": ["gw-01", "llm-03"], "llm_update_models": SLOW}
    result = update.run(lost="llm-03", **silent)
    told = said(result)
    assert result.returncode != 0, told
    assert f"FAILED: llm-01, {SLOW}: it was updated from {update.old[SLOW][:12]}, and" in told, told
    assert "the gateway llm-03 gives no answer" in told
    assert pending in told
    assert statuses(update.gateway, "llm-01") == {"DRAIN"}
    assert update.digest(SLOW) == update.new[SLOW]
