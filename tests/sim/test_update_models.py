# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""update_models.yml on a simulated engine and registry, behind a real HAProxy."""

from __future__ import annotations

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
from gateway_host import HAPROXY, GatewayHost, wait_until
from harness import FAST, Ollama, Registry, start_ollama, start_registry
from sim_ollama.make_models import SETS, build
from sim_ollama.store import Store
from test_traffic_role import run_book, said, statuses

from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import read_store

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="no haproxy")

ROOT = Path(__file__).resolve().parent.parent.parent
GOOD, SLOW, SAME = "tiny:1b", "tiny-think:1b", "tiny-same:1b"
SPECS = {spec.name: spec for spec in [*SETS["tiny"], SETS["tiny"][0]._replace(name=SAME)]}
VARS = ("declaration", "report", "traffic", "benchmark", "models")
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
SPEED, SLOWLY = 400.0, 10.0
RUNNER = """
import sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = sys.stdin.buffer.read()
basic._ANSIBLE_PROFILE = "legacy"
from ansible_collections.hx_infra.llm.plugins.modules import {name}
{name}.main()
"""


def module(name: str, args: dict[str, Any]) -> dict[str, Any]:
    """Run a module of the collection and return its result."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", RUNNER.format(name=name)],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": args}),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
    )
    assert done.stdout.lstrip().startswith("{"), done.stderr or done.stdout
    return dict(json.loads(done.stdout))


class Update:
    """llm-01 with three models, of which two have moved; everything that it writes is below."""

    def __init__(self, folder: Path, ollama: Ollama, registry: Registry, gateway: GatewayHost):
        self.folder, self.ollama, self.registry, self.gateway = folder, ollama, registry, gateway
        self.env_file = folder / "llm-01/config/ollama/ollama.env"
        self.env_file.parent.mkdir(parents=True)
        self.env_file.write_text('OLLAMA_MODELS="/mnt/active_llm_models"\n')
        self.speed = 0.0
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

    def move(self, name: str) -> str:
        """Let the registry have another version of a model; return its digest."""
        told = build(SPECS[name]._replace(license="gemma"), Store(self.registry.store))
        return str(told["digest"])

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
        result = module("inference_benchmark", args)
        assert not result.get("failed"), result["msg"]

    def cut_off(self, name: str) -> None:
        """Leave what a run leaves that is killed after its pull: nobody has judged."""
        self.measure(name)
        where = {"store": str(self.ollama.store), "url": self.ollama.url}
        kept = module("model_version", {"name": name, "state_dir": f"{self.folder}/state", **where})
        assert kept["changed"], kept
        build(SPECS[name]._replace(license="gemma"), Store(self.ollama.store))
        wait_until(lambda: self.speed == SLOWLY, "the slow version")

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
        return module("model_update_info", args)

    def run(self, *arguments: str, **extra: Any) -> subprocess.CompletedProcess[str]:
        parts = ("update_models", "update_models_end")
        book = {
            "hosts": "llm-01",
            "vars_files": [str(ROOT / f"playbooks/vars/{name}.yml") for name in VARS],
            "tasks": [
                {
                    "name": part,
                    "ansible.builtin.import_tasks": str(ROOT / f"playbooks/tasks/{part}.yml"),
                }
                for part in parts
            ],
        }
        given = json.dumps({**self.declared, **extra})
        return run_book(self.gateway, book, "-e", given, *arguments)


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
