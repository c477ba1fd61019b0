# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The progress file: how a long module tells the controller where it stands.

The file holds one JSON object, replaced as a whole at each write:

``item``   what is being worked on: a model, a path, a model's test.
``phase``  what happens to it: ``pulling``, ``copying``, ``measuring``.
``done``, ``total``, ``unit``  how far it is; unit ``B`` stands for bytes; null when not known.
``rate``   units per second over the last seconds; null when not known.
``eta_s``  seconds left at that rate; null when not known.
``note``   a few words more.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any

RATE_WINDOW_S = 5.0


class ProgressWriter:
    """Write the progress file; do nothing when no path is given.

    Args:
        path: the progress file, or None when nobody reads it.
        interval_s: shortest time between two writes about the same item and phase.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        path: str | None,
        *,
        interval_s: float = 0.4,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._interval_s = interval_s
        self._clock = clock
        self._subject: tuple[str, str] | None = None
        self._written_at = 0.0
        self._history: deque[tuple[float, float]] = deque()

    def update(
        self,
        item: str,
        phase: str,
        done: float | None = None,
        total: float | None = None,
        *,
        unit: str = "",
        note: str = "",
    ) -> None:
        """State where the work stands; cheap enough to be called in a loop."""
        if not self._path:
            return
        now = self._clock()
        if self._subject != (item, phase):
            self._subject = (item, phase)
            self._history.clear()
            self._written_at = now - self._interval_s
        rate = self._rate(now, done)
        complete = total is not None and done is not None and done >= total
        if now - self._written_at < self._interval_s and not complete:
            return
        self._written_at = now
        left = None if done is None or total is None or not rate else max(0.0, total - done) / rate
        state = {
            "item": item,
            "phase": phase,
            "done": done,
            "total": total,
            "unit": unit,
            "rate": rate,
            "eta_s": left,
            "note": note,
        }
        with contextlib.suppress(OSError):  # nobody to tell is no reason to stop working
            _replace(self._path, state)

    def _rate(self, now: float, done: float | None) -> float | None:
        if done is None:
            return None
        history = self._history
        if history and done < history[-1][1]:  # a part was rolled back
            history.clear()
        history.append((now, done))
        while len(history) > 2 and now - history[0][0] > RATE_WINDOW_S:
            history.popleft()
        elapsed = now - history[0][0]
        return (done - history[0][1]) / elapsed if elapsed > 0 else None


def _replace(path: str, state: dict[str, Any]) -> None:
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="utf-8") as stream:
        json.dump(state, stream)
    os.replace(temporary, path)
