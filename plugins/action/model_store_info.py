# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module of the same name and shows how far it has read the blobs."""

from __future__ import annotations

from typing import Any

from ansible_collections.hx_infra.llm.plugins.plugin_utils._progress_action import ProgressAction


class ActionModule(ProgressAction):
    module_name = "hx_infra.llm.model_store_info"
    deadline_s = 14400.0  # the module's own default
    grace_s = 120.0  # the module ends by itself at its deadline, and has then to write its result

    def _takes_long(self, arguments: dict[str, Any]) -> bool:
        return arguments.get("verify", "none") != "none"  # else it is over in a moment
