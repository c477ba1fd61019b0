# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import (
    fetch_json,
    http_prepare,
    parse_url,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError


@pytest.fixture
def serve():
    """Answer each connection with given bytes and pauses, then close it."""
    listeners = []

    def start(*script):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def answer():
            while True:
                try:
                    connection, _rest = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.recv(65536)
                    for step in script:
                        if isinstance(step, bytes):
                            connection.sendall(step)
                        else:
                            time.sleep(step)

        threading.Thread(target=answer, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_pieces_are_handed_on_when_they_arrive(serve):
    url = serve(CHUNKED, 0.1, b"2\r\na\n\r\n", 0.2, b"2\r\nb\n\r\n0\r\n\r\n")
    answer = http_prepare(url)("POST", "/", b"{}", 5.0)()
    begun = time.monotonic()
    pieces = [(piece, time.monotonic() - begun) for piece in answer.chunks]
    assert [piece for piece, _rest in pieces] == [b"a\n", b"b\n"]
    assert pieces[1][1] - pieces[0][1] == pytest.approx(0.2, abs=0.1)


@pytest.mark.parametrize(
    "script",
    [
        (CHUNKED, b"2\r\na\n\r\n", b"9\r\nhalf"),
        (CHUNKED, b"2\r\na\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", b"a\n"),
    ],
)
def test_a_cut_body_is_noticed(serve, script):
    answer = http_prepare(serve(*script))("GET", "/", b"", 5.0)()
    with pytest.raises(http.client.IncompleteRead):
        list(answer.chunks)


@pytest.mark.parametrize("drip", [(b"1\r\na\r\n", 0.15) * 20, (10.0,)])
def test_the_timeout_bounds_the_whole_answer(serve, drip):
    answer = http_prepare(serve(CHUNKED, *drip))("GET", "/", b"", 0.5)()
    begun = time.monotonic()
    with pytest.raises(socket.timeout):
        list(answer.chunks)
    assert time.monotonic() - begun < 1.5


def test_fetch_json(serve):
    url = serve(b'HTTP/1.0 200 OK\r\n\r\n{"version":"0.11.4"}')
    assert fetch_json(http_prepare(url), "/api/version", 5.0) == {"version": "0.11.4"}


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ((b"HTTP/1.0 404 Not Found\r\n\r\nno",), "answered status 404, wanted 200"),
        ((b"HTTP/1.0 200 OK\r\n\r\n<html>",), "not JSON"),
        ((b"what?\r\n\r\n",), "failed"),
        ((5.0,), "timed out"),
    ],
)
def test_fetch_json_says_what_went_wrong(serve, script, message):
    with pytest.raises(HostError, match=message):
        fetch_json(http_prepare(serve(*script)), "/api/version", 0.5)


def test_nobody_listening_is_said(serve):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(HostError, match="refused"):
        fetch_json(http_prepare(f"http://127.0.0.1:{port}"), "/api/version", 1.0)


@pytest.mark.parametrize(
    ("url", "port", "path"),
    [
        ("http://llm-01:11434", 11434, ""),
        ("http://llm-01/", 80, ""),
        ("https://gateway/ollama/", 443, "/ollama"),
        ("http://[::1]:8080", 8080, ""),
    ],
)
def test_parse_url(url, port, path):
    endpoint = parse_url(url)
    assert (endpoint.port, endpoint.path) == (port, path)


@pytest.mark.parametrize("url", ["llm-01:11434", "ftp://x", "http://", "http://x:port", ""])
def test_a_url_that_cannot_be_one_is_refused(url):
    with pytest.raises(HostError, match="wanted http"):
        parse_url(url)
