# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Whether CUDA works on each GPU for a service's account, tried by a child that can be killed."""

from __future__ import annotations

import inspect
import json
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_cuda_child
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import Host, said
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_nodes import Account
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome, json_line

STATES = ("ok", "failed", "timeout", "no_library", "not_tried")


def not_tried(message: str) -> dict[str, Any]:
    """Return the result of a try that wasn't made."""
    return {"state": "not_tried", "message": message, "gpus": []}


def try_cuda(
    host: Host, python: str, who: Account | None, no_new_privileges: bool
) -> dict[str, Any]:
    """Try every GPU as an account.

    Args:
        host: how to run programs.
        python: any interpreter with ctypes.
        who: whom to be; none stands for the present user.
        no_new_privileges: whether the service can't start set-user-ID programs.
    """
    settings = {
        "account": who.as_dict() if who else None,
        "no_new_privileges": no_new_privileges,
    }
    program = inspect.getsource(_gpu_cuda_child)
    outcome = host.call(python, "-I", "-B", "-c", program, json.dumps(settings))
    return from_lines(outcome, host.timeout_s)


def from_lines(outcome: Outcome, timeout_s: float) -> dict[str, Any]:
    """Turn what the child printed, all of it or only the beginning, into ``state`` and ``gpus``."""
    gpus: list[dict[str, Any]] = []
    step: dict[str, Any] = {}
    done = False
    for line in outcome.out.splitlines():
        entry = json_line(line)
        if "error" in entry:
            error = entry["error"]
            result = {"state": error["state"], "message": error["message"], "gpus": gpus}
            return {**result, "code": error["code"]} if "code" in error else result
        if "gpu" in entry:
            gpus.append(entry["gpu"])
            step = {}
        elif "step" in entry:
            step = entry
        done = done or bool(entry.get("done"))
    if done and not gpus:
        return {"state": "failed", "message": "CUDA sees no GPU", "gpus": gpus}
    if done:
        bad = [f"GPU {gpu['index']}: {gpu['message']}" for gpu in gpus if not gpu["ok"]]
        return {"state": "failed" if bad else "ok", "message": "; ".join(bad), "gpus": gpus}
    return _cut_short(outcome, gpus, step, timeout_s)


def _cut_short(
    outcome: Outcome, gpus: list[dict[str, Any]], step: dict[str, Any], timeout_s: float
) -> dict[str, Any]:
    """Say of a child that did not come to its end where it was."""
    where = step.get("step", "its start")
    if outcome.timed_out:
        state, message = "timeout", f"{where} did not return within {timeout_s:g} s"
    elif not step and not gpus:
        return not_tried(said(outcome, "the child that tries CUDA", timeout_s))
    elif outcome.rc is not None and outcome.rc < 0:
        state, message = "failed", f"signal {-outcome.rc} ended the child in {where}"
    else:
        state, message = "failed", f"the child ended with status {outcome.rc} in {where}"
    if "index" in step:
        message = f"GPU {step['index']}: {message}"
        gpus = [*gpus, {"index": step["index"], "ok": False, "message": message, "call": where}]
    return {"state": state, "message": message, "gpus": gpus}
