# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module of the same name and shows how far its downloads are."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.hx_infra.llm.plugins.plugin_utils._progress import run_with_progress

MODULE = "hx_infra.llm.model_files"
DEADLINE_S = 7200  # the module's own default
GRACE_S = 1800  # the module stops downloading at its deadline; reading what is there comes on top


class ActionModule(ActionBase):
    _supports_check_mode = True
    _supports_async = False
    _supports_diff = True
    _requires_connection = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        try:
            deadline_s = float(arguments.get("deadline_s", DEADLINE_S))
        except ValueError:  # the module says what is wrong with it
            deadline_s = DEADLINE_S
        result.update(
            run_with_progress(
                self, MODULE, arguments, task_vars or {}, deadline_s=deadline_s + GRACE_S
            )
        )
        return result
