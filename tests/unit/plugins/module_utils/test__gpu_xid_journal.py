# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import sys

import pytest
from xid_samples import BEGIN, BOOT_1, MINUTE, NOISE, XID_31, XID_79, Journal, days_since

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_xid_journal as journal

# Published log lines, and where they were published.
LINES = [
    (  # madMAx43v3r/chia-gigahorse issue 301, as are the next two
        XID_31,
        {
            "pci_bus_id": "00000000:0A:00.0",
            "xid": 31,
            "pid": 13332,
            "process": "cuda_plot_k32_v",
            "text": "Ch 00000010, intr 00000000. MMU Fault: ENGINE CE2 HUBCLIENT_CE0 faulted @ "
            "0x7f29_5b8c9000. Fault is of type FAULT_PRIV_VIOLATION ACCESS_TYPE_VIRT_READ",
        },
    ),
    (
        "NVRM: Xid (PCI:0000:0a:00): 62, pid='<unknown>', name=<unknown>, 2023b230 20238a3a "
        "2023e8b6 2023eac4 2023ec3c 2023ea86 00000000 00000000",
        {
            "pci_bus_id": "00000000:0A:00.0",
            "xid": 62,
            "text": "2023b230 20238a3a 2023e8b6 2023eac4 2023ec3c 2023ea86 00000000 00000000",
        },
    ),
    (
        "NVRM: Xid (PCI:0000:0a:00): 45, pid='<unknown>', name=<unknown>, Ch 00000008",
        {"pci_bus_id": "00000000:0A:00.0", "xid": 45, "text": "Ch 00000008"},
    ),
    (  # NVIDIA/open-gpu-kernel-modules issue 1150
        "NVRM: Xid (PCI:0000:dc:00): 45, pid=1818990, name=python3, Ch 00000001 caused by previous "
        "Xid 149",
        {
            "pci_bus_id": "00000000:DC:00.0",
            "xid": 45,
            "pid": 1818990,
            "process": "python3",
            "text": "Ch 00000001 caused by previous Xid 149",
        },
    ),
    (  # leptonai/gpud pull request 46
        "NVRM: Xid (PCI:0000:cb:00): 109, pid=1797828, name=pt_main_thread, Ch 00000008, "
        "errorString CTX SWITCH TIMEOUT, Info 0x58005",
        {
            "pci_bus_id": "00000000:CB:00.0",
            "xid": 109,
            "pid": 1797828,
            "process": "pt_main_thread",
            "text": "Ch 00000008, errorString CTX SWITCH TIMEOUT, Info 0x58005",
        },
    ),
    (  # NVIDIA/NVSentinel issue 155
        "NVRM: Xid (PCI:0000:44:00): 79, GPU has fallen off the bus",
        {"pci_bus_id": "00000000:44:00.0", "xid": 79, "text": "GPU has fallen off the bus"},
    ),
    (  # docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt, as is the next
        "NVRM: Xid (PCI:0000:01:00 GPU-I:05): 94, pid=7194, Contained: CE User Channel (0x9). "
        "RST: No, D-RST: No",
        {
            "pci_bus_id": "00000000:01:00.0",
            "xid": 94,
            "pid": 7194,
            "text": "Contained: CE User Channel (0x9). RST: No, D-RST: No",
        },
    ),
    (
        "NVRM: Xid (PCI:0000:01:00): 95, pid=7062, Uncontained: LTC TAG (0x2,0x0). RST: Yes, "
        "D-RST: No",
        {
            "pci_bus_id": "00000000:01:00.0",
            "xid": 95,
            "pid": 7062,
            "text": "Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No",
        },
    ),
    (  # pastebin.com/HDtNJn5t: a driver of 2018
        "NVRM: Xid (PCI:0000:01:00): 31, Ch 00000009, engmask 00000101, intr 10000000",
        {
            "pci_bus_id": "00000000:01:00.0",
            "xid": 31,
            "text": "Ch 00000009, engmask 00000101, intr 10000000",
        },
    ),
    (  # pastebin.com/gn6mYmM4: a driver of 2012
        "NVRM: Xid (0000:01:00): 13, 0005 00000000 0000502d 00000104 00000000 00000100",
        {
            "pci_bus_id": "00000000:01:00.0",
            "xid": 13,
            "text": "0005 00000000 0000502d 00000104 00000000 00000100",
        },
    ),
    (  # NVIDIA/NVSentinel issue 155: one message of three lines, logged without a number
        "NVRM: The NVIDIA GPU 0000:b3:00.0\nNVRM: (PCI ID: 10de:26b5) installed in this system "
        "has\nNVRM: fallen off the bus and is not responding to commands.",
        {
            "pci_bus_id": "00000000:B3:00.0",
            "xid": 79,
            "text": "GPU has fallen off the bus (logged without an Xid)",
        },
    ),
    (  # by the format in kernel_rc.c, with an empty text and two kinds of MIG instance
        "NVRM: Xid (PCI:0001:3b:00 GPU-I:01 GPU-CI:02): 43, pid=9, name=a b,",
        {"pci_bus_id": "00000001:3B:00.0", "xid": 43, "pid": 9, "process": "a b", "text": ""},
    ),
]


