# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

CONVERGE = str(Path(__file__).resolve().parents[1] / "converge.yml")
ARGUMENTS = ("-i", "inventories/lab", CONVERGE)
ONE = (*ARGUMENTS, "-e", json.dumps({"declared": [{"name": "phi3:latest"}]}))
PERF = "/opt/logs/services/ollama/perf"
BASELINE = f"{PERF}/baseline.csv"
PROFILE = "/etc/sim-gpu/profile.conf"
SETTINGS = "/etc/sim-ollama/config.json"
MODELS = ["phi3:latest", "gemma2:2b", "cogito:32b", "deepcoder:14b", "dolphin3:8b"]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def rows(host, path):
    return list(csv.reader(host.file(path).content_string.splitlines()))


def said(ended):
    return " ".join((ended.stdout + ended.stderr).split())


@pytest.fixture
def no_gpu(llm_02):
    """Take the driver away, and start the server again without it."""
    restart = "systemctl restart ollama && curl -s --retry 30 --retry-connrefused --fail"
    restart += " http://127.0.0.1:11434/api/version"
    llm_02.check_output(f"cp {PROFILE} {PROFILE}.kept")
    llm_02.check_output(f"cp /lab/sim_gpu/profiles/fault-driver-missing.conf {PROFILE}")
    llm_02.check_output(restart)
    yield
    llm_02.check_output(f"mv {PROFILE}.kept {PROFILE}")
    llm_02.check_output(restart)


@pytest.fixture
def fault(llm_02, api):
    """Switch a fault of the engine on for one test; models are loaded anew before and after."""

    def unload():
        for model in api(llm_02, "/api/ps")["models"]:
            api(llm_02, "/api/generate", {"model": model["name"], "keep_alive": 0})

    def write(settings):
        text = json.dumps(settings).replace("'", "")
        llm_02.check_output(f"printf '%s' '{text}' >{SETTINGS}.new && mv {SETTINGS}.new {SETTINGS}")
        unload()

    before = json.loads(llm_02.file(SETTINGS).content_string)
    yield lambda **faults: write({**before, "faults": faults})
    write(before)


@pytest.fixture
def no_baseline(llm_02):
    llm_02.check_output(f"mv {BASELINE} {BASELINE}.kept")
    yield
    llm_02.check_output(f"mv {BASELINE}.kept {BASELINE}")


def test_each_model_has_one_baseline_in_the_users_format(llm_02):
    header, *found = rows(llm_02, BASELINE)
    assert header == ["timestamp", "model", "first_token_ms", "tokens_per_s"]
    assert [row[1] for row in found] == MODELS  # a second run adds none
    for moment, _mark, first_token_ms, rate in found:
        assert TIME.fullmatch(moment)
        assert float(first_token_ms) > 10
        assert float(rate) > 1


def test_each_measured_request_has_a_row(llm_02):
    header, *found = rows(llm_02, f"{PERF}/results.csv")
    assert len(header) == 9
    assert {row[1] for row in found} == set(MODELS)
    assert len(found) % (3 * len(MODELS)) == 0
    assert all(float(row[8]) > 0 for row in found)


def test_nothing_is_left_of_the_jobs(llm_02):
    assert llm_02.run("ls /root/.ansible_async").stdout == ""


def test_check_mode_predicts_and_asks_no_model(llm_02, playbook, no_baseline):
    asked = "journalctl -u ollama | grep -c /api/generate"
    before = llm_02.run(asked).stdout
    ended = playbook(*ARGUMENTS, "--check", "--diff")
    assert ended.returncode != 0  # the entry point verify rightly finds no baseline
    assert "+phi3:latest" in ended.stdout
    assert "has no row for phi3:latest, gemma2:2b" in said(ended)
    assert llm_02.run(asked).stdout == before
    assert not llm_02.file(BASELINE).exists


def test_another_version_than_the_declared_one_fails(playbook):
    ended = playbook(*ONE, "-e", "wanted_version=9.9.9")
    assert ended.returncode != 0
    assert "llm-02 ollama: api_version is 0.11.4, wanted 9.9.9" in said(ended)


def test_a_host_without_its_driver_fails(playbook, no_gpu):
    ended = playbook(*ONE)
    assert ended.returncode != 0
    assert "llm-02 phi3:latest: gpu_used is 0, wanted 1 (size_vram 0.00 of" in said(ended)
    assert "nvidia-smi ended with 9" in said(ended)  # the cause, in the same sentence


def test_an_engine_that_fell_back_to_the_cpu_fails(playbook, fault):
    fault(cpu_only=True)
    ended = playbook(*ONE)
    assert ended.returncode != 0
    assert "llm-02 phi3:latest: gpu_used is 0, wanted 1 (size_vram 0.00 of" in said(ended)
    assert "in /api/ps; GPU 0: 0 % busy, no process" in said(ended)


@pytest.mark.parametrize(
    ("idle", "words"),
    [
        (True, "no process of the engine is on a GPU"),
        ("work", "a GPU was at most 0 % busy in"),
    ],
)
def test_an_engine_that_says_gpu_while_the_card_is_idle_fails(playbook, fault, idle, words):
    fault(idle_gpu=idle)
    ended = playbook(*ONE)
    assert ended.returncode != 0
    text = said(ended)
    assert "llm-02 phi3:latest: gpu_used is 0, wanted 1 (the engine says size_vram" in text
    assert words in text


def test_the_host_is_healthy_again_afterwards(playbook):
    ended = playbook(*ARGUMENTS)
    assert ended.returncode == 0, said(ended)
