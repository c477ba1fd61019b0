# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands as operators type them: exit status, JSON, messages."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from g_mon import cli, data
from g_mon_host import COLUMNS, FILES, PROGRAM, SERVICE, TIMER, line, stamp, systemd_stamp

JSON_COMMANDS = ["status", "data", "stats", "compact", "selftest"]
COMMANDS = [*cli.VERBS, "forget", "logs", "watch", *JSON_COMMANDS]
WORDS = {"forget": ("GPU-1",)}  # that a command can't do without


@pytest.fixture
def g_mon(host, capsys):
    """Return a function that runs a command and returns exit status, output and error output."""

    def run(*words):
        status = cli.main(["--settings", str(host.settings_path), *words])
        return (status, *capsys.readouterr())

    return run


def start(host, *words, **options):
    """Start a command as a process of its own."""
    argv = [sys.executable, "-B", "-c", PROGRAM, "--settings", str(host.settings_path), *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def answer(told):
    status, out, err = told
    assert err == ""
    found = json.loads(out)
    assert found["exit"] == status
    assert set(found) >= {"ok", "failures", "warnings"}
    return found


# ---------------------------------------------------------------- status


@pytest.mark.parametrize("mode", ["timer", "service"])
def test_status_of_a_healthy_host(host, g_mon, mode):
    host.units_are(mode)
    host.series()
    found = answer(g_mon("status", "--json"))
    assert (found["ok"], found["exit"], found["failures"], found["warnings"]) == (True, 0, [], [])
    assert found["host"] == "llm-02"
    assert set(found["unit"]) == {
        "name", "mode", "load_state", "state", "substate", "enabled", "enabled_state", "pid",
        "memory_bytes", "last_result", "last_exit_status", "last_end", "active_since", "next_start",
    }  # fmt: skip
    assert found["unit"]["mode"] == mode
    kept = found["data"]
    assert set(kept) == {
        "dir", "file", "newest", "age_seconds", "interval_seconds", "stale", "rows_today",
        "file_bytes", "files", "total_bytes",
    }  # fmt: skip
    assert kept["newest"] == stamp(host.now - 60)
    assert 60 <= kept["age_seconds"] < 120
    assert kept["stale"] is False
    assert kept["file_bytes"] == host.stable.stat().st_size
    assert [gpu["index"] for gpu in found["gpus"]] == [0, 1]
    assert found["gpus"][0]["power_draw_watts"] == 121.54


@pytest.mark.parametrize(
    ("age", "status"), [(60, 0), (850, 0), (905, 1), (86400 * 3, 1), (-1, 0), (-3600, 1)]
)
def test_exit_status_by_the_age_of_the_data(host, g_mon, age, status):
    host.sample(age)
    found = answer(g_mon("status", "--json"))
    assert found["exit"] == status
    assert found["data"]["stale"] is (age > 900)
    assert len(found["warnings"]) == status
    if age > 900:
        assert "stale" in found["warnings"][0]
    elif status:
        assert "in the future" in found["warnings"][0]


@pytest.mark.parametrize("mode", ["timer", "service"])
@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        ({"active": False}, 2, "is inactive, so no samples are taken: sudo g-mon start"),
        ({"enabled": False}, 1, "doesn't start at boot: sudo g-mon enable"),
        ({"Result": "exit-code"}, 2, "the service ended with exit-code"),
    ],
)
def test_exit_status_by_the_units(host, g_mon, mode, given, status, said):
    host.units_are(mode, **given)
    host.series()
    found = answer(g_mon("status", "--json"))
    assert found["exit"] == status
    assert said in (found["failures"] + found["warnings"])[0]


def test_status_where_nothing_is_installed(host, g_mon):
    host.units_are("none")
    host.series()
    found = answer(g_mon("status", "--json"))
    assert found["exit"] == 2
    assert found["failures"] == [f"{SERVICE} isn't installed: run the role telemetry"]


