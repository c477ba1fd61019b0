# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes down how a collection went: CSV lines, textfiles, and an event when something changed."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from gpu_dcgm import render_dcgm
from gpu_files import (
    STAMP,
    DailyCsv,
    LockError,
    WriteError,
    add_event,
    load_state,
    locked,
    replace_file,
    save_state,
    trim_events,
)
from gpu_metrics import Account, label, label_of, readable, reason_bits, render_metrics
from gpu_reader import CollectError, Left, Sample
from gpu_xids import History

MIB, MHZ = 1024 * 1024, 1_000_000
STALE_INTERVALS = 3  # as g-mon has it: samples that are further apart than this left a gap
GOOD = frozenset({"ok", "stopped"})  # states that are no failure

# Column, field of the reading, divisor and digits: numbers as nvidia-smi's nounits format has them.
COLUMNS: tuple[tuple[str, str, float, int], ...] = (
    ("timestamp", "", 1, 0),
    ("index", "index", 1, 0),
    ("name", "name", 1, 0),
    ("uuid", "uuid", 1, 0),
    ("pci.bus_id", "pci_bus_id", 1, 0),
    ("temperature.gpu", "temperature_c", 1, 0),
    ("utilization.gpu", "utilization_gpu_ratio", 0.01, 0),
    ("memory.used", "memory_used_bytes", MIB, 0),
    ("memory.total", "memory_total_bytes", MIB, 0),
    ("power.draw", "power_draw_watts", 1, 2),
    ("enforced.power.limit", "power_limit_watts", 1, 2),
    ("clocks.sm", "clock_sm_hz", MHZ, 0),
    ("clocks.mem", "clock_memory_hz", MHZ, 0),
    ("clocks_event_reasons.active", "clocks_event_reasons", 1, 0),
    ("pcie.link.gen.current", "pcie_link_gen_current", 1, 0),
    ("pcie.link.width.current", "pcie_link_width_current", 1, 0),
    ("fan.speed", "fan_speed_ratio", 0.01, 0),
)
HEADER = ",".join(column[0] for column in COLUMNS) + "\n"


def csv_rows(sample: Sample) -> str:
    """Return one line per GPU that answered; a value that is not known is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    stamp = utc(sample.time).strftime(STAMP)
    for gpu in sample.gpus:
        if gpu["state"] == "ok":
            writer.writerow([stamp, *(_field(gpu, *column) for column in COLUMNS[1:])])
    return text.getvalue()


def _field(gpu: dict[str, Any], _column: str, field: str, divisor: float, digits: int) -> str:
    value = gpu.get(field)
    if value is None or isinstance(value, str):
        return " ".join((value or "").split())
    if isinstance(value, list):
        return f"0x{reason_bits(gpu):016x}"  # like nvidia-smi; 0 is no reason, empty is not known
    return f"{value / divisor:.{digits}f}"


def utc(seconds: float) -> datetime:
    """Return a point in time as a date in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc)


class Paths(NamedTuple):
    """Where things are written; ``dcgm`` and ``xids`` are None where they are not wanted."""

    csv: Path
    textfile: Path
    dcgm: Path | None
    xids: Path | None

    @property
    def events(self) -> Path:
        """Starts, stops, errors, recoveries and repairs."""
        return self.csv.with_suffix(".events")

    @property
    def lock(self) -> Path:
        """What writers hold; never renamed."""
        return self.csv.with_suffix(".lock")

    @property
    def state(self) -> Path:
        """What one collection leaves for the next."""
        return self.csv.with_suffix(".state")


class ForgetError(Exception):
    """There is no such GPU that could be forgotten."""


