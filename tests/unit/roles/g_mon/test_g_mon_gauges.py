# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Figures as text."""

from __future__ import annotations

import pytest
from g_mon import gauges


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.6, "1 min"),
        (134, "2 min 14 s"),
        (300, "5 min"),
        (3600, "1 h"),
        (3605, "1 h"),
        (11100, "3 h 5 min"),
        (187200, "2 d 4 h"),
        (86400 * 400, "400 d"),
        (-134, "2 min 14 s"),
    ],
)
def test_duration(seconds, text):
    assert gauges.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1.5 * 1024**2, "1.5 MiB"),
     (1024**4, "1024.0 GiB")],
)  # fmt: skip
def test_size(count, text):
    assert gauges.size(count) == text


def test_no_reading_is_said_so():
    assert gauges.percent(None) == gauges.celsius(None) == gauges.watts(None) == "N/A"
    assert gauges.gib(None) == gauges.used_of(None, None) == "N/A"
    assert gauges.used_of(None, 2 * gauges.GIB) == "N/A/2.0 GiB"


def test_readings_of_0():
    assert gauges.percent(0.0) == "0 %"
    assert gauges.celsius(0) == "0 °C"
    assert gauges.celsius(40, ascii_only=True) == "40 C"
    assert gauges.used_of(0, gauges.GIB) == "0.0/1.0 GiB"


@pytest.mark.parametrize(
    ("ratio", "full", "rest"),
    [
        (0, "", "········"),
        (0.5, "████", "····"),
        (0.55, "████▍", "···"),
        (1, "████████", ""),
        (7, "████████", ""),
        (-1, "", "········"),
        (None, "", "        "),
    ],
)
def test_bar(ratio, full, rest):
    assert gauges.gauge(ratio, 8) == (full, rest)


@pytest.mark.parametrize("ratio", [None, 0, 0.01, 0.333, 0.999, 1])
@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("width", [1, 7, 18])
def test_a_bar_has_its_width(ratio, ascii_only, width):
    text = "".join(gauges.gauge(ratio, width, ascii_only))
    assert len(text) == width
    assert not ascii_only or text.isascii()


def test_spark():
    values = [0, 12.4, 12.5, 50, 99, 100, 130, None, 0]
    assert gauges.spark(values, 100) == "▁▁▂▅███ ▁"
    assert gauges.spark(values, 100, ascii_only=True) == "__.=### _"


def test_a_spark_without_a_top_has_its_highest_reading():
    assert gauges.spark([0, 50, 100], None) == "▁▅█"
    assert gauges.spark([0, 0], None) == "▁▁"
    assert gauges.spark([None, None], None) == "  "


def test_history_has_a_column_per_interval():
    points = [(1000 - 300 * n, float(n)) for n in range(4)]
    assert gauges.history(points, 1000, 300, 6) == [None, None, 3, 2, 1, 0]
    assert gauges.history(points, 1000, 300, 2) == [1, 0]


def test_history_shows_gaps_and_missing_readings():
    points = [(1000, 5.0), (700, None), (100, 7.0)]
    assert gauges.history(points, 1000, 300, 4) == [7, None, None, 5]


def test_a_timers_jitter_moves_no_sample():
    points = [(1000 + offset - 300 * n, float(n)) for n, offset in enumerate([0, 140, -140, 100])]
    assert gauges.history(points, 1000, 300, 4) == [3, 2, 1, 0]


def test_several_readings_in_a_column_are_their_mean():
    points = [(1000, 10.0), (990, 20.0), (980, None)]
    assert gauges.history(points, 1000, 300, 2) == [None, 15]


def test_shorten():
    assert gauges.shorten("abcdef", 6) == "abcdef"
    assert gauges.shorten("abcdef", 5) == "abcd…"
    assert gauges.shorten("abcdef", 5, ascii_only=True) == "abcd~"
    assert gauges.plural(1, "row") == "1 row"
    assert gauges.plural(0, "row") == "0 rows"
