# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Registered results: plan entries, verdicts, figures."""

from __future__ import annotations

import json

import pytest

from ansible_collections.hx_infra.llm.plugins.plugin_utils import _run_results as results


def item(value, **more):
    return {"changed": True, "ansible_loop_var": "item", "item": value, **more}


def told(step, result):
    return [(entry["target"], entry["action"]) for entry in results.entries_in(step, result)]


@pytest.mark.parametrize(
    ("result", "wanted"),
    [
        pytest.param({"changed": False}, [], id="nothing changed"),
        pytest.param({"changed": True, "skipped": True}, [], id="skipped"),
        pytest.param({"changed": True, "dest": "/a"}, [("", "Unit file")], id="builtin"),
        pytest.param(
            {"changed": True, "results": [item("/a"), item({"path": "/b"}), item({"x": 1})]},
            [("/a", "Unit file: /a"), ("/b", "Unit file: /b"), ("", "Unit file")],
            id="loop",
        ),
        pytest.param(
            {"changed": True, "results": [{**item("/a"), "changed": False}, item("/b")]},
            [("/b", "Unit file: /b")],
            id="loop, one unchanged",
        ),
        pytest.param(
            {"changed": True, "actions": ["Make x."], "plan": [{"action": "make", "target": "x"}]},
            [("x", "Make x.")],
            id="module with sentences",
        ),
        pytest.param(
            {"changed": True, "actions": [], "plan": [{"action": "make", "target": "x"}]},
            [("x", "make x")],
            id="module with a plan only",
        ),
        pytest.param(
            {"changed": True, "actions": ["Make x.", "Make y."]},
            [("", "Make x."), ("", "Make y.")],
            id="module with sentences only",
        ),
        pytest.param(
            {"changed": False, "actions": ["Make x."], "plan": [{"action": "make"}]},
            [],
            id="a plan that was only looked at",
        ),
        pytest.param(
            {"failed": True, "actions": ["Make x."], "plan": [{"action": "make", "target": "x"}]},
            [("x", "Make x.")],
            id="failed on the way",
        ),
        pytest.param(
            {
                "changed": True,
                "actions": ["Pull b."],
                "plan": [{"action": "adopt", "target": "a"}, {"action": "pull", "target": "b"}],
            },
            [("b", "Pull b.")],
            id="a plan with something that is left alone",
        ),
        pytest.param({"failed": True, "msg": "no"}, [], id="failed without a plan"),
        pytest.param(
            {"changed": True, "results": [{"model": "a"}], "actions": ["Measure a."]},
            [("", "Measure a.")],
            id="results that are no loop",
        ),
    ],
)
def test_entries(result, wanted):
    assert told("unit_file", result) == wanted


def test_entries_do_not_depend_on_what_a_builtin_says_of_itself():
    # In check mode copy and template leave out their destination.
    check = {"changed": True}
    real = {"changed": True, "dest": "/etc/systemd/system/x.service", "checksum": "1"}
    assert told("unit_file", check) == told("unit_file", real)


def test_details_and_verb_are_kept():
    plan = [{"action": "prune", "target": "s", "bytes": 5}]
    entry = results.entries_in("s", {"changed": True, "actions": ["Remove s."], "plan": plan})[0]
    assert (entry["verb"], entry["details"]) == ("prune", {"bytes": 5})


def test_steps_and_verdicts_of_a_role():
    variables = {
        "__demo_result_b": {"changed": True},
        "__demo_result_a": {"changed": False},
        "__demo_map": {"verdicts": [{"check": "c", "status": "PASS"}, {"no": "verdict"}]},
        "__demonstration_result_x": {"changed": True},
        "__demo_result_text": "no result",
    }
    assert list(results.steps_of_role("demo", variables)) == ["b", "a"]
    assert results.verdicts_of_role("demo", variables) == [{"check": "c", "status": "PASS"}]


@pytest.mark.parametrize("first", ["timers", "timers_predicted"])
def test_a_step_that_predicts_counts_as_the_step_itself(first):
    second = {"timers": "timers_predicted", "timers_predicted": "timers"}[first]
    variables = {
        f"__demo_result_{first}": {"changed": False, "skipped": True},
        f"__demo_result_{second}": {"changed": True},
    }
    for order in (variables, dict(reversed(variables.items()))):
        assert results.steps_of_role("demo", order) == {"timers": {"changed": True}}


def test_figures():
    variables = {
        "__demo_result_backup": {"archive": "/b.tgz", "size_bytes": 7},
        "__demo_move": {"interruption": {"stop": 1.0, "total": 2.5}},
        "__demo_bench": {"benchmark": [{"model": "a"}]},
        "__demo_result_load": {"benchmark": [{"model": "a"}]},
        "__demo_empty": {"benchmark": [], "interruption": {"total": 0.0}, "archive": ""},
    }
    assert results.figures_of_role("demo", variables) == {
        "backup": {"path": "/b.tgz", "bytes": 7},
        "interruption": {"seconds": 2.5},
        "benchmark": [{"series": "bench", "model": "a"}, {"series": "load", "model": "a"}],
    }


@pytest.mark.parametrize(
    ("result", "wanted"),
    [
        ({"msg": "no space"}, "no space"),
        ({"msg": "ended with 1", "stderr": "mount: busy"}, "ended with 1\nmount: busy"),
        (
            {"results": [item("/a"), item("/b", failed=True, msg="denied")]},
            "/b: denied",
        ),
        ({}, "no message"),
        ("text", "text"),
    ],
)
def test_message(result, wanted):
    assert results.message_of(result) == wanted


def test_plain_values_can_be_written_as_json():
    class Marked(str):
        __slots__ = ()

    value = {Marked("a"): (Marked("b"), {1}, None, True, 1.5, b"x")}
    assert json.loads(json.dumps(results.plain(value))) == {"a": ["b", [1], None, True, 1.5, "x"]}
    assert results.plain(Marked("b")).__class__ is str
