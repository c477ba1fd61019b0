# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judge declared vLLM services by their schema on the controller, then plan them on the host."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_problem import message
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _vllm_schema

MODULE = "hx_infra.llm.vllm_plan"


class ActionModule(ActionBase):
    """Refuse what the schema refuses; hand the rest to the module."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        args = dict(self._task.args)
        args.setdefault("host", variables.get("inventory_hostname"))
        if _vllm_schema.IMPORT_ERROR is not None:
            raise AnsibleActionFail(
                "the Python package jsonschema is needed where Ansible runs:"
                f" {_vllm_schema.IMPORT_ERROR}. Install it there, or use an execution environment"
                " that was built with this collection"
            )
        problems = _vllm_schema.problems(args.get("services"))
        if problems:
            result.update(
                {
                    "failed": True,
                    "changed": False,
                    "msg": message(problems, str(args["host"])),
                    "problems": problems,
                    "actions": [],
                    "plan": [],
                }
            )
            return result
        result.update(self._execute_module(MODULE, module_args=args, task_vars=variables))
        return result
