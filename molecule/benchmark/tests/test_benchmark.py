# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Benchmarks of a host with GPUs, behind a gateway of its own, as operators run them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
LAB = ROOT / "inventories" / "lab"
PERF = "/opt/logs/services/ollama/perf"
KEPT = "/opt/hx-infrastructure/llm-02/logs/perf/ollama"
CONFIG = "/etc/sim-ollama/config.json"
MODEL = "phi3:latest"
SLO = {"ttft_ms": 5000, "tokens_per_s": 1}
ANYWAY = {"llm_benchmark_fail_on": "never"}  # what figures are worth here depends on the machine
SHORT = {"num_predict": 16, "calibrate": False, "sample_interval": 0.2}


def rows(host, path):
    return list(csv.reader(host.file(path).content_string.splitlines()))


def said(ended):
    return " ".join((ended.stdout + ended.stderr).split())


@pytest.fixture(scope="module")
def bench(playbook, tmp_path_factory):
    """Run a playbook on llm-02 with variables; ``folder`` of it is where reports go."""
    folder = tmp_path_factory.mktemp("bench")
    hosts = yaml.safe_load((LAB / "hosts.yml").read_text())
    groups = hosts["lab"]["children"]
    alone = {"hosts": {"llm-02": groups["llm_hosts"]["hosts"]["llm-02"]}}
    hosts["lab"]["children"] = {"llm_hosts": alone, "llm_gateway": alone}
    (folder / "inventory").mkdir()
    (folder / "inventory" / "hosts.yml").write_text(json.dumps(hosts))
    for name in ("group_vars", "host_vars"):
        (folder / "inventory" / name).symlink_to(LAB / name)

    def run(*arguments, name="benchmark", **given):
        extra = {
            "llm_models": [{"name": MODEL, "slo": SLO}],
            "llm_venv": "/opt/bench-venv",
            "llm_drain_allow_last": True,
            "llm_report_dir": str(folder / "runs"),
            **given,
        }
        ended = playbook(
            f"playbooks/{name}.yml",
            "--inventory",
            str(folder / "inventory"),
            "--limit=llm-02",
            f"--extra-vars={json.dumps(extra)}",
            *arguments,
        )
        ended.runs = [
            json.loads(path.read_text())
            for path in sorted((folder / "runs" / "llm-02").glob("benchmark-*.json"))
        ]
        return ended

    run.folder = folder
    return run


@pytest.fixture
def routed(llm_02):
    """Return the state of the host's server at the gateway."""

    def ask():
        ask_it = "import socket as s; c = s.socket(1); c.connect('/run/haproxy/admin.sock')"
        ask_it += "; c.sendall(b'show stat' + bytes([10])); print(c.makefile().read())"
        answer = llm_02.check_output("python3 -c %s", ask_it)
        [line] = [line for line in answer.splitlines() if line.startswith("m_phi,llm-02.ollama,")]
        return line.split(",")[17].split()[0]

    return ask


@pytest.fixture
def slow(llm_02):
    before = llm_02.file(CONFIG).content_string
    text = json.dumps({**json.loads(before), "faults": {"slow_factor": 2.5}})
    for content in (text, before):
        llm_02.check_output(f"printf '%s' '{content}' >{CONFIG}.new && mv {CONFIG}.new {CONFIG}")
        if content == text:
            yield


def until_sound(run):
    """Repeat a measurement whose figures are not worth a baseline: the lab's machine was busy."""
    for _attempt in range(4):
        ended = run()
        if ended.returncode == 0:
            break
    assert ended.returncode == 0, said(ended)
    return ended


def asked(host):
    return host.run("journalctl -u ollama | grep -c /api/generate").stdout


# --- what the converge left: two requests at once ------------------------------------------------


def test_each_request_has_a_row_in_the_users_format(llm_02):
    header, *found = rows(llm_02, f"{PERF}/results.csv")
    assert len(header) == 9
    assert {row[1] for row in found} == {MODEL}
    assert len(found) == 12  # of both runs
    assert all(float(row[8]) > 0 for row in found)
    assert not llm_02.file(f"{PERF}/baseline.csv").exists  # first baselines are of one at a time


def test_a_run_holds_its_own_error_and_the_gpus_beside_it(llm_02):
    newest = llm_02.check_output(f"ls {KEPT}/benchmark-*.json | tail -n 1")
    run = json.loads(llm_02.file(newest).content_string)
    assert run["engine"] == {"name": "ollama", "version": "0.11.4"}
    [entry] = run["entries"]
    assert entry["client"]["overhead_ms"] is not None
    assert entry["validity"]["state"] in ("VALID", "UNRELIABLE", "INVALID")
    assert entry["server_truth"]["engine"] == "ollama"
    timeline = entry["timeline"]
    assert timeline["sources"]["gpu"] == "nvml"
    read = [row for row in timeline["rows"] if row["gpu"]]  # a busy machine misses some
    assert {len(row["gpu"]) for row in read} == {2}
    assert max(gpu["util_percent"] for row in timeline["rows"] for gpu in row["gpu"]) > 0
    assert entry["metrics"]["gpu_ratio"] == 1
    assert entry["metrics"]["tokens_from"] == ["server"]


def test_the_page_is_one_file_that_leads_nowhere():
    folder = ROOT / "build" / "benchmark" / "llm-02"
    page = (folder / "benchmark.html").read_text()
    assert MODEL in page
    assert "<svg" in page
    assert not re.search(r'(src|href)="(?!#)', page)


# --- a host in service ---------------------------------------------------------------------------


def test_a_host_in_service_is_refused(bench, llm_02):
    before = asked(llm_02)
    ended = bench()
    assert ended.returncode != 0
    assert "llm-02: it takes requests as llm-02.ollama; wanted it drained." in said(ended)
    assert asked(llm_02) == before


