# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Figures over a period: each GPU's readings, and how complete the samples are."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from .data import FIELDS, MIB, Reading, Row, iso, rounded
from .gauges import plural
from .settings import GMonError
from .status import report

# A card that drives nothing but its own display shows up to 4 %, as the operators' notes have it.
IDLE_BELOW_PERCENT = 5.0
# A sample is missing when its turn and half an interval have passed without it.
GAP_INTERVALS = 1.5
LISTED_GAPS = 5
MEASURES = tuple(entry for entry in FIELDS if entry[0] != "memory_total_bytes")
PERIOD = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)")
SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_since(text: str, now: float) -> float:
    """Return the begin of a period, in seconds since 1970; GMonError when it is none.

    ``text`` is a length (90m, 24h, 7d, 2w) or a time (2026-11-20, 2026-11-20T10:00), which is UTC
    unless it says otherwise.
    """
    length = PERIOD.fullmatch(text.strip())
    if length:
        since = now - float(length[1]) * SECONDS[length[2]]
    else:
        try:
            moment = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text.strip()))
        except ValueError as error:
            message = f"--since is {text!r}, wanted: a length as 24h or 7d, or a time as 2026-11-20"
            raise GMonError(message) from error
        since = (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    if since < 0:
        raise GMonError(f"--since {text} begins before 1970")
    if since >= now:
        raise GMonError(f"--since {text} begins in the future, or now")
    return since


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return a percentile of sorted values, linear between the two nearest ranks.

    Type 7 of R. J. Hyndman and Y. Fan, "Sample Quantiles in Statistical Packages", 1996: what the
    benchmark reports use too.
    """
    rank = (len(ordered) - 1) * percent / 100
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def summary(values: Sequence[float], name: str) -> dict[str, float] | None:
    """Return min, mean, max and p95 of a reading; None when no sample has it."""
    if not values:
        return None
    ordered = sorted(values)
    figures = {
        "min": ordered[0],
        "mean": math.fsum(ordered) / len(ordered),
        "max": ordered[-1],
        "p95": percentile(ordered, 95),
    }
    known = {part: rounded(value, name) for part, value in figures.items()}
    return {**known, "samples": len(ordered)}


def gaps(
    times: Sequence[float], before: float | None, since: float, now: float, interval: float
) -> dict[str, Any]:
    """Return where samples are missing between ``since`` and ``now``.

    Args:
        times: when samples were taken, in seconds since 1970, in order and each once.
        before: the last sample before the period, None when there was none: then the period
            begins for us with its first sample, as on a host that was set up since.
        since: the period's begin.
        now: its end; the time since the last sample counts too.
        interval: seconds between two samples as they should be.
    """
    begin = since if before is not None else (times[0] if times else since)
    # What was missing before the period is no matter of it.
    marks = [*([max(before, since - interval)] if before is not None else []), *times, now]
    found = []
    for at, (left, right) in enumerate(zip(marks, marks[1:])):
        if right - left > GAP_INTERVALS * interval:
            missed = max(1, math.floor((right - left) / interval + 0.5) - 1)
            found.append(
                {
                    "from": iso(left),
                    "to": iso(right),
                    "seconds": round(right - left, 3),
                    "missed_samples": missed,
                    "lasts": at == len(marks) - 2,
                }
            )
    found.sort(key=lambda gap: -gap["seconds"])
    longest = max((right - left for left, right in zip(marks, marks[1:])), default=None)
    taken = len(times)
    missed = sum(gap["missed_samples"] for gap in found)
    return {
        "samples": taken,
        "covered_from": iso(begin),
        "missed_samples": missed,
        "complete_ratio": round(taken / (taken + missed), 4) if taken + missed else None,
        "gap_count": len(found),
        "gaps": found[:LISTED_GAPS],
        "longest_stale_seconds": None if longest is None else round(longest, 3),
    }


def gpu_figures(rows: Sequence[Row], samples: int) -> dict[str, Any]:
    """Return the figures of one GPU; ``samples`` is how many were taken of the host."""
    last = rows[-1]
    busy = [value for value in (row.number("utilization.gpu") for row in rows) if value is not None]
    figures: dict[str, Any] = {
        "index": last.index,
        "name": last.text("name"),
        "uuid": last.text("uuid"),
        "pci_bus_id": last.text("pci.bus_id"),
        "samples": len({row.time for row in rows}),
        "idle_ratio": None,
        "memory_total_bytes": next(iter(_scaled([last], "memory.total", MIB)), None),
    }
    figures["missing_samples"] = samples - figures["samples"]
    if busy:
        idle = sum(value < IDLE_BELOW_PERCENT for value in busy)
        figures["idle_ratio"] = round(idle / len(busy), 4)
    for name, column, factor in MEASURES:
        figures[name] = summary(_scaled(rows, column, factor), name)
    return figures


def _scaled(rows: Sequence[Row], column: str, factor: float) -> list[float]:
    numbers = (row.number(column) for row in rows)
    return [number * factor for number in numbers if number is not None]


def figures(
    reading: Reading, host: str, since: float, now: float, interval: float
) -> dict[str, Any]:
    """Return everything that ``g-mon stats`` tells; ``exit`` is 1 without any sample.

    Samples that lie after ``now`` were taken while the clock was ahead: they are counted, named and
    left out.
    """
    rows = [row for row in reading.rows if row.time <= now + 1]
    ahead = len(reading.rows) - len(rows)
    times = sorted({row.time for row in rows})
    warnings = []
    if not rows:
        warnings.append(f"there is no sample since {iso(since)}")
    if reading.broken:
        warnings.append(f"{plural(reading.broken, 'line')} of these days can't be read: left out")
    if ahead:
        warnings.append(f"{plural(ahead, 'row')} with a time in the future: left out")
    if reading.foreign:
        warnings.append(f"left out, with another header: {', '.join(reading.foreign)}")
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.key, []).append(row)
    gpus = [gpu_figures(group, len(times)) for group in groups.values()]
    return {
        **report([], warnings),
        "ok": bool(rows),
        "exit": 0 if rows else 1,
        "host": host,
        "since": iso(since),
        "until": iso(now),
        "interval_seconds": interval,
        "idle_below_ratio": IDLE_BELOW_PERCENT / 100,
        **gaps(times, reading.before, since, now, interval),
        "gpus": sorted(gpus, key=lambda gpu: (gpu["index"], gpu["uuid"])),
    }
