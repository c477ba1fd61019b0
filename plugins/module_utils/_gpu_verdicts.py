# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What GPU facts mean: one verdict per check and GPU, against the declaration and the card.

A check for which a card gives no reading (ECC on GeForce, say) has no verdict at all: what
cannot be measured is neither healthy nor sick.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    PASS,
    WARN,
    Verdict,
    judge,
    sentence,
)

OLLAMA_PROCESSES = ("ollama", "ollama_llama_server", "llama-server")
REACTIONS = {"fail": FAIL, "warn": WARN, "ignore": PASS}

# Words that make another product of a name that otherwise agrees: "RTX 4070 Ti SUPER".
VARIANTS = frozenset({"ti", "super", "d", "laptop", "mobile", "max-q", "nvl"})
BRANDS = frozenset({"nvidia", "geforce"})

SLOWDOWNS = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
# Limits of NVIDIA DCGM (NVIDIA/DCGM, modules/health and nvvs): pages retired, rows remapped.
RETIRED_PAGES_MAX = 63
REMAPPED_ROWS_MAX = 512
LEAKED_RATIO = 0.1  # of the memory, held while no process is listed
RECOVERY_ACTIONS = {
    0: "none",
    1: "GPU reset",
    2: "reboot",
    3: "drain P2P",
    4: "drain and reset",
    6: "bus reset",
    7: "reboot",
}
REMEDIES = {
    "driver_not_loaded": "load it: modprobe nvidia, and see journalctl -k",
    "library_missing": "install the NVIDIA driver",
    "version_mismatch": "the driver's library was updated under a loaded module: reboot",
    "timeout": "the driver hangs: see journalctl -k for Xid messages, then reboot",
    "no_gpu": "see lspci -d 10de: and journalctl -k",
    "no_reader": "install nvidia-smi, or name an interpreter that has nvidia-ml-py",
    "no_binding": "install nvidia-ml-py for that interpreter",
    "no_permission": "the device nodes /dev/nvidia* refuse this user",
}

Gpu = Mapping[str, Any]
Expected = Mapping[str, Any]


def judge_gpus(
    facts: Mapping[str, Any],
    expected: Expected,
    allowed_processes: Iterable[str] = OLLAMA_PROCESSES,
    foreign_processes: str = "fail",
) -> list[Verdict]:
    """Judge what was read against what was declared.

    Args:
        facts: what ``gpu_info`` returns.
        expected: the declaration; keys ``count``, ``name``, ``driver_min``, ``cuda_min``,
            ``temperature_max_c``, each optional.
        allowed_processes: names (or patterns) of programs that may compute on the GPUs.
        foreign_processes: ``fail``, ``warn`` or ``ignore`` for other programs.
    """
    verdicts = [_driver(facts)]
    if facts["state"] != "ok":
        return verdicts + _count_when_unread(facts, expected)
    driver = facts.get("driver", {})
    for check, key, limit in (
        ("gpu_driver_version", "version", expected.get("driver_min")),
        ("gpu_cuda_version", "cuda_version", expected.get("cuda_min")),
    ):
        if limit:
            verdicts.append(_version(check, driver.get(key), str(limit)))
    gpus = facts["gpus"]
    if expected.get("count") is not None:
        verdicts.append(_count(gpus, int(expected["count"])))
    allowed = tuple(allowed_processes)
    for gpu in gpus:
        verdicts.append(_state(gpu))
        if gpu["state"] != "ok":
            continue
        if expected.get("name"):
            verdicts.append(_name(gpu, str(expected["name"])))
        verdicts.append(_temperature(gpu, expected.get("temperature_max_c")))
        verdicts.append(_memory(gpu))
        for found in (
            _processes(gpu, allowed, REACTIONS[foreign_processes]),
            _slowdown(gpu),
            _width(gpu),
            _ecc(gpu),
            _retired_pages(gpu),
            _remapped_rows(gpu),
            _recovery(gpu),
        ):
            if found is not None:
                verdicts.append(found)
    return verdicts


def failure(verdicts: Iterable[Verdict], host: str) -> str:
    """Say in one message what failed, where, and against which limit; empty when nothing did."""
    failed = [verdict for verdict in verdicts if verdict.status == FAIL]
    if not failed:
        return ""
    checks = "1 GPU check" if len(failed) == 1 else f"{len(failed)} GPU checks"
    return f"{checks} failed. " + ". ".join(sentence(verdict, host) for verdict in failed) + "."


