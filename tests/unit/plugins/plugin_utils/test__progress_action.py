# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The actions that run their module as a job: which module, with what, and for how long."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.hx_infra.llm.plugins.plugin_utils import _progress_action as base

PLUGINS = "ansible_collections.hx_infra.llm.plugins"
HOST = {"host": "llm-01"}
# By action: what its task says, what the module gets on top, how long the controller waits.
CASES = [
    ("model_archive", {}, {}, 14400),
    ("model_archive", {"deadline_s": 30}, {}, 30),
    ("model_catalog", {}, {}, 7200 + 120),
    ("model_catalog", {"deadline_s": "60"}, {}, 60 + 120),
    ("model_files", {}, {}, 7200 + 1800),
    ("model_files", {"deadline_s": "60"}, {}, 60 + 1800),
    ("model_files", {"deadline_s": None}, {}, 7200 + 1800),
    ("model_store_info", {"verify": "full"}, {}, 14400 + 120),
    ("model_store_relocate", {}, HOST, 24 * 3600),
    ("model_store_relocate", {"host": "front"}, {}, 24 * 3600),
]


@pytest.mark.parametrize(("name", "args", "more", "wait_s"), CASES)
def test_a_job_of_the_module_of_the_same_name(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    args: dict[str, Any],
    more: dict[str, Any],
    wait_s: float,
) -> None:
    made: list[Any] = []

    def job(_self: Any, *asked: Any, deadline_s: float) -> dict[str, Any]:
        made.append((*asked, deadline_s))
        return {"changed": True}

    variables = {"inventory_hostname": "llm-01"}
    monkeypatch.setattr(base, "run_with_progress", job)
    monkeypatch.setattr(base.ActionBase, "run", lambda *_args: {"of": "Ansible"})
    plugin = import_module(f"{PLUGINS}.action.{name}").ActionModule
    action = plugin.__new__(plugin)
    action._task = SimpleNamespace(args=dict(args))
    assert action.run(task_vars=variables) == {"of": "Ansible", "changed": True}
    assert made == [(f"hx_infra.llm.{name}", {**args, **more}, variables, wait_s)]
    assert action._task.args == args


@pytest.mark.parametrize(
    "name", ["model_archive", "model_catalog", "model_files", "model_store_info"]
)
def test_the_deadline_is_the_modules(name: str) -> None:
    spec = import_module(f"{PLUGINS}.modules.{name}").ARGUMENT_SPEC
    plugin = import_module(f"{PLUGINS}.action.{name}").ActionModule
    assert plugin.deadline_s == spec["deadline_s"]["default"]
