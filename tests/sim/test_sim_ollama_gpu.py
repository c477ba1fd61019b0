# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Placement on GPUs: asked from the simulated NVML, seen in ps, told by the activity file."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
from harness import FAST, LAB, start_ollama
from sim_ollama.gpu import RESERVED_BYTES, Gpu, place

GIB = 1 << 30
ASK = {"model": "tiny:1b", "prompt": "x", "stream": False}


@pytest.fixture(scope="session")
def nvml(tmp_path_factory):
    """The simulated NVML library."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not there to build the simulated NVML")
    folder = tmp_path_factory.mktemp("nvml")
    subprocess.run([str(LAB / "sim_gpu" / "build.sh"), str(folder)], check=True)
    return folder / "libnvidia-ml.so.1"


@pytest.fixture
def start(nvml, tmp_path):
    """A function that starts a server on a machine with the GPUs of a profile."""
    running = []

    def starter(profile="rtx-4070-ti-x2", vram=3 * GIB, version="0.11.4", **config):
        env = {
            "SIM_OLLAMA_NVML": str(nvml),
            "SIM_NVML_PROFILE": str(LAB / "sim_gpu" / "profiles" / f"{profile}.conf"),
            "SIM_GPU_ACTIVITY_DIR": str(tmp_path / f"ollama-{version}" / "activity"),
        }
        models = {"tiny:1b": {"vram_bytes": vram}, "tiny-think:1b": {"vram_bytes": vram}}
        full = {**FAST, "models": models, **config}
        running.append(start_ollama(tmp_path, version=version, config=full, env=env))
        return running[-1]

    yield starter
    for ollama in running:
        ollama.stop()


def ps(ollama):
    """Return the entries of /api/ps by name."""
    return {m["name"]: m for m in ollama.get("/api/ps").json()["models"]}


def activity(ollama):
    """Return the activity files as dicts."""
    found = []
    for path in sorted(ollama.activity.iterdir()):
        lines = path.read_text().splitlines()
        found.append(dict(line.split("=", 1) for line in lines))
        assert found[-1]["pid"] == path.name
    return found


def process_name(pid):
    """Return the name that the system shows for a process."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


@pytest.mark.parametrize("version", ["0.11.4", "0.32.15"])
def test_a_model_that_fits_lies_on_one_gpu(start, version):
    ollama = start(version=version)
    ollama.post("/api/generate", ASK)
    entry = ps(ollama)["tiny:1b"]
    assert entry["size"] == entry["size_vram"] == 3 * GIB
    assert "100% GPU" in ollama.cli("ps").stdout
    told = activity(ollama)
    assert len(told) == 1
    assert told[0]["gpu.0.memory"] == str(3 * GIB)
    assert "gpu.1.memory" not in told[0]
    assert "offloaded 9/9 layers to GPU" in ollama.log()


def test_the_log_has_a_line_per_gpu(start):
    log = start().log()
    lines = [x for x in log.splitlines() if "inference compute" in x]
    assert len(lines) == 2
    assert all("library=cuda" in x and "RTX 4070 Ti" in x for x in lines)


@pytest.mark.parametrize(
    ("version", "name"), [("0.11.4", "ollama runner"), ("0.32.15", "llama-server")]
)
def test_the_runner_is_a_process_of_its_own(start, version, name):
    ollama = start(version=version)
    ollama.post("/api/generate", ASK)
    pid = int(activity(ollama)[0]["pid"])
    assert pid != ollama.process.popen.pid
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    assert name in " ".join(words)
    assert words[words.index("--model") + 1].startswith(str(ollama.store))
    assert activity(ollama)[0]["name"].endswith(name)
    end = time.monotonic() + 5
    while process_name(pid) != name.split()[0] and time.monotonic() < end:
        time.sleep(0.05)
    assert process_name(pid) == name.split()[0]
    ollama.post("/api/generate", {"model": "tiny:1b", "keep_alive": 0})
    end = time.monotonic() + 5
    while activity(ollama) and time.monotonic() < end:
        time.sleep(0.05)
    assert activity(ollama) == []
    assert not Path(f"/proc/{pid}").exists()


def test_the_runner_dies_with_a_killed_server(start):
    ollama = start()
    ollama.post("/api/generate", ASK)
    pid = int(activity(ollama)[0]["pid"])
    ollama.process.popen.kill()
    end = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_computing_is_told_while_it_lasts(start):
    ollama = start()
    ollama.post("/api/generate", ASK)
    assert activity(ollama)[0]["gpu.0.util"] == "0"
    body = {**ASK, "prompt": "longer", "options": {"num_predict": 200}}
    job = threading.Thread(target=lambda: ollama.post("/api/generate", body))
    job.start()
    time.sleep(0.4)
    told = activity(ollama)[0]
    assert int(told["gpu.0.util"]) > 80
    assert 0 < float(told["busy_until"]) - time.time() < 2
    job.join()
    assert activity(ollama)[0]["gpu.0.util"] == "0"


