# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Answers for people: what ``status``, ``data``, ``stats``, ``compact`` and ``selftest`` print.

rich leaves colours out where the output is no terminal or NO_COLOR is set. Its markup is off, for
names of cards and messages may hold brackets. Everything fits 60 columns.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from . import gauges
from .data import Row, parse_time
from .gauges import NONE

WORDS = {0: ("healthy", "green"), 1: ("warning", "yellow"), 2: ("broken", "bold red")}
STEP_STYLES = {"PASS": "green", "WARN": "yellow", "FAIL": "bold red"}
DIM = "dim"
WIDE = 100  # from here on there is room for what most people can do without


class Terminal(Console):
    """A console that ends quietly when its reader has gone away, as ``g-mon data | head`` has."""

    def on_broken_pipe(self) -> None:
        """Throw the rest away and end."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0)


def terminal(**options: Any) -> Terminal:
    """Return a console for standard output."""
    return Terminal(markup=False, highlight=False, emoji=False, **options)


def ascii_only(console: Console) -> bool:
    """Whether the terminal knows no blocks and no degree sign."""
    return not console.encoding.lower().startswith("utf")


def line(*parts: str | tuple[str, str]) -> Text:
    """Return a line of parts, each a text or a text with its style."""
    return Text.assemble(*parts, overflow="fold")


def title(host: str, what: str, right: Text) -> RenderableType:
    """Return the first line of an answer, and the rule below it."""
    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column()
    head.add_column(justify="right")
    head.add_row(line((f"g-mon {what}".strip(), "bold"), f"  {host}"), right)
    return Group(head, Rule(style=DIM))


def verdict(code: int) -> Text:
    """Return the verdict in a word."""
    word, style = WORDS[code]
    return Text(word, style=style)


def facts(entries: Iterable[tuple[str, str | Text]]) -> Table:
    """Return names and values, one below the other."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=DIM, no_wrap=True, min_width=8)
    grid.add_column(overflow="fold")
    for name, value in entries:
        grid.add_row(name, value)
    return grid


def complaints(answer: dict[str, Any]) -> list[Text]:
    """Return what is wrong, the worst first."""
    failures = [line(("FAIL  ", "bold red"), text) for text in answer["failures"]]
    return failures + [line(("WARN  ", "yellow"), text) for text in answer["warnings"]]


def age_text(age: float | None) -> str:
    """Return how old data are; N/A when nothing was ever sampled."""
    if age is None:
        return NONE
    if age < 0:
        return f"{gauges.duration(age)} in the future"
    return f"{gauges.duration(age)} old"


def age_style(data: dict[str, Any]) -> str:
    """Return the colour of the age: only fresh data are green."""
    age = data.get("age_seconds")
    return "green" if age is not None and age >= -1 and not data["stale"] else "yellow"


def unit_text(unit: dict[str, Any]) -> str:
    """Return the leading unit's state in words."""
    boot = "starts at boot" if unit["enabled"] else "doesn't start at boot"
    return f"{unit['state']} ({unit['substate']}), {boot}"


def status(answer: dict[str, Any], now: float, ascii_: bool = False) -> RenderableType:
    """Return the answer of ``g-mon status``."""
    unit, found = answer["unit"], answer["data"]
    entries: list[tuple[str, str | Text]] = [
        ("unit", f"{unit['name']}: {unit_text(unit)}"),
        ("process", _process(unit)),
        ("last run", _last_run(unit, now)),
    ]
    if unit["next_start"]:
        due = max(0.0, (parse_time(unit["next_start"]) or now) - now)
        entries.append(
            ("next run", f"in {gauges.duration(due)}, {_time_of(unit['next_start'])} UTC")
        )
    if found:
        age = found["age_seconds"]
        every = gauges.duration(found["interval_seconds"])
        newest = "" if age is None else f", of {_time_of(found['newest'])} UTC"
        entries += [
            ("data", line((age_text(age), age_style(found)), f"{newest}, one every {every}")),
            ("today", f"{gauges.plural(found['rows_today'], 'row')}, {_size_of(found)}"),
            (
                "in all",
                f"{gauges.plural(found['files'], 'file')}, {gauges.size(found['total_bytes'])} "
                f"in {found['dir']}",
            ),
        ]
    entries += [(f"GPU {gpu['index']}", gpu_text(gpu, ascii_)) for gpu in answer["gpus"]]
    parts: list[RenderableType] = [
        title(answer["host"], "status", verdict(answer["exit"])),
        facts(entries),
    ]
    said = complaints(answer)
    return Group(*parts, *([Text(""), *said] if said else []))


def _process(unit: dict[str, Any]) -> str:
    if unit["pid"] is None:
        return "none between samples" if unit["mode"] == "timer" else "none"
    memory = NONE if unit["memory_bytes"] is None else gauges.size(unit["memory_bytes"])
    return f"PID {unit['pid']}, memory {memory}"


