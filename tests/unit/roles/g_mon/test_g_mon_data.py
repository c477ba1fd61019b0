# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What g-mon reads: settings, daily files, events, metrics."""

from __future__ import annotations

import json
import os

import pytest
from g_mon import account, data
from g_mon.settings import GMonError, load_settings
from g_mon_host import COLUMNS, GIB, line, stamp

NOON = 1795176000  # 2026-11-20T12:00:00Z
DAY = 86400


def parsed(**fields):
    columns = data.parse_header((COLUMNS + "\n").encode())
    return data.parse_row((line(NOON, **fields) + "\n").encode(), columns)


def test_the_tests_know_their_date():
    assert stamp(NOON) == "2026-11-20T12:00:00Z"


# ---------------------------------------------------------------- settings


def test_settings(host):
    found = host.settings
    assert found.stable == host.stable
    assert found.events == host.events
    assert found.stale_after_s == 900


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "can't be read"),
        ("{}", "KeyError"),
        ("[1]", "TypeError"),
        ("half {", "JSONDecodeError"),
    ],
)
def test_settings_that_are_none(tmp_path, text, said):
    path = tmp_path / "settings.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(GMonError, match=said) as caught:
        load_settings(path)
    assert "run the role" in str(caught.value)


@pytest.mark.parametrize("interval", [0, -1, float("nan")])
def test_an_interval_that_is_none(host, interval):
    host.save(interval_seconds=interval)
    with pytest.raises(GMonError, match="interval_seconds"):
        load_settings(host.settings_path)


# ---------------------------------------------------------------- rows


def test_a_row():
    row = parsed(gpu=1)
    assert row.time == NOON
    assert (row.index, row.key, row.text("name")) == (1, "GPU-1", "NVIDIA GeForce RTX 5060 Ti")
    assert row.number("power.draw") == 121.54
    assert row.number("fan.speed") is None
    assert row.text("fan.speed") == ""


@pytest.mark.parametrize("said", ["", "N/A", "[N/A]", "[Not Supported]", "nan", "inf", " "])
def test_no_reading_is_none_and_never_0(said):
    row = parsed(power=said, util=said)
    assert row.number("power.draw") is None
    assert row.number("utilization.gpu") is None
    known = data.gpu_json(row)
    assert known["power_draw_watts"] is None
    assert known["utilization_gpu_ratio"] is None


def test_a_reading_of_0_is_one():
    assert data.gpu_json(parsed(power="0.00", util=0))["power_draw_watts"] == 0
    assert parsed(util=0).number("utilization.gpu") == 0


def test_units_of_a_row():
    known = data.gpu_json(parsed(util=87, used=1024, total=2048))
    assert known["utilization_gpu_ratio"] == 0.87
    assert known["memory_used_bytes"] == GIB
    assert isinstance(known["memory_used_bytes"], int)
    assert known["memory_total_bytes"] == 2 * GIB
    assert known["slowdowns"] == []


@pytest.mark.parametrize(
    ("reasons", "slowdowns"),
    [
        ("0x0000000000000005", []),
        ("0x0000000000000048", ["hw_slowdown", "hw_thermal_slowdown"]),
        ("", None),
        ("[N/A]", None),
    ],
)
def test_what_holds_the_clocks_down(reasons, slowdowns):
    assert parsed(reasons=reasons).slowdowns == slowdowns


def test_a_row_as_json_has_the_names_of_the_file():
    known = data.row_json(parsed(power="", util="[N/A]", temp=40))
    assert list(known) == COLUMNS.split(",")
    assert known["timestamp"] == "2026-11-20T12:00:00Z"
    assert (known["index"], known["temperature.gpu"]) == (0, 40)
    assert (known["power.draw"], known["utilization.gpu"]) == (None, None)


def test_a_name_with_a_comma_and_one_that_would_steer_the_terminal():
    columns = data.parse_header((COLUMNS + "\n").encode())
    row = data.parse_row((line(NOON, card='"RTX, \x1b[2Jbig"') + "\n").encode(), columns)
    assert row.text("name") == "RTX, ?[2Jbig"
    assert data.raw_line(row).split(",", 2)[2].startswith('"RTX, ')


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-20T12:00:00Z,0,RTX",
        line("2026-11-20 12:00:00"),
        line("2026-13-20T12:00:00Z"),
        line("\0\0\0"),
        line(NOON) + ",more",
    ],
)
def test_lines_that_are_no_rows(text):
    columns = data.parse_header((COLUMNS + "\n").encode())
    assert data.parse_row(text.encode(), columns) is None


