# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated Ollama keeps the schedule that it declares and reports what really went by."""

from __future__ import annotations

import http.client
import json
import threading
import time

import pytest
from harness import FAST, start_ollama
from sim_ollama.schedule import Schedule

DECLARED = {
    "load_seconds": 0.4,
    "ttft_seconds": 0.2,
    "prompt_tokens_per_second": 100000.0,
    "tokens_per_second": 50.0,
    "jitter": 0.0,
    "cpu_factor": 1.0,
    "answer_tokens": 4,
}
SECOND = 1e9


@pytest.fixture
def scheduled(tmp_path):
    """A server with one declared schedule for every model."""
    with start_ollama(tmp_path, config={"defaults": DECLARED}) as ollama:
        yield ollama


def ask(ollama, **more):
    """Return the answer to a short prompt."""
    body = {"model": "tiny:1b", "prompt": "hello", "stream": False, **more}
    return ollama.post("/api/generate", body).json()


def arrivals(ollama, tokens):
    """Return the seconds at which each line of a stream arrived, and the last line."""
    connection = http.client.HTTPConnection("127.0.0.1", ollama.port, timeout=60)
    body = {"model": "tiny:1b", "prompt": "x", "options": {"num_predict": tokens}}
    started = time.monotonic()
    connection.request("POST", "/api/generate", json.dumps(body))
    response = connection.getresponse()
    times, last = [], {}
    for line in response:
        times.append(time.monotonic() - started)
        last = json.loads(line)
    connection.close()
    return times, last


def test_declared_times_are_reported(scheduled):
    answer = ask(scheduled, options={"num_predict": 20})
    assert answer["load_duration"] / SECOND == pytest.approx(0.4, rel=0.2)
    assert answer["prompt_eval_duration"] / SECOND == pytest.approx(0.2, rel=0.1)
    assert answer["eval_count"] == 20
    speed = answer["eval_count"] / answer["eval_duration"] * SECOND
    assert speed == pytest.approx(50.0, rel=0.05)


def test_the_client_sees_the_same_times(scheduled):
    ask(scheduled)
    times, last = arrivals(scheduled, 20)
    assert times[0] == pytest.approx(0.2, abs=0.05)
    assert (times[19] - times[0]) / 19 == pytest.approx(1 / 50, rel=0.1)
    assert times[-1] == pytest.approx(last["total_duration"] / SECOND, abs=0.05)


def test_a_loaded_model_loads_no_more(scheduled):
    ask(scheduled)
    assert ask(scheduled)["load_duration"] / SECOND < 0.05


def test_a_long_prompt_takes_longer(tmp_path):
    config = {"defaults": {**DECLARED, "prompt_tokens_per_second": 1000.0}}
    with start_ollama(tmp_path, config=config) as ollama:
        ask(ollama)
        answer = ask(ollama, prompt="word " * 300)
    expected = 0.2 + answer["prompt_eval_count"] / 1000.0
    assert answer["prompt_eval_duration"] / SECOND == pytest.approx(expected, rel=0.1)


def test_a_repeated_prompt_is_cached(tmp_path):
    """prompt_eval_count includes cache hits while the duration covers evaluated tokens only."""
    config = {"defaults": {**DECLARED, "prompt_tokens_per_second": 1000.0, "ttft_seconds": 0.01}}
    with start_ollama(tmp_path, config=config) as ollama:
        first = ask(ollama, prompt="word " * 300)
        second = ask(ollama, prompt="word " * 300)
    assert first["prompt_eval_count"] == second["prompt_eval_count"]
    assert second["prompt_eval_duration"] < first["prompt_eval_duration"] / 5


def test_jitter_is_seeded(tmp_path):
    timing = Schedule(0.0, 0.0, 1000.0, 100.0, 0.5, 8)
    assert timing.intervals(50, 1) == timing.intervals(50, 1)
    assert timing.intervals(50, 1) != timing.intervals(50, 2)
    assert all(0.005 <= step <= 0.015 for step in timing.intervals(50, 1))
    config = {"defaults": {**DECLARED, "jitter": 0.9}}
    with start_ollama(tmp_path, config=config) as ollama:
        times = arrivals(ollama, 12)[0]
    steps = [b - a for a, b in zip(times, times[1:])]
    assert max(steps) > 1.3 * min(steps)


def test_models_have_their_own_schedule(tmp_path):
    config = {"defaults": DECLARED, "models": {"tiny:1b": {"tokens_per_second": 200.0}}}
    with start_ollama(tmp_path, config=config) as ollama:
        quick = ask(ollama, options={"num_predict": 20})
        slow = ask(ollama, model="tiny-think:1b", think=False, options={"num_predict": 20})
    assert slow["eval_duration"] / quick["eval_duration"] == pytest.approx(4.0, rel=0.2)


def test_builtin_schedule_without_a_settings_file(tmp_path):
    with start_ollama(tmp_path) as ollama:
        ollama.config_path.unlink()
        assert ask(ollama, options={"num_predict": 2})["eval_count"] == 2


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("wanted", ["HX-OK", "two words, and more.", "<a> & \u00e9"])
def test_exact_text(ollama, stream, wanted):
    body = {"model": "tiny:1b", "prompt": f"Return exactly the text: {wanted}", "stream": stream}
    lines = ollama.post("/api/generate", body).lines()
    assert "".join(line["response"] for line in lines) == wanted
    assert lines[-1]["done_reason"] == "stop"
    messages = [
        {"role": "system", "content": "Be exact."},
        {"role": "user", "content": body["prompt"]},
    ]
    chat = {"model": "tiny:1b", "messages": messages, "stream": stream}
    lines = ollama.post("/api/chat", chat).lines()
    assert "".join(line["message"]["content"] for line in lines) == wanted


