# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module of the same name and shows how far its downloads are."""

from __future__ import annotations

from ansible_collections.hx_infra.llm.plugins.plugin_utils._progress_action import ProgressAction


class ActionModule(ProgressAction):
    module_name = "hx_infra.llm.model_files"
    deadline_s = 7200.0  # the module's own default
    grace_s = 1800.0  # it stops downloading at its deadline; reading what is there comes on top
