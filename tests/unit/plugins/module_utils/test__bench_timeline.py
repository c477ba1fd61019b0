# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_job import Sample
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import Measurement
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_timeline import (
    arrived_between,
    cpu_ms_per_step,
    most_in_flight,
    timeline,
    tokens_per_record,
)

STATES = {"gpu": "nvml", "host": "/proc", "engine": "vllm /metrics"}
BEGUN = 1000.0


def host(at, cpu=50.0, **more):
    figures = {
        "cpu_percent": cpu,
        "memory_used_bytes": 1,
        "memory_total_bytes": 2,
        "load1": 0.5,
    }
    return {"at": BEGUN + at, "host": figures, **more}


def measured(wall_s=3.0, **more):
    return Measurement("m", begun=BEGUN, begun_at="2026-01-01T00:00:00.000Z", wall_s=wall_s, **more)


def column(result, *keys):
    rows = []
    for row in result["rows"]:
        value = row
        for key in keys:
            value = value[key]
        rows.append(value)
    return rows


def test_a_row_takes_the_reading_of_its_own_second():
    lines = [host(-0.1, 0.0), host(0.9, 10.0), host(1.9, 20.0), host(2.9, 30.0), host(3.9, 40.0)]
    result = timeline(measured(), lines, STATES, 1.0)
    assert column(result, "t") == [0.0, 1.0, 2.0]
    assert column(result, "cpu_percent") == [10.0, 20.0, 30.0]
    assert column(result, "load1") == [0.5, 0.5, 0.5]
    assert (result["step_s"], result["begun_at"]) == (1.0, "2026-01-01T00:00:00.000Z")


@pytest.mark.parametrize("phase", [0.0, 0.25, 0.4999, 0.5, 0.5001, 0.75])
def test_no_row_is_empty_whatever_the_phase_of_the_sampler(phase):
    lines = [host(number + phase + 0.03 * (number % 3), number) for number in range(-2, 8)]
    assert None not in column(timeline(measured(5.0), lines, STATES, 1.0), "cpu_percent")


def test_readings_that_are_missing_stay_missing():
    lines = [host(1.0, 10.0), host(4.0, 40.0)]
    result = timeline(measured(4.0), lines, STATES, 1.0)
    assert column(result, "cpu_percent") == [10.0, None, None, 40.0]
    assert column(result, "gpu") == [[], [], [], []]
    assert column(result, "engine") == [{}, {}, {}, {}]


def test_a_stage_shorter_than_a_step_has_one_row():
    result = timeline(measured(0.2), [host(0.4, 7.0)], STATES, 1.0)
    assert column(result, "cpu_percent") == [7.0]


def test_a_reading_every_five_seconds_serves_the_rows_around_it():
    lines = [{"at": BEGUN + at, "gpu": [{"index": 0, "power_w": at}]} for at in (1.0, 6.0, 11.0)]
    lines.append({"source": "gpu", "state": "nvidia-smi", "step_s": 5.0})
    result = timeline(measured(10.0), lines, {**STATES, "gpu": "nvidia-smi"}, 1.0)
    powers = [gpu[0]["power_w"] for gpu in column(result, "gpu")]
    assert powers == [1.0] * 3 + [6.0] * 5 + [11.0] * 2
    assert column(timeline(measured(10.0), lines[:1], STATES, 1.0), "gpu")[3:] == [[]] * 7


def test_tokens_are_counted_in_the_second_of_their_arrival():
    samples = [Sample(number=1, gen_tokens=80, chunks=20, latency_ms=2500.0)]
    one = measured(2.5, samples=samples, arrivals={0: 8, 1: 8, 2: 4})
    result = timeline(one, [], STATES, 1.0)
    assert column(result, "client", "tokens_per_s") == [32.0, 32.0, 32.0]
    assert column(timeline(one, [], STATES, 2.0), "client", "tokens_per_s") == [32.0, 32.0]
    assert column(timeline(one, [], STATES, 0.5), "client", "tokens_per_s") == [32.0] * 5


def test_records_and_tokens():
    assert tokens_per_record([]) == 1.0
    assert tokens_per_record([Sample(gen_tokens=0, chunks=0), Sample(gen_tokens=9, chunks=3)]) == 3
    assert arrived_between({0: 10, 1: 20}, 0.5, 1.25) == pytest.approx(10.0)


def test_the_most_requests_at_once_not_the_average():
    """A mean of 15.98 beside an engine's count of 16 would look like someone else's request."""
    samples = [
        Sample(at_s=0.0, latency_ms=500.0),
        Sample(at_s=0.0, latency_ms=1500.0),
        Sample(at_s=0.5, latency_ms=1000.0),
        Sample(at_s=3.2, latency_ms=100.0),
    ]
    assert most_in_flight(samples, 1.0, 4) == [2, 2, 0, 1]


def test_a_request_that_waits_to_be_sent_is_not_in_flight():
    samples = [Sample(at_s=0.0, dispatch_lag_ms=1200.0, latency_ms=2000.0)]
    assert most_in_flight(samples, 1.0, 3) == [0, 1, 1]


def test_the_engines_counter_becomes_a_rate():
    lines = [
        {"at": BEGUN + at, "engine": {"running": 1, "generation_tokens_total": total}}
        for at, total in ((0.0, 100), (1.0, 150), (3.0, 250), (4.0, 20))
    ]
    rates = [
        entry.get("generation_tokens_per_s")
        for entry in column(timeline(measured(4.0), lines, STATES, 1.0), "engine")
    ]
    assert rates == [50.0, None, 50.0, None]


def test_sources_say_what_failed_and_why():
    lines = [{"at": BEGUN + 1, "missed": "gpu", "why": "GPU 1: GPU is lost"}]
    lines.append({"at": BEGUN + 99, "missed": "gpu", "why": "after the stage"})
    lines += [host(1.0), {"at": BEGUN + 2, "gpu": []}]
    states = {**STATES, "engine": "none: GET /metrics: it answered 404"}
    sources = timeline(measured(), lines, states, 1.0)["sources"]
    assert sources["gpu"] == "nvml; 1 readings failed, the last one: GPU 1: GPU is lost"
    assert sources["host"] == "/proc"
    assert sources["engine"] == "none: GET /metrics: it answered 404"


def test_a_source_that_went_silent_is_said_to_be():
    lines = [{"at": BEGUN - 9, "gpu": [{"index": 0}]}, host(1.0)]
    sources = timeline(measured(), lines, STATES, 1.0)["sources"]
    assert sources["gpu"] == "nvml; it gave no reading during this stage"
    assert sources["host"] == "/proc"


def test_what_sampling_cost():
    assert cpu_ms_per_step([]) is None
    lines = [host(at, cpu_s=0.05 + at * 0.002) for at in range(5)]
    assert cpu_ms_per_step(lines) == pytest.approx(2.0)
