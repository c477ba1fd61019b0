# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measurements of the simulated Ollama against the schedule that it declares."""

from __future__ import annotations

import time

import pytest
from harness import start_ollama

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_run
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_job import Setting
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import (
    Plan,
    Runner,
    address_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_metrics import (
    errors_of,
    metrics_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_options import ARGUMENT_SPEC
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_prompts import Prompts
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import Stage
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import http_prepare
from ansible_collections.hx_infra.llm.plugins.module_utils._inference_check import Wanted, check_all

MODEL = "tiny:1b"
TTFT_S = 0.2
LOAD_S = 0.3
RATE = 50.0
TOKENS = 20
# The simulator and its client share a busy machine; the figures themselves are exact to 2 ms.
SLACK_MS = 40.0


@pytest.fixture
def server(tmp_path):
    schedule = {
        "load_seconds": LOAD_S,
        "ttft_seconds": TTFT_S,
        "prompt_tokens_per_second": 1e6,
        "tokens_per_second": RATE,
        "jitter": 0.0,
        "cpu_factor": 1.0,  # no GPU here, and none is missed
        "answer_tokens": TOKENS,
    }
    with start_ollama(tmp_path, config={"defaults": schedule}) as started:
        yield started


def measure(server, warmup=1, iterations=3, concurrency=1, timeout_s=20.0):
    plan = Plan(
        Setting(server.url, "ollama_generate", timeout_s=timeout_s),
        Prompts(texts=["{nonce} why?"], run_id="t"),
        max_tokens=TOKENS,
        warmup=warmup,
    )
    runner = Runner(address_of(server.url, None, True), plan)
    warm = runner.warm_up(MODEL)
    measured = runner.run(MODEL, Stage(concurrency=concurrency, requests=iterations))
    measured.warmup = warm
    return measured


def test_first_token_and_rate_are_those_of_the_schedule(server):
    measured = measure(server)
    metrics = metrics_of(measured)
    assert errors_of(measured) == {}
    assert metrics["ttft_ms"]["median"] == pytest.approx(TTFT_S * 1000, abs=SLACK_MS)
    assert metrics["ttft_ms"]["min"] >= TTFT_S * 1000
    assert metrics["tokens_per_s"]["median"] == pytest.approx(RATE, rel=0.1)
    assert metrics["latency_ms"]["median"] == pytest.approx(
        (TTFT_S + TOKENS / RATE) * 1000, abs=2 * SLACK_MS
    )
    assert {sample.gen_tokens for sample in measured.samples} == {TOKENS}
    assert metrics["tokens_from"] == ["server"]


def test_the_load_belongs_to_the_warmup(server):
    measured = measure(server)
    metrics = metrics_of(measured)
    assert metrics["load_ms"] >= LOAD_S * 1000
    assert metrics["cold_ttft_ms"] >= (LOAD_S + TTFT_S) * 1000
    assert all(sample.load_ms < LOAD_S * 1000 for sample in measured.samples)


def test_the_clients_clock_agrees_with_the_servers_account(server):
    for sample in measure(server).samples:
        assert sample.latency_ms == pytest.approx(sample.total_duration_ms, abs=SLACK_MS)


def test_four_clients_are_all_answered(server):
    measured = measure(server, iterations=8, concurrency=4)
    assert errors_of(measured) == {}
    assert len(measured.samples) == 8


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"http_status": {"status": 500, "message": "simulated failure"}}, "http_5xx"),
        ({"http_status": {"status": 503, "message": "server busy"}}, "http_5xx"),
        ({"http_status": {"status": 404, "message": "model not found"}}, "http_4xx"),
        ({"truncated_stream": {"after_tokens": 3, "mode": "cut"}}, "truncated"),
        ({"truncated_stream": {"after_tokens": 3, "mode": "error"}}, "server_error"),
        ({"out_of_memory": True}, "out_of_memory"),
        ({"slow_factor": 100.0}, "timeout"),
    ],
)
def test_errors_are_counted_by_kind(server, fault, kind):
    server.set_faults(**fault)
    measured = measure(server, warmup=0, iterations=2, timeout_s=1.0)
    assert errors_of(measured) == {kind: 2}
    assert metrics_of(measured)["tokens_per_s"]["count"] == 0


def test_a_stopped_server_is_a_connection_error(server):
    server.stop()
    assert errors_of(measure(server, warmup=0, iterations=1)) == {"connection": 1}


def test_the_second_run_finds_the_baseline_of_the_first(server, tmp_path):
    path = tmp_path / "baseline.csv"
    params = {name: option.get("default") for name, option in ARGUMENT_SPEC.items()}
    params.update(
        url=server.url,
        models=[{"name": MODEL, "slo": {"ttft_ms": 5000.0, "tokens_per_s": 1.0}}],
        num_predict=TOKENS,
        baseline_file=str(path),
    )
    predicted = _bench_run.run(params, check_mode=True)
    first = _bench_run.run(params, check_mode=False)
    assert first["actions"] == predicted["actions"] == [f"record the first baseline of {MODEL}"]
    assert {verdict["status"] for verdict in first["verdicts"]} == {"PASS"}
    second = _bench_run.run(params, check_mode=False)
    assert (second["changed"], second["actions"]) == (False, [])
    assert "ttft_vs_baseline" in [verdict["check"] for verdict in second["verdicts"]]
    assert len(path.read_text().splitlines()) == 2


def statuses(server, **more):
    wanted = Wanted(**{"models": [MODEL], "gpu_ratio": 0, "timeout_s": 20.0, **more})
    verdicts, _rest = check_all(wanted, http_prepare(server.url), time.perf_counter)
    return {verdict.check: verdict.status for verdict in verdicts}


def test_the_known_answer_is_found_in_both_modes(ollama):
    found = statuses(
        ollama, version=ollama.version, catalog=["tiny:1b", "tiny-think:1b"], models=[MODEL]
    )
    assert set(found.values()) == {"PASS"}
    assert "answer_non_stream" in found


def test_a_thinking_model_answers_without_thinking(old):
    assert statuses(old, models=["tiny-think:1b"])["answer_stream"] == "PASS"


def test_a_wrong_answer_and_a_model_on_the_cpu_are_found(old):
    old.set_faults(wrong_answer="something else")
    found = statuses(old, gpu_ratio=1.0)
    assert (found["answer_stream"], found["answer_non_stream"]) == ("FAIL", "FAIL")
    assert found["final_metrics_stream"] == "PASS"
    assert found["gpu_used"] == "FAIL"  # the simulator has no GPU here
