# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attributes that all modules of the collection state about themselves."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment ``hx_infra.llm.attributes``."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the plan that a real run would apply.
  diff_mode:
    description: Returns in C(diff) what was changed, or would be changed in check mode.
  idempotent:
    description: A second run with the same declaration changes nothing.
  platform:
    description: The systems that the module runs on.
    platforms: linux
    support: full
"""
