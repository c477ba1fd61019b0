# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import re
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone

import gpu_files as files
import pytest
from telemetry_parts import FILES

NOW = datetime(2026, 11, 20, 10, 5, 0, tzinfo=timezone.utc)
HEADER = "timestamp,index,name\n"
ROW = "2026-11-20T10:05:00Z,0,GeForce RTX 4070 Ti\n"
TODAY = "nvidia-smi-ping-2026-11-20.csv"


@pytest.fixture
def stable(tmp_path):
    return tmp_path / "nvidia-smi-ping.csv"


@pytest.fixture
def store(stable):
    return files.DailyCsv(stable, HEADER, keep_days=30)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_first_lines_make_a_file_with_a_header_behind_the_stable_name(tmp_path, store, stable):
    assert store.append(ROW, NOW) == []
    assert names(tmp_path) == [TODAY, stable.name]
    assert os.readlink(stable) == TODAY
    assert store.append(ROW, NOW) == []
    assert stable.read_text() == HEADER + ROW + ROW


def test_midnight_begins_a_file_and_leaves_the_old_one_alone(tmp_path, store, stable):
    store.append(ROW, datetime(2026, 11, 20, 23, 59, 59, tzinfo=timezone.utc))
    before = (tmp_path / TODAY).stat()
    assert store.append(ROW, datetime(2026, 11, 21, 0, 0, 0, tzinfo=timezone.utc)) == []
    assert os.readlink(stable) == "nvidia-smi-ping-2026-11-21.csv"
    assert stable.read_text() == HEADER + ROW
    assert (tmp_path / TODAY).stat() == before


def test_the_stable_name_is_flipped_not_removed(store, stable, monkeypatch):
    store.append(ROW, NOW)
    seen = []
    replace = type(stable).replace
    monkeypatch.setattr(
        type(stable), "replace", lambda link, to: (seen.append(to.exists()), replace(link, to))[1]
    )
    store.append(ROW, NOW + timedelta(days=1))
    assert seen == [True]


def test_files_that_are_over_the_retention_go_when_a_day_begins(tmp_path, store):
    old = ["nvidia-smi-ping-2026-10-20.csv", "nvidia-smi-ping-2026-10-20.until-x.csv"]
    kept = [
        "nvidia-smi-ping-2026-10-21.csv",
        "nvidia-smi-ping.until-20250101T000000Z.csv",
        "nvidia-smi-ping-2020-01-01.txt",
        "other-2020-01-01.csv",
        "xid-history.jsonl",
    ]
    for name in old + kept:
        (tmp_path / name).write_text("x\n")
    store.append(ROW, NOW)
    assert names(tmp_path) == sorted([*kept, TODAY, "nvidia-smi-ping.csv"])
    (tmp_path / old[0]).write_text("x\n")
    store.append(ROW, NOW)
    assert (tmp_path / old[0]).exists()  # the day has begun already


@pytest.mark.parametrize("cut", [ROW[:30], ROW[:-1], "x", "1,2\r", "y" * 200_000])
def test_a_cut_line_is_taken_off_and_kept_in_a_note(tmp_path, store, cut):
    (tmp_path / TODAY).write_text(HEADER + ROW + cut)
    (note,) = store.append(ROW, NOW)
    assert (tmp_path / TODAY).read_text() == HEADER + ROW + ROW
    assert repr(cut[:1000])[1:-1] in note


@pytest.mark.parametrize("length", [0, 1, 10, len(HEADER) - 1])
def test_a_cut_header(tmp_path, store, stable, length):
    (tmp_path / TODAY).write_text(HEADER[:length])
    store.append(ROW, NOW)
    assert stable.read_text() == HEADER + ROW


def test_a_file_of_the_day_with_another_header_is_set_aside(tmp_path, store, stable):
    old = "timestamp,index\n1,2\n"
    (tmp_path / TODAY).write_text(old)
    (note,) = store.append(ROW, NOW)
    aside = tmp_path / "nvidia-smi-ping-2026-11-20.until-20261120T100500Z.csv"
    assert aside.read_text() == old
    assert aside.name in note
    assert stable.read_text() == HEADER + ROW


