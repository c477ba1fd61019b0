# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The nightly test as systemd starts it, against the simulated Ollama and misbehaving engines."""

from __future__ import annotations

import threading
import time

import pytest
from contract_http import free_port
from harness import start_ollama
from integration_standins import dripping, listening, server_context, silent
from nightly_host import Host, engine, program
from nightly_standins import http_server, ollama_answers

ONE, TWO = "tiny:1b", "tiny-think:1b"


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_every_model_that_the_server_lists_is_asked(host, ollama):
    status, output = host.run(engine(ollama.url, answer="HX-OK"))
    assert status == 0, output
    assert {ONE, TWO} < set(host.checks)
    assert host.metric("success") == 1
    assert host.metric("last_success_timestamp_seconds") == host.metric(
        "last_run_timestamp_seconds"
    )
    assert host.metric(f'model_success{{engine="ollama",model="{TWO}"}}') == 1
    assert host.metric(f'model_seconds{{engine="ollama",model="{ONE}"}}') > 0
    assert "3 of 3 checks" in output.splitlines()[-1]


def test_one_failure_does_not_stop_the_others(host, ollama):
    status, output = host.run(engine(ollama.url, models=["none:7b", ONE]))
    assert status == 1
    assert not host.checks["none:7b"]["ok"]
    assert "not found" in host.checks["none:7b"]["message"]
    assert host.checks[ONE]["ok"]
    assert (host.metric("success"), host.metric("checks_failed")) == (0, 1)
    assert "FAIL  model  ollama: none:7b" in output


def test_a_model_that_the_cpu_computes_has_failed(host, ollama):
    status, output = host.run(engine(ollama.url, models=[ONE], min_gpu_ratio=1.0))
    assert status == 1
    assert "the CPU computes it" in host.checks[ONE]["message"], output
    assert host.metric(f'model_gpu_ratio{{engine="ollama",model="{ONE}"}}') == 0


@pytest.mark.parametrize("on_gpu", [100, 99])
def test_a_model_on_the_gpu_passes(host, on_gpu):
    with http_server(ollama_answers(on_gpu=on_gpu)) as there:
        status, _output = host.run(engine(there.url, min_gpu_ratio=1.0))
    assert status == (0 if on_gpu == 100 else 1)
    assert host.metric('model_gpu_ratio{engine="ollama",model="phi3:latest"}') == on_gpu / 100


def test_failures_are_counted_over_runs_and_the_last_success_stays(host, old):
    assert host.run(engine(old.url))[0] == 0
    success = host.metric("last_success_timestamp_seconds")
    old.set_faults(wrong_answer="@@@@")
    for count in (2, 4):
        assert host.run(engine(old.url, answer="HX-OK"))[0] == 1
        assert host.metric("failures_total") == count
    assert host.metric("last_success_timestamp_seconds") == success
    assert host.metric("last_run_timestamp_seconds") > success
    assert "it answered '@@@@', wanted 'HX-OK'" in host.checks[ONE]["message"]


def test_a_model_that_does_not_fit_has_failed(host, ollama):
    ollama.set_faults(out_of_memory=[ONE])
    assert host.run(engine(ollama.url))[0] == 1
    assert "loading it" in host.checks[ONE]["message"]
    assert host.checks[TWO]["ok"]


def test_an_engine_that_is_down(host):
    url = f"http://127.0.0.1:{free_port()}"
    status, output = host.run(engine(url, models=[ONE, TWO]))
    assert status == 1
    assert [check["ok"] for check in host.record["checks"]] == [False, False, False]
    assert "connection refused" in output
    assert host.metric("success") == 0
    assert host.metric(f'model_success{{engine="ollama",model="{TWO}"}}') == 0


def test_an_engine_that_is_down_and_whose_models_nobody_knows(host):
    status, output = host.run(engine(f"http://127.0.0.1:{free_port()}"))
    assert status == 1
    assert "ollama models - not known: connection refused" in output


@pytest.mark.parametrize("serve", [silent, dripping])
def test_an_engine_that_hangs_does_not_hold_the_run(host, serve):
    with listening(serve) as port:
        url = f"http://127.0.0.1:{port}"
        begin = time.monotonic()
        status, output = host.run(engine(url, models=[ONE]), call_seconds=0.5)
    assert status == 1
    assert output.count("no answer within 0.5 s") == 2
    assert time.monotonic() - begin < 30  # it would hang for ever


def test_a_generation_that_hangs_does_not_hold_the_run(host):
    released = threading.Event()

    def generate(body):
        if "prompt" in body and body["model"] == "phi3:latest":
            released.wait(30)
        return 200, {"response": "HX-OK", "done": True}

    answers = ollama_answers(generate, models=("phi3:latest", "gemma2:2b"))
    with http_server(answers) as there:
        status, _output = host.run(engine(there.url), call_seconds=1)
        released.set()
    assert status == 1
    assert host.checks["phi3:latest"]["message"] == "no answer within 1 s"
    assert host.checks["gemma2:2b"]["ok"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {"error": "llama runner process has terminated"}), "an error inside status 200"),
        ((200, {"response": "", "done": True}), "the answer is empty"),
        ((200, b"<html>It works!</html>"), "the answer is not JSON"),
        ((200, b""), "the answer is not JSON"),
        ((500, {"error": "CUDA error"}), "status 500"),
        ((200, b"x" * (5 * 1024 * 1024)), "bytes"),
    ],
)
def test_what_is_no_answer(host, answer, said):
    def generate(body):
        return answer if "prompt" in body else (200, {"done": True, "done_reason": "load"})

    with http_server(ollama_answers(generate)) as there:
        status, _output = host.run(engine(there.url))
    assert status == 1
    assert said in host.checks["phi3:latest"]["message"]