@pytest.mark.parametrize(("line", "expected"), LINES, ids=[line[6:40] for line, _event in LINES])
def test_published_lines(line, expected):
    assert journal.parse_message(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        "NVRM: GPU at PCI:0000:0a:00: GPU-760d0170-b7c5-6817-9414-6cc7112645de",
        "NVRM: GPU Board Serial Number: 1650423013443",
        "NVRM: GPU 0000:01:00.0: GPU has fallen off the bus.",  # goes with a line that has the Xid
        "nvidia-nvswitch0: SXid (PCI:0000:85:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
        "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.158.01  Release Build",
        NOISE,
        "",
    ],
)
def test_lines_that_are_no_xid(line):
    assert journal.parse_message(line) is None


def entry(**fields):
    base = {
        "__CURSOR": "1",
        "__REALTIME_TIMESTAMP": "1767225600250000",
        "__MONOTONIC_TIMESTAMP": "12",
        "_SOURCE_MONOTONIC_TIMESTAMP": "5",
        "_BOOT_ID": BOOT_1,
        "MESSAGE": XID_79,
    }
    return json.dumps({**base, **fields}).encode()


def test_an_entry_of_the_journal():
    assert journal.event_from_line(entry()) == {
        "pci_bus_id": "00000000:01:00.0",
        "xid": 79,
        "text": "GPU has fallen off the bus.",
        "boot": BOOT_1,
        "monotonic_us": 5,
        "time": "2026-01-01T00:00:00.250000Z",
    }


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_a_message_in_bytes(separators):
    data = list(XID_31.replace("cuda_plot", "\x1b\udcff").encode("utf-8", "surrogateescape"))
    line = json.dumps({**json.loads(entry()), "MESSAGE": data}, separators=separators)
    event = journal.event_from_line(line.encode())
    assert event["xid"] == 31
    assert event["process"] == "?\ufffd_k32_v"


def test_a_field_that_stands_twice():
    assert journal.event_from_line(entry(MESSAGE=[XID_79, NOISE]))["xid"] == 79
    assert journal.event_from_line(entry(_BOOT_ID=["x", "y"]))["boot"] == "x"


def test_without_the_kernels_own_stamp_the_journals_is_taken():
    assert journal.event_from_line(entry(_SOURCE_MONOTONIC_TIMESTAMP=None))["monotonic_us"] == 12


@pytest.mark.parametrize(
    "line",
    [
        b'{"MESSAGE": "NVRM: Xid (PCI:0000:01:00): 79, GPU"',
        b'{"MESSAGE": "NVRM: Xid (PCI:0000:01:00): 79, GPU"}',
        b'["NVRM: Xid"]',
        entry(__REALTIME_TIMESTAMP="soon"),
        entry(MESSAGE=None, OTHER="NVRM"),
    ],
)
def test_an_entry_that_cannot_be_read_is_none(line):
    assert journal.event_from_line(line) is None


@pytest.fixture
def logged(tmp_path):
    made = Journal(tmp_path / "bin")
    for message in (NOISE, XID_79, NOISE, XID_31, NOISE):
        made.log(message)
    return made


