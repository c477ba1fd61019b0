# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from bench_samples import good, measured, sample

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_validity as bench
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_metrics import metrics_of
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import Stage


def judged(run=None, rows=None, client=None, server_truth=None, **limits):
    run = run or good()
    return bench.judge_validity(
        run,
        metrics_of(run),
        timeline=None if rows is None else {"rows": rows},
        client=client,
        server_truth=server_truth,
        limits=bench.TrustLimits(**limits),
    )


def only(found, state):
    assert found["state"] == state
    (reason,) = found["reasons"]
    return reason


def gpu(*throttle, **more):
    return {"index": 0, "throttle": list(throttle), **more}


def row(*gpus, running=None, waiting=0, in_flight=None, cpu=None):
    return {
        "gpu": list(gpus),
        "cpu_percent": cpu,
        "engine": None if running is None else {"running": running, "waiting": waiting},
        "client": {"in_flight": in_flight},
    }


CLIENT = {"overhead_ms": 1.0, "loop_lag_p99_ms": 2.0, "dispatch_lag_p99_ms": 1.0}


def test_a_quiet_measurement_is_valid():
    rows = [row(gpu("gpu_idle"), running=1, in_flight=1, cpu=30.0)] * 20
    truth = {"engine": "vllm", "requests": 3}
    assert judged(rows=rows, client=CLIENT, server_truth=truth) == {"state": "VALID", "reasons": []}


def test_what_cannot_be_seen_raises_no_doubt():
    assert judged()["state"] == "VALID"
    bare = {"rows": [{"t": 0.0}], "sources": {"gpu": "none: no driver"}}
    run = good()
    found = bench.judge_validity(
        run,
        metrics_of(run),
        timeline=bare,
        client={"overhead_ms": None},
        server_truth={"engine": "none", "requests": None},
        limits=bench.TrustLimits(),
    )
    assert found == {"state": "VALID", "reasons": []}


def test_too_few_samples():
    reason = only(judged(measured(sample(1), sample(2))), "UNRELIABLE")
    assert reason == "2 requests were answered, wanted at least 3"
    assert judged(measured(sample(1), sample(2)), min_samples=2)["state"] == "VALID"


@pytest.mark.parametrize(
    ("rates", "state"), [((50, 40, 60), "VALID"), ((50, 30, 70), "UNRELIABLE")]
)
def test_three_requests_in_turn_are_enough_while_their_rates_agree(rates, state):
    run = measured(*[sample(number, rate=rate) for number, rate in enumerate(rates, start=1)])
    assert judged(run, client=CLIENT, cv_percent=20.0, loop_lag_ms=250.0)["state"] == state


def test_a_load_that_the_end_of_the_run_cut_off_is_doubted():
    run = good()
    run.cut = True
    assert "time of the run ended before the load did" in only(judged(run), "UNRELIABLE")


def test_a_wider_closed_loop_wants_one_sample_per_place():
    run = measured(*[sample(number) for number in range(7)], stage=Stage(concurrency=8, requests=7))
    assert "wanted at least 8" in only(judged(run), "UNRELIABLE")


def test_nothing_measured_at_all():
    found = judged(measured(not_sent=3))
    assert found["state"] == "UNRELIABLE"
    assert found["reasons"] == [
        "0 requests were answered, wanted at least 3",
        "100.0 % of 3 requests failed or were not sent, wanted at most 1 %",
    ]


@pytest.mark.parametrize(
    ("run", "share"),
    [
        (measured(*[sample(n) for n in range(48)], sample(error="timeout")), "2.0 % of 49"),
        (measured(*[sample(n) for n in range(48)], not_sent=2), "4.0 % of 50"),
    ],
)
def test_errors_beyond_their_share(run, share):
    assert share in only(judged(run), "UNRELIABLE")
    assert judged(run, error_percent=5.0)["state"] == "VALID"


def test_rates_that_vary():
    run = measured(sample(rate=20), sample(rate=50), sample(rate=90))
    assert "vary by 65.8 %" in only(judged(run), "UNRELIABLE")
    assert "wanted at most 20 %" in only(judged(run), "UNRELIABLE")
    assert judged(run, cv_percent=0)["state"] == "VALID"


@pytest.mark.parametrize(
    "reason",
    ["hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown"],
)
def test_a_throttled_gpu_is_named_with_its_reason(reason):
    rows = [row(gpu())] * 9 + [row(gpu(reason))]
    found = only(judged(rows=rows), "UNRELIABLE")
    assert found == f"GPU 0 was throttled: {reason} in 1 of 10 samples, wanted none"


def test_each_throttled_gpu_is_named():
    rows = [row(gpu(), {"index": 1, "throttle": ["hw_slowdown", "sw_thermal_slowdown"]})] * 4
    found = only(judged(rows=rows), "UNRELIABLE")
    assert found.startswith("GPU 1 was throttled: hw_slowdown in 4, sw_thermal_slowdown in 4 of 4")


@pytest.mark.parametrize(
    "harmless", ["gpu_idle", "sw_power_cap", "applications_clocks_setting", "sync_boost"]
)
def test_other_clock_events_are_no_throttling(harmless):
    assert judged(rows=[row(gpu(harmless))] * 3)["state"] == "VALID"


