# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""One way to read the GPUs, whichever source a host has."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_nvml import read_nvml
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_smi import read_smi

SOURCES = ("auto", "nvml", "nvidia-smi")
# These say nothing about the driver, only that this way of asking it is not there.
NOT_ASKED = frozenset({"no_binding", "no_reader"})
STATES = (
    "ok",
    "no_gpu",
    "driver_not_loaded",
    "library_missing",
    "version_mismatch",
    "no_permission",
    "timeout",
    "no_binding",
    "no_reader",
    "error",
)

READER_SPEC: dict[str, dict[str, Any]] = {
    "source": {"type": "str", "choices": list(SOURCES), "default": "auto"},
    "python": {"type": "path"},
    "timeout_s": {"type": "float", "default": 30.0},
}

Run = Callable[[list[str], float], Outcome]


def read_gpus(
    source: str, python: str | None, smi: str | None, timeout_s: float, run: Run
) -> dict[str, Any]:
    """Read the GPUs from NVML, from nvidia-smi, or from NVML first and nvidia-smi instead.

    Args:
        source: one of ``SOURCES``.
        python: an interpreter that has nvidia-ml-py; none when the host has no such.
        smi: path of nvidia-smi; none when the host has no such.
        timeout_s: how long each source may take.
        run: runs a program under a deadline.

    Returns the facts that the module ``gpu_info`` documents; a driver that is missing, broken or
    silent is among them and no error.
    """
    missed: list[dict[str, Any]] = []
    if source in ("auto", "nvml"):
        if python:
            facts = read_nvml(python, timeout_s, run)
        else:
            facts = _no_reader("nvml", "no interpreter with nvidia-ml-py was named")
        if source == "nvml" or facts["state"] not in NOT_ASKED:
            return facts
        missed = facts["errors"]
    if smi:
        facts = read_smi(smi, timeout_s, run)
    else:
        facts = _no_reader("nvidia-smi", "nvidia-smi is not installed")
    facts["errors"] = missed + facts["errors"]
    return facts


def _no_reader(source: str, message: str) -> dict[str, Any]:
    error = {"source": source, "state": "no_reader", "message": message}
    return {
        "state": "no_reader",
        "source": "none",
        "driver": {},
        "gpus": [],
        "errors": [error],
        "notes": [],
    }