def _last_run(unit: dict[str, Any], now: float) -> str:
    if unit["mode"] == "service":
        since = parse_time(unit["active_since"] or "")
        running = unit["state"] == "active" and since is not None
        return f"running for {gauges.duration(now - since)}" if running and since else "N/A"
    ended = parse_time(unit["last_end"] or "")
    result = unit["last_result"] or NONE
    if result not in ("success", NONE) and unit["last_exit_status"] is not None:
        result = f"{result}, exit status {unit['last_exit_status']}"
    return (
        f"{result}, none yet" if ended is None else f"{result}, {gauges.duration(now - ended)} ago"
    )


def _time_of(stamp: str | None) -> str:
    time = parse_time(stamp or "")
    return NONE if time is None else gauges.clock(time)


def _size_of(found: dict[str, Any]) -> str:
    if found["file"] is None:
        return "no file"
    return f"{gauges.size(found['file_bytes'] or 0)} in {found['file']}"


def gpu_text(gpu: dict[str, Any], ascii_: bool = False) -> str:
    """Return a GPU's readings on one line."""
    return ", ".join(
        (
            f"{gauges.percent(gpu['utilization_gpu_ratio'])} busy",
            gauges.used_of(gpu["memory_used_bytes"], gpu["memory_total_bytes"]),
            gauges.celsius(gpu["temperature_c"], ascii_),
            gauges.watts(gpu["power_draw_watts"]),
            gpu["name"] or NONE,
            *(name.replace("_", " ") for name in gpu["slowdowns"] or ()),
        )
    )


def data(
    rows: Sequence[Row], answer: dict[str, Any], width: int, ascii_: bool = False
) -> RenderableType:
    """Return the answer of ``g-mon data``: header, rows as a table, sizes."""
    head = f"{len(answer['header'])} columns: {', '.join(answer['header'])}"
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("time (UTC)", no_wrap=True)
    table.add_column("GPU", justify="right", no_wrap=True)
    if width >= WIDE:
        table.add_column("name", no_wrap=True)
    for name in ("util", "memory", "temp", "power"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            gauges.clock(row.time, "%Y-%m-%d %H:%M:%S" if width >= 80 else "%m-%d %H:%M:%S"),
            row.text("index"),
            *([row.text("name")] if width >= WIDE else []),
            *_readings(row, ascii_),
        )
    size = (
        f"{answer['file']}: {gauges.size(answer['file_bytes'] or 0)}; in all "
        f"{gauges.plural(answer['files'], 'file')}, {gauges.size(answer['total_bytes'])}"
    )
    said = complaints(answer)
    return Group(line((head, DIM)), table, line((size, DIM)), *said)


def _readings(row: Row, ascii_: bool) -> list[str]:
    def scaled(column: str, factor: float) -> float | None:
        value = row.number(column)
        return None if value is None else value * factor

    mib = 1024 * 1024
    return [
        gauges.percent(scaled("utilization.gpu", 0.01)),
        gauges.used_of(scaled("memory.used", mib), scaled("memory.total", mib)),
        gauges.celsius(row.number("temperature.gpu"), ascii_),
        gauges.watts(row.number("power.draw")),
    ]


def compact(answer: dict[str, Any], width: int | None, ascii_: bool = False) -> list[str]:
    """Return the two lines of ``g-mon compact``, at most ``width`` characters long.

    Without a width they are as long as they are: a program reads them.
    """
    unit, found = answer["unit"], answer["data"]
    word = WORDS[answer["exit"]][0]
    boot = "enabled" if unit["enabled"] else "not enabled"
    first = [f"{word}: {answer['host']}", f"{unit['mode']} {unit['state']}, {boot}"]
    if found:
        first.append(f"data {age_text(found['age_seconds'])}")
        first.append(f"{gauges.plural(found['rows_today'], 'row')} today")
    first += [*answer["failures"], *answer["warnings"]][:1]
    gpus = [
        f"GPU{gpu['index']} {gauges.percent(gpu['utilization_gpu_ratio'])} "
        f"{gauges.used_of(gpu['memory_used_bytes'], gpu['memory_total_bytes'])} "
        f"{gauges.celsius(gpu['temperature_c'], ascii_)} {gauges.watts(gpu['power_draw_watts'])}"
        for gpu in answer["gpus"]
    ]
    second = " | ".join(gpus) or "no GPU in the data"
    if width is not None and len(second) > width:
        second = _all_gpus(answer["gpus"], ascii_)
    lines = [" | ".join(first), second]
    return lines if width is None else [gauges.shorten(text, width, ascii_) for text in lines]


