# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of the modules that read the GPUs."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment ``hx_infra.llm.gpu_reader``."""

    DOCUMENTATION = r"""
options:
  source:
    description:
      - Where the readings come from. V(nvml) needs O(python), V(nvidia-smi) that program.
      - V(auto) asks NVML, and C(nvidia-smi) only where NVML's Python binding can't be had. When the
        driver itself doesn't work, no second source is asked.
    type: str
    choices: [auto, nvml, nvidia-smi]
    default: auto
  python:
    description:
      - Interpreter on the host that has the package C(nvidia-ml-py), such as the one of the
        telemetry's virtual environment. It may be named before it exists.
    type: path
  timeout_s:
    description:
      - Seconds that a source may take. It runs in a process of its own, which is killed then, so
        that a driver that hangs doesn't hang the task.
    type: float
    default: 30.0
"""
