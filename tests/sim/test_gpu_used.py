# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Does the GPU do the work? The simulated Ollama says one thing, the simulated card another."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from harness import FAST, LAB, start_ollama

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import http_prepare
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used import Limits
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used_engines import OLLAMA, VLLM
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used_look import Looking, Lookout
from ansible_collections.hx_infra.llm.plugins.module_utils._inference_check import (
    Wanted,
    check_all,
    check_openai,
)

ROOT = Path(__file__).resolve().parents[2]
PROFILES = LAB / "sim_gpu" / "profiles"
GIB = 1 << 30
HELD = 3 * GIB
MODEL = "tiny:1b"
NVML, SMI = "nvml", "nvidia-smi"


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    if not shutil.which("gcc"):
        pytest.skip("gcc is needed to build the simulated NVML")
    directory = tmp_path_factory.mktemp("sim_gpu")
    subprocess.run(["sh", str(LAB / "sim_gpu" / "build.sh"), str(directory)], check=True)
    return directory


@pytest.fixture
def start(libraries, tmp_path, monkeypatch):
    """A function that starts an Ollama on two simulated GPUs; tests see the same GPUs."""
    running = []
    activity = tmp_path / "activity"
    activity.mkdir()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries))
    monkeypatch.setenv("SIM_GPU_ACTIVITY_DIR", str(activity))
    monkeypatch.setenv("SIM_NVML_PROFILE", str(PROFILES / "rtx-4070-ti-x2.conf"))

    def starter(version="0.11.4", environment=None, **faults):
        env = {
            "SIM_OLLAMA_NVML": str(libraries / "libnvidia-ml.so.1"),
            "SIM_NVML_PROFILE": str(PROFILES / "rtx-4070-ti-x2.conf"),
            "SIM_OLLAMA_ACTIVITY_DIR": str(activity),
            **(environment or {}),
        }
        config = {**FAST, "models": {MODEL: {"vram_bytes": HELD}}, "faults": faults}
        running.append(start_ollama(tmp_path, version=version, config=config, env=env))
        return running[-1]

    starter.activity = activity
    yield starter
    for ollama in running:
        ollama.stop()


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """A function that changes the cards for the check, while the engine keeps the healthy ones."""

    def use(*lines, gpu=0, machine=()):
        text = (PROFILES / "rtx-4070-ti-x2.conf").read_text()
        head, mark, rest = text.partition(f"[gpu {gpu}]\n")
        text = "\n".join(machine) + "\n" + head + mark + "\n".join(lines) + "\n" + rest
        path = tmp_path / "machine.conf"
        path.write_text(text)
        monkeypatch.setenv("SIM_NVML_PROFILE", str(path))

    return use


def judge(ollama, libraries, source=NVML, seconds=3.0, declared=True, **more):
    """Check the model as the module does; return the verdict on the GPU, the others, figures."""
    wanted = Wanted(**{"models": [MODEL], "timeout_s": 20.0, "gpu_ratio": 1.0, **more})
    looking = Looking(
        ollama.url,
        seconds,
        Limits(wanted.gpu_ratio, declared),
        python=sys.executable if source == NVML else "",
        smi=str(libraries / "nvidia-smi") if source == SMI else "",
    )
    prepare = http_prepare(ollama.url)
    with Lookout(looking, OLLAMA, prepare) as lookout:
        verdicts, answers = check_all(wanted, prepare, time.perf_counter, lookout)
    assert [answer["error"] for answer in answers] == ["", ""]  # whatever the cards do
    [verdict] = [one for one in verdicts if one.check == "gpu_used"]
    others = {one.check: one.status for one in verdicts if one.check != "gpu_used"}
    assert set(others.values()) == {"PASS"}
    return verdict, lookout.figures[0] if lookout.figures else {}


def named(pid, name):
    """Tell whether a process has a name; one that has just been started gives it to itself."""
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}/comm").read_text().strip() != name:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def asked(ollama):
    return len(re.findall(r"/api/generate", ollama.log()))


@pytest.mark.parametrize("source", [NVML, SMI])
@pytest.mark.parametrize(("version", "name"), [("0.11.4", "ollama"), ("0.32.15", "llama-server")])
def test_a_model_that_the_gpu_computes(start, libraries, source, version, name):
    ollama = start(version)
    verdict, figures = judge(ollama, libraries, source)
    assert (verdict.status, verdict.value) == ("PASS", 1.0), verdict.evidence
    wanted = rf"size_vram 3.22 of 3.22 GB in /api/ps; GPU 0: 97 % busy, {name} \(pid \d+\) holds 3"
    assert re.match(wanted, verdict.evidence), verdict.evidence
    [process] = figures["gpus"][0]["processes"]
    assert process["engine"]
    assert named(process["pid"], name)
    assert figures["gpus"][1]["processes"] == []


