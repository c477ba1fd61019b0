# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Plots over several loads or models: curve of a sweep, all models, changes since a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_svg as svg
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_text as text

ROW = 26
NAMES, BARS, RATES = 250, 610, 700  # where names end, latencies end, and rates begin


def sweep(shown: Mapping[str, Any]) -> Markup:
    """Draw TTFT against throughput, step by step, and throughput against the load."""
    points = [point for point in shown.get("points") or [] if _rate(point) is not None]
    if len(points) < 2:
        return Markup("")
    rates = [_rate(point) or 0.0 for point in points]
    loads = [float(point["value"]) for point in points]
    unit = "requests/s" if shown.get("over") == "rate" else "requests at once"
    what = "tokens/s in all" if points[0].get("total_tokens_per_s") is not None else "requests/s"
    knee, word = _knee(shown)
    top, base = 40, 300
    limit = (shown.get("slo") or {}).get("ttft_ms")
    drawn = [
        (
            name,
            kind,
            [(x, y) for x, y in zip(rates, _of(points, f"ttft_{name}_ms"), strict=True) if y],
        )
        for name, kind in (("p95", "s1"), ("p99", "s2"))
    ]
    latencies = [y for _name, _kind, curve in drawn for _x, y in curve]
    parts: list[str] = []
    if latencies:
        low, high, log = svg.spread([*latencies, *([limit] if limit else [])])
        across = svg.Axis(0, max(rates) * 1.08, 70, 540)
        up = svg.Axis(low, high, base, top, log=log)
        note = ", logarithmic" if log else ""
        parts.append(svg.text(70, 14, f"TTFT over {what}{note}", "head"))
        parts += svg.bottom(across, top, base, _plain)
        parts += svg.side(up, 70, 540, _ms)
        if limit:
            y = up.place(limit)
            parts.append(svg.line(70, y, 540, y, "limit"))
            parts.append(svg.text(76, y - 5, f"objective {_ms(limit)}"))
        for name, kind, curve in drawn:
            at = [(across.place(x), up.place(y)) for x, y in curve]
            parts.append(svg.path(at, f"curve {kind}"))
            parts += [
                svg.dot(*place, f"mark {kind}", 4, f"{name} {_ms(y)} at {_plain(x)} {what}")
                for place, (x, y) in zip(at, curve, strict=True)
            ]
            # In the corner, not at the ends of the curves: those often lie on each other.
            parts.append(svg.text(472 if name == "p95" else 512, 14, name, f"series {kind}"))
        parts += _load_labels(list(zip(points, loads, strict=True)), (across, up), knee, word)
    left = 640 if latencies else 70
    steps = list(zip(loads, rates, strict=True))
    title = f"{what}, by {unit}"
    parts += _throughput(steps, (knee, word), (left, 900), (top, base), title)
    return svg.drawing(base + 30, "Latency and throughput of each step of the sweep", parts)


def _knee(shown: Mapping[str, Any]) -> tuple[float | None, str]:
    """Return where the knee is, and what it is called: where nothing broke it is no knee yet."""
    knee = shown.get("knee") or {}
    return knee.get("value"), "at least" if knee.get("at_least") else "knee"


def _load_labels(
    steps: Sequence[tuple[Mapping[str, Any], float]],
    axes: tuple[svg.Axis, svg.Axis],
    knee: float | None,
    word: str,
) -> list[str]:
    """Write the load under each step, and mark the knee."""
    across, up = axes
    parts = []
    for point, load in steps:
        y = point.get("ttft_p95_ms")
        if y is None:
            continue
        place = across.place(_rate(point) or 0.0), up.place(y)
        at_knee = knee is not None and load == knee
        if at_knee:
            parts.append(svg.dot(*place, "knee", 9))
        label = f"{word} {load:g}" if at_knee else f"{load:g}"
        kind = "value knee" if at_knee else "tick"
        parts.append(svg.text(place[0] + 8, place[1] + 20, label, kind))
    return parts


def _throughput(
    steps: Sequence[tuple[float, float]],
    knee: tuple[float | None, str],
    sides: tuple[float, float],
    ends: tuple[float, float],
    title: str,
) -> list[str]:
    (left, right), (top, base) = sides, ends
    loads, rates = [load for load, _rate in steps], [rate for _load, rate in steps]
    low, high, log = min(loads), max(loads), max(loads) > svg.LOG_FROM * max(min(loads), 1e-9)
    across = svg.Axis(low, high, left, right - 12, log=log)
    across.marks = loads if len(loads) <= 8 else across.marks
    up = svg.Axis(0, max(rates) * 1.1, base, top)
    parts = [svg.text(left, 14, title[:1].upper() + title[1:], "head")]
    parts += svg.bottom(across, top, base, lambda mark: f"{mark:g}")
    parts += svg.side(up, left, right, _plain)
    at = [(across.place(load), up.place(rate)) for load, rate in zip(loads, rates, strict=True)]
    at_knee, word = knee
    if at_knee is not None:
        x = across.place(at_knee)
        parts.append(svg.line(x, top, x, base, "kneeline"))
        parts.append(svg.text(x, top - 6, f"{word} {at_knee:g}", "value knee", "middle"))
    parts.append(svg.path(at, "curve s3"))
    parts += [
        svg.dot(*place, "mark s3", 4, f"{_plain(rate)} at {load:g}")
        for place, load, rate in zip(at, loads, rates, strict=True)
    ]
    return parts


