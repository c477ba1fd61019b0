# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Drawings of a report as inline SVG; colours come from the page's own style."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_text as text

WIDTH = 960
LEFT = 190  # where the plot begins; names stand before it
ROW = 46
STEPS = (1, 2, 5)
TIME_STEPS = (0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)


def timeline(phases: Sequence[Mapping[str, Any]], total: float) -> Markup:
    """Draw a bar for each phase that ran, on one axis of time."""
    ran = [phase for phase in phases if phase.get("seconds") is not None]
    if not ran or total <= 0:
        return Markup("")
    row, right = 30, WIDTH - 90
    height = row * len(ran) + 34
    parts = [_open(height, "Time of each phase")]
    for mark in _time_ticks(total):
        x = LEFT + (right - LEFT) * mark / total
        parts.append(_line(x, 4, x, height - 26, "grid"))
        parts.append(_text(x, height - 8, text.duration(mark) if mark else "0", "tick", "middle"))
    for number, phase in enumerate(ran):
        y = 6 + row * number
        x = LEFT + (right - LEFT) * min(1.0, phase["offset_seconds"] / total)
        width = max(3.0, (right - LEFT) * phase["seconds"] / total)
        parts.append(_text(LEFT - 14, y + 15, phase["name"], "name", "end"))
        parts.append(
            f'<rect class="bar {escape(phase["tone"])}" x="{x:.1f}" y="{y + 2}"'
            f' width="{width:.1f}" height="18" rx="3"/>'
        )
        parts.append(_text(x + width + 8, y + 15, text.duration(phase["seconds"]), "value"))
    return _close(parts)


def latency(models: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw the time to the first token of each model, and how fast it goes on.

    Each row has ``label``, ``further`` (another row of the same model), ``samples`` and ``median``
    in milliseconds, ``limit`` (its service level objective, or ``None``) and ``rate`` in tokens
    per second.
    """
    drawn = [model for model in models if model.get("median") is not None]
    if not drawn:
        return Markup("")
    values = [value for model in drawn for value in _values(model)]
    scale = _Scale(min(values), max(values), LEFT, 660)
    fastest = max((model.get("rate") or 0 for model in drawn), default=0) or 1
    top, height = 26, ROW * len(drawn) + 58
    parts = [
        _open(height, "Time to the first token and tokens per second of each model"),
        _text(LEFT, 14, f"time to first token{scale.note}", "head"),
        _text(720, 14, "tokens per second", "head"),
    ]
    for mark in scale.marks:
        x = scale.place(mark)
        parts.append(_line(x, top, x, height - 28, "grid"))
        parts.append(_text(x, height - 10, _latency_mark(mark), "tick", "middle"))
    for number, model in enumerate(drawn):
        y = top + ROW * number + ROW / 2
        kind = "value" if model.get("further") else "name"
        parts.append(_text(LEFT - 14, y + 4, _short(model["label"]), kind, "end"))
        parts.extend(_latency_row(model, y, scale))
        rate = model.get("rate")
        if rate:
            width = 150 * rate / fastest
            parts.append(
                f'<rect class="bar rate" x="720" y="{y - 7:.1f}" width="{width:.1f}"'
                ' height="14" rx="2"/>'
            )
            parts.append(_text(720 + width + 8, y + 4, f"{rate:.1f}", "value"))
    return _close(parts)


def _latency_row(model: Mapping[str, Any], y: float, scale: _Scale) -> Iterable[str]:
    limit, median = model.get("limit"), model["median"]
    over = limit is not None and median > limit
    if limit is not None:
        x = scale.place(limit)
        yield _line(x, y - 15, x, y + 15, "limit")
        yield _text(x + 6, y - 9, text.milliseconds(limit), "tick")
    for sample in model.get("samples", []):
        yield f'<circle class="dot" cx="{scale.place(sample):.1f}" cy="{y:.1f}" r="5"/>'
    x = scale.place(median)
    yield _line(x, y - 11, x, y + 11, "median over" if over else "median")
    yield _text(x, y + 24, text.milliseconds(median), "value over" if over else "value", "middle")


class _Scale:
    """Places a value between two edges, by its logarithm when the values lie far apart."""

    def __init__(self, low: float, high: float, left: float, right: float) -> None:
        self._left, self._right = left, right
        low, high = max(low, 0.1), max(high, 0.2)
        self.logarithmic = high / low > 15
        self.note = ", logarithmic" if self.logarithmic else ""
        self.low = low / 1.4 if self.logarithmic else 0.0
        self.high = high * 1.25 if self.logarithmic else high * 1.1
        if self.logarithmic:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            marks = [step * 10.0**decade for decade in decades for step in STEPS]
            self.marks = [mark for mark in marks if self.low <= mark <= self.high]
            if len(self.marks) > 7:
                self.marks = [mark for mark in self.marks if f"{mark:e}".startswith("1")]
        else:
            self.marks = _ticks(0, self.high)

    def place(self, value: float) -> float:
        """Return where a value stands."""
        value = min(max(value, self.low or 0.0), self.high)
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = value / self.high
        return self._left + (self._right - self._left) * share


def _latency_mark(value: float) -> str:
    return text.milliseconds(value) if value else "0"


def _values(model: Mapping[str, Any]) -> list[float]:
    known = [model["median"], model.get("limit"), *model.get("samples", [])]
    return [float(value) for value in known if value is not None]


def _ticks(low: float, high: float) -> list[float]:
    """Return four to seven round values."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((power * factor for factor in (1, 2, 5, 10) if power * factor >= raw), power * 10)
    return [low + step * number for number in range(int((high - low) / step) + 1)]


def _time_ticks(total: float) -> list[float]:
    """Return round times, eight at most."""
    step = next((step for step in TIME_STEPS if total / step <= 8), TIME_STEPS[-1])
    return [step * number for number in range(int(total / step) + 1)]


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


def _open(height: float, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}"'
        f' width="{WIDTH}" height="{height:.0f}">'
    )


def _close(parts: Iterable[str]) -> Markup:
    # Every text and attribute that comes from a record has passed through escape().
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 - parts are escaped


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, content: str, kind: str, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(content)}</text>'