def test_status_of_a_masked_timer(host, g_mon):
    host.series()
    state = {"LoadState": "masked", "ActiveState": "inactive", "SubState": "dead"}
    host.systemd(units={SERVICE: {"LoadState": "loaded", "Type": "oneshot"}, TIMER: state})
    found = answer(g_mon("status", "--json"))
    assert found["exit"] == 2
    assert f"{TIMER} is masked, wanted: loaded" in found["failures"][0]


def test_a_failing_collection_is_seen_in_the_metrics_too(host, g_mon):
    host.units_are("service")
    host.series()
    host.metrics_are(success=0, state="gpu_lost")
    host.events.write_text("2026-11-20T12:00:00Z error gpu_lost: GPU 1 is lost\n2026 stop ended\n")
    found = answer(g_mon("status", "--json"))
    assert found["exit"] == 2
    (failure,) = found["failures"]
    assert "the metrics say gpu_lost" in failure
    assert "GPU 1 is lost" in failure


def test_a_collection_that_was_stopped_has_not_failed(host, g_mon):
    host.units_are("service", active=False)
    host.series()
    host.metrics_are(success=0, state="stopped")
    found = answer(g_mon("status", "--json"))
    assert found["failures"] == [
        f"{SERVICE} is inactive, so no samples are taken: sudo g-mon start"
    ]


@pytest.mark.parametrize(("since", "status"), [(10, 1), (7200, 2)])
def test_no_data_is_broken_unless_it_was_started_a_moment_ago(host, g_mon, since, status):
    timer = json.loads(host.state.read_text())["units"]
    timer[TIMER]["ActiveEnterTimestamp"] = systemd_stamp(host.now - since)
    host.systemd(units=timer)
    found = answer(g_mon("status", "--json"))
    assert found["exit"] == status
    assert found["data"]["newest"] is None
    assert found["gpus"] == []
    assert "there are no samples" in (found["failures"] + found["warnings"])[0]


def test_a_card_that_fell_out_is_a_warning(host, g_mon):
    host.sample(360, gpus=2)
    host.sample(60, gpus=1)
    found = answer(g_mon("status", "--json"))
    assert found["exit"] == 1
    assert "GPU 1 (GPU-1) isn't in the newest sample" in found["warnings"][0]


@pytest.mark.parametrize("command", ["status", "compact"])
def test_a_card_that_was_lost_long_ago_is_a_warning_still(host, g_mon, command):
    host.series(count=data.RECENT_ROWS + 10, gpus=1)
    host.cards_are(True, False)
    found = answer(g_mon(command, "--json"))
    assert found["exit"] == 1
    seen = stamp(host.now - 7 * 86400.5).replace("T", " ").replace("Z", " UTC")
    assert found["warnings"] == [
        f"GPU 1 (GPU-1) isn't in the newest sample, it was last seen at {seen}; "
        "if it was taken out: sudo g-mon forget GPU-1"
    ]
    host.cards_are(True, True)
    assert answer(g_mon(command, "--json"))["exit"] == 0


def test_a_card_that_was_forgotten_is_no_warning(host, g_mon):
    host.sample(360, gpus=2)
    host.sample(60, gpus=1)
    host.cards_are(True)
    assert answer(g_mon("status", "--json"))["warnings"] == []


def test_a_sick_card_that_never_answered_is_a_warning(host, g_mon):
    host.series(gpus=1)
    host.cards_are(True, gpus={"1": "lost"})
    assert answer(g_mon("status", "--json"))["warnings"] == ["GPU 1 is lost: g-mon logs"]
    host.cards_are(True, False, gpus={"1": "lost"})
    (warning,) = answer(g_mon("status", "--json"))["warnings"]
    assert warning.startswith("GPU 1 (GPU-1) isn't in the newest sample")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"cards": [], "gpus": {}}', '{"cards": {"1": {"present": false}}}',
     '{"cards": {"1": {"present": 0, "uuid": "x", "index": 1, "seen": 1e300}}, "gpus": {}}'],
)  # fmt: skip
def test_notes_of_the_collector_that_are_none_leave_the_data(host, g_mon, text):
    host.sample(360, gpus=2)
    host.sample(60, gpus=1)
    host.settings.state.write_text(text)
    (warning,) = answer(g_mon("status", "--json"))["warnings"]
    assert warning.startswith("GPU 1 (GPU-1) isn't in the newest sample")


