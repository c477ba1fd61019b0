# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole runs against the simulated Ollama: loads, sweeps, and what they say of themselves."""

from __future__ import annotations

import time

import pytest
from harness import start_ollama

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_run
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_engine import Engine
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_options import ARGUMENT_SPEC
from ansible_collections.hx_infra.llm.plugins.module_utils._progress import ProgressWriter

MODEL = "tiny:1b"
TTFT_MS = 40.0


def suboptions(name, **given):
    spec = ARGUMENT_SPEC[name]["options"]
    return {**{key: option.get("default") for key, option in spec.items()}, **given}


@pytest.fixture
def server(tmp_path):
    schedule = {
        "load_seconds": 0.1,
        "ttft_seconds": TTFT_MS / 1000,
        "prompt_tokens_per_second": 1e6,
        "tokens_per_second": 100.0,
        "jitter": 0.0,
        "cpu_factor": 1.0,
        "answer_tokens": 10,
    }
    with start_ollama(tmp_path, config={"defaults": schedule}) as started:
        yield started


@pytest.fixture
def benchmark(server):
    def run(check_mode=False, slo=None, **options):
        params = {name: option.get("default") for name, option in ARGUMENT_SPEC.items()}
        params.update(
            url=server.url,
            host="llm-01",
            models=[{"name": MODEL, "slo": slo}],
            num_predict=10,
            calibrate=False,
            sample_resources=False,
            **options,
        )
        return _bench_run.run(params, check_mode)

    return run


def test_a_run_says_what_was_measured_and_how(benchmark):
    result = benchmark(iterations=3)
    [entry] = result["benchmark"]
    assert result["run"]["engine"]["name"] == "ollama"
    assert result["run"]["facts"]["digests"][MODEL]
    assert entry["stage"]["label"] == "1 at once"
    assert entry["metrics"]["ttft_ms"]["min"] >= TTFT_MS
    assert entry["server_truth"]["engine"] == "ollama"
    assert TTFT_MS * 0.9 <= entry["server_truth"]["ttft_ms"] < 1000
    assert entry["metrics"]["load_ms"] >= 100
    assert len(entry["warmup"]) == 1


def test_an_open_loop_sends_its_schedule(benchmark):
    [entry] = benchmark(rate=20.0, arrival="constant", iterations=10)["benchmark"]
    assert entry["stage"]["label"] == "20 requests/s, constant"
    starts = [sample["at_s"] for sample in entry["samples"]]
    assert starts == pytest.approx([number / 20 for number in range(10)], abs=1e-6)
    assert entry["metrics"]["dispatch_lag_ms"]["count"] == 10


def test_a_duration_ends_a_load(benchmark):
    [entry] = benchmark(duration=0.6, concurrency=2)["benchmark"]
    assert entry["samples"]
    assert all(sample["at_s"] < 0.6 for sample in entry["samples"])
    assert entry["not_sent"] == 0


def test_a_sweep_stops_where_the_objective_breaks(benchmark):
    sweep = suboptions("sweep", values=[1.0, 2.0, 4.0])
    result = benchmark(sweep=sweep, iterations=2, slo=suboptions_of_slo(ttft_ms=1.0))
    [summary] = result["run"]["sweeps"]
    assert [entry["stage"]["concurrency"] for entry in result["benchmark"]] == [1]
    assert "TTFT" in summary["stopped_because"]
    kept = benchmark(sweep=sweep, iterations=2, slo=suboptions_of_slo(ttft_ms=5000.0))
    assert [entry["stage"]["concurrency"] for entry in kept["benchmark"]] == [1, 2, 4]
    assert kept["run"]["sweeps"][0]["knee"]["value"] == 4


def test_a_step_beyond_the_knee_is_no_failure(benchmark):
    sweep = suboptions("sweep", values=[1.0, 8.0])
    # One request at a time takes 140 ms; eight share the server's four places.
    slo = suboptions_of_slo(latency_ms=230.0)
    result = benchmark(sweep=sweep, iterations=2, slo=slo)
    steps = [
        {verdict["check"]: verdict["status"] for verdict in entry["verdicts"]}["latency"]
        for entry in result["benchmark"]
    ]
    assert steps == ["PASS", "FAIL"]
    counted = [verdict["status"] for verdict in result["verdicts"]]
    assert "FAIL" not in counted


def suboptions_of_slo(**given):
    spec = ARGUMENT_SPEC["models"]["options"]["slo"]["options"]
    return {**dict.fromkeys(spec), **given}


def test_a_model_that_cannot_be_warmed_up_is_not_measured(benchmark, server):
    server.set_faults(http_status={"status": 500, "message": "no"})
    [entry] = benchmark(iterations=5)["benchmark"]
    assert entry["samples"] == []
    assert entry["not_sent"] == 5
    assert entry["errors"] == {"http_5xx": 1, "not_sent": 5}
    [answered] = [verdict for verdict in entry["verdicts"] if verdict["check"] == "answered"]
    assert answered["status"] == "FAIL"
    assert entry["validity"]["state"] == "UNRELIABLE"


