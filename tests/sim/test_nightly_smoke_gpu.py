# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Does the GPU work at night? The simulated Ollama says one thing, the simulated card another."""

from __future__ import annotations

import re
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
from gpu_machine import SIM, build
from harness import FAST, start_ollama
from nightly_host import Host, engine
from nightly_standins import http_server, ollama_answers
from vllm_standin import GIB, start_vllm

HELD = 3 << 30
ONE, TWO = "tiny:1b", "tiny-think:1b"
NOWHERE = "/nonexistent/python"
PROFILE = SIM / "profiles" / "rtx-4070-ti-x2.conf"


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    if not shutil.which("gcc"):
        pytest.skip("gcc is needed to build the simulated NVML")
    return build(tmp_path_factory.mktemp("sim_gpu"))


@pytest.fixture
def host(libraries, tmp_path, monkeypatch):
    """A host with two simulated GPUs, without nvidia-smi."""
    (tmp_path / "activity").mkdir()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries))
    monkeypatch.setenv("SIM_GPU_ACTIVITY_DIR", str(tmp_path / "activity"))
    monkeypatch.setenv("SIM_NVML_PROFILE", str(PROFILE))
    folder = tmp_path / "nightly"
    folder.mkdir()
    return Host(folder)


@pytest.fixture
def start(host, libraries, tmp_path):
    """A function that starts an Ollama on the host's GPUs, with faults."""
    running = []

    def starter(version="0.11.4", **faults):
        environment = {
            "SIM_OLLAMA_NVML": str(libraries / "libnvidia-ml.so.1"),
            "SIM_NVML_PROFILE": str(PROFILE),
            "SIM_OLLAMA_ACTIVITY_DIR": str(tmp_path / "activity"),
        }
        models = {model: {"vram_bytes": HELD} for model in (ONE, TWO)}
        config = {**FAST, "models": models, "faults": faults}
        running.append(start_ollama(tmp_path, version=version, config=config, env=environment))
        return running[-1]

    yield starter
    for ollama in running:
        ollama.stop()


@pytest.fixture
def sick(host, tmp_path, monkeypatch):
    """A function that makes the cards of the test sick, while the engine keeps healthy ones."""

    def use(line):
        path = tmp_path / "sick.conf"
        path.write_text(f"{line}\n{PROFILE.read_text()}")
        monkeypatch.setenv("SIM_NVML_PROFILE", str(path))

    return use


def night(host, ollama, *models, python=sys.executable, declared=True, seconds=3.0, **more):
    """Run the test of an engine whose models have to lie on the GPU."""
    entry = engine(ollama.url, models=list(models or [ONE]), min_gpu_ratio=1.0, **more)
    gpu = {"gpu_python": python, "gpus_declared": declared, "gpu_seconds": seconds}
    return host.run(entry, **gpu)


def ratio(host, model=ONE):
    return host.metric(f'model_gpu_ratio{{engine="ollama",model="{model}"}}')


@pytest.mark.parametrize(("version", "name"), [("0.11.4", "ollama"), ("0.32.15", "llama-server")])
def test_models_that_the_gpu_computes(host, start, version, name):
    status, output = night(host, start(version), ONE, TWO, seconds=30.0)
    assert status == 0, output
    for model, card in ((ONE, 0), (TWO, 1)):
        told = host.checks[model]["cards"]
        assert told.startswith("size_vram 3.22 of 3.22 GB in /api/ps; GPU 0: "), told
        assert re.search(rf"GPU {card}: 97 % busy, {name} \(pid \d+\) holds 3.22 GB", told), told
        assert ratio(host, model) == 1
    assert re.search(rf"PASS  model  ollama: {ONE} \(.*100% on the GPU\) - size_vram", output)


def test_an_engine_that_claims_the_gpu_while_the_card_is_idle(host, start):
    status, output = night(host, start(idle_gpu=True), seconds=3.0)
    assert status == 1
    said = host.checks[ONE]["message"]
    assert said.startswith("the engine says size_vram 3.22 of 3.22 GB in /api/ps, but no process")
    assert "GPU 0: 0 % busy, no process, " in said
    assert (ratio(host), host.metric("checks_failed")) == (0, 1)
    assert f"FAIL  model  ollama: {ONE}" in output


def test_an_engine_that_holds_the_memory_and_computes_elsewhere(host, start):
    status, _output = night(host, start(idle_gpu="work"), seconds=4.0)
    assert status == 1
    said = host.checks[ONE]["message"]
    assert re.search(r"a GPU was at most 0 % busy in \d\.\d s, wanted more than 5 %", said), said
    assert ratio(host) == 0


