# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Checking a PostgreSQL server in its own protocol, version 3."""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import struct
import time
from typing import NamedTuple

from ansible_collections.hx_infra.llm.plugins.module_utils._integration_model import (
    Found,
    IntegrationError,
    Wanted,
    printable,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_scram import (
    MECHANISM,
    Scram,
    ScramError,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_wire import Dialer, Wire

TLS_REQUEST = struct.pack("!II", 8, 80877103)
PROTOCOL = 196608  # 3.0
FIRST_TYPES = b"REvN"
MOST_LENGTH = 1024 * 1024

_TROUBLES = {
    "28P01": ("authenticated", "password"),
    "28000": ("authenticated", "refused_login"),
    "42501": ("authenticated", "permission"),
    "3D000": ("ready", "database"),
    "57P01": ("ready", "not_ready"),
    "57P03": ("ready", "not_ready"),
    "53300": ("ready", "not_ready"),
}
_REMEDIES = {
    "password": "Correct user or password in the declaration, or the password on the server.",
    "refused_login": "See pg_hba.conf on the server: it must let this host, user and database in.",
    "permission": "Grant the user CONNECT on the database.",
    "database": "Create the database, or correct its name in the declaration.",
    "not_ready": "See the server's log.",
}
_OTHER_METHODS = {2: "Kerberos V5", 7: "GSSAPI", 8: "GSSAPI", 9: "SSPI"}


class Message(NamedTuple):
    """One message of the server."""

    kind: bytes
    body: bytes


def check(wanted: Wanted, dial: Dialer, found: Found) -> None:
    """Log in, read the version and ask for an answer; what is learnt goes to ``found``."""
    wire, address, found.connect_ms = dial.open(wanted.port, tls=False)
    try:
        if wanted.tls:
            _start_tls(wanted, dial, wire)
        wire.step("reachable", "PostgreSQL's answer to the startup message")
        wire.send(startup(wanted.user, wanted.database or "postgres"))
        session = _Session(wanted, wire, found, address)
        session.log_in()
        session.settle()
        session.select_one()
        wire.send(b"X" + struct.pack("!I", 4))
    finally:
        wire.close()


class _Session:
    """The conversation after the startup message."""

    def __init__(self, wanted: Wanted, wire: Wire, found: Found, address: str) -> None:
        self.wanted = wanted
        self.wire = wire
        self.found = found
        self.address = address
        self.settings: dict[str, str] = {}
        self.scram: Scram | None = None
        self.proven = False

    def log_in(self) -> None:
        found, method = self.found, ""
        while True:
            message = self.next_message()
            if message.kind != b"R":
                continue
            number = struct.unpack("!I", message.body[:4])[0]
            if number == 0:
                break
            self.wire.step("authenticated", "PostgreSQL's answer to the login")
            method = self.answer(number, message.body[4:]) or method
        if self.scram is not None and not self.proven:
            raise _unproven("it let us in without proving that it knows the password")
        found.authenticated = f"{method} as {self.wanted.user}" if method else "without a password"
        found.unasked = bool(self.wanted.password) and not method

    def answer(self, number: int, body: bytes) -> str:
        """Answer one request of the login; returns the name of the method."""
        if number in _OTHER_METHODS or number not in (3, 5, 10, 11, 12):
            name = _OTHER_METHODS.get(number, f"method {number}")
            raise IntegrationError(
                "authenticated",
                f"the server asks for a login by {name}, which this check doesn't speak",
                "Let this host in by scram-sha-256 in pg_hba.conf.",
                "method",
            )
        if not self.wanted.password:
            raise IntegrationError(
                "authenticated",
                f"the server asks for the password of {self.wanted.user}, and none is declared",
                "Declare password or password_file.",
                "password_missing",
            )
        if number == 3:
            return self.clear_text()
        if number == 5:
            self.reply(md5_answer(self.wanted.user, self.wanted.password, body[:4]) + b"\0")
            return "md5"
        return self.salted(number, body)

    def clear_text(self) -> str:
        if not (self.wanted.tls or _is_loopback(self.address)):
            raise IntegrationError(
                "authenticated",
                "the server asks for the password in clear text on a connection without TLS;"
                " it was not sent",
                "Set scram-sha-256 in pg_hba.conf, or tls: true.",
                "clear_text",
            )
        self.reply(self.wanted.password.encode() + b"\0")
        return "clear text"

    def salted(self, number: int, body: bytes) -> str:
        if number == 10:
            offered = [name.decode("ascii", "replace") for name in body.split(b"\0") if name]
            if MECHANISM not in offered:
                raise IntegrationError(
                    "authenticated",
                    f"the server offers {', '.join(offered) or 'no mechanism'}, not {MECHANISM}",
                    "Let this host in by scram-sha-256 in pg_hba.conf.",
                    "method",
                )
            self.scram = Scram(self.wanted.password, secrets.token_urlsafe(18))
            first = self.scram.first()
            self.reply(MECHANISM.encode() + b"\0" + struct.pack("!I", len(first)) + first)
            return MECHANISM
        if self.scram is None:
            raise _unproven("it goes on with a login that was not begun")
        try:
            if number == 11:
                self.reply(self.scram.final(body))
            else:
                self.scram.verify(body)
                self.proven = True
        except ScramError as error:
            raise _unproven(str(error)) from error
        return MECHANISM

    def reply(self, body: bytes) -> None:
        self.wire.send(b"p" + struct.pack("!I", len(body) + 4) + body)

    def settle(self) -> None:
        """Read the server's settings until it waits for a query."""
        self.wire.step("ready", "PostgreSQL to be ready for a query")
        while self.next_message().kind != b"Z":
            self.found.version = self.settings.get("server_version", "")
        standby = self.settings.get("in_hot_standby")
        self.found.role = {"on": "standby", "off": "primary"}.get(standby or "", "")

    def select_one(self) -> None:
        self.wire.step("ready", "the answer to SELECT 1")
        begin = time.monotonic()
        query = b"SELECT 1\0"
        self.wire.send(b"Q" + struct.pack("!I", len(query) + 4) + query)
        rows = []
        message = self.next_message()
        while message.kind != b"Z":
            if message.kind == b"D":
                rows.append(message.body)
            message = self.next_message()
        if rows != [struct.pack("!HI", 1, 1) + b"1"]:
            raise IntegrationError(
                "ready", "SELECT 1 was not answered with 1", "See the server's log."
            )
        self.found.answer_ms = round((time.monotonic() - begin) * 1000, 2)
        self.found.ready = "SELECT 1 answers"

    def next_message(self) -> Message:
        """Return the next message; settings are kept, errors raised."""
        kind = self.wire.exactly(1)
        if not self.found.address and kind not in FIRST_TYPES:
            text = f"the answer begins with {printable(repr(kind))}, which is not PostgreSQL's"
            raise IntegrationError("reachable", text, "", "garbage")
        length = struct.unpack("!I", self.wire.exactly(4))[0]
        if not 4 <= length <= MOST_LENGTH:
            text = f"a message of {length} bytes came, which is not PostgreSQL's"
            raise IntegrationError(self.wire.check, text, "", "garbage")
        body = self.wire.exactly(length - 4)
        self.found.address, self.found.tls = self.address, self.wire.tls
        if kind == b"E":
            raise error_trouble(body, self.wire.check, self.wanted)
        if kind == b"S":
            name, _end, value = body.partition(b"\0")
            self.settings[name.decode("utf-8", "replace")] = printable(value.rstrip(b"\0"))
        return Message(kind, body)


def startup(user: str, database: str) -> bytes:
    """Return the message that opens a session."""
    pairs = {
        "user": user,
        "database": database,
        "application_name": "hx_infra.llm integration_check",
        "client_encoding": "UTF8",
    }
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in pairs.items()) + b"\0"
    return struct.pack("!II", len(body) + 8, PROTOCOL) + body


def md5_answer(user: str, password: str, salt: bytes) -> bytes:
    """Return the answer to a login by MD5, which servers set up long ago still ask for."""

    def digest(data: bytes) -> str:
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    inner = digest(f"{password}{user}".encode())
    return f"md5{digest(inner.encode() + salt)}".encode()


def error_fields(body: bytes) -> dict[str, str]:
    """Return the fields of an error, by their letters."""
    parts = [part.decode("utf-8", "replace") for part in body.split(b"\0") if part]
    return {part[0]: part[1:] for part in parts}


def error_trouble(body: bytes, current: str, wanted: Wanted) -> IntegrationError:
    """Return what an error of the server means; ``current`` is the step that met it."""
    fields = error_fields(body)
    code = fields.get("C", "")
    text = printable(fields.get("M", "an error without a text"))
    fallback = "authenticated" if current == "reachable" else current
    check_name, cause = _TROUBLES.get(code, (fallback, "server_error"))
    if cause == "database":
        text = f"the database {wanted.database or 'postgres'} is missing: {text}"
    elif cause == "password":
        text = f"user or password is wrong: {text}"
    elif cause == "not_ready":
        text = f"the server is not ready: {text}"
    remedy = _REMEDIES.get(cause, "See the server's log.")
    return IntegrationError(
        check_name, f"{text} (SQLSTATE {code})" if code else text, remedy, cause
    )


def _start_tls(wanted: Wanted, dial: Dialer, wire: Wire) -> None:
    wire.step("reachable", "PostgreSQL's answer to the request for TLS")
    wire.send(TLS_REQUEST)
    answer = wire.exactly(1)
    if answer == b"N":
        raise IntegrationError(
            "reachable",
            "the server has no TLS, and tls is declared true",
            "Set ssl = on in postgresql.conf, or tls: false.",
            "no_tls",
        )
    if answer != b"S" or dial.context is None:
        text = f"the answer begins with {printable(repr(answer))}, which is not PostgreSQL's"
        raise IntegrationError("reachable", text, "", "garbage")
    wire.step("reachable", "the TLS handshake")
    wire.start_tls(dial.context, wanted.host)


def _unproven(text: str) -> IntegrationError:
    return IntegrationError(
        "authenticated",
        f"the server didn't prove that it is the right one: {text}",
        "Make sure that no other program took the server's place.",
        "server_proof",
    )


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
