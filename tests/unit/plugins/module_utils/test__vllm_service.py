# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_service as service
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_service_memory import Kept

UNIT = "citadel-llm@tiny.service"
RUNNING = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "no",
    "MainPID": "7",
    "ExecMainStartTimestampMonotonic": "50000000",
}
STOPPED = {**RUNNING, "ActiveState": "inactive", "MainPID": "0"}


def declared(**changes):
    return service.Declared(**{"unit": UNIT, "folder": "/s/tiny", "release": "/v/a", **changes})


@pytest.mark.parametrize(
    ("changes", "state", "now", "newer", "actions"),
    [
        ({}, RUNNING, "/v/a", [], []),
        ({}, RUNNING, "/v/a", ["/c"], ["restart"]),
        ({}, RUNNING, "/v/b", [], ["switch_release", "restart"]),
        ({"changed": True}, RUNNING, "/v/a", [], ["reload_systemd", "restart"]),
        ({}, {**RUNNING, "NeedDaemonReload": "yes"}, "/v/a", [], ["reload_systemd"]),
        ({}, STOPPED, "/v/a", [], ["start"]),
        ({}, {**STOPPED, "ActiveState": "failed"}, "/v/a", ["/c"], ["start"]),
        ({}, {**RUNNING, "UnitFileState": "disabled"}, "/v/a", [], ["enable"]),
        ({}, {**RUNNING, "UnitFileState": "generated"}, "/v/a", [], []),
        ({"release": ""}, RUNNING, "", [], []),
        (
            {"changed": True},
            {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""},
            "",
            [],
            ["switch_release", "reload_systemd", "enable", "start"],
        ),
    ],
)
def test_only_what_is_needed_is_planned(changes, state, now, newer, actions):
    steps = service.plan_started(declared(**changes), state, now, newer)
    assert [step["action"] for step in steps] == actions
    assert all(step["say"] for step in steps)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (RUNNING, 1000.0 - 50.0),
        ({**RUNNING, "MainPID": "0"}, 0.0),
        ({**RUNNING, "ExecMainStartTimestampMonotonic": "[not set]"}, 0.0),
        ({}, 0.0),
    ],
)
def test_a_service_is_as_old_as_its_process(state, expected):
    assert service.began_at(state, 1000.0, 100.0) == expected


def test_a_link_that_changed_is_newer_although_its_target_is_old(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("x")
    since = os.stat(target).st_ctime
    assert service.newer_files([str(target), str(tmp_path / "none")], since) == []
    while True:  # until the clock of the file system has moved on
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        if os.lstat(link).st_ctime > since:
            break
    assert service.newer_files([str(target), str(link)], since) == [str(link)]


def kept(release="/v/a", content="1"):
    return Kept(release, ({"path": "/c", "sha256": content},))


@pytest.mark.parametrize(
    ("good", "previous", "now", "name"),
    [
        (kept(), kept("/v/0"), kept(), "previous"),
        (kept(), None, kept(content="2"), "good"),
        (kept(), kept("/v/0"), kept("/v/b"), "good"),
        (None, kept("/v/0"), kept(), "previous"),
    ],
)
def test_a_rollback_undoes_what_never_served_first(good, previous, now, name):
    found, steps = service.plan_restored(declared(), good, previous, now, "llm-01")
    assert found == name
    assert [step["action"] for step in steps] == ["restore", "reload_systemd", "restart"]


def test_without_an_earlier_state_there_is_no_rollback():
    with pytest.raises(HostError, match="no earlier state that served"):
        service.plan_restored(declared(), kept(), None, kept(), "llm-01")


def test_a_removal_names_what_is_there_and_nothing_else(tmp_path):
    here = tmp_path / "tiny.yaml"
    here.write_text("x")
    paths = [str(here), str(tmp_path / "none")]
    steps = service.plan_absent(UNIT, RUNNING, paths, str(tmp_path / "folder"))
    assert [(step["action"], step["target"]) for step in steps] == [
        ("stop", UNIT),
        ("disable", UNIT),
        ("remove", str(here)),
        ("reload_systemd", UNIT),
    ]
    gone = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}
    assert service.plan_absent(UNIT, gone, [], str(tmp_path / "folder")) == []
    looping = {**STOPPED, "ActiveState": "activating", "UnitFileState": "disabled"}
    assert service.plan_absent(UNIT, looping, [], "/none")[0]["action"] == "stop"