@pytest.mark.parametrize("old", ["2025/08/14 11:00:00.000, 4 %, 3411 MiB\n", HEADER + ROW, ""])
def test_the_file_of_an_older_loop_is_kept_under_another_name(tmp_path, store, stable, old):
    stable.write_text(old)
    (note,) = store.append(ROW, NOW)
    aside = tmp_path / "nvidia-smi-ping.until-20261120T100500Z.csv"
    assert aside.read_text() == old
    assert aside.name in note
    assert os.readlink(stable) == TODAY
    assert stable.read_text() == HEADER + ROW


def test_a_loop_that_has_its_file_open_loses_nothing(tmp_path, store, stable):
    with stable.open("a") as loop:
        loop.write("one\n")
        loop.flush()
        store.append(ROW, NOW)
        loop.write("two\n")
    (aside,) = tmp_path.glob("*.until-*")
    assert aside.read_text() == "one\ntwo\n"
    assert stable.read_text() == HEADER + ROW


def test_what_is_set_aside_never_replaces_what_was_before(tmp_path, store, stable):
    for text in ("first", "second", "third"):
        stable.unlink(missing_ok=True)
        stable.write_text(f"{text}\n")
        store.append(ROW, NOW)
    assert {path.read_text() for path in tmp_path.glob("*.until-*")} == {
        "first\n",
        "second\n",
        "third\n",
    }


def test_a_file_that_cannot_have_two_names_is_renamed(tmp_path, store, stable, monkeypatch):
    def refuse(*_given, **_more):
        raise PermissionError(1, "Operation not permitted")  # fs.protected_hardlinks

    monkeypatch.setattr(files.os, "link", refuse)
    stable.write_text("old\n")
    store.append(ROW, NOW)
    (aside,) = tmp_path.glob("*.until-*")
    assert aside.read_text() == "old\n"
    assert stable.read_text() == HEADER + ROW


def test_a_link_of_somebody_else_is_told(tmp_path, store, stable):
    (tmp_path / "elsewhere.csv").write_text("old\n")
    stable.symlink_to("elsewhere.csv")
    assert store.append(ROW, NOW) == ["nvidia-smi-ping.csv led to elsewhere.csv"]
    assert (tmp_path / "elsewhere.csv").read_text() == "old\n"


def test_the_days_file_is_never_written_through_a_link(tmp_path, store):
    (tmp_path / "victim").write_text(HEADER)
    (tmp_path / TODAY).symlink_to("victim")
    with pytest.raises(files.WriteError, match=TODAY):
        store.append(ROW, NOW)
    assert (tmp_path / "victim").read_text() == HEADER


@pytest.mark.parametrize("how", ["rename", "unlink"])
def test_a_file_that_is_rotated_by_somebody_else_gets_a_new_header(tmp_path, store, stable, how):
    store.append(ROW, NOW)
    if how == "rename":
        (tmp_path / TODAY).rename(tmp_path / "kept.1")
    else:
        (tmp_path / TODAY).unlink()
    assert store.append(ROW, NOW) == []
    assert stable.read_text() == HEADER + ROW
    if how == "rename":
        assert (tmp_path / "kept.1").read_text() == HEADER + ROW


LIMITED = f"""
import resource, sys
sys.path.insert(0, {str(FILES)!r})
import gpu_files as files
from datetime import datetime, timezone
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
store = files.DailyCsv(Path(sys.argv[1]), {HEADER!r}, 30)
now = datetime(2026, 11, 20, tzinfo=timezone.utc)
for number in range(100):
    try:
        store.append({ROW!r} * 2, now)
    except files.WriteError as error:
        print(number, error)
        break
"""


@pytest.mark.parametrize("limit", [5, 80, 160, 161, 600])
def test_a_file_that_may_not_grow_has_whole_samples_only(tmp_path, stable, limit):
    argv = [sys.executable, "-c", LIMITED, str(stable), str(limit)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    fits = (limit - len(HEADER)) // (2 * len(ROW))
    assert done.stdout.split(" ", 1) == [str(max(0, fits)), f"{tmp_path / TODAY}: File too large\n"]
    if fits > 0:
        assert (tmp_path / TODAY).read_text() == HEADER + ROW * 2 * fits
    else:
        assert names(tmp_path) == []


def test_a_write_that_stays_short_without_a_reason_is_taken_back(store, stable, monkeypatch):
    store.append(ROW, NOW)
    write = os.write
    monkeypatch.setattr(files.os, "write", lambda handle, data: write(handle, data[:10]))
    with pytest.raises(files.WriteError, match="only 20 of"):
        store.append(ROW, NOW)
    assert stable.read_text() == HEADER + ROW


def test_a_folder_that_is_missing(tmp_path):
    store = files.DailyCsv(tmp_path / "missing" / "x.csv", HEADER, 30)
    with pytest.raises(files.WriteError, match="No such file"):
        store.append(ROW, NOW)


def test_a_lock_that_is_held_is_not_waited_for_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.05)
    lock = tmp_path / "x.lock"
    with lock.open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(files.LockError, match="is held"), files.locked(lock):
            pass
    with files.locked(lock):
        pass