def test_notes_of_the_collector_that_cannot_be_read(host, g_mon):
    host.series()
    host.settings.state.mkdir()
    found = answer(g_mon("status", "--json"))
    assert found["exit"] == 2
    assert f"{host.settings.state} can't be read" in found["failures"][0]


def test_a_missing_reading_is_null(host, g_mon):
    host.sample(power="", util="[N/A]")
    (gpu, _other) = answer(g_mon("status", "--json"))["gpus"]
    assert gpu["power_draw_watts"] is None
    assert gpu["utilization_gpu_ratio"] is None


# ---------------------------------------------------------------- data, compact, stats, selftest


def test_data(host, g_mon):
    host.series(count=8)
    found = answer(g_mon("data", "--json"))
    assert found["header"] == COLUMNS.split(",")
    assert len(found["rows"]) == 10
    assert found["rows"][-1]["timestamp"] == stamp(host.now - 60)
    assert found["rows"][-1]["index"] == 1
    assert found["rows"][-1]["power.draw"] == 121.54
    assert found["total_bytes"] >= found["file_bytes"] > 0
    assert len(answer(g_mon("data", "-n", "3", "--json"))["rows"]) == 3


def test_raw_data_are_those_of_the_file(host, g_mon):
    host.sample(card='"RTX, big"')
    status, out, _err = g_mon("data", "--raw")
    assert (status, out) == (0, host.stable.read_text())


def test_no_data(host, g_mon):
    found = answer(g_mon("data", "--json"))
    assert (found["ok"], found["exit"], found["rows"], found["file"]) == (False, 1, [], None)
    status, out, err = g_mon("data", "--raw")
    assert (status, out) == (1, "")
    assert "there are no samples" in err


def test_half_a_line_is_no_reason_to_complain(host, g_mon):
    host.sample()
    with host.stable.open("a") as file:
        file.write("2026-11-20T1")
    found = answer(g_mon("data", "--json"))
    assert (found["ok"], found["exit"], len(found["rows"])) == (True, 0, 2)
    assert found["warnings"] == ["the last line isn't whole (yet)"]
    assert answer(g_mon("status", "--json"))["exit"] == 0


def test_compact_answers_like_status(host, g_mon):
    host.sample(3600)
    found = answer(g_mon("compact", "--json"))
    assert (found["exit"], found["data"]["stale"]) == (1, True)


def test_stats(host, g_mon):
    host.series(count=12)
    found = answer(g_mon("stats", "--since", "50m", "--json"))
    assert found["ok"]
    assert found["gpus"][0]["utilization_gpu_ratio"]["mean"] == 0.87
    assert 9 <= found["samples"] <= 11
    assert answer(g_mon("stats", "--since", "30s", "--json"))["exit"] == 1


@pytest.mark.usefixtures("operator")
def test_selftest(host, g_mon):
    host.series()
    host.reader_prints({"gpu": {"index": 0, "state": "ok"}}, {"done": True})
    found = answer(g_mon("selftest", "--json"))
    names = [step["name"] for step in found["steps"]]
    assert names == [
        "environment", "binding", "user", "data directory", "metrics directory", "driver",
        "sample", "CSV", "metrics", "schedule",
    ]  # fmt: skip
    assert {step["status"] for step in found["steps"]} <= {"PASS", "WARN", "FAIL"}
    host.reader.unlink()
    assert answer(g_mon("selftest", "--json"))["exit"] == 2


@pytest.mark.parametrize("command", JSON_COMMANDS)
def test_what_cannot_be_answered_is_json_too(host, g_mon, command):
    host.settings_path.unlink()
    found = answer(g_mon(command, "--json"))
    assert found["exit"] == 2
    assert "can't be read" in found["failures"][0]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_cannot_be_answered_is_said(host, g_mon, command):
    host.settings_path.unlink()
    status, out, err = g_mon(command, *WORDS.get(command, ()))
    assert (status, out) == (2, "")
    assert err.startswith("g-mon: ")
    assert "run the role hx_infra.llm.telemetry" in err