def models(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw TTFT and tokens per second of each row.

    Each has ``label``, ``p50``, ``p99`` in milliseconds, ``limit`` or ``None``, ``rate`` in tokens
    per second or ``None``, and ``tone``.
    """
    drawn = [row for row in rows if row.get("p50") is not None or row.get("rate")]
    if len(drawn) < 2:
        return Markup("")
    known = [row[name] for row in drawn for name in ("p50", "p99", "limit") if row.get(name)]
    low, high, log = svg.spread(known)
    across = svg.Axis(low, high, NAMES + 14, BARS, log=log)
    fastest = max((row.get("rate") or 0 for row in drawn), default=0) or 1.0
    top = 34
    base = top + ROW * len(drawn)
    note = ", logarithmic" if log else ""
    parts = []
    if known:
        parts.append(svg.text(NAMES + 14, 14, f"TTFT, median to p99{note}", "head"))
        parts += svg.bottom(across, top - 8, base, _ms)
    parts.append(svg.text(RATES, 14, "Tokens per second of a request", "head"))
    labels = svg.distinct([str(row["label"]) for row in drawn], 34)
    for number, (row, label) in enumerate(zip(drawn, labels, strict=True)):
        y = top + ROW * number + ROW / 2
        parts.append(svg.text(NAMES, y + 4, label, "name", "end"))
        if row.get("p50") is not None:
            x, end = across.place(row["p50"]), across.place(row.get("p99") or row["p50"])
            tip = f"{row['label']}: median {_ms(row['p50'])}, p99 {_ms(row.get('p99') or 0)}"
            tone = "bad" if row.get("tone") == "bad" else "s1"
            parts.append(svg.rect(x, y - 3, end - x, 6, kind=f"bar range {tone}", tip=tip))
            parts.append(svg.dot(x, y, f"mark {tone}", 4.5, tip))
        if row.get("limit"):
            x = across.place(row["limit"])
            parts.append(svg.line(x, y - 9, x, y + 9, "limit"))
        rate = row.get("rate")
        if rate:
            width = 170 * rate / fastest
            parts.append(svg.rect(RATES, y - 6, width, 12, kind="bar s3"))
            parts.append(svg.text(RATES + width + 8, y + 4, _plain(rate), "value"))
    return svg.drawing(base + 28, "TTFT and tokens per second of each model", parts)


def interval(change: Mapping[str, Any], reach: float, tone: str) -> Markup:
    """Draw a change in percent and its confidence interval around zero, ``reach`` to each side."""
    middle, low, high = (
        change.get(name) for name in ("change_percent", "low_percent", "high_percent")
    )
    if middle is None:
        return Markup("")
    across = svg.Axis(-reach, reach, 6, 254)
    low, high = (middle if low is None else low), (middle if high is None else high)
    x, start, end = across.place(middle), across.place(low), across.place(high)
    parts = [
        svg.line(6, 12, 254, 12, "grid"),
        svg.line(130, 2, 130, 22, "zero"),
        svg.rect(start, 9, end - start, 6, kind=f"bar range {tone}"),
        svg.dot(x, 12, f"mark {tone}", 4.5),
    ]
    title = f"change {middle:+.1f} %, 95 % interval {low:+.1f} to {high:+.1f} %"
    return svg.drawing(24, title, parts, width=260)


def reach_of(changes: Sequence[Mapping[str, Any]]) -> float:
    """Return the percent to each side of zero that holds all changes, 100 at most."""
    ends = [
        abs(change[name])
        for change in changes
        for name in ("change_percent", "low_percent", "high_percent")
        if change.get(name) is not None
    ]
    return min(100.0, max([5.0, *(end * 1.1 for end in ends)]))


def scatter(
    points: Sequence[Mapping[str, Any]], title: str, x_label: str, labels: tuple[Any, Any]
) -> Markup:
    """Draw named points: ``x``, ``y``, ``label``; ``labels`` write an x and a y value."""
    if len(points) < 2:
        return Markup("")
    write_x, write_y = labels
    top, base = 34, 244
    low, high, log = svg.spread([point["x"] for point in points])
    across = svg.Axis(low, high, 80, 760, log=log, marks=6)
    low, high, log_up = svg.spread([point["y"] for point in points])
    up = svg.Axis(low, high, base, top, log=log_up)
    note = ", logarithmic" if log_up else ""
    parts = [svg.text(80, 14, f"{title}{note}", "head")]
    parts += svg.bottom(across, top, base, lambda mark: write_x(mark) if mark else "0")
    parts += svg.side(up, 80, 760, lambda mark: write_y(mark) if mark else "")
    for point in points:
        x, y = across.place(point["x"]), up.place(point["y"])
        tip = f"{point['label']}: {write_x(point['x'])}, {write_y(point['y'])}"
        parts.append(svg.dot(x, y, "mark s1", 5, tip))
        if len(points) <= 12:
            parts.append(svg.text(x + 10, y + 4, svg.short(point["label"], 26), "value"))
    parts.append(svg.text(760, base + 34, x_label, "tick", "end"))
    return svg.drawing(base + 42, title, parts)


def _rate(point: Mapping[str, Any]) -> float | None:
    value = point.get("total_tokens_per_s")
    return point.get("requests_per_s") if value is None else value


def _of(points: Sequence[Mapping[str, Any]], name: str) -> list[float | None]:
    return [point.get(name) for point in points]


def _ms(value: float) -> str:
    return text.milliseconds(value) if value else "0"


def _plain(value: float) -> str:
    return f"{value:.4g}" if value < 1000 else f"{value:,.0f}"
