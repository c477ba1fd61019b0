# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Rules for the faults that the driver wrote into the kernel's log (Xid).

The table says what a code means. When it came up decides whether it still means anything: a reboot
settles what a restart, a reset or a reboot cures, unless the fault comes again afterwards, and what
is less than critical is forgotten after some days.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_check import (
    LESSER,
    MISSED,
    NA,
    PASS,
    UNKNOWN,
    Case,
    Found,
    Gpu,
    finding,
    limit_of,
    subject_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_host import (
    ELSEWHERE,
    errors_of,
    is_elsewhere,
    short_address,
    without_part,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_checks import (
    ACTIONS,
    CRITICAL,
    INFO,
    REBOOT,
    RESET_GPU,
    RESTART_APP,
    SERVICE,
    WARN,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_xids import (
    NEVER_ESCALATES,
    Xid,
)

DAY_S = 86400.0
GRAVITY = (INFO, WARN, CRITICAL)
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")
REMEDIES = {
    RESTART_APP: "restart the program; look at its own log first",
    RESET_GPU: "stop what uses the GPU and reset it (nvidia-smi -r), else reboot",
    REBOOT: "reboot",
    SERVICE: "have the card, its power and its slot looked at",
}
# Nothing shows that a card was reset. No message of the driver about it is known (NVSentinel writes
# one of its own), and a recovery action of "none" is no proof: the driver asks for a reset only
# after the third GSP timeout in a row (RPC_TIMEOUT_GPU_RESET_THRESHOLD in kernel_gsp.c of NVIDIA's
# open kernel modules).
GRAVE_RESET = (
    "reboot; or stop what uses the GPU, reset it (nvidia-smi -r), and accept gpu_xid for it in "
    "llm_gpu_accept until the next reboot: the driver records no reset, so only a reboot settles "
    "this"
)


@dataclass(frozen=True)
class Event:
    """One code on one card.

    Attributes:
        row: what the table says of it.
        boots: in how many boots it came up.
        last: when it came up last, in seconds since 1970; None when that is not known.
        severity: what it means.
        settled: whether it is over by now.
        words: the same for people.
    """

    row: Xid
    boots: int
    last: float | None
    severity: str
    settled: bool
    words: str


def judge_xids(case: Case) -> Found:
    """Judge the faults of each GPU, and those of PCI addresses at which no GPU answers."""
    host = case.host
    if host is None:
        return []
    xids = host.get("xids")
    if xids is None or xids.get("entries") is None:
        if is_elsewhere(case):
            return [
                *finding(case, "gpu_xid", NA, evidence=ELSEWHERE),
                *finding(case, "gpu_xid_repeated", NA, evidence=ELSEWHERE),
            ]
        return [
            *without_part(case, "gpu_xid", host, "xids"),
            *without_part(case, "gpu_xid_repeated", host, "xids"),
        ]
    # A driver that isn't this kernel's doesn't write into its log: what that lacks is no gap then.
    lacking = [] if is_elsewhere(case) else errors_of(host, "xids")
    reach = {
        "since": str(xids.get("covered_since") or xids.get("since") or ""),
        "incomplete": "; ".join(lacking),
    }
    by_address: dict[str, list[Mapping[str, Any]]] = {}
    for entry in xids["entries"]:
        by_address.setdefault(short_address(entry.get("pci_bus_id")), []).append(entry)
    found: Found = []
    for gpu in case.gpus:
        entries = by_address.pop(short_address(gpu.get("pci_bus_id")), [])
        found += _of_card(case, entries, gpu, subject_of(gpu), **reach)
    for address, entries in sorted(by_address.items()):
        found += _of_card(case, entries, None, f"PCI {address}", **reach)
    if not found:
        found = _of_card(case, [], None, "host", **reach)
    return found


def seconds_of(moment: Any) -> float | None:
    """Return a time, as a number or in RFC 3339, as seconds since 1970; None for anything else.

    A number may be a text, as ``ansible_date_time.epoch`` is.
    """
    if isinstance(moment, (int, float)) and not isinstance(moment, bool):
        return float(moment)
    if _SECONDS.fullmatch(str(moment).strip()):
        return float(str(moment))
    try:
        parsed = datetime.fromisoformat(str(moment).strip().replace("Z", "+00:00"))
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp()


def _of_card(
    case: Case,
    entries: Sequence[Mapping[str, Any]],
    gpu: Gpu | None,
    subject: str,
    *,
    since: str,
    incomplete: str,
) -> Found:
    events = [_event(case, entry) for entry in entries]
    events.sort(key=lambda event: (not event.settled, GRAVITY.index(event.severity)), reverse=True)
    from_when = f"since {since}" if since else "in the kernel's log"
    evidence = "; ".join(event.words for event in events) or f"none {from_when}"
    codes = [event.row.code for event in events]
    open_ones = [event for event in events if not event.settled and event.severity != INFO]
    repeated = _repeated(case, events, gpu, subject)
    if open_ones:
        worst = [event for event in open_ones if event.severity == open_ones[0].severity]
        action = max((event.row.action for event in worst), key=ACTIONS.index)
        outcome = MISSED if open_ones[0].severity == CRITICAL else LESSER
        remedy = REMEDIES.get(action, "")
        if action == RESET_GPU and open_ones[0].severity == CRITICAL:
            remedy = GRAVE_RESET
        return [
            *finding(
                case, "gpu_xid", outcome, codes, gpu=gpu, subject=subject, limit=[], unit="",
                evidence=evidence, action=action, remedy=remedy,
            ),
            *repeated,
        ]  # fmt: skip
    if incomplete:
        evidence = f"{incomplete}; what could be read: {evidence}"
        outcome = UNKNOWN
    else:
        outcome = INFO if events else PASS
    return [
        *finding(
            case, "gpu_xid", outcome, codes, gpu=gpu, subject=subject, limit=[], unit="",
            evidence=evidence,
        ),
        *repeated,
    ]  # fmt: skip


def _event(case: Case, entry: Mapping[str, Any]) -> Event:
    row = case.policy.xid(int(entry["xid"]))
    boots = max(int(entry.get("boots") or 1), 1)
    count = max(int(entry.get("count") or 1), boots)
    now = entry.get("this_boot")
    again = count > boots if now is None else now > 1
    severity = row.repeated if row.repeated and again else row.severity
    last = seconds_of(entry.get("last"))
    settled = _is_settled(case, row, severity, last, before_boot=now == 0)
    return Event(row, boots, last, severity, settled, _words(row, count, boots, entry))


def _is_settled(case: Case, row: Xid, severity: str, last: float | None, before_boot: bool) -> bool:
    old = not _is_recent(case, last)
    if row.action == SERVICE:  # no reboot cures it
        return old and (before_boot or severity != CRITICAL)
    return before_boot or (old and severity != CRITICAL)


def _is_recent(case: Case, last: float | None) -> bool:
    days = limit_of(case, "gpu_xid") or 0
    return last is None or case.now - last <= days * DAY_S


def _words(row: Xid, count: int, boots: int, entry: Mapping[str, Any]) -> str:
    times = "once" if count == 1 else f"{count} times"
    times += f" in {boots} boots" if boots > 1 else ""
    last = f", last {entry['last']}" if entry.get("last") else ""
    process = f", by {entry['process']}" if entry.get("process") else ""
    return f"Xid {row.code} {row.words}, {times}{last}{process}"


def _repeated(case: Case, events: Sequence[Event], gpu: Gpu | None, subject: str) -> Found:
    """Judge whether a fault came again after the reboots that should have cured it."""
    limit = limit_of(case, "gpu_xid_repeated") or 0
    grave = [
        event
        for event in events
        if event.severity == CRITICAL
        and event.row.action in (RESET_GPU, REBOOT)
        and event.row.code not in NEVER_ESCALATES
        and (not event.settled or _is_recent(case, event.last))
    ]
    boots = max((event.boots for event in grave), default=0)
    worst = "; ".join(event.words for event in grave if event.boots >= limit)
    outcome = MISSED if boots and boots >= limit else PASS
    return finding(
        case, "gpu_xid_repeated", outcome, boots, gpu=gpu, subject=subject, limit=limit,
        evidence=worst or "of the same grave Xid",
    )  # fmt: skip
