# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Rules for the driver and for what the inventory declares: versions, count, products, cards."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_check import (
    INFO,
    MISSED,
    NA,
    PASS,
    UNKNOWN,
    Case,
    Found,
    Gpu,
    failed_read,
    finding,
    subject_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_checks import (
    FIX_CONFIG,
    REBOOT,
    RESET_GPU,
    SERVICE,
)

SUBJECT = "NVIDIA driver"
UNDECLARED = "nothing is declared"

# Words that make another product of a name that otherwise agrees: "RTX 4070 Ti SUPER".
VARIANTS = frozenset({"ti", "super", "d", "laptop", "mobile", "max-q", "nvl"})
BRANDS = frozenset({"nvidia", "geforce"})
VERSIONS = {"driver_min": "575.64.03", "driver_pin": "575.64.03", "cuda_min": "12.9"}
_VERSION = re.compile(r"\d+(\.\d+)*")

# States of the reader: what to do next, in a word and in a sentence.
DRIVER_REMEDIES = {
    "driver_not_loaded": (FIX_CONFIG, "load it: modprobe nvidia, and see journalctl -k"),
    "library_missing": (FIX_CONFIG, "install the NVIDIA driver"),
    "version_mismatch": (
        REBOOT,
        "the driver's library was updated under a loaded module: reboot",
    ),
    "timeout": (REBOOT, "the driver hangs: see journalctl -k for Xid messages, then reboot"),
    "no_gpu": (SERVICE, "see lspci -d 10de: and journalctl -k"),
    "no_reader": (
        FIX_CONFIG,
        "install nvidia-smi, or name an interpreter that has nvidia-ml-py",
    ),
    "no_binding": (FIX_CONFIG, "install nvidia-ml-py for that interpreter"),
    "no_permission": (FIX_CONFIG, "the device nodes /dev/nvidia* refuse this user"),
}
# Nobody asked the driver, or it wouldn't tell this user: it may be well.
NOT_TOLD = frozenset({"no_reader", "no_binding", "no_permission"})
# What a host without an NVIDIA card looks like.
WITHOUT = frozenset({"no_reader", "library_missing", "driver_not_loaded", "no_gpu"})
NONE_DECLARED = "no GPU is declared, and none answers"

STATE_REMEDIES = {
    "lost": (REBOOT, "see journalctl -k for Xid messages, then reboot"),
    "reset_required": (
        RESET_GPU,
        "stop what uses the GPU and reset it (nvidia-smi -r), else reboot",
    ),
}


def judge_driver(case: Case) -> Found:
    """Judge the driver itself and the declared versions.

    Raises:
        HostError: a declared version is none; every driver would be new enough for it.
    """
    _refuse_odd_versions(case)
    state = case.facts["state"]
    found = _driver(case, state)
    for check, key, limit, words in (
        ("gpu_driver_version", "version", case.expected.get("driver_min"), "the declared minimum"),
        ("gpu_driver_pin", "version", case.expected.get("driver_pin"), "the declared version"),
        (
            "gpu_cuda_version",
            "cuda_version",
            case.expected.get("cuda_min"),
            "the declared minimum",
        ),
    ):
        value = case.driver.get(key)
        if state == "ok" or value or not limit:  # else gpu_driver says why it can't be read
            found += _version(case, check, value, limit, words)
    return found


def judge_inventory(case: Case) -> Found:
    """Judge how many cards there are, which products, and which cards they are."""
    if case.facts["state"] not in ("ok", "no_gpu"):
        return []
    return _count(case) + _names(case) + _uuids(case)


def is_without(case: Case) -> bool:
    """Tell whether the host has no GPU that answers, and shall have none."""
    return case.expected.get("count") == 0 and case.facts["state"] in WITHOUT


def judge_without(case: Case) -> Found:
    """Judge a host that shall have no GPU; nothing for any other host."""
    if not is_without(case):
        return []
    found = finding(case, "gpu_count", PASS, 0, subject="GPUs", limit=0, evidence=NONE_DECLARED)
    bus = [str(item.get("address")) for item in (case.host or {}).get("pci") or []]
    if bus:
        found += finding(
            case, "gpu_pci_count", INFO, len(bus), limit=0,
            evidence=f"no GPU is declared; on the PCI bus: {', '.join(bus)}",
        )  # fmt: skip
    return found


def judge_card(case: Case, gpu: Gpu) -> Found:
    """Judge whether a card answers, and whether it is of the declared product."""
    errors = "; ".join(str(error.get("message")) for error in gpu.get("errors") or [])
    if gpu["state"] != "ok":
        action, remedy = STATE_REMEDIES.get(gpu["state"], ("", ""))
        return finding(
            case, "gpu_state", MISSED, gpu["state"], gpu=gpu, limit="ok", evidence=errors,
            action=action, remedy=remedy,
        )  # fmt: skip
    words = "it answers" if errors else "all reads answered"
    found = finding(case, "gpu_state", PASS, "ok", gpu=gpu, limit="ok", evidence=words)
    return found + _name(case, gpu)