def test_nvml_sees_what_the_engine_holds(start, nvml):
    ollama = start()
    ollama.post("/api/generate", ASK)
    pid = activity(ollama)[0]["pid"]
    query = "--query-compute-apps=pid,used_memory"
    env = {**os.environ, **ollama.environment(), "LD_LIBRARY_PATH": str(nvml.parent)}
    done = subprocess.run(
        [str(nvml.parent / "nvidia-smi"), query, "--format=csv,noheader,nounits"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [x.strip() for x in done.stdout.strip().split(",")] == [pid, "3072"]


def test_a_large_model_is_spread(start):
    ollama = start(vram=16 * GIB)
    ollama.post("/api/generate", ASK)
    assert ps(ollama)["tiny:1b"]["size_vram"] == 16 * GIB
    told = activity(ollama)[0]
    assert int(told["gpu.0.memory"]) + int(told["gpu.1.memory"]) == 16 * GIB


def test_a_model_that_is_too_large_is_split_and_slow(start):
    config = {"defaults": {**FAST["defaults"], "cpu_factor": 8.0}}
    ollama = start(vram=40 * GIB, **config)
    split = ollama.post("/api/generate", {**ASK, "options": {"num_predict": 10}}).json()
    entry = ps(ollama)["tiny:1b"]
    assert 0 < entry["size_vram"] < entry["size"] == 40 * GIB
    assert "CPU/GPU" in ollama.cli("ps").stdout
    assert split["eval_count"] / split["eval_duration"] * 1e9 < 60


def test_idle_models_make_room(start):
    ollama = start(profile="rtx-5070-ti-x1", vram=10 * GIB)
    ollama.post("/api/generate", ASK)
    ollama.post("/api/generate", {**ASK, "model": "tiny-think:1b"})
    assert list(ps(ollama)) == ["tiny-think:1b"]
    assert ps(ollama)["tiny-think:1b"]["size_vram"] == 10 * GIB


def test_two_models_on_two_gpus(start):
    ollama = start(vram=8 * GIB)
    ollama.post("/api/generate", ASK)
    ollama.post("/api/generate", {**ASK, "model": "tiny-think:1b"})
    assert {m["size_vram"] for m in ps(ollama).values()} == {8 * GIB}
    keys = {key for told in activity(ollama) for key in told if key.endswith(".memory")}
    assert keys == {"gpu.0.memory", "gpu.1.memory"}


@pytest.mark.parametrize("profile", ["fault-driver-missing", "fault-library-mismatch"])
def test_a_missing_driver_means_cpu_only(start, profile):
    ollama = start(profile=profile)
    assert ollama.post("/api/generate", ASK).status == 200
    assert ps(ollama)["tiny:1b"]["size_vram"] == 0
    assert "100% CPU" in ollama.cli("ps").stdout
    assert activity(ollama) == []
    assert "no compatible GPUs were discovered" in ollama.log()
    assert "library=cpu" in ollama.log()


def test_a_hanging_driver_costs_a_time_limit(start):
    started = time.monotonic()
    ollama = start(profile="fault-hang", discovery_timeout_seconds=1.0)
    assert time.monotonic() - started < 10
    ollama.post("/api/generate", ASK)
    assert "library=" in ollama.log()


@pytest.mark.parametrize("value", [True, ["tiny:1b"]])
def test_the_fault_cpu_only_at_run_time(start, value):
    """HTTP stays 200, only ps and the speed tell: the silent fall-back."""
    ollama = start()
    ollama.set_faults(cpu_only=value)
    assert ollama.post("/api/generate", ASK).status == 200
    assert ps(ollama)["tiny:1b"]["size_vram"] == 0


def test_cpu_is_slower(start):
    config = {"defaults": {**FAST["defaults"], "cpu_factor": 4.0}}
    ollama = start(**config)
    body = {**ASK, "options": {"num_predict": 10}}
    fast = ollama.post("/api/generate", body).json()["eval_duration"]
    ollama.post("/api/generate", {"model": "tiny:1b", "keep_alive": 0})
    ollama.set_faults(cpu_only=True)
    time.sleep(0.3)
    slow = ollama.post("/api/generate", body).json()["eval_duration"]
    assert slow / fast == pytest.approx(4.0, rel=0.25)


def test_num_gpu_0_asks_for_the_cpu(start):
    ollama = start()
    ollama.post("/api/generate", {**ASK, "options": {"num_gpu": 0}})
    assert ps(ollama)["tiny:1b"]["size_vram"] == 0


def test_a_missing_library_folder_means_cpu_only(start):
    """An old program without its lib/ollama runs on the CPU."""
    ollama = start()
    ollama.stop()
    shutil.rmtree(ollama.folder / "prefix" / "lib")
    ollama.start().post("/api/generate", ASK)
    assert ps(ollama)["tiny:1b"]["size_vram"] == 0


def test_a_missing_llama_server_fails(start):
    """From 0.30 a program without lib/ollama/llama-server fails."""
    ollama = start(version="0.32.15")
    (ollama.folder / "prefix/lib/ollama/llama-server").unlink()
    reply = ollama.post("/api/generate", ASK)
    assert reply.status == 500
    assert "llama-server binary not found" in reply.json()["error"]


def test_the_lists_of_places():
    gpus = [Gpu(i, f"GPU-{i}", "x", "8.9", 12 * GIB, 12 * GIB) for i in range(2)]
    free = 12 * GIB - RESERVED_BYTES
    assert place(gpus, {}, GIB, False) == {0: GIB}
    assert place(gpus, {0: GIB}, GIB, False) == {1: GIB}
    assert place(gpus, {}, GIB, True) == {0: GIB // 2, 1: GIB // 2}
    assert place(gpus, {}, 100 * GIB, False) == {0: free, 1: free}
    assert place([], {}, GIB, False) == {}
    assert place(gpus, {0: 12 * GIB, 1: 12 * GIB}, GIB, False) == {}
