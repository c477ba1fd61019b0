# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_job import Sample
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_truth import (
    Histogram,
    Snapshot,
    getter,
    server_truth,
    snapshot,
)

MODEL = "qwen3-8b"
PROMPTS = "openai_chat"


def metrics(ttft, itl=(), queue=(), model=MODEL, engine=0, itl_name="inter_token_latency"):
    """vLLM's /metrics after it has seen these seconds."""
    lines = ["# HELP vllm:num_requests_running Number of requests", "# TYPE x histogram"]
    for name, values in (
        ("time_to_first_token", ttft),
        (itl_name, itl),
        ("request_queue_time", queue),
    ):
        labels = f'engine="{engine}",model_name="{model}"'
        for limit in (0.01, 0.1, 1.0, float("inf")):
            count = sum(value <= limit for value in values)
            le = "+Inf" if limit == float("inf") else limit
            lines.append(f'vllm:{name}_seconds_bucket{{{labels},le="{le}"}} {count:.1f}')
        lines.append(f"vllm:{name}_seconds_count{{{labels}}} {len(values):.1f}")
        lines.append(f"vllm:{name}_seconds_sum{{{labels}}} {sum(values)}")
        lines.append(f"vllm:{name}_seconds_created{{{labels}}} 1.79e+09")
    return "\n".join(lines) + "\n"


def taken(text, model=MODEL, status=200):
    return snapshot(lambda path: (status, text.encode()), model)


def samples(*ttfts, **more):
    return [Sample(number=number, ttft_ms=ttft, **more) for number, ttft in enumerate(ttfts, 1)]


def test_only_what_the_stage_added_counts():
    before = taken(metrics([5.0, 6.0], [0.5], [1.0]))
    after = taken(metrics([5.0, 6.0, 0.05, 0.07], [0.5, 0.02, 0.04], [1.0, 0.001, 0.003]))
    truth = server_truth(samples(52.0, 74.0), PROMPTS, before, after)
    assert truth["engine"] == "vllm"
    assert truth["requests"] == 2
    assert truth["ttft_ms"] == pytest.approx(60.0)
    assert truth["itl_ms"] == pytest.approx(30.0)
    assert truth["queue_ms"] == pytest.approx(2.0)
    assert truth["client_minus_server_ttft_ms"] == pytest.approx(3.0)
    assert "same requests" in truth["explained"]


def test_a_first_stage_has_nothing_before_it():
    truth = server_truth(samples(52.0), PROMPTS, taken(metrics([])), taken(metrics([0.05])))
    assert truth["client_minus_server_ttft_ms"] == pytest.approx(2.0)


def test_other_clients_requests_are_not_ours():
    after = taken(metrics([0.05, 0.05, 9.0]))
    truth = server_truth(samples(52.0, 52.0), PROMPTS, taken(metrics([])), after)
    assert truth["requests"] == 3
    assert truth["client_minus_server_ttft_ms"] is None
    assert "counted 3 first tokens, 2 were ours; other clients" in truth["explained"]


def test_requests_that_are_missing_there_are_no_other_clients():
    after = taken(metrics([0.05]))
    truth = server_truth(samples(52.0, 52.0), PROMPTS, taken(metrics([])), after)
    assert truth["client_minus_server_ttft_ms"] is None
    assert "some are not in it" in truth["explained"]


def test_a_request_that_failed_after_its_first_token_is_counted_by_both_sides():
    ours = samples(52.0, 54.0)
    ours[1].error_kind = "truncated"
    ours.append(Sample(number=3, error_kind="http_5xx"))
    truth = server_truth(ours, PROMPTS, taken(metrics([])), taken(metrics([0.05, 0.05])))
    assert truth["client_minus_server_ttft_ms"] == pytest.approx(3.0)


def test_the_wait_for_a_place_in_an_open_loop_is_not_the_servers():
    ours = samples(152.0, dispatch_lag_ms=100.0)
    truth = server_truth(ours, PROMPTS, taken(metrics([])), taken(metrics([0.05])))
    assert truth["client_minus_server_ttft_ms"] == pytest.approx(2.0)


