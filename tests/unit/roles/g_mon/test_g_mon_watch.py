# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The live view: frames at any size, readings of the driver, the command on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
from g_mon_host import CARD, PROGRAM, Host, line

pytest.importorskip("rich", reason="the collector's own environment has it")

from g_mon import cli, data, gauges, selftest, view, watch
from g_mon_drawing import WIDTHS, draw, render

# ---------------------------------------------------------------- a frame of the live view


@pytest.mark.parametrize("width", WIDTHS)
def test_a_frame(host, width):
    host.series(count=20)
    lines = draw(host, width)
    assert lines[0].startswith("g-mon llm-02")
    assert lines[0].endswith("data 1 min old")
    assert set(lines[1]) == {"─"}
    titles = [text for text in lines if text.startswith("GPU ")]
    assert [text.split()[1] for text in titles] == ["0", "1"]
    assert all(CARD in text for text in titles)
    for label, value in (
        ("util", "87 %"), ("memory", "3.3/15.9 GiB"), ("temp", "40 °C"), ("power", "122/180 W"),
    ):  # fmt: skip
        rows = [text for text in lines if text.strip().startswith(label)]
        assert len(rows) == 2
        assert all(value in text for text in rows)
    count = watch.history_columns(width)
    sparks = [text[-count:] for text in lines if text.strip().startswith("util")]
    assert sparks == [("▇" * 20).rjust(count)[-count:]] * 2
    assert lines[-1].startswith("history ")


def test_a_frame_shows_what_is_missing(host):
    host.sample(660)
    host.sample(60, power="", util="", temp="")
    lines = draw(host)
    util = next(text for text in lines if text.strip().startswith("util"))
    assert "N/A" in util
    assert "·" not in util  # the bar of 0 has dots
    assert util.rstrip().endswith("▇")
    assert "N/A/180 W" in "\n".join(lines)
    host.sample(0, util=0, power=0)
    lines = draw(host)
    util = next(text for text in lines if text.strip().startswith("util"))
    assert " 0 %  ··················   " in util
    assert util.endswith("▁")


def test_a_card_without_a_power_limit_in_the_data(host):
    host.sample(limit="")
    power = next(text for text in draw(host) if text.strip().startswith("power"))
    assert " 122 W " in power


def test_silence_is_seen_in_the_history(host):
    host.series(count=8, newest=1500)
    lines = draw(host)
    assert lines[0].endswith("data 25 min old")
    assert "! the data are stale: g-mon status says more" in lines
    util = next(text for text in lines if text.strip().startswith("util"))
    assert util.rstrip().endswith("▇" * 8)
    assert len(util.rstrip()) == 80 - 4


def test_a_card_that_fell_out_has_no_present_readings(host):
    host.sample(360)
    host.sample(60, gpus=1)
    lines = draw(host)
    at = next(at for at, text in enumerate(lines) if text.startswith("GPU 1"))
    assert "not in the newest sample" in lines[at]
    assert all("N/A" in text for text in lines[at + 1 : at + 5])
    assert lines[at + 1].rstrip().endswith("▇")


def test_a_card_that_was_lost_before_the_history_is_named(host):
    host.series(count=100, gpus=1)
    host.cards_are(True, False)
    lines = draw(host)
    assert lines[2].startswith("! GPU 1 (GPU-1) isn't in the newest sample")
    host.sample(0, gpus=2)
    host.sample(-1, gpus=1)  # in the history it has a line of its own
    assert not any(text.startswith("!") for text in draw(host))


def test_slowdowns_are_named(host):
    host.sample(reasons="0x0000000000000048")
    assert "hw slowdown, hw thermal slowdown" in "\n".join(draw(host))


def test_a_clock_that_was_set_back(host):
    host.sample(-3600)
    assert "in the future" in draw(host)[0]


def test_a_frame_without_data(host):
    lines = draw(host)
    assert lines[0].endswith("data N/A")
    assert f"! there are no samples in {host.data_dir}"[:80].rstrip("…")[:60] in "\n".join(lines)
    host.data_dir.rmdir()
    assert "can't be read" in "\n".join(draw(host))


