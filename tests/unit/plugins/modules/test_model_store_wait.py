# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import functools
import os

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.modules import model_store_wait as module

NAME = f"blobs/sha256-{'a' * 64}-partial"
PURPOSE = "the restart of o.service"


class Pull:
    """A download into a store, and a clock that only waiting moves."""

    def __init__(self, store):
        path = store / NAME
        path.parent.mkdir()
        self.stream = path.open("wb")
        os.utime(path, (1000, 1000))  # only who has it open makes it a download
        self.waited = 0.0

    def clock(self):
        return self.waited

    def pause(self, seconds):
        self.waited += seconds
        if self.waited > 9:
            self.stream.close()


@pytest.fixture
def pull(tmp_path, monkeypatch):
    """A download that is going on, waited for on its own clock."""
    found = Pull(tmp_path)
    patient = functools.partial(module.pulls.wait_for_pulls, clock=found.clock, pause=found.pause)
    monkeypatch.setattr(module.pulls, "wait_for_pulls", patient)
    yield found
    found.stream.close()


def wait(store, wait_s, check_mode=False):
    result = {"changed": False, "waits_for": [], "waited_s": 0.0}
    params = {"path": str(store), "wait_s": wait_s, "purpose": PURPOSE}
    try:
        module.wait(params, check_mode, result)
    except HostError as error:
        return result, str(error)
    return result, ""


def test_nothing_is_said_of_a_store_that_nobody_fills(tmp_path):
    for store in (tmp_path, tmp_path / "none"):
        result, problem = wait(store, 600)
        assert (result, problem) == ({"changed": False, "waits_for": [], "waited_s": 0.0}, "")


def test_a_download_that_ends_in_time_is_waited_for(tmp_path, pull):
    result, problem = wait(tmp_path, 600)
    assert problem == ""
    assert pull.stream.closed
    assert result["waited_s"] == 10.0
    told = f"a download is writing {tmp_path}/{NAME} (0B so far)"
    assert result["waits_for"] == [told]
    assert result["msg"] == f"{PURPOSE} waited 10 s because {told}."
    assert not result["changed"]


def test_a_download_that_does_not_end_in_time_fails(tmp_path, pull):
    result, problem = wait(tmp_path, 5)
    assert problem.startswith(f"{PURPOSE} was not begun: a download is writing {tmp_path}/{NAME} (")
    assert "and had not ended after 5 s; wanted a store that nobody fills" in problem
    assert result["waited_s"] == 5.0
    assert len(result["waits_for"]) == 1


def test_without_patience_it_fails_at_once(tmp_path, pull):
    for check_mode in (True, False):
        result, problem = wait(tmp_path, 0, check_mode)
        assert problem.startswith(f"{PURPOSE} was not begun: a download is writing ")
        assert result["waited_s"] == 0.0
    assert pull.waited == 0.0


def test_check_mode_says_that_a_real_run_would_wait(tmp_path, pull):
    result, problem = wait(tmp_path, 600, check_mode=True)
    assert problem == ""
    assert pull.waited == 0.0
    assert result["waited_s"] == 0.0
    assert result["msg"].startswith(f"{PURPOSE} waits at most 600 s because a download is writing ")