def test_a_restart_is_noticed():
    truth = server_truth(samples(1.0), PROMPTS, taken(metrics([0.1, 0.2])), taken(metrics([0.1])))
    assert truth["ttft_ms"] is None
    assert "restarted" in truth["explained"]


def test_answers_that_are_not_streamed_have_no_ttft():
    truth = server_truth(samples(None), PROMPTS, taken(metrics([])), taken(metrics([0.05])))
    assert truth["ttft_ms"] == pytest.approx(50.0)
    assert truth["client_minus_server_ttft_ms"] is None
    assert "no TTFT to compare" in truth["explained"]


def test_several_engines_of_a_server_are_summed():
    text = metrics([0.02], engine=0) + metrics([0.04], engine=1)
    assert taken(text).found["ttft"].count == 2
    assert taken(text).found["ttft"].mean_ms == pytest.approx(30.0)


def test_names_of_older_versions_are_known():
    text = metrics([0.02], [0.03], itl_name="time_per_output_token")
    assert taken(text).found["itl"].mean_ms == pytest.approx(30.0)


def test_a_model_asked_for_by_its_second_name_is_the_only_one():
    assert taken(metrics([0.02]), model="alias").found["ttft"].count == 1


def test_a_model_that_the_server_does_not_know():
    text = metrics([0.02], model="a") + metrics([0.02], model='b"\\')
    missing = taken(text, model="c")
    assert "knows a, b" in missing.why
    assert "not c" in missing.why
    truth = server_truth(samples(1.0), PROMPTS, missing, missing)
    assert (truth["engine"], truth["ttft_ms"]) == ("none", None)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (taken("", status=404), "GET /metrics answered 404"),
        (taken("# nothing\npython_info 1\n"), "no histogram of vLLM"),
        (None, "no snapshot was taken"),
    ],
)
def test_without_metrics_the_reason_is_stated(found, why):
    truth = server_truth(samples(1.0), PROMPTS, found, found)
    assert truth["engine"] == "none"
    assert truth["client_minus_server_ttft_ms"] is None
    assert why in truth["explained"]


def test_a_server_that_is_not_there():
    found = snapshot(getter("http://127.0.0.1:1", timeout_s=1.0), MODEL)
    assert found.why.startswith("GET /metrics: ")
    assert "refused" in found.why


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [
        ({0.1: 0, 0.2: 10, float("inf"): 10}, 150.0),
        ({0.1: 4, 0.2: 8, float("inf"): 10}, 125.0),
        ({0.1: 10, float("inf"): 10}, 50.0),
        ({0.1: 0, float("inf"): 10}, 100.0),
        ({}, None),
    ],
)
def test_the_median_lies_within_its_bucket(buckets, expected):
    median = Histogram(10, 1.5, buckets).median_ms
    assert median == (None if expected is None else pytest.approx(expected))


def test_an_empty_histogram_has_no_figures():
    assert Histogram(0, 0.0, {0.1: 0, float("inf"): 0}).median_ms is None
    assert Histogram().mean_ms is None


def test_ollama_tells_with_each_answer():
    told = {
        "load_ms": 5.0,
        "prompt_eval_ms": 40.0,
        "gen_eval_ms": 200.0,
        "gen_tokens": 20,
        "total_duration_ms": 260.0,
        "latency_ms": 262.0,
    }
    ours = [*samples(48.0, 50.0, **told), Sample(number=3, error_kind="timeout")]
    truth = server_truth(ours, "ollama_chat")
    assert truth["engine"] == "ollama"
    assert truth["ttft_ms"] == pytest.approx(45.0)
    assert truth["itl_ms"] == pytest.approx(10.0)
    assert truth["requests"] == 2
    assert truth["client_minus_server_ttft_ms"] == pytest.approx(4.0)
    assert truth["queue_ms"] == pytest.approx(15.0)
    assert truth["client_minus_server_latency_ms"] == pytest.approx(2.0)


def test_ollama_answers_without_durations():
    truth = server_truth(samples(48.0), "ollama_generate", Snapshot(), Snapshot())
    assert (truth["engine"], truth["explained"]) == ("none", "No answer told its durations.")