@pytest.mark.parametrize("gpus", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("height", [8, 12, 24, 50])
@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_frame_fits_its_window(host, gpus, height, width):
    host.series(count=3, gpus=gpus)
    lines = draw(host, width, height)
    assert len(lines) <= height
    shown = {int(found[1]) for found in re.finditer(r"^(?:GPU )?(\d+) ", "\n".join(lines), re.M)}
    hidden = re.search(r"^and (\d+) more", "\n".join(lines), re.M)
    assert len(shown) + (int(hidden[1]) if hidden else 0) == gpus


def test_a_frame_of_many_cards_has_a_line_for_each(host):
    host.series(count=3, gpus=8)
    lines = draw(host, 80, 24)
    assert lines[2].split() == ["GPU", "util", "memory", "temp", "power", "util"]
    rows = [text for text in lines if re.match(r"\d", text)]
    assert len(rows) == 8
    assert all("87 %" in text and "3.3/15.9 GiB" in text and "▇▇▇" in text for text in rows)


def test_terminals_that_know_ascii_only(host):
    host.series(count=3, gpus=3)
    for height in (None, 12):
        assert "\n".join(draw(host, 60, height, ascii_=True)).isascii()
    console = view.terminal(file=io.TextIOWrapper(io.BytesIO(), encoding="iso-8859-1"))
    assert view.ascii_only(console)
    assert not view.ascii_only(view.terminal(file=io.TextIOWrapper(io.BytesIO(), encoding="utf-8")))


# ---------------------------------------------------------------- live readings


READING = {
    "index": 0, "state": "ok", "name": CARD, "uuid": "GPU-0", "temperature_c": 40,
    "utilization_gpu_ratio": 0.87, "memory_used_bytes": 3 * gauges.GIB,
    "memory_total_bytes": 16 * gauges.GIB, "power_draw_watts": 0.0, "power_limit_watts": 180.0,
    "clocks_event_reasons": ["gpu_idle", "hw_slowdown"],
}  # fmt: skip


def test_a_reading_of_the_driver_as_a_row(host):
    row = watch.live_row(READING, host.now)
    known = data.gpu_json(row)
    assert known["utilization_gpu_ratio"] == 0.87
    assert known["memory_used_bytes"] == 3 * gauges.GIB
    assert known["power_draw_watts"] == 0
    assert known["slowdowns"] == ["hw_slowdown"]
    bare = watch.live_row({"index": 1, "uuid": "GPU-1"}, host.now)
    known = data.gpu_json(bare)
    assert (known["index"], known["temperature_c"], known["slowdowns"]) == (1, None, None)


def test_live(host):
    host.reader_prints({"gpu": READING}, {"gpu": {"index": 1, "state": "lost"}}, {"done": True})
    source = watch.Driver(selftest.Bench(host.settings), 2.0)
    for number in range(5):
        found = source.scene(host.now + 2 * number, 3)
    assert [row.time - host.now for row in found.rows] == [0, 2, 4, 6, 8]
    assert len(source.scene(host.now + 20, 3).rows) == 1
    assert found.problems == ["GPU 1 is lost"]
    lines = render(watch.frame(found, 80), 80)
    assert "read from the driver now" in lines[-1]
    assert "87 %" in "\n".join(lines)


def test_live_readings_that_stop_grow_old(host):
    host.reader_prints({"gpu": READING}, {"done": True})
    source = watch.Driver(selftest.Bench(host.settings), 2.0)
    source.scene(host.now, 30)
    host.reader_prints({"error": {"state": "version_mismatch", "message": "mismatch"}})
    found = source.scene(host.now + 20, 30)
    assert found.problems == ["the GPUs can't be read: version_mismatch: mismatch"]
    assert found.age == 20
    assert render(watch.frame(found, 80), 80)[0].endswith("data 20 s old")


# ---------------------------------------------------------------- the command itself


def run_watch(host, *words, **options):
    argv = [sys.executable, "-B", "-c", PROGRAM, "--settings", str(host.settings_path), "watch"]
    return subprocess.Popen([*argv, *words], **options)


@pytest.mark.parametrize("forced", [False, True])
def test_watch_without_a_terminal_prints_frames(host, capsys, monkeypatch, forced):
    host.series()
    if forced:  # colours are wanted, and still there is no screen
        monkeypatch.setenv("FORCE_COLOR", "1")
    given = ["--settings", str(host.settings_path), "watch", "--count", "3", "--interval", "0.2"]
    kept = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    try:
        assert cli.main(given) == 0
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGHUP), kept):
            signal.signal(number, handler)
    out = capsys.readouterr().out
    assert out.count("g-mon llm-02") == 3
    assert ("\x1b" in out) is forced
    assert "\x1b[?1049h" not in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_ends_cleanly(host, number):
    host.series()
    process = run_watch(
        host, "--interval", "30", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for text in process.stdout:
        if text.startswith("history"):
            break
    process.send_signal(number)
    _out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")


class Window:
    """A terminal window of a given size with a program in it."""

    def __init__(self, width, height):
        self.ours, self.theirs = pty.openpty()
        self.size(width, height)
        self.seen = ""

    def size(self, width, height):
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def until(self, wanted, seconds=20):
        """Read until a text is seen; everything that was read is forgotten."""
        end = time.monotonic() + seconds
        while not re.search(wanted, self.seen):
            assert time.monotonic() < end, f"no {wanted!r} in {self.seen[-3000:]!r}"
            if select.select([self.ours], [], [], 0.2)[0]:
                with contextlib.suppress(OSError):
                    self.seen += os.read(self.ours, 65536).decode("utf-8", "replace")
        found, self.seen = self.seen, ""
        return found


def test_watch_on_a_terminal(host):
    host.series(count=30)
    window = Window(80, 24)
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), window.theirs)
    environment = {**os.environ, "TERM": "xterm-256color"}
    process = run_watch(
        host, "--interval", "30", env=environment, start_new_session=True, **streams
    )
    try:
        first = window.until("a column is")
        assert "\x1b[?1049h" in first  # a screen of its own
        assert "─" * 80 in first
        window.size(60, 10)
        second = window.until("a column is")
        assert "─" * 60 in second
        assert "─" * 61 not in second
        process.send_signal(signal.SIGINT)
        last = window.until(re.escape("\x1b[?1049l"))  # the screen of before comes back
        assert "\x1b[?25h" in last + window.seen or window.until(re.escape("\x1b[?25h"))
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(window.ours)
        os.close(window.theirs)


def test_a_dumb_terminal_gets_plain_frames(host):
    host.series()
    window = Window(80, 24)
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), window.theirs)
    process = run_watch(host, "--count", "1", env={**os.environ, "TERM": "dumb"}, **streams)
    assert "\x1b" not in window.until("a column is")
    assert process.wait(timeout=20) == 0
    os.close(window.ours)
    os.close(window.theirs)


def test_a_reader_of_watch_that_goes_away_ends_it(host):
    host.series()
    process = run_watch(host, "--interval", "0.2", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=20) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_host_with_a_short_interval(tmp_path, monkeypatch):
    found = Host(tmp_path, interval=10)
    found.put_on_path(monkeypatch)
    found.units_are("service")
    now = found.now
    found.write(now, *(line(now - 10 * number) for number in reversed(range(40))))
    lines = draw(found)
    assert "service active" in lines[0]
    assert lines[-1] == "history 5 min 30 s, a column is 10 s"


def test_a_column_of_less_than_a_second(host):
    """As with --live and an --interval under a second."""
    scene = watch.Scene("llm-02", "", host.now, 0.5)
    last = render(watch.frame(scene, 80, None, False), 80)[-1]
    assert last == "history 16 s, a column is 0.5 s"