def name_matches(found: str, wanted: str) -> bool:
    """Tell whether a card is of the declared kind, with or without the makers' words."""
    have, want = _words(found), _words(wanted)
    for start in range(len(have) - len(want) + 1):
        rest = have[start + len(want) :]
        if have[start : start + len(want)] == want and not (rest and rest[0] in VARIANTS):
            return bool(want)
    return False


def version_key(text: str) -> tuple[int, ...]:
    """Make versions comparable: 575.64.03 and 575.64.3 are the same."""
    return tuple(int(part) for part in re.findall(r"\d+", text))


def _words(name: str) -> list[str]:
    return [word for word in name.lower().split() if word not in BRANDS]


def _subject(gpu: Gpu) -> str:
    known = [gpu[key] for key in ("name", "uuid") if gpu.get(key)]
    if not known:
        known = [gpu.get("pci_bus_id") or "name and UUID cannot be read"]
    return f"GPU {gpu['index']} ({', '.join(known)})"


def _driver(facts: Mapping[str, Any]) -> Verdict:
    if facts["state"] == "ok":
        version = facts.get("driver", {}).get("version")
        return Verdict("gpu_driver", PASS, "NVIDIA driver", version, evidence=_source(facts))
    message = "; ".join(error["message"] for error in facts.get("errors", []))
    remedy = REMEDIES.get(facts["state"])
    evidence = f"{message}; {remedy}" if remedy else message
    return Verdict("gpu_driver", FAIL, "NVIDIA driver", facts["state"], "ok", evidence=evidence)


def _source(facts: Mapping[str, Any]) -> str:
    return f"read by {facts.get('source', 'unknown')}"


def _count_when_unread(facts: Mapping[str, Any], expected: Expected) -> list[Verdict]:
    if facts["state"] != "no_gpu" or expected.get("count") is None:
        return []
    return [_count([], int(expected["count"]))]


def _count(gpus: list[Gpu], wanted: int) -> Verdict:
    found = [gpu for gpu in gpus if gpu["state"] == "ok"]
    names = ", ".join(_subject(gpu) for gpu in found) or "none"
    return judge(
        "gpu_count",
        len(found) == wanted,
        subject="GPUs",
        value=len(found),
        limit=wanted,
        evidence=f"usable: {names}",
    )


def _version(check: str, found: str | None, minimum: str) -> Verdict:
    return judge(
        check,
        bool(found) and version_key(str(found)) >= version_key(minimum),
        subject="NVIDIA driver",
        value=found,
        limit=minimum,
        evidence="the declared minimum",
    )


def _state(gpu: Gpu) -> Verdict:
    errors = "; ".join(str(error["message"]) for error in gpu.get("errors", []))
    return judge(
        "gpu_state",
        gpu["state"] == "ok",
        subject=_subject(gpu),
        value=gpu["state"],
        limit="ok",
        evidence=errors or "all reads answered",
    )


def _name(gpu: Gpu, wanted: str) -> Verdict:
    found = gpu.get("name")
    return judge(
        "gpu_name",
        name_matches(found or "", wanted),
        subject=_subject(gpu),
        value=found,
        limit=wanted,
        evidence="the declared name",
    )


def _temperature(gpu: Gpu, declared: float | None) -> Verdict:
    """Judge the temperature: declared limit first, then the card's own slowdown and maximum."""
    value = gpu.get("temperature_c")
    check, subject = "gpu_temperature", _subject(gpu)
    if value is None:
        return Verdict(check, WARN, subject, evidence="the card gives no temperature")
    limits = [
        (FAIL, declared, "over the declared temperature_max_c", False),
        (FAIL, gpu.get("temperature_slowdown_c"), "at or over the card's slowdown threshold", True),
        (WARN, gpu.get("temperature_max_c"), "over the card's maximum for operation", False),
    ]
    for status, limit, evidence, reached in limits:
        if limit is not None and (value > limit or (reached and value == limit)):
            return Verdict(check, status, subject, value, limit, "°C", evidence)
    margin, slowdown = gpu.get("temperature_margin_c"), gpu.get("temperature_slowdown_margin_c")
    if margin is not None and slowdown is not None and margin <= 0:
        # the data-centre cards give a distance to their limit in place of thresholds
        status = FAIL if margin <= slowdown else WARN
        limit = slowdown if status == FAIL else 0
        evidence = f"margin to the card's limit, at {value} °C"
        return Verdict(check, status, subject, margin, limit, "°C", evidence)
    known = [(limit, words) for _status, limit, words, _reached in limits if limit is not None]
    limit, words = known[0] if known else (None, "over a threshold, of which the card names none")
    return Verdict(check, PASS, subject, value, limit, "°C", f"not {words}")