@pytest.mark.parametrize(
    "header", ["", "time,gpu", COLUMNS.replace("uuid", "serial"), COLUMNS + ",index"]
)
def test_headers_of_somebody_else(header):
    assert data.parse_header(header.encode()) is None


# ---------------------------------------------------------------- files


def test_no_data(host):
    found = data.tail(host.settings)
    assert (found.time, found.rows, found.path, found.missing) == (None, [], None, [])
    assert data.read(host.settings, NOON).rows == []
    assert data.rows_of_day(host.settings, NOON) == 0
    assert account.last_events(host.settings, 5) == []


def test_no_data_directory(host):
    host.data_dir.rmdir()
    with pytest.raises(GMonError, match="no sample was ever taken"):
        data.tail(host.settings)


def test_a_data_directory_that_is_none(host):
    host.data_dir.rmdir()
    host.data_dir.write_text("")
    with pytest.raises(GMonError, match="can't be read"):
        data.read(host.settings, 0)


@pytest.mark.parametrize("end", ["", line(NOON + 300)[:30], line(NOON + 300)])
def test_a_half_written_last_line_is_no_row(host, end):
    host.write(NOON, line(NOON, 0), line(NOON, 1))
    with host.day(NOON).open("a") as file:
        file.write(end)
    found = data.tail(host.settings)
    assert found.time == NOON
    assert [row.index for row in found.newest] == [0, 1]
    assert found.cut == end
    reading = data.read(host.settings, NOON)
    assert (len(reading.rows), reading.broken, reading.cut) == (2, 0, end)
    assert data.rows_of_day(host.settings, NOON) == 2


@pytest.mark.parametrize("text", ["", COLUMNS[:20], COLUMNS])
def test_a_day_that_has_no_whole_header_yet_leaves_yesterdays_data(host, text):
    host.write(NOON - DAY, line(NOON - DAY))
    host.day(NOON).write_text(text)
    host.stable.unlink()
    host.stable.symlink_to(host.day(NOON).name)
    found = data.tail(host.settings)
    assert found.time == NOON - DAY
    assert found.path == host.day(NOON - DAY)
    assert not found.foreign
    assert [row.time for row in data.read(host.settings, 0).rows] == [NOON - DAY]


def test_broken_lines_are_counted_and_left_out(host):
    host.write(NOON, line(NOON), "\0" * 100, "half,a,line", line(NOON + 300))
    reading = data.read(host.settings, NOON - 1)
    assert [row.time for row in reading.rows] == [NOON, NOON + 300]
    assert reading.broken == 2
    assert data.tail(host.settings).time == NOON + 300


def test_the_tail_goes_back_over_midnight(host):
    host.write(NOON - DAY, line(NOON - DAY, 0), line(NOON - DAY, 1))
    host.write(NOON, line(NOON, 0))
    found = data.tail(host.settings, 3)
    assert [(row.time, row.index) for row in found.rows] == [
        (NOON - DAY, 0),
        (NOON - DAY, 1),
        (NOON, 0),
    ]
    assert found.path == host.day(NOON)
    assert [row.time for row in data.tail(host.settings, 2).rows] == [NOON - DAY, NOON]


def test_the_tail_mixes_no_columns(host):
    shorter = COLUMNS.rsplit(",", 1)[0]
    host.write(NOON - DAY, line(NOON - DAY).rsplit(",", 1)[0], header=shorter)
    host.write(NOON, line(NOON))
    assert [row.time for row in data.tail(host.settings, 9).rows] == [NOON]
    assert [row.time for row in data.read(host.settings, 0).rows] == [NOON - DAY, NOON]


def test_files_of_somebody_else(host):
    host.write(NOON, line(NOON))
    (host.data_dir / "nvidia-smi-ping-2026-11-19.csv").write_text("time,gpu\n1,2\n")
    aside = host.data_dir / "nvidia-smi-ping-2026-11-20.until-20261120T100000Z.csv"
    aside.write_text("time,gpu\n1,2\n")
    os.utime(aside, (1, 1))
    (host.data_dir / "nvidia-smi-ping.lock").write_text("")
    (host.data_dir / "nvidia-smi-ping.until-20260101T000000Z.csv").write_text("0 %, 1 MiB\n")
    found = data.tail(host.settings)
    assert [row.time for row in found.rows] == [NOON]
    assert not found.foreign  # what isn't written to any more is no news
    assert sorted(data.read(host.settings, 0).foreign) == [
        "nvidia-smi-ping-2026-11-19.csv",
        "nvidia-smi-ping-2026-11-20.until-20261120T100000Z.csv",
    ]


