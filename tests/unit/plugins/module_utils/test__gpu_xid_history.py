# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The history of Xids, as a library and as the program that is installed on a host."""

from __future__ import annotations

import fcntl
import inspect
import json
import os
import resource
import signal
import subprocess
import sys

import pytest
from xid_samples import BEGIN, BOOT_1, BOOT_2, MINUTE, NOISE, XID_31, XID_79, Journal, days_since

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_xid_history as history
from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_xid_journal as journal


class Installed:
    """The program beside its journal reader, a journal, and a history file."""

    def __init__(self, folder):
        self.folder = folder
        self.journal = Journal(folder / "bin")
        self.history = folder / "xid-history.jsonl"
        for module, name in ((history, "gpu_xid_history"), (journal, "gpu_xid_journal")):
            (folder / f"{name}.py").write_text(inspect.getsource(module))

    def run(self, *more, before=""):
        """Run the program; ``before`` is code that may break it first."""
        code = (
            f"import sys; sys.path.insert(0, {str(self.folder)!r})\n"
            "import os, signal\n"
            "import gpu_xid_history as program\n"
            f"{before}\n"
            "sys.exit(program.main(sys.argv[1:]))\n"
        )
        argv = [sys.executable, "-IS", "-c", code, "--history", str(self.history)]
        argv += ["--journalctl", self.journal.program, *more]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    def records(self):
        """Return what the history holds."""
        return history.load_records(str(self.history))[0]

    def state(self):
        """Return what the program remembers."""
        return history.load_state(str(self.history))


@pytest.fixture
def installed(tmp_path):
    made = Installed(tmp_path)
    for message in (NOISE, XID_79, NOISE, XID_31, NOISE):
        made.journal.log(message)
    return made


def done(ended):
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_twice_is_once(installed):
    assert done(installed.run())["added"] == 2
    text = installed.history.read_bytes()
    assert done(installed.run())["added"] == 0
    assert installed.history.read_bytes() == text
    assert [record["xid"] for record in installed.records()] == [79, 31]
    assert installed.state()["cursor"] == "5"


def test_as_a_file_of_its_own(installed):
    argv = [sys.executable, str(installed.folder / "gpu_xid_history.py"), "--history"]
    argv += [str(installed.history), "--journalctl", installed.journal.program]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done(ended)["added"] == 2


def test_only_what_is_new_is_read_and_added(installed):
    done(installed.run())
    installed.journal.log(XID_79)
    installed.journal.log(NOISE)
    assert done(installed.run())["added"] == 1
    assert [call for call in installed.journal.calls() if "--cursor=5" in call]
    assert installed.state()["cursor"] == "7"
    installed.journal.log(XID_31)
    assert done(installed.run())["added"] == 1
    assert [record["xid"] for record in installed.records()] == [79, 31, 79, 31]


KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def test_a_kill_between_history_and_cursor_doubles_nothing(installed):
    killed = installed.run(before=f"program.save_state = lambda *_: {KILL}")
    assert killed.returncode == -signal.SIGKILL
    assert [record["xid"] for record in installed.records()] == [79, 31]
    assert installed.state() == {}
    assert done(installed.run())["added"] == 0
    assert [record["xid"] for record in installed.records()] == [79, 31]
    assert installed.state()["cursor"] == "5"


def test_a_kill_within_the_write_loses_nothing(installed):
    half = (
        "write = os.write\n"
        "def cut(descriptor, data):\n"
        "    write(descriptor, data[: len(data) - 30])\n"
        f"    {KILL}\n"
        "os.write = cut"
    )
    assert installed.run(before=half).returncode == -signal.SIGKILL
    records, broken = history.load_records(str(installed.history))
    assert ([record["xid"] for record in records], broken) == ([79], 1)
    assert done(installed.run())["added"] == 1
    records, broken = history.load_records(str(installed.history))
    assert ([record["xid"] for record in records], broken) == ([79, 31], 1)
    assert done(installed.run())["added"] == 0


