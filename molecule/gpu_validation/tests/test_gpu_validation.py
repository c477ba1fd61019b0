# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path

import pytest

CONVERGE = str(Path(__file__).resolve().parents[1] / "converge.yml")
PROFILE = "/etc/sim-gpu/profile.conf"


@pytest.fixture
def profile(llm_02):
    """Give the host another simulated GPU for one test."""
    llm_02.check_output(f"cp {PROFILE} {PROFILE}.kept")

    def use(name):
        llm_02.check_output(f"cp /lab/sim_gpu/profiles/{name}.conf {PROFILE}")

    yield use
    llm_02.check_output(f"mv {PROFILE}.kept {PROFILE}")


def validate(playbook, **declared):
    arguments = ["-i", "inventories/lab", CONVERGE]
    if declared:
        arguments += ["-e", json.dumps({"declared": declared})]
    return playbook(*arguments)


def said(ended):
    return " ".join((ended.stdout + ended.stderr).split())


def test_a_healthy_host_passes(playbook):
    ended = validate(playbook)
    assert ended.returncode == 0, ended.stdout
    assert "changed=0" in ended.stdout


def test_too_few_gpus_stop_the_run(playbook):
    ended = validate(playbook, count=3)
    assert ended.returncode != 0
    assert "1 GPU check failed. llm-02 GPUs: gpu_count is 2, wanted 3" in said(ended)


def test_an_old_driver_stops_the_run(playbook):
    ended = validate(playbook, driver_min="999.1")
    assert "gpu_driver_version is" in said(ended)
    assert "wanted 999.1" in said(ended)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fault-driver-missing", "gpu_driver is driver_not_loaded, wanted ok"),
        ("fault-library-mismatch", "gpu_driver is version_mismatch, wanted ok"),
        ("fault-hang", "gpu_driver is timeout, wanted ok"),
        ("fault-gpu-lost", "gpu_state is lost, wanted ok"),
        ("fault-over-temperature", "gpu_temperature is 97 °C, wanted 96 °C"),
    ],
)
def test_a_sick_host_stops_the_run(playbook, profile, name, words):
    profile(name)
    ended = validate(playbook, count=2)
    assert ended.returncode != 0
    assert words in said(ended), ended.stdout
