# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Plots of one model under one load: distributions, gaps, and everything on one axis of time."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_stats import percentile
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_svg as svg
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_text as text

LEFT, RIGHT = 74, 860
SHARES = (50, 90, 99)
FEW = 12  # samples that are drawn as dots of their own
CROWD = 120  # dots of a cloud from which on they are drawn smaller
PANEL, TALL, BETWEEN = 74, 120, 34  # heights of lines, of clouds, and the space for a title
COLOURS = 4
Box = tuple[float, float, float, float]  # left, right, top, base
BUDGET = 1200  # points of a cloud; a curve has a tenth of it


def distribution(entry: Mapping[str, Any], limits: Mapping[str, float], budget: int) -> Markup:
    """Draw which share of the requests was done within a time: TTFT and end to end.

    Nothing is drawn of a single request.
    """
    drawn = []
    for name, title in (("ttft_ms", "Time to first token"), ("latency_ms", "End to end")):
        values = sorted(_known(entry, name))
        if len(values) > 1:
            drawn.append((name, title, values))
    if not drawn:
        return Markup("")
    top, base = 44, 234
    parts: list[str] = []
    for number, (name, title, values) in enumerate(drawn):
        left = 54 + 480 * number
        box = (left, left + 340, top, base)
        parts += _ecdf(title, values, limits.get(name), box, budget // 12)
    return svg.drawing(base + 30, "Share of requests done within a time", parts)


def _ecdf(
    title: str, values: Sequence[float], limit: float | None, box: Box, budget: int
) -> list[str]:
    left, right, top, base = box
    within = [*values, *([limit] if limit else [])]
    low, high, log = svg.spread(within)
    if not log and min(within) > max(within) / 2:  # close together and far from zero: look closer
        aside = (max(within) - min(within)) / 8 or max(within) / 20
        low, high = min(within) - aside, max(within) + aside
    across = svg.Axis(low, high, left, right, log=log, marks=4)
    up = svg.Axis(0, 100, base, top)
    note = ", logarithmic" if log else ""
    parts = [svg.text(left, 14, f"{title}{note}", "head")]
    parts += svg.bottom(across, top, base, _ms)
    levels = [(up.place(share), f"{share} %") for share in (0, *SHARES)]
    parts.append(svg.grid((left, y, right, y) for y, _told in levels))
    parts.append(svg.ticks(((left - 8, y + 4, told) for y, told in levels), "end"))
    if limit:
        x = across.place(limit)
        parts += [
            svg.line(x, top, x, base, "limit"),
            svg.text(
                x, top - 6, f"objective {_ms(limit)}", "tick", "end" if x > right - 60 else "middle"
            ),
        ]
    count = len(values)
    number = min(count, max(24, budget))
    # Dense towards the tail, where the curve bends.
    shares = [100 * (1 - (1 - step / number) ** 2) for step in range(number + 1)]
    curve = [(across.place(_at(values, share)), up.place(share)) for share in shares]
    parts.append(svg.path(curve, "curve s1"))
    if count <= FEW:
        parts += [
            svg.dot(
                across.place(value),
                up.place(100 * rank / (count - 1)),
                "dot",
                tip=text.milliseconds(value),
            )
            for rank, value in enumerate(values)
        ]
    for share in SHARES:
        value = _at(values, share)
        x, y = across.place(value), up.place(share)
        parts.append(svg.dot(x, y, "mark", 3.5))
        parts.append(svg.text(right + 10, y + 4, f"p{share}  {_ms(value)}", "value"))
    return parts


def gaps(summary: Mapping[str, Any]) -> Markup:
    """Draw how many gaps between tokens had which length; both axes by the logarithm."""
    bins = [(float(edge), int(count)) for edge, count in summary.get("histogram") or [] if edge]
    if not any(count for _edge, count in bins):
        return Markup("")
    ratio = bins[-1][0] / bins[-2][0] if len(bins) > 1 else 1.25
    stall = summary.get("stall_limit_ms")
    lowest = bins[0][0] / ratio
    top, base = 44, 204
    across = svg.Axis(lowest, max(bins[-1][0], (stall or 0) * 1.1), LEFT, RIGHT, log=True, marks=12)
    up = svg.Axis(0.5, max(count for _edge, count in bins) * 1.3, base, top, log=True, marks=4)
    parts = [svg.text(LEFT, 14, "Gaps by length, both axes logarithmic", "head")]
    parts += svg.bottom(across, top, base, _ms)
    parts += svg.side(up, LEFT, RIGHT, lambda mark: f"{mark:,.0f}")
    before = lowest
    for edge, count in bins:
        if count:
            x, y = across.place(before), up.place(count)
            late = stall is not None and before >= stall * 0.999
            tip = f"{count:,} gaps of {_ms(before)} to {_ms(edge)}"
            width = across.place(edge) - x - 1
            parts.append(
                svg.rect(
                    x + 0.5, y, width, base - y, kind=f"bar {'bad' if late else 's1'}", tip=tip
                )
            )
        before = edge
    if stall:
        x = across.place(stall)
        parts.append(svg.line(x, top, x, base, "limit"))
        parts.append(svg.text(x, top - 6, f"stall: over {_ms(stall)}", "tick", "middle"))
    for name, anchor, aside in (("p50", "end", -3), ("p99", "", 3)):
        value = summary.get(name)
        if value:
            x = across.place(value)
            parts.append(svg.line(x, top, x, base, "median"))
            parts.append(svg.text(x + aside, top - 6, f"{name} {_ms(value)}", "value", anchor))
    return svg.drawing(base + 30, "Gaps between tokens by length", parts)


@dataclass
class Panel:
    """One of the plots that share an axis of time.

    Attributes:
        title: what it shows, with its unit.
        label: how a value is written.
        series: (name, points) of (seconds, value); a name may be empty.
        dots: draw points, not lines.
        crosses: seconds at which requests failed.
        high: upper end of the axis, where it is known.
        limit: a value that is marked.
    """

    title: str
    label: Callable[[float], str]
    series: list[tuple[str, list[tuple[float, float]]]]
    dots: bool = False
    crosses: list[float] = field(default_factory=list)
    high: float | None = None
    limit: float | None = None


def request_panels(
    entry: Mapping[str, Any], limits: Mapping[str, float], budget: int
) -> list[Panel]:
    """Return the panels of the requests by their start: TTFT and end to end."""
    failed = [
        float(sample.get("at_s") or 0)
        for sample in entry.get("samples") or []
        if sample["error_kind"]
    ]
    marks = [x for x, _y in svg.thinned([(at, 0.0) for at in failed], budget // 4)]
    panels = []
    for name, title in (("ttft_ms", "TTFT of each request"), ("latency_ms", "End to end")):
        points = [
            (float(sample.get("at_s") or 0), float(sample[name]))
            for sample in entry.get("samples") or []
            if not sample["error_kind"] and sample.get(name) is not None
        ]
        if points:
            thin = svg.thinned(points, budget)
            panel = Panel(title, _ms, [("", thin)], dots=True, limit=limits.get(name))
            panels.append(panel)
    told = text.counted(len(failed), "request")
    if panels and marks:
        panels[0].crosses = marks
        panels[0].title += f"; crosses mark {told} that failed"
    elif marks:
        title = f"Crosses mark {told} that failed; none was answered"
        panels.append(Panel(title, lambda _value: "", [], crosses=marks))
    return panels


def machine_panels(entry: Mapping[str, Any], budget: int) -> list[Panel]:
    """Return the panels of client, GPU, engine and host, on the axis of the requests."""
    timeline = entry.get("timeline") or {}
    rows = timeline.get("rows") or []
    shift = offset(entry)

    def series(name: str, *groups: str) -> list[tuple[float, float]]:
        found = []
        for row in rows:
            value: Any = row
            for group in groups:
                value = value.get(group) or {}
            if value.get(name) is not None:
                found.append((float(row["t"]) + shift, float(value[name])))
        return svg.averaged(found, budget)

    def of_gpus(name: str) -> list[tuple[str, list[tuple[float, float]]]]:
        found: dict[int, list[tuple[float, float]]] = {}
        for row in rows:
            for gpu in row.get("gpu") or []:
                if gpu.get(name) is not None:
                    at = float(row["t"]) + shift
                    found.setdefault(int(gpu["index"]), []).append((at, float(gpu[name])))
        return [
            (f"GPU {index}", svg.averaged(points, budget))
            for index, points in sorted(found.items())
        ]

    memory = [
        float(gpu["memory_total_bytes"])
        for row in rows
        for gpu in row.get("gpu") or []
        if gpu.get("memory_total_bytes")
    ]
    candidates = [
        Panel("Tokens per second, all requests", _plain, [("", series("tokens_per_s", "client"))]),
        Panel("GPU utilisation", _percent, of_gpus("util_percent"), high=100),
        Panel(
            "GPU memory", text.size, of_gpus("memory_used_bytes"), high=max(memory, default=None)
        ),
        Panel("GPU power", lambda v: f"{v:.0f} W", of_gpus("power_w")),
        Panel("GPU temperature", lambda v: f"{v:.0f} °C", of_gpus("temperature_c")),
        Panel(
            "Requests in the engine",
            _plain,
            [("running", series("running", "engine")), ("waiting", series("waiting", "engine"))],
        ),
        Panel("KV cache", _percent, [("", series("kv_cache_percent", "engine"))], high=100),
        Panel("Host CPU, all cores", _percent, [("", series("cpu_percent"))], high=100),
    ]
    for panel in candidates:
        panel.series = [item for item in panel.series if item[1]]
    return [panel for panel in candidates if panel.series]


def offset(entry: Mapping[str, Any]) -> float:
    """Return the timeline's start on the axis of the stage, in seconds: both have wall clocks."""
    begun = _instant((entry.get("timeline") or {}).get("begun_at"))
    for sample in entry.get("samples") or []:
        started = _instant(sample.get("started_at"))
        if begun is not None and started is not None:
            return begun - (started - float(sample.get("at_s") or 0))
    return 0.0


def stacked(panels: Sequence[Panel], title: str, until: float) -> Markup:
    """Draw panels one above the other on one axis of time, ``until`` seconds long."""
    if not panels:
        return Markup("")
    xs = [x for panel in panels for _name, points in panel.series for x, _y in points]
    across = svg.Axis(min([0.0, *xs]), max([until, 0.1, *xs]), LEFT, RIGHT, marks=8)
    parts: list[str] = []
    height = 24
    for panel in panels:
        top, base = height, height + (TALL if panel.dots else PANEL)
        parts += _panel(panel, across, top, base)
        height = base + BETWEEN
    base = height - BETWEEN
    labels = [(across.place(mark), base + 16, _seconds(mark)) for mark in across.marks if mark >= 0]
    parts.append(svg.ticks(labels, "middle"))
    return svg.drawing(base + 26, title, parts)


def _panel(panel: Panel, across: svg.Axis, top: float, base: float) -> list[str]:
    values = [y for _name, points in panel.series for _x, y in points]
    low, high, log = 0.0, panel.high or 1.0, False
    if panel.dots:
        low, high, log = svg.spread([*values, *([panel.limit] if panel.limit else [])])
    elif not panel.high:
        high = max(values, default=1.0) * 1.1 or 1.0
    up = svg.Axis(low, high, base, top, log=log, marks=4)
    note = ", logarithmic" if log else ""
    parts = [svg.text(LEFT, top - 9, f"{panel.title}{note}", "head")]
    xs = [across.place(mark) for mark in across.marks]
    parts.append(svg.grid((x, top, x, base) for x in xs))
    parts += svg.side(up, LEFT, RIGHT, panel.label)
    if panel.limit:
        y = up.place(panel.limit)
        parts.append(svg.line(LEFT, y, RIGHT, y, "limit"))
        parts.append(svg.text(RIGHT + 8, y + 4, panel.label(panel.limit)))
    ends: list[tuple[float, str, str]] = []
    for number, (name, points) in enumerate(panel.series):
        kind = f"s{number % COLOURS + 1}"
        at = [(across.place(x), up.place(y)) for x, y in points]
        if panel.dots:
            parts.append(svg.cloud(at, f"cloud {kind}{' few' if len(at) < CROWD else ''}"))
        elif len(at) == 1:
            parts.append(svg.dot(*at[0], f"mark {kind}", 3))
        else:
            parts.append(svg.path(at, f"curve {kind}"))
        if name and at:
            ends.append((at[-1][1], name, kind))
    parts.append(svg.crosses([(across.place(x), top + 6) for x in panel.crosses], "failed"))
    y = top - 14
    for wanted, name, kind in sorted(ends)[:6]:
        y = max(wanted + 4, y + 14)
        parts.append(svg.text(RIGHT + 8, y, name, f"series {kind}"))
    return parts


def _known(entry: Mapping[str, Any], name: str) -> list[float]:
    return [
        float(sample[name])
        for sample in entry.get("samples") or []
        if not sample["error_kind"] and sample.get(name) is not None
    ]


def _at(ordered: Sequence[float], share: float) -> float:
    return percentile(ordered, min(100.0, max(0.0, share))) or 0.0


def _instant(value: Any) -> float | None:
    try:
        return datetime.datetime.fromisoformat(str(value).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def _ms(value: float) -> str:
    if 0 < value < 100:
        return f"{value:.3g} ms"
    return text.milliseconds(value) if value else "0"


def _seconds(value: float) -> str:
    return text.duration(value) if value >= 60 else f"{value:g} s" if value else "0"


def _percent(value: float) -> str:
    return f"{value:.0f} %"


def _plain(value: float) -> str:
    return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"