def test_an_engine_that_is_restarted_before_the_models_are_asked(host, old):
    # The suite holds the run until the engine has gone.
    gone = host.folder / "gone"
    begun = host.folder / "begun"
    hold = program(host.folder / "hold.sh", f"touch {begun}; while [ ! -e {gone} ]; do :; done")
    host.write(engine(old.url), suites=[hold], wait_seconds=30)
    child = host.start()
    while not begun.exists():
        time.sleep(0.01)
    old.stop()
    gone.touch()
    while "PASS  suite" not in (line := child.stdout.readline()):
        assert line
    old.start()
    output = child.communicate(timeout=60)[0]
    assert child.returncode == 0, output
    assert {check["ok"] for check in host.record["checks"]} == {True}


def test_an_engine_that_starts_late_is_waited_for(host, tmp_path):
    late = start_ollama(tmp_path / "late", start=False)
    host.write(engine(late.url), wait_seconds=30)
    child = host.start()
    try:
        assert "begin nightly smoke test of llm-02" in child.stdout.readline()
        time.sleep(0.5)
        late.start()
        output = child.communicate(timeout=60)[0]
    finally:
        late.stop()
    assert child.returncode == 0, output


def test_a_model_without_an_answer_is_asked_again_after_a_restart(host):
    calls = []

    def generate(body):
        calls.append(body)
        if len(calls) == 1:
            return 503, {"error": "starting"}
        return 200, {"response": "HX-OK", "done": True}

    with http_server(ollama_answers(generate)) as there:
        status, output = host.run(engine(there.url), wait_seconds=5)
    assert status == 0, output
    assert "at the second try; at the first: loading it" in host.checks["phi3:latest"]["message"]


CHOICE = {"choices": [{"text": " hello", "finish_reason": "stop"}]}


def vllm(completion=(200, CHOICE), **more):
    listed = (200, {"data": [{"id": "qwen3"}]})
    return {"/v1/models": listed, "/v1/completions": completion, **more}


@pytest.mark.parametrize("credential", [False, True])
def test_an_openai_engine_with_a_key(host, credential):
    key = host.folder / "qwen3.key.env"
    key.write_text("VLLM_API_KEY=sk-Lab-Key\n")
    key.chmod(0o600)
    environment = {}
    if credential:  # as systemd hands it over: the file itself is out of reach
        loaded = host.folder / "credentials"
        loaded.mkdir()
        key.rename(loaded / "engine-qwen3")
        environment["CREDENTIALS_DIRECTORY"] = str(loaded)
    entry = {"name": "qwen3", "kind": "openai", "key_file": str(key)}
    with http_server(vllm(), ("Authorization", "Bearer sk-Lab-Key")) as there:
        status, output = host.run({**entry, "url": there.url}, environment=environment)
    assert status == 0, output
    assert host.metric('model_success{engine="qwen3",model="qwen3"}') == 1
    assert "Lab-Key" not in output + (host.state / "last-run.json").read_text()


def test_a_wrong_key_and_one_that_others_can_read(host):
    key = host.folder / "key"
    key.write_text("sk-Other-Key")
    entry = {"name": "qwen3", "kind": "openai", "key_file": str(key)}
    with http_server(vllm(), ("Authorization", "Bearer sk-Lab-Key")) as there:
        key.chmod(0o600)
        status, output = host.run({**entry, "url": there.url}, wait_seconds=20)
        assert status == 1
        assert "status 401" in output
        key.chmod(0o644)
        status, output = host.run({**entry, "url": there.url})
        assert status == 1
    assert "its key:" in output
    assert "mode 0644, wanted 0660" in output
    assert "Other-Key" not in output


@pytest.mark.parametrize(
    "completion",
    [
        (200, {"object": "error", "message": "EngineDeadError"}),
        (200, {"choices": [{"text": "hel", "finish_reason": "abort"}]}),
        (200, {"choices": [{"text": "", "finish_reason": "stop"}]}),
        (500, {"error": "x"}),
    ],
)
def test_an_openai_engine_that_only_seems_to_answer(host, completion):
    with http_server(vllm(completion)) as there:
        entry = {"name": "qwen3", "kind": "openai", "url": there.url}
        assert host.run(entry)[0] == 1
    assert not host.checks["qwen3"]["ok"] or not host.record["ok"]


def test_an_engine_behind_tls(host, tmp_path):
    (tmp_path / "tls").mkdir()
    context, certificate = server_context(tmp_path / "tls")
    with http_server(vllm(), context=context) as there:
        entry = {"name": "qwen3", "kind": "openai", "url": there.url}
        status, output = host.run({**entry, "ca_path": certificate})
        assert status == 0, output
        status, output = host.run(entry)
    assert status == 1
    assert "the server's certificate is not accepted" in output


def test_two_engines_are_both_tested(host, ollama):
    with http_server(vllm()) as there:
        other = {"name": "qwen3", "kind": "openai", "url": there.url}
        down = engine(f"http://127.0.0.1:{free_port()}", name="down", models=[ONE])
        status, _output = host.run(down, other, engine(ollama.url, models=[ONE]))
    assert status == 1
    assert host.metric('model_success{engine="qwen3",model="qwen3"}') == 1
    assert host.metric(f'model_success{{engine="ollama",model="{ONE}"}}') == 1
    assert host.metric(f'model_success{{engine="down",model="{ONE}"}}') == 0
