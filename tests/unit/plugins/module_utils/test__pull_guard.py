# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from store_samples import blob_path, write_blob, write_model

from ansible_collections.hx_infra.llm.plugins.module_utils import _pull_guard as guard
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._store_lock import MoveLock, StoreLock

PARTIAL = f"blobs/sha256-{'a' * 64}-partial"
COPY = f".hx/incoming/sha256-{'b' * 64}.part"


@pytest.fixture
def store(tmp_path):
    """A store with the files of an unfinished download and of an unfinished copy."""
    for name in (PARTIAL, f"{PARTIAL}-0", COPY):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}" * 600)
        os.utime(path, (1000, 1000))
    return tmp_path


def nobody():
    return set(), True


def test_a_store_that_nobody_fills(store, tmp_path):
    assert guard.pulls_going_on(str(store), inodes=nobody) == []
    assert guard.pulls_going_on(str(tmp_path / "missing")) == []


@pytest.mark.parametrize("name", [PARTIAL, COPY])
def test_a_file_that_a_process_writes_is_named(store, name):
    with (store / name).open("ab"):
        [told] = guard.pulls_going_on(str(store))
    assert told == f"a download is writing {store}/{name} (1.2KB so far)"


def test_all_parts_of_a_download_are_one(store):
    with (store / PARTIAL).open("ab"), (store / f"{PARTIAL}-0").open("ab"):
        assert len(guard.pulls_going_on(str(store))) == 1


def test_where_open_files_cannot_be_seen_a_fresh_file_counts(store):
    os.utime(store / PARTIAL, (1050, 1050))
    os.utime(store / f"{PARTIAL}-0", (1050, 1050))
    told = guard.pulls_going_on(str(store), inodes=lambda: (set(), False), now=lambda: 1070)
    assert [PARTIAL in item for item in told] == [True]


def test_a_download_that_is_being_verified_has_no_unfinished_files(tmp_path):
    write_model(tmp_path, "one", b"in use")
    came = write_blob(tmp_path, b"came")
    with came.open("rb"), blob_path(tmp_path, b"in use").open("rb"):  # an engine answers with it
        [told] = guard.pulls_going_on(str(tmp_path))
        assert told == (f"a download that has come is reading {came}, which no model refers to yet")
        manifest = next(path for path in (tmp_path / "manifests").rglob("*") if path.is_file())
        manifest.write_bytes(b"")  # so nobody knows what it referred to
        assert guard.pulls_going_on(str(tmp_path)) == []
    assert guard.pulls_going_on(str(tmp_path), inodes=nobody) == []


def test_another_run_is_named(store):
    with StoreLock(str(store), "model_catalog"):
        [told] = guard.pulls_going_on(str(store), inodes=nobody)
    assert told.startswith(f"model_catalog (pid {os.getpid()} on ")
    assert told.endswith(f"holds the store {store}")


class Time:
    """A clock that only waiting moves."""

    def __init__(self):
        self.seconds = 0.0

    def clock(self):
        return self.seconds

    def pause(self, seconds):
        self.seconds += seconds


@pytest.mark.parametrize(
    ("wait_s", "left", "waited"), [(0, ["a"], 0.0), (2.5, ["a"], 2.5), (10, [], 3.0)]
)
def test_waiting_ends_with_the_pull_or_with_the_time(wait_s, left, waited):
    time = Time()
    found = guard.wait_for_pulls(
        "/s", wait_s, look=lambda _root: ["a"] if time.seconds < 3 else [],
        clock=time.clock, pause=time.pause,
    )  # fmt: skip
    assert found == (left, waited)


def test_the_refusal_names_the_pull_and_what_to_do():
    text = str(guard.refusal("o.service", "restarted", ["p1", "p2", "p3", "p4"], 600.2))
    assert text.startswith(
        "o.service was not restarted: p1; p2; p3; and 1 more and had not ended after 600 s;"
    )
    assert text.endswith("Let it end or end it yourself, then run again.")
    text = str(guard.refusal("o.service", "stopped", ["p1"], 0.0))
    assert "after" not in text.partition(";")[0]


def test_a_store_that_is_moved_is_not_left_to_anybody(store):
    with MoveLock(str(store)):
        assert guard.downloads_going_on(str(store), inodes=nobody) == []
        [told] = guard.pulls_going_on(str(store), inodes=nobody)
    assert told == f"a move (model_store_relocate) holds the store {store}"


def test_how_long_was_waited_is_kept_whatever_came_of_it(monkeypatch):
    answers = iter([([], 12.34), (["a pull goes on"], 600.04)])
    monkeypatch.setattr(guard, "wait_for_pulls", lambda *_args: next(answers))
    result = {}
    guard.outwait("o.service", "restarted", "/s", 600, result)
    assert result == {"waited_s": 12.3}
    with pytest.raises(HostError, match="was not restarted: a pull goes on and had not ended"):
        guard.outwait("o.service", "restarted", "/s", 600, result)
    assert result == {"waited_s": 600.0}
