# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What the readings of a GPU host mean: one outcome per check, for the host and for each GPU.

Six statuses: N/A where a card has no such reading or nothing is declared, PASS, INFO, WARN,
UNKNOWN where a reading should be there and isn't, CRITICAL. Each check of the policy has an
outcome, whatever could be read: one that could not be judged is UNKNOWN and names the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_accept import (
    accept,
    acceptances,
    failure,
    summary,
    verdicts_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_accounts import (
    judge_accounts,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_card import (
    judge_heat_and_power,
    judge_link,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_check import (
    NA,
    PASS,
    UNKNOWN,
    Case,
    Found,
    Gpu,
    Health,
    finding,
    reads,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_driver import (
    NONE_DECLARED,
    is_without,
    judge_card,
    judge_driver,
    judge_inventory,
    judge_without,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_host import (
    PARTS,
    judge_host,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_memory import judge_memory
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_use import (
    judge_cuda,
    judge_setup,
    judge_use,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_xid import (
    judge_xids,
    seconds_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy import merge
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_checks import (
    CHECKS,
    GPU,
    Check,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import Verdict, worst

OLLAMA_PROCESSES = ("ollama", "ollama_llama_server", "llama-server")
RANK = {check.name: number for number, check in enumerate(CHECKS)}
CARD_RULES = (judge_heat_and_power, judge_link, judge_memory, judge_setup, judge_use)


@dataclass(frozen=True)
class Inventory:
    """What an inventory says about a host's GPUs.

    Attributes:
        expected: what must be there; keys ``count``, ``name``, ``names``, ``uuids``,
            ``driver_min``, ``driver_pin``, ``cuda_min``, ``temperature_max_c``, each optional.
        allowed_processes: names or patterns of the engines' programs; they may compute.
        more_processes: names or patterns of other programs that may, whatever unit they run in.
        units: the engines' units; without any the names alone decide.
        foreign_processes: ``fail``, ``warn`` or ``ignore`` for other programs.
        policy: overrides of checks, see ``_gpu_policy.merge``.
        xids: overrides of the Xid table, likewise.
        accept: what is accepted, see ``_gpu_health_accept.acceptances``.
        containers: whether containers use the GPUs.
    """

    expected: Mapping[str, Any]
    allowed_processes: Sequence[str] = OLLAMA_PROCESSES
    foreign_processes: str = "fail"
    policy: Mapping[str, Any] | None = None
    xids: Mapping[Any, Any] | None = None
    accept: Sequence[Mapping[str, Any]] = ()
    containers: bool = False
    more_processes: Sequence[str] = ()
    units: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """What came of the checks.

    Attributes:
        checks: every outcome, the host's first, then those of each GPU.
        verdicts: the same for a run, in its words.
        status: the host's own status.
        action: the host's next action.
        notes: sentences about acceptances that don't hold.
        disabled: names of the checks that the policy switched off.
    """

    checks: Found
    verdicts: list[Verdict]
    status: str
    action: str
    notes: list[str]
    disabled: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the form that results carry."""
        return {
            "checks": [health.as_dict() for health in self.checks],
            "verdicts": [verdict.as_dict() for verdict in self.verdicts],
            "status": self.status,
            "verdict": worst(self.verdicts),
            "action": self.action,
            "notes": self.notes,
            "disabled": list(self.disabled),
        }

    def message(self, host: str) -> str:
        """Say in one message what failed; empty when nothing did."""
        return failure(self.verdicts, host)


def judge(
    facts: Mapping[str, Any],
    host: Mapping[str, Any] | None,
    inventory: Inventory,
    now: float,
    earlier: Mapping[str, Any] | None = None,
    *,
    lacking: str = "",
) -> Report:
    """Judge what was read.

    Args:
        facts: what ``gpu_info`` returned.
        host: what ``gpu_host_info`` returned; None when it was not read.
        inventory: what is declared.
        now: the time of the reading, in seconds since 1970.
        earlier: an earlier result of ``gpu_info`` with its ``time``; counters are rated against it.
        lacking: why there is none, for the outcomes that need one.

    Raises:
        HostError: policy, acceptances or the earlier reading can't be used.
    """
    policy = merge(inventory.policy, inventory.xids, inventory.foreign_processes)
    accepted = acceptances(inventory.accept)
    gpus, elapsed_s = _earlier(earlier, now)
    case = Case(
        facts, host, policy, inventory.expected, tuple(inventory.allowed_processes),
        inventory.containers, now, gpus, elapsed_s, lacking,
        tuple(inventory.more_processes), tuple(inventory.units),
    )  # fmt: skip
    found = _complete(case, judge_without(case) or _judge_all(case))
    today = datetime.fromtimestamp(now, timezone.utc).date()
    found, notes = accept(found, accepted, case.gpus, today)
    status, action = summary(found)
    return Report(found, verdicts_of(found, policy), status, action, notes, policy.disabled)


def _earlier(earlier: Mapping[str, Any] | None, now: float) -> tuple[Sequence[Gpu], float]:
    if not earlier:
        return (), 0.0
    gpus, time = earlier.get("gpus"), seconds_of(earlier.get("time"))
    listed = isinstance(gpus, (list, tuple)) and all(isinstance(gpu, Mapping) for gpu in gpus)
    if not listed or time is None:
        raise HostError(
            f"earlier has the keys {', '.join(sorted(map(str, earlier))) or 'none'}; wanted: a "
            "result of hx_infra.llm.gpu_info with its time (RFC 3339 or seconds since 1970)."
        )
    if time >= now:
        raise HostError(
            f"earlier.time is {earlier['time']}, which is not before the present reading."
        )
    return gpus, now - time


def _judge_all(case: Case) -> Found:
    found = [*judge_driver(case), *judge_inventory(case), *judge_host(case)]
    found += [*judge_cuda(case), *judge_accounts(case), *judge_xids(case)]
    for gpu in case.gpus:
        found += judge_card(case, gpu)
        if gpu["state"] != "ok":
            continue
        for rule in CARD_RULES:
            found += rule(case, gpu)
        found += _readings(case, gpu)
    return found


def _readings(case: Case, gpu: Gpu) -> Found:
    """Say which reads failed that no check names."""
    claimed = [name for check in CHECKS for name in check.fields]
    failed = [
        f"{error.get('what')}: {error.get('message')}"
        for error in gpu.get("errors") or []
        if not any(reads(str(error.get("what", "")), name) for name in claimed)
    ]
    outcome = UNKNOWN if failed else PASS
    return finding(
        case, "gpu_readings", outcome, failed, gpu=gpu, limit=[], evidence="reads that failed"
    )


def _complete(case: Case, found: Found) -> Found:
    """Add what was not judged, as UNKNOWN with the check that tells why, and sort everything."""
    have = {(health.check, health.gpu) for health in found}
    missing: Found = []
    for check in case.policy.checks.values():
        if check.about != GPU or (check.name, None) in have or not case.gpus:
            targets: Iterable[Gpu | None] = [None]
        else:
            targets = case.gpus
        for gpu in targets:
            if (check.name, gpu["index"] if gpu else None) not in have:
                missing += _not_judged(case, check, gpu)
    return sorted([*found, *missing], key=_order)


def _not_judged(case: Case, check: Check, gpu: Gpu | None) -> Found:
    if is_without(case):
        subject = "GPUs" if check.about == GPU else ""
        return finding(case, check.name, NA, subject=subject, evidence=NONE_DECLARED)
    cause = "gpu_driver"
    if case.host is None and PARTS & set(check.fields):
        cause = "gpu_host"
    elif gpu is not None and gpu["state"] != "ok":
        cause = "gpu_state"
    subject = "" if gpu or check.about != GPU else "GPUs"
    return finding(
        case, check.name, UNKNOWN, gpu=gpu, subject=subject, because=cause,
        evidence=f"not judged, see {cause}",
    )  # fmt: skip


def _order(health: Health) -> tuple[int, int]:
    return -1 if health.gpu is None else health.gpu, RANK[health.check]