class Recorder:
    """Writes down collections, one after the other.

    An event tells that something is different from the last time. What there was the last time is
    kept in ``state``, in a file, because every one-shot collection is a process of its own:
    ``state`` of the collection, ``failing_since``, ``last_run`` and ``last_success``, ``failures``,
    ``count`` of GPUs and those of them that don't answer (``gpus``), ``cards`` that answered once,
    ``xids`` and ``xid_search``, ``uuids`` by address, ``left`` of a reader that can't be killed,
    ``trimmed``.
    """

    def __init__(
        self, paths: Paths, keep_days: int, interval_s: float, start: str | None = None
    ) -> None:
        """Store what is needed.

        Args:
            paths: where things are written.
            keep_days: how long files and events stay.
            interval_s: how often a collection is due.
            start: the event that the first collection of this process is, when it always is one.
        """
        self.paths = paths
        self.keep_days = keep_days
        self.interval_s = interval_s
        self.restarts: dict[str, int] = {}
        self.state = load_state(paths.state)
        self._csv = DailyCsv(paths.csv, HEADER, keep_days)
        self._history = History(paths.xids) if paths.xids else None
        self._start = start
        self._first = self._saved = True
        self._sample: Sample | None = None
        self._code: int | None = None
        self._seconds = 0.0

    @property
    def left(self) -> Left | None:
        """The reader of an earlier collection that could not be killed."""
        left = self.state.get("left")
        return Left(*left) if left else None

    def sampled(self, sample: Sample, search: str | None = None) -> None:
        """Write a sample down; WriteError when not all of it could be.

        Args:
            sample: the readings.
            search: what is wrong with the search for Xids, empty for nothing, None for no news.
        """
        now = utc(sample.time)
        self._sample, self._code, self._seconds = sample, 0, sample.seconds
        failure: WriteError | None = None
        with self._writing():
            self.state["left"] = None
            events = self._started(now)
            try:
                events += [("repair", note) for note in self._csv.append(csv_rows(sample), now)]
                self.state["last_success"] = sample.time
            except WriteError as error:
                failure = error
            self._cards(sample)
            for gpu in readable(sample):
                self.state.setdefault("uuids", {})[_address(gpu)] = label(gpu)
            events += self._gpus(sample) + self._xids(search)
            self._conclude("ok", "", events, now, failure)

    def failed(
        self, error: CollectError, now: datetime, seconds: float, search: str | None = None
    ) -> None:
        """Write down that the GPUs could not be read, after so many seconds."""
        self._sample, self._code, self._seconds = None, error.code, seconds
        with self._writing():
            self.state["left"] = list(error.left) if error.left else None
            events = self._started(now) + self._xids(search)
            self._conclude(error.state, str(error), events, now)

    def stopped(self, now: datetime) -> None:
        """Write down that nothing is collected any more; what is older would look like news."""
        self._sample, self._code = None, None
        with self._writing():
            self._conclude("stopped", "", [("stop", "the collector was stopped")], now)

    def forget(self, uuid: str, now: datetime) -> str:
        """Take a GPU that was taken out off the ones that should answer; return the event's text.

        ForgetError when there is no such GPU, or when it answers.
        """
        with locked(self.paths.lock):
            state = load_state(self.paths.state)
            cards: dict[str, dict[str, Any]] = state.get("cards", {})
            card = cards.get(label_of(uuid))
            if card is None or card["present"]:
                what = "isn't known" if card is None else "answers"
                missing = [card["uuid"] for card in cards.values() if not card["present"]]
                wanted = f"a GPU that is missing ({', '.join(missing) or 'none is'})"
                raise ForgetError(f"{uuid} {what}, wanted: {wanted}")
            del cards[label_of(uuid)]
            save_state(self.paths.state, state)
            text = f"{card['uuid']} at {card['pci_bus_id']} is missed no more"
            add_event(self.paths.events, now, "forget", text)
        return text

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with locked(self.paths.lock):
                if self._saved:  # others may have collected since
                    self.state = load_state(self.paths.state) or self.state
                yield
        except LockError:
            self._count_failure()
            self._textfiles("not_written", alone=False)  # by rename, so it needs no lock
            raise

    def _started(self, now: datetime) -> list[tuple[str, str]]:
        """Return the event of a process' first collection, when it is the first or after a gap."""
        last = self.state.get("last_run")
        self.state["last_run"] = now.timestamp()
        first, self._first = self._first, False
        if not first:
            return []
        if self._start:
            return [("start", self._start)]
        if not last:
            return [("start", f"first collection, one is due every {self.interval_s:g} s")]
        gap = round(now.timestamp() - last)
        if gap > STALE_INTERVALS * self.interval_s:
            return [("start", f"nothing was collected for {gap} s")]
        return []

    def _cards(self, sample: Sample) -> None:
        """Note which GPUs answer, beside those that did once: each stays until it is forgotten."""
        cards: dict[str, dict[str, Any]] | None = self.state.get("cards")
        if cards is None:  # an earlier version noted no more of them than this
            known = self.state.get("uuids", {}).items()
            cards = {
                uuid: {"uuid": f"GPU-{uuid}", "pci_bus_id": address, "index": None, "seen": None}
                for address, uuid in known
            }
        for card in cards.values():
            card["present"] = False
        for gpu in readable(sample):
            cards[label(gpu)] = {
                "uuid": gpu["uuid"],
                "pci_bus_id": _address(gpu),
                "index": gpu["index"],
                "seen": sample.time,
                "present": True,
            }
        self.state["cards"] = cards

    def _gpus(self, sample: Sample) -> list[tuple[str, str]]:
        """Return the events of single GPUs, known by their index."""
        before: dict[str, str] = self.state.get("gpus", {})
        gpus = {str(gpu["index"]): gpu for gpu in sample.gpus}
        after = {index: gpu["state"] for index, gpu in gpus.items() if gpu["state"] != "ok"}
        count, had = len(gpus), self.state.get("count", len(gpus))
        self.state["gpus"], self.state["count"] = after, count
        events = []
        if count != had:
            kind = "error" if count < had else "recovered"
            events.append((kind, f"the driver lists {count} GPUs, before it listed {had}"))
        for index, gpu in gpus.items():
            name = f"GPU {index} ({gpu.get('uuid', 'no UUID')})"
            was, state = before.get(index), after.get(index)
            if state and state != was:
                events.append(("error", f"{name} is {state}"))
            if was and not state:
                events.append(("recovered", f"{name} answers, it was {was}"))
        return events

    def _xids(self, search: str | None) -> list[tuple[str, str]]:
        """Return the events of new Xids, and of a search that begins or ceases to fail."""
        if self._history is None or search is None:
            return []
        known: dict[str, int] | None = self.state.get("xids")
        after, events = {}, []
        for xid in self._history.xids():
            key = f"{xid.pci_bus_id} {xid.xid}"
            after[key] = xid.count
            new = xid.count - (known or {}).get(key, 0)
            if known is not None and new > 0:
                times = "" if new == 1 else f", {new} times"
                events.append(("xid", f"GPU at {xid.pci_bus_id} reported Xid {xid.xid}{times}"))
        before = self.state.get("xid_search", "")
        self.state["xids"], self.state["xid_search"] = after, search
        if search and not before:
            events.append(("error", f"xid_search: {search}"))
        if before and not search:
            events.append(("recovered", "the kernel's journal can be searched again"))
        return events

    def _conclude(
        self,
        state: str,
        why: str,
        events: list[tuple[str, str]],
        now: datetime,
        failure: WriteError | None = None,
    ) -> None:
        """Write textfiles, events and state, as far as it goes; WriteError when it doesn't."""
        if failure or state not in GOOD:
            self._count_failure()
        failure = failure or self._textfiles(state)
        if failure:
            state, why = "not_written", str(failure)
            self._textfiles(state)
        events = events + self._change(state, why, now)
        self._saved = False
        try:
            self._tell(events, now)
        except WriteError as error:
            failure = failure or error
        try:
            save_state(self.paths.state, self.state)
            self._saved = True
        except WriteError as error:
            failure = failure or error
        if failure:
            raise failure

    def _tell(self, events: list[tuple[str, str]], now: datetime) -> None:
        for kind, text in events:
            print(kind, text, flush=True)
        for kind, text in events:
            add_event(self.paths.events, now, kind, text)
        if self.state.get("trimmed") != f"{now:%Y-%m-%d}":
            self.state["trimmed"] = f"{now:%Y-%m-%d}"
            trim_events(self.paths.events, now, self.keep_days)

    def _count_failure(self) -> None:
        self.state["failures"] = self.state.get("failures", 0) + 1

    def _change(self, state: str, why: str, now: datetime) -> list[tuple[str, str]]:
        """Note the state of the collection; return the event of a change."""
        before, self.state["state"] = self.state.get("state", "ok"), state
        if state not in GOOD:
            self.state.setdefault("failing_since", now.timestamp())
            return [("error", f"{state}: {why}")] if state != before else []
        since = self.state.pop("failing_since", None)
        if state == "ok" and since is not None:
            gone = round(now.timestamp() - since)
            return [("recovered", f"samples are taken again after {gone} s, it was {before}")]
        return []

    def _textfiles(self, state: str, alone: bool = True) -> WriteError | None:
        """Write what Prometheus reads; return what went wrong."""
        account = Account(
            state=state,
            code=self._code,
            seconds=self._seconds,
            interval_s=self.interval_s,
            last_run=self.state.get("last_run", 0.0),
            last_success=self.state.get("last_success", 0.0),
            failures=self.state.get("failures", 0),
            restarts=self.restarts,
            xids=self._history.xids() if self._history else [],
            xids_read=not self.state.get("xid_search") if self._history else None,
            uuids=self.state.get("uuids", {}),
            cards=self.state.get("cards", {}),
        )
        texts = [(self.paths.textfile, render_metrics(self._sample, account))]
        if self.paths.dcgm:
            texts.append((self.paths.dcgm, render_dcgm(self._sample, account)))
        failure = None
        for path, text in texts:
            try:
                replace_file(path, text, alone=alone)
            except WriteError as error:
                failure = failure or error
        return failure


def _address(gpu: dict[str, Any]) -> str:
    return str(gpu.get("pci_bus_id", "")).upper()