def test_a_kill_while_the_state_is_written_keeps_the_old_state(installed):
    done(installed.run())
    installed.journal.log(XID_79)
    assert installed.run(before=f"os.rename = lambda *_: {KILL}").returncode == -signal.SIGKILL
    assert installed.state()["cursor"] == "5"
    assert done(installed.run())["added"] == 0
    assert len(installed.records()) == 3


def test_a_full_disk_leaves_no_half_line(installed):
    done(installed.run())
    before = installed.history.read_bytes()
    for _number in range(40):
        installed.journal.log(XID_31)
    limit = len(before) + 1000
    code = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    ended = installed.run(before=code)
    assert ended.returncode == 1
    assert "File too large" in ended.stderr
    assert installed.history.read_bytes() == before
    assert installed.state()["cursor"] == "5"
    assert done(installed.run())["added"] == 40


def test_two_at_once(installed):
    for _number in range(200):
        installed.journal.log(XID_31)
    argv = [sys.executable, str(installed.folder / "gpu_xid_history.py"), "--history"]
    argv += [str(installed.history), "--journalctl", installed.journal.program]
    both = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _number in range(4)]
    added = [json.loads(process.communicate(timeout=60)[0])["added"] for process in both]
    assert sorted(added) == [0, 0, 0, 202]
    assert len(installed.records()) == 202