def test_no_systemd(host, g_mon, monkeypatch):
    host.series()
    monkeypatch.setenv("PATH", str(host.data_dir))
    assert g_mon("status")[0] == 2
    assert answer(g_mon("status", "--json"))["failures"] == [
        "systemctl isn't there: this host isn't run by systemd"
    ]
    assert g_mon("data", "--raw")[0] == 0


def test_without_rich_everything_but_the_views_works(host, g_mon, monkeypatch):
    host.series()
    monkeypatch.setitem(sys.modules, "rich", None)
    for name in ("view", "watch"):
        monkeypatch.delitem(sys.modules, f"g_mon.{name}", raising=False)
        monkeypatch.delattr(f"g_mon.{name}", raising=False)
    for name in [name for name in sys.modules if name.startswith("rich.")]:
        monkeypatch.setitem(sys.modules, name, None)
    status, _out, err = g_mon("status")
    assert status == 2
    assert "run the role telemetry again; --json works without" in err
    assert answer(g_mon("status", "--json"))["exit"] == 0


# ---------------------------------------------------------------- steering


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_steering(host, g_mon, verb):
    on = verb in ("stop", "disable")
    host.units_are(active=on or verb == "restart", enabled=on)
    status, out, err = g_mon(verb)
    assert (status, err) == (0, "")
    assert out.startswith(TIMER)
    assert len(host.calls(verb)) == 1


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_steering_that_fails(host, g_mon, verb):
    host.systemd(refuse={verb: "Access denied"})
    status, out, err = g_mon(verb)
    assert (status, out) == (2, "")
    assert "Access denied" in err


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_steering_without_root(host, g_mon, verb):
    status, _out, err = g_mon(verb)
    assert status == 2
    assert err.rstrip().endswith(f"sudo g-mon {verb}")


@pytest.mark.usefixtures("root")
def test_a_card_that_was_taken_out_is_forgotten(host, g_mon):
    host.save(reader=str(FILES / "gpu_nvml.py"))
    host.series(gpus=1)
    host.cards_are(True, False)
    for uuid, why in (("GPU-0", "GPU-0 answers"), ("--help", "--help isn't known")):
        status, out, err = g_mon("forget", "--", uuid)
        assert (status, out) == (2, "")
        assert f"{why}, wanted: a GPU that is missing (GPU-1)" in err
    status, out, err = g_mon("forget", "GPU-1")
    assert (status, out, err) == (0, "GPU-1 at 00000000:02:00.0 is missed no more\n", "")
    assert answer(g_mon("status", "--json"))["exit"] == 0
    assert "forget GPU-1 at" in host.events.read_text()
    host.save(user="nobody-has-this-name")
    assert "there is no account nobody-has-this-name" in g_mon("forget", "GPU-1")[2]


@pytest.mark.usefixtures("operator")
def test_forgetting_without_root(host, g_mon):
    before = host.cards_are(True, False).read_text()
    status, _out, err = g_mon("forget", "GPU-1")
    assert status == 2
    assert err.rstrip().endswith("sudo g-mon forget GPU-1")
    assert host.settings.state.read_text() == before


# ---------------------------------------------------------------- calls


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(g_mon, capsys, command):
    with pytest.raises(SystemExit) as ended:
        g_mon(command, "--help")
    assert ended.value.code == 0
    assert f"g-mon {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ("dance",),
        ("start", "--json"),
        ("data", "-n", "0"),
        ("data", "-n", "x"),
        ("watch", "--interval", "0"),
        ("watch", "--interval", "nan"),
        ("watch", "--count", "0"),
    ],
)
def test_wrong_calls(g_mon, capsys, words):
    with pytest.raises(SystemExit) as ended:
        g_mon(*words)
    assert ended.value.code == 2
    assert "usage: g-mon" in capsys.readouterr().err


def test_a_wrong_period(g_mon):
    status, _out, err = g_mon("stats", "--since", "yesterday")
    assert status == 2
    assert "24h or 7d" in err


