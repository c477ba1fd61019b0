# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark's loop and time: open loops, the kernel's stamps, what it costs to wait."""

from __future__ import annotations

import gc
import statistics
import sys
import time

import pytest
from schedule_host import Schedule, drive, good, kinds, measure

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_engine
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_dialect import OPENAI_CHAT
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_engine import Engine
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_job import Setting
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import (
    Plan,
    Runner,
    address_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_prompts import Prompts
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import (
    CLOSED,
    CONSTANT,
    POISSON,
    Stage,
)

TOKENS = 5


@pytest.fixture(scope="module")
def server():
    with Schedule(ttft_ms=10.0, itl_ms=2.0, tokens=TOKENS) as started:
        yield started


@pytest.fixture(autouse=True)
def forget(server):
    server.reset()


# -- open loop ------------------------------------------------------------------------------------


def test_an_open_loop_measures_from_the_time_that_was_meant(server):
    # 20 requests/s of 100 ms each, one at a time: each waits 50 ms longer than the one before.
    stage = Stage(CONSTANT, 1, 20.0, 8)
    measured = measure(server, stage=stage, ttft_ms=100.0, tokens=1)
    samples = good(measured)
    latencies = [sample.latency_ms for sample in samples]
    assert latencies == sorted(latencies)
    assert latencies[-1] >= 100.0 + 7 * 50.0  # coordinated omission would say 100
    assert samples[-1].ttft_ms >= 100.0 + 7 * 50.0
    assert samples[-1].dispatch_lag_ms >= 7 * 50.0
    assert measured.in_flight == 1


def test_an_open_loop_does_not_wait_for_answers(server):
    stage = Stage(POISSON, 64, 100.0, 20, seed=1)
    measured = measure(server, stage=stage, ttft_ms=400.0, tokens=1)
    samples = good(measured)
    # The last is meant long before the first is answered, so all are in flight at once.
    assert server.truth().peak >= 15
    assert statistics.median(sample.dispatch_lag_ms for sample in samples) < 50
    assert [sample.at_s for sample in samples] == sorted(sample.at_s for sample in samples)


def test_no_request_starts_after_the_end(server):
    plan = Plan(
        Setting(server.url, OPENAI_CHAT),
        Prompts(texts=["why?"]),
        ends_at=time.monotonic() + 0.3,
    )
    measured = Runner(address_of(server.url, None, True), plan).run(
        "m", Stage(CLOSED, 1, 0, 10_000)
    )
    good(measured)
    assert 0 < len(measured.samples) < 10_000
    assert measured.not_sent == 10_000 - len(measured.samples)


# -- stamps, and what waiting costs ---------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="the stamps are Linux's")
@pytest.mark.parametrize("closing", [{}, {"close_after_ms": 0.0}, {"framing": "close"}])
def test_the_kernels_stamps_are_used(server, closing):
    account, samples = drive(server.url, 5, **closing)
    assert kinds(samples) == [""] * 5
    assert account.kernel_stamps
    assert len(account.read_age_ms) >= 5 * TOKENS // 2
    assert min(account.read_age_ms) >= 0.0


def test_time_spent_in_this_process_is_not_the_servers(server):
    # The client is away for 50 ms after each turn, the tokens are 70 ms apart: each is read late,
    # by 20 ms every time, while a busy machine is late only sometimes.
    errors = []
    for _turn in range(3):
        server.reset()
        engine = Engine(
            address_of(server.url, None, True), tick=lambda _now: time.sleep(0.05), tick_s=0.0
        )
        account, samples = drive(server.url, 1, engine=engine, ttft_ms=30.0, tokens=10, itl_ms=70.0)
        assert kinds(samples) == [""]
        (truth,) = server.truth().ttft
        errors.append(abs(samples[0].ttft_ms - truth))
    assert min(errors) < 10
    assert samples[0].tpot_ms == pytest.approx(70.0, abs=15)
    assert max(account.read_age_ms) > 15.0  # by how much it was behind is known all the same


def test_without_stamps_the_time_of_the_read_is_taken(server, monkeypatch):
    monkeypatch.setattr(_bench_engine, "SO_TIMESTAMPNS", 0x7FFF)
    account, samples = drive(server.url, 3, itl_ms=20.0)
    assert kinds(samples) == [""] * 3
    assert not account.kernel_stamps
    assert len(account.read_age_ms) == 0
    assert statistics.median(sample.tpot_ms for sample in samples) == pytest.approx(20, abs=8)


def test_stamps_from_before_the_wall_clock_was_set_are_not_used(server, monkeypatch):
    real = time.time
    monkeypatch.setattr(_bench_engine.time, "time", lambda: real() + 7200)
    account, samples = drive(server.url, 2)
    assert kinds(samples) == ["", ""]
    assert not account.kernel_stamps
    assert all(0 <= sample.ttft_ms < 2000 for sample in samples)


def test_waiting_is_asleep(server):
    before = time.process_time()
    account, samples = drive(server.url, 1, ttft_ms=1000.0, tokens=1)
    assert kinds(samples) == [""]
    assert account.turns < 40  # a tick each 500 ms, the connection, the answer
    assert time.process_time() - before < 0.3
    assert account.cpu_s < 0.3


def test_waiting_for_the_next_of_an_open_loop_is_asleep(server):
    account, samples = drive(server.url, stage=Stage(CONSTANT, 1, 2.0, 3))
    assert kinds(samples) == [""] * 3
    assert account.turns < 80
    assert account.cpu_s < 0.3


def test_progress_is_told_while_nothing_comes(server):
    ticks = []
    engine = Engine(address_of(server.url, None, True), tick=ticks.append, tick_s=0.05)
    drive(server.url, 1, engine=engine, ttft_ms=500.0, tokens=1)
    assert len(ticks) >= 4
    assert ticks == sorted(ticks)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_it_was_before(server, enabled):
    seen = []
    engine = Engine(
        address_of(server.url, None, True), tick=lambda _now: seen.append(gc.isenabled()), tick_s=0
    )
    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        drive(server.url, 1, engine=engine)
        assert gc.isenabled() == enabled
        assert gc.get_freeze_count() == 0
    finally:
        (gc.enable if was else gc.disable)()
    assert seen
    assert not any(seen)


def test_the_collector_comes_back_when_the_run_fails(server):
    class Failing:
        def due(self, now, in_flight):
            raise RuntimeError("of the feeder")

    engine = Engine(address_of(server.url, None, True))
    with pytest.raises(RuntimeError, match="of the feeder"):
        engine.run(Failing())
    engine.close()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