def test_another_programs_work_is_not_the_engines(host, start, tmp_path):
    ollama = start(idle_gpu=True)
    (tmp_path / "activity" / "1").write_text(
        f"pid=1\nname=/usr/bin/blender\ngpu.1.memory={HELD}\ngpu.1.util=99\n"
        f"busy_until={time.time() + 60}\n"
    )
    assert night(host, ollama, seconds=3.0)[0] == 1
    assert "GPU 1: 99 % busy, blender (pid 1)" in host.checks[ONE]["message"]


def test_an_engine_that_says_cpu_needs_no_look(host, start):
    ollama = start()
    ollama.set_faults(cpu_only=True)
    assert night(host, ollama)[0] == 1
    assert "the CPU computes it" in host.checks[ONE]["message"]
    assert ollama.log().count("/api/generate") == 2  # loaded, asked, and not kept at work


@pytest.mark.parametrize(("declared", "status"), [(True, 1), (False, 0)])
@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("delay.nvmlDeviceGetUtilizationRates = forever", "no reading came within 3 s"),
        ("init_delay = forever", "the driver has not answered within 3 s"),
        ("init_error = driver_not_loaded", "NVML: Driver Not Loaded"),
    ],
)
def test_cards_that_cannot_be_read(host, start, sick, tmp_path, declared, status, line, why):
    """A driver that hangs costs its time once, no answer, and leaves nothing behind."""
    sick(line)
    ollama = start()
    begin = time.monotonic()
    assert night(host, ollama, ONE, TWO, declared=declared, seconds=3.0)[0] == status
    assert time.monotonic() - begin < 30  # it would hang for ever
    for model in (ONE, TWO):
        check = host.checks[model]
        told = (
            f"size_vram 3.22 of 3.22 GB in /api/ps; whether a GPU does the work is not known: {why}"
        )
        assert told in check["message" if declared else "cards"]
        assert ("GPUs are declared and have to be readable" in check["message"]) is declared
        assert ratio(host, model) == 1
    assert not samplers(tmp_path)


