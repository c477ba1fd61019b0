# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host that isn't healthy isn't called healthy, and the run says why and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SETTINGS = "/etc/sim-ollama/config.json"


@pytest.fixture
def fault(llm_01, api):
    """Switch a fault of the engine on for one test; models are loaded anew before and after."""

    def unload():
        for model in api(llm_01, "/api/ps")["models"]:
            api(llm_01, "/api/generate", {"model": model["name"], "keep_alive": 0})

    def write(settings):
        text = json.dumps(settings).replace("'", "")
        result = llm_01.run(f"printf '%s' '{text}' >{SETTINGS}.new && mv {SETTINGS}.new {SETTINGS}")
        assert result.rc == 0, result
        unload()

    before = json.loads(llm_01.file(SETTINGS).content_string)
    yield lambda **faults: write({**before, "faults": faults})
    write(before)


def validate(playbook, tmp_path, *arguments):
    result = playbook(
        "playbooks/remediate.yml",
        *("-l", "llm-01", "--tags", "validate", "-e", f"llm_report_dir={tmp_path}"),
        *arguments,
    )
    [record] = [
        json.loads(path.read_text()) for path in Path(tmp_path).glob("llm-01/*/run-record.json")
    ]
    return result, record


@pytest.mark.parametrize(
    ("faults", "check", "word"),
    [
        ({"wrong_answer": "I would rather not"}, "answer", "HX-OK"),
        ({"cpu_only": True}, "gpu_used", "llama3.2:3b"),
        ({"out_of_memory": ["qwen3:1.7b"]}, "answer", "qwen3:1.7b"),
    ],
    ids=["wrong-answer", "answers-on-the-cpu", "out-of-memory"],
)
def test_a_sick_engine_fails_the_validation(playbook, fault, tmp_path, faults, check, word):
    fault(**faults)
    result, record = validate(playbook, tmp_path)
    output = result.stdout + result.stderr
    assert result.returncode != 0, output
    assert record["verdict"] == "FAIL"
    assert record["failure"]["phase"] == "validate"
    failed = [verdict for verdict in record["verdicts"] if verdict["status"] == "FAIL"]
    assert any(verdict["check"].startswith(check) for verdict in failed), failed
    assert word in json.dumps(failed)
    # The operator sees the failure, the next step and the report without scrolling through tasks.
    summary = output[output.rindex("llm-01  FAIL") :]
    assert "next" in summary
    assert "report.html" in summary


def test_the_host_is_healthy_again_afterwards(playbook, tmp_path):
    # How much slower than in its baseline it is says how busy the lab's machine is.
    result, record = validate(playbook, tmp_path, "-e", "llm_baseline_tolerance=10000")
    assert result.returncode == 0, result.stdout + result.stderr
    not_passed = [entry for entry in record["verdicts"] if entry["status"] != "PASS"]
    assert record["verdict"] == "PASS", not_passed
