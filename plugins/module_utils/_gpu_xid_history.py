# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Keeps the driver's Xid messages in a file of its own; a program that stands alone.

The kernel's journal rotates, and with it goes the evidence against a card that has failed for
weeks. This program reads what is new in the journal and appends one JSON object a line to a
history file. An event is known by its boot, the kernel's time stamp, the PCI address and the Xid,
so that nothing doubles, whether it runs twice or was killed between writing the history and
remembering where it stood.

``gpu_xid_history.py --history FILE`` needs ``gpu_xid_journal.py`` beside it, the standard library,
and read access to the journal (root, or the group systemd-journal).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

try:
    from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_xid_journal as journal
except ImportError:  # installed on a host
    import gpu_xid_journal as journal  # type: ignore[import-not-found,no-redef]

SCHEMA = 1
KEEP_PER_GROUP = 20  # events of one boot, GPU and Xid that compacting leaves as they are

Event = dict[str, Any]


def load_records(path: str) -> tuple[list[Event], int]:
    """Return the records of a history file, and how many of its lines can't be read.

    Raises:
        OSError: the file can't be read; one that isn't there is empty.
    """
    try:
        with open(path, "rb") as file:
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return [], 0
    records, broken = [], 0
    for line in lines:
        if not line.strip():
            continue
        record = _record(line)
        if record is None:
            broken += 1
        else:
            records.append(record)
    return records, broken


def _record(line: bytes) -> Event | None:
    try:
        record = json.loads(line)
        journal.identity(record)
        numbers = (record["monotonic_us"], record["xid"])
        numbers += (record.get("count", 1), record.get("until_us", 0))
        texts = (record["boot"], record["pci_bus_id"], record["time"])
    except (ValueError, KeyError, TypeError):
        return None
    fits = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
    return record if fits and all(isinstance(text, str) for text in texts) else None


class Known:
    """The events that a history holds, also those that compacting has merged."""

    def __init__(self, records: list[Event]) -> None:
        self._single = {journal.identity(record) for record in records}
        self._ranges: dict[tuple[str, str, int], list[tuple[int, int]]] = {}
        for record in records:
            if "until_us" in record:
                span = (record["monotonic_us"], record["until_us"])
                self._ranges.setdefault(_group(record), []).append(span)

    def __contains__(self, event: Event) -> bool:
        if journal.identity(event) in self._single:
            return True
        spans = self._ranges.get(_group(event), [])
        return any(first <= event["monotonic_us"] <= last for first, last in spans)

    def add(self, event: Event) -> None:
        """Note an event."""
        self._single.add(journal.identity(event))


def _group(record: Event) -> tuple[str, str, int]:
    return record["boot"], record["pci_bus_id"], record["xid"]


def only_new(events: list[Event], records: list[Event]) -> list[Event]:
    """Return the events that no record holds, each once."""
    known, new = Known(records), []
    for event in events:
        if event not in known:
            known.add(event)
            new.append(event)
    return new


def append_records(path: str, records: list[Event]) -> None:
    """Append records durably, in one write; a line that a crash has cut off is ended first."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        data = (b"\n" if cut else b"") + b"".join(_line(record) for record in records)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        except OSError:  # a full disk; the next run tries again
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def _line(record: Event) -> bytes:
    return json.dumps(record, sort_keys=True).encode() + b"\n"


def replace_file(path: str, data: bytes) -> None:
    """Replace a file as a whole and durably."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)
    parent = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def compact(records: list[Event], oldest: str = "") -> list[Event]:
    """Merge the older events of each boot, GPU and Xid into one record with their count.

    Counts, the first and the last time stay exact. Records that ended before ``oldest`` (RFC 3339)
    are left out.
    """
    groups: dict[tuple[str, str, int], list[Event]] = {}
    for record in records:
        if record.get("until", record["time"]) >= oldest:
            groups.setdefault(_group(record), []).append(record)
    kept: list[Event] = []
    for group in groups.values():
        group.sort(key=lambda record: record["monotonic_us"])
        old, new = group[:-KEEP_PER_GROUP], group[-KEEP_PER_GROUP:]
        if len(old) > 1:
            last = old[-1]
            merged = {**last, "monotonic_us": old[0]["monotonic_us"], "time": old[0]["time"]}
            merged["until_us"] = last.get("until_us", last["monotonic_us"])
            merged["until"] = last.get("until", last["time"])
            merged["count"] = sum(record.get("count", 1) for record in old)
            old = [merged]
        kept += old + new
    return sorted(kept, key=lambda record: (record["time"], record["monotonic_us"]))


