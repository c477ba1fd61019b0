# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the collector measured: daily CSV files. Nothing is written here.

The collector may be writing at the same time, so the last line of a file can be half a line: a
line counts once its line end is there. Columns are found by the names in a file's own header, and
a field that is empty, or that says N/A, is no reading: ``None``, never 0.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .settings import STEM, Settings, printable, unreadable

DAILY = re.compile(rf"{STEM}-(\d{{4}}-\d{{2}}-\d{{2}})\b.*\.csv")
FIRST_COLUMNS = (
    "timestamp",
    "index",
    "name",
    "uuid",
    "pci.bus_id",
    "temperature.gpu",
    "utilization.gpu",
    "memory.used",
    "memory.total",
)
TEXT_COLUMNS = frozenset({"timestamp", "name", "uuid", "pci.bus_id"})
BLOCK = 64 * 1024
# Enough for several samples of a full chassis; a card that fell out of the newest one is noticed.
RECENT_ROWS = 64

# Name in our JSON, as the module gpu_info has it, from which column, times what.
MIB = 1024 * 1024
FIELDS: tuple[tuple[str, str, float], ...] = (
    ("temperature_c", "temperature.gpu", 1),
    ("utilization_gpu_ratio", "utilization.gpu", 0.01),
    ("memory_used_bytes", "memory.used", MIB),
    ("memory_total_bytes", "memory.total", MIB),
    ("power_draw_watts", "power.draw", 1),
)

# What holds the clocks down: bits of nvmlClocksEventReason in nvml.h, in the columns that
# nvidia-smi has had for them. The others are what an idle or a power capped card always says.
REASON_COLUMNS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
SLOWDOWNS = {
    "hw_slowdown": 0x8,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
}


class Row(NamedTuple):
    """One GPU at one time; ``time`` is in seconds since 1970."""

    time: float
    columns: Mapping[str, int]
    fields: Sequence[str]

    def text(self, column: str) -> str:
        """Return a field without what could steer a terminal; empty when there is none."""
        at = self.columns.get(column)
        found = "" if at is None else self.fields[at].strip()
        return found if found.isprintable() else printable(found)

    def number(self, column: str) -> float | None:
        """Return a field as a number; None when the card gives no such reading."""
        at = self.columns.get(column)
        if at is None:
            return None
        try:
            value = float(self.fields[at])
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    @property
    def slowdowns(self) -> list[str] | None:
        """Which faults and heat hold the clocks down; None when the row doesn't say."""
        text = next(filter(None, map(self.text, REASON_COLUMNS)), "")
        try:
            bits = int(text, 16)
        except ValueError:
            return None
        return [name for name, bit in SLOWDOWNS.items() if bits & bit]

    @property
    def key(self) -> str:
        """What tells this GPU from the others."""
        return self.text("uuid") or self.text("index")

    @property
    def index(self) -> int:
        """The driver's number of the GPU; -1 when the row has none."""
        number = self.number("index")
        return -1 if number is None else int(number)


@dataclass
class Reading:
    """Rows in the order of the files, and what stood between them."""

    rows: list[Row] = field(default_factory=list)
    before: float | None = None  # the last sample before the period, where one was seen
    broken: int = 0  # lines of the period's files that are no rows
    cut: str = ""  # what stands after the last line end of the last file
    foreign: list[str] = field(default_factory=list)  # files whose header isn't the collector's


def parse_time(text: str) -> float | None:
    """Return an RFC 3339 time in UTC as seconds since 1970; None when it isn't one."""
    if not text.endswith("Z"):
        return None
    try:
        return datetime.fromisoformat(text[:-1] + "+00:00").timestamp()
    except (ValueError, OverflowError):
        return None