WRITER = f"""
import os, signal, sys
sys.path.insert(0, {str(FILES)!r})
import gpu_files as files
from datetime import datetime, timezone
from pathlib import Path
stable, name, count, crash = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
store = files.DailyCsv(stable, {HEADER!r}, 30)
real = os.write

def die(handle, data):  # a crash in the middle of a write, and of a line
    real(handle, data[:-5])
    os.kill(os.getpid(), signal.SIGKILL)

now = datetime(2026, 11, 20, tzinfo=timezone.utc)
for number in range(count):
    if number == crash:
        files.os.write = die
    with files.locked(stable.with_suffix(".lock")):
        for note in store.append(f"{{name}},{{number}},whole\\n", now):
            with stable.with_suffix(".notes").open("a") as notes:
                notes.write(note + "\\n")
    real(1, f"{{number}}\\n".encode())
"""


def writer(stable, name, count, crash=-1):
    argv = [sys.executable, "-c", WRITER, str(stable), name, str(count), str(crash)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, bufsize=0)


def written(stable):
    """Return the lines by their writer; fails when one of them isn't whole."""
    lines = stable.read_text().splitlines(keepends=True)
    assert lines[0] == HEADER
    found = {}
    for line in lines[1:]:
        match = re.fullmatch(r"(\w+),(\d+),whole\n", line)
        assert match, line
        found.setdefault(match[1], []).append(int(match[2]))
    return found


def test_eight_writers_at_once_lose_nothing(stable):
    writers = {f"w{number}": writer(stable, f"w{number}", 1250) for number in range(8)}
    for child in writers.values():
        child.communicate(timeout=120)
        assert child.returncode == 0
    assert written(stable) == {name: list(range(1250)) for name in writers}
    assert not stable.with_suffix(".notes").exists()


def rotate(today, number):
    """Set the day's file aside as logrotate does, without the lock; return its new name.

    Every second time an empty file is put in its place, as with ``create``.
    """
    aside = today.with_name(f"kept.{number}")
    try:
        today.rename(aside)
    except FileNotFoundError:  # nobody has written since
        return None
    if number % 2:
        with contextlib.suppress(FileExistsError):
            today.touch(exist_ok=False)
    return aside


def test_eight_writers_lose_nothing_while_somebody_else_rotates_their_file(tmp_path, stable):
    writers = {f"w{number}": writer(stable, f"w{number}", 1250) for number in range(8)}
    kept = []
    while any(child.poll() is None for child in writers.values()):
        kept += filter(None, [rotate(tmp_path / TODAY, len(kept))])
        time.sleep(0.02)
    for child in writers.values():
        child.communicate(timeout=120)
        assert child.returncode == 0
    filled = [path for path in kept if path.stat().st_size]
    assert len(filled) > 8
    found = {name: [] for name in writers}
    shared = 0
    for path in [*filled, *tmp_path.glob(TODAY)]:
        parts = written(path) if path.stat().st_size else {}
        shared += len(parts) > 1
        for name, numbers in parts.items():
            found[name] += numbers
    assert shared > 4  # it was in the middle of their work
    assert found == {name: list(range(1250)) for name in writers}
    assert not stable.with_suffix(".notes").exists()
    # What they leave goes on.
    last = writer(stable, "last", 1)
    last.communicate(timeout=30)
    assert written(stable)["last"] == [0]