@dataclass(frozen=True)
class Settings:
    """What the program works on.

    Attributes:
        history: the history file; its lock and its state lie beside it.
        journalctl: the program that reads the journal.
        since_days: how far back the first run looks.
        timeout_s: for one reading of the journal, and for the lock.
        max_bytes: a larger history is compacted.
        keep_days: compacting drops older records.
    """

    history: str
    journalctl: str = "journalctl"
    since_days: float = 30.0
    timeout_s: float = 30.0
    max_bytes: int = 4 << 20
    keep_days: float = 400.0


def load_state(history: str) -> dict[str, Any]:
    """Return ``cursor``, ``covered_since`` and ``updated``; empty when nothing can be read."""
    try:
        with open(f"{history}.state", encoding="utf-8") as file:
            state = json.load(file)
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def save_state(history: str, state: dict[str, Any]) -> None:
    """Remember how far the history goes."""
    replace_file(f"{history}.state", json.dumps(state, sort_keys=True).encode() + b"\n")


@contextlib.contextmanager
def locked(path: str, timeout_s: float) -> Iterator[None]:
    """Hold the lock of a history.

    Raises:
        JournalError: somebody else held it all the time.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        end = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise journal.JournalError(f"another program holds {path}") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def update(settings: Settings) -> dict[str, Any]:
    """Bring the history up to date and return what was done.

    Raises:
        JournalError: the journal can't be read, or the history is locked.
        OSError: the history can't be written.
    """
    history = settings.history
    with locked(f"{history}.lock", settings.timeout_s):
        state = load_state(history)
        cursor = str(state.get("cursor") or "")
        reading = journal.read_on(
            settings.journalctl, settings.timeout_s, cursor, settings.since_days
        )
        state = _covered(settings, state)
        records = load_records(history)[0] if reading.events else []
        new = only_new(reading.events, records)
        append_records(history, new)
        save_state(history, {**state, "cursor": reading.cursor or cursor})
        if new and os.stat(history).st_size > settings.max_bytes:
            kept = compact(records + new, journal.days_ago(settings.keep_days))
            replace_file(history, b"".join(map(_line, kept)))
    return {
        "added": len(new),
        "complete": reading.complete,
        "covered_since": state["covered_since"] or None,
    }


def _covered(settings: Settings, state: dict[str, Any]) -> dict[str, Any]:
    """Return the state with the time from which on nothing can have been missed.

    When all that the journal still has is younger than the last run, what came in between may be
    lost: the journal is not kept over a boot, or rotates too early.
    """
    covered, updated = str(state.get("covered_since") or ""), str(state.get("updated") or "")
    first = journal.oldest_message(settings.journalctl, settings.timeout_s)
    if first and not covered:
        covered = max(first, journal.days_ago(settings.since_days))
    elif first > updated:
        covered = first
    return {"schema": SCHEMA, "covered_since": covered, "updated": journal.days_ago(0)}


def main(argv: list[str] | None = None) -> int:
    """Run once; 0 when the history is up to date, 1 when it is not, 2 for wrong arguments."""
    defaults = Settings("")
    parser = argparse.ArgumentParser(description="Keep the Xid messages of the NVIDIA driver.")
    parser.add_argument("--history", required=True, help="file to append to, JSON lines")
    parser.add_argument("--journalctl", default=defaults.journalctl)
    parser.add_argument("--since-days", type=float, default=defaults.since_days)
    parser.add_argument("--timeout-s", type=float, default=defaults.timeout_s)
    parser.add_argument("--max-bytes", type=int, default=defaults.max_bytes)
    parser.add_argument("--keep-days", type=float, default=defaults.keep_days)
    settings = Settings(**vars(parser.parse_args(argv)))
    try:
        done = update(settings)
    except (journal.JournalError, OSError) as error:
        sys.stderr.write(f"gpu_xid_history: {error}\n")
        return 1
    sys.stdout.write(json.dumps(done, sort_keys=True) + "\n")
    return 0 if done["complete"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
