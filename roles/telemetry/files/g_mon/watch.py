# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The live view: each GPU's present readings with their history, as large as the window allows.

On a terminal it has a screen of its own that follows the window's size; elsewhere it prints a frame
per interval. Frames are made from plain values, so a test can draw one at any size.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from rich.console import Console, ConsoleDimensions, Group, RenderableType
from rich.live import Live
from rich.text import Text

from . import account, data, gauges, units, view
from .data import MIB, SLOWDOWNS, Row, by_gpu, iso
from .gauges import NONE
from .selftest import Bench, read_gpus
from .settings import GMonError, Settings

INDENT, LABEL, VALUE, BAR = 2, 7, 15, 18
LEAST_WIDTH = 40
LINES_OF_GPU = 6
RESIZE_SECONDS = 0.2  # how soon a frame follows the window's size
# Live readings: as the collector's columns have them, from which field, divided by what.
LIVE_COLUMNS = (
    ("timestamp", "", 1.0),
    ("index", "index", 1.0),
    ("name", "name", 1.0),
    ("uuid", "uuid", 1.0),
    ("temperature.gpu", "temperature_c", 1.0),
    ("utilization.gpu", "utilization_gpu_ratio", 0.01),
    ("memory.used", "memory_used_bytes", MIB),
    ("memory.total", "memory_total_bytes", MIB),
    ("power.draw", "power_draw_watts", 1.0),
    ("enforced.power.limit", "power_limit_watts", 1.0),
    ("clocks_event_reasons.active", "", 1.0),
)
POWER_LIMITS = ("enforced.power.limit", "power.limit")
# Which reading it is. None of them is a verdict: yellow and red are kept for what is wrong.
UTIL_STYLE, MEMORY_STYLE, TEMP_STYLE, POWER_STYLE = "green", "cyan", "magenta", "bright_blue"


@dataclass
class Scene:
    """Everything that a frame shows."""

    host: str
    unit: str  # the leading unit's state in words; empty when systemd wasn't asked
    now: float
    step: float  # seconds per column of the history
    rows: list[Row] = field(default_factory=list)  # oldest first
    stale_after: float = 0.0
    source: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def newest(self) -> float | None:
        """When the newest sample was taken."""
        return self.rows[-1].time if self.rows else None

    @property
    def age(self) -> float | None:
        """How old it is, in seconds; negative when the clock was set back."""
        return None if self.newest is None else self.now - self.newest


class Recorded:
    """Scenes from the collector's files."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def scene(self, now: float, columns: int) -> Scene:
        """Read as much history as there are columns for it."""
        settings = self.settings
        scene = _scene(settings, now, settings.interval_s, "", settings.stale_after_s)
        try:
            tail = data.tail(settings)
            if tail.time is None:
                scene.problems.append(f"there are no samples in {settings.data_dir}")
            else:
                # The history ends at the newest sample, so it has one too when the data are stale.
                since = tail.time - (columns + 1) * settings.interval_s
                # After the clock was set back, rows of the time before it lie in the future.
                rows = data.read(settings, since).rows
                scene.rows = [row for row in rows if row.time <= tail.time]
            shown = {row.key for row in scene.rows}  # these have it in their first line
            noted = account.missing(settings) or []
            scene.problems += [card.text for card in noted if card.uuid not in shown]
        except GMonError as error:
            scene.problems.append(str(error))
        return scene


class Driver:
    """Scenes from the driver itself; the history begins with the first."""

    def __init__(self, bench: Bench, step: float) -> None:
        self.bench = bench
        self.step = step
        self.rows: list[Row] = []

    def scene(self, now: float, columns: int) -> Scene:
        """Read the GPUs now; when they can't be read, the last readings stay and grow old."""
        settings = self.bench.settings
        scene = _scene(settings, now, self.step, "read from the driver now", 3 * self.step)
        try:
            gpus, _seconds = read_gpus(self.bench)
            self.rows += [live_row(gpu, now) for gpu in gpus if gpu.get("state") == "ok"]
            for gpu in gpus:
                if gpu.get("state") != "ok":
                    scene.problems.append(f"GPU {gpu.get('index')} is {gpu.get('state')}")
        except GMonError as error:
            scene.problems.append(f"the GPUs can't be read: {error}")
        oldest = now - (columns + 1) * self.step
        self.rows = [row for row in self.rows if row.time >= oldest]
        scene.rows = list(self.rows)
        return scene


