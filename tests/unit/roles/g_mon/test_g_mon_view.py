# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What people see: every view but the live one, at 60, 80 and 120 columns."""

from __future__ import annotations

import io
import re

import pytest
from g_mon_host import CARD

pytest.importorskip("rich", reason="the collector's own environment has it")

from g_mon import cli, data, selftest, stats, view
from g_mon_drawing import WIDTHS, look, render
from rich.cells import cell_len

# ---------------------------------------------------------------- status


@pytest.mark.parametrize("width", WIDTHS)
def test_status(host, width):
    host.series()
    lines = render(view.status(look(host), host.now), width)
    text = " ".join("\n".join(lines).split())
    assert lines[0].startswith("g-mon status  llm-02")
    assert lines[0].rstrip().endswith("healthy")
    assert "gpu-telemetry.timer: active (waiting), starts at boot" in text
    assert "none between samples" in text
    assert "success, 1 min ago" in text
    assert "1 min old" in text
    assert "87 % busy, 3.3/15.9 GiB, 40 °C, 122 W" in text


def test_status_of_a_service(host):
    host.units_are("service")
    host.series()
    text = "\n".join(render(view.status(look(host), host.now), 80))
    assert "PID 4711, memory 12.0 MiB" in text
    assert "running for 2 h" in text
    assert "next run" not in text


def test_status_with_everything_wrong(host):
    host.units_are(active=False, enabled=False, Result="exit-code", ExecMainStatus="1")
    host.sample(7200, power="", util="", temp="", used="")
    host.metrics_are(success=0, state="timeout")
    lines = render(view.status(look(host), host.now), 80)
    text = " ".join("\n".join(lines).split())
    assert lines[0].rstrip().endswith("broken")
    assert "exit-code, exit status 1, 1 min ago" in text
    assert "N/A busy, N/A/15.9 GiB, N/A, N/A" in text
    assert "FAIL gpu-telemetry.timer is inactive" in text
    assert "WARN the data are stale" in text


def test_status_without_data(host):
    host.data_dir.rmdir()
    text = " ".join("\n".join(render(view.status(look(host), host.now), 60)).split())
    assert "can't be read" in text


def test_names_in_brackets_are_no_markup(host):
    host.sample(card="RTX [bold]9000[/nonsense]")
    assert "RTX [bold]9000[/nonsense]" in "\n".join(render(view.status(look(host), host.now), 120))


# ---------------------------------------------------------------- data, compact, stats, selftest


@pytest.mark.parametrize("width", WIDTHS)
def test_data(host, capsys, monkeypatch, width):
    host.series(power="")
    monkeypatch.setenv("COLUMNS", str(width))
    assert cli.main(["--settings", str(host.settings_path), "data"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(cell_len(text) <= width for text in lines)
    assert lines[0].startswith("13 columns: timestamp, index, name")
    rows = [text for text in lines if "87 %" in text]
    assert len(rows) == 10
    assert all("3.3/15.9 GiB" in text and text.rstrip().endswith("N/A") for text in rows)
    assert (CARD in rows[0]) is (width >= 100)
    assert f"in all {len(list(host.data_dir.glob('*-*-*-*.csv')))} file" in " ".join(lines)


def test_compact_has_two_lines(host):
    host.series()
    for width in (None, 40, 60, 80):
        lines = view.compact(look(host), width)
        assert len(lines) == 2
        assert width is None or all(cell_len(text) <= width for text in lines)
    first, second = view.compact(look(host), None)
    assert first.startswith("healthy: llm-02 | timer active, enabled | data 1 min old | ")
    assert second == "GPU0 87 % 3.3/15.9 GiB 40 °C 122 W | GPU1 87 % 3.3/15.9 GiB 40 °C 122 W"
    assert view.compact(look(host), None, ascii_=True)[1].isascii()


def test_compact_of_many_cards_sums_up(host):
    host.sample(gpus=8)
    assert view.compact(look(host), 80)[1] == (
        "8 GPUs | mean 87 %, max 87 % | 26.6/127.4 GiB | max 40 °C | 972 W"
    )
    host.sample(age=1, gpus=8, util="", used="", temp="", power="")
    assert view.compact(look(host), 60)[1] == "8 GPUs | mean N/A, max N/A | N/A | max N/A | N/A"


def test_compact_says_what_is_wrong(host):
    host.sample(3600)
    first, _second = view.compact(look(host), None)
    assert first.startswith("warning: llm-02 | ")
    assert " | the data are stale: " in first
    host.units_are(active=False)
    assert " | gpu-telemetry.timer is inactive" in view.compact(look(host), None)[0]


def test_compact_without_data(host):
    assert view.compact(look(host), None)[1] == "no GPU in the data"


@pytest.mark.parametrize("width", WIDTHS)
def test_stats(host, width):
    host.series(newest=1500, power="")
    since = host.now - 6 * 3600
    reading = data.read(host.settings, since)
    answer = stats.figures(reading, "llm-02", since, host.now, 300)
    lines = render(view.stats(answer, host.now), width)
    text = " ".join("\n".join(lines).split())
    assert "last 6 h" in lines[0]
    assert "utilisation 87 % 87 % 87 % 87 %" in text
    assert "memory 3.3 GiB 3.3 GiB 3.3 GiB 3.3 GiB" in text
    assert "power N/A N/A N/A N/A" in text
    assert "12 of 16, one every 5 min (75.0 %)" in text
    assert "25 min from" in text
    assert "still lasting" in text


def test_stats_without_data(host):
    answer = stats.figures(data.Reading(), "llm-02", host.now - 60, host.now, 300)
    text = "\n".join(render(view.stats(answer, host.now), 60))
    assert "WARN  there is no sample since" in text


@pytest.mark.parametrize("width", WIDTHS)
def test_selftest(host, width):
    reason = "a long reason that doesn't fit one line of a narrow window, for it tells a lot"
    steps = [selftest.Step("metrics directory", state, reason) for state in view.STEP_STYLES]
    for step in steps:
        text = " ".join("\n".join(render(view.step(*step), width)).split())
        assert text == f"{step.status} metrics directory {reason}"
    answer = selftest.answer(host.settings, steps)
    assert render(view.steps_end(answer), width) == ["broken: 1 PASS, 1 WARN, 1 FAIL"]


def test_colours_only_where_they_are_wanted(host, monkeypatch):
    host.series()
    answer = look(host)

    def colours(**options):
        file = io.StringIO()
        view.terminal(file=file, width=80, **options).print(view.status(answer, host.now))
        return re.findall(r"\x1b\[[0-9;]*3[0-7]", file.getvalue())

    assert not colours()
    assert colours(force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colours(force_terminal=True, color_system="standard")
