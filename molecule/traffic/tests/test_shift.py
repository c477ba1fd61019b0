# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Moving one model's requests from one engine to the other and back, with clients in between."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

LOAD = Path(__file__).resolve().parents[3] / "tests" / "load" / "stream_load.py"
MODEL = "llama3.2:3b"
OLLAMA, VLLM = "m_llama/llm-01.ollama", "m_llama/llm-03.vllm.twin"
BUDGET = 60


def shift(playbook, origin, target, steps, *more):
    return playbook(
        "playbooks/shift_traffic.yml",
        *("-e", f"model={MODEL}", "-e", f"from={origin}", "-e", f"to={target}"),
        *("-e", f"steps={steps}", "-e", "llm_shift_pause=1", *more),
    )


@pytest.fixture
def weights(servers):
    return lambda: {name: int(servers()[name]["weight"]) for name in (OLLAMA, VLLM)}


@pytest.fixture
def load(address, tmp_path):
    """Keep four clients busy with the model; ``load()`` stops them and returns their records."""
    out, stop = tmp_path / "load.jsonl", tmp_path / "stop"
    arguments = ["run", "--url", f"http://{address}:8000/v1", "--model", MODEL, "--streams", "4"]
    arguments += ["--pause", "0.1", "--seconds", "240", "--out", str(out), "--stop", str(stop)]
    process = subprocess.Popen([sys.executable, str(LOAD), *arguments], stdout=subprocess.DEVNULL)

    def records():
        stop.touch()
        process.wait(timeout=BUDGET)
        return [json.loads(line) for line in out.read_text().splitlines()]

    try:
        end = time.monotonic() + BUDGET
        while not (out.exists() and out.read_text()) and time.monotonic() < end:
            time.sleep(0.2)
        yield records
    finally:
        process.kill()
        process.wait()


def test_a_shift_and_the_way_back_cost_no_request(playbook, weights, servers, load):
    assert weights() == {OLLAMA: 10, VLLM: 0}
    there = shift(playbook, "ollama", "vllm", "5,10")
    assert there.returncode == 0, there.stdout + there.stderr
    assert weights() == {OLLAMA: 0, VLLM: 10}
    assert int(servers()[VLLM]["stot"]) > 0
    again = shift(playbook, "ollama", "vllm", "5,10")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "changed=0" in again.stdout
    assert weights() == {OLLAMA: 0, VLLM: 10}
    back = shift(playbook, "vllm", "ollama", "10")
    assert back.returncode == 0, back.stdout + back.stderr
    assert weights() == {OLLAMA: 10, VLLM: 0}
    records = load()
    assert len(records) > 20
    assert [record for record in records if not record["ok"]] == []


def test_a_shift_to_an_engine_that_fails_is_taken_back(playbook, weights, fault, llm_03, api):
    before = weights()
    for model in api(llm_03, "/api/ps")["models"]:
        api(llm_03, "/api/generate", {"model": model["name"], "keep_alive": 0})
    fault(llm_03, out_of_memory=[MODEL])
    result = shift(playbook, "ollama", "vllm", "1,10")
    output = " ".join((result.stdout + result.stderr).split())
    assert result.returncode != 0
    assert "stopped and taken back" in output
    assert weights() == before


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("ollama", "ollama", "5"), "either order"),
        (("ollama", "vllm", "11"), "tenths"),
        (("ollama", "vllm", "5", "-e", "model=no-such:1b"), "no-such:1b"),
    ],
    ids=["same-engine", "share-above-ten", "unknown-model"],
)
def test_a_senseless_shift_is_refused(playbook, weights, arguments, word):
    before = weights()
    result = shift(playbook, *arguments)
    assert result.returncode != 0
    assert word in " ".join((result.stdout + result.stderr).split())
    assert weights() == before


def test_a_dry_shift_sets_nothing(playbook, weights):
    before = weights()
    result = shift(playbook, "ollama", "vllm", "5,10", "--check")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "changed=2" in result.stdout
    assert weights() == before