def _all_gpus(gpus: Sequence[dict[str, Any]], ascii_: bool) -> str:
    def known(name: str) -> list[float]:
        return [gpu[name] for gpu in gpus if gpu[name] is not None]

    busy, hot, power = (
        known(name) for name in ("utilization_gpu_ratio", "temperature_c", "power_draw_watts")
    )
    both = [gpu for gpu in gpus if gpu["memory_used_bytes"] is not None]
    memory = gauges.used_of(
        sum(gpu["memory_used_bytes"] for gpu in both) if both else None,
        sum(gpu["memory_total_bytes"] or 0 for gpu in both) or None,
    )
    mean = gauges.percent(sum(busy) / len(busy) if busy else None)
    most = gauges.percent(max(busy, default=None))
    return (
        f"{len(gpus)} GPUs | mean {mean}, max {most} | {memory} | "
        f"max {gauges.celsius(max(hot, default=None), ascii_)} | "
        f"{gauges.watts(sum(power) if power else None)}"
    )


def stats(answer: dict[str, Any], now: float, ascii_: bool = False) -> RenderableType:
    """Return the answer of ``g-mon stats``."""
    since = parse_time(answer["since"]) or now
    parts: list[RenderableType] = [
        title(answer["host"], "stats", Text(f"last {gauges.duration(now - since)}")),
    ]
    for gpu in answer["gpus"]:
        parts += [_gpu_title(gpu, answer), _gpu_table(gpu, ascii_), Text("")]
    parts.append(facts(_completeness(answer)))
    said = complaints(answer)
    return Group(*parts, *([Text(""), *said] if said else []))


def _gpu_title(gpu: dict[str, Any], answer: dict[str, Any]) -> RenderableType:
    idle = gauges.percent(gpu["idle_ratio"])
    below = gauges.percent(answer["idle_below_ratio"])
    missing = gpu["missing_samples"]
    parts: list[str | tuple[str, str]] = [
        (f"GPU {gpu['index']}", "bold"),
        f"  {gpu['name'] or NONE}  ",
        (f"idle {idle} (under {below})", DIM),
    ]
    if missing:
        parts.append((f"  missing in {gauges.plural(missing, 'sample')}", "yellow"))
    return line(*parts)


def _gpu_table(gpu: dict[str, Any], ascii_: bool) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=True, header_style=DIM)
    table.add_column("", min_width=12, no_wrap=True)
    for name in ("min", "mean", "p95", "max"):
        table.add_column(name, justify="right", min_width=9, no_wrap=True)
    forms = (
        ("utilisation", "utilization_gpu_ratio", gauges.percent),
        ("memory", "memory_used_bytes", gauges.gib),
        ("temperature", "temperature_c", lambda value: gauges.celsius(value, ascii_)),
        ("power", "power_draw_watts", gauges.watts),
    )
    for label, name, form in forms:
        figures = gpu[name] or {}
        cells = [form(figures.get(part)) for part in ("min", "mean", "p95", "max")]
        table.add_row(label, *cells)
    return table


def _completeness(answer: dict[str, Any]) -> list[tuple[str, str | Text]]:
    taken, missed = answer["samples"], answer["missed_samples"]
    every = gauges.duration(answer["interval_seconds"])
    of = f"{taken} of {taken + missed}, one every {every}"
    ratio = answer["complete_ratio"]
    if ratio is not None:
        of += f" ({ratio * 100:.1f} %)"
    entries: list[tuple[str, str | Text]] = [
        ("period", f"{_time_of(answer['covered_from'])} to {_time_of(answer['until'])} UTC"),
        ("samples", of),
    ]
    for number, gap in enumerate(answer["gaps"]):
        lasts = ", still lasting" if gap["lasts"] else ""
        name = f"{gauges.plural(answer['gap_count'], 'gap')}" if not number else ""
        text = f"{gauges.duration(gap['seconds'])} from {_time_of(gap['from'])}{lasts}"
        entries.append((name, Text(text, style="yellow")))
    hidden = answer["gap_count"] - len(answer["gaps"])
    if hidden > 0:
        entries.append(("", f"and {hidden} shorter"))
    if not answer["gaps"] and answer["samples"]:
        entries.append(("gaps", "none"))
    longest = answer["longest_stale_seconds"]
    if longest is not None:
        entries.append(("stale", f"for at most {gauges.duration(longest)}"))
    return entries


def step(name: str, state: str, reason: str) -> Table:
    """Return a finding of the self-test as a line."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(width=4, style=STEP_STYLES[state])
    grid.add_column(width=17, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(state, name, reason)
    return grid


def steps_end(answer: dict[str, Any]) -> Text:
    """Return the last line of the self-test."""
    count = {
        state: sum(entry["status"] == state for entry in answer["steps"]) for state in STEP_STYLES
    }
    told = ", ".join(f"{number} {state}" for state, number in count.items() if number)
    return Text.assemble(verdict(answer["exit"]), f": {told}")
