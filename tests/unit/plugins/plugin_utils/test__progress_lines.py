# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.plugin_utils._progress_lines import (
    ProgressFeed,
    render_state,
)

MB = 1_000_000


def state(done=0, total=14 * MB, **more):
    return {"item": "qwen3:1.7b", "phase": "pulling", "done": done, "total": total, **more}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            state(6.3 * MB, unit="B", rate=21 * MB, eta_s=3.0),
            "qwen3:1.7b | pulling 45 % | 6.3 of 14.0 MB | 21.0 MB/s | ETA 0:00:03",
        ),
        (
            state(14 * MB, unit="B", rate=21 * MB, eta_s=0.0),
            "qwen3:1.7b | pulling 100 % | 14.0 of 14.0 MB | 21.0 MB/s",
        ),
        (
            state(2, 3, unit="requests", rate=0.5, eta_s=3725, note="first token 51 ms"),
            "qwen3:1.7b | pulling 67 % | 2 of 3 requests | 0.5 requests/s | ETA 1:02:05"
            " | first token 51 ms",
        ),
        (state(0, unit="B"), "qwen3:1.7b | pulling | 0.0 of 14.0 MB"),
        (state(512, None, unit="B"), "qwen3:1.7b | pulling | 512.0 B"),
        ({"phase": "verifying"}, "verifying"),
        ({}, "working"),
    ],
)
def test_render_state(given, line):
    assert render_state(given) == line


@pytest.fixture
def feed():
    return ProgressFeed(lambda given: f"{given['item']} {given['done']}", interval_s=1.0)


def test_a_line_per_step_of_percent(feed):
    lines = [feed.line(state(done, 100), now * 2.0) for now, done in enumerate([1, 5, 11, 19, 20])]
    assert lines == ["qwen3:1.7b 1", None, "qwen3:1.7b 11", None, "qwen3:1.7b 20"]


def test_at_most_one_line_per_interval_and_none_is_lost(feed):
    assert feed.line(state(1, 100), 0.0)
    assert feed.line(state(50, 100), 0.5) is None
    assert feed.line(state(50, 100), 1.0) == "qwen3:1.7b 50"


def test_a_new_item_gets_a_line(feed):
    assert feed.line(state(1, 100), 0.0)
    assert feed.line({**state(1, 100), "item": "phi3"}, 2.0) == "phi3 1"


def test_a_stall_is_told_every_half_minute(feed):
    told = [now for now in range(100) if feed.line(state(5, 100), float(now))]
    assert told == [0, 30, 60, 90]
    assert feed.line(state(5, 100), 120.0) == "qwen3:1.7b 5 | no progress for 0:02:00"


def test_a_note_that_changes_all_the_time_gets_a_line_every_five_seconds(feed):
    told = [now for now in range(20) if feed.line({**state(1, 100), "note": str(now)}, float(now))]
    assert told == [0, 5, 10, 15]
    assert feed.line({**state(11, 100), "note": "x"}, 20.0)
    assert feed.line({**state(20, 100), "note": "y"}, 21.0)  # a step of percent doesn't wait


def test_no_state_no_line(feed):
    assert feed.line(None, 0.0) is None