def test_a_dry_run_says_what_would_be_sent_and_sends_nothing(bench, llm_02, routed):
    before = asked(llm_02)
    ended = bench("--check", llm_benchmark_drain=True, llm_benchmark_preset="throughput")
    assert ended.returncode == 0, said(ended)
    assert f"send 100 requests, 10 at once, at most 128 tokens each, to {MODEL}" in said(ended)
    assert asked(llm_02) == before
    assert routed() == "UP"


def test_it_is_drained_meanwhile_and_back_afterwards(bench, llm_02, routed):
    ended = until_sound(
        lambda: bench(
            llm_benchmark_drain=True,
            llm_benchmark_preset="throughput",
            llm_benchmark_iterations=16,
            llm_benchmark_concurrency=4,
            llm_benchmark_options=SHORT,
            llm_benchmark_set="candidate",
        )
    )
    assert routed() == "UP"
    run = ended.runs[-1]
    assert run["entries"][0]["stage"]["label"] == "4 at once"
    assert len(run["entries"][0]["samples"]) == 16
    assert "4 at once" in ended.stdout  # the hosts side by side
    assert "llm-02" in (bench.folder / "runs" / "fleet-benchmark.html").read_text()
    assert llm_02.file(f"{PERF}/baselines/candidate").is_directory


def test_one_at_a_time_records_the_first_baseline_once(bench, llm_02):
    usual = {name: value for name, value in SHORT.items() if name != "num_predict"}
    given = {"llm_benchmark_drain": True, "llm_benchmark_options": {**usual, "iterations": 4}}
    for _attempt in range(4):  # what a busy machine measures is no baseline
        ended = bench(**given, **ANYWAY)
        assert ended.returncode == 0, said(ended)
        if llm_02.file(f"{PERF}/baseline.csv").exists:
            break
    header, *found = rows(llm_02, f"{PERF}/baseline.csv")
    assert header == ["timestamp", "model", "first_token_ms", "tokens_per_s"]
    assert [row[1] for row in found] == [MODEL]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found[0][0])


# --- loads, baselines, reports -------------------------------------------------------------------


def test_requests_on_a_schedule_count_from_when_they_were_due(bench):
    given = {
        "llm_benchmark_rate": 4,
        "llm_benchmark_duration": 2,
        "llm_benchmark_arrival": "constant",
    }
    ended = bench(llm_benchmark_in_service=True, llm_benchmark_options=SHORT, **given, **ANYWAY)
    assert ended.returncode == 0, said(ended)
    assert "because llm_benchmark_in_service says so" in said(ended)
    [entry] = ended.runs[-1]["entries"]
    assert entry["validity"]["state"] != "VALID"  # nobody knows what clients asked meanwhile
    assert entry["stage"]["shape"] == "constant"
    assert len(entry["samples"]) == 8
    assert entry["metrics"]["dispatch_lag_ms"]["count"] == 8


def test_a_sweep_shows_how_much_it_takes(bench):
    sweep = {"over": "concurrency", "values": [1, 2, 4]}
    ended = bench(
        llm_benchmark_in_service=True,
        llm_benchmark_preset="capacity",
        llm_benchmark_iterations=4,
        llm_benchmark_options={**SHORT, "sweep": sweep},
        **ANYWAY,
    )
    assert ended.returncode == 0, said(ended)
    [found] = ended.runs[-1]["sweeps"]
    assert [point["value"] for point in found["points"]] == [1, 2, 4]
    assert found["knee"]


def test_a_baseline_is_promoted_only_by_name(bench, llm_02):
    given = {"from": "candidate", "to": "production"}
    dry = bench("--check", "--diff", name="promote_baseline", **given)
    assert dry.returncode == 0, said(dry)
    assert f"+{MODEL}, 4 at once" in dry.stdout
    assert not llm_02.file(f"{PERF}/baselines/production").exists
    for changed in (1, 0):
        ended = bench(name="promote_baseline", **given)
        assert ended.returncode == 0, said(ended)
        assert f"changed={changed} " in ended.stdout
    missing = bench(name="promote_baseline", **{**given, "from": "nothing"})
    assert missing.returncode != 0
    assert "There are: candidate, production" in said(missing)


def test_a_slower_engine_fails_the_comparison(bench, slow):
    ended = bench(
        llm_benchmark_in_service=True,
        llm_benchmark_preset="throughput",
        llm_benchmark_iterations=12,
        llm_benchmark_concurrency=4,
        llm_benchmark_options=SHORT,
        llm_benchmark_compare="production",
    )
    comparison = ended.runs[-1]["entries"][0]["comparison"]
    assert comparison["comparable"], comparison["why_not"]
    assert comparison["metrics"]["tokens_per_s"]["verdict"] == "FAIL"
    assert ended.returncode != 0
    assert "production" in said(ended)


def test_the_performance_report_tells_whether_the_host_is_ready(bench):
    ended = bench(name="performance_report")
    assert ended.returncode == 0, said(ended)
    assert re.search(r"llm-02: (NOT READY|READY)", ended.stdout)
    made = json.loads((bench.folder / "runs/llm-02/performance-report.json").read_text())
    [model] = made["models"]
    assert (model["model"], model["size_bytes"] > 0, len(made["machine"]["gpus"])) == (
        MODEL,
        True,
        2,
    )
    assert made["disk"]["total_bytes"] > made["disk"]["free_bytes"] > 0
    assert made["capacity"][0]["source"] == "sweep"
    assert (bench.folder / "runs/llm-02/performance-report.md").read_text().startswith("# ")