def iso(seconds: float | None) -> str | None:
    """Return a time as the files have it."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_header(line: bytes) -> dict[str, int] | None:
    """Return where each column stands; None for a line that is no header of the collector."""
    names = line.decode("utf-8", "replace").strip().split(",")
    if tuple(names[: len(FIRST_COLUMNS)]) != FIRST_COLUMNS or len(set(names)) != len(names):
        return None
    return {name: at for at, name in enumerate(names)}


def parse_row(line: bytes, columns: Mapping[str, int]) -> Row | None:
    """Return a whole line as a row; None when it is none."""
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    try:
        fields = next(csv.reader([text]), []) if '"' in text else text.split(",")
    except csv.Error:
        return None
    if len(fields) != len(columns):
        return None
    time = parse_time(fields[0])
    return None if time is None else Row(time, columns, fields)


def daily_files(settings: Settings) -> list[tuple[str, Path]]:
    """Return day and path of each data file, oldest first; GMonError when they can't be listed.

    A day has a second file when the columns changed on it: the first was set aside. A stable name
    that is a file itself, rather than a link to one, is a day of its own, after all others.
    """
    found = []
    try:
        for entry in os.scandir(settings.data_dir):
            day = DAILY.fullmatch(entry.name)
            if day and entry.is_file(follow_symlinks=False):
                found.append((day[1], entry.stat().st_mtime_ns, Path(entry.path)))
    except OSError as error:
        raise unreadable(settings.data_dir, error) from error
    days = [(day, path) for day, _time, path in sorted(found)]
    if settings.stable.is_file() and not settings.stable.is_symlink():
        days.append(("9999-12-31", settings.stable))
    return days


def read(settings: Settings, since: float) -> Reading:
    """Return all rows from ``since`` on, in seconds since 1970."""
    reading = Reading()
    first_day = datetime.fromtimestamp(since, timezone.utc).strftime("%Y-%m-%d")
    days = daily_files(settings)
    for path in [path for day, path in days if day < first_day][-1:]:
        with _reading(path):
            rows = _tail_of(path, 1)[1]
            reading.before = rows[0].time if rows else None
    for path in [path for day, path in days if day >= first_day]:
        _read_file(path, since, reading)
    return reading


def _read_file(path: Path, since: float, reading: Reading) -> None:
    reading.cut = ""
    with _reading(path), path.open("rb") as file:
        header = file.readline()
        columns = parse_header(header) if header.endswith(b"\n") else {}
        if columns is None:
            reading.foreign.append(path.name)
            return
        if not columns:
            reading.cut = header.decode("utf-8", "replace")
            return
        _skip_to(file, since)
        for line in file:
            if not line.endswith(b"\n"):
                reading.cut = line.decode("utf-8", "replace")
                break
            row = parse_row(line, columns)
            if row is None:
                reading.broken += 1
            elif row.time >= since:
                reading.rows.append(row)
            else:
                reading.before = max(row.time, reading.before or row.time)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Read a data file: one that retention took away since it was listed has nothing to tell."""
    try:
        yield
    except FileNotFoundError:
        return
    except OSError as error:
        raise unreadable(path, error) from error


def _skip_to(file: BinaryIO, since: float) -> None:
    """Move to a line that is older than the period, near its begin: a day can have many rows."""
    start, size, step = file.tell(), os.fstat(file.fileno()).st_size, BLOCK
    while size - step > start:
        file.seek(size - step)
        file.readline()  # what is left of a line
        at = file.tell()
        time = parse_time(file.readline().split(b",", 1)[0].decode("utf-8", "replace"))
        if time is not None and time < since:
            file.seek(at)
            return
        step *= 4
    file.seek(start)


@dataclass
class Tail:
    """The end of the data: the newest rows, and the file that they came from."""

    path: Path | None = None
    header: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    cut: str = ""  # what follows the last line end of the file that is written to
    foreign: bool = False  # whether that file has another header than the collector's

    @property
    def time(self) -> float | None:
        """When the newest sample was taken.

        That is the last one written, not the one with the greatest time: the clock may have been
        set back.
        """
        return self.rows[-1].time if self.rows else None

    @property
    def newest(self) -> list[Row]:
        """The newest sample, a row per GPU."""
        return by_gpu([row for row in self.rows if row.time == self.time])

    @property
    def missing(self) -> list[Row]:
        """The last row of each GPU that was there a few samples ago and isn't any more."""
        present = {row.key for row in self.newest}
        return [row for row in by_gpu(self.rows) if row.key not in present]


