# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stream of a pull under its watchdog: what counts as a stall, and how everything ends."""

from __future__ import annotations

import http.server
import json
import threading

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _pull_stream as streams
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import Answer, ansible_http

NAME = parse_name("qwen3:1.7b")
TICK = 0.005


def line(status, done=None, total=None):
    event = {"status": status}
    if total is not None:
        event.update(digest="sha256:aa", total=total, completed=done)
    return json.dumps(event).encode() + b"\n"


class Clock:
    """Goes on by some seconds at each look."""

    def __init__(self, step=1.0):
        self.now = 0.0
        self.step = step

    def __call__(self):
        self.now += self.step
        return self.now


class Body:
    """Gives some lines, then says nothing until it is closed."""

    def __init__(self, lines, ends=True):
        self.rest = lines
        self.ends = ends
        self.left = threading.Event()
        self.closed = threading.Event()

    def __iter__(self):
        yield from self.rest
        if not self.ends:
            self.left.wait(20)

    def fileno(self):  # asked when the connection is to end
        self.left.set()
        raise OSError("it has no descriptor")

    def close(self):
        self.closed.set()


def follow(body, **options):
    watch = streams.Watch(**{"tick_s": TICK, **options})
    seen, stalls = [], []
    with streams.Exchange(lambda: Answer(200, body), watch, "pulling") as exchange:
        assert exchange.answer().status == 200
        streams.follow_pull(exchange, NAME, watch, lambda *point: seen.append(point), stalls.append)
    return seen, stalls


def test_only_news_is_told():
    seen, stalls = follow(
        Body([line("pulling a", 5, 9), line("pulling a", 5, 9), line("pulling a", 9, 9),
              line("success")])
    )  # fmt: skip
    assert seen == [("pulling a", 5, 9), ("pulling a", 9, 9), ("success", 9, 9)]
    assert stalls == []


def test_lines_without_new_bytes_are_a_stall():
    body = Body([line("pulling manifest"), *[line("pulling a", 5_000_000, 9_000_000)] * 500])
    with pytest.raises(HostError, match=r"stalled at 5\.0MB of 9\.0MB: no byte came for 61 s"):
        follow(body, stall_s=60, clock=Clock())
    assert body.closed.is_set()


def test_silence_is_a_stall_and_the_connection_ends():
    body = Body([line("pulling a", 5, 9)], ends=False)
    with pytest.raises(HostError, match="wanted one within 60 s"):
        follow(body, stall_s=60, clock=Clock(10))
    assert body.closed.is_set()


def test_a_stall_is_told_every_ten_seconds():
    lines = [*[line("pulling a", 5, 9)] * 35, line("pulling a", 6, 9), line("success")]
    _seen, stalls = follow(Body(lines), clock=Clock())
    assert stalls == [10, 20, 30]


def test_a_part_that_is_started_anew_and_comes_again_is_no_stall():
    there_and_back = [line("pulling a", done, 9) for done in (5, 4, 5, 4, 5, 4, 5, 4)]
    seen, stalls = follow(Body([*there_and_back * 10, line("success")]), stall_s=5, clock=Clock())
    assert len(seen) == 81
    assert stalls == []


@pytest.mark.parametrize("status", ["verifying sha256 digest", "writing manifest"])
def test_silence_while_the_engine_works_is_no_stall(status):
    lines = [line("pulling a", 9, 9), *[line(status)] * 500, line("success")]
    _seen, stalls = follow(Body(lines), stall_s=60, clock=Clock())
    assert stalls == []


def test_the_deadline_holds_also_while_nothing_comes():
    body = Body([line("verifying sha256 digest")], ends=False)
    with pytest.raises(HostError, match="pulling was stopped at the deadline"):
        follow(body, deadline=100, clock=Clock(10))
    assert body.closed.is_set()


def test_a_request_to_stop():
    asked = iter(["", "", "SIGTERM"])
    body = Body([line("pulling a", 5, 9)], ends=False)
    with pytest.raises(streams.StoppedError, match="pulling was stopped by SIGTERM"):
        follow(body, stopped=lambda: next(asked, "SIGTERM"))
    assert body.closed.is_set()


def test_an_engine_that_accepts_but_never_answers():
    released = threading.Event()
    body = Body([])

    def send():
        released.wait(20)
        return Answer(200, body)

    watch = streams.Watch(deadline=10, clock=Clock(), tick_s=TICK)
    exchange = streams.Exchange(send, watch, "asking")
    with pytest.raises(HostError, match="asking was stopped at the deadline"), exchange:
        exchange.answer()
    released.set()
    exchange._thread.join(20)
    assert body.closed.is_set()  # what came too late is hung up on


def test_what_the_thread_meets_is_raised_where_it_is_waited_for():
    def send():
        raise HostError("nobody listens.")

    watch = streams.Watch(tick_s=TICK)
    exchange = streams.Exchange(send, watch, "asking")
    with exchange, pytest.raises(HostError, match="nobody listens"):
        exchange.answer()


def test_waiting_never_goes_beyond_the_deadline():
    watch = streams.Watch(deadline=100, clock=lambda: 90)
    assert watch.seconds(30) == 10
    assert watch.seconds(5) == 5
    assert streams.Watch(deadline=100, clock=lambda: 200).seconds(5) == 0.1
    assert streams.Watch().seconds(5) == 5


class Server(http.server.BaseHTTPRequestHandler):
    """Sends one line and then waits for its client to leave."""

    def do_POST(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(line("pulling a", 5, 9))
        self.wfile.flush()
        if not self.connection.recv(1):
            self.server.left.set()

    def log_message(self, *_args):
        pass


def test_a_real_connection_ends_though_a_thread_reads_from_it():
    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    server.left = threading.Event()
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/api/pull"
    watch = streams.Watch(stall_s=60, clock=Clock(10), tick_s=TICK)
    exchange = streams.Exchange(
        lambda: ansible_http(use_proxy=False)("POST", url, b"", {}, 60.0), watch, "pulling"
    )
    with exchange:
        exchange.answer()
        with pytest.raises(HostError, match="stalled at 5B of 9B"):
            streams.follow_pull(exchange, NAME, watch, lambda *_point: None)
    assert not exchange._thread.is_alive()
    assert server.left.wait(20)
    thread.join(20)
    server.server_close()