def test_an_engine_that_claims_the_gpu_while_the_card_is_idle(start, libraries):
    verdict, figures = judge(start(idle_gpu=True), libraries, seconds=2.0)
    assert (verdict.status, verdict.value, verdict.limit) == ("FAIL", 0.0, 1.0)
    assert verdict.evidence.startswith(
        "the engine says size_vram 3.22 of 3.22 GB in /api/ps, but no process of the engine is on"
    )
    assert "GPU 0: 0 % busy, no process, " in verdict.evidence
    assert figures["seconds"] >= 1.0


@pytest.mark.parametrize("source", [NVML, SMI])
def test_an_engine_that_holds_the_memory_and_computes_elsewhere(start, libraries, source):
    verdict, _figures = judge(start(idle_gpu="work"), libraries, source, seconds=3.5)
    assert (verdict.status, verdict.value) == ("FAIL", 0.0)
    assert re.search(r"at most 0 % busy in \d\.\d s, wanted more than 5 %", verdict.evidence)
    assert re.search(r"GPU 0: 0 % busy, ollama \(pid \d+\) holds 3.22 GB", verdict.evidence)


def test_the_work_of_the_model_before_is_not_this_ones(start, libraries):
    """Both models claim the GPU and the second is computed elsewhere.

    What is left of the first is a process of the engine, half of the memory that both claim, and
    for a second, as NVML averages, its utilisation.
    """
    ollama = start()
    before, other = MODEL, "tiny-think:1b"
    models = {name: {"vram_bytes": HELD} for name in (before, other)}
    ollama.set_config({**json.loads(ollama.config_path.read_text()), "models": models})
    prepare = http_prepare(ollama.url)

    def averaged(method, path, body, timeout_s):
        if other.encode() in body:
            [file] = start.activity.glob("[0-9]*")
            text = re.sub(r"util=\d+", "util=97", file.read_text())
            until = f"busy_until={time.time() + 0.3}"  # and half a second, as the library has it
            file.write_text(re.sub(r"busy_until=.*", until, text))
        return prepare(method, path, body, timeout_s)

    looking = Looking(ollama.url, 3.0, Limits(1.0, True), python=sys.executable)
    verdicts = {}
    with Lookout(looking, OLLAMA, averaged) as lookout:
        for model in (before, other):
            wanted = Wanted(models=[model], timeout_s=20.0)
            told, _answers = check_all(wanted, prepare, time.perf_counter, lookout)
            verdicts[model] = told[-1]
            if model == before:
                at_rest(start.activity)
                ollama.set_faults(idle_gpu=True)
    assert verdicts[before].status == "PASS", verdicts[before].evidence
    evidence = verdicts[other].evidence
    assert (verdicts[other].status, verdicts[other].value) == ("FAIL", 0.0), evidence
    wanted = r"the engine says size_vram 3.22 of 3.22 GB in /api/ps, but a GPU was at most 0 % busy"
    assert re.match(wanted, evidence), evidence
    assert re.search(r"GPU \d: 0 % busy, ollama \(pid \d+\) holds 3.22 GB$", evidence), evidence


def at_rest(activity):
    """Wait until the engine has seen that its answer is wanted no more."""
    end = time.monotonic() + 20
    while any("util=0" not in path.read_text() for path in activity.glob("[0-9]*")):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_another_programs_work_is_not_the_engines(start, libraries):
    """Work and memory are on the other card, of a process that isn't below the engine."""
    ollama = start(idle_gpu=True)
    (start.activity / str(os.getpid())).write_text(
        f"pid={os.getpid()}\nname=/usr/bin/blender\ngpu.1.memory={4 * GIB}\ngpu.1.util=99\n"
        f"busy_until={time.time() + 60}\n"
    )
    verdict, _figures = judge(ollama, libraries, seconds=2.0)
    assert verdict.status == "FAIL"
    assert f"GPU 1: 99 % busy, blender (pid {os.getpid()}) holds 4.29 GB" in verdict.evidence


def test_an_engine_that_fell_back_to_the_cpu(start, libraries):
    ollama = start()
    ollama.set_faults(cpu_only=True)
    verdict, _figures = judge(ollama, libraries)
    assert (verdict.status, verdict.value) == ("FAIL", 0.0)
    assert verdict.evidence.startswith("size_vram 0.00 of 3.22 GB in /api/ps; GPU 0: 0 % busy, no")


