# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The Xids of a host's GPUs, from the kernel's journal and from the history that outlives it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import (
    _gpu_xid_history as history,
)
from ansible_collections.hx_infra.llm.plugins.module_utils import (
    _gpu_xid_journal as journal,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import Host, UnknownError

Event = dict[str, Any]


def xids(
    host: Host,
    history_file: str | None,
    days: float,
    notes: list[str],
    journalctl: str = "journalctl",
) -> dict[str, Any]:
    """Return the Xids of the last days, counted per GPU, Xid and boot.

    Args:
        host: the host.
        history_file: what ``gpu_xid_history.py`` keeps; none when nobody keeps one.
        days: how far back to look.
        notes: gets a sentence for each source that can't be read.
        journalctl: the program that reads the journal.

    Raises:
        UnknownError: neither the journal nor a history has anything to say.
    """
    since = journal.days_ago(days)
    remarks: list[str] = []
    records = _recorded(history_file, remarks, notes)
    seen, oldest = _from_journal(host, journalctl, days, notes)
    if not records and not oldest:
        reasons = "; ".join(notes + remarks)
        notes.clear()
        raise UnknownError(reasons)
    state = history.load_state(history_file) if history_file and records is not None else {}
    covered = str(state.get("covered_since") or "")
    if oldest and (not covered or str(state.get("updated") or "") < oldest):
        covered = oldest  # a history that ended before the journal begins leaves a gap
    if covered > since:
        remarks.append(f"nothing is known from before {covered}")
    merged = (records or []) + history.only_new(seen, records or [])
    result: dict[str, Any] = {"since": since, "entries": summarize(merged, since, this_boot(host))}
    if covered:
        result["covered_since"] = max(covered, since)
    if records is not None:
        result["history_file"] = history_file
    return {**result, "message": "; ".join(notes + remarks)}


def _from_journal(
    host: Host, journalctl: str, days: float, notes: list[str]
) -> tuple[list[Event], str]:
    """Return the journal's events, and the time of its first kernel message; empty without one."""
    try:
        reading = journal.read_since(journalctl, host.timeout_s, days, "--grep=NVRM")
    except journal.JournalError as error:
        notes.append(str(error))
        return [], ""
    if not reading.complete:
        notes.append(f"the journal could not be read to its end within {host.timeout_s:g} s")
    oldest = journal.oldest_message(journalctl, host.timeout_s)
    if not oldest:
        notes.append("the journal has no message of the kernel")
    return reading.events, oldest


def _recorded(path: str | None, remarks: list[str], notes: list[str]) -> list[Event] | None:
    """Return what a history holds; None when there is none to read."""
    if not path:
        return None
    try:
        with open(path, "rb"):
            pass
        records, broken = history.load_records(path)
    except FileNotFoundError:
        remarks.append(f"there is no history {path}")
        return None
    except OSError as error:
        notes.append(f"{path} can't be read: {error.strerror or error}")
        return None
    if broken:
        remarks.append(f"{broken} lines of {path} can't be read")
    return records


def this_boot(host: Host) -> str:
    """Return the present boot's id as the journal writes it; empty when /proc doesn't say."""
    try:
        text = host.text("/proc/sys/kernel/random/boot_id")
    except UnknownError:
        return ""
    return (text or "").strip().replace("-", "")


def summarize(records: Iterable[Event], since: str, boot: str) -> list[dict[str, Any]]:
    """Count records per GPU and Xid, and within that per boot, from a time on.

    Args:
        records: events, and records that stand for several.
        since: RFC 3339; a record that stands for several counts as a whole when its last is later.
        boot: the present boot's id; empty when it isn't known.
    """
    groups: dict[tuple[str, int], list[Event]] = {}
    for record in records:
        if record.get("until", record["time"]) >= since:
            groups.setdefault((record["pci_bus_id"], record["xid"]), []).append(record)
    return [_entry(place, xid, group, boot) for (place, xid), group in sorted(groups.items())]


def _entry(place: str, xid: int, group: list[Event], boot: str) -> dict[str, Any]:
    group = sorted(group, key=lambda record: (record["time"], record["monotonic_us"]))
    per_boot: dict[str, dict[str, Any]] = {}
    for record in group:
        last = record.get("until", record["time"])
        known = per_boot.setdefault(
            record["boot"], {"boot": record["boot"], "count": 0, "first": record["time"]}
        )
        known["count"] += record.get("count", 1)
        known["last"] = max(known.get("last", ""), last)
    names = [record["process"] for record in group if record.get("process")]
    texts = [record["text"] for record in group if record.get("text")]
    entry: dict[str, Any] = {
        "pci_bus_id": place,
        "xid": xid,
        "count": sum(part["count"] for part in per_boot.values()),
        "boots": len(per_boot),
        "first": group[0]["time"],
        "last": max(part["last"] for part in per_boot.values()),
        "per_boot": list(per_boot.values()),
    }
    if boot:
        entry["this_boot"] = per_boot.get(boot, {}).get("count", 0)
    if names:
        entry["process"] = names[-1]
    if texts:
        entry["text"] = texts[-1]
    return entry
