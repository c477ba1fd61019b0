# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bad input stops the run before anything changes, with host, field, value found and wanted."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# What the host's own timer writes every five minutes, whoever else is at work.
SAMPLES = ("/opt/hx-infrastructure/llm-01/logs/gpu/", "/var/lib/hxmon/textfile/")
MODELS = [{"name": "llama3.2:3b"}, {"name": "qwen3:1.7b"}, {"name": "mistral-small3.2:latest"}]


def tree():
    command = [ROOT / "tests" / "lab" / "tree.sh", "llm-01"]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line for line in found.splitlines() if not line.startswith(SAMPLES)]


@pytest.fixture
def refused(playbook, tmp_path):
    """Run remediate.yml for real with bad input; returns its output, the host unchanged."""

    def run(**variables):
        extra = json.dumps({"llm_report_dir": str(tmp_path), **variables})
        before = tree()
        result = playbook("playbooks/remediate.yml", "-l", "llm-01", "-e", extra)
        assert result.returncode != 0, result.stdout
        assert sorted(set(before) ^ set(tree())) == []
        return " ".join((result.stdout + result.stderr).split())

    return run


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {
                "llm_engine": "llamafile",
                "llm_models": [
                    *MODELS,
                    {"digest": "a80c4f17acd5"},
                    {"name": "phi3:latest", "digest": "a80c4f17zzzz"},
                ],
                "llm_models_forbidden": ["qwen3:1.7b"],
            },
            [
                'llm_engine: found "llamafile", wanted ollama',
                "llm_models[3].name: found nothing, wanted a model name",
                'llm_models[4].digest: found "a80c4f17zzzz", wanted 12 to 64 hexadecimal digits',
                'llm_models_forbidden[0]: found "qwen3:1.7b", wanted a model that is not declared',
            ],
        ),
        ({"llm_gpus": {"count": 4, "name": "RTX 4070 Ti"}}, ["gpu_count is 2", "wanted 4"]),
        ({"llm_telemetry_interval": 5}, ["telemetry_interval is 5", "wanted: 10 to 86400"]),
        ({"llm_bulk_device": "/dev/sdz9"}, ["/dev/sdz9", "exist"]),
        ({"llm_bulk_fstype": "xfs"}, ["/dev/sda1", "ext4", "xfs"]),
        (
            {
                "llm_models": [*MODELS, {"name": "phi3:latest"}],
                "llm_models_forbidden": [],
                "llm_registry": "registry:5999",
                "llm_model_peers": [],  # another host of the lab has it
            },
            ["phi3:latest", "registry:5999"],
        ),
        (
            {
                "llm_models": [*MODELS, {"name": "cogito:32b"}],
                "llm_models_forbidden": [],
                "llm_reserve_bytes": 10**15,
            },
            ["are free", "must stay free"],
        ),
        (
            {
                "llm_models": [*MODELS, {"name": "phi3:latest", "digest": "000000000000"}],
                "llm_models_forbidden": [],
            },
            ["phi3:latest", "000000000000"],
        ),
    ],
    ids=[
        "every-problem-of-the-declaration",
        "fewer-gpus",
        "interval-out-of-range",
        "no-such-device",
        "foreign-file-system",
        "unreachable-registry",
        "no-space",
        "pin-that-the-registry-cannot-meet",
    ],
)
def test_bad_input_is_refused(refused, variables, words):
    output = refused(**variables)
    assert "llm-01" in output
    for word in words:
        assert word in output, output[-3000:]


@pytest.fixture
def hot(llm_01):
    """Make GPU 1 too hot for one test."""
    llm_01.run("cp /etc/sim-gpu/profile.conf /run/profile.conf")
    llm_01.run("cp /lab/sim_gpu/profiles/fault-over-temperature.conf /etc/sim-gpu/profile.conf")
    yield
    llm_01.run("cp /run/profile.conf /etc/sim-gpu/profile.conf")


@pytest.mark.usefixtures("hot")
def test_a_gpu_that_is_too_hot_is_refused(refused):
    output = refused()
    assert "temperature" in output
    assert "RTX 4070 Ti" in output


@pytest.mark.usefixtures("hot")
def test_a_gpu_that_is_too_hot_and_accepted_is_in_the_report_with_the_reason(playbook, tmp_path):
    accepted = [{"check": "gpu_temperature", "gpu": 1, "reason": "fan 7731 is ordered"}]
    extra = json.dumps({"llm_report_dir": str(tmp_path), "llm_gpu_accept": accepted})
    result = playbook("playbooks/remediate.yml", "-l", "llm-01", "--tags", "prepare", "-e", extra)
    assert result.returncode == 0, result.stdout + result.stderr
    [path] = tmp_path.glob("llm-01/*/run-record.json")
    record = json.loads(path.read_text())
    assert (record["verdict"], record["failure"]) == ("WARN", None)
    [verdict] = [
        verdict
        for verdict in record["verdicts"]
        if verdict["check"] == "gpu_temperature" and verdict["subject"].startswith("GPU 1 ")
    ]
    assert (verdict["status"], verdict["value"]) == ("WARN", 97)
    assert verdict["evidence"].endswith("accepted: fan 7731 is ordered")
    page = (tmp_path / "llm-01" / "latest.html").read_text()
    assert "accepted: fan 7731 is ordered" in page


def test_a_limit_that_matches_no_host_is_refused(playbook):
    result = playbook("playbooks/remediate.yml", "-l", "llm-99")
    assert result.returncode != 0
    assert "llm-99" in result.stdout + result.stderr