def test_a_part_of_the_model_is_judged_by_the_least_part(start, libraries):
    ollama = start()
    ollama.set_config(
        {**json.loads(ollama.config_path.read_text()), "models": {MODEL: {"vram_bytes": 40 * GIB}}}
    )
    verdict, _figures = judge(ollama, libraries)
    assert verdict.status == "FAIL"
    assert 0 < verdict.value < 1
    assert judge(ollama, libraries, gpu_ratio=0.25)[0].status == "PASS"


def test_a_model_that_is_unloaded_after_its_answer_is_asked_about_while_it_works(start, libraries):
    ollama = start(environment={"OLLAMA_KEEP_ALIVE": "0"})
    assert judge(ollama, libraries)[0].status == "PASS"


@pytest.mark.parametrize(("declared", "status"), [(True, "FAIL"), (False, "PASS")])
def test_a_driver_that_hangs_costs_the_readings_and_no_answer(
    start, libraries, profile, declared, status
):
    profile("delay.nvmlDeviceGetUtilizationRates = forever", gpu=1)
    ollama = start()
    begin = time.monotonic()
    verdict, figures = judge(ollama, libraries, seconds=1.5, declared=declared)
    assert verdict.status == status
    assert "is not known: nvml gave no reading within 1.5 s" in verdict.evidence
    assert figures["samples"] == 0
    assert time.monotonic() - begin < 15
    assert not samplers()


def test_a_driver_that_hangs_at_its_start(start, libraries, profile):
    profile(machine=["init_delay = forever"])
    ollama = start()
    verdict, _figures = judge(ollama, libraries)
    assert verdict.status == "FAIL"
    assert "is not known: the driver has not answered" in verdict.evidence
    assert asked(ollama) == 2  # nothing to look at, so nothing is generated for it
    assert not samplers()


def samplers():
    """Return the samplers that this process has started and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
            program = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z" and b"class UnavailableError" in program:
            found.append(path.name)
    return found


def test_a_gpu_that_is_lost_in_the_middle(start, libraries, profile, tmp_path):
    """The engine's card is there when the generation begins, and gone before it ends."""
    counter = tmp_path / "calls"
    profile("lost_after = 100000", f"lost_counter_file = {counter}")
    ollama = start(idle_gpu="work")  # else the answer is cut off before

    def lose():
        while not any(until(path) > time.time() + 2 for path in start.activity.glob("[0-9]*")):
            time.sleep(0.05)
        time.sleep(1.0)
        counter.write_text("200000\n")

    threading.Thread(target=lose, daemon=True).start()
    verdict, figures = judge(ollama, libraries, seconds=4.0)
    assert (verdict.status, verdict.value) == ("FAIL", 0.0)
    assert "GPU 0: GPU is lost" in verdict.evidence
    assert "lost" in figures["gpus"][0]["failed"]
    assert figures["gpus"][0]["processes"]  # it was there before


def until(path):
    """Return when the work of an activity file ends; the long answer's is seconds ahead."""
    try:
        found = re.search(r"busy_until=(.*)", path.read_text())
    except OSError:
        return 0.0
    return float(found.group(1)) if found else 0.0


def test_another_gpu_that_is_lost_is_no_pass(start, libraries, profile):
    profile("lost_after = 1", gpu=1)
    verdict, _figures = judge(start(), libraries, seconds=1.5)
    assert (verdict.status, verdict.value) == ("WARN", 1.0)
    assert "GPU 0: 97 % busy" in verdict.evidence
    assert "GPU 1: GPU is lost" in verdict.evidence


UTILISATION, PROCESSES = "GetUtilizationRates", "GetComputeRunningProcesses*"


@pytest.mark.parametrize(
    ("calls", "status"),
    [
        ((UTILISATION,), "PASS"),
        ((PROCESSES,), "PASS"),
        (("GetMemoryInfo*",), "PASS"),
        ((UTILISATION, PROCESSES), "WARN"),
        ((UTILISATION, PROCESSES, "GetMemoryInfo*"), "WARN"),
    ],
)
def test_readings_that_a_card_does_not_have_are_left_out(start, libraries, profile, calls, status):
    profile(machine=[f"error.nvmlDevice{call} = not_supported" for call in calls])
    verdict, figures = judge(start(), libraries, seconds=1.5)
    assert verdict.status == status
    card = figures["gpus"][0]
    assert (card["busy_percent"] is None) == (UTILISATION in calls)
    assert (card["memory_used_bytes"] is None) == ("GetMemoryInfo*" in calls)
    assert (card["processes"] == []) == (PROCESSES in calls)


@pytest.mark.parametrize(("declared", "status"), [(True, "FAIL"), (False, "PASS")])
def test_a_host_where_nothing_reads_the_cards(start, libraries, declared, status):
    ollama = start()
    verdict, _figures = judge(ollama, libraries, source="none", declared=declared)
    assert verdict.status == status
    why = "not known: no interpreter with nvidia-ml-py was named; nvidia-smi is not installed"
    assert why in verdict.evidence
    assert asked(ollama) == 2