def test_a_lock_that_somebody_keeps(installed):
    with open(f"{installed.history}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ended = installed.run("--timeout-s", "0.3")
    assert ended.returncode == 1
    assert "another program holds" in ended.stderr


def test_a_journal_that_cannot_be_read_is_a_failure_and_changes_nothing(installed):
    done(installed.run())
    before = (installed.history.read_bytes(), installed.state())
    installed.journal.behave(
        fail=[1, "No journal files were opened due to insufficient permissions."]
    )
    ended = installed.run()
    assert ended.returncode == 1
    assert "insufficient permissions" in ended.stderr
    assert (installed.history.read_bytes(), installed.state()) == before


def test_a_journal_that_hangs_keeps_what_came_and_goes_on_from_there(installed):
    done(installed.run())
    installed.journal.log(XID_79)
    installed.journal.log(XID_31)
    lines = (installed.journal.folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    installed.journal.behave(hang_after=len(lines[4]) + len(lines[5]) + 10)
    ended = installed.run("--timeout-s", "2")
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["added"] == 1
    assert installed.state()["cursor"] == "6"
    installed.journal.behave()
    assert done(installed.run())["added"] == 1


def test_a_journal_too_long_for_one_run_is_read_in_several(installed):
    lines = (installed.journal.folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for stop, cursor, added in ((1, "1", 0), (3, "3", 1)):
        installed.journal.behave(hang_after=sum(map(len, lines[:stop])) + 5)
        ended = installed.run("--timeout-s", "1.5")
        assert ended.returncode == 1
        assert json.loads(ended.stdout)["added"] == added
        assert installed.state()["cursor"] == cursor
    installed.journal.behave()
    assert done(installed.run())["added"] == 1
    assert [record["xid"] for record in installed.records()] == [79, 31]


def test_from_when_on_it_is_complete(installed):
    assert done(installed.run())["covered_since"] == journal.timestamp(BEGIN + MINUTE)
    installed.journal.log(NOISE)
    installed.journal.rotate(keep=2)
    assert done(installed.run())["covered_since"] == journal.timestamp(BEGIN + MINUTE)


def test_a_first_run_covers_no_more_than_it_looked_back(installed):
    ended = done(installed.run("--since-days", str(days_since(minute=3))))
    assert ended["added"] == 1
    assert ended["covered_since"] > journal.timestamp(BEGIN + 2 * MINUTE)


def test_a_journal_that_begins_after_the_last_run_leaves_a_gap(installed):
    done(installed.run())
    installed.journal.rotate(keep=0)
    later = installed.journal.log(NOISE, boot=BOOT_2, minute=200)
    covered = done(installed.run())["covered_since"]
    assert covered == journal.timestamp(int(later["__REALTIME_TIMESTAMP"]))


def test_a_journal_without_kernel_messages(tmp_path):
    made = Installed(tmp_path)
    assert done(made.run()) == {"added": 0, "complete": True, "covered_since": None}
    assert made.records() == []
    made.journal.log(XID_79)
    assert done(made.run())["added"] == 1


def event(monotonic, boot=BOOT_1, xid=31, **more):
    at = journal.timestamp(BEGIN + monotonic)
    place = "00000000:01:00.0"
    return {
        "boot": boot,
        "monotonic_us": monotonic,
        "time": at,
        "pci_bus_id": place,
        "xid": xid,
        **more,
    }


def count(records):
    return sum(record.get("count", 1) for record in records)


def test_compacting_keeps_counts_and_times():
    records = [event(number, process=f"p{number}") for number in range(1, 101)]
    records += [event(5, xid=79), event(6, boot=BOOT_2)]
    kept = history.compact(records)
    assert count(kept) == 102
    assert len(kept) == history.KEEP_PER_GROUP + 3
    merged = next(record for record in kept if "count" in record)
    assert (merged["count"], merged["monotonic_us"], merged["until_us"]) == (80, 1, 80)
    assert (merged["time"], merged["until"]) == (records[0]["time"], records[79]["time"])
    assert merged["process"] == "p80"


def test_compacting_twice_merges_what_was_merged():
    kept = history.compact([event(number) for number in range(1, 101)])
    again = history.compact(kept + [event(number) for number in range(101, 131)])
    assert count(again) == 130
    assert len(again) == history.KEEP_PER_GROUP + 1
    assert again[0]["until_us"] == 110


def test_compacting_drops_what_is_too_old():
    records = [event(1), event(MINUTE * 10)]
    assert history.compact(records, journal.timestamp(BEGIN + MINUTE)) == [records[1]]


def test_what_was_merged_is_still_known():
    events = [event(number) for number in range(1, 101)]
    kept = history.compact(events)
    assert history.only_new(events, kept) == []
    others = [event(50, boot=BOOT_2), event(50, xid=79), event(101)]
    assert history.only_new([*others, others[0]], kept) == others


def test_a_history_that_grows_too_large_is_compacted(installed):
    for _number in range(300):
        installed.journal.log(XID_31)
    assert done(installed.run("--max-bytes", "20000"))["added"] == 302
    assert installed.history.stat().st_size < 20000
    assert count(installed.records()) == 302
    (installed.folder / "xid-history.jsonl.state").unlink()
    assert done(installed.run("--max-bytes", "20000"))["added"] == 0
    assert count(installed.records()) == 302


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b'{"boot": "a", "monotonic_us": 1',
        b"[]",
        b"12",
        b'"text"',
        b'{"boot": "a"}',
        b'{"boot":"a","monotonic_us":"1","time":"t","pci_bus_id":"p","xid":79}',
        b'{"boot":"a","monotonic_us":1,"time":"t","pci_bus_id":"p","xid":true}',
        b'{"boot":"a","monotonic_us":1,"time":2,"pci_bus_id":"p","xid":79}',
        b"\xff\xfe",
    ],
)
def test_lines_that_are_no_record(tmp_path, line):
    good = json.dumps(event(1)).encode()
    path = tmp_path / "history"
    path.write_bytes(good + b"\n" + line + b"\n" + good.replace(b'_us": 1', b'_us": 2'))
    records, broken = history.load_records(str(path))
    assert [record["monotonic_us"] for record in records] == [1, 2]
    assert broken == (1 if line else 0)


def test_wrong_arguments():
    with pytest.raises(SystemExit) as ended:
        history.main(["--history"])
    assert ended.value.code == 2


def test_a_directory_that_is_not_there(tmp_path, capsys):
    assert history.main(["--history", str(tmp_path / "no" / "history")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_files_are_readable_for_all_and_writable_for_one(installed):
    old = os.umask(0o022)
    try:
        done(installed.run())
    finally:
        os.umask(old)
    for name in ("xid-history.jsonl", "xid-history.jsonl.state"):
        assert (installed.folder / name).stat().st_mode & 0o777 == 0o644
