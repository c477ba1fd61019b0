# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_facts import STATES, read_gpus
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import run_killable
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_verdicts import (
    failure,
    judge_gpus,
)

ROOT = Path(__file__).resolve().parents[2]
SIM = ROOT / "tests" / "lab" / "sim_gpu"
SOURCES = ["nvml", "nvidia-smi"]
DECLARED = {"count": 2, "name": "RTX 4070 Ti", "driver_min": "575.64.03", "cuda_min": "12.9"}
# What only one of the two sources tells.
ONE_SIDED = {"compute_capability", "retired_pages_pending"}
THRESHOLDS = {"temperature_shutdown_c", "temperature_slowdown_c", "temperature_max_c"}


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    if not shutil.which("gcc"):
        pytest.skip("gcc is needed to build the simulated NVML")
    directory = tmp_path_factory.mktemp("sim_gpu")
    subprocess.run(["sh", str(SIM / "build.sh"), str(directory)], check=True)
    return directory


@pytest.fixture
def simulated(libraries, monkeypatch, tmp_path):
    activity = tmp_path / "activity"
    activity.mkdir()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries))
    monkeypatch.setenv("SIM_GPU_ACTIVITY_DIR", str(activity))
    monkeypatch.setenv("PATH", f"{libraries}{os.pathsep}{os.environ['PATH']}")

    def read(profile, source, timeout_s=10.0):
        monkeypatch.setenv("SIM_NVML_PROFILE", str(SIM / "profiles" / f"{profile}.conf"))
        smi = str(libraries / "nvidia-smi")
        return read_gpus(source, sys.executable, smi, timeout_s, run_killable)

    read.activity = activity
    return read


def failures(facts, expected=None):
    return failure(judge_gpus(facts, expected or DECLARED), "llm-01")


@pytest.mark.parametrize("source", SOURCES)
def test_healthy_host(simulated, source):
    facts = simulated("rtx-4070-ti-x2", source)
    assert (facts["state"], facts["source"], facts["errors"]) == ("ok", source, [])
    assert facts["driver"]["version"] == "575.64.03"
    assert facts["driver"]["cuda_version"] == "12.9"
    assert [gpu["name"] for gpu in facts["gpus"]] == ["NVIDIA GeForce RTX 4070 Ti"] * 2
    assert failures(facts) == ""


@pytest.mark.parametrize(
    "profile", ["rtx-4070-ti-x2", "rtx-5060-ti-x2", "rtx-5070-ti-x1", "h200-x1"]
)
def test_both_sources_tell_the_same(simulated, profile):
    nvml, smi = (simulated(profile, source) for source in SOURCES)
    for one, other in zip(nvml["gpus"], smi["gpus"]):
        keys = (set(one) | set(other)) - ONE_SIDED
        if "temperature_margin_c" in other:  # nvidia-smi shows distances in place of thresholds
            keys -= THRESHOLDS
        assert {key: one.get(key) for key in keys} == {key: other.get(key) for key in keys}


def test_geforce_has_no_ecc_and_a_data_centre_card_has(simulated):
    geforce = simulated("rtx-4070-ti-x2", "nvml")["gpus"][0]
    assert not [key for key in geforce if key.startswith(("ecc_", "remapped_", "retired_"))]
    h200 = simulated("h200-x1", "nvml")["gpus"][0]
    assert h200["ecc_errors_uncorrected"] == 0
    assert h200["temperature_margin_c"] > 0
    assert failures({"state": "ok", "gpus": [h200], "driver": {}}, {"name": "H200"}) == ""


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("profile", "state"),
    [
        ("fault-driver-missing", "driver_not_loaded"),
        ("fault-library-mismatch", "version_mismatch"),
    ],
)
def test_driver_faults_have_a_name(simulated, source, profile, state):
    facts = simulated(profile, source)
    assert facts["state"] == state
    assert facts["state"] in STATES
    assert facts["gpus"] == []
    assert f"gpu_driver is {state}, wanted ok" in failures(facts)