def by_gpu(rows: Sequence[Row]) -> list[Row]:
    """Return the last row of each GPU, in the driver's order."""
    return sorted({row.key: row for row in rows}.values(), key=lambda row: (row.index, row.key))


def tail(settings: Settings, count: int = RECENT_ROWS) -> Tail:
    """Return the newest rows: of the file that the stable name leads to, and of those before it.

    An older file adds its rows only when it has the same columns.
    """
    found = Tail()
    paths = [path for _day, path in reversed(daily_files(settings))]
    current = settings.stable.resolve() if settings.stable.exists() else None
    if current is not None:
        paths = [current, *(path for path in paths if path.resolve() != current)]
    for path in paths:
        columns: dict[str, int] | None = {}
        rows: list[Row] = []
        cut = ""
        with _reading(path):
            columns, rows, cut = _tail_of(path, count - len(found.rows))
        if path == paths[0]:
            found.cut, found.foreign = cut, columns is None
        if not columns or not rows:
            continue
        names = list(columns)
        if found.path and names != found.header:
            break
        found.path, found.header = found.path or path, names
        found.rows = rows + found.rows
        if len(found.rows) >= count:
            break
    return found


def _tail_of(path: Path, count: int) -> tuple[dict[str, int] | None, list[Row], str]:
    """Return columns (None: not the collector's), last rows, and what follows the last line end."""
    with path.open("rb") as file:
        header = file.readline()
        if not header.endswith(b"\n"):
            return {}, [], header.decode("utf-8", "replace")
        columns = parse_header(header)
        if columns is None:
            return None, [], ""
        start, size, step = file.tell(), os.fstat(file.fileno()).st_size, BLOCK
        while True:
            at = max(start, size - step)
            file.seek(at)
            lines = file.read().split(b"\n")
            if at == start or len(lines) > count + 1:
                break
            step *= 4
    cut = lines.pop().decode("utf-8", "replace")
    whole = lines if at == start else lines[1:]
    rows = [row for row in (parse_row(line, columns) for line in whole) if row is not None]
    return columns, rows[-count:] if count > 0 else [], cut


def rows_of_day(settings: Settings, now: float) -> int:
    """Return how many whole rows today's files have; the day is that of UTC, as in their names."""
    today = datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%d")
    count = 0
    for day, path in daily_files(settings):
        if day == today:
            with _reading(path), path.open("rb") as file:
                ends = sum(block.count(b"\n") for block in iter(lambda: file.read(BLOCK), b""))
            count += max(0, ends - 1)
    return count


def rounded(value: float, name: str) -> float:
    """Return a figure as JSON has it: whole bytes, and no more digits than were measured."""
    return round(value) if name.endswith("_bytes") else round(value, 4)


def gpu_json(row: Row) -> dict[str, Any]:
    """Return a row in the units and under the names of gpu_info; no reading is null."""
    known: dict[str, Any] = {
        "index": row.index,
        "name": row.text("name"),
        "uuid": row.text("uuid"),
        "pci_bus_id": row.text("pci.bus_id"),
    }
    for name, column, factor in FIELDS:
        value = row.number(column)
        known[name] = None if value is None else rounded(value * factor, name)
    known["slowdowns"] = row.slowdowns
    return known


def row_json(row: Row) -> dict[str, Any]:
    """Return a row under the names of its file: numbers, text, and null for no reading."""

    def value(column: str) -> Any:
        number = None if column in TEXT_COLUMNS else row.number(column)
        if number is not None:
            return int(number) if number.is_integer() else number
        text = row.text(column)
        return None if text.strip("[]").upper() in ("", "N/A", "NOT SUPPORTED") else text

    return {column: value(column) for column in row.columns}


def raw_line(row: Row) -> str:
    """Return a row as its file has it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(row.fields)
    return text.getvalue()


def sizes(settings: Settings) -> Iterator[tuple[Path, int]]:
    """Yield each data file and its bytes."""
    for _day, path in daily_files(settings):
        with contextlib.suppress(FileNotFoundError):
            yield path, path.stat().st_size
