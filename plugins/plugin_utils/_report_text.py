# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Figures as people read them."""

from __future__ import annotations

from typing import Any

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def size(count: float | None) -> str:
    """Return a number of bytes in decimal units, as the engine shows them."""
    if count is None:
        return "not known"
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    digits = 0 if unit == 0 or value >= 10 else 1
    return f"{value:.{digits}f} {UNITS[unit]}"


def duration(seconds: float | None) -> str:
    """Return a duration in the two largest units that it has."""
    if seconds is None:
        return "not known"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def milliseconds(value: float | None) -> str:
    """Return a latency: milliseconds below a second, seconds above."""
    if value is None:
        return "not known"
    if value < 1000:
        return f"{value:.0f} ms" if value >= 10 else f"{_short(value)} ms"
    return f"{_short(value / 1000)} s"


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def figure(value: Any, unit: str = "") -> str:
    """Return the value or limit of a verdict."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value) or "none"
    if isinstance(value, float):
        value = _short(value)
    return f"{value} {unit}".strip()


def _short(value: float) -> str:
    """Return a number with two decimals at most, without zeros at its end."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
