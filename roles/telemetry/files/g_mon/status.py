# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the collection stands: what the units, the files and the metrics say together."""

from __future__ import annotations

from typing import Any

from . import account, data, gauges
from .data import Tail, iso
from .settings import STALE_INTERVALS, GMonError, Settings
from .units import Collector

HEALTHY, WARNING, BROKEN = 0, 1, 2
# A newest sample that is later than now by more than this was taken with another clock. A second is
# the resolution of the files; two hosts are never compared.
CLOCK_TOLERANCE_S = 2.0


def report(failures: list[str], warnings: list[str]) -> dict[str, Any]:
    """Return the part that every JSON answer begins with: verdict and reasons."""
    code = BROKEN if failures else WARNING if warnings else HEALTHY
    return {"ok": code == HEALTHY, "exit": code, "failures": failures, "warnings": warnings}


def look(settings: Settings, collector: Collector, now: float) -> dict[str, Any]:
    """Return the state of the collection; ``now`` is in seconds since 1970.

    ``exit`` is 0 when it is healthy, 1 when something wants to be looked at, 2 when no samples are
    taken or none can be read.
    """
    failures, warnings = judge_units(collector)
    found: dict[str, Any] = {}
    gpus: list[dict[str, Any]] = []
    try:
        tail = data.tail(settings)
        worse, bad = judge_data(settings, collector, tail, now)
        failures, warnings = failures + worse, warnings + bad
        found = _data_json(settings, tail, now)
        gpus = [data.gpu_json(row) for row in tail.newest]
    except GMonError as error:
        failures.append(str(error))
    failures += judge_collection(settings, collector)
    return {
        **report(failures, warnings),
        "host": settings.host,
        "unit": collector.json(),
        "data": found,
        "gpus": gpus,
    }


def judge_units(collector: Collector) -> tuple[list[str], list[str]]:
    """Return what is wrong with the units: failures and warnings."""
    name, unit = collector.lead, collector.leading
    if not collector.installed:
        return [f"{collector.settings.service} isn't installed: run the role telemetry"], []
    if unit.get("LoadState") != "loaded":
        state = unit.get("LoadState", "unknown")
        return [f"{name} is {state}, wanted: loaded; systemctl status {name} says why"], []
    if not collector.running:
        state = unit.get("ActiveState", "unknown")
        return [f"{name} is {state}, so no samples are taken: sudo g-mon start"], []
    if not collector.starts_at_boot:
        return [], [f"{name} doesn't start at boot: sudo g-mon enable"]
    return [], []


def judge_collection(settings: Settings, collector: Collector) -> list[str]:
    """Return why the last collection failed, as the service and the textfile tell; else nothing."""
    try:
        metrics = account.metrics(settings)
        events = [line for line in account.last_events(settings, 50) if " error " in line]
    except GMonError as error:
        return [str(error)]
    result = collector.service.get("Result", "success")
    failing = metrics is not None and metrics.failing
    if result in ("", "success") and not failing:
        return []
    said = [] if result in ("", "success") else [f"the service ended with {result}"]
    if failing and metrics is not None:
        said.append(f"the metrics say {metrics.state or 'failed'}")
    if events:
        said.append(f"last error: {events[-1]}")
    return [f"the last collection failed: {'; '.join(said)}"]


def judge_data(
    settings: Settings, collector: Collector, tail: Tail, now: float
) -> tuple[list[str], list[str]]:
    """Return what is wrong with the data: failures and warnings."""
    warnings = []
    if tail.foreign:
        warnings.append(f"{settings.stable}: the header isn't the collector's")
    if tail.time is None:
        # A collector that was started a moment ago owes its first sample only by now.
        young = collector.since is not None and now - collector.since < settings.stale_after_s
        text = f"there are no samples in {settings.data_dir}"
        if collector.running and young:
            return [], [*warnings, f"{text} yet"]
        return [f"{text}: g-mon logs, g-mon selftest"], warnings
    age = now - tail.time
    if age > settings.stale_after_s:
        warnings.append(
            f"the data are stale: the newest sample is {gauges.duration(age)} old, "
            f"over {STALE_INTERVALS} intervals of {gauges.duration(settings.interval_s)}"
        )
    elif age < -CLOCK_TOLERANCE_S:
        warnings.append(
            f"the newest sample lies {gauges.duration(age)} in the future: the clock was set back, "
            "so the age of the data isn't known"
        )
    return [], warnings + judge_missing(settings, tail)


def judge_missing(settings: Settings, tail: Tail) -> list[str]:
    """Return which GPUs should be in the newest sample and aren't.

    The collector knows of them for ever, the end of the data for some samples only: that one is
    asked where the collector has noted nothing yet, and for cards without a UUID.
    """
    noted = account.missing(settings)
    return [card.text for card in noted or ()] + [
        f"GPU {row.index} ({row.key}) isn't in the newest sample, "
        f"it was last seen at {gauges.clock(row.time)} UTC"
        for row in tail.missing
        if noted is None or not row.text("uuid")
    ]


def _data_json(settings: Settings, tail: Tail, now: float) -> dict[str, Any]:
    sizes = dict(data.sizes(settings))
    age = None if tail.time is None else round(now - tail.time, 3)
    return {
        "dir": str(settings.data_dir),
        "file": None if tail.path is None else tail.path.name,
        "newest": iso(tail.time),
        "age_seconds": age,
        "interval_seconds": settings.interval_s,
        "stale": age is None or age > settings.stale_after_s,
        "rows_today": data.rows_of_day(settings, now),
        "file_bytes": _bytes_of(tail, sizes),
        "files": len(sizes),
        "total_bytes": sum(sizes.values()),
    }


def _bytes_of(tail: Tail, sizes: dict[Any, int]) -> int | None:
    if tail.path is None:
        return None
    return next((count for path, count in sizes.items() if path.name == tail.path.name), None)


def exit_code(answer: dict[str, Any]) -> int:
    """Return the exit status that belongs to an answer."""
    return int(answer["exit"])