@pytest.mark.parametrize("chunk", [1, 7, 64, 100000])
def test_output_in_pieces_of_any_size(logged, chunk):
    logged.behave(chunk=chunk)
    reading = journal.read_journal(logged.program, 20.0)
    assert [event["xid"] for event in reading.events] == [79, 31]
    assert (reading.cursor, reading.complete) == ("5", True)


@pytest.mark.parametrize("does", [{}, {"no_grep": True}])
def test_read_since(logged, does):
    logged.behave(**does)
    reading = journal.read_since(logged.program, 20.0, 30, "--grep=NVRM")
    assert [event["xid"] for event in reading.events] == [79, 31]
    assert reading.complete
    assert not [call for call in logged.calls() if " -k" in call or "--boot" in call]


@pytest.mark.parametrize("does", [{}, {"grep_status": True}])
def test_a_journal_without_xids(tmp_path, does):
    quiet = Journal(tmp_path)
    quiet.log(NOISE)
    quiet.behave(**does)
    reading = journal.read_since(quiet.program, 20.0, 30, "--grep=NVRM")
    assert (reading.events, reading.complete) == ([], True)


def test_what_is_older_is_left_out(logged):
    recent = journal.read_since(logged.program, 20.0, days_since(minute=3))
    assert [event["xid"] for event in recent.events] == [31]


def test_read_on_from_a_cursor(logged):
    reading = journal.read_on(logged.program, 20.0, "3", 30)
    assert [event["xid"] for event in reading.events] == [31]


def test_a_cursor_that_the_journal_has_dropped_loses_nothing(logged):
    logged.rotate(keep=2)
    reading = journal.read_on(logged.program, 20.0, "2", 30)
    assert [event["xid"] for event in reading.events] == [31]


def test_a_cursor_without_meaning_starts_anew(logged):
    logged.behave(bad_cursor=True)
    reading = journal.read_on(logged.program, 20.0, "3", 30)
    assert [event["xid"] for event in reading.events] == [79, 31]


def test_a_journal_that_hangs_gives_what_came_before(logged):
    lines = (logged.folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    logged.behave(hang_after=sum(map(len, lines[:2])) + 20)
    reading = journal.read_journal(logged.program, 2.0)
    assert [event["xid"] for event in reading.events] == [79]
    assert (reading.cursor, reading.complete) == ("2", False)


def test_a_journal_that_says_nothing_at_all(logged):
    logged.behave(hang_after=0)
    with pytest.raises(journal.JournalError, match="did not answer within 1 s"):
        journal.read_journal(logged.program, 1.0)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (1, "No journal files were opened due to insufficient permissions.\n"),
        (0, "Hint: You are currently not seeing messages from other users and the system.\n"),
        (0, "No journal files were found.\n"),
        (1, "Failed to open something\n"),
    ],
)
def test_a_journal_that_may_not_be_read(logged, status, said):
    logged.behave(fail=[status, said])
    with pytest.raises(journal.JournalError, match=said.split(".")[0].strip()):
        journal.read_since(logged.program, 20.0, 30)


def test_no_journalctl(tmp_path):
    with pytest.raises(journal.JournalError, match="No such file"):
        journal.read_journal(str(tmp_path / "missing"), 5.0)


def test_the_oldest_message(logged, tmp_path):
    expected = journal.timestamp(BEGIN + MINUTE)
    assert journal.oldest_message(logged.program, 20.0) == expected
    assert journal.oldest_message(Journal(tmp_path / "empty").program, 20.0) == ""


def test_an_endless_line_is_passed_over():
    taken = []
    lines = journal._Lines(lambda line: taken.append(line) or True)
    for piece in (b"a\nb", b"x" * journal.LINE_LIMIT, b"y" * 10, b"\nc\nd"):
        lines.feed(piece)
    lines.finish()
    assert taken == [b"a", b"c", b"d"]


def test_a_reader_that_has_enough_ends_the_program(tmp_path):
    script = "import time; print('one\\ntwo', flush=True); time.sleep(600)"
    taken = []
    rc, _said = journal.stream(
        [sys.executable, "-c", script], 30.0, lambda line: taken.append(line) is not None
    )
    assert (rc, taken) == (0, [b"one"])
