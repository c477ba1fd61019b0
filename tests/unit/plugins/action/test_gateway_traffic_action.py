# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.hx_infra.llm.plugins.action import gateway_traffic as action
from ansible_collections.hx_infra.llm.plugins.modules import gateway_traffic as module


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any], float]]:
    made: list[tuple[str, dict[str, Any], float]] = []

    def job(_self: Any, _name: str, args: dict[str, Any], _vars: Any, **how: Any) -> dict:
        made.append(("job", args, how["deadline_s"]))
        return {"changed": True}

    def direct(_self: Any, module_args: dict[str, Any], **_how: Any) -> dict:
        made.append(("direct", module_args, 0.0))
        return {"changed": True}

    monkeypatch.setattr(action, "run_with_progress", job)
    monkeypatch.setattr(action.ActionModule, "_execute_module", direct)
    monkeypatch.setattr(action.ActionBase, "run", lambda *_args: {})
    return made


def run(delegate_to: str | None = None, **args: Any) -> None:
    plugin = action.ActionModule.__new__(action.ActionModule)
    plugin._task = SimpleNamespace(args=args, delegate_to=delegate_to)
    plugin.run(task_vars={"inventory_hostname": "llm-01"})


@pytest.mark.parametrize(
    ("args", "how", "deadline_s"),
    [
        ({"state": "drained"}, "job", 900 + 60 + action.GRACE_S),
        ({"state": "drained", "budget": "30", "reload_wait": 5}, "job", 35 + action.GRACE_S),
        ({"state": "drained", "budget": "soon"}, "job", 960 + action.GRACE_S),
        ({"state": "drained", "budget": 0}, "direct", 0),
        ({"state": "ready"}, "direct", 0),
        ({"state": "weighted", "weight": 3}, "direct", 0),
    ],
)
def test_only_a_drain_that_waits_is_a_job(
    calls: list[Any], args: dict[str, Any], how: str, deadline_s: float
) -> None:
    run(**args)
    assert calls == [(how, {**args, "gateway": "llm-01"}, deadline_s)]


def test_messages_name_the_gateway_that_is_asked(calls: list[Any]) -> None:
    run("gw-01", state="ready")
    run("gw-01", state="ready", gateway="front")
    assert [args["gateway"] for _how, args, _deadline in calls] == ["gw-01", "front"]


def test_defaults_are_the_modules() -> None:
    assert module.ARGUMENTS["budget"]["default"] == action.BUDGET_S
    assert module.ARGUMENTS["reload_wait"]["default"] == action.RELOAD_WAIT_S


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (
            {
                "item": "llm-01",
                "phase": "draining",
                "done": 3.2,
                "total": 900,
                "note": "2 open streams, 0 queued",
            },
            "draining llm-01 | 2 open streams, 0 queued | 897 s left",
        ),
        ({"item": "llm-01", "phase": "draining"}, "draining llm-01"),
    ],
)
def test_lines(state: dict[str, Any], line: str) -> None:
    assert action.render_drain(state) == line
