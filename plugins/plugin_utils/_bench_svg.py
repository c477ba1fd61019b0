# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Parts of a drawing as inline SVG: axes, lines, dots; colours come from the page's own style."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from markupsafe import Markup, escape

WIDTH = 960
LOG_FROM = 15  # values that lie further apart than this stand on a logarithmic axis
Points = Sequence["tuple[float, float]"]


class Axis:
    """Places values between two edges of a drawing.

    Args:
        low, high: least and largest value.
        start, end: where they stand, in units of the drawing; start is larger on an upright axis.
        log: logarithmic; both values have to be over zero.
        marks: how many ticks are wanted, roughly.
    """

    def __init__(
        self,
        low: float,
        high: float,
        start: float,
        end: float,
        *,
        log: bool = False,
        marks: int = 5,
    ) -> None:
        if log:
            low = max(low, 1e-9)
            high = max(high, low * 1.01)
        elif high <= low:
            high = low + (abs(low) or 1.0)
        self.low, self.high, self.start, self.end, self.log = low, high, start, end, log
        self.marks = _log_marks(low, high, marks) if log else _marks(low, high, marks)

    def place(self, value: float) -> float:
        """Return where a value stands; one beyond an edge stands at the edge."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * share


def spread(values: Sequence[float]) -> tuple[float, float, bool]:
    """Return low, high and whether to go by the logarithm, for values that are not below zero."""
    positive = [value for value in values if value > 0]
    if not positive:
        return 0.0, 1.0, False
    low, high = min(positive), max(positive)
    if high / low > LOG_FROM:
        return low / 1.15, high * 1.15, True
    return 0.0, high * 1.08, False


def drawing(height: float, title: str, parts: Iterable[str], width: float = WIDTH) -> Markup:
    """Return a drawing. Every text in its parts has passed through ``escape``."""
    head = (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
        f' role="img" aria-label="{escape(title)}">'
    )
    return Markup("".join([head, *parts, "</svg>"]))  # noqa: S704 - parts are escaped


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Return a straight line."""
    return f'<path class="{kind}" d="M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}"/>'


def text(x: float, y: float, content: str, kind: str = "tick", anchor: str = "") -> str:
    """Return a text; ``anchor`` is empty, ``middle`` or ``end``."""
    at = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text class="{kind}" x="{_n(x)}" y="{_n(y)}"{at}>{escape(content)}</text>'


def rect(x: float, y: float, width: float, height: float, *, kind: str, tip: str = "") -> str:
    """Return a bar; ``tip`` is shown when one points at it."""
    shape = (
        f'class="{kind}" x="{_n(x)}" y="{_n(y)}" width="{_n(max(0.5, width))}"'
        f' height="{_n(max(0.5, height))}"'
    )
    return f"<rect {shape}><title>{escape(tip)}</title></rect>" if tip else f"<rect {shape}/>"


def dot(x: float, y: float, kind: str, radius: float = 4, tip: str = "") -> str:
    """Return a dot; ``tip`` is shown when one points at it."""
    shape = f'class="{kind}" cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}"'
    return f"<circle {shape}><title>{escape(tip)}</title></circle>" if tip else f"<circle {shape}/>"


def path(points: Points, kind: str) -> str:
    """Return a line through points."""
    if not points:
        return ""
    steps = " ".join(f"{_n(x)} {_n(y)}" for x, y in points)
    return f'<path class="{kind}" d="M{steps}"/>'


def cloud(points: Points, kind: str) -> str:
    """Return many dots as one path of strokes without length, which round caps make visible."""
    if not points:
        return ""
    return f'<path class="{kind}" d="{"".join(f"M{_n(x)} {_n(y)}h0" for x, y in points)}"/>'


def crosses(points: Points, kind: str, size: float = 3.5) -> str:
    """Return many crosses as one path."""
    if not points:
        return ""
    arm, both = _n(size), _n(2 * size)
    steps = "".join(
        f"M{_n(x - size)} {_n(y - size)}l{both} {both}m-{both} 0l{both} -{both}" for x, y in points
    )
    return f'<path class="{kind}" d="{steps}"/>' if arm else ""