def _scene(settings: Settings, now: float, step: float, source: str, stale: float) -> Scene:
    scene = Scene(settings.host, "", now, step, source=source, stale_after=stale)
    try:
        found = units.find(settings)
        scene.unit = f"{found.mode} {found.leading.get('ActiveState', 'unknown')}"
    except GMonError as error:
        scene.unit = "units not known"
        scene.problems.append(str(error))
    return scene


def live_row(gpu: dict[str, Any], now: float) -> Row:
    """Return a reading of the driver as the collector would have written it."""
    fields = []
    for _column, name, divisor in LIVE_COLUMNS:
        value = gpu.get(name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        fields.append(f"{value / divisor:g}" if number else str(value or ""))
    fields[0] = iso(now) or ""
    reasons = gpu.get("clocks_event_reasons")
    if reasons is not None:
        fields[-1] = hex(sum(bit for name, bit in SLOWDOWNS.items() if name in reasons))
    columns = {column: at for at, (column, _name, _divisor) in enumerate(LIVE_COLUMNS)}
    return Row(now, columns, fields)


def history_columns(width: int) -> int:
    """Return how many columns the history has in a window of this width."""
    cells = BAR if width >= 70 else 8
    return max(4, width - INDENT - LABEL - VALUE - cells - 5)


def frame(scene: Scene, width: int, height: int | None = None, ascii_: bool = False) -> Group:
    """Return one frame, at most ``height`` lines high; None when there is no limit."""
    width = max(LEAST_WIDTH, width)
    head = _head(scene, width, ascii_)
    gpus = by_gpu(scene.rows)
    room = None if height is None else height - len(head) - 1
    roomy = room is None or len(gpus) * LINES_OF_GPU - 1 <= room
    blocks = [_block(scene, gpu, width, ascii_) for gpu in gpus] if roomy else []
    body: list[RenderableType] = []
    for block in blocks:
        body += [*([Text("")] if body else []), *block]
    if not roomy:
        body = _rows(scene, gpus, width, room or 1, ascii_)
    return Group(*head, *body, _foot(scene, width, roomy, ascii_))


def _head(scene: Scene, width: int, ascii_: bool) -> list[RenderableType]:
    left = f"g-mon {scene.host}"
    right = f"data {view.age_text(scene.age)}"
    stale = scene.age is None or scene.age > scene.stale_after or scene.age < -2
    middle = gauges.shorten(scene.unit, max(0, width - len(left) - len(right) - 4), ascii_)
    gap = max(1, width - len(left) - len(middle) - len(right) - 2)
    head: list[RenderableType] = [
        Text.assemble(
            (left, "bold"), "  ", middle, " " * gap, (right, "bold yellow" if stale else "green")
        ),
        Text(("-" if ascii_ else "─") * width, style=view.DIM),
    ]
    said = list(scene.problems)
    if scene.age is not None and scene.age > scene.stale_after:
        said.append("the data are stale: g-mon status says more")
    return head + [Text(gauges.shorten(f"! {text}", width, ascii_), "bold yellow") for text in said]


def _foot(scene: Scene, width: int, roomy: bool, ascii_: bool) -> Text:
    count = history_columns(width) if roomy else _tight(width)[1]
    column = gauges.duration(scene.step) if scene.step >= 1 else f"{scene.step:.1g} s"
    told = f"history {gauges.duration(count * scene.step)}, a column is {column}"
    text = "; ".join(part for part in (told, scene.source) if part)
    return Text(gauges.shorten(text, width, ascii_), style=view.DIM)


def _points(scene: Scene, gpu: Row, column: str, count: int) -> list[float | None]:
    """Return the history of a reading; the right end is now, so silence is seen as such."""
    newest = scene.newest or scene.now
    # One sample may be late by half its interval before its place stays empty.
    silent = int(max(0.0, scene.now - newest - scene.step / 2) // scene.step)
    points = [(row.time, row.number(column)) for row in scene.rows if row.key == gpu.key]
    return gauges.history(points, newest + silent * scene.step, scene.step, count)


def _limit(gpu: Row) -> float | None:
    limits = (gpu.number(column) for column in POWER_LIMITS)
    return next((limit for limit in limits if limit), None)


def _ratio(row: Row, column: str, whole: float | None) -> float | None:
    return gauges.share(row.number(column), whole)


def _gone(scene: Scene, gpu: Row) -> bool:
    return gpu.time != scene.newest


def _gpu_name(scene: Scene, gpu: Row, width: int, ascii_: bool) -> Text:
    name = gpu.text("name") or NONE
    if not _gone(scene, gpu):
        slow = ", ".join(gpu.slowdowns or ()).replace("_", " ")
        bus, style = (slow, "bold yellow") if slow else (gpu.text("pci.bus_id"), view.DIM)
        left = gauges.shorten(name, max(8, width - 9 - len(bus)), ascii_)
        gap = max(1, width - 8 - len(left) - len(bus))
        return Text.assemble((f"GPU {gpu.index:<3} ", "bold"), left, " " * gap, (bus, style))
    said = f"not in the newest sample, last seen {gauges.clock(gpu.time, '%H:%M:%S')} UTC"
    left = gauges.shorten(name, max(8, width - 10 - len(said)), ascii_)
    return Text.assemble((f"GPU {gpu.index:<3} ", "bold"), left, "  ", (said, "bold yellow"))


def _block(scene: Scene, gpu: Row, width: int, ascii_: bool) -> list[RenderableType]:
    """Return a GPU's five lines: name, and value, bar and history of each reading."""
    count = history_columns(width)
    cells = width - INDENT - LABEL - VALUE - count - 5
    # What a lost card last said isn't its present reading.
    present = gpu if not _gone(scene, gpu) else Row(gpu.time, {}, ())
    used, total = present.number("memory.used"), present.number("memory.total")
    draw, limit = present.number("power.draw"), _limit(present)
    hot, busy = present.number("temperature.gpu"), present.number("utilization.gpu")
    power = gauges.watts(draw) if not limit else f"{_whole(draw)}/{limit:.0f} W"
    memory = gauges.used_of(*(None if mib is None else mib * MIB for mib in (used, total)))
    readings = (
        ("util", gauges.percent(gauges.share(busy, 100)), gauges.share(busy, 100),
         "utilization.gpu", 100.0, UTIL_STYLE),
        ("memory", memory, gauges.share(used, total),
         "memory.used", gpu.number("memory.total"), MEMORY_STYLE),
        ("temp", gauges.celsius(hot, ascii_), gauges.share(hot, 100),
         "temperature.gpu", 100.0, TEMP_STYLE),
        ("power", power, gauges.share(draw, limit), "power.draw", _limit(gpu), POWER_STYLE),
    )  # fmt: skip
    lines: list[RenderableType] = [_gpu_name(scene, gpu, width, ascii_)]
    for label, value, ratio, column, top, style in readings:
        full, rest = gauges.gauge(ratio, cells, ascii_)
        history = gauges.spark(_points(scene, gpu, column, count), top, ascii_)
        lines.append(
            Text.assemble(
                " " * INDENT,
                (f"{label:<{LABEL}}", view.DIM),
                f"{value:>{VALUE}}  ",
                (full, style),
                (rest, view.DIM),
                "   ",
                (history, style),
                no_wrap=True,
            )
        )
    return lines


def _whole(value: float | None) -> str:
    return NONE if value is None else f"{value:.0f}"


def _tight(width: int) -> tuple[int, int]:
    """Return the width of the bars, and of the history, where a GPU has one line."""
    fixed = 3 + 6 + 16 + 7 + 7
    cells = 8 if width >= 76 else 0
    return cells, max(4, width - fixed - 2 * (cells + bool(cells)) - 1)


def _rows(
    scene: Scene, gpus: Sequence[Row], width: int, room: int, ascii_: bool
) -> list[RenderableType]:
    """Return a line per GPU, for windows that are too low for blocks."""
    cells, count = _tight(width)
    blank = " " * (cells + 1) if cells else ""
    names = f"{'GPU':<3}{'util':>6}{blank}{'memory':>16}{blank}{'temp':>7}{'power':>7}  util"
    lines: list[RenderableType] = [Text(names, style=view.DIM, no_wrap=True)]
    shown = gpus if len(gpus) < room else gpus[: max(0, room - 2)]
    for gpu in shown:
        present = gpu if not _gone(scene, gpu) else Row(gpu.time, {}, ())
        used, total = present.number("memory.used"), present.number("memory.total")
        busy = gauges.share(present.number("utilization.gpu"), 100)
        memory = gauges.used_of(*(None if mib is None else mib * MIB for mib in (used, total)))
        history = gauges.spark(_points(scene, gpu, "utilization.gpu", count - 1), 100.0, ascii_)
        slow = ", ".join(present.slowdowns or ()).replace("_", " ")
        note = "not in newest sample" if _gone(scene, gpu) else slow
        note = gauges.shorten(note, len(history), ascii_)
        line = Text.assemble(
            (f"{gpu.index:<3}", "bold yellow" if _gone(scene, gpu) else "bold"),
            f"{gauges.percent(busy):>6}",
            no_wrap=True,
        )
        _add_bar(line, busy, cells, UTIL_STYLE, ascii_)
        line.append(f"{memory:>16}")
        _add_bar(line, gauges.share(used, total), cells, MEMORY_STYLE, ascii_)
        line.append(f"{gauges.celsius(present.number('temperature.gpu'), ascii_):>7}")
        line.append(f"{gauges.watts(present.number('power.draw')):>7}  ")
        # What is wrong takes the place of the oldest history.
        line.append(note, style="bold yellow").append(history[len(note) :], style=UTIL_STYLE)
        lines.append(line)
    if len(shown) < len(gpus):
        lines.append(Text(f"and {len(gpus) - len(shown)} more: the window is too low", "yellow"))
    return lines


def _add_bar(line: Text, ratio: float | None, width: int, style: str, ascii_: bool) -> None:
    if width:
        full, rest = gauges.gauge(ratio, width, ascii_)
        line.append(" ").append(full, style=style).append(rest, style=view.DIM)


def show(
    console: Console,
    source: Recorded | Driver,
    interval: float,
    count: int | None,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show frames until ``count`` are shown, or for ever; KeyboardInterrupt goes to the caller.

    A terminal that can move its cursor gets a screen of its own, drawn anew when its size changes.
    """
    ascii_ = view.ascii_only(console)
    # The file is asked itself: FORCE_COLOR lets rich take anything for a terminal.
    lasting = console.file.isatty() and not console.is_dumb_terminal

    def draw(size: ConsoleDimensions, scene: Scene) -> Group:
        return frame(scene, size.width, size.height if lasting else None, ascii_)

    def look(size: ConsoleDimensions) -> Scene:
        return source.scene(clock(), history_columns(max(LEAST_WIDTH, size.width)))

    shown = 0
    if not lasting:
        while count is None or shown < count:
            if shown:
                sleep(interval)
                console.print()
            size = console.size
            console.print(draw(size, look(size)))
            console.file.flush()
            shown += 1
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while count is None or shown < count:
            size = console.size
            scene = look(size)
            live.update(draw(size, scene), refresh=True)
            shown += 1
            slices = max(1, round(interval / RESIZE_SECONDS))
            for _slice in range(slices):
                sleep(interval / slices)
                if console.size != size:
                    size = console.size
                    live.update(draw(size, scene), refresh=True)
