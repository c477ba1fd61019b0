# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When requests are due: closed and open loops, counts, times, seeds."""

from __future__ import annotations

import statistics

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import (
    CLOSED,
    CONSTANT,
    POISSON,
    ClosedLoop,
    OpenLoop,
    Stage,
    feeder_of,
    schedule,
)


def feed(stage, begin=100.0):
    """Return a feeder whose requests are (number, intended)."""
    return feeder_of(stage, begin, lambda number, intended: (number, intended))


@pytest.mark.parametrize(
    ("stage", "kind", "label"),
    [
        (Stage(CLOSED, 4), ClosedLoop, "4 at once"),
        (Stage(CONSTANT, 4, 2.5), OpenLoop, "2.5 requests/s, constant"),
        (Stage(POISSON, 4, 10), OpenLoop, "10 requests/s, poisson"),
    ],
)
def test_each_shape_has_its_feeder_and_its_words(stage, kind, label):
    assert isinstance(feed(stage), kind)
    assert stage.label == label


def test_a_closed_loop_keeps_its_places_full():
    loop = feed(Stage(CLOSED, 2, requests=3))
    assert loop.due(100.0, 0) == 100.0
    assert loop.take(100.0) == (1, None)
    assert loop.due(100.0, 1) == 100.0
    assert loop.take(100.0) == (2, None)
    assert loop.due(105.0, 2) is None  # both places are taken
    assert loop.due(106.0, 1) == 106.0
    assert loop.take(106.0) == (3, None)
    assert loop.due(107.0, 0) is None  # all were sent
    assert loop.wanted == 3


def test_a_closed_loop_ends_with_its_time():
    loop = feed(Stage(CLOSED, 1, requests=100, duration_s=5.0))
    assert loop.due(104.9, 0) == 104.9
    loop.take(104.9)
    assert loop.due(105.0, 0) is None
    assert loop.due(104.0, 0) is None  # and stays over
    assert loop.wanted == 1  # those of the time, not the bound


@pytest.mark.parametrize(
    ("stage", "run_ends_at", "wanted", "cut"),
    [
        (Stage(CLOSED, 1, requests=20_000, duration_s=5.0), 103.0, 1, True),
        (Stage(CLOSED, 1, requests=20_000, duration_s=5.0), 200.0, 1, False),
        (Stage(CLOSED, 1, requests=1, duration_s=5.0), 103.0, 1, False),
        (Stage(CLOSED, 1, requests=9), 103.0, 9, True),
        (Stage(CLOSED, 1, requests=1), 103.0, 1, False),
        (Stage(CONSTANT, 1, 1.0, 9), 103.0, 9, True),
        (Stage(CONSTANT, 1, 1.0, 1), 103.0, 1, False),
    ],
)
def test_no_requests_are_made_up_when_the_run_ends_before_the_load(stage, run_ends_at, wanted, cut):
    loop = feed(stage)
    loop.take(100.0)  # the run's end keeps the engine from asking for another one
    assert loop.wanted == wanted
    assert loop.cut(run_ends_at) is cut


def test_a_constant_rate_has_equal_steps():
    assert list(schedule(Stage(CONSTANT, 1, 4.0, 5))) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_no_request_is_due_after_the_time():
    assert list(schedule(Stage(CONSTANT, 1, 4.0, 100, duration_s=1.0))) == [0.0, 0.25, 0.5, 0.75]
    assert max(schedule(Stage(POISSON, 1, 50.0, 10_000, duration_s=2.0))) < 2.0


def test_a_seed_gives_one_schedule():
    one = list(schedule(Stage(POISSON, 1, 4.0, 50, seed=1)))
    assert one == list(schedule(Stage(POISSON, 1, 4.0, 50, seed=1)))
    assert one != list(schedule(Stage(POISSON, 1, 4.0, 50, seed=2)))
    assert one == sorted(one)
    assert one[0] == 0.0


def test_poisson_arrivals_have_exponential_gaps():
    times = list(schedule(Stage(POISSON, 1, 10.0, 20_000, seed=3)))
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert statistics.fmean(gaps) == pytest.approx(0.1, rel=0.03)
    # The standard deviation of an exponential distribution is its mean, its median is mean * ln 2.
    assert statistics.pstdev(gaps) == pytest.approx(0.1, rel=0.03)
    assert statistics.median(gaps) == pytest.approx(0.0693, rel=0.03)


def test_an_open_loop_sends_on_its_schedule_whatever_is_in_flight():
    loop = feed(Stage(CONSTANT, 64, 2.0, 3))
    assert loop.due(99.0, 0) == 100.0
    assert loop.take(100.0) == (1, 100.0)
    assert loop.due(100.1, 1) == 100.5
    assert loop.take(100.5) == (2, 100.5)
    assert loop.due(103.0, 2) == 101.0  # late: the time that was meant stays
    assert loop.take(103.0) == (3, 101.0)
    assert loop.due(103.0, 3) is None
    assert loop.wanted == 3


def test_an_open_loop_that_is_full_waits_and_keeps_the_intended_time():
    loop = feed(Stage(CONSTANT, 1, 10.0, 2))
    loop.take(100.0)
    assert loop.due(100.5, 1) is None
    assert loop.due(109.0, 0) == 100.1
    assert loop.take(109.0) == (2, 100.1)
