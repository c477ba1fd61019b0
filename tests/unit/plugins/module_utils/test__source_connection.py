# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One GET that is watched: silence, dribbles, a deadline and a wish to stop all end it."""

from __future__ import annotations

import contextlib
import io
import socket
import threading

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _source_connection as connections
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import StoppedError, Watch

TICK = 0.01


class Line:
    """A connection that gives a byte each so many seconds, by its own clock; 0 for never."""

    def __init__(self, every_s):
        self.every_s = every_s
        self.now = 0.0
        self.closed = False
        self._last = 0.0

    def recv_into(self, buffer):
        if self.every_s and self.now + 1.0 >= self._last + self.every_s:
            self.now = self._last = self._last + self.every_s
            buffer[0] = ord("x")
            return 1
        self.now += 1.0  # a tick
        raise socket.timeout("timed out")

    def close(self):
        self.closed = True


def watched(line, **watch):
    pace = connections.Pace(Watch(clock=lambda: line.now, **watch), 10.0, 30.0)
    return connections.Watched(line, line, pace, "reading from peer:1")


def test_silence_is_a_broken_connection():
    line = Line(0)
    raw = watched(line)
    raw.head_is_over()
    with pytest.raises(socket.timeout):
        raw.readinto(bytearray(9))
    assert line.now == 30.0
    io.BufferedReader(raw).close()
    assert line.closed


def test_what_comes_before_the_content_has_to_come_in_time():
    line = Line(7.0)
    with pytest.raises(OSError, match="its answer didn't begin within 30 s"):
        io.BufferedReader(watched(line)).readline()
    assert line.now == 30.0


def test_content_may_take_its_time():
    line = Line(29.0)
    raw = watched(line)
    raw.head_is_over()
    assert io.BufferedReader(raw).read(10) == b"x" * 10
    assert line.now == 290.0


@pytest.mark.parametrize("every_s", [0, 7.0])
def test_a_deadline_ends_it(every_s):
    line = Line(every_s)
    raw = watched(line, deadline=15.0)
    raw.head_is_over()
    with pytest.raises(HostError, match="reading from peer:1 was stopped at the deadline"):
        io.BufferedReader(raw).read(10)
    assert 15.0 < line.now <= 21.0


@pytest.fixture
def serve():
    """Answer one connection with some bytes and keep it; return the address."""
    listeners, over = [], threading.Event()

    def begin(sent, *, on_sent=lambda: None):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def answer():
            with contextlib.suppress(OSError):
                connection, _address = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(sent)
                    on_sent()
                    over.wait(30)

        threading.Thread(target=answer, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/x?y=z"

    yield begin
    over.set()
    for listener in listeners:
        listener.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: a\r\n\r\n"


def get(url, **watch):
    pace = connections.Pace(Watch(tick_s=TICK, **watch), 10.0, 20.0)
    return connections.get(url, {"A": "b"}, None, pace)


def test_a_good_answer(serve):
    reply = get(serve(HEAD + b"12345"))
    assert (reply.status, reply.headers["etag"], reply.read()) == (200, "a", b"12345")
    reply.close()


@pytest.mark.parametrize("sent", [b"", HEAD[:20]])
def test_a_stop_ends_the_wait_for_an_answer(serve, sent):
    stop = []
    url = serve(sent, on_sent=lambda: stop.append("SIGTERM"))
    with pytest.raises(StoppedError, match=r"reading from 127\.0\.0\.1:\d+ was stopped by SIGTERM"):
        get(url, stopped=lambda: stop[0] if stop else "")


def test_a_stop_ends_the_wait_for_content(serve):
    stop = []
    reply = get(serve(HEAD + b"123"), stopped=lambda: stop[0] if stop else "")
    assert reply.read(3) == b"123"
    stop.append("SIGTERM")
    with pytest.raises(StoppedError, match="was stopped by SIGTERM"):
        reply.read(5)
    reply.close()


def test_a_connection_is_taken_in_time(serve, monkeypatch):
    asked, real = [], socket.create_connection

    def connect(address, timeout, *args, **kwargs):
        asked.append(timeout)
        return real(address, 10, *args, **kwargs)

    monkeypatch.setattr(socket, "create_connection", connect)
    get(serve(HEAD + b"12345"), deadline=4.0, clock=lambda: 1.0).close()
    assert asked == [3.0]
