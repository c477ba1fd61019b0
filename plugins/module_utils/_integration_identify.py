# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Finding out what speaks on a port that doesn't answer as the declared service would."""

from __future__ import annotations

from typing import Callable

from ansible_collections.hx_infra.llm.plugins.module_utils._integration_model import (
    PORTS,
    IntegrationError,
    Wanted,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_postgres import TLS_REQUEST
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_wire import (
    Dialer,
    Wire,
    tls_context,
)

# A program that speaks first does so whatever it is sent, and Redis takes this for a command.
REQUEST = b"GET / HTTP/1.0\r\n\r\n"
MOST_SECONDS = 2.0
DOUBTFUL = ("silent", "closed", "garbage", "tls")
PROTOCOLS = {"postgresql": "PostgreSQL", "redis": "Redis"}

_BEGINNINGS = {
    "HTTP": (b"HTTP/", b"<!DOCTYPE", b"<html"),
    "Redis": (b"-ERR", b"-NOAUTH", b"-DENIED", b"-LOADING", b"-NOPERM"),
    "SSH": (b"SSH-",),
    "TLS": (b"\x15\x03", b"\x16\x03"),
    "SMTP or FTP": (b"220",),
}


def name_of(answer: bytes) -> str:
    """Return which protocol an answer to ``REQUEST`` is in; empty when that isn't known."""
    for name, beginnings in _BEGINNINGS.items():
        if answer.startswith(beginnings):
            return name
    if len(answer) >= 9 and answer[3] == 4 and answer[4:9] == bytes(5):
        return "HTTP/2"
    if len(answer) > 5 and answer[3] == 0 and answer[4] in (9, 10, 255):
        return "MySQL"
    return ""


def explain(wanted: Wanted, trouble: IntegrationError, dial: Dialer) -> IntegrationError:
    """Return a failure of the first step with the name of what is there instead, if it has one."""
    if trouble.check != "reachable" or trouble.cause not in DOUBTFUL:
        return trouble
    protocol = PROTOCOLS.get(wanted.kind, "HTTP")
    there = identify(dial, wanted.port)
    if not there:
        return trouble
    if there == "TLS" and not wanted.tls:
        text = "the port speaks TLS, and tls is declared false"
        return IntegrationError("reachable", text, "Declare tls: true.", "wants_tls")
    if there == protocol and trouble.cause == "tls":
        text = f"the port answers {there} without TLS, and tls is declared true"
        return IntegrationError("reachable", text, "Declare tls: false, or set TLS up.", "no_tls")
    if there in (protocol, "TLS"):
        return trouble
    text = f"the port answers {there}, not {protocol}"
    usual = PORTS[wanted.kind]
    remedy = f"Correct host and port; {wanted.service} has port {usual} unless declared otherwise."
    return IntegrationError("reachable", text, remedy, "wrong_service")


def identify(dial: Dialer, port: int) -> str:
    """Ask the port in three protocols without credentials; empty when it stays unknown."""
    quick = Dialer(dial.host, min(dial.timeout, MOST_SECONDS))
    ways = (_by_request, _by_tls_request, _by_handshake)
    return next(filter(None, (_probe(quick, port, way) for way in ways)), "")


def _probe(dial: Dialer, port: int, ask: Callable[[Wire], str]) -> str:
    try:
        wire, _address, _took = dial.open(port, tls=False)
    except IntegrationError:
        return ""
    try:
        wire.step("reachable", "a sign of what it is")
        return ask(wire)
    except IntegrationError:
        return ""  # the failure that led here is the one to tell
    finally:
        wire.close()


def _by_request(wire: Wire) -> str:
    wire.send(REQUEST)
    answer = wire.some()
    if len(answer) < 9:  # a greeting may come in pieces, an alert may be all
        try:
            answer += wire.some()
        except IntegrationError:
            return name_of(answer)
    return name_of(answer)


def _by_handshake(wire: Wire) -> str:
    wire.start_tls(tls_context("", validate=False), "localhost")
    return "TLS"


def _by_tls_request(wire: Wire) -> str:
    wire.send(TLS_REQUEST)
    return "PostgreSQL" if wire.exactly(1) in (b"S", b"N") else ""
