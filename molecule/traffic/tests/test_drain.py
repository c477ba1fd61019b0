# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Draining and bringing back: who may, when it is refused, and what a host has to prove.

The tests tell one story, in their order: the host begins drained by ``molecule``.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from pathlib import Path

import pytest

LOAD = Path(__file__).resolve().parents[3] / "tests" / "load" / "stream_load.py"
DRAINED = {"m_llama/llm-01.ollama": "DRAIN", "m_qwen/llm-01.ollama": "DRAIN"}
SERVING = {"m_llama/llm-01.ollama": "UP", "m_qwen/llm-01.ollama": "UP"}


def told(result):
    return " ".join((result.stdout + result.stderr).split())


def remediate_nothing(playbook, tmp_path):
    """Run what remediate.yml always runs, and none of its phases."""
    return playbook(
        "playbooks/remediate.yml",
        *("-l", "llm-01", "--tags", "none", "-e", f"llm_report_dir={tmp_path}/runs"),
    )


def record_in(tmp_path):
    [path] = (tmp_path / "runs").glob("llm-01/*/run-record.json")
    return json.loads(path.read_text())


def test_the_drained_host_gets_no_requests(states, servers, address):
    assert states("llm-01") == DRAINED
    before = servers()["m_qwen/llm-01.ollama"]["stot"]
    body = {"model": "qwen3:1.7b", "max_tokens": 2, "messages": [{"role": "user", "content": "x"}]}
    for _attempt in range(6):
        client = http.client.HTTPConnection(address, 8000, timeout=30)
        headers = {"Content-Type": "application/json"}
        client.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        assert client.getresponse().status == 200
        client.close()
    assert servers()["m_qwen/llm-01.ollama"]["stot"] == before


def test_the_last_host_of_a_model_is_not_drained(playbook, states):
    before = states("llm-03")
    result = playbook("playbooks/drain.yml", "-l", "llm-03")
    assert result.returncode != 0
    assert "would leave no serving host for qwen3:1.7b" in told(result)
    assert "llm-03" in told(result)
    assert states("llm-03") == before


def test_a_run_leaves_somebody_elses_drain(playbook, states, tmp_path):
    result = remediate_nothing(playbook, tmp_path)
    assert result.returncode == 0, told(result)
    assert states("llm-01") == DRAINED


def test_a_dry_undrain_changes_nothing(playbook, states):
    result = playbook("playbooks/undrain.yml", "-l", "llm-01", "--check")
    assert result.returncode == 0, told(result)
    assert "changed=1" in result.stdout
    assert states("llm-01") == DRAINED


def test_a_host_that_fails_the_gate_stays_drained(playbook, states, fault, llm_01, api):
    for model in api(llm_01, "/api/ps")["models"]:
        api(llm_01, "/api/generate", {"model": model["name"], "keep_alive": 0})
    fault(llm_01, wrong_answer="I would rather not")
    result = playbook("playbooks/undrain.yml", "-l", "llm-01")
    assert result.returncode != 0
    assert "HX-OK" in told(result)
    assert states("llm-01") == DRAINED


def test_an_operator_brings_the_host_back(playbook, states):
    result = playbook("playbooks/undrain.yml", "-l", "llm-01")
    assert result.returncode == 0, told(result)
    assert states("llm-01") == SERVING
    again = playbook("playbooks/undrain.yml", "-l", "llm-01")
    assert again.returncode == 0, told(again)
    assert "changed=0" in again.stdout


def test_a_run_ends_the_drain_of_a_run_that_was_killed(playbook, states, fault, llm_01, tmp_path):
    mine = ("-e", "llm_drain_owner=remediate", "-e", "llm_drain_allow_last=true")
    killed = playbook("playbooks/drain.yml", "-l", "llm-01", *mine)
    assert killed.returncode == 0, told(killed)
    assert states("llm-01") == DRAINED
    fault(llm_01, wrong_answer="I would rather not")
    sick = remediate_nothing(playbook, tmp_path / "sick")
    assert sick.returncode != 0, told(sick)
    assert states("llm-01") == DRAINED
    record = record_in(tmp_path / "sick")
    assert record["failure"]["phase"] == "undrain"
    assert record["failure"]["drained"] is True
    assert "undrain.yml -l llm-01" in record["failure"]["next_step"]


def test_the_next_run_brings_it_back_once_it_is_healthy(playbook, states, tmp_path):
    well = remediate_nothing(playbook, tmp_path)
    assert well.returncode == 0, told(well)
    assert states("llm-01") == SERVING
    record = record_in(tmp_path)
    assert record["verdict"] == "PASS"
    assert record["data"]["traffic"]["undrained"] is True


def test_a_declared_absence_of_gateways_is_said_and_accepted(playbook, inventory):
    result = playbook(
        "playbooks/drain.yml", "-i", inventory({}), "-l", "llm-01", "-e", "llm_gateway=false"
    )
    assert result.returncode == 0, told(result)
    assert "llm_gateway is false" in told(result)
    assert "changed=0" in result.stdout


@pytest.mark.parametrize(
    ("gateways", "words"),
    [
        ({}, ["llm_gateway: false", "llm-01"]),
        ({"gw-99": "hx-llm-lab-no-such-host"}, ["gw-99 gives no answer", "Nothing was changed"]),
        ({"gw-98": "hx-llm-lab-svc-01"}, ["gw-98 gives no answer", "admin.sock"]),
    ],
    ids=["none-and-not-declared", "unreachable", "not-running"],
)
def test_without_a_gateway_that_answers_nothing_is_drained(
    playbook, inventory, states, gateways, words
):
    result = playbook("playbooks/drain.yml", "-i", inventory(gateways), "-l", "llm-01")
    assert result.returncode != 0
    for word in words:
        assert word in told(result), told(result)[-2000:]
    assert states("llm-01") == SERVING


def test_of_two_gateways_one_that_gives_no_answer_stops_the_drain_at_both(
    playbook, inventory, states
):
    both = inventory({"gw-01": "hx-llm-lab-gw-01", "gw-97": "hx-llm-lab-svc-01"})
    result = playbook("playbooks/drain.yml", "-i", both, "-l", "llm-01")
    assert result.returncode != 0
    assert "gw-97 gives no answer" in told(result)
    assert states("llm-01") == SERVING


def test_nobody_is_drained_without_a_limit(playbook):
    result = playbook("playbooks/drain.yml")
    assert result.returncode != 0
    assert "-l llm-01" in told(result)


def test_streams_that_outlast_the_budget_leave_the_host_drained_and_say_so(
    playbook, states, address, tmp_path
):
    out, stop = tmp_path / "load.jsonl", tmp_path / "stop"
    arguments = ["run", "--url", f"http://{address}:8000/v1", "--model", "qwen3:1.7b"]
    arguments += ["--streams", "4", "--max-tokens", "6000", "--seconds", "120"]
    load = subprocess.Popen(
        [sys.executable, str(LOAD), *arguments, "--out", str(out), "--stop", str(stop)],
        stdout=subprocess.DEVNULL,
    )
    try:
        options = ("-e", "llm_drain_budget=1", "-e", "llm_drain_allow_last=true")
        result = playbook("playbooks/drain.yml", "-l", "llm-01", *options)
    finally:
        stop.touch()
        load.wait(timeout=120)
    assert result.returncode != 0, told(result)
    assert "What was drained stays drained: gw-01" in told(result)
    assert states("llm-01") == DRAINED
    assert [
        json.loads(line) for line in out.read_text().splitlines() if '"ok": false' in line
    ] == []
    back = playbook("playbooks/undrain.yml", "-l", "llm-01")
    assert back.returncode == 0, told(back)
