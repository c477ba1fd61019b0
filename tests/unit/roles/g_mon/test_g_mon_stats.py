# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Statistics with figures that are known beforehand."""

from __future__ import annotations

import json

import pytest
from g_mon import data, stats
from g_mon.settings import GMonError
from g_mon_host import GIB, line

NOON = 1795176000  # 2026-11-20T12:00:00Z
HOUR = 3600


def figures(host, since=NOON - HOUR, now=NOON, interval=300):
    reading = data.read(host.settings, since)
    answer = stats.figures(reading, "llm-02", since, now, interval)
    assert json.loads(json.dumps(answer)) == answer
    return answer


def write(host, times, **fields):
    for number, time in enumerate(times):
        given = {name: value[number] for name, value in fields.items()}
        host.write(time, line(time, **given))


def test_known_figures(host):
    times = [NOON - HOUR + 300 * n for n in range(12)]
    write(host, times, util=[0, 4, 5, 10, 20, 30, 40, 50, 60, 70, 80, 100], used=[1024] * 12,
          temp=range(40, 52), power=[f"{watts}.5" for watts in range(100, 112)])  # fmt: skip
    answer = figures(host)
    (gpu,) = answer["gpus"]
    assert gpu["samples"] == 12
    assert gpu["missing_samples"] == 0
    assert gpu["idle_ratio"] == round(2 / 12, 4)  # 0 and 4; 5 is no longer idle
    # p95 of 12 values lies at rank 10.45: 80 + 0.45 * 20.
    assert gpu["utilization_gpu_ratio"] == {
        "min": 0, "mean": round(469 / 1200, 4), "max": 1, "p95": 0.89, "samples": 12,
    }  # fmt: skip
    assert gpu["memory_used_bytes"]["mean"] == gpu["memory_used_bytes"]["p95"] == GIB
    assert gpu["temperature_c"] == {"min": 40, "mean": 45.5, "max": 51, "p95": 50.45, "samples": 12}
    assert gpu["power_draw_watts"]["mean"] == 106
    assert gpu["memory_total_bytes"] == 16311 * 1024 * 1024
    assert (answer["ok"], answer["exit"]) == (True, 0)
    assert (answer["samples"], answer["missed_samples"], answer["complete_ratio"]) == (12, 0, 1)
    assert answer["gaps"] == []
    assert answer["longest_stale_seconds"] == 300


def test_a_reading_that_a_card_does_not_have(host):
    write(host, [NOON - 600, NOON - 300], power=["", "[N/A]"], util=["", "50"])
    (gpu,) = figures(host, NOON - 700)["gpus"]
    assert gpu["power_draw_watts"] is None
    assert gpu["utilization_gpu_ratio"] == {"min": 0.5, "mean": 0.5, "max": 0.5, "p95": 0.5,
                                            "samples": 1}  # fmt: skip
    assert gpu["idle_ratio"] == 0
    write(host, [NOON - 300, NOON - 100], util=["", ""], gpu=[1, 1])
    assert figures(host, NOON - 700)["gpus"][1]["idle_ratio"] is None


def test_no_sample_in_the_period(host):
    answer = figures(host)
    assert (answer["ok"], answer["exit"], answer["gpus"]) == (False, 1, [])
    assert answer["warnings"] == ["there is no sample since 2026-11-20T11:00:00Z"]
    assert answer["longest_stale_seconds"] is None
    assert answer["complete_ratio"] is None


def test_a_gap_in_the_middle(host):
    minutes = [0, 5, 10, 30, 35, 40, 45, 50, 55]
    write(host, [NOON - HOUR + 60 * minute for minute in minutes])
    answer = figures(host)
    assert answer["gaps"] == [
        {
            "from": "2026-11-20T11:10:00Z",
            "to": "2026-11-20T11:30:00Z",
            "seconds": 1200,
            "missed_samples": 3,
            "lasts": False,
        }
    ]
    assert (answer["gap_count"], answer["missed_samples"]) == (1, 3)
    assert answer["complete_ratio"] == 0.75
    assert answer["longest_stale_seconds"] == 1200


