# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record of a run: opened, filled, closed."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _run_record as records

START = datetime(2026, 11, 20, 10, 15, tzinfo=timezone.utc)
PASS = {"check": "count", "status": "PASS", "subject": "", "value": 2, "limit": 2}


def at(seconds):
    return START + timedelta(seconds=seconds)


def opened(mode=records.REAL):
    return records.open_record(START, host="llm-01", mode=mode, state={"mounts": []})


def filled(mode=records.REAL):
    record = records.start_phase(opened(mode), "storage", at(1))
    steps = [("storage", "mount", {"changed": True}), ("storage", "links", {"changed": False})]
    return records.end_phase(record, "storage", at(5), steps=steps, verdicts=[PASS])


def test_open():
    record = opened(records.CHECK)
    assert record["schema"] == 1
    assert record["run_id"] == "20261120T101500Z-check"
    assert record["started"] == "2026-11-20T10:15:00Z"
    assert record["status"] == "running"


@pytest.mark.parametrize("run_id", ["../x", "a b", "-x", "x" * 65])
def test_run_id_is_a_file_name(run_id):
    with pytest.raises(HostError, match=r"llm-01: run_id is .*Leave run_id out"):
        records.open_record(START, host="llm-01", mode="real", run_id=run_id)


def test_phase():
    record = filled()
    phase = record["phases"][0]
    assert (phase["status"], phase["verdict"], phase["changed"]) == ("ok", "PASS", 1)
    assert (phase["offset_seconds"], phase["seconds"]) == (1.0, 4.0)
    assert record["plan"] == [
        {
            "phase": "storage",
            "role": "storage",
            "step": "mount",
            "target": "",
            "action": "Mount",
        }
    ]
    assert record["verdicts"] == [{"phase": "storage", **PASS}]


def test_a_record_is_never_changed_in_place():
    record = opened()
    records.start_phase(record, "storage", at(1))
    assert record["phases"] == []


def test_dry_and_real_run_have_the_same_signature():
    assert records.signature(filled(records.CHECK)) == records.signature(filled())


def test_a_dry_phase_has_no_verdict_of_its_own():
    assert filled(records.CHECK)["phases"][0]["verdict"] == records.PLAN


def test_a_result_that_is_still_there_is_not_recorded_twice():
    steps = [("storage", "mount", {"changed": True})]
    record = records.end_phase(filled(), "harden", at(9), steps=steps, verdicts=[PASS])
    assert record["changed"] == 1
    assert len(record["verdicts"]) == 1


def test_a_phase_begun_again_starts_from_nothing():
    record = records.start_phase(filled(), "storage", at(9))
    assert (record["plan"], record["verdicts"]) == ([], [])
    steps = [("storage", "mount", {"changed": True})]
    assert records.end_phase(record, "storage", at(10), steps=steps)["changed"] == 1


def test_close():
    record = records.close(filled(), at(7), {"mounts": [1]})
    assert (record["status"], record["verdict"], record["seconds"]) == ("ok", "PASS", 7.0)
    assert record["state"] == {"before": {"mounts": []}, "after": {"mounts": [1]}}


def test_failure_stays_the_first_one():
    record = records.end_phase(opened(), "storage", at(2), failed=True)
    record = records.fail(record, "storage", {"task": "copy", "message": "digest differs"})
    record = records.fail(record, "harden", {"task": "other", "message": "other"})
    record = records.close(record, at(3))
    assert record["failure"] == {"phase": "storage", "task": "copy", "message": "digest differs"}
    assert (record["status"], record["verdict"]) == ("failed", "FAIL")


def test_a_run_that_was_killed_is_closed_as_failed():
    record = records.close(records.start_phase(opened(), "models", at(1)), at(2))
    assert record["status"] == "failed"
    assert record["phases"][0]["status"] == "failed"


def test_attach_merges_dicts_and_replaces_the_rest():
    record = records.attach(opened(), {"backup": {"path": "/b"}, "benchmark": [1]})
    record = records.attach(record, {"backup": {"bytes": 4}, "benchmark": [2]})
    assert record["data"] == {"backup": {"path": "/b", "bytes": 4}, "benchmark": [2]}


