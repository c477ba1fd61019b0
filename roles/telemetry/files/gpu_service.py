# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collector as a service: one reader with one session of NVML, watched and started anew.

The service itself never calls the driver, so it is never held up by it: a reader that is late is
killed, the failure written down, and another one started after a pause that doubles up to a
minute. systemd is told that the service is ready once the first collection went well or not, its
state in a line, and regularly that it lives.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from typing import Any

from gpu_files import WriteError
from gpu_reader import CollectError, Left, Sample, Stream, refuse
from gpu_record import Paths, Recorder, utc
from gpu_xids import Search

PAUSE_SECONDS = 60.0  # that a reader is waited for at most before the next one is started
TURN_SECONDS = 15.0  # a turn of the loop takes no longer, whatever is awaited
SEARCH_TURN_SECONDS = 0.5


def notify(text: str) -> bool:
    """Tell systemd something, sd_notify(3), without waiting for it; return whether that worked."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return True
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as speaker:
        speaker.sendto(text.encode(), address.replace("@", "\0", 1))
        return True
    return False


class Service:
    """Collects until a signal comes."""

    def __init__(self, options: argparse.Namespace, paths: Paths) -> None:
        self.options = options
        start = f"service started, one sample every {options.interval:g} s"
        self.recorder = Recorder(paths, options.keep_days, options.interval, start)
        self.recorder.restarts = {"late": 0, "ended": 0, "gpu_lost": 0}
        self.selector = selectors.DefaultSelector()
        self.stream: Stream | None = None
        self.left: Left | None = self.recorder.left
        self.failed = 0  # collections, since one reader has worked for a while
        self.start_at = self.started = time.monotonic()
        self.search: Search | None = None
        self.search_at = time.monotonic()
        self.found: str | None = None  # how the last search went, until it is written down
        self.ready = self.stopping = False
        self.untold = ""  # the status that systemd had no room for

    def run(self) -> int:
        """Collect until SIGTERM or SIGINT comes; return the exit status."""
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self.selector.register(reading, selectors.EVENT_READ)
        while not self.stopping:
            self._turn()
            for key, _mask in self.selector.select(self._wait()):
                if key.data is not None and not self.stopping:
                    key.data()
        notify("STOPPING=1\nSTATUS=stopping")
        if self.search:
            self.search.close()
        if self.stream:
            self._end_stream()
        self._write(lambda: self.recorder.stopped(utc(time.time())), "stopped")
        return 0

    def _stop(self, _number: int, _frame: Any) -> None:
        self.stopping = True

    def _turn(self) -> None:
        """Do what is due."""
        notify("WATCHDOG=1")
        self._tell(self.untold)
        if self.stream is None and time.monotonic() >= self.start_at:
            self._start_stream()
        if self.stream is not None:
            late = self.stream.late()
            if late:
                self._broken("late", late)
        if self.options.xids and self.search is None and time.monotonic() >= self.search_at:
            self.search = Search(self.options.xid_program, self.options.xids)
            self.search_at = time.monotonic() + self.options.xid_interval
        if self.search:
            found = self.search.result()
            if found is not None:
                self.search, self.found = None, found

    def _wait(self) -> float:
        """Return the seconds until something is due, if nothing comes in before."""
        due = self.stream.deadline if self.stream else self.start_at
        turn = SEARCH_TURN_SECONDS if self.search else TURN_SECONDS
        return max(0.0, min(turn, due - time.monotonic()))

    def _start_stream(self) -> None:
        self.started = time.monotonic()
        try:
            refuse(self.left)
            self.stream = Stream(self.options.reader, self.options.interval, self.options.timeout)
        except CollectError as error:
            self._failed(error)
            return
        self.left = None
        child = self.stream.child
        self.selector.register(child.stdout, selectors.EVENT_READ, self._readings)  # type: ignore[arg-type]
        self.selector.register(child.stderr, selectors.EVENT_READ, self._messages)  # type: ignore[arg-type]

    def _end_stream(self, late: bool = False) -> None:
        stream, self.stream = self.stream, None
        if stream is None:
            return
        for key in list(self.selector.get_map().values()):
            if key.data is not None:
                self.selector.unregister(key.fileobj)
        if not late:
            self.left = stream.close()

    def _messages(self) -> None:
        if self.stream and not self.stream.read_errors():
            self.selector.unregister(self.stream.child.stderr)  # type: ignore[arg-type]

    def _readings(self) -> None:
        for found in self.stream.read() if self.stream else ():
            if isinstance(found, Sample):
                self._sampled(found)
            elif found.renews:
                self._end_stream()
                self.recorder.restarts["gpu_lost"] += 1
                # A reader may take its first sample at once, so a sick GPU must not set the pace.
                self.start_at = self.started + self.options.interval / 2
            else:
                self._broken("ended", found)

    def _sampled(self, sample: Sample) -> None:
        # One that fails again after each sample is waited for longer and longer, too.
        if time.monotonic() - self.started >= PAUSE_SECONDS:
            self.failed = 0
        working = sum(gpu["state"] == "ok" for gpu in sample.gpus)
        status = f"{working} of {len(sample.gpus)} GPUs read at {utc(sample.time):%H:%M:%S} UTC"
        found, self.found = self.found, None
        self._write(lambda: self.recorder.sampled(sample, found), status)

    def _broken(self, reason: str, error: CollectError) -> None:
        """End a reader that failed, and write that down."""
        self._end_stream(late=reason == "late")
        self.left = error.left or self.left
        error.left = self.left
        self.recorder.restarts[reason] += 1
        self._failed(error)

    def _failed(self, error: CollectError) -> None:
        pause = min(PAUSE_SECONDS, 2.0 ** min(self.failed, 10))
        self.failed += 1
        self.start_at = time.monotonic() + pause
        now = utc(time.time())
        since = self.recorder.state.get("failing_since", now.timestamp())
        status = f"failing since {utc(since):%Y-%m-%d %H:%M:%S} UTC: {error.state}: {error}"
        seconds = self.options.timeout if error.state == "timeout" else 0.0
        found, self.found = self.found, None
        self._write(lambda: self.recorder.failed(error, now, seconds, found), status)

    def _write(self, write: Any, status: str = "") -> None:
        """Write down; a failure of that ends nothing, and systemd is told of it."""
        try:
            write()
        except WriteError as error:
            status = f"not written: {error}"
            print(status, file=sys.stderr, flush=True)
        self._tell(status)

    def _tell(self, status: str) -> None:
        """Tell systemd the state, or again in the next turn when it can't be told now."""
        if status:
            told = notify(f"STATUS={status}" + ("" if self.ready else "\nREADY=1"))
            self.ready = self.ready or told
            self.untold = "" if told else status
