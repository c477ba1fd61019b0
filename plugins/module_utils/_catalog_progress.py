# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What a run of the catalog shows while it works, also when several models come at once."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from ansible_collections.hx_infra.llm.plugins.module_utils._progress import ProgressWriter

_STEP = 10  # percent points in the note about several models, so that it changes seldom


@dataclass(frozen=True)
class _Point:
    """Where the work on one model stands."""

    phase: str
    done: int
    total: int
    note: str

    def short(self, item: str) -> str:
        """Say it in a few words."""
        percent = f" {100 * self.done // self.total // _STEP * _STEP} %" if self.total else ""
        note = f" ({self.note})" if self.note else ""
        return f"{item} {self.phase}{percent}{note}"


class CatalogProgress:
    """Tell the controller how far the work is; one line for all models that are on their way.

    Args:
        writer: writes the progress file.
    """

    def __init__(self, writer: ProgressWriter) -> None:
        self._writer = writer
        self._lock = threading.Lock()
        self._points: dict[str, _Point] = {}

    def update(self, item: str, phase: str, done: int = 0, total: int = 0, note: str = "") -> None:
        """State where an item stands, in bytes; a total of 0 stands for not known."""
        with self._lock:
            self._points[item] = _Point(phase, done, total, note)
            self._tell()

    def note(self, item: str, note: str) -> None:
        """Say something about an item that stands where it stood."""
        with self._lock:
            point = self._points.get(item, _Point("working", 0, 0, ""))
            self._points[item] = _Point(point.phase, point.done, point.total, note)
            self._tell()

    def end(self, item: str) -> None:
        """Forget an item; the work on it is over."""
        with self._lock:
            self._points.pop(item, None)

    def _tell(self) -> None:
        points = self._points
        if len(points) == 1:
            for item, point in points.items():
                self._write(item, point.phase, point.done, point.total, point.note)
            return
        note = ", ".join(point.short(item) for item, point in points.items())
        known = [point for point in points.values() if point.total]
        done, total = sum(point.done for point in known), sum(point.total for point in known)
        self._write(f"{len(points)} models", "working", done, total, note)

    def _write(self, item: str, phase: str, done: int, total: int, note: str) -> None:
        known = total > 0
        self._writer.update(
            item, phase, done if known else None, total if known else None, unit="B", note=note
        )