def directory(path, **access):
    item = {"changed": True, "ansible_loop_var": "d", "d": path}
    return {"changed": True, "results": [{**item, "invocation": {"module_args": access}}]}


@pytest.mark.parametrize(("mode", "wanted"), [(records.CHECK, 1), (records.REAL, 2)])
def test_a_dry_run_predicts_a_path_once(mode, wanted):
    steps = [("one", "directories", directory("/opt/x")), ("two", "dirs", directory("/opt/x"))]
    record = records.end_phase(opened(mode), "prepare", at(1), steps=steps)
    assert record["changed"] == wanted


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ({"owner": "root", "mode": "0755"}, {"mode": "0755"}, 1),
        ({"owner": "root", "mode": "0755"}, {"owner": "hxmon", "mode": "0755"}, 2),
        ({}, {"owner": "hxmon"}, 2),
        ({"mode": "0755"}, {"mode": "u+rwx"}, 1),
        ({"owner": "root"}, {"owner": None}, 1),
    ],
)
def test_a_dry_run_predicts_another_owner(first, second, wanted):
    steps = [
        ("one", "directories", directory("/opt/x", **first)),
        ("two", "dirs", directory("/opt/x", **second)),
    ]
    record = records.end_phase(opened("check"), "prepare", at(1), steps=steps)
    assert record["changed"] == wanted


def made(path, access, action="make_directory"):
    """Return what host_files says of a directory that it makes, or puts right."""
    step = {"action": action, "target": path, "access": access}
    return {"changed": True, "plan": [step], "actions": [f"Make the directory {path} for {access}"]}


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        (made("/opt/x", "root:root 0755"), made("/opt/x", "root:root 0755"), 1),
        (made("/opt/x", "root:root 0755"), made("/opt/x", "root:hxmon 0755"), 2),
        (made("/opt/x", "root:root 0755", "permissions"),
         made("/opt/x", "root:root 0755", "permissions"), 1),
        (made("/opt/x", "root:root 0755"), made("/opt/x", "root:root 0750"), 2),
        (made("/opt/x", "root:root 0755"), directory("/opt/x", mode="u+rwx"), 1),
        (made("/opt/x", "root:root 0755"), directory("/opt/x", owner="hxmon"), 2),
        (directory("/opt/x", owner="root", mode="0755"), made("/opt/x", "root:root 0755"), 2),
        (directory("/opt/x", owner="root", group="root", mode="0755"),
         made("/opt/x", "root:root 0755"), 1),
    ],
)  # fmt: skip
def test_a_dry_run_predicts_a_directory_once_whoever_makes_it(first, second, wanted):
    steps = [("one", "directories", first), ("two", "files", second)]
    for mode, changed in ((records.CHECK, wanted), (records.REAL, 2)):
        record = records.end_phase(opened(mode), "prepare", at(1), steps=steps)
        assert record["changed"] == changed


def test_a_dry_run_keeps_every_action_of_a_module_on_one_path():
    plan = [{"action": "chown", "target": "/opt/x"}, {"action": "chmod", "target": "/opt/x"}]
    own = {"changed": True, "plan": plan, "actions": ["Own /opt/x.", "Close /opt/x."]}
    steps = [("one", "directories", directory("/opt/x")), ("two", "audit", own)]
    assert records.end_phase(opened("check"), "prepare", at(1), steps=steps)["changed"] == 3


def failed():
    failure = {"task": "Link", "message": "no", "drained": True, "next_step": "Look."}
    return records.fail(filled(), "harden", failure)


def test_what_became_of_the_host_corrects_what_the_failure_said():
    record = records.corrected(failed(), False, "It takes requests again.")
    assert record["failure"]["drained"] is False
    assert record["failure"]["next_step"] == "It takes requests again."
    assert record["status"] == "failed"


@pytest.mark.parametrize("record", [filled(), failed()], ids=["no-failure", "nothing-known"])
def test_nothing_is_corrected_without_a_failure_or_without_news(record):
    assert records.corrected(record, None, "x") == record
    assert records.corrected(filled(), True, "x") == filled()
