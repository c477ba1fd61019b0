# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket
import threading

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _integration_wire
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_model import (
    IntegrationError,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_wire import Dialer, Wire


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Peer:
    """A socket that gives its pieces one by one, each a second later."""

    def __init__(self, clock, *pieces):
        self.clock = clock
        self.pieces = list(pieces)
        self.timeouts = []

    def settimeout(self, seconds):
        self.timeouts.append(seconds)

    def recv(self, limit):
        self.clock.now += 1
        piece = self.pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        assert len(piece) <= limit
        return piece


def wire(*pieces, timeout=5):
    clock = Clock()
    peer = Peer(clock, *pieces)
    return Wire(peer, timeout, clock), peer


def test_lines_and_counts_are_cut_from_what_comes():
    ready, _peer = wire(b"one\r\ntw", b"o\r\nthr", b"ee")
    assert ready.line() == b"one"
    assert ready.line() == b"two"
    assert ready.exactly(5) == b"three"


def test_a_step_has_one_deadline_for_all_its_pieces():
    ready, peer = wire(*[b"x"] * 9, timeout=3)
    with pytest.raises(IntegrationError, match="no answer within 3 s") as caught:
        ready.exactly(9)
    assert peer.timeouts == [3, 2, 1]
    assert caught.value.cause == "silent"


def test_the_next_step_has_its_own():
    ready, peer = wire(*[b"x"] * 4, timeout=3)
    ready.exactly(2)
    ready.step("ready", "more")
    ready.exactly(2)
    assert peer.timeouts == [3, 2, 3, 2]


@pytest.mark.parametrize(
    ("piece", "cause", "said"),
    [
        (b"", "closed", "the connection was closed (waiting for news)"),
        (ConnectionResetError(104, "Connection reset by peer"), "closed", "the connection broke"),
        (socket.timeout(), "silent", "no answer within 5 s (waiting for news)"),
    ],
)
def test_failures_say_the_step_and_the_cause(piece, cause, said):
    ready, _peer = wire(piece)
    ready.step("version", "news")
    with pytest.raises(IntegrationError) as caught:
        ready.some()
    assert (caught.value.check, caught.value.cause) == ("version", cause)
    assert said in caught.value.message


def test_a_flood_is_cut_off(monkeypatch):
    monkeypatch.setattr(_integration_wire, "MOST_BYTES", 8)
    ready, _peer = wire(b"12345", b"6789\n")
    with pytest.raises(IntegrationError, match="more than 8 bytes came"):
        ready.line()


@pytest.mark.parametrize(
    ("answer", "cause"),
    [(socket.gaierror(-2, "Name or service not known"), "name"), (UnicodeError("label"), "name")],
)
def test_a_name_that_isnt_resolved(answer, cause):
    def lookup(*_args):
        raise answer

    with pytest.raises(IntegrationError, match="the name db is not resolved") as caught:
        Dialer("db", 1, lookup=lookup).open(1, tls=False)
    assert caught.value.cause == cause


def test_a_resolver_that_hangs():
    release = threading.Event()
    with pytest.raises(IntegrationError, match=r"was not resolved within 0\.05 s") as caught:
        Dialer("db", 0.05, lookup=lambda *_args: release.wait(5)).open(1, tls=False)
    release.set()
    assert caught.value.cause == "name_timeout"


def test_every_address_of_a_name_is_tried():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        found = [(socket.AF_INET, 0, 0, "", (address, 0)) for address in ("127.0.0.2", "127.0.0.1")]
        dial = Dialer("db", 1, lookup=lambda *_args: found)
        ready, address, took = dial.open(port, tls=False)
        ready.close()
    assert address == "127.0.0.1"
    assert took >= 0
    with pytest.raises(IntegrationError) as caught:
        dial.open(port, tls=False)
    assert caught.value.message == (
        "connection refused by 127.0.0.2; connection refused by 127.0.0.1"
    )
