# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Rules for a card's memory, its errors, and what the driver asks for because of them.

Most of these readings exist on data-centre cards only; on GeForce cards their checks are N/A.
"""

from __future__ import annotations

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
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_checks import (
    FIX_CONFIG,
    INFO,
    REBOOT,
    RESET_GPU,
    SERVICE,
)

DOUBLE_BIT_PAGES = 15  # more of them are a sign of a failing card: NVIDIA/DCGM
SMALL_BAR1 = 0.5  # of the memory; with resizable BAR it is as large as the memory

# Values of NVML's field 230: what the driver asks for, and what that means for an operator.
RECOVERY_ACTIONS = {
    0: ("none", ""),
    1: ("GPU reset", RESET_GPU),
    2: ("reboot", REBOOT),
    3: ("drain P2P", RESET_GPU),
    4: ("drain and reset", RESET_GPU),
    5: ("IMEX", SERVICE),
    6: ("bus reset", RESET_GPU),
    7: ("reboot", REBOOT),
}
DRAIN_P2P = 3  # work in progress may end before the card is reset


def judge_memory(case: Case, gpu: Gpu) -> Found:
    """Judge the memory, its use by nobody, and its errors."""
    return [
        *_memory(case, gpu),
        *_bar1(case, gpu),
        *_ecc(case, gpu),
        *_ecc_mode(case, gpu),
        *_flag(case, gpu, "gpu_sram", "sram_threshold_exceeded", False),
        *_retired_pages(case, gpu),
        *_remapped_rows(case, gpu),
        *_flag(case, gpu, "gpu_unrepairable_memory", "unrepairable_memory", False),
        *_flag(case, gpu, "gpu_inforom", "inforom_valid", True),
        *_recovery(case, gpu),
    ]


def mode_word(value: Any) -> str:
    """Return ``enabled`` or ``disabled`` for a mode in whatever form a reader has it."""
    return "enabled" if value in (True, "enabled", 1) else "disabled"


def _memory(case: Case, gpu: Gpu) -> Found:
    check = "gpu_memory"
    total, used = gpu.get("memory_total_bytes"), gpu.get("memory_used_bytes")
    if total is None or used is None:
        return no_reading(case, check, gpu)
    if not total:
        return finding(case, check, UNKNOWN, total, gpu=gpu, evidence="the card has no memory")
    limit = int((limit_of(case, check) or 0) * total)
    if gpu.get("processes") == [] and used > limit:
        evidence = "held while no process is listed"
        return finding(case, check, MISSED, used, gpu=gpu, limit=limit, evidence=evidence)
    return finding(
        case, check, PASS, used, gpu=gpu, limit=total, evidence=f"of {total} bytes",
        source="the card: its memory",
    )  # fmt: skip


def _bar1(case: Case, gpu: Gpu) -> Found:
    check = "gpu_bar1"
    total, used = gpu.get("bar1_total_bytes"), gpu.get("bar1_used_bytes")
    if not total or used is None:
        return no_reading(case, check, gpu)
    free, limit = total - used, int((limit_of(case, check) or 0) * total)
    if free < limit:
        evidence = f"free of {total} bytes of BAR1"
        return finding(case, check, MISSED, free, gpu=gpu, limit=limit, evidence=evidence)
    memory = gpu.get("memory_total_bytes")
    if memory and total < SMALL_BAR1 * memory:
        evidence = "smaller than the memory: resizable BAR is off or not supported"
        return finding(case, check, INFO, total, gpu=gpu, evidence=evidence)
    evidence = f"free of {total} bytes of BAR1"
    return finding(case, check, PASS, free, gpu=gpu, limit=limit, evidence=evidence)


def _ecc(case: Case, gpu: Gpu) -> Found:
    found: Found = []
    for check, field, kind in (
        ("gpu_ecc", "ecc_errors_uncorrected", "uncorrected"),
        ("gpu_ecc_corrected", "ecc_errors_corrected", "corrected"),
    ):
        count = gpu.get(field)
        if count is None:
            found += no_reading(case, check, gpu)
            continue
        limit = limit_of(case, check) or 0
        outcome = MISSED if count > limit else PASS
        evidence = f"{kind} errors since the driver was loaded"
        found += finding(case, check, outcome, count, gpu=gpu, limit=limit, evidence=evidence)
    return found


def kept_mode(case: Case, check: str, gpu: Gpu, mode: str, *, option: str, reset: str) -> Found:
    """Judge a mode that a card takes on at its next reset: against the policy, now and then.

    Args:
        case: the case.
        check: the check's name.
        gpu: the card's readings.
        mode: ``ECC`` or ``MIG``; readings are named ``ecc_mode`` and ``ecc_mode_pending``.
        option: what sets it in ``nvidia-smi``.
        reset: what makes it so.
    """
    reading = f"{mode.lower()}_mode"
    if gpu.get(reading) is None:
        return no_reading(case, check, gpu)
    now = mode_word(gpu[reading])
    later = mode_word(gpu.get(f"{reading}_pending", gpu[reading]))
    wanted = limit_of(case, check)
    if wanted and later != wanted:
        return finding(
            case, check, MISSED, later, gpu=gpu, limit=wanted, evidence=f"the policy's {mode} mode",
            action=FIX_CONFIG, remedy=f"set it with nvidia-smi {option}, then {reset}",
        )  # fmt: skip
    if now != later:
        return finding(
            case, check, MISSED, now, gpu=gpu, limit=later, remedy=reset,
            evidence=f"{mode} mode changes at the next reset",
        )  # fmt: skip
    return finding(case, check, PASS, now, gpu=gpu, limit=wanted, evidence="now and after a reset")


def _ecc_mode(case: Case, gpu: Gpu) -> Found:
    check = "gpu_ecc_mode"
    now = gpu.get("ecc_mode")
    off = now is not None and {mode_word(now), mode_word(gpu.get("ecc_mode_pending", now))}
    if off == {"disabled"} and not limit_of(case, check):
        evidence = "off on a card that has it, and no policy says whether it should be"
        return finding(case, check, INFO, "disabled", gpu=gpu, evidence=evidence)
    return kept_mode(case, check, gpu, "ECC", option="-e", reset="reboot")


def _flag(case: Case, gpu: Gpu, check: str, field: str, healthy: bool) -> Found:
    value = gpu.get(field)
    if value is None:
        return no_reading(case, check, gpu)
    outcome = PASS if bool(value) == healthy else MISSED
    words = case.policy.checks[check].words if check in case.policy.checks else ""
    return finding(case, check, outcome, bool(value), gpu=gpu, limit=healthy, evidence=words)


def _retired_pages(case: Case, gpu: Gpu) -> Found:
    check = "gpu_retired_pages"
    double = gpu.get("retired_pages_double_bit")
    counts = [gpu.get("retired_pages_single_bit"), double]
    known = [count for count in counts if count is not None]
    if not known:
        return no_reading(case, check, gpu)
    limit, total = limit_of(case, check) or 0, sum(known)
    if gpu.get("retired_pages_pending"):
        return finding(
            case, check, MISSED, total, gpu=gpu, limit=limit, evidence="a page waits for a reset"
        )
    if total >= limit:
        return finding(
            case, check, MISSED, total, gpu=gpu, limit=limit, evidence="pages retired",
            action=SERVICE, remedy="have the card replaced",
        )  # fmt: skip
    if double is not None and double > DOUBLE_BIT_PAGES:
        return finding(
            case, check, LESSER, double, gpu=gpu, limit=DOUBLE_BIT_PAGES, action=SERVICE,
            evidence="pages retired after double-bit errors",
            remedy="watch the card; with more than one such page in a week have it replaced",
            source="NVIDIA DCGM",
        )  # fmt: skip
    return finding(case, check, PASS, total, gpu=gpu, limit=limit, evidence="pages retired")


def _remapped_rows(case: Case, gpu: Gpu) -> Found:
    check, rows = "gpu_remapped_rows", gpu.get("remapped_rows_uncorrectable")
    if rows is None:
        return no_reading(case, check, gpu)
    limit = limit_of(case, check) or 0
    if gpu.get("remapped_rows_failure"):
        return finding(
            case, check, MISSED, rows, gpu=gpu, limit=limit, evidence="a row could not be remapped",
            action=SERVICE, remedy="replace the card",
        )  # fmt: skip
    if gpu.get("remapped_rows_pending"):
        return finding(
            case, check, MISSED, rows, gpu=gpu, limit=limit, evidence="a row waits for a GPU reset"
        )
    evidence = "rows remapped after uncorrectable errors"
    if rows >= limit:
        return finding(
            case, check, LESSER, rows, gpu=gpu, limit=limit, evidence=evidence, action=SERVICE,
            remedy="have the card replaced before it runs out of spare rows",
        )  # fmt: skip
    return finding(case, check, PASS, rows, gpu=gpu, limit=limit, evidence=evidence)


def _recovery(case: Case, gpu: Gpu) -> Found:
    check, number = "gpu_recovery_action", gpu.get("recovery_action")
    if number is None:
        return no_reading(case, check, gpu)
    words, action = RECOVERY_ACTIONS.get(number, (str(number), SERVICE))
    outcome = PASS if number == 0 else MISSED
    if number == DRAIN_P2P:
        outcome = LESSER
    return finding(
        case, check, outcome, words, gpu=gpu, limit=RECOVERY_ACTIONS[0][0], action=action,
        evidence="what the driver asks for",
    )  # fmt: skip
