# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Figures as text: durations, sizes, bars, sparklines; nothing here knows of files or colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone

NONE = "N/A"
EIGHTHS = " ▏▎▍▌▋▊▉█"
LEVELS = "▁▂▃▄▅▆▇█"
# For terminals that know ASCII only; the lowest level is visible too, for 0 is a reading.
ASCII_LEVELS = "_.:-=+*#"
GIB = 1024**3


def duration(seconds: float) -> str:
    """Return a length of time by its two largest units: 9 s, 2 min 14 s, 3 h 5 min, 2 d 4 h."""
    left = round(abs(seconds))
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, length)
        if number or (unit == "s" and not parts):
            parts.append(f"{number} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def clock(seconds: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return a time in UTC, without saying so: who prints it says it once."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime(form)


def size(count: float) -> str:
    """Return a number of bytes in the largest binary unit that leaves at least 1."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def percent(ratio: float | None) -> str:
    """Return a share: 87 %."""
    return NONE if ratio is None else f"{ratio * 100:.0f} %"


def celsius(value: float | None, ascii_only: bool = False) -> str:
    """Return a temperature."""
    return NONE if value is None else f"{value:.0f} {'C' if ascii_only else '°C'}"


def watts(value: float | None) -> str:
    """Return a power."""
    return NONE if value is None else f"{value:.0f} W"


def gib(count: float | None) -> str:
    """Return an amount of memory."""
    return NONE if count is None else f"{count / GIB:.1f} GiB"


def used_of(used: float | None, total: float | None) -> str:
    """Return two amounts of memory, both in bytes: 3.3/15.9 GiB."""
    if total is None:
        return gib(used)
    return f"{NONE if used is None else f'{used / GIB:.1f}'}/{total / GIB:.1f} GiB"


def share(part: float | None, whole: float | None) -> float | None:
    """Return a ratio; None when either isn't known."""
    return None if part is None or not whole else part / whole


def gauge(ratio: float | None, width: int, ascii_only: bool = False) -> tuple[str, str]:
    """Return the filled and the empty part of a bar, together ``width`` characters.

    A ratio beyond 0 to 1 fills nothing or everything. No reading gives a bar of spaces, which isn't
    the empty bar of a reading of 0.
    """
    if ratio is None:
        return "", " " * width
    ratio = min(1.0, max(0.0, ratio))
    if ascii_only:
        full = round(ratio * width)
        return "#" * full, "." * (width - full)
    full, part = divmod(round(ratio * width * 8), 8)
    filled = "█" * full + (EIGHTHS[part] if part else "")
    return filled, "·" * (width - len(filled))


def history(
    points: Iterable[tuple[float, float | None]], anchor: float, step: float, count: int
) -> list[float | None]:
    """Return ``count`` columns of ``step`` seconds each, the last one around ``anchor``.

    A column is the mean of its readings, None when there are none. Columns lie around whole steps
    before the anchor, so a timer's jitter of less than half a step moves no sample to a neighbour.
    """
    sums: dict[int, list[float]] = {}
    for time, value in points:
        at = count - 1 - round((anchor - time) / step)
        if value is not None and 0 <= at < count:
            sums.setdefault(at, []).append(value)
    return [sum(sums[at]) / len(sums[at]) if at in sums else None for at in range(count)]


def spark(values: Sequence[float | None], top: float | None, ascii_only: bool = False) -> str:
    """Return a character per value, the highest at ``top``; a space where there is no reading."""
    levels = ASCII_LEVELS if ascii_only else LEVELS
    known = [value for value in values if value is not None]
    top = top or max(known, default=0) or 1

    def level(value: float) -> str:
        return levels[min(len(levels) - 1, max(0, int(value / top * len(levels))))]

    return "".join(" " if value is None else level(value) for value in values)


def shorten(text: str, width: int, ascii_only: bool = False) -> str:
    """Return a text that is at most ``width`` characters long."""
    if len(text) <= width:
        return text
    mark = "~" if ascii_only else "…"
    return text[: max(0, width - 1)] + mark


def plural(count: int, what: str) -> str:
    """Return a number with its noun: 1 row, 2 rows."""
    return f"{count} {what}{'' if count == 1 else 's'}"
