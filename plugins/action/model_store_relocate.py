# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Show how far the copy of a model store is."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.hx_infra.llm.plugins.plugin_utils._progress import run_with_progress

MODULE = "hx_infra.llm.model_store_relocate"
DEADLINE_S = 24 * 3600.0  # a full disk of 8 TB at 100 MB/s; the engine works meanwhile


class ActionModule(ActionBase):
    """Run the module as a job and follow its progress file."""

    _supports_check_mode = True
    _supports_async = False
    _supports_diff = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        args = dict(self._task.args)
        args.setdefault("host", variables.get("inventory_hostname"))
        return run_with_progress(self, MODULE, args, variables, deadline_s=DEADLINE_S)
