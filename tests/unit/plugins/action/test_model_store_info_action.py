# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.hx_infra.llm.plugins.action import model_store_info as action
from ansible_collections.hx_infra.llm.plugins.modules import model_store_info as module
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _progress_action as base

GRACE_S = action.ActionModule.grace_s


@pytest.mark.parametrize(
    ("args", "how", "deadline_s"),
    [
        ({}, "direct", 0),
        ({"verify": "none"}, "direct", 0),
        ({"verify": "changed"}, "job", 14400 + GRACE_S),
        ({"verify": "full", "deadline_s": "60"}, "job", 60 + GRACE_S),
        ({"verify": "full", "deadline_s": "soon"}, "job", 14400 + GRACE_S),
        ({"verify": "full", "deadline_s": None}, "job", 14400 + GRACE_S),
    ],
)
def test_only_what_reads_blobs_is_a_job(
    monkeypatch: pytest.MonkeyPatch, args: dict[str, Any], how: str, deadline_s: float
) -> None:
    made: list[Any] = []

    def job(_self: Any, _name: str, args: dict[str, Any], _vars: Any, **how: Any) -> dict:
        made.append(("job", args, how["deadline_s"]))
        return {"changed": False, "findings": []}

    def direct(_self: Any, module_args: dict[str, Any], **_how: Any) -> dict:
        made.append(("direct", module_args, 0.0))
        return {"changed": False, "findings": []}

    monkeypatch.setattr(base, "run_with_progress", job)
    monkeypatch.setattr(action.ActionModule, "_execute_module", direct)
    monkeypatch.setattr(base.ActionBase, "run", lambda *_args: {})
    plugin = action.ActionModule.__new__(action.ActionModule)
    plugin._task = SimpleNamespace(args={"store": "/x", **args})
    assert plugin.run(task_vars={})["findings"] == []
    assert made == [(how, {"store": "/x", **args}, deadline_s)]


def test_the_deadline_is_the_modules() -> None:
    assert module.ARGUMENT_SPEC["deadline_s"]["default"] == action.ActionModule.deadline_s
