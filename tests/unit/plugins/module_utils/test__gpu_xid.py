# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import json

import pytest
from gpu_host_samples import planted
from xid_samples import BEGIN, BOOT_1, BOOT_2, MINUTE, NOISE, XID_31, XID_79, Journal

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_xid as xid
from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_xid_history as history
from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_xid_journal as journal
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import UnknownError

UUID = "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb"  # of BOOT_2, as the kernel writes it


@pytest.fixture
def host(tmp_path):
    return planted(tmp_path / "root", {"proc/sys/kernel/random/boot_id": f"{UUID}\n"})


@pytest.fixture
def logged(tmp_path):
    return Journal(tmp_path / "bin")


@pytest.fixture
def notes():
    return []


@pytest.fixture
def kept(tmp_path, logged):
    """Return a function that brings a history up to date."""
    path = str(tmp_path / "history.jsonl")

    def keep():
        history.update(history.Settings(path, logged.program))
        return path

    return keep


def stamp(minute):
    return journal.timestamp(BEGIN + minute * MINUTE)


def test_counts_per_gpu_xid_and_boot(host, logged, notes):
    logged.log(XID_31)
    logged.log(XID_79)
    logged.log(XID_31, boot=BOOT_2)
    logged.log(XID_31, boot=BOOT_2)
    found = xid.xids(host, None, 30, notes, logged.program)
    assert notes == []
    assert found["message"] == f"nothing is known from before {stamp(1)}"
    assert found["covered_since"] == stamp(1)
    assert "history_file" not in found
    first, second = found["entries"]
    assert first == {
        "pci_bus_id": "00000000:01:00.0",
        "xid": 79,
        "count": 1,
        "boots": 1,
        "this_boot": 0,
        "first": stamp(2),
        "last": stamp(2),
        "per_boot": [{"boot": BOOT_1, "count": 1, "first": stamp(2), "last": stamp(2)}],
        "text": "GPU has fallen off the bus.",
    }
    assert (second["xid"], second["count"], second["boots"], second["this_boot"]) == (31, 3, 2, 2)
    assert (second["first"], second["last"]) == (stamp(1), stamp(4))
    assert second["process"] == "cuda_plot_k32_v"
    assert [part["count"] for part in second["per_boot"]] == [1, 2]


def test_no_xid(host, logged, notes):
    logged.log(NOISE)
    found = xid.xids(host, None, 1 / 24 / 4, notes, logged.program)
    assert found["entries"] == []
    assert found["message"] == ""
    assert found["covered_since"] == found["since"]


def test_the_history_knows_what_the_journal_has_lost(host, logged, kept, notes):
    logged.log(XID_79)
    logged.log(XID_31)
    path = kept()
    logged.rotate(keep=1)
    logged.log(XID_31)
    found = xid.xids(host, path, 30, notes, logged.program)
    assert [(entry["xid"], entry["count"]) for entry in found["entries"]] == [(79, 1), (31, 2)]
    assert found["history_file"] == path
    assert found["covered_since"] == stamp(1)


def test_nothing_counts_twice(host, logged, kept, notes):
    logged.log(XID_79)
    path = kept()
    found = xid.xids(host, path, 30, notes, logged.program)
    assert found["entries"][0]["count"] == 1


def test_a_history_that_ended_before_the_journal_begins_leaves_a_gap(
    host, logged, kept, tmp_path, notes
):
    logged.log(XID_79)
    path = kept()
    state = history.load_state(path)
    history.save_state(path, {**state, "updated": stamp(2)})
    logged.rotate(keep=0)
    logged.log(NOISE, minute=40)
    found = xid.xids(host, path, 30, notes, logged.program)
    assert [entry["xid"] for entry in found["entries"]] == [79]
    assert found["covered_since"] == stamp(40)


def test_records_that_stand_for_several(host, logged, tmp_path, notes):
    for _number in range(60):
        logged.log(XID_31, boot=BOOT_2)
    path = str(tmp_path / "history")
    history.update(history.Settings(path, logged.program, max_bytes=1000))
    assert len(history.load_records(path)[0]) < 60
    entry = xid.xids(host, path, 30, notes, logged.program)["entries"][0]
    assert (entry["count"], entry["this_boot"]) == (60, 60)
    assert (entry["first"], entry["last"]) == (stamp(1), stamp(60))


def test_only_the_window_counts(host, logged, kept, notes):
    logged.log(XID_79)
    logged.log(XID_79, minute=50)
    path = kept()
    days = (60 - 30) / 24 / 60
    assert xid.xids(host, path, days, notes, logged.program)["entries"][0]["count"] == 1


def test_neither_journal_nor_history(host, tmp_path, logged, kept, notes):
    with pytest.raises(UnknownError, match="the journal has no message of the kernel"):
        xid.xids(host, None, 30, notes, logged.program)
    with pytest.raises(UnknownError, match=r"No such file.*; there is no history "):
        xid.xids(host, str(tmp_path / "none"), 30, notes, str(tmp_path / "missing"))
    with pytest.raises(UnknownError, match="the journal has no message of the kernel"):
        xid.xids(host, kept(), 30, notes, logged.program)  # it has looked, and seen nothing
    assert notes == []


def test_a_history_alone_is_not_all(host, logged, kept, tmp_path, notes):
    logged.log(XID_79)
    path = kept()
    found = xid.xids(host, path, 30, notes, str(tmp_path / "missing"))
    assert found["entries"][0]["xid"] == 79
    assert "No such file" in notes[0]
    assert notes[0] in found["message"]


def test_a_history_that_was_not_begun_yet_is_no_fault(host, logged, tmp_path, notes):
    logged.log(XID_79)
    found = xid.xids(host, str(tmp_path / "none"), 30, notes, logged.program)
    assert found["entries"][0]["count"] == 1
    assert "there is no history" in found["message"]
    assert notes == []


def test_a_history_that_cannot_be_read(host, logged, tmp_path, notes):
    logged.log(XID_79)
    found = xid.xids(host, str(tmp_path), 30, notes, logged.program)
    assert found["entries"][0]["count"] == 1
    assert "Is a directory" in notes[0]


def test_broken_lines_and_a_cut_journal_are_told(host, logged, kept, notes):
    logged.log(XID_79)
    logged.log(NOISE)
    path = kept()
    with open(path, "a") as file:
        file.write('{"cut": ')
    logged.behave(hang_after=len(json.dumps(logged.entries[0])) + 1)
    host = dataclasses.replace(host, timeout_s=1.0)
    found = xid.xids(host, path, 30, notes, logged.program)
    assert notes == ["the journal could not be read to its end within 1 s"]
    assert "1 lines of" in found["message"]
    assert found["entries"][0]["count"] == 1


def test_an_unknown_boot_is_not_the_present_one(tmp_path, logged, notes):
    logged.log(XID_79)
    found = xid.xids(planted(tmp_path / "bare", {"etc": None}), None, 30, notes, logged.program)
    assert "this_boot" not in found["entries"][0]
