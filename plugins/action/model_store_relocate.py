# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module of the same name and shows how far the copy of a model store is."""

from __future__ import annotations

from typing import Any

from ansible_collections.hx_infra.llm.plugins.plugin_utils._progress_action import ProgressAction


class ActionModule(ProgressAction):
    module_name = "hx_infra.llm.model_store_relocate"
    deadline_s = 24 * 3600.0  # a full disk of 8 TB at 100 MB/s; the engine works meanwhile

    def _arguments(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"host": variables.get("inventory_hostname"), **self._task.args}
