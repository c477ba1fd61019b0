# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When benchmark.yml measures a host behind a real HAProxy, and what it leaves there.

The scenario `benchmark` has what it measures.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from gateway_host import HAPROXY, GatewayHost
from harness import Ollama, start_ollama
from test_traffic_role import run_book, said, statuses

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="no haproxy")

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = "tiny:1b"
VARS = ("declaration", "report", "traffic", "benchmark")
QUICK = {"iterations": 4, "num_predict": 8, "calibrate": False, "sample_interval": 0.2}


@pytest.fixture
def ollama(tmp_path: Path) -> Iterator[Ollama]:
    with start_ollama(tmp_path) as host:
        yield host


@pytest.fixture
def gateway(ollama: Ollama) -> Iterator[GatewayHost]:
    """A gateway that sends requests for the model to llm-01."""
    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short
        host = GatewayHost(Path(folder))
        server = {"name": "llm-01.ollama", "host": "llm-01", "engine": "ollama", "weight": 10}
        server.update(address="127.0.0.1", port=ollama.port)
        host.routes = [{"model": MODEL, "backend": "m_tiny", "servers": [server]}]
        host.routes_file.write_text(json.dumps(host.routes))
        host.write_config()
        host.start()
        try:
            yield host
        finally:
            host.close()


class Bench:
    """Runs a task file of the playbooks on llm-01; everything it writes is below ``folder``."""

    def __init__(self, gateway: GatewayHost, ollama: Ollama) -> None:
        self.gateway, self.ollama = gateway, ollama
        self.folder = gateway.root / "host"
        self.declared: dict[str, Any] = {
            "llm_base_dir": str(self.folder),
            "llm_logs_dir": f"{self.folder}/logs/services/ollama",
            "llm_store_dir": str(ollama.store),
            "llm_engine_url": ollama.url,
            "llm_models": [{"name": MODEL, "slo": {"ttft_ms": 5000}}],
            "llm_report_dir": f"{self.folder}/runs",
            "llm_drain_allow_last": True,
            "hx_gateways": ["gw-01"],
            "traffic_gpu_ratio": 0,
            "traffic_timeout": 3,
        }

    def run(
        self, *arguments: str, task: str = "benchmark", lost: str = "", **extra: Any
    ) -> subprocess.CompletedProcess[str]:
        tasks: list[dict[str, Any]] = [
            {
                "name": task,
                "ansible.builtin.import_tasks": str(ROOT / f"playbooks/tasks/{task}.yml"),
            }
        ]
        if task == "benchmark":
            tasks += self.end()
        book = {
            "hosts": "llm-01",
            "vars_files": [str(ROOT / f"playbooks/vars/{name}.yml") for name in VARS],
            "tasks": tasks,
        }
        given = {"llm_benchmark_options": QUICK, **self.declared, **extra}
        return run_book(
            self.gateway,
            book,
            "-e",
            json.dumps(given),
            *arguments,
            lost=lost,
            lost_at="inference_benchmark",
        )

    def end(self) -> list[dict[str, Any]]:
        """Return the tasks of the playbook's second play."""
        _measure, compare = yaml.safe_load((ROOT / "playbooks/benchmark.yml").read_text())
        return list(compare["tasks"])

    @property
    def perf(self) -> Path:
        return self.folder / "logs/services/ollama/perf"

    @property
    def pages(self) -> list[Path]:
        return sorted((self.folder / "runs/llm-01").glob("benchmark-*.html"))


@pytest.fixture
def bench(gateway: GatewayHost, ollama: Ollama) -> Bench:
    return Bench(gateway, ollama)


def test_a_dry_run_refuses_a_host_in_service_and_tells_what_helps(bench: Bench) -> None:
    result = bench.run("--check")
    told = said(result)
    assert result.returncode != 0, told
    assert "llm-01: it takes requests as llm-01.ollama; wanted it drained." in told, told
    assert "llm_benchmark_drain=true" in told
    assert "llm_benchmark_in_service=true" in told


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"llm_gateway": False}, "llm_gateway is false"),
        ({"hx_gateways": []}, "the group llm_gateway has no host"),
    ],
    ids=["declared-absent", "none"],
)
def test_a_host_of_which_nothing_is_known_takes_a_word_as_well(
    bench: Bench, declared: dict[str, Any], words: str
) -> None:
    result = bench.run(**declared)
    told = said(result)
    assert result.returncode != 0
    assert words in told, told
    assert "llm_benchmark_drain" not in told  # there is nowhere to drain it
    allowed = bench.run("--check", **declared, llm_benchmark_in_service=True)
    told = said(allowed)
    assert allowed.returncode == 0, told
    assert words in told
    assert "It is measured because llm_benchmark_in_service says so." in told


def test_a_host_that_nothing_is_routed_to_is_measured(bench: Bench) -> None:
    [route] = bench.gateway.routes
    route["servers"][0].update(name="llm-03.ollama", host="llm-03")
    bench.gateway.routes_file.write_text(json.dumps(bench.gateway.routes))
    bench.gateway.write_config()
    bench.gateway.reload()
    result = bench.run("--check")
    assert result.returncode == 0, said(result)


def test_it_is_brought_back_after_a_failure_and_the_results_are_kept(
    bench: Bench, gateway: GatewayHost
) -> None:
    result = bench.run(llm_benchmark_drain=True, llm_benchmark_slo={"tokens_per_s": 1e9})
    told = said(result)
    assert result.returncode != 0
    assert "tokens_per_s is" in told, told
    assert statuses(gateway, "llm-01") == {"UP"}
    assert len(bench.pages) == 1
    fleet = json.loads((bench.folder / "runs/fleet-benchmark.json").read_text())
    assert fleet["verdict"] == "FAIL"


