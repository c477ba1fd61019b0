# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The shapes of a load: when each request of a stage is due.

A closed loop sends when an answer is complete, so that a slow server is asked less. An open loop
sends on a schedule that doesn't know the server; its latencies count from the scheduled time, or
the wait that a slow server causes would be left out (coordinated omission: G. Tene, "How NOT to
Measure Latency"; MLPerf's Server scenario has the same rule).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

CLOSED, CONSTANT, POISSON = "closed", "constant", "poisson"


@dataclass(frozen=True)
class Stage:
    """One load, held for a number of requests, a time, or whichever ends first.

    Attributes:
        shape: ``closed``, ``constant`` or ``poisson``.
        concurrency: requests in flight at once (closed), or at most (open).
        rate: requests per second (open).
        requests: how many at most.
        duration_s: no request is due later than this after the start; 0 for no such end.
        seed: of the Poisson schedule; the same seed gives the same schedule.
    """

    shape: str = CLOSED
    concurrency: int = 1
    rate: float = 0.0
    requests: int = 1
    duration_s: float = 0.0
    seed: int = 0

    @property
    def label(self) -> str:
        """Return the stage in words."""
        if self.shape == CLOSED:
            return f"{self.concurrency} at once"
        return f"{self.rate:g} requests/s, {self.shape}"


def schedule(stage: Stage) -> Iterator[float]:
    """Yield when each request of an open stage is due, seconds after its start."""
    draw = random.Random(stage.seed)  # noqa: S311 - a schedule, nothing secret
    at = 0.0
    for number in range(stage.requests):
        if stage.shape == CONSTANT:
            at = number / stage.rate
        elif number:
            at += draw.expovariate(stage.rate)
        if stage.duration_s and at >= stage.duration_s:
            return
        yield at


Make = Callable[[int, "float | None"], Any]


class ClosedLoop:
    """Keeps a number of requests in flight."""

    def __init__(self, stage: Stage, begin: float, make: Make) -> None:
        self._stage = stage
        self._make = make
        self._sent = 0
        self._ends_at = begin + stage.duration_s if stage.duration_s else float("inf")
        self._over = False

    @property
    def wanted(self) -> int:
        """Return how many requests were due; a load that a time ends has no number of its own."""
        return self._sent if self._stage.duration_s else self._stage.requests

    def cut(self, ends_at: float) -> bool:
        """Tell, once nothing more is sent, whether the run's end came before the load's."""
        if self._sent >= self._stage.requests:
            return False
        return not self._stage.duration_s or ends_at < self._ends_at

    def due(self, now: float, in_flight: int) -> float | None:
        """Return now while a place is free."""
        if self._sent >= self._stage.requests or self._over:
            return None
        if now >= self._ends_at:
            self._over = True
            return None
        return now if in_flight < self._stage.concurrency else None

    def take(self, now: float) -> Any:
        """Return the next request."""
        self._sent += 1
        return self._make(self._sent, None)


class OpenLoop:
    """Sends on a schedule, whatever the server does.

    When ``concurrency`` requests are in flight the next one waits, and its wait counts as latency.
    """

    def __init__(self, stage: Stage, begin: float, make: Make) -> None:
        self._times = [begin + at for at in schedule(stage)]
        self._make = make
        self._limit = stage.concurrency
        self._sent = 0

    @property
    def wanted(self) -> int:
        """Return how many requests the schedule has."""
        return len(self._times)

    def cut(self, ends_at: float) -> bool:
        """Tell, once nothing more is sent, whether requests of the schedule were left."""
        return self._sent < len(self._times) and ends_at < float("inf")

    def due(self, now: float, in_flight: int) -> float | None:
        """Return when the next request is due; None while too many are in flight."""
        if self._sent >= len(self._times) or in_flight >= self._limit:
            return None
        return self._times[self._sent]

    def take(self, now: float) -> Any:
        """Return the next request, which knows when it was meant to go out."""
        self._sent += 1
        return self._make(self._sent, self._times[self._sent - 1])


def feeder_of(stage: Stage, begin: float, make: Make) -> ClosedLoop | OpenLoop:
    """Return what sends the stage's requests; ``make(number, intended)`` returns a request."""
    return (ClosedLoop if stage.shape == CLOSED else OpenLoop)(stage, begin, make)