def grid(ends: Iterable[tuple[float, float, float, float]]) -> str:
    """Return many thin lines as one path; each is x1, y1, x2, y2."""
    steps = "".join(f"M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}" for x1, y1, x2, y2 in ends)
    return f'<path class="grid" d="{steps}"/>' if steps else ""


def ticks(labels: Iterable[tuple[float, float, str]], anchor: str) -> str:
    """Return the labels of an axis; each is x, y, text."""
    parts = [f'<text x="{_n(x)}" y="{_n(y)}">{escape(told)}</text>' for x, y, told in labels]
    return f'<g class="ticks" text-anchor="{anchor}">{"".join(parts)}</g>' if parts else ""


def bottom(axis: Axis, top: float, base: float, label: Callable[[float], str]) -> Iterable[str]:
    """Draw the grid and the ticks of a horizontal axis."""
    places = [(axis.place(mark), label(mark)) for mark in axis.marks]
    yield grid((x, top, x, base) for x, _label in places)
    yield ticks(((x, base + 16, told) for x, told in places), "middle")


def side(axis: Axis, left: float, right: float, label: Callable[[float], str]) -> Iterable[str]:
    """Draw the grid and the ticks of an upright axis."""
    places = [(axis.place(mark), label(mark)) for mark in axis.marks]
    yield grid((left, y, right, y) for y, _label in places)
    yield ticks(((left - 8, y + 4, told) for y, told in places if told), "end")


def thinned(points: Points, limit: int) -> list[tuple[float, float]]:
    """Return at most ``limit`` points: the highest one of each stretch of x, and every n-th other.

    The extremes of a crowd are what a reader looks for, and an even part of the rest shows where
    most of it stands.
    """
    if len(points) <= limit:
        return list(points)
    ordered = sorted(points)
    first, last = ordered[0][0], ordered[-1][0]
    number = max(1, limit // 2)
    width = (last - first) / number or 1.0
    highest: dict[int, int] = {}
    for at, (x, y) in enumerate(ordered):
        stretch = min(number - 1, int((x - first) / width))
        if stretch not in highest or y > ordered[highest[stretch]][1]:
            highest[stretch] = at
    kept = set(highest.values())
    others = [at for at in range(len(ordered)) if at not in kept]
    kept.update(others[:: math.ceil(len(others) / max(1, limit - len(kept)))])
    return [ordered[at] for at in sorted(kept)]


def averaged(points: Points, limit: int) -> list[tuple[float, float]]:
    """Return at most ``limit`` points, each the mean of as many that follow each other."""
    if len(points) <= limit:
        return list(points)
    size = math.ceil(len(points) / limit)
    groups = [points[at : at + size] for at in range(0, len(points), size)]
    return [
        (math.fsum(x for x, _y in group) / len(group), math.fsum(y for _x, y in group) / len(group))
        for group in groups
    ]


def short(name: str, length: int = 30) -> str:
    """Shorten a name in its middle: both ends of a model's name tell models apart."""
    if len(name) <= length:
        return name
    tail = (length - 1) // 2
    return f"{name[: length - 1 - tail]}…{name[-tail:]}"


def distinct(names: Sequence[str], length: int = 30) -> list[str]:
    """Shorten names so that those which differ still do: what all begin with goes first."""
    made = [short(name, length) for name in names]
    if len(set(made)) == len(set(names)):
        return made
    least, most = min(names), max(names)
    common = next(
        (at for at, (one, other) in enumerate(zip(least, most, strict=False)) if one != other),
        min(len(least), len(most)),
    )
    rest = [f"…{name[max(0, common - 2) :]}" for name in names]
    return [name if len(name) <= length else f"{name[: length - 1]}…" for name in rest]


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _marks(low: float, high: float, wanted: int) -> list[float]:
    raw = (high - low) / max(1, wanted)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(step * number, 12) for number in range(first, last + 1)]


def _log_marks(low: float, high: float, wanted: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**decade for decade in decades for step in steps]
        found = [mark for mark in found if low <= mark <= high]
        if len(found) <= wanted + 2:
            break
    return found
