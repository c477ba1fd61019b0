# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_service as service
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_service_memory import (
    Kept,
    Memory,
)

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
        ({"release": ""}, RUNNING, "/v/a", [], ["switch_release", "restart"]),
        ({"release": None}, RUNNING, "/v/a", [], []),
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


def kept(release="/v/a", content="1", path="/c"):
    return Kept(release, ({"path": path, "sha256": content},))


@pytest.mark.parametrize(
    ("good", "previous", "unfinished", "now", "name"),
    [
        (kept(), kept("/v/0"), None, kept(), "previous"),
        (kept(), None, None, kept(content="2"), "good"),
        (kept(), kept("/v/0"), None, kept("/v/b"), "good"),
        (None, kept("/v/0"), None, kept(), "previous"),
        # Unfinished ones: files put back, files half put back, names exchanged already.
        (kept(), kept("/v/0"), kept("/v/0"), kept("/v/0"), "previous"),
        (kept(), kept("/v/0"), kept("/v/0"), kept("/v/0", "half"), "previous"),
        (kept("/v/0"), kept(), kept("/v/0"), kept("/v/0"), "good"),
        (kept(), kept("/v/0"), kept(), kept(), "good"),
        # One that is remembered no more is over.
        (kept(), kept("/v/0"), kept("/v/old"), kept(), "previous"),
    ],
)
def test_a_rollback_goes_on_with_one_that_was_begun_then_undoes_what_never_served(
    good, previous, unfinished, now, name
):
    memory = Memory(good, previous, unfinished)
    found, steps = service.plan_restored(declared(), RUNNING, memory, now, "llm-01")
    assert found == name
    actions = [step["action"] for step in steps]
    assert actions == ["stop", "restore", "reload_systemd", "start"]


@pytest.mark.parametrize(
    ("state", "path", "actions"),
    [
        (STOPPED, "/c", ["restore", "reload_systemd", "start"]),
        (
            {**STOPPED, "UnitFileState": "generated"},
            "/c",
            ["restore", "reload_systemd", "enable", "start"],
        ),
        (
            {**STOPPED, "UnitFileState": "disabled"},
            "/etc/containers/systemd/a@b.container",
            ["restore", "reload_systemd", "start"],
        ),
    ],
)
def test_a_rollback_enables_what_does_not_carry_its_own_enabling(state, path, actions):
    memory = Memory(kept(), kept("/v/0", path=path))
    _name, steps = service.plan_restored(declared(), state, memory, kept(), "llm-01")
    assert [step["action"] for step in steps] == actions


def test_without_an_earlier_state_there_is_no_rollback():
    memory = Memory(kept(), damage=("/f is damaged (x).",))
    with pytest.raises(HostError, match=r"no earlier state that served.* /f is damaged"):
        service.plan_restored(declared(), RUNNING, memory, kept(), "llm-01")


READY = '{"url": "http://h:1", "port": 1, "models": ["m"], "key_file": "", "own_process": false}'


def test_what_is_written_for_the_probe_tells_where_a_service_answers():
    found = service.endpoint_of(READY.encode())
    assert found == service.Endpoint("http://h:1", 1, ("m",), "", False)


@pytest.mark.parametrize(
    "text", ["", "{", READY[:40], "[]", "null", "{}", '{"url": "", "port": "x", "models": []}']
)
def test_what_is_no_such_file_any_more_is_told_and_not_guessed(text):
    with pytest.raises(ValueError, match=r"^\w+Error: "):
        service.endpoint_of(text.encode())


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
