# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module with its action plugin, against GPUs of the simulated NVML."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIM = ROOT / "tests" / "lab" / "sim_gpu"
GIB = 1024**3
QWEN3_8B = {
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_size": 4096,
    "max_position_embeddings": 40960,
    "torch_dtype": "bfloat16",
}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    if not shutil.which("gcc"):
        pytest.skip("gcc is needed to build the simulated NVML")
    directory = tmp_path_factory.mktemp("sim_gpu")
    subprocess.run(["sh", str(SIM / "build.sh"), str(directory)], check=True)
    return directory


@pytest.fixture
def host(libraries, monkeypatch, tmp_path):
    """A function that runs the module on a host with the GPUs of a profile."""
    activity = tmp_path / "activity"
    activity.mkdir()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries))
    monkeypatch.setenv("SIM_GPU_ACTIVITY_DIR", str(activity))
    monkeypatch.setenv("PATH", f"{libraries}{os.pathsep}{os.environ['PATH']}")

    def run(*services, profile="rtx-4070-ti-x2", check=False, **options):
        monkeypatch.setenv("SIM_NVML_PROFILE", str(SIM / "profiles" / f"{profile}.conf"))
        arguments = {
            "services": list(services),
            "build": "cuda",
            "address": "127.0.0.1",
            "python": sys.executable,
            "hub_url": "",
            **options,
        }
        argv = [
            str(Path(sys.executable).with_name("ansible")),
            "localhost",
            "--connection=local",
            "--module-name=hx_infra.llm.vllm_plan",
            f"--args={json.dumps(arguments)}",
            f"--extra-vars=ansible_python_interpreter={sys.executable}",
            *(["--check"] if check else []),
        ]
        ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        return json.loads(ended.stdout[ended.stdout.index("=> {") + 3 :])

    run.activity = activity
    return run


@pytest.fixture
def model(tmp_path):
    """A model of 5 GiB that takes no room on the disk."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(QWEN3_8B))
    with (folder / "model.safetensors").open("wb") as stream:
        stream.truncate(5 * GIB)
    return str(folder)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def service(model, name="a", port=None, **more):
    return {
        "name": name,
        "service": {"port": port or free_port()},
        "model": {"path": model, "max_model_len": 8192, **more},
    }


def test_a_plan_is_the_same_in_check_mode(host, model):
    pair = (service(model, "a"), service(model, "b", gpus=[1]))
    found = host(*pair)
    assert (found["changed"], found["actions"], found["plan"]) == (False, [], [])
    assert [item["status"] for item in found["verdicts"]] == ["PASS", "PASS"]
    first, second = found["services"]
    assert first["environment"]["CUDA_VISIBLE_DEVICES"] == first["gpus"][0]["uuid"]
    assert first["gpus"][0]["uuid"].startswith("GPU-")
    assert first["gpus"][0]["uuid"] != second["gpus"][0]["uuid"]
    assert first["fit"]["kv_bytes_per_token"] == 144 * 1024
    assert first["unit"] == "citadel-llm@a.service"
    assert host(*pair, check=True) == found


def test_a_model_that_does_not_fit_is_refused_with_the_figures(host, model):
    found = host(service(model, max_model_len=40960))
    (problem,) = found["problems"]
    assert problem["field"] == "model.max_model_len"
    assert "144 KiB/token x 40960 tokens = 5.62 GiB" in problem["allowed"]
    longest = int(problem["allowed"].split()[2].rstrip(":"))
    assert found["msg"].startswith("localhost: 1 problem in the declared vLLM services:\n")
    assert host(service(model, max_model_len=longest))["services"][0]["fit"]["fits"] is True


def test_memory_that_another_program_holds_counts(host, model):
    entry = (
        f"pid={os.getpid()}\nname=/usr/local/bin/ollama runner\ngpu.0.memory={3 * GIB}\n"
        f"gpu.0.util=0\nbusy_until={time.time() + 60}\n"
    )
    (host.activity / str(os.getpid())).write_text(entry)
    (problem,) = host(service(model))["problems"]
    assert problem["field"] == "model.gpu_memory_utilization"
    assert f"ollama runner (pid {os.getpid()}) 3.00 GiB" in problem["allowed"]
    assert host(service(model, gpus=[1]))["services"]


def test_gpus_that_do_not_exist_and_a_driver_that_is_not_there(host, model):
    (problem,) = host(service(model, gpus=[2]))["problems"]
    assert (problem["found"], problem["allowed"]) == ("2", "a GPU of this host: 0, 1")
    found = host(service(model), profile="fault-driver-missing")
    assert found["gpu_state"] == "driver_not_loaded"
    assert [problem["field"] for problem in found["problems"]] == ["model.gpus"]


def test_a_port_in_use_names_its_process(host, model):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        (problem,) = host(service(model, port=port))["problems"]
    assert problem["field"] == "service.port"
    assert f"(pid {os.getpid()})" in problem["allowed"]


def test_the_schema_is_judged_before_the_host_is_touched(host, model):
    bad = {**service(model), "modle": {}}
    found = host(bad, {"name": "b"}, python="/nonexistent")
    assert [(p["service"], p["field"]) for p in found["problems"]] == [
        ("a", "modle"),
        ("b", "service"),
        ("b", "model"),
    ]
    assert "did you mean model?" in found["msg"]
    assert "gpu_state" not in found


def test_the_cpu_build_asks_no_gpu(host, model):
    with (Path(model) / "model.safetensors").open("wb") as stream:
        stream.truncate(1024)
    found = host(
        service(model, kv_cache_gb=1, max_model_len=1024),
        build="cpu",
        profile="fault-driver-missing",
    )
    assert found["gpu_state"] == "not asked"
    assert found["services"][0]["environment"]["VLLM_CPU_KVCACHE_SPACE"] == "1"