def test_a_gap_that_lasts(host):
    write(host, [NOON - HOUR, NOON - HOUR + 300])
    (gap,) = figures(host)["gaps"]
    assert (gap["from"], gap["to"], gap["lasts"]) == (
        "2026-11-20T11:05:00Z", "2026-11-20T12:00:00Z", True,
    )  # fmt: skip
    assert gap["missed_samples"] == 10


def test_a_gap_at_the_begin_counts_from_the_periods_begin(host):
    write(host, [NOON - 5 * HOUR, NOON - 1200, NOON - 900, NOON - 600, NOON - 300])
    answer = figures(host)
    (gap,) = answer["gaps"]
    assert gap["to"] == "2026-11-20T11:40:00Z"
    assert gap["missed_samples"] == 8  # 11:00 to 11:35
    assert answer["covered_from"] == "2026-11-20T11:00:00Z"


def test_before_the_first_sample_ever_nothing_is_missing(host):
    write(host, [NOON - 600, NOON - 300])
    answer = figures(host)
    assert (answer["gap_count"], answer["complete_ratio"]) == (0, 1)
    assert answer["covered_from"] == "2026-11-20T11:50:00Z"


def test_jitter_is_no_gap(host):
    write(host, [NOON - 900 + offset for offset in (0, 310, 590, 899)])
    assert figures(host, NOON - 900)["gap_count"] == 0


def test_a_gap_of_one_sample(host):
    write(host, [NOON - 900, NOON - 300])
    assert figures(host, NOON - 900)["missed_samples"] == 1


def test_the_longest_gaps_are_listed_and_all_are_counted(host):
    times, at = [], NOON - 5 * HOUR
    for missed in range(1, 8):
        times += [at, at + 300]
        at += 300 * (missed + 2)
    write(host, times)
    answer = figures(host, NOON - 5 * HOUR, at - 300 * 8)
    assert answer["gap_count"] == 6
    assert [gap["missed_samples"] for gap in answer["gaps"]] == [6, 5, 4, 3, 2]
    assert answer["missed_samples"] == 21


def test_a_lost_card_is_missing_in_samples(host):
    for number in range(4):
        time = NOON - 1200 + 300 * number
        host.write(time, *(line(time, gpu) for gpu in range(2 if number < 1 else 1)))
    first, second = figures(host)["gpus"]
    assert (first["index"], first["missing_samples"]) == (0, 0)
    assert (second["index"], second["missing_samples"], second["samples"]) == (1, 3, 1)


def test_a_clock_that_was_ahead(host):
    write(host, [NOON - 300, NOON + HOUR])
    answer = figures(host, NOON - 600)
    assert answer["samples"] == 1
    assert answer["warnings"] == ["1 row with a time in the future: left out"]
    assert answer["exit"] == 0


def test_lines_that_could_not_be_read_are_told(host):
    host.write(NOON - 300, line(NOON - 300), "rubbish", "more,rubbish")
    answer = figures(host)
    assert answer["warnings"] == ["2 lines of these days can't be read: left out"]
    assert answer["samples"] == 1


@pytest.mark.parametrize(
    ("values", "percent", "wanted"),
    [([7], 95, 7), ([1, 2], 50, 1.5), (list(range(101)), 95, 95), ([1, 2, 3, 4], 95, 3.85),
     ([1, 2], 0, 1), ([1, 2], 100, 2)],
)  # fmt: skip
def test_percentile(values, percent, wanted):
    assert stats.percentile(values, percent) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("90s", NOON - 90),
        ("90m", NOON - 5400),
        ("90 min", NOON - 5400),
        ("24h", NOON - 86400),
        ("1.5d", NOON - 129600),
        ("2w", NOON - 14 * 86400),
        ("2026-11-20", NOON - 12 * HOUR),
        ("2026-11-20T11:00", NOON - HOUR),
        ("2026-11-20T11:00:00Z", NOON - HOUR),
        ("2026-11-20T12:00+02:00", NOON - 2 * HOUR),
    ],
)
def test_since(text, since):
    assert stats.parse_since(text, NOON) == since


@pytest.mark.parametrize("text", ["", "24", "h", "-1h", "yesterday", "2026-11-21", "0s", "9999w"])
def test_since_that_is_none(text):
    with pytest.raises(GMonError, match="--since"):
        stats.parse_since(text, NOON)