def test_a_key_that_the_server_repeats_is_masked(benchmark, server, tmp_path):
    key = tmp_path / "key"
    key.write_text("sk-0815\n")
    key.chmod(0o600)
    server.set_faults(http_status={"status": 500, "message": "no such key sk-0815"})
    [entry] = benchmark(iterations=1, key_file=str(key))["benchmark"]
    assert entry["warmup"][0]["error"] == "status 500: no such key ***"


def test_synthetic_prompts_are_as_long_as_declared(benchmark):
    [entry] = benchmark(prompt_tokens=300, warmup=3, iterations=2)["benchmark"]
    counted = [sample["prompt_tokens"] for sample in entry["samples"]]
    assert counted == pytest.approx([300, 300], rel=0.25)  # words differ in tokens


def test_prompts_come_from_a_file(benchmark, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("First\nprompt.\n\n\nSecond prompt.\n")
    [entry] = benchmark(prompt_file=str(path), iterations=2)["benchmark"]
    assert entry["asked"]["prompt_kind"] == "file"
    path.write_text("\n\n")
    with pytest.raises(Exception, match="holds no prompt"):
        benchmark(prompt_file=str(path))


def test_a_step_that_the_time_cut_off_makes_no_knee(benchmark):
    # The first step sends 2 requests, the second 96 to a server with four places: over 3 s.
    sweep = suboptions("sweep", values=[1.0, 48.0, 64.0])
    result = benchmark(
        sweep=sweep, iterations=1, max_duration=1.6, slo=suboptions_of_slo(ttft_ms=5000.0)
    )
    *whole, last = result["benchmark"]
    assert whole
    assert last["cut"] is True
    assert last["not_sent"] > 0
    assert last["validity"]["state"] == "UNRELIABLE"
    [summary] = result["run"]["sweeps"]
    assert [point["broken"] for point in summary["points"]] == [[]] * len(whole)
    assert summary["knee"]["at_least"] is True
    assert "time of the run ended before" in summary["stopped_because"]
    assert "FAIL" not in [verdict["status"] for verdict in result["verdicts"]]


def test_a_sweep_holds_rates_and_gaps_against_their_objectives(benchmark):
    sweep = suboptions("sweep", values=[1.0])
    slo = suboptions_of_slo(tokens_per_s=1e6, itl_p99_ms=0.001)
    [summary] = benchmark(sweep=sweep, iterations=3, slo=slo)["run"]["sweeps"]
    [gap, rate] = summary["points"][0]["broken"]
    assert gap.startswith("gap between tokens (p99)")
    assert rate.startswith("tokens per second of a request (p5)")


def test_a_timed_load_that_the_run_cuts_off_invents_no_requests(benchmark):
    [entry] = benchmark(duration=60.0, concurrency=2, max_duration=1.0)["benchmark"]
    assert (entry["cut"], entry["not_sent"], entry["errors"]) == (True, 0, {})
    assert entry["validity"]["state"] == "UNRELIABLE"


def test_a_warm_up_that_the_time_does_not_reach_is_none(benchmark, monkeypatch):
    # The time ends while the connection is made, before the first request can go out.
    slow = Engine.warm_up
    monkeypatch.setattr(Engine, "warm_up", lambda engine, n: (time.sleep(0.5), slow(engine, n)))
    [entry] = benchmark(iterations=3, max_duration=0.4)["benchmark"]
    assert (entry["warmup"], entry["samples"], entry["not_sent"]) == ([], [], 3)


def test_a_timed_load_tells_its_seconds(benchmark, monkeypatch):
    told = []
    monkeypatch.setattr(
        ProgressWriter, "update", lambda _writer, *args, **more: told.append((args, more))
    )
    benchmark(duration=1.2)
    done = [(args[2:], more) for args, more in told if args[1] == "measuring"]
    assert {(args[1], more["unit"]) for args, more in done} == {(1.2, "s")}
    assert 0 < done[0][0][0] < done[-1][0][0] <= 1.2
    assert " requests" in done[-1][1]["note"]
    told.clear()
    benchmark(iterations=3)
    args, more = told[-1]
    assert (args[2:], more["unit"]) == ((3, 3), "requests")


def test_the_run_ends_in_time(benchmark):
    result = benchmark(iterations=200, max_duration=1.0)
    [entry] = result["benchmark"]
    assert entry["not_sent"] > 0
    assert entry["errors"]["not_sent"] == entry["not_sent"]
    assert len(entry["samples"]) + entry["not_sent"] == 200