def test_the_words_that_operators_know(host, capsys, monkeypatch):
    host.series()
    monkeypatch.setattr(cli, "SETTINGS", host.settings_path)
    assert cli.main(["G-Mon", "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]
    pytest.importorskip("rich")
    for words in ([], ["G-Mon"]):
        assert cli.main(words) == 0
        assert "g-mon status" in capsys.readouterr().out


@pytest.mark.parametrize("rows", ["1", "500"])  # written at the end, or in between
def test_a_reader_that_goes_away_ends_the_command_quietly(host, rows):
    host.series(count=250)
    process = start(host, "data", "--raw", "-n", rows)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0
    process.stderr.close()


# ---------------------------------------------------------------- logs


def test_logs(host, g_mon):
    host.systemd(journal=[f"2026-11-20T12:00:0{n} llm-02 python[1]: entry {n}" for n in range(9)])
    host.events.write_text("".join(f"2026-11-20T12:00:0{n}Z start event {n}\n" for n in range(9)))
    status, out, err = g_mon("logs", "-n", "2")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"-- journal of {SERVICE} and {TIMER} --"
    assert [text[-1] for text in lines[1:3]] == ["7", "8"]
    assert lines[3] == f"-- {host.events} --"
    assert [text[-7:] for text in lines[4:]] == ["event 7", "event 8"]
    (call,) = [call for call in json.loads(host.state.read_text())["calls"] if "-n" in call]
    assert {f"--unit={SERVICE}", f"--unit={TIMER}"} <= set(call)


def test_a_journal_that_cannot_be_read_leaves_the_events(host, g_mon):
    host.systemd(refuse={"journalctl": "No journal files were opened"})
    host.events.write_text("2026-11-20T12:00:00Z start first sample\n")
    status, out, err = g_mon("logs")
    assert status == 1
    assert "No journal files were opened" in err
    assert "first sample" in out


@pytest.mark.usefixtures("operator")
def test_an_empty_journal_may_be_one_that_is_not_for_you(g_mon):
    assert "sudo g-mon logs" in g_mon("logs")[1]


def test_following(host):
    host.systemd(journal=["2026-11-20T12:00:00 entry"])
    host.events.write_text("2026-11-20T12:00:00Z start first\n")
    process = start(host, "logs", "--follow", text=True, start_new_session=True)
    seen = list(itertools.takewhile(lambda text: "is followed" not in text, process.stdout))
    assert "2026-11-20T12:00:00Z start first\n" in seen
    with host.events.open("a") as file:
        file.write("2026-11-20T12:05:00Z error late\nhalf a l")
    assert process.stdout.readline() == "2026-11-20T12:05:00Z error late\n"
    os.killpg(process.pid, signal.SIGINT)
    rest, err = process.communicate(timeout=20)
    assert (process.returncode, rest, "Traceback" in err) == (0, "", False)


def add(path, text):
    with path.open("a") as file:
        file.write(text)


def test_new_lines_of_a_file_that_comes_and_is_replaced(tmp_path):
    path = tmp_path / "events"
    steps = iter(
        [
            lambda: None,
            lambda: add(path, "one\nhalf"),
            lambda: add(path, " a line\n"),
            lambda: (path.unlink(), add(path, "new\n")),
        ]
    )
    found = cli.new_lines(path, 0, sleep=lambda _seconds: next(steps)())
    assert list(itertools.islice(found, 3)) == ["one", "half a line", "new"]


def test_new_lines_begin_after_the_old_ones(tmp_path):
    path = tmp_path / "events"
    add(path, "old\n")
    found = cli.new_lines(path, 4, sleep=lambda _seconds: add(path, "new\x1b[2J\n"))
    assert next(found) == "new?[2J"


# ---------------------------------------------------------------- speed of the tail


def test_status_reads_no_whole_day(host, g_mon, monkeypatch):
    """Only counting the rows may touch all of a large file."""
    now = int(time.time())
    monkeypatch.setattr(data, "BLOCK", 4096)
    host.write(now, *(line(now - 3000 + number) for number in range(3000)))
    parsed = []
    real = data.parse_row
    monkeypatch.setattr(data, "parse_row", lambda *words: parsed.append(1) or real(*words))
    assert answer(g_mon("status", "--json"))["data"]["newest"] == stamp(now - 1)
    assert len(parsed) < 300
