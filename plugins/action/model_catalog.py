# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module of the same name and shows how far its pulls are."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.hx_infra.llm.plugins.plugin_utils._progress import (
    read_deadline,
    run_with_progress,
)

MODULE = "hx_infra.llm.model_catalog"
DEADLINE_S = 7200  # the module's own default
GRACE_S = 120  # the module ends by itself at its deadline, and has then to clean up and verify


class ActionModule(ActionBase):
    _supports_check_mode = True
    _supports_async = False
    _requires_connection = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        deadline_s = read_deadline(arguments, DEADLINE_S)
        result.update(
            run_with_progress(
                self, MODULE, arguments, task_vars or {}, deadline_s=deadline_s + GRACE_S
            )
        )
        return result
