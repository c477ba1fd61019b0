# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""One health check's outcome, and what all the rules have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy import Policy
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_checks import (
    CRITICAL,
    FIX_CONFIG,
    INFO,
    NONE,
    WARN,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import Figure

NA, PASS, UNKNOWN = "N/A", "PASS", "UNKNOWN"
STATUSES = (NA, PASS, INFO, WARN, UNKNOWN, CRITICAL)  # from harmless to grave

# Outcomes that the policy turns into a status.
MISSED, LESSER = "missed", "lesser"

Gpu = Mapping[str, Any]
Found = list["Health"]

# What a reader calls a group of readings, where that is not the name of a field or its beginning.
READINGS: dict[str, tuple[str, ...]] = {
    "pci": ("pci_bus_id",),
    "temperature": ("temperature_c",),
    "memory": ("memory_total_bytes", "memory_used_bytes"),
    "clock_events": ("clocks_event_reasons",),
    "pstate": ("performance_state",),
    "fields": ("recovery_action", "throttle_ns", "temperature_memory_c"),
    "tlimits": ("temperature_slowdown_margin_c",),
    "retired_pages": ("retired_pages_single_bit", "retired_pages_double_bit"),
}


@dataclass(frozen=True)
class Health:
    """The outcome of one check on one subject.

    Attributes:
        check: name of the check.
        status: one of ``STATUSES``.
        subject: what was looked at, in words.
        value: what was found.
        limit: what was wanted, or the threshold.
        unit: unit of both.
        evidence: what the value is, and what it was held against.
        source: where the limit comes from.
        action: what to do next, one of ``_gpu_policy_checks.ACTIONS``.
        remedy: the same as a sentence; empty when nothing is to be done.
        gpu: index of the GPU; None for the host.
        uuid: the GPU's own identifier, when it is known.
        because: the check whose outcome makes this one UNKNOWN; empty otherwise.
        accepted: why an operator accepts the outcome; empty when nobody does.
    """

    check: str
    status: str
    subject: str = ""
    value: Figure = None
    limit: Figure = None
    unit: str = ""
    evidence: str = ""
    source: str = ""
    action: str = NONE
    remedy: str = ""
    gpu: int | None = None
    uuid: str = ""
    because: str = ""
    accepted: str = ""

    def __post_init__(self) -> None:
        """Refuse a status that nobody would count."""
        if self.status not in STATUSES:
            raise ValueError(f"check {self.check}: status {self.status!r} is not one of {STATUSES}")

    def as_dict(self) -> dict[str, Any]:
        """Return the form that results carry; what does not apply is left out."""
        always = ("check", "status", "subject", "value", "limit", "unit", "evidence", "source")
        found = {name: getattr(self, name) for name in (*always, "action", "remedy")}
        if self.gpu is not None:
            found["gpu"] = self.gpu
        for name in ("uuid", "because", "accepted"):
            if getattr(self, name):
                found[name] = getattr(self, name)
        return found


@dataclass(frozen=True)
class Case:
    """All that the rules judge.

    Attributes:
        facts: what ``gpu_info`` returned.
        host: what ``gpu_host_info`` returned; None when nobody read it.
        policy: the tables.
        expected: the declaration.
        allowed: names or patterns of the engines' programs, which may compute.
        containers: whether containers use the GPUs.
        now: the time of the reading, in seconds since 1970.
        earlier: the GPUs of an earlier reading.
        elapsed_s: seconds between the two readings; 0 without an earlier one.
        lacking: why there is no earlier reading; empty when nobody says.
        more: names or patterns of other programs that may compute, whatever unit they run in.
        units: the engines' units.
    """

    facts: Mapping[str, Any]
    host: Mapping[str, Any] | None
    policy: Policy
    expected: Mapping[str, Any] = field(default_factory=dict)
    allowed: Sequence[str] = ()
    containers: bool = False
    now: float = 0.0
    earlier: Sequence[Gpu] = ()
    elapsed_s: float = 0.0
    lacking: str = ""
    more: Sequence[str] = ()
    units: Sequence[str] = ()

    @property
    def gpus(self) -> Sequence[Gpu]:
        """Return the GPUs that the driver names, in whatever state they are."""
        return self.facts.get("gpus") or []

    @property
    def working(self) -> list[Gpu]:
        """Return the GPUs that answer."""
        return [gpu for gpu in self.gpus if gpu["state"] == "ok"]

    @property
    def driver(self) -> Mapping[str, Any]:
        """Return what the driver says of itself."""
        return self.facts.get("driver") or {}

    def before(self, gpu: Gpu) -> Gpu | None:
        """Return the earlier reading of a GPU, found by its UUID, else by its PCI address."""
        for key in ("uuid", "pci_bus_id"):
            if gpu.get(key):
                return next((old for old in self.earlier if old.get(key) == gpu[key]), None)
        return None


def finding(
    case: Case,
    name: str,
    outcome: str,
    value: Figure = None,
    *,
    gpu: Gpu | None = None,
    subject: str = "",
    limit: Figure = None,
    unit: str | None = None,
    evidence: str = "",
    source: str = "",
    action: str = "",
    remedy: str = "",
    because: str = "",
) -> Found:
    """Return the outcome of a check as a list of one, or of none when the policy leaves it out.

    Args:
        case: what is judged.
        name: name of the check.
        outcome: a status, or ``MISSED`` or ``LESSER``, whose status the policy names.
        value: what was found.
        gpu: the GPU that it is about; None for the host.
        subject: what was looked at; the GPU or the host by default.
        limit: what was wanted.
        unit: unit of both; the check's own by default.
        evidence: what the value is, and what it was held against.
        source: where the limit comes from; the check's own by default.
        action: what to do next after a miss; the check's own by default.
        remedy: the same as a sentence; the check's own by default.
        because: the check that tells why this one can't be judged.
    """
    check = case.policy.checks.get(name)
    if check is None:
        return []
    missed = outcome in (MISSED, LESSER)
    status = outcome
    if missed:
        status = check.lesser if outcome == LESSER and check.lesser else check.severity
    to_do = missed and status != INFO
    if status == UNKNOWN:
        action, remedy = action or FIX_CONFIG, remedy or "find out why it can't be read"
    return [
        Health(
            check=name,
            status=status,
            subject=subject or (subject_of(gpu) if gpu else "host"),
            value=value,
            limit=limit,
            unit=check.unit if unit is None else unit,
            evidence=evidence,
            source=source or check.source,
            action=(action or check.action) if to_do or status == UNKNOWN else NONE,
            remedy=(remedy or check.remedy) if missed or status == UNKNOWN else "",
            gpu=gpu["index"] if gpu else None,
            uuid=(gpu.get("uuid") or "") if gpu else "",
            because=because,
        )
    ]


def limit_of(case: Case, name: str) -> Any:
    """Return a check's limit in the policy; None for one without, or one that is switched off."""
    check = case.policy.checks.get(name)
    return check.limit if check is not None else None


def no_reading(case: Case, name: str, gpu: Gpu, evidence: str = "") -> Found:
    """Return what a missing reading means: UNKNOWN after a failed read, N/A on a card without."""
    check = case.policy.checks.get(name)
    message = failed_read(gpu, check.fields) if check else ""
    if message:
        return finding(case, name, UNKNOWN, gpu=gpu, evidence=message)
    return finding(case, name, NA, gpu=gpu, evidence=evidence or "the card has no such reading")


def failed_read(gpu: Gpu, fields: Sequence[str]) -> str:
    """Say why the readings are missing; empty when no read of them failed."""
    messages = [
        str(error.get("message", "no reason given"))
        for error in gpu.get("errors") or []
        if any(_lacks(gpu, str(error.get("what", "")), name) for name in fields)
    ]
    return "; ".join(dict.fromkeys(messages))


def _lacks(gpu: Gpu, what: str, name: str) -> bool:
    """Tell whether a read yields a reading, or a part of it, that isn't there."""
    inner = what.partition(".")[2]
    there = gpu.get(name) if inner else gpu
    wanted = inner or name
    return reads(what, name) and wanted not in (there or {})


def reads(what: str, name: str) -> bool:
    """Tell whether a read called ``what`` yields the field ``name``."""
    what = what.partition(".")[0]
    if what in READINGS:
        return name in READINGS[what]
    return bool(what) and (name == what or name.startswith(f"{what}_"))


def subject_of(gpu: Gpu) -> str:
    """Name a GPU: index, name and UUID, as far as they are known."""
    known = [gpu[key] for key in ("name", "uuid") if gpu.get(key)]
    if not known:
        known = [gpu.get("pci_bus_id") or "name and UUID cannot be read"]
    return f"GPU {gpu['index']} ({', '.join(known)})"