def test_a_host_that_fails_the_gate_stays_drained_and_both_are_told(
    bench: Bench, gateway: GatewayHost, ollama: Ollama
) -> None:
    ollama.set_faults(out_of_memory=True)
    result = bench.run(llm_benchmark_drain=True)
    told = said(result)
    assert result.returncode != 0
    assert "out_of_memory is" in told, told
    assert statuses(gateway, "llm-01") == {"DRAIN"}
    ollama.set_faults()
    back = bench.run(
        llm_benchmark_fail_on="never"
    )  # not asked to drain, it ends the drain that a benchmark has left
    assert back.returncode == 0, said(back)
    assert statuses(gateway, "llm-01") == {"UP"}


def test_a_host_that_is_lost_meanwhile_stays_drained_and_both_are_told(
    bench: Bench, gateway: GatewayHost
) -> None:
    result = bench.run(llm_benchmark_drain=True, lost="llm-01")
    told = said(result)
    assert result.returncode != 0, told
    lost = "llm-01: the host was lost while it was measured: Task failed: No route to host."
    assert f"{lost} llm-01: it gives no answer and stays drained;" in told, told
    assert "Nothing was measured of llm-01." in told, told
    assert bench.pages == []
    assert statuses(gateway, "llm-01") == {"DRAIN"}


def test_an_operators_drain_is_used_and_stays(bench: Bench, gateway: GatewayHost) -> None:
    gateway.run("drained", host="llm-01", owner="operator", allow_last=True)
    # What the figures are worth depends on how busy this machine is.
    result = bench.run(llm_benchmark_drain=True, llm_benchmark_fail_on="never")
    assert result.returncode == 0, said(result)
    assert len(bench.pages) == 1
    assert statuses(gateway, "llm-01") == {"DRAIN"}


def test_what_can_not_be_measured_is_refused_before_anything_is_drained(
    bench: Bench, gateway: GatewayHost
) -> None:
    result = bench.run(llm_benchmark_drain=True, llm_benchmark_model="tiny:2b")
    told = said(result)
    assert result.returncode != 0
    assert "llm-01: llm_models declares tiny:1b, wanted tiny:2b to measure on ollama" in told
    assert "Drain the host at each gateway" not in result.stdout
    assert statuses(gateway, "llm-01") == {"UP"}


def test_a_drained_host_says_nothing_of_another_address(
    bench: Bench, gateway: GatewayHost, ollama: Ollama
) -> None:
    gateway.run("drained", host="llm-01", owner="operator", allow_last=True)
    given = {"llm_benchmark_url": ollama.url}
    refused = bench.run("--check", **given)
    told = said(refused)
    assert refused.returncode != 0, told
    assert f"llm-01: requests go to llm_benchmark_url, {ollama.url}: whether clients use" in told
    assert "llm_benchmark_drain=true" not in told
    assert "llm_benchmark_in_service=true" in told
    allowed = bench.run("--check", **given, llm_benchmark_in_service=True)
    assert allowed.returncode == 0, said(allowed)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"llm_benchmark_url": "http://gw-01:8000", "llm_benchmark_drain": True},
            "llm_benchmark_drain is true and requests go to llm_benchmark_url, http://gw-01:8000;",
        ),
        (
            {"llm_benchmark_run_from": "controller", "llm_benchmark_in_service": True},
            "llm_benchmark_run_from is controller and llm_benchmark_url is empty;",
        ),
    ],
    ids=["drain-elsewhere", "controller-nowhere"],
)
def test_what_would_hit_or_spare_the_wrong_host_is_refused(
    bench: Bench, gateway: GatewayHost, given: dict[str, Any], words: str
) -> None:
    result = bench.run(**given)
    told = said(result)
    assert result.returncode != 0, told
    assert words in told, told
    assert bench.pages == []
    assert statuses(gateway, "llm-01") == {"UP"}


@pytest.mark.parametrize(
    ("url", "connection", "refused"),
    [
        ("http://127.0.0.1:11434", "ssh", True),
        ("https://[::1]:8000", "ssh", True),
        ("http://127.0.0.1:11434", "local", False),
        ("http://llm-01:11434", "ssh", False),
    ],
)
def test_the_role_does_not_let_the_controller_measure_itself(
    gateway: GatewayHost, url: str, connection: str, refused: bool
) -> None:
    preflight = {"name": "hx_infra.llm.benchmark", "tasks_from": "preflight"}
    book = {
        "hosts": "llm-01",
        "tasks": [{"name": "Preflight", "ansible.builtin.import_role": preflight}],
    }
    end = {"name": "ollama", "url": url, "api": "ollama_generate", "models": [{"name": MODEL}]}
    given = {"benchmark_endpoints": [end], "ansible_connection": connection}
    given["benchmark_run_from"] = "controller"
    result = run_book(gateway, book, "-e", json.dumps(given))
    told = said(result)
    wanted = f"llm-01: benchmark_run_from is controller and {url} is the controller's own address;"
    assert (result.returncode != 0) == refused, told
    assert (wanted in told) == refused, told


def test_a_declared_model_that_is_not_there_is_in_the_report(bench: Bench, ollama: Ollama) -> None:
    declared = [{"name": f"registry.ollama.ai/library/{MODEL.upper()}"}, {"name": "absent"}]
    result = bench.run(task="performance", llm_models=declared)
    assert result.returncode == 0, said(result)
    report = json.loads((bench.folder / "runs/llm-01/performance-report.json").read_text())
    sizes = {row["model"]: row["size_bytes"] for row in report["models"]}
    assert set(sizes) == {item["name"] for item in declared}
    assert sizes["absent"] is None
    assert sizes[declared[0]["name"]]
    missed = {item["subject"] for item in report["recommendations"] if item["rule"] == "R11"}
    assert missed == set(sizes)
