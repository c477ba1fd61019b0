# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module of the same name and shows the open streams while a drain waits for them."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.hx_infra.llm.plugins.plugin_utils._progress import run_with_progress

MODULE = "hx_infra.llm.gateway_traffic"
BUDGET_S = 900.0  # the module's own defaults
RELOAD_WAIT_S = 60.0
GRACE_S = 150.0  # for the lock, the commands, and streams that are cut


class ActionModule(ActionBase):
    """Run a drain that waits as a job, and everything else at once."""

    _supports_check_mode = True
    _supports_async = False
    _supports_diff = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        args = dict(self._task.args)
        if not args.get("gateway"):
            args["gateway"] = str(
                self._task.delegate_to or variables.get("inventory_hostname", "localhost")
            )
        budget = _seconds(args.get("budget"), BUDGET_S)
        if args.get("state") != "drained" or budget <= 0:
            return self._execute_module(module_name=MODULE, module_args=args, task_vars=variables)
        return run_with_progress(
            self,
            MODULE,
            args,
            variables,
            deadline_s=budget + _seconds(args.get("reload_wait"), RELOAD_WAIT_S) + GRACE_S,
            render=render_drain,
        )


def _seconds(value: Any, default: float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):  # the module says what is wrong with it
        return default


def render_drain(state: dict[str, Any]) -> str:
    """Say which host is drained, how many streams are left, and how long they still have."""
    parts = [f"{state.get('phase') or 'draining'} {state.get('item') or ''}".strip()]
    if state.get("note"):
        parts.append(str(state["note"]))
    done, total = state.get("done"), state.get("total")
    if done is not None and total is not None:
        parts.append(f"{max(0.0, total - done):.0f} s left")
    return " | ".join(parts)
