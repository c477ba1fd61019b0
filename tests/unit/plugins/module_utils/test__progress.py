# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._progress import ProgressWriter


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def state(tmp_path):
    return lambda: json.loads((tmp_path / "progress.json").read_text())


@pytest.fixture
def writer(tmp_path, clock):
    return ProgressWriter(str(tmp_path / "progress.json"), interval_s=1.0, clock=clock)


def test_no_path_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ProgressWriter(None).update("a", "pulling", 1, 2)
    assert list(tmp_path.iterdir()) == []


def test_rate_and_time_left_come_from_the_last_seconds(writer, clock, state):
    writer.update("a", "pulling", 0, 100, unit="B")
    clock.now += 2
    writer.update("a", "pulling", 40, 100, unit="B", note="layer 1")
    assert state() == {
        "item": "a",
        "phase": "pulling",
        "done": 40,
        "total": 100,
        "unit": "B",
        "rate": 20.0,
        "eta_s": 3.0,
        "note": "layer 1",
    }


def test_writes_are_throttled_but_a_new_item_and_the_end_are_not(writer, clock, state):
    writer.update("a", "pulling", 0, 100)
    clock.now += 0.1
    writer.update("a", "pulling", 10, 100)
    assert state()["done"] == 0
    clock.now += 0.1
    writer.update("a", "pulling", 100, 100)
    assert state()["done"] == 100
    clock.now += 0.1
    writer.update("b", "pulling", 0, 100)
    assert state()["item"] == "b"


def test_work_that_was_rolled_back_gives_no_negative_rate(writer, clock, state):
    writer.update("a", "pulling", 50, 100)
    clock.now += 2
    writer.update("a", "pulling", 20, 100)
    assert state()["rate"] is None
    assert state()["eta_s"] is None


def test_unknown_amounts_are_stated_as_such(writer, state):
    writer.update("a", "verifying")
    assert (state()["done"], state()["rate"], state()["eta_s"]) == (None, None, None)


def test_a_reader_never_sees_half_a_state(writer, tmp_path):
    writer.update("a", "pulling", 1, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


def test_a_file_that_cannot_be_written_does_not_stop_the_work(tmp_path):
    ProgressWriter(str(tmp_path / "gone" / "progress.json")).update("a", "pulling", 1, 2)
