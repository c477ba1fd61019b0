# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What systemd and the kernel say about an engine's unit and where it reads its models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ansible_collections.hx_infra.llm.plugins.module_utils._procs import environment

RUNNING = ("active", "reloading", "activating")

Runner = Callable[[Sequence[str]], "tuple[int, str, str]"]


def unit_state(run: Runner, unit: str) -> str:
    """Return what ``systemctl is-active`` says; ``inactive`` when there is no unit to ask for."""
    if not unit:
        return "inactive"
    return run(["systemctl", "is-active", unit])[1].strip() or "unknown"


def engine_models_path(run: Runner, unit: str) -> str:
    """Return the directory from which the running engine reads its models; empty when unknown."""
    text = run(["systemctl", "show", "--property=MainPID", "--value", unit])[1].strip()
    if not text.isdigit() or text == "0":
        return ""
    variables = environment(int(text))
    if variables.get("OLLAMA_MODELS"):
        return variables["OLLAMA_MODELS"]
    return f"{variables['HOME']}/.ollama/models" if variables.get("HOME") else ""