def name_matches(found: str, wanted: str) -> bool:
    """Tell whether a card is of the declared kind, with or without the makers' words."""
    have, want = _words(found), _words(wanted)
    for start in range(len(have) - len(want) + 1):
        rest = have[start + len(want) :]
        if have[start : start + len(want)] == want and not (rest and rest[0] in VARIANTS):
            return bool(want)
    return False


def version_key(text: str) -> tuple[int, ...]:
    """Make versions comparable: 575.64.03 and 575.64.3 are the same, and so are 12.9 and 12.9.0."""
    numbers = [int(part) for part in re.findall(r"\d+", text)]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _refuse_odd_versions(case: Case) -> None:
    for key, example in VERSIONS.items():
        found = case.expected.get(key)
        if found and not _VERSION.fullmatch(str(found).strip()):
            raise HostError(f"expected.{key}: found {found!r}, wanted a version such as {example}.")


def _words(name: str) -> list[str]:
    return [word for word in name.lower().split() if word not in BRANDS]


def _driver(case: Case, state: str) -> Found:
    source = case.facts.get("source", "unknown")
    if state == "ok":
        version = case.driver.get("version")
        return finding(
            case, "gpu_driver", PASS, version, subject=SUBJECT, evidence=f"read by {source}"
        )
    action, remedy = DRIVER_REMEDIES.get(state, (SERVICE, ""))
    message = "; ".join(str(error.get("message")) for error in case.facts.get("errors") or [])
    return finding(
        case, "gpu_driver", UNKNOWN if state in NOT_TOLD else MISSED, state, subject=SUBJECT,
        limit="ok", evidence=message, action=action, remedy=remedy,
    )  # fmt: skip


def _version(case: Case, check: str, found: Any, limit: Any, words: str) -> Found:
    if not limit:
        return finding(case, check, NA, found, subject=SUBJECT, evidence=UNDECLARED)
    limit = str(limit)
    if not found:
        return finding(
            case, check, UNKNOWN, None, subject=SUBJECT, limit=limit,
            evidence="the driver does not tell its version",
        )  # fmt: skip
    have, want = version_key(str(found)), version_key(limit)
    fits = have == want if check == "gpu_driver_pin" else have >= want
    return finding(
        case, check, PASS if fits else MISSED, found, subject=SUBJECT, limit=limit, evidence=words
    )


def _listed(gpus: Iterable[Gpu]) -> str:
    return ", ".join(subject_of(gpu) for gpu in gpus) or "none"


def _count(case: Case) -> Found:
    working, wanted = case.working, case.expected.get("count")
    usable = f"usable: {_listed(working)}"
    if wanted is None:
        return finding(
            case, "gpu_count", NA, len(working), subject="GPUs", evidence=f"{UNDECLARED}; {usable}"
        )
    outcome = PASS if len(working) == int(wanted) else MISSED
    action, remedy = "", ""
    if len(working) > int(wanted):  # nothing is broken, only not as declared
        action, remedy = FIX_CONFIG, "declare the GPUs that are there, or take the others out"
    return finding(
        case, "gpu_count", outcome, len(working), subject="GPUs", limit=int(wanted),
        evidence=usable, action=action, remedy=remedy,
    )  # fmt: skip


def _names(case: Case) -> Found:
    wanted = [str(name) for name in case.expected.get("names") or []]
    have = [str(gpu.get("name", "")) for gpu in case.working]
    if not wanted:
        return finding(case, "gpu_names", NA, have, subject="GPUs", evidence=UNDECLARED)
    left, missing = list(have), []
    for name in wanted:
        match = next((item for item in left if name_matches(item, name)), None)
        if match is None:
            missing.append(name)
        else:
            left.remove(match)
    evidence = f"missing: {', '.join(missing) or 'none'}; not declared: {', '.join(left) or 'none'}"
    outcome = MISSED if missing or left else PASS
    return finding(
        case, "gpu_names", outcome, have, subject="GPUs", limit=wanted, evidence=evidence
    )


def _uuids(case: Case) -> Found:
    wanted = [str(uuid) for uuid in case.expected.get("uuids") or []]
    have = [str(gpu["uuid"]) for gpu in case.working if gpu.get("uuid")]
    if not wanted:
        return finding(case, "gpu_uuids", NA, have, subject="GPUs", evidence=UNDECLARED)
    missing = [uuid for uuid in wanted if uuid not in have]
    more = [uuid for uuid in have if uuid not in wanted]
    evidence = f"missing: {', '.join(missing) or 'none'}; not declared: {', '.join(more) or 'none'}"
    outcome = MISSED if missing or more else PASS
    return finding(
        case, "gpu_uuids", outcome, have, subject="GPUs", limit=wanted, evidence=evidence
    )


def _name(case: Case, gpu: Gpu) -> Found:
    found, wanted = gpu.get("name"), case.expected.get("name")
    if not wanted:
        return finding(case, "gpu_name", NA, found, gpu=gpu, evidence=UNDECLARED)
    if found is None:
        errors = failed_read(gpu, ("name",)) or "the card does not tell its name"
        return finding(case, "gpu_name", UNKNOWN, gpu=gpu, limit=str(wanted), evidence=errors)
    outcome = PASS if name_matches(str(found), str(wanted)) else MISSED
    return finding(
        case, "gpu_name", outcome, found, gpu=gpu, limit=str(wanted), evidence="the declared name"
    )
