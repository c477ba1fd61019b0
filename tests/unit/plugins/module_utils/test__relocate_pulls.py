# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a move waits for before it is begun, and what it refuses without waiting."""

from __future__ import annotations

import os

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate import (
    Declared,
    Observed,
    Place,
    Tree,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate_pulls import (
    Patience,
    StoreGuard,
    settle,
)

DECLARED = Declared("llm-01", "/data/models", "/mnt/models", ("/old",), unit="o.service")
PARTIAL = f"blobs/sha256-{'a' * 64}-partial"


class Host:
    """A store at /old, which can be read elsewhere, and a download that waiting ends."""

    def __init__(self, store):
        self.path = store / PARTIAL
        self.path.parent.mkdir()
        self.path.write_bytes(b"")
        self.store = store
        self.running = True
        self.growing = (PARTIAL,)
        self.free_bytes = 10_000
        self.looks = self.pauses = 0

    def inodes(self):
        status = os.stat(self.path)
        return {(status.st_dev, status.st_ino)} if self.running else set(), True

    def pause(self, _seconds):
        self.pauses += 1
        self.running, self.growing = False, ()

    def look(self):
        self.looks += 1
        tree = Tree("/old", str(self.store), files=1, size=100, is_store=True)
        tree = Tree(**{**vars(tree), "partials": self.growing})
        names = (Place("/old", "directory", "", "/old"), Place("/mnt/models"))
        place = Place(DECLARED.target)
        return Observed(place, names, {"/old": tree}, free_bytes=self.free_bytes)

    def settle(self, wait_s, check_mode=False):
        return settle(DECLARED, self.look, Patience(wait_s, self.inodes, self.pause), check_mode)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_a_download_that_is_seen_to_grow_is_waited_for_too(host):
    settled = host.settle(600)
    assert (host.pauses, host.looks) == (1, 2)
    assert "because a download is writing" in settled.plan.steps[0].sentence
    assert settled.found.trees["/old"].partials == ()


def test_check_mode_predicts_that_without_waiting(host):
    settled = host.settle(600, check_mode=True)
    assert (host.pauses, host.looks) == (0, 1)
    assert "(waits at most 600 s because a download is" in settled.plan.steps[0].sentence
    assert len(settled.waits_for) == 1


@pytest.mark.parametrize("check_mode", [True, False])
def test_what_nobody_is_seen_to_write_but_grows_is_refused(host, check_mode):
    host.running = False
    with pytest.raises(HostError, match="a download into /old is in progress"):
        host.settle(600, check_mode)
    assert host.pauses == 0


@pytest.mark.parametrize("check_mode", [True, False])
def test_what_is_refused_anyway_is_not_waited_for(host, check_mode):
    host.free_bytes = 1
    with pytest.raises(HostError, match="bytes free; wanted"):
        host.settle(600, check_mode)
    assert host.pauses == 0


def test_a_store_that_grows_on_while_it_is_waited_for_is_refused(host):
    grow = host.pause
    host.pause = lambda seconds: (grow(seconds), setattr(host, "growing", (PARTIAL,)))
    with pytest.raises(HostError, match="a download into /old is in progress"):
        host.settle(600)
    assert host.pauses == 1


def test_an_error_about_the_store_names_the_host(tmp_path):
    (tmp_path / ".hx").mkdir()
    (tmp_path / ".hx/lock").symlink_to(tmp_path)
    with pytest.raises(HostError, match=rf"^llm-01: the lock {tmp_path}/.hx/lock can't be read"):
        Host(tmp_path).settle(600)


def test_a_store_that_is_not_there_yet_needs_no_guard(tmp_path):
    with StoreGuard(DECLARED, Patience()) as guard:
        guard.hold(str(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []
