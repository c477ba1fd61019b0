# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Long answers of an engine, read under a watchdog: deadline, stop request, stalled download.

A second thread waits for the engine, so that the one that decides never waits longer than a tick.
An engine sends a line about a download every few milliseconds whether bytes arrive or not: what
counts are the bytes, not the lines.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import human_size
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import ModelName
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import Answer

STALL_NOTE_S = 10.0  # from then on a stalled download is said to be one, in steps of this length
_LEAVE_S = 5.0  # for the thread that reads to see that its connection has ended

OnProgress = Callable[[str, int, int], None]  # status, bytes done, bytes in total


class StoppedError(HostError):
    """The run was asked to stop; what it has done so far stays."""


@dataclass(frozen=True)
class Watch:
    """When to give up.

    Attributes:
        stall_s: seconds without a new byte after which a download counts as failed.
        deadline: clock reading at which all work has to be over; None for no limit.
        stopped: says why the run is to stop (the name of a signal); empty while it isn't.
        clock: monotonic seconds.
        tick_s: longest time between two looks.
    """

    stall_s: float = 300.0
    deadline: float | None = None
    stopped: Callable[[], str] = lambda: ""
    clock: Callable[[], float] = time.monotonic
    tick_s: float = 0.5

    def check(self, what: str) -> None:
        """Raise when it is time to give up.

        Raises:
            StoppedError: the run is to stop.
            HostError: the deadline has passed.
        """
        reason = self.stopped()
        if reason:
            raise StoppedError(
                f"{what} was stopped by {reason}.", "Run again; it goes on from where it stood."
            )
        if self.deadline is not None and self.clock() > self.deadline:
            raise HostError(
                f"{what} was stopped at the deadline.",
                "What it downloaded is kept; run again, with a longer deadline if need be.",
            )

    def over(self) -> bool:
        """Say whether it is time to give up."""
        return bool(self.stopped()) or (self.deadline is not None and self.clock() >= self.deadline)

    def seconds(self, most: float) -> float:
        """Return how long one may wait for the network, never beyond the deadline."""
        if self.deadline is None:
            return most
        return max(0.1, min(most, self.deadline - self.clock()))


class Exchange:
    """A request and its answer, line by line, as a context manager.

    Args:
        send: sends the request and returns the answer; runs in a thread of its own.
        watch: when to give up.
        what: the work, for messages.
    """

    def __init__(self, send: Callable[[], Answer], watch: Watch, what: str) -> None:
        self._send = send
        self._watch = watch
        self._what = what
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._answer: Answer | None = None
        self._over = False
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Exchange:
        """Send the request."""
        self._thread.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        """Hang up, which the engine takes as a wish to stop."""
        with self._lock:
            self._over = True
            answer = self._answer
            if answer is not None:
                answer.abort()
        if answer is not None:
            self._thread.join(_LEAVE_S)

    def answer(self) -> Answer:
        """Return the answer's status and headers as soon as they are there.

        Raises:
            HostError: it is time to give up.
            OSError: the connection broke.
        """
        while True:
            found = self._next()
            if found is not None:
                return found

    def lines(self) -> Iterator[bytes | None]:
        """Yield the lines of the body, and None at each tick without one; ``answer`` comes first.

        Raises:
            HostError: it is time to give up.
            OSError: the connection broke.
        """
        while True:
            line = self._next()
            if line is self._inbox:
                return
            yield line

    def read(self) -> bytes:
        """Return the whole body; ``answer`` comes first."""
        return b"".join(line for line in self.lines() if line)

    def _next(self) -> Any:
        self._watch.check(self._what)
        try:
            found = self._inbox.get(timeout=self._watch.tick_s)
        except queue.Empty:
            return None
        if isinstance(found, Exception):
            raise found
        return found

    def _read(self) -> None:
        try:
            answer = self._send()
            with self._lock:
                self._answer = answer
                wanted = not self._over
            try:
                if wanted:
                    self._inbox.put(answer)
                    for line in answer.lines():
                        self._inbox.put(line)
            finally:
                with self._lock:
                    self._answer = None
                answer.close()
            self._inbox.put(self._inbox)  # the end
        except Exception as error:  # the thread that decides raises it
            self._inbox.put(error)


