# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Send requests when they are due and stamp what comes back.

One thread, one selector. Each turn first takes what every ready connection has and stamps it, and
only then decodes: what one stream costs does not age the others. On Linux the stamp is the
kernel's own, of the packet's arrival (``SO_TIMESTAMPNS``, socket(7)), so that time spent in this
process is not reported as the server's. How old the data was when it was read is kept all the
same: it says how far behind the client was.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
import selectors
import socket
import ssl
import struct
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_tls import Tls

READ_SIZE = 262144
ANCILLARY = 64
SO_TIMESTAMPNS = 35  # asm-generic/socket.h; the same on every architecture that runs GPUs
QUICKACK = getattr(socket, "TCP_QUICKACK", None)  # Linux
_TIMESPEC = struct.Struct("@ll")
RESEND_S = 0.1  # a server that closes sooner than this has not begun with a request
BATCH = 128  # reads before decoding: bounds the memory of a flood


class Feeder(Protocol):
    """Says when the next request is due."""

    def due(self, now: float, in_flight: int) -> float | None:
        """Return when to send the next one; None while nothing more may be sent."""

    def take(self, now: float) -> Job:
        """Return the request that is due."""


class Job(Protocol):
    """One request and the account of it."""

    request: bytes
    timeout_s: float

    def sent(self, at: float) -> None:
        """Take note that the request is about to go out."""

    def arrived(self, data: bytes, at: float) -> bool:
        """Take in what has come; tell whether the answer is complete."""

    def closed(self, at: float) -> None:
        """Take note that the server closed the connection."""

    def failed(self, kind: str, text: str, at: float) -> None:
        """Take note that there will be no answer."""

    reusable: bool
    started: bool


@dataclass(frozen=True)
class Address:
    """Where to connect to."""

    family: int
    sockaddr: tuple[Any, ...]
    server_name: str = ""
    tls: ssl.SSLContext | None = None
    connect_timeout_s: float = 10.0


@dataclass
class Account:
    """What the client knows about itself.

    Attributes:
        read_age_ms: how long each piece had lain in the kernel when it was read.
        kernel_stamps: whether the kernel's stamps were used.
        turns: how often the loop woke up.
        cpu_s: CPU time of this process.
        connects: connections that were opened while requests were under way.
        reconnects: connections that the server had closed while they were idle.
    """

    read_age_ms: array = field(default_factory=lambda: array("d"))
    kernel_stamps: bool = True
    turns: int = 0
    cpu_s: float = 0.0
    connects: int = 0
    reconnects: int = 0


class _Wire:
    """One connection and the request on it."""

    __slots__ = (
        "deadline",
        "error",
        "fresh",
        "job",
        "out",
        "plain",
        "sent_at",
        "sock",
        "tls",
        "told",
        "watching_write",
    )

    def __init__(self, sock: socket.socket, tls: Tls | None) -> None:
        self.sock = sock
        self.tls = tls
        self.job: Job | None = None
        self.deadline = 0.0
        self.plain = b""  # not yet encrypted
        self.out = b""  # not yet sent
        self.fresh = True
        self.error = ""
        self.sent_at = 0.0
        self.told = False  # whether the job knows when it went out
        self.watching_write = False