@pytest.mark.parametrize("source", SOURCES)
def test_lost_gpu(simulated, source):
    facts = simulated("fault-gpu-lost", source)
    assert [gpu["state"] for gpu in facts["gpus"]] == ["ok", "lost"]
    message = failures(facts)
    assert "gpu_count is 1, wanted 2" in message
    assert "llm-01 GPU 1 (" in message
    assert "gpu_state is lost, wanted ok" in message


@pytest.mark.parametrize("source", SOURCES)
def test_one_gpu_missing(simulated, source):
    assert "gpu_count is 1, wanted 2" in failures(simulated("fault-one-gpu-missing", source))


@pytest.mark.parametrize("source", SOURCES)
def test_over_temperature(simulated, source):
    message = failures(simulated("fault-over-temperature", source))
    assert "GPU 1 (NVIDIA GeForce RTX 4070 Ti, GPU-" in message
    assert "gpu_temperature is 97 °C, wanted 96 °C" in message


@pytest.mark.parametrize("source", SOURCES)
def test_a_call_that_hangs_is_killed_at_the_deadline(simulated, source):
    begin = time.monotonic()
    facts = simulated("fault-hang", source, timeout_s=1.0)
    assert time.monotonic() - begin < 4
    assert facts["state"] == "timeout"
    assert "gpu_driver is timeout" in failures(facts)


@pytest.mark.parametrize("source", SOURCES)
def test_work_of_a_process_is_seen(simulated, source):
    gib = 1024**3
    entry = (
        f"pid={os.getpid()}\nname=/usr/local/bin/ollama runner\ngpu.0.memory={2 * gib}\n"
        f"gpu.0.util=87\nbusy_until={time.time() + 60}\n"
    )
    (simulated.activity / str(os.getpid())).write_text(entry)
    busy, idle = simulated("rtx-4070-ti-x2", source)["gpus"]
    assert busy["utilization_gpu_ratio"] == 0.87
    assert busy["memory_used_bytes"] >= 2 * gib
    assert [process["pid"] for process in busy["processes"]] == [os.getpid()]
    assert idle["utilization_gpu_ratio"] == 0
    assert idle["processes"] == []
    assert failures({"state": "ok", "gpus": [busy, idle], "driver": {}}, {"count": 2}) == ""


def test_missing_binding_falls_back(simulated, monkeypatch):
    bare = "/usr/bin/python3"
    if not Path(bare).exists():
        pytest.skip("no second interpreter")
    monkeypatch.setenv("SIM_NVML_PROFILE", str(SIM / "profiles" / "rtx-4070-ti-x2.conf"))
    facts = read_gpus("auto", bare, shutil.which("nvidia-smi"), 10, run_killable)
    assert (facts["source"], facts["state"]) == ("nvidia-smi", "ok")
    assert facts["errors"][0]["state"] == "no_binding"


def module(name, arguments):
    argv = [
        str(Path(sys.executable).with_name("ansible")),
        "localhost",
        "--connection=local",
        f"--module-name=hx_infra.llm.{name}",
        f"--args={json.dumps(arguments)}",
        "--extra-vars=ansible_python_interpreter=" + sys.executable,
    ]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return json.loads(ended.stdout[ended.stdout.index("=> {") + 3 :])


def test_modules(simulated):
    simulated("fault-over-temperature", "nvml")  # leaves the profile in the environment
    info = module("gpu_info", {"python": sys.executable})
    assert (info["changed"], info["state"], info["source"]) == (False, "ok", "nvml")
    assert info["actions"] == info["plan"] == []
    options = {"python": sys.executable, "expected": DECLARED, "host": "llm-01"}
    health = module("gpu_health", options)
    assert health["status"] == "FAIL"
    refused = module("gpu_health", {**options, "fail": True, "gpu_facts": info})
    assert refused["msg"].startswith("1 GPU check failed. llm-01 GPU 1 (")
    assert refused["verdicts"] == health["verdicts"]