def samplers(folder):
    """Return the children of a test that read its cards and still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            program = (path / "cmdline").read_bytes()
            where = (path / "environ").read_bytes()
        except OSError:
            continue
        if state != "Z" and b"_bench_sampler_child.py" in program and bytes(folder) in where:
            found.append(path.name)
    return found


def test_a_card_that_is_lost_while_the_other_works_is_told(host, start, tmp_path, monkeypatch):
    path = tmp_path / "sick.conf"
    path.write_text(PROFILE.read_text().replace("[gpu 1]\n", "[gpu 1]\nlost_after = 1\n"))
    monkeypatch.setenv("SIM_NVML_PROFILE", str(path))
    assert night(host, start(), seconds=3.0)[0] == 0
    told = host.checks[ONE]["cards"]
    assert "GPU 0: 97 % busy" in told
    assert "GPU 1: GPU is lost" in told
    assert "not certain: GPU 1 failed" in told


def test_nvidia_smi_is_asked_where_the_interpreter_is_missing(host, start, libraries, monkeypatch):
    ollama = start()
    monkeypatch.setenv("PATH", f"{libraries}:/usr/bin:/bin")
    assert night(host, ollama, python=NOWHERE, seconds=6.0)[0] == 0
    assert "GPU 0: 97 % busy, ollama (pid" in host.checks[ONE]["cards"]


@pytest.mark.parametrize("declared", [True, False])
def test_nothing_reads_the_cards(host, start, declared):
    status, _output = night(host, start(), python=NOWHERE, declared=declared)
    assert status == int(declared)
    check = host.checks[ONE]
    why = f"not known: {NOWHERE}: No such file or directory; nvidia-smi is not installed"
    assert why in check["message" if declared else "cards"]


def test_without_an_interpreter_the_engine_is_taken_at_its_word_and_the_log_says_so(host, start):
    status, output = night(host, start(idle_gpu=True), python="")
    assert status == 0
    assert ratio(host) == 1
    assert "100% on the GPU) - by /api/ps alone, the GPUs were not asked" in output


def test_a_model_that_need_not_lie_on_the_gpu_is_not_looked_at(host, start):
    ollama = start(idle_gpu=True)
    entry = engine(ollama.url, models=[ONE], min_gpu_ratio=0)
    status, _output = host.run(entry, gpu_python=sys.executable, gpus_declared=True)
    assert status == 0
    assert (host.checks[ONE]["cards"], ratio(host)) == ("", None)


def test_a_model_that_makes_no_text_is_judged_by_the_engine_alone(host):
    refusal = (400, {"error": '"nomic" does not support generate'})
    answers = ollama_answers(refusal, **{"/api/embed": (200, {"embeddings": [[0.5, 0.1]]})})
    with http_server(answers) as there:
        status, _output = night(host, there, "phi3:latest")
    assert status == 0
    assert "the GPUs were not asked: it makes no text" in host.checks["phi3:latest"]["cards"]


@pytest.mark.parametrize(
    ("long", "said"),
    [
        ((500, {"error": "CUDA error"}), "while the GPUs were watched: /api/generate answered"),
        (
            (200, {"error": "device lost"}),
            "while the GPUs were watched: an error inside status 200",
        ),
        ((200, b""), "while the GPUs were watched: the answer is empty"),
        (None, "while the GPUs were watched: no token came within 3 s"),
    ],
)
def test_a_generation_that_fails_is_a_failure_of_the_model(host, tmp_path, long, said):
    released = threading.Event()

    def generate(body):
        if not body.get("stream"):
            return 200, {"response": "HX-OK", "done": True}
        if long is None:
            released.wait(20)
        return long or (200, b"")

    with http_server(ollama_answers(generate)) as there:
        status, _output = night(host, there, "phi3:latest", seconds=3.0)
        released.set()
    assert status == 1
    assert said in host.checks["phi3:latest"]["message"]
    assert not samplers(tmp_path)


@pytest.mark.parametrize(
    ("engines", "words"),
    [
        ({"held": 6 * GIB}, r"GPU 1: 80 % busy, VLLM::EngineCore \(pid \d+\) holds 6.44 GB"),
        (
            {"held": 6 * GIB, "metrics": "none"},
            r"^nothing of a GPU \(GET /metrics .*\); GPU 1: 80 % busy",
        ),
        ({}, "the engine says 573 blocks of GPU cache.*but no process of the engine is on a GPU"),
        ({"held": GIB}, "1.07 GB are taken, wanted at least 3.22 GB"),
        (
            {"metrics": "none"},
            r"the engine says nothing of a GPU \(.*\), but a GPU was at most 0 %",
        ),
        ({"metrics": "cpu"}, "4.29 GB of cache in main memory.*: the CPU computes it"),
    ],
)
def test_vllm_that_is_declared_on_a_gpu(host, tmp_path, engines, words):
    works = engines.get("held") == 6 * GIB
    with start_vllm(tmp_path, **engines) as there:
        status, output = night(host, there, "m", name="qwen3", kind="openai")
    assert status == (0 if works else 1), output
    check = host.checks["m"]
    assert re.search(words, check["cards" if works else "message"]), check
    ratio = host.metric('model_gpu_ratio{engine="qwen3",model="m"}')
    assert ratio == (0 if not works else None if "metrics" in engines else 1)


def test_vllm_that_chats_on_a_gpu_and_one_of_which_nobody_says_where(host, tmp_path):
    with start_vllm(tmp_path, held=6 * GIB) as there, start_vllm(tmp_path, metrics="cpu") as free:
        asked = {"kind": "openai", "models": ["m"]}
        chat = {**asked, "name": "chat", "url": there.url, "api": "chat", "min_gpu_ratio": 1}
        other = {**asked, "name": "other", "url": free.url}
        status, output = host.run(chat, other, gpu_python=sys.executable, gpu_seconds=3.0)
        assert (status, there.streams, free.streams) == (0, 1, 0), output
    assert re.search(r"chat: m \(.*100% on the GPU\) - 573 blocks .* GPU 1: 80 % busy", output)


def test_what_would_be_done_is_told(host):
    with http_server(ollama_answers()) as there:
        entry = engine(there.url)
        status, output = host.run(entry, more=["--list"], gpu_python="/venv/bin/python")
        assert (status, "GPUs   read by /venv/bin/python, up to 10 s a model" in output) == (
            0,
            True,
        )
        assert "judged by /api/ps alone" in host.run(entry, more=["--list"])[1]


@pytest.mark.parametrize("seconds", [2.9, "10", True])
def test_wrong_seconds_are_named(host, seconds):
    settings = {"gpu_python": "/venv/bin/python", "gpu_seconds": seconds}
    status, output = host.run(engine("http://127.0.0.1:1"), more=["--check"], **settings)
    assert status == 2
    assert f"gpu_seconds is {seconds!r}, wanted a number of at least 3" in output