def _memory(gpu: Gpu) -> Verdict:
    total, used = gpu.get("memory_total_bytes"), gpu.get("memory_used_bytes")
    subject = _subject(gpu)
    if not total or used is None:
        evidence = "the card does not tell its memory"
        return Verdict("gpu_memory", FAIL, subject, total, evidence=evidence)
    leaked = gpu.get("processes") == [] and used > LEAKED_RATIO * total
    evidence = "held while no process is listed" if leaked else f"of {total} bytes"
    limit = int(LEAKED_RATIO * total) if leaked else total
    return Verdict("gpu_memory", WARN if leaked else PASS, subject, used, limit, "bytes", evidence)


def _processes(gpu: Gpu, allowed: tuple[str, ...], reaction: str) -> Verdict | None:
    if "processes" not in gpu:
        return None
    foreign = [
        f"{process.get('name', 'unnamed')} (pid {process['pid']})"
        for process in gpu["processes"]
        if "C" in process.get("type", "C") and not _is_allowed(process.get("name", ""), allowed)
    ]
    return judge(
        "gpu_foreign_processes",
        not foreign,
        subject=_subject(gpu),
        value=foreign,
        limit=list(allowed),
        evidence="programs that compute on the GPU",
        otherwise=reaction,
    )


def _is_allowed(name: str, allowed: tuple[str, ...]) -> bool:
    program = name.split(" ", maxsplit=1)[0].rsplit("/", 1)[-1]  # runners add words to their title
    return any(fnmatchcase(text, pattern) for pattern in allowed for text in (program, name))


def _slowdown(gpu: Gpu) -> Verdict | None:
    if "clocks_event_reasons" not in gpu:
        return None
    active = [reason for reason in SLOWDOWNS if reason in gpu["clocks_event_reasons"]]
    return judge(
        "gpu_hw_slowdown",
        not active,
        subject=_subject(gpu),
        value=active,
        limit=[],
        evidence="reasons for which the hardware holds the clocks down",
        otherwise=WARN,
    )


def _width(gpu: Gpu) -> Verdict | None:
    current, most = gpu.get("pcie_link_width_current"), gpu.get("pcie_link_width_max")
    if not current or not most:
        return None
    return judge(
        "gpu_pcie_width",
        current >= most,
        subject=_subject(gpu),
        value=current,
        limit=most,
        unit="lanes",
        evidence="lanes that card and slot could use",
        otherwise=WARN,
    )


def _ecc(gpu: Gpu) -> Verdict | None:
    errors = gpu.get("ecc_errors_uncorrected")
    if errors is None:
        return None
    subject = _subject(gpu)
    if not errors and gpu.get("ecc_mode") != gpu.get("ecc_mode_pending"):
        evidence = "ECC mode changes at the next reset"
        return Verdict("gpu_ecc", WARN, subject, errors, 0, evidence=evidence)
    evidence = "uncorrected errors since the driver was loaded"
    return judge("gpu_ecc", not errors, subject=subject, value=errors, limit=0, evidence=evidence)


def _retired_pages(gpu: Gpu) -> Verdict | None:
    counts = [gpu.get("retired_pages_single_bit"), gpu.get("retired_pages_double_bit")]
    known = [count for count in counts if count is not None]
    if not known:
        return None
    pending = bool(gpu.get("retired_pages_pending"))
    return judge(
        "gpu_retired_pages",
        not pending and sum(known) < RETIRED_PAGES_MAX,
        subject=_subject(gpu),
        value=sum(known),
        limit=RETIRED_PAGES_MAX,
        evidence="a page waits for a reset" if pending else "pages retired",
    )


def _remapped_rows(gpu: Gpu) -> Verdict | None:
    rows = gpu.get("remapped_rows_uncorrectable")
    if rows is None:
        return None
    failed, pending = gpu.get("remapped_rows_failure"), gpu.get("remapped_rows_pending")
    status = PASS if rows < REMAPPED_ROWS_MAX else WARN
    evidence = "rows remapped after uncorrectable errors"
    if failed or pending:
        status = FAIL
        evidence = "remapping failed: replace the card" if failed else "waits for a GPU reset"
    subject = _subject(gpu)
    return Verdict("gpu_remapped_rows", status, subject, rows, REMAPPED_ROWS_MAX, evidence=evidence)


def _recovery(gpu: Gpu) -> Verdict | None:
    action = gpu.get("recovery_action")
    if action is None:
        return None
    return judge(
        "gpu_recovery_action",
        action == 0,
        subject=_subject(gpu),
        value=RECOVERY_ACTIONS.get(action, str(action)),
        limit=RECOVERY_ACTIONS[0],
        evidence="what the driver asks for",
        otherwise=WARN if action == 3 else FAIL,
    )