class PullState:
    """What the stream of one pull has said so far.

    A pull answers 200 before it has begun. It succeeded when its last line says so and no line
    carries an error.

    Attributes:
        status: the last status.
        done: bytes that are there; goes down when a part is started anew.
        total: bytes of the layers that were spoken of.
    """

    def __init__(self, name: ModelName) -> None:
        self.status = ""
        self.done = 0
        self.total = 0
        self._name = name
        self._done: dict[str, int] = {}
        self._total: dict[str, int] = {}

    @property
    def wants_bytes(self) -> bool:
        """Whether bytes have to come; while the engine hashes, silence is what one expects."""
        return not self.status or self.status.startswith("pulling")

    @property
    def point(self) -> tuple[str, int, int]:
        """Status, bytes done and in total, as progress functions take them."""
        return self.status, self.done, self.total

    def take(self, line: bytes) -> bool:
        """Read a line and say whether the work got further.

        Raises:
            HostError: the line says that the pull failed (the text is the server's own), or it
                isn't one that a pull sends.
        """
        if not line.strip():
            return False
        try:
            event = json.loads(line)
        except ValueError as error:
            raise HostError(
                f"pulling {self._name} failed: the stream broke off ({error})."
            ) from error
        if not isinstance(event, dict):
            raise HostError(
                f"pulling {self._name} failed: the stream holds {event!r}, wanted an object."
            )
        if event.get("error"):
            raise HostError(f"pulling {self._name} failed: {event['error']}.")
        before = self.point
        self.status = str(event.get("status", ""))
        if event.get("digest"):
            self._total[event["digest"]] = int(event.get("total") or 0)
            self._done[event["digest"]] = int(event.get("completed") or 0)
        self.done, self.total = sum(self._done.values()), sum(self._total.values())
        return self.status != before[0] or self.done > before[1]

    def finish(self) -> None:
        """Judge the end of the stream.

        Raises:
            HostError: it isn't the end of a good pull.
        """
        if self.status != "success":
            raise HostError(
                f"pulling {self._name} failed: the stream ended after "
                f"{self.status or 'nothing'!r}, wanted 'success'.",
                "The server may have been restarted; run again, the download is resumed.",
            )


def follow_pull(
    exchange: Exchange,
    name: ModelName,
    watch: Watch,
    on_progress: OnProgress,
    on_stall: Callable[[int], None] = lambda _seconds: None,
) -> None:
    """Read the stream of a pull to its end.

    Args:
        exchange: the request, whose answer was taken already.
        name: the model.
        watch: when to give up.
        on_progress: called whenever the stream says something new.
        on_stall: called with the seconds since the last new byte, every ten seconds.

    Raises:
        HostError: the pull failed or stalled, or it is time to give up.
        OSError: the connection broke.
    """
    state = PullState(name)
    moved, told = watch.clock(), 0
    for line in exchange.lines():
        before = state.point
        now = watch.clock()
        if (line is not None and state.take(line)) or not state.wants_bytes:
            moved, told = now, 0
        if state.point != before:
            on_progress(*state.point)
        idle = now - moved
        if idle > watch.stall_s:
            raise HostError(
                f"pulling {name} stalled at {human_size(state.done)} of {human_size(state.total)}: "
                f"no byte came for {int(idle)} s, wanted one within {watch.stall_s:g} s.",
                "What it downloaded is kept, and the next run goes on from there.",
            )
        step = int(idle // STALL_NOTE_S)
        if step > told:
            told = step
            on_stall(int(step * STALL_NOTE_S))
    state.finish()