def test_thinking_models_think_unless_told_not_to(ollama):
    prompt = "Return exactly the text: HX-OK"
    thinking = ask(ollama, model="tiny-think:1b", prompt=prompt)
    quiet = ask(ollama, model="tiny-think:1b", prompt=prompt, think=False)
    assert thinking["response"] == quiet["response"] == "HX-OK"
    assert thinking["thinking"]
    assert "thinking" not in quiet
    assert thinking["eval_count"] > quiet["eval_count"]


def test_parallel_requests_wait_for_a_slot(tmp_path):
    """OLLAMA_NUM_PARALLEL requests run at a time; the others wait without being refused."""
    for parallel, rounds in (("1", 4), ("4", 1)):
        env = {"OLLAMA_NUM_PARALLEL": parallel, "OLLAMA_MAX_QUEUE": "1"}
        with start_ollama(tmp_path / parallel, config={"defaults": DECLARED}, env=env) as ollama:
            ask(ollama)
            started = time.monotonic()
            answers = at_once(4, lambda server=ollama: ask(server, options={"num_predict": 10}))
            took = time.monotonic() - started
        assert len(answers) == 4
        assert all(answer["eval_count"] == 10 for answer in answers)
        assert took == pytest.approx(rounds * 0.4, abs=0.25)


def test_the_queue_for_loading_is_bounded(tmp_path):
    """Requests that wait for a load are bounded by OLLAMA_MAX_QUEUE: 503 for the rest."""
    config = {"defaults": {**DECLARED, "load_seconds": 1.0}}
    with start_ollama(tmp_path, config=config, env={"OLLAMA_MAX_QUEUE": "1"}) as ollama:
        body = {"model": "tiny:1b", "prompt": "x", "stream": False, "options": {"num_predict": 1}}
        replies = at_once(5, lambda: ollama.post("/api/generate", body))
    statuses = sorted(reply.status for reply in replies)
    assert statuses == [200, 200, 503, 503, 503]
    text = "server busy, please try again.  maximum pending requests exceeded"
    assert {r.json()["error"] for r in replies if r.status == 503} == {text}


def test_keep_alive_expires(scheduled):
    ask(scheduled, keep_alive=0.3)
    assert len(scheduled.get("/api/ps").json()["models"]) == 1
    time.sleep(0.6)
    assert scheduled.get("/api/ps").json()["models"] == []


def test_keep_alive_of_the_server(tmp_path):
    with start_ollama(tmp_path, env={"OLLAMA_KEEP_ALIVE": "0"}) as ollama:
        ask(ollama)
        time.sleep(0.3)
        assert ollama.get("/api/ps").json()["models"] == []


def test_a_busy_model_unloads_when_it_is_done(scheduled):
    """Unload answers at once; a busy model stays in ps with an expiry in the past."""
    ask(scheduled)
    job = threading.Thread(target=lambda: ask(scheduled, options={"num_predict": 40}))
    job.start()
    time.sleep(0.3)
    reply = scheduled.post("/api/generate", {"model": "tiny:1b", "keep_alive": 0})
    assert reply.json()["done_reason"] == "unload"
    assert "Stopping..." in scheduled.cli("ps").stdout
    job.join()
    time.sleep(0.3)
    assert scheduled.get("/api/ps").json()["models"] == []


def test_another_context_length_reloads(scheduled):
    ask(scheduled)
    assert ask(scheduled, options={"num_ctx": 2048})["load_duration"] / SECOND > 0.3
    assert scheduled.get("/api/ps").json()["models"][0]["context_length"] == 2048
    assert ask(scheduled, options={"temperature": 0.1})["load_duration"] / SECOND < 0.05


def test_the_number_of_loaded_models_is_bounded(tmp_path):
    with start_ollama(tmp_path, env={"OLLAMA_MAX_LOADED_MODELS": "1"}) as ollama:
        ask(ollama)
        ask(ollama, model="tiny-think:1b")
        names = [m["name"] for m in ollama.get("/api/ps").json()["models"]]
    assert names == ["tiny-think:1b"]


def test_a_client_that_leaves_frees_the_slot(scheduled):
    ask(scheduled)
    connection = http.client.HTTPConnection("127.0.0.1", scheduled.port, timeout=10)
    body = {"model": "tiny:1b", "prompt": "x", "options": {"num_predict": 500}}
    connection.request("POST", "/api/generate", json.dumps(body))
    connection.getresponse().read(10)
    connection.sock.close() if connection.sock else None
    connection.close()
    started = time.monotonic()
    ask(scheduled, options={"num_predict": 1})
    assert time.monotonic() - started < 2.0


def test_a_client_that_leaves_during_the_load_aborts_it(tmp_path):
    config = {"defaults": {**DECLARED, "load_seconds": 5.0}}
    with start_ollama(tmp_path, config=config) as ollama:
        connection = http.client.HTTPConnection("127.0.0.1", ollama.port, timeout=10)
        connection.request("POST", "/api/generate", json.dumps({"model": "tiny:1b"}))
        time.sleep(0.3)
        connection.close()
        time.sleep(0.5)
        assert ollama.get("/api/ps").json()["models"] == []
        assert "| 499 |" in ollama.log()


def test_fast_schedule_of_the_harness_is_fast(tmp_path):
    with start_ollama(tmp_path, config=FAST) as ollama:
        started = time.monotonic()
        ask(ollama)
        assert time.monotonic() - started < 0.5


def at_once(count, action):
    """Run an action in so many threads and return what they returned."""
    found = []
    threads = [threading.Thread(target=lambda: found.append(action())) for _turn in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
