# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Turn states of a progress file into the few lines that a person wants to read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PERCENT_STEP = 10
STALL_S = 30.0
NOTE_S = 5.0  # between two lines that differ in their note only: figures in it change all the time
_UNITS = ("B", "kB", "MB", "GB", "TB")


class ProgressFeed:
    """Decide when a state is worth a line.

    A line comes for a new item or phase, for a further step of percent, when the work is
    complete, when it stands still, and every few seconds for a changed note; never more than one
    per interval.

    Args:
        render: turns a state into a line.
        interval_s: shortest time between two lines.
        step: percent points between two lines about the same item and phase.
    """

    def __init__(
        self,
        render: Callable[[dict[str, Any]], str],
        interval_s: float = 1.0,
        step: int = PERCENT_STEP,
    ) -> None:
        self._render = render
        self._interval_s = interval_s
        self._step = step
        self._shown: tuple[Any, ...] | None = None
        self._shown_at: float | None = None
        self._done: Any = None
        self._moved_at = 0.0

    def line(self, state: dict[str, Any] | None, now: float) -> str | None:
        """Return the line to show now, or None."""
        if not state:
            return None
        position = (state.get("item"), state.get("phase"), state.get("done"))
        if position != self._done:
            self._done, self._moved_at = position, now
        stalls = int((now - self._moved_at) // STALL_S)
        key = (*position[:2], self._steps(state), stalls, state.get("note"))
        if key == self._shown:
            return None
        only_note = self._shown is not None and key[:-1] == self._shown[:-1]
        least = max(self._interval_s, NOTE_S if only_note else 0.0)
        if self._shown_at is not None and now - self._shown_at < least:
            return None
        self._shown, self._shown_at = key, now
        text = self._render(state)
        return f"{text} | no progress for {_clock(now - self._moved_at)}" if stalls else text

    def _steps(self, state: dict[str, Any]) -> int | None:
        percent = _percent(state)
        return None if percent is None else int(percent // self._step)


def render_state(state: dict[str, Any]) -> str:
    """Say item, phase, percent, amount, rate and time left, as far as they are known."""
    percent = _percent(state)
    phase = str(state.get("phase") or "working")
    parts = [str(state.get("item") or "")] if state.get("item") else []
    parts.append(phase if percent is None else f"{phase} {percent:.0f} %")
    done, total, unit = state.get("done"), state.get("total"), str(state.get("unit") or "")
    if done is not None:
        parts.append(_amount(done, total, unit))
    if state.get("rate"):
        parts.append(_rate(state["rate"], unit))
    if state.get("eta_s") is not None and percent is not None and percent < 100:
        parts.append(f"ETA {_clock(state['eta_s'])}")
    if state.get("note"):
        parts.append(str(state["note"]))
    return " | ".join(parts)


def _percent(state: dict[str, Any]) -> float | None:
    done, total = state.get("done"), state.get("total")
    if not done or not total:
        return None
    return max(0.0, min(100.0, 100.0 * done / total))


def _amount(done: float, total: float | None, unit: str) -> str:
    if unit != "B":
        of = "" if total is None else f" of {total:g}"
        return f"{done:g}{of} {unit}".rstrip()
    divisor, name = _scale(total or done)
    of = "" if total is None else f" of {total / divisor:.1f}"
    return f"{done / divisor:.1f}{of} {name}"


def _rate(rate: float, unit: str) -> str:
    if unit != "B":
        return f"{rate:.1f} {unit}/s" if unit else f"{rate:.1f}/s"
    divisor, name = _scale(rate)
    return f"{rate / divisor:.1f} {name}/s"


def _scale(amount: float) -> tuple[float, str]:
    divisor = 1.0
    for name in _UNITS:
        if amount < divisor * 1000 or name == _UNITS[-1]:
            return divisor, name
        divisor *= 1000
    return divisor, _UNITS[-1]


def _clock(seconds: float) -> str:
    whole = int(seconds + 0.5)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