@pytest.mark.parametrize(
    ("ratio", "rows", "state"),
    [
        (1.0, [row(gpu())], "VALID"),
        (None, [row(gpu())], "VALID"),
        (0.6, [], "UNRELIABLE"),
        (0.0, [row(gpu())], "UNRELIABLE"),
        (0.0, [], "VALID"),  # a host without a GPU
    ],
)
def test_a_model_partly_on_the_processors(ratio, rows, state):
    run = good()
    run.gpu_ratio = ratio
    found = judged(run, rows=rows)
    assert found["state"] == state
    assert judged(run, rows=rows, gpu_ratio=0.0)["state"] == "VALID"
    if ratio == 0.6:
        assert found["reasons"] == ["60 % of m lie in GPU memory, wanted at least 100 %"]


def test_requests_of_others_that_the_engine_counted():
    found = only(judged(server_truth={"requests": 5}), "UNRELIABLE")
    assert "counted 5 requests while 3 were ours" in found
    assert judged(server_truth={"requests": 2})["state"] == "VALID"


def test_requests_of_others_that_the_engine_runs():
    rows = [row(running=3, waiting=2, in_flight=4)] * 2 + [row(running=4, in_flight=4)] * 8
    found = only(judged(rows=rows), "UNRELIABLE")
    assert "in 2 of 10 samples (up to 5 while 4 were ours)" in found
    assert judged(rows=rows[1:])["state"] == "UNRELIABLE"
    assert judged(rows=rows[1:] + rows[2:])["state"] == "VALID"  # one in 17 is a matter of timing


def test_a_sample_between_two_requests_is_no_other_load():
    rows = [row(running=4, in_flight=4), row(running=4, in_flight=3)] * 5
    assert judged(rows=rows)["state"] == "VALID"


def test_without_samples_of_the_client_the_most_in_flight_counts():
    rows = [{"engine": {"running": 4, "waiting": None}}] * 5
    run = good()
    run.in_flight = 4
    assert judged(run, rows=rows)["state"] == "VALID"
    run.in_flight = 3
    assert judged(run, rows=rows)["state"] == "UNRELIABLE"


def test_another_process_on_the_gpu():
    rows = [row(gpu(other_processes=["python3"])), row(gpu(other_processes=["Xorg"]))]
    found = only(judged(rows=rows), "UNRELIABLE")
    assert found == "other load: Xorg, python3 used the GPU, wanted no other process"


def test_busy_processors_matter_where_a_gpu_does_the_work():
    rows = [row(gpu(), cpu=97.0)] * 5
    assert "were 97 % busy" in only(judged(rows=rows), "UNRELIABLE")
    assert judged(rows=[row(cpu=97.0)] * 5)["state"] == "VALID"
    assert judged(rows=[row(gpu(), cpu=80.0)] * 5)["state"] == "VALID"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("overhead_ms", 5.01, "adds 5.01 ms to TTFT, wanted at most 5.00 ms"),  # 5 % of 100 ms
        ("loop_lag_p99_ms", 25.1, "waited 25.10 ms for the client (p99), wanted at most 25 ms"),
        ("dispatch_lag_p99_ms", 10.1, "went out 10.10 ms late (p99), wanted at most 10 ms"),
    ],
)
def test_a_client_that_measures_itself_is_invalid(name, value, text):
    reason = only(judged(client={**CLIENT, name: value}), "INVALID")
    assert reason.startswith("client-limited: ")
    assert text in reason


@pytest.mark.parametrize(
    ("ttft", "limit", "wanted"), [(10.0, None, 2.0), (400.0, None, 20.0), (400.0, 1.5, 1.5)]
)
def test_the_limit_of_what_the_client_may_add(ttft, limit, wanted):
    metrics = metrics_of(measured(sample(ttft=ttft)))
    assert bench.overhead_limit_ms(metrics, bench.TrustLimits(overhead_ms=limit)) == wanted


def test_without_an_answer_the_least_limit_holds():
    assert bench.overhead_limit_ms(metrics_of(measured()), bench.TrustLimits()) == 2.0


def test_invalid_outweighs_unreliable_and_all_reasons_are_said():
    found = judged(measured(sample(1)), client={**CLIENT, "overhead_ms": 50.0})
    assert found["state"] == "INVALID"
    assert len(found["reasons"]) == 2


@pytest.mark.parametrize(
    ("in_flight", "state", "word"),
    [(4, "UNRELIABLE", "did not keep up with 50 requests/s"), (3, "INVALID", "client-limited")],
)
def test_a_schedule_held_up_by_the_server_is_not_the_clients_fault(in_flight, state, word):
    run = good()
    run.stage, run.in_flight = Stage("constant", 4, 50.0, 3), in_flight
    assert word in only(judged(run, client={**CLIENT, "dispatch_lag_p99_ms": 300.0}), state)


@pytest.mark.parametrize(("engine", "state"), [("ollama", "UNRELIABLE"), ("vllm", "VALID")])
def test_clients_that_an_engine_does_not_count_are_a_doubt(engine, state):
    found = bench.judge_validity(
        good(),
        metrics_of(good()),
        timeline=None,
        client=CLIENT,
        server_truth={"engine": engine},
        limits=bench.TrustLimits(in_service=True),
    )
    assert found["state"] == state
    assert ("clients used the host" in str(found["reasons"])) is (state == "UNRELIABLE")