def test_a_file_of_somebody_else_under_the_stable_name(host):
    host.write(NOON - DAY, line(NOON - DAY))
    host.stable.unlink()
    host.stable.write_text("2025/08/14 10:00:00.000, 0 %, 1 MiB\n")
    found = data.tail(host.settings)
    assert found.foreign
    assert [row.time for row in found.rows] == [NOON - DAY]


def test_a_stable_name_that_is_a_file_itself(host):
    host.stable.write_text(f"{COLUMNS}\n{line(NOON)}\n")
    assert data.tail(host.settings).time == NOON
    assert [row.time for row in data.read(host.settings, NOON - DAY).rows] == [NOON]
    assert [path for path, _size in data.sizes(host.settings)] == [host.stable]


def test_a_stable_name_that_leads_nowhere(host):
    host.write(NOON, line(NOON))
    host.stable.unlink()
    host.stable.symlink_to("gone.csv")
    assert data.tail(host.settings).time == NOON


def test_a_clock_that_was_set_back(host):
    host.write(NOON + DAY, line(NOON + DAY))
    host.write(NOON, line(NOON))  # written later: the stable name leads here
    assert data.tail(host.settings).time == NOON


def test_a_card_that_fell_out_of_the_newest_sample(host):
    host.write(NOON, line(NOON, 0), line(NOON, 1))
    host.write(NOON, line(NOON + 300, 0))
    found = data.tail(host.settings)
    assert [row.index for row in found.newest] == [0]
    assert [(row.index, row.time) for row in found.missing] == [(1, NOON)]


def test_large_files_are_read_from_where_the_period_begins(host, monkeypatch):
    monkeypatch.setattr(data, "BLOCK", 2000)
    times = range(NOON - 3000, NOON, 10)
    host.write(NOON, *(line(time, gpu) for time in times for gpu in range(2)))
    whole = data.read(host.settings, 0).rows
    assert len(whole) == 600
    for since in (NOON - 3000, NOON - 2995, NOON - 1500, NOON - 10, NOON):
        found = data.read(host.settings, since)
        assert found.rows == [row for row in whole if row.time >= since], since
        earlier = [row.time for row in whole if row.time < since]
        assert found.before == (earlier[-1] if earlier else None), since
    assert data.tail(host.settings, 5).rows == whole[-5:]
    assert data.tail(host.settings, 600).rows == whole
    assert data.rows_of_day(host.settings, NOON) == 600


def test_the_sample_before_the_period_may_be_days_older(host):
    host.write(NOON - 3 * DAY, line(NOON - 3 * DAY))
    host.write(NOON, line(NOON))
    assert data.read(host.settings, NOON - 60).before == NOON - 3 * DAY
    assert data.read(host.settings, NOON - 5 * DAY).before is None


def test_sizes(host):
    first = host.write(NOON - DAY, line(NOON - DAY))
    second = host.write(NOON, line(NOON), line(NOON, 1))
    assert dict(data.sizes(host.settings)) == {
        first: len(COLUMNS) + 1 + len(line(NOON - DAY)) + 1,
        second: len(COLUMNS) + 1 + 2 * (len(line(NOON)) + 1),
    }


# ---------------------------------------------------------------- events and metrics


def test_last_events(host):
    host.events.write_text("".join(f"2026-11-20T12:00:0{n}Z start {n}\x1b\n" for n in range(9)))
    assert account.last_events(host.settings, 2) == [
        "2026-11-20T12:00:07Z start 7?",
        "2026-11-20T12:00:08Z start 8?",
    ]


@pytest.mark.parametrize("one", ["1", "1.0"])
def test_metrics(host, one):
    host.metrics_are(success=one, age=7, mode=0o640)
    found = account.metrics(host.settings)
    assert (found.success, found.state, found.last_success) == (True, "ok", host.now - 7)
    assert found.mode == 0o640


def test_metrics_that_say_nothing(host):
    host.textfile.write_text("nvidia_smi_temperature_gpu 40\nhx_infra_gpu_collect_success x\n")
    found = account.metrics(host.settings)
    assert (found.success, found.state, found.last_success) == (None, "", None)
    host.textfile.unlink()
    assert account.metrics(host.settings) is None


def test_everything_fits_json(host):
    host.write(NOON, line(NOON))
    row = data.tail(host.settings).rows[0]
    assert json.loads(json.dumps([data.row_json(row), data.gpu_json(row)]))
