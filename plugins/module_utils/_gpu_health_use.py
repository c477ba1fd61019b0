# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Rules for how a card is set up, who uses it, and whether a program can compute on it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_check import (
    LESSER,
    MISSED,
    PASS,
    UNKNOWN,
    Case,
    Found,
    Gpu,
    finding,
    limit_of,
    no_reading,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_host import without_part
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_memory import (
    kept_mode,
    mode_word,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_checks import (
    FIX_CONFIG,
    INFO,
    REBOOT,
    RESET_GPU,
)

PROHIBITED = "prohibited"
NOT_ASKED = "it was not asked for"  # how gpu_host_info says that it was told not to try
OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY, cuda.h
CONTEXT_BYTES = 1024**3  # with less free than this a context may find no room
UNIT_TYPE = re.compile(r"\.(?:service|scope|socket|mount|swap)$")
SHORT_ID = 12  # digits of a container's identifier, as its engine lists it
FREE_LEAKED = "stop the engine and reset the GPU (nvidia-smi -r), else reboot"
ALLOW_UNIT = "stop the program, or allow its unit (units) or its name (more_processes)"
# How a child that tries CUDA ended: what to do next, and the sentence for it.
CUDA_REMEDIES = {
    "failed": ("", ""),
    "timeout": (REBOOT, "the driver hangs: see journalctl -k for Xid messages, then reboot"),
    "no_library": (FIX_CONFIG, "install the driver's libcuda.so.1 (Debian: libcuda1)"),
}


def judge_setup(case: Case, gpu: Gpu) -> Found:
    """Judge the card's modes."""
    return [*_persistence(case, gpu), *_mig(case, gpu), *_compute_mode(case, gpu)]


def judge_use(case: Case, gpu: Gpu) -> Found:
    """Judge who uses the card."""
    return [*_foreign(case, gpu), *_graphics(case, gpu)]


def judge_cuda(case: Case) -> Found:
    """Judge whether a program can compute: one outcome per GPU, or one for the host."""
    check, host = "gpu_cuda", case.host
    if host is None:
        return []
    cuda = host.get("cuda")
    if not cuda or not cuda.get("state"):
        return without_part(case, check, host, "cuda")
    state, message = str(cuda["state"]), str(cuda.get("message") or "")
    if case.facts["state"] != "ok" and state != "ok":
        return []  # what is wrong with the driver is said by gpu_driver
    if state == "not_tried":
        outcome = INFO if message == NOT_ASKED else UNKNOWN
        return finding(case, check, outcome, state, subject="CUDA", evidence=message)
    tried: Sequence[Mapping[str, Any]] = cuda.get("gpus") or []
    if state != "ok" and all(item.get("ok") for item in tried):
        action, remedy = CUDA_REMEDIES.get(state, ("", ""))
        return finding(
            case, check, MISSED, state, subject="CUDA", limit="ok", evidence=message,
            action=action, remedy=remedy,
        )  # fmt: skip
    found: Found = []
    for gpu in case.working:
        found += _cuda_of(case, gpu, cuda)
    return found


def is_allowed(name: str, allowed: Sequence[str]) -> bool:
    """Tell whether a program is among the allowed names or patterns."""
    program = name.split(" ", maxsplit=1)[0].rsplit("/", 1)[-1]  # runners add words to their title
    return any(fnmatchcase(text, pattern) for pattern in allowed for text in (program, name))


def _cuda_of(case: Case, gpu: Gpu, cuda: Mapping[str, Any]) -> Found:
    check, uuid = "gpu_cuda", _bare(gpu.get("uuid"))
    entry = next((item for item in cuda.get("gpus") or [] if _is_of(item, gpu, uuid)), None)
    if entry is None and cuda["state"] != "ok":
        evidence = f"not tried: {cuda.get('message') or 'no reason given'}"
        return finding(case, check, UNKNOWN, gpu=gpu, limit="ok", evidence=evidence)
    if entry is None and mode_word(gpu.get("mig_mode")) == "enabled":
        evidence = "divided into instances, which CUDA lists in its place"
        return finding(case, check, INFO, "divided", gpu=gpu, evidence=evidence)
    if entry is None:
        evidence = "CUDA does not list this GPU"
        return finding(case, check, MISSED, "not listed", gpu=gpu, limit="ok", evidence=evidence)
    if entry.get("ok"):
        took = entry.get("milliseconds")
        words = "context made, memory copied and compared"
        evidence = words if took is None else f"{words} in {took:.0f} ms"
        return finding(case, check, PASS, "ok", gpu=gpu, limit="ok", evidence=evidence)
    message = str(entry.get("message") or "no reason given")
    busy = _busy(gpu, entry)
    if busy:
        return finding(case, check, INFO, "busy", gpu=gpu, evidence=f"{busy}: {message}")
    return finding(case, check, MISSED, "failed", gpu=gpu, limit="ok", evidence=message)


def _is_of(entry: Mapping[str, Any], gpu: Gpu, uuid: str) -> bool:
    """Tell whether a try was of a GPU; one that never came to an answer has a number only."""
    if entry.get("uuid") and uuid:
        return _bare(entry["uuid"]) == uuid
    return entry.get("index") == gpu["index"]


def _busy(gpu: Gpu, entry: Mapping[str, Any]) -> str:
    """Say why a card at work can't be tried; empty when that is not what was in the way."""
    total, used = gpu.get("memory_total_bytes"), gpu.get("memory_used_bytes")
    known = total is not None and used is not None
    if entry.get("code") == OUT_OF_MEMORY and known and total - used < CONTEXT_BYTES:
        return "its memory is in use, so it could not be tried"
    if str(gpu.get("compute_mode", "")).startswith("exclusive") and gpu.get("processes"):
        return "another program has it for itself, so it could not be tried"
    return ""


def _bare(uuid: Any) -> str:
    return str(uuid or "").lower().removeprefix("gpu-")


def _persistence(case: Case, gpu: Gpu) -> Found:
    check, mode = "gpu_persistence", gpu.get("persistence_mode")
    if mode is None:
        return no_reading(case, check, gpu)
    daemon = (case.host or {}).get("persistence_daemon")
    evidence = f"nvidia-persistenced is {daemon}" if daemon else "the card's persistence mode"
    outcome = PASS if mode else MISSED
    if not mode and "GeForce" in f"{gpu.get('name')} {gpu.get('brand')}":
        outcome = LESSER  # off on healthy ones as they are installed: it costs time at a start only
    remedy = ""
    if daemon == "active":
        remedy = "nvidia-persistenced runs but keeps nothing awake: start it with persistence mode"
    return finding(
        case, check, outcome, mode_word(mode), gpu=gpu, limit="enabled", evidence=evidence,
        remedy=remedy,
    )  # fmt: skip


def _mig(case: Case, gpu: Gpu) -> Found:
    return kept_mode(case, "gpu_mig", gpu, "MIG", option="-mig", reset="reset the GPU")


def _compute_mode(case: Case, gpu: Gpu) -> Found:
    check, mode = "gpu_compute_mode", gpu.get("compute_mode")
    if mode is None:
        return no_reading(case, check, gpu)
    wanted = limit_of(case, check)
    if mode == PROHIBITED:
        evidence = "no program may compute on this card"
        return finding(case, check, MISSED, mode, gpu=gpu, limit=wanted, evidence=evidence)
    outcome = PASS if wanted in (None, mode) else LESSER
    return finding(
        case, check, outcome, mode, gpu=gpu, limit=wanted, evidence="the policy's compute mode"
    )


def _foreign(case: Case, gpu: Gpu) -> Found:
    check = "gpu_foreign_processes"
    if "processes" not in gpu:
        return no_reading(case, check, gpu)
    computing = [item for item in gpu["processes"] if "C" in item.get("type", "C")]
    leaked = [_label(item) for item in computing if item.get("gone")]
    foreign = [item for item in computing if not item.get("gone") and not _may_compute(case, item)]
    found: Found = []
    if leaked:
        found += finding(
            case, check, MISSED, leaked, gpu=gpu, limit=[], action=RESET_GPU, remedy=FREE_LEAKED,
            evidence="contexts of processes that are gone",
        )  # fmt: skip
    if foreign or not leaked:
        found += finding(
            case, check, MISSED if foreign else PASS, [_label(item) for item in foreign],
            gpu=gpu, limit=[*(case.units or case.allowed), *case.more],
            evidence=_of_units(case, foreign), remedy=ALLOW_UNIT if case.units else "",
        )  # fmt: skip
    return found


def _may_compute(case: Case, process: Mapping[str, Any]) -> bool:
    """Tell whether a process is the engines', or a program that the operators allow beside them.

    A program can have any name, so the unit decides where it is known.
    """
    name, unit = str(process.get("name") or ""), _unit_of(process)
    if is_allowed(name, case.more):
        return True
    if not case.units or not unit:
        return is_allowed(name, case.allowed)
    return unit in {_full_name(declared) for declared in case.units}


def _unit_of(process: Mapping[str, Any]) -> str:
    container = str(process.get("container") or "")
    return str(process.get("unit") or (f"container {container}" if container else ""))


def _full_name(unit: str) -> str:
    return unit if UNIT_TYPE.search(unit) else f"{unit}.service"


def _of_units(case: Case, foreign: Sequence[Mapping[str, Any]]) -> str:
    """Say what was looked at, and of which programs the name alone would have passed."""
    evidence = "programs that compute on the GPU"
    if not any(is_allowed(str(item.get("name") or ""), case.allowed) for item in foreign):
        return evidence
    return f"{evidence}; outside of {', '.join(case.units)} an engine's name does not count"


def _graphics(case: Case, gpu: Gpu) -> Found:
    check = "gpu_graphics_processes"
    if "processes" not in gpu:
        return no_reading(case, check, gpu)
    allowed = limit_of(case, check) or ()
    drawing = _named(gpu, lambda kind: "G" in kind, allowed)
    outcome = MISSED if drawing else PASS
    return finding(
        case, check, outcome, drawing, gpu=gpu, limit=list(allowed),
        evidence="programs that draw on the GPU",
    )  # fmt: skip


def _named(gpu: Gpu, is_kind: Any, allowed: Sequence[str]) -> list[str]:
    return [
        _label(process)
        for process in gpu["processes"]
        if is_kind(process.get("type", "C")) and not is_allowed(process.get("name") or "", allowed)
    ]


def _label(process: Mapping[str, Any]) -> str:
    """Name a process: program, number, unit and user, as far as they are known."""
    words = [f"pid {process['pid']}"]
    unit, container = _unit_of(process), str(process.get("container") or "")
    if unit:
        words.append(unit.replace(container, container[:SHORT_ID]) if container else unit)
    if process.get("user"):
        words.append(f"user {process['user']}")
    name = process.get("name") or "unnamed"
    if process.get("gone"):
        name = "a process that is gone"
    return f"{name} ({', '.join(words)})"
