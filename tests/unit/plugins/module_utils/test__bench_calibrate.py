# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from array import array

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_calibrate import (
    calibrate,
    client_error,
    compare,
    places_of,
    schedule_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_dialect import PATHS, Ask, render
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_engine import Account
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_job import (
    GenerationJob,
    Sample,
    Setting,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_loopback import (
    GOLDEN,
    SPREAD,
    pieces,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import Measurement
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import Stage

BASE = 500.0


def job(number=1, begin=0.0, times=(), dialect="openai_chat"):
    sample = Sample(number=number)
    made = GenerationJob(
        Setting("http://127.0.0.1", dialect),
        sample,
        render(dialect, Ask("calibration-1", "x", 3)),
        intended=None,
        finished=lambda _job: None,
        wall=lambda _at: "",
    )
    made.begin = BASE + begin / 1e3
    made.answer.times = array("d", (BASE + at / 1e3 for at in times))
    return made


def account(*requests):
    """Milliseconds in, microseconds out, as the server writes them."""

    def micro(times):
        return [round(at * 1e3) for at in times]

    entries = [
        [number, round(arrived * 1e3), micro(before), micro(after)]
        for number, arrived, before, after in requests
    ]
    return {"base": BASE, "kernel": True, "requests": entries}


def test_a_stamp_within_the_write_has_no_error():
    errors = compare([job(1, 10.0, (40.1, 50.1))], account((1, 10.2, (40, 50), (40.3, 50.3))))
    assert errors.ttft == [pytest.approx(0.2, abs=1e-3)]  # the way of the request
    assert list(errors.gap) == [pytest.approx(0.0, abs=1e-6)]


def test_stamps_after_and_before_the_write():
    told = account((1, 10.0, (40, 50, 60), (40.5, 50.5, 60.5)))
    errors = compare([job(1, 10.0, (42.5, 50.2, 59.0))], told)
    assert errors.ttft == [pytest.approx(2.0, abs=1e-3)]
    assert list(errors.gap) == pytest.approx([2.0, 1.0], abs=1e-3)
    assert list(errors.client_gaps) == pytest.approx([7.7, 8.8], abs=1e-3)
    assert list(errors.true_gaps) == pytest.approx([9.7, 9.8], abs=1e-3)
    assert list(errors.late) == pytest.approx([2.0, 0.0, 0.0], abs=1e-3)


def test_that_the_server_was_late_is_no_error_of_the_client():
    """It wrote 100 ms after its schedule, and says so."""
    errors = compare([job(1, 10.0, (140.0, 250.0))], account((1, 10.0, (140, 250), (141, 251))))
    assert errors.ttft == [pytest.approx(0.0, abs=1e-3)]
    assert max(errors.gap) == pytest.approx(0.0, abs=1e-3)


def test_requests_that_one_side_does_not_know_whole_are_left_out():
    failed = job(2, 0.0, (1.0,))
    failed.sample.error_kind = "timeout"
    jobs = [job(1, 0.0, (1.0, 2.0)), failed, job(3), job(4, 0.0, (1.0, 2.0))]
    errors = compare(jobs, account((1, 0, (1,), (1,)), (2, 0, (1,), (1,)), (3, 0, (), ())))
    assert (errors.ttft, len(errors.gap)) == ([], 0)


@pytest.mark.parametrize("concurrency", [1, 16, 64, 256, 1000])
def test_the_schedule_fits_the_time_and_the_machine(concurrency):
    schedule = schedule_of(concurrency, 2.5)
    answer_s = (30.0 + schedule.tokens * schedule.gap_ms) / 1e3
    assert concurrency / (schedule.gap_ms / 1e3) <= 6400.1
    assert schedule.seconds + answer_s <= max(2.5, answer_s + 0.11)
    assert schedule.requests >= 2 * concurrency
    assert schedule.tokens >= 4


def test_sixteen_streams_have_the_plain_schedule():
    schedule = schedule_of(16, 2.5)
    assert (schedule.gap_ms, schedule.tokens) == (10.0, 40)


@pytest.mark.parametrize(
    ("stage", "latency_s", "places"),
    [
        (Stage("closed", 16, requests=100), None, 16),
        (Stage("closed", 16, requests=4), None, 4),
        (Stage("poisson", 256, rate=4.0, requests=100), 2.5, 10),
        (Stage("constant", 8, rate=4.0, requests=100), 60.0, 8),
        (Stage("constant", 8, rate=0.1, requests=100), 0.5, 1),
    ],
)
def test_places_of_a_stage(stage, latency_s, places):
    assert places_of(stage, latency_s) == places


@pytest.mark.parametrize("dialect", PATHS)
def test_the_server_speaks_each_dialect(dialect):
    head, token, end = pieces(dialect, 3)
    answered = job(dialect=dialect)
    for number, piece in enumerate((head + token, token, token + end), 1):
        assert answered.arrived(piece, float(number)) is (number == 3)
    assert answered.sample.error == ""
    assert list(answered.answer.times) == [1.0, 2.0, 3.0]
    assert (answered.sample.gen_tokens, answered.sample.tokens_from) == (3, "server")
    assert answered.reusable


def test_streams_do_not_keep_step():
    firsts = sorted(30 * (1 + SPREAD * (2 * (n * GOLDEN % 1) - 1)) for n in range(1, 17))
    assert min(b - a for a, b in zip(firsts, firsts[1:])) > 0.3
    assert firsts[0] > 17
    assert firsts[-1] < 43


def run_of(**account_fields):
    samples = [Sample(dispatch_lag_ms=lag) for lag in (1.0, 3.0)]
    return Measurement("m", samples=samples, wall_s=4.0, account=Account(**account_fields))


def test_what_a_result_says_about_its_own_error():
    calibration = {"ttft_error_ms": {"mean": 0.21}, "gap_error_ms": 0.02, "loop_lag_p99_ms": 9.0}
    ages = array("d", [0.1] * 99 + [5.1])
    client = client_error(calibration, run_of(read_age_ms=ages, cpu_s=1.0), 2.0)
    assert client["overhead_ms"] == 0.21
    assert client["itl_overhead_ms"] == 0.02
    assert client["loop_lag_p99_ms"] == pytest.approx(0.15)
    assert client["dispatch_lag_p99_ms"] == pytest.approx(2.98)
    assert client["cpu_percent_of_core"] == 25.0
    assert client["kernel_stamps"] is True
    assert client["limit_ms"] == 2.0
    assert client["calibration"] == calibration


def test_an_overhead_is_never_negative():
    assert client_error({"ttft_error_ms": {"mean": -0.01}}, run_of(), 2.0)["overhead_ms"] == 0


def test_without_kernel_stamps_the_calibration_tells_the_lag():
    client = client_error({"loop_lag_p99_ms": 9.0}, run_of(kernel_stamps=False), 2.0)
    assert (client["loop_lag_p99_ms"], client["overhead_ms"]) == (9.0, None)


def test_a_calibration_that_fails_says_why():
    client = client_error(calibrate(1, "openai_chat", python="/nonexistent"), run_of(), 2.0)
    assert client["overhead_ms"] is None
    assert "/nonexistent" in client["calibration"]["failed"]
