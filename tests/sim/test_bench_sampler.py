# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sampler as a process: against a simulated NVML, a real /proc, and engines on loopback."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import Measurement
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_sampler import Sampler, Watch

ROOT = Path(__file__).resolve().parents[2]
SIM = ROOT / "tests" / "lab" / "sim_gpu"
STEP_S = 0.1


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    if not shutil.which("gcc"):
        pytest.skip("gcc is needed to build the simulated NVML")
    directory = tmp_path_factory.mktemp("sim_gpu")
    subprocess.run(["sh", str(SIM / "build.sh"), str(directory)], check=True)
    return directory


@pytest.fixture
def profile(libraries, monkeypatch, tmp_path):
    """A function that chooses the simulated machine."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries))
    monkeypatch.setenv("SIM_GPU_ACTIVITY_DIR", str(tmp_path))

    def choose(name):
        monkeypatch.setenv("SIM_NVML_PROFILE", str(SIM / "profiles" / f"{name}.conf"))
        return str(libraries / "nvidia-smi")

    return choose


@contextlib.contextmanager
def engine(answers):
    """An engine that answers these paths; a function is called for its body."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            asked.append((self.path, self.headers.get("Authorization"), self.client_address[1]))
            body = answers.get(self.path)
            body = body() if callable(body) else body
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def sampled(watch, seconds=0.8, lead_s=0.6):
    """Return the timeline of a stage that takes so long, and the sampler."""
    sampler = Sampler(watch)
    with sampler:
        time.sleep(lead_s)
        stage = Measurement("m", begun=time.monotonic(), begun_at="now")
        time.sleep(seconds)
        stage.wall_s = time.monotonic() - stage.begun
    return sampler.timeline(stage)


def readings(timeline, name):
    return [row[name] for row in timeline["rows"] if row[name]]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid, within_s):
    end = time.monotonic() + within_s
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def test_gpus_through_nvml_and_the_host(profile):
    profile("fault-over-temperature")
    timeline = sampled(Watch(step_s=STEP_S, gpu_python=sys.executable))
    assert timeline["sources"]["gpu"] == "nvml"
    gpus = readings(timeline, "gpu")
    assert len(gpus) >= len(timeline["rows"]) / 2
    cool, hot = gpus[-1]
    assert (cool["index"], hot["index"], hot["temperature_c"]) == (0, 1, 97)
    assert "sw_thermal_slowdown" in hot["throttle"] or "hw_thermal_slowdown" in hot["throttle"]
    assert cool["throttle"] == []
    assert cool["memory_total_bytes"] == 12282 * 2**20
    assert cool["util_percent"] == 0
    assert cool["power_w"] > 0
    assert timeline["sources"]["host"] == "/proc"
    cpu = readings(timeline, "cpu_percent")
    assert cpu
    assert max(cpu) <= 100
    assert max(readings(timeline, "memory_used_bytes")) > 2**20
    assert timeline["sources"]["engine"] == "none: no address of the engine was given"


def test_nvidia_smi_instead(profile):
    smi = profile("rtx-4070-ti-x2")
    timeline = sampled(Watch(step_s=STEP_S, smi=smi), seconds=0.3)
    assert timeline["sources"]["gpu"] == "nvidia-smi"
    one, other = timeline["rows"][0]["gpu"] or readings(timeline, "gpu")[0]
    assert (one["memory_total_bytes"], other["temperature_c"]) == (12282 * 2**20, 36)


def test_an_interpreter_that_is_not_there_costs_the_gpus_only():
    timeline = sampled(Watch(step_s=STEP_S, gpu_python="/nonexistent/python"))
    assert timeline["sources"]["gpu"].startswith("none: ")
    assert "/nonexistent/python" in timeline["sources"]["gpu"]
    assert "nvidia-smi is not installed" in timeline["sources"]["gpu"]
    assert readings(timeline, "cpu_percent")


def test_a_driver_that_is_missing_is_a_reason(profile):
    smi = profile("fault-driver-missing")
    timeline = sampled(Watch(step_s=STEP_S, gpu_python=sys.executable, smi=smi))
    assert "Driver Not Loaded" in timeline["sources"]["gpu"]
    assert "nvidia-smi ended with 9" in timeline["sources"]["gpu"]


def test_a_driver_call_that_hangs_delays_nothing_else(profile):
    profile("fault-hang")
    begin = time.monotonic()
    sampler = Sampler(Watch(step_s=STEP_S, gpu_python=sys.executable))
    with sampler:
        pid = sampler._process.pid
        time.sleep(0.6)
        stage = Measurement("m", begun=time.monotonic(), wall_s=0.6)
        time.sleep(0.8)
        assert alive(pid)
    assert time.monotonic() - begin < 4
    assert not alive(pid)
    timeline = sampler.timeline(stage)
    assert timeline["sources"]["gpu"] == "nvml; it gave no reading during this stage"
    assert len(readings(timeline, "cpu_percent")) >= 4


