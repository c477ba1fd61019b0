# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""GPU facts from NVML, read by a child program that can be killed."""

from __future__ import annotations

import inspect
from typing import Any, Callable

from ansible_collections.hx_infra.llm.plugins.module_utils import (
    _gpu_nvml_child,
    _gpu_nvml_full,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome, json_line

SOURCE = "nvml"
FUTURE = "from __future__ import annotations\n"  # may stand at the beginning of a program only

Run = Callable[[list[str], float], Outcome]


def read_nvml(python: str, timeout_s: float, run: Run) -> dict[str, Any]:
    """Run the reader with the given interpreter and return the facts.

    The program travels as text, so that nothing has to be installed on the host for it.
    """
    outcome = run([python, "-I", "-B", "-c", program(), "--set", "full"], timeout_s)
    return facts_from_lines(outcome, python, timeout_s)


def program() -> str:
    """Return the text of the reader that knows all readings: one text of two."""
    child = inspect.getsource(_gpu_nvml_child).replace(FUTURE, "", 1)
    return inspect.getsource(_gpu_nvml_full) + child


def facts_from_lines(outcome: Outcome, python: str, timeout_s: float) -> dict[str, Any]:
    """Turn what the reader printed, all of it or only the beginning, into facts."""
    facts: dict[str, Any] = {
        "state": "ok",
        "source": SOURCE,
        "driver": {},
        "gpus": [],
        "errors": [],
        "notes": [],
    }
    reading: int | None = None
    done = False
    expected = None
    for line in outcome.out.splitlines():
        entry = json_line(line)
        if "error" in entry:
            return _failed(facts, entry["error"]["state"], entry["error"])
        if "driver" in entry:
            facts["driver"], expected = entry["driver"], entry.get("count")
            facts["notes"] = entry.get("notes", [])
            if "package" in entry:
                facts["driver"]["package"] = entry["package"]
        reading = entry.get("reading", reading)
        if "gpu" in entry:
            facts["gpus"].append(entry["gpu"])
            reading = None
        done = done or bool(entry.get("done"))
    if outcome.timed_out:
        where = "the driver" if reading is None else f"GPU {reading}"
        message = f"NVML did not answer within {timeout_s:g} s while reading {where}"
        return _failed(facts, "timeout", {"message": message})
    if not done:
        last = outcome.err.strip().splitlines()[-1:] or ["it printed nothing"]
        message = f"the NVML reader ended with status {outcome.rc}: {last[0]}"
        # 127: no such interpreter; before the first answer nothing is known of the driver
        return _failed(facts, "error" if facts["driver"] else "no_reader", {"message": message})
    if not expected:
        return _failed(facts, "no_gpu", {"message": "the driver sees no GPU"})
    return facts


def _failed(facts: dict[str, Any], state: str, error: dict[str, Any]) -> dict[str, Any]:
    facts["state"] = state
    entry = {"source": SOURCE, "state": state, "message": error["message"].rstrip(".")}
    if error.get("code") is not None:
        entry["code"] = error["code"]
    facts["errors"].append(entry)
    return facts