class Vllm(http.server.BaseHTTPRequestHandler):
    """A stand-in for vLLM: one model, a stream of tokens, metrics."""

    protocol_version = "HTTP/1.1"
    on_cpu = "None"
    activity = None  # how it tells the simulated card that it computes

    def do_GET(self):
        if self.path == "/v1/models":
            self._answer(json.dumps({"data": [{"id": "m"}]}).encode())
            return
        config = f'cpu_kvcache_space_bytes="{self.on_cpu}",gpu_memory_utilization="0.5"'
        self._answer(
            f'vllm:cache_config_info{{{config},num_gpu_blocks="573"}} 1.0\n'
            'vllm:num_requests_running{engine="0",model_name="m"} 1.0\n'.encode()
        )

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        choice = {"text": " one", "finish_reason": None}
        if not body["stream"]:
            usage = {"completion_tokens": 1}
            ended = {**choice, "finish_reason": "length"}
            self._answer(json.dumps({"choices": [ended], "usage": usage}).encode())
            return
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for number in range(body["max_tokens"]):
                last = number == body["max_tokens"] - 1
                one = {**choice, "finish_reason": "length" if last else None}
                self.wfile.write(f"data: {json.dumps({'choices': [one]})}\n\n".encode())
                time.sleep(0.01)
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            pass  # it has seen enough
        self.close_connection = True

    def _answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words):
        pass


@pytest.fixture
def vllm(start):
    """A function that serves as vLLM would, from this process, holding so much of GPU 1."""
    servers = []

    def serve(held, on_cpu="None"):
        if held:
            (start.activity / str(os.getpid())).write_text(
                f"pid={os.getpid()}\nname=VLLM::EngineCore\ngpu.1.memory={held}\ngpu.1.util=80\n"
                f"busy_until={time.time() + 60}\n"
            )
        handler = type("Handler", (Vllm,), {"on_cpu": on_cpu})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("held", "on_cpu", "status", "words"),
    [
        (6 * GIB, "None", "PASS", r"GPU 1: 80 % busy, VLLM::EngineCore \(pid \d+\) holds 6.44 GB"),
        (GIB, "None", "FAIL", "1.07 GB are taken, wanted at least 3.22 GB"),
        (0, "None", "FAIL", "no process of the engine is on a GPU"),
        (6 * GIB, "4294967296", "FAIL", "4.29 GB of cache in main memory"),
    ],
)
def test_vllm(vllm, held, on_cpu, status, words):
    url = vllm(held, on_cpu)
    looking = Looking(url, 2.0, Limits(1.0, True), python=sys.executable)
    prepare = http_prepare(url)
    with Lookout(looking, VLLM, prepare) as lookout:
        verdicts, _answers = check_openai(Wanted(models=["m"], timeout_s=20.0), prepare, lookout)
    assert {one.status for one in verdicts if one.check != "gpu_used"} == {"PASS"}
    assert (verdicts[-1].check, verdicts[-1].status) == ("gpu_used", status)
    assert re.search(words, verdicts[-1].evidence), verdicts[-1].evidence


def test_the_module_names_host_model_value_and_what_was_wanted(start):
    ollama = start(idle_gpu=True)
    options = {
        "url": ollama.url,
        "host": "llm-01",
        "models": [MODEL],
        "gpu_seconds": 2,
        "gpu_python": sys.executable,
        "gpus_declared": True,
    }
    found = module(options)
    assert (found["changed"], found["actions"], found["plan"]) == (False, [], [])
    assert found["verdicts"][-1]["status"] == "FAIL"
    assert found["gpu_used"][0]["model"] == MODEL
    refused = module({**options, "fail_on": "FAIL"})
    message = "FAIL: llm-01 tiny:1b: gpu_used is 0, wanted 1 (the engine says size_vram 3.22 of"
    assert message in refused["msg"]
    assert refused["verdicts"]
    wrong = module({**options, "gpu_seconds": -1})
    assert wrong["msg"] == "llm-01: gpu_seconds is -1, wanted 0 or more."
    short = module({**options, "gpu_seconds": 1.5})
    assert "llm-01: gpu_seconds is 1.5, wanted 0, or 2 or more" in short["msg"]


def module(options):
    argv = [
        str(Path(sys.executable).with_name("ansible")),
        "localhost",
        "--connection=local",
        "--module-name=hx_infra.llm.inference_check",
        f"--args={json.dumps(options)}",
        "--extra-vars=ansible_python_interpreter=" + sys.executable,
    ]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return json.loads(ended.stdout[ended.stdout.index("=> {") + 3 :])
