# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""How often, how long and with which pauses a peer or an archive's server is asked again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import Watch

LONGEST_WAIT_S = 30.0
SHORTEST_BUSY_S = 1.0  # also for a server that is full and wants to be asked again at once


class BusyError(OSError):
    """A server is full, and will serve those who ask again later.

    Args:
        problem: what it says, as a part of a sentence.
        retry_s: seconds after which it wants to be asked again.
    """

    def __init__(self, problem: str, retry_s: float) -> None:
        super().__init__(problem)
        self.retry_s = retry_s


@dataclass(frozen=True)
class Retries:
    """How patiently a source is asked.

    Attributes:
        tries: how often in a row without a single new byte before giving up.
        stall_s: seconds without a byte after which a connection counts as broken.
        connect_s: seconds that a server has to take a connection.
        first_wait_s: the first pause; each further one is twice as long.
        sleep: waits.
        offer_s: for how many seconds of pauses one that is full is asked for offers.
    """

    tries: int = 7
    stall_s: float = 30.0
    connect_s: float = 10.0
    first_wait_s: float = 1.0
    sleep: Callable[[float], None] = time.sleep
    offer_s: float = 60.0

    def under(self, watch: Watch) -> Retries:
        """Return the same with pauses that end when it is time to give up, with its error."""

        def pause(seconds: float) -> None:
            left = seconds
            while left > 0:
                watch.check("waiting to ask a source again")
                self.sleep(min(left, watch.tick_s))
                left -= watch.tick_s
            watch.check("waiting to ask a source again")

        return replace(self, sleep=pause)


class Patience:
    """Counts what one server has cost.

    Args:
        retries: how patiently it is asked.
        busy_s: for how many seconds of pauses one that is full is asked again.
    """

    def __init__(self, retries: Retries, busy_s: float) -> None:
        self._retries = retries
        self._busy_s = busy_s
        self._fruitless = 0
        self._waited_s = 0.0
        self._was_busy = False

    def pause_s(self, trouble: OSError, *, came: bool) -> float | None:
        """Return the seconds to wait before it is asked again; None to give up.

        Args:
            trouble: why it has to be.
            came: whether it has given something since it was in trouble last.
        """
        if came:
            self.reset()
        self._was_busy = isinstance(trouble, BusyError)
        if isinstance(trouble, BusyError):
            left = self._busy_s - self._waited_s
            pause_s = min(left, LONGEST_WAIT_S, max(SHORTEST_BUSY_S, trouble.retry_s))
            self._waited_s += max(0.0, pause_s)
            return pause_s if pause_s > 0 else None
        self._fruitless += 1
        if self._fruitless >= self._retries.tries:
            return None
        return min(LONGEST_WAIT_S, self._retries.first_wait_s * 2**self._fruitless / 2)

    def reset(self) -> None:
        """Begin anew: it has given something."""
        self._fruitless, self._waited_s = 0, 0.0

    @property
    def spent(self) -> str:
        """How long that went on, as a part of a sentence."""
        if self._was_busy:
            return f"asked again for {self._waited_s:.0f} s"
        return f"{self._fruitless} times in a row"