def test_kills_at_any_moment_lose_nothing_that_was_written(stable):
    chance = random.Random(5)
    running = {f"k{number}": writer(stable, f"k{number}", 100_000) for number in range(8)}
    told = {}
    for name, child in running.items():
        first = child.stdout.readline()  # it is at work
        time.sleep(chance.uniform(0, 0.1))
        child.send_signal(signal.SIGKILL)
        out, _err = child.communicate(timeout=30)
        told[name] = len((first + out).splitlines())
    writer(stable, "last", 1).communicate(timeout=30)
    found = written(stable)
    assert found.pop("last") == [0]
    for name, count in told.items():
        # the last line may have been written and not been told
        assert found[name] in (list(range(count)), list(range(count + 1)))


def test_crashes_in_the_middle_of_a_line_cost_that_line_and_are_told(stable):
    for number in range(8):
        child = writer(stable, f"c{number}", 10, crash=number)
        child.communicate(timeout=30)
        assert child.returncode == -signal.SIGKILL
    last = writer(stable, "last", 1)
    last.communicate(timeout=30)
    assert written(stable) == {
        **{f"c{number}": list(range(number)) for number in range(1, 8)},
        "last": [0],
    }
    notes = stable.with_suffix(".notes").read_text().splitlines()
    assert [re.search(r"cut line '(.*)'", note)[1] for note in notes] == [
        f"c{number},{number},w" for number in range(8)
    ]


@pytest.fixture
def log(tmp_path):
    return tmp_path / "nvidia-smi-ping.events"


def test_an_event_is_one_line(log):
    files.add_event(log, NOW, "error", "two\nlines  and \tmore")
    assert log.read_text() == "2026-11-20T10:05:00Z error two lines and more\n"


def test_events_after_a_cut_one(log):
    log.write_text("2026-11-20T10:00:00Z start x\n2026-11-20T10:0")
    files.add_event(log, NOW, "stop", "y")
    assert log.read_text() == "2026-11-20T10:00:00Z start x\n2026-11-20T10:05:00Z stop y\n"


def test_events_of_somebody_else_are_set_aside(log, monkeypatch):
    log.write_text("start by root\n")
    append, calls = files.append, []

    def refused_once(path, text, first=""):
        calls.append(text)
        if len(calls) == 1:
            raise PermissionError(13, "Permission denied")
        return append(path, text, first)

    monkeypatch.setattr(files, "append", refused_once)
    files.add_event(log, NOW, "start", "x")
    (aside,) = log.parent.glob("*.until-*")
    assert aside.read_text() == "start by root\n"
    assert log.read_text() == "2026-11-20T10:05:00Z start x\n"


def test_events_that_are_over_the_retention_go_and_foreign_lines_stay(log, monkeypatch):
    old = (NOW - timedelta(days=31)).strftime(files.STAMP)
    young = (NOW - timedelta(days=29)).strftime(files.STAMP)
    log.write_text(f"{old} error x\nby another loop\n{young} error y\n")
    files.trim_events(log, NOW, 30)
    assert log.read_text() == f"by another loop\n{young} error y\n"
    inode = log.stat().st_ino
    files.trim_events(log, NOW, 30)
    assert log.stat().st_ino == inode
    monkeypatch.setattr(files, "EVENT_LINES", 1)
    files.trim_events(log, NOW, 30)
    assert log.read_text() == f"{young} error y\n"


def test_trimming_where_there_are_no_events(log):
    files.trim_events(log, NOW, 30)
    assert not log.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"state": "ok"}'])
def test_a_state_that_cannot_be_read_is_none(tmp_path, text):
    path = tmp_path / "x.state"
    assert files.load_state(path) == {}
    path.write_text(text)
    assert files.load_state(path) == ({"state": "ok"} if "ok" in text else {})


def test_a_state_outlives_a_power_cut(tmp_path, monkeypatch):
    path, real, synced = tmp_path / "x.state", os.fsync, []

    def fsync(handle):
        synced.append((os.fstat(handle).st_ino, os.fstat(handle).st_size))
        real(handle)

    monkeypatch.setattr(files.os, "fsync", fsync)
    files.save_state(path, {"state": "ok"})
    assert synced == [(path.stat().st_ino, path.stat().st_size)]


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(tmp_path):
    target = tmp_path / "gpu.prom"
    target.mkdir()
    with pytest.raises(files.WriteError):
        files.replace_file(target, b"x")
    assert names(tmp_path) == ["gpu.prom"]
