# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module of the same name and shows how far its pulls are."""

from __future__ import annotations

from ansible_collections.hx_infra.llm.plugins.plugin_utils._progress_action import ProgressAction


class ActionModule(ProgressAction):
    module_name = "hx_infra.llm.model_catalog"
    deadline_s = 7200.0  # the module's own default
    grace_s = 120.0  # the module ends by itself at its deadline, has then to clean up and verify