class Engine:
    """Drives any number of connections to one address.

    Args:
        address: where to connect to.
        clock: monotonic seconds.
        tick: called about every ``tick_s`` seconds, to show progress; must be quick.
    """

    def __init__(
        self,
        address: Address,
        *,
        clock: Callable[[], float] = time.monotonic,
        tick: Callable[[float], None] = lambda now: None,
        tick_s: float = 0.5,
    ) -> None:
        self._address = address
        self._clock = clock
        self._tick = tick
        self._tick_s = tick_s
        self._selector = selectors.DefaultSelector()
        self._idle: list[_Wire] = []
        self._busy: set[_Wire] = set()
        self._next_expiry = float("inf")
        self.account = Account()

    def warm_up(self, count: int) -> None:
        """Open connections before the clock starts.

        Raises:
            OSError: the address can't be reached.
        """
        for _number in range(count):
            wire = self._connect()
            end = self._clock() + self._address.connect_timeout_s
            while not self._connected(wire):
                if self._clock() > end:
                    raise TimeoutError("timed out while connecting")
                for key, mask in self._selector.select(0.1):
                    came: list[tuple[_Wire, bytes, float]] = []
                    self._serve(key.data, mask, came)
                    for entry in came:  # of a TLS handshake
                        self._take_in(*entry)
            self._idle.append(wire)

    def run(self, feeder: Feeder, ends_at: float = float("inf")) -> None:
        """Send what the feeder gives until it has nothing more and everything is answered.

        Args:
            feeder: what to send, and when.
            ends_at: no request starts after it; those in flight run to their timeout.
        """
        before = resource.getrusage(resource.RUSAGE_SELF)
        collecting = gc.isenabled()
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            self._loop(feeder, ends_at)
        finally:
            gc.unfreeze()
            if collecting:
                gc.enable()
        after = resource.getrusage(resource.RUSAGE_SELF)
        self.account.cpu_s += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def close(self) -> None:
        """Close every connection; nothing more is told about requests in flight."""
        for wire in [*self._busy, *self._idle]:
            self._drop(wire)
        self._idle.clear()
        self._selector.close()

    # -- the loop ---------------------------------------------------------------------------------

    def _loop(self, feeder: Feeder, ends_at: float) -> None:
        clock = self._clock
        next_tick = clock() + self._tick_s
        while True:
            now = clock()
            due = feeder.due(now, len(self._busy)) if now < ends_at else None
            while due is not None and due <= now:
                self._send(feeder.take(now))
                now = clock()
                due = feeder.due(now, len(self._busy)) if now < ends_at else None
            if due is None and not self._busy:
                break
            if due is not None and due > ends_at and not self._busy:
                break
            wake = min(next_tick, self._next_expiry, due if due is not None else next_tick)
            self._turn(wake - now)
            now = clock()
            if now >= self._next_expiry:
                self._expire(now)
            if now >= next_tick:
                self._tick(now)
                next_tick = now + self._tick_s

    def _turn(self, wait: float) -> None:
        """Wait for something to come, but not longer; take it in."""
        # The selector counts in milliseconds and rounds up: only the whole ones are waited there.
        whole = int(wait * 1000) / 1000 if wait > 0 else 0.0
        ready = self._selector.select(whole)
        self.account.turns += 1
        if not ready:
            if 0 < wait < 0.001:
                time.sleep(wait)
            return
        for first in range(0, len(ready), BATCH):
            batch: list[tuple[_Wire, bytes, float]] = []
            for key, mask in ready[first : first + BATCH]:
                self._serve(key.data, mask, batch)
            for wire, data, at in batch:
                self._take_in(wire, data, at)

    def _serve(self, wire: _Wire, mask: int, batch: list[tuple[_Wire, bytes, float]]) -> None:
        if mask & selectors.EVENT_WRITE:
            self._flush(wire)
        if not mask & selectors.EVENT_READ or wire.sock.fileno() == -1:
            return  # a connection that was refused is both, and closed by now
        try:
            data, ancillary, _flags, _peer = wire.sock.recvmsg(READ_SIZE, ANCILLARY)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(wire, error)
            return
        # The end of a connection is no packet with data and has no stamp.
        batch.append((wire, data, self._stamp(ancillary) if data else self._clock()))

    def _stamp(self, ancillary: list[tuple[int, int, bytes]]) -> float:
        """Return when a piece arrived, by the clock of the engine."""
        now = self._clock()
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack_from(value)
                age = time.time() - seconds - nanoseconds * 1e-9
                if 0 <= age < 60:  # else the wall clock was set meanwhile
                    self.account.read_age_ms.append(age * 1e3)
                    return now - age
        self.account.kernel_stamps = False
        return now

    def _take_in(self, wire: _Wire, data: bytes, at: float) -> None:
        if wire.tls is not None and data:
            try:
                data = wire.tls.decrypt(data)
            except ssl.SSLError as error:
                self._lost(wire, error)
                return
            self._flush(wire)
            if not data:
                return
        job = wire.job
        if job is None:  # an idle connection that the server closes, or talks on unasked
            if wire in self._idle:
                self._idle.remove(wire)
            self._drop(wire)
            return
        if not data:
            self._ended(wire, job, at)
        elif job.arrived(data, at):
            self._done(wire, job)

    def _ended(self, wire: _Wire, job: Job, at: float) -> None:
        """Deal with a server that closed the connection while a request was on it."""
        wire.job = None
        self._drop(wire)
        if self._unseen(wire, job):
            self._send_again(wire, job)
        else:
            job.closed(at)

    def _unseen(self, wire: _Wire, job: Job) -> bool:
        """Tell whether a server has closed a connection before it saw the request on it."""
        soon = self._clock() - wire.sent_at < RESEND_S
        return soon and not wire.fresh and not job.started

    def _send_again(self, wire: _Wire, job: Job) -> None:
        """Send what any client would send again; its time goes on."""
        self.account.reconnects += 1
        self._send(job, wire)

    def _done(self, wire: _Wire, job: Job) -> None:
        wire.job = None
        self._busy.discard(wire)
        if job.reusable:
            wire.fresh = False
            self._idle.append(wire)
        else:
            self._drop(wire)

    def _lost(self, wire: _Wire, error: Exception) -> None:
        job, wire.job = wire.job, None
        wire.error = str(error) or type(error).__name__
        if wire in self._idle:
            self._idle.remove(wire)
        reset = isinstance(error, (ConnectionResetError, BrokenPipeError))
        self._drop(wire)
        if job is None:
            return
        if reset and self._unseen(wire, job):
            self._send_again(wire, job)
        else:
            self._fail(wire, job, "connection", wire.error)

    def _fail(self, wire: _Wire, job: Job, kind: str, text: str) -> None:
        if not wire.told:
            job.sent(wire.sent_at)
        job.failed(kind, text, self._clock())

    def _expire(self, now: float) -> None:
        nearest = float("inf")
        for wire in list(self._busy):
            if wire.deadline > now:
                nearest = min(nearest, wire.deadline)
                continue
            job, wire.job = wire.job, None
            self._drop(wire)
            if job is not None:
                self._fail(wire, job, "timeout", f"no complete answer in {job.timeout_s:g} s")
        self._next_expiry = nearest

    # -- connections ------------------------------------------------------------------------------

    def _send(self, job: Job, before: _Wire | None = None) -> None:
        """Send a request, or what was on another connection ``before``, whose times hold."""
        now = self._clock()
        try:
            if self._idle and before is None:
                wire = self._idle.pop()
            else:
                wire = self._connect()
                self.account.connects += 1
        except OSError as error:
            job.sent(before.sent_at if before else now)
            job.failed("connection", str(error), now)
            return
        wire.job = job
        wire.sent_at = before.sent_at if before else now
        wire.told = before is not None and before.told
        wire.deadline = before.deadline if before else now + job.timeout_s
        self._next_expiry = min(self._next_expiry, wire.deadline)
        self._busy.add(wire)
        self._write(wire, job.request)
        if QUICKACK is not None:
            # A server that collects small writes until the last one is acknowledged (Nagle) would
            # otherwise wait for our delayed acknowledgement: 40 ms that are ours.
            with contextlib.suppress(OSError):
                wire.sock.setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)

    def _connect(self) -> _Wire:
        address = self._address
        sock = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if address.family in (socket.AF_INET, socket.AF_INET6):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            code = sock.connect_ex(address.sockaddr)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, errno.errorcode.get(code, str(code)))
        except OSError:
            sock.close()
            raise
        tls = Tls(address.tls, address.server_name) if address.tls else None
        wire = _Wire(sock, tls)
        wire.watching_write = True
        self._selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, wire)
        if tls is not None:
            tls.advance()
        return wire

    def _connected(self, wire: _Wire) -> bool:
        if wire.sock.fileno() == -1:
            raise ConnectionError(wire.error or "the server closed the connection")
        return not wire.watching_write and (wire.tls is None or wire.tls.up)

    def _write(self, wire: _Wire, data: bytes) -> None:
        wire.plain = data
        if not wire.watching_write:
            self._flush(wire)

    def _flush(self, wire: _Wire) -> None:
        """Send what is to go out, and watch for writing only while something is left."""
        try:
            code = wire.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            self._encrypt(wire)
            while wire.out:
                sent = wire.sock.send(wire.out)
                wire.out = wire.out[sent:]
        except (BlockingIOError, InterruptedError):
            pass
        except (BrokenPipeError, ConnectionResetError) as error:
            if wire.job is None or not wire.told:
                self._lost(wire, error)
                return
            wire.out = wire.plain = b""  # an answer, such as 413, may lie there to be read
        except OSError as error:
            self._lost(wire, error)
            return
        if bool(wire.out) != wire.watching_write:
            wire.watching_write = bool(wire.out)
            mask = selectors.EVENT_WRITE if wire.watching_write else 0
            self._selector.modify(wire.sock, selectors.EVENT_READ | mask, wire)

    def _encrypt(self, wire: _Wire) -> None:
        tls = wire.tls
        if tls is not None:
            tls.advance()
        if wire.plain and (tls is None or tls.up):
            if wire.job is not None and not wire.told:
                wire.told = True  # not before: connecting is no part of the answer's time
                wire.job.sent(self._clock())
            if tls is None:
                wire.out += wire.plain
            else:
                tls.session.write(wire.plain)
            wire.plain = b""
        if tls is not None and tls.outgoing.pending:
            wire.out += tls.outgoing.read()

    def _drop(self, wire: _Wire) -> None:
        self._busy.discard(wire)
        if wire.sock.fileno() != -1:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(wire.sock)
            wire.sock.close()