def test_vllm_while_it_works_on_one_connection():
    tokens = iter(range(1000, 10**6, 50))

    def body():
        return (
            'vllm:num_requests_running{engine="0",model_name="m"} 4.0\n'
            f'vllm:generation_tokens_total{{engine="0",model_name="m"}} {next(tokens)}.0\n'
        ).encode()

    with engine({"/base/metrics": body}) as (url, asked):
        headers = (("Authorization", "Bearer secret"),)
        timeline = sampled(Watch(step_s=STEP_S, local=False, url=f"{url}/base/", headers=headers))
    assert timeline["sources"]["engine"] == "vllm /metrics"
    rows = readings(timeline, "engine")
    assert rows[-1]["running"] == 4
    assert 50 < rows[-1]["generation_tokens_per_s"] < 2000  # 500, on a machine with time
    assert {(path, key) for path, key, _port in asked} == {("/base/metrics", "Bearer secret")}
    assert len({port for _path, _key, port in asked}) == 1
    assert timeline["sources"]["gpu"] == "none: the requests were sent from another machine"
    assert timeline["rows"][0]["cpu_percent"] is None


def test_an_engine_that_restarts_is_read_again():
    down = threading.Event()

    def body():
        if down.is_set():
            raise ConnectionError  # the handler's thread ends, and with it the connection
        return b"vllm:num_requests_running 1.0\n"

    with engine({"/metrics": body}) as (url, _asked):
        with Sampler(Watch(step_s=STEP_S, url=url)) as sampler:
            time.sleep(0.6)
            stage = Measurement("m", begun=time.monotonic(), wall_s=1.2)
            down.set()
            time.sleep(0.5)
            down.clear()
            time.sleep(0.7)
        timeline = sampler.timeline(stage)
    assert "readings failed, the last one: GET /metrics: " in timeline["sources"]["engine"]
    assert {"running": 1} in [row["engine"] for row in timeline["rows"][-5:]]


def test_ollama_is_told_from_vllm():
    models = {"models": [{"name": "a:1b", "size": 10, "size_vram": 5}]}
    with engine({"/api/ps": json.dumps(models).encode()}) as (url, _asked):
        timeline = sampled(Watch(step_s=STEP_S, url=url), seconds=0.4)
    assert timeline["sources"]["engine"] == "ollama /api/ps"
    assert readings(timeline, "engine")[0] == {
        "models": ["a:1b"],
        "size_bytes": 10,
        "size_vram_bytes": 5,
    }


def test_an_engine_without_figures():
    with engine({}) as (url, _asked):
        timeline = sampled(Watch(step_s=STEP_S, url=url), seconds=0.3)
    assert timeline["sources"]["engine"] == (
        "none: GET /metrics: it answered 404; GET /api/ps: it answered 404"
    )


def test_the_key_is_in_no_list_of_processes():
    headers = (("Authorization", "Bearer secret-key"),)
    with Sampler(Watch(url="http://127.0.0.1:1", headers=headers)) as sampler:
        command = Path(f"/proc/{sampler._process.pid}/cmdline").read_bytes()
    assert b"secret-key" not in command


def test_nothing_is_left_when_the_parent_is_killed():
    program = textwrap.dedent(
        """
        import sys, time
        sys.path.insert(0, sys.argv[1])
        import conftest
        from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_sampler as it
        sampler = it.Sampler(it.Watch(step_s=0.1))
        sampler.start()
        print(sampler._process.pid, flush=True)
        time.sleep(60)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(ROOT / "tests")], stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(0.3)
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
    assert gone(pid, 3.0)


def test_it_ends_by_itself_after_its_time():
    sampler = Sampler(Watch(step_s=STEP_S, limit_s=0.3))
    with sampler:
        assert gone(sampler._process.pid, 3.0)


def test_a_sampler_that_is_stopped_by_force_does_not_hold_the_run_up():
    sampler = Sampler(Watch(step_s=STEP_S))
    sampler.start()
    pid = sampler._process.pid
    time.sleep(0.3)
    os.kill(pid, signal.SIGSTOP)  # neither hears that its input ended nor that it should go
    begin = time.monotonic()
    sampler.stop()
    assert time.monotonic() - begin < 3.5
    assert not alive(pid)


def test_a_sampler_that_cannot_start_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    timeline = sampled(Watch(step_s=STEP_S), seconds=0.1, lead_s=0.0)
    assert "/nonexistent/python" in timeline["sources"]["host"]
    assert timeline["rows"][0]["cpu_percent"] is None


def test_it_costs_next_to_nothing():
    """A percent of one core at one reading per second would be 10 ms; loaded machines need room."""
    timeline = sampled(Watch(step_s=STEP_S), seconds=1.5)
    assert 0 < timeline["sampler_cpu_ms"] < 50
