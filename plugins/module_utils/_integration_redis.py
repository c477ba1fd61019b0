# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Checking a Redis server in its own protocol, RESP."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._integration_model import (
    Found,
    IntegrationError,
    Wanted,
    printable,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_wire import Dialer, Wire

MOST_ELEMENTS = 1024
MOST_DEPTH = 4
MOST_LENGTH = 1024 * 1024

# What an error's first word means: check, cause, what to do.
_ERRORS = {
    "NOAUTH": ("authenticated", "password_missing", "Declare password or password_file."),
    "WRONGPASS": (
        "authenticated",
        "password",
        "Correct user or password in the declaration, or the server's ACL.",
    ),
    "NOPERM": ("authenticated", "permission", "Give the user +ping, +hello and +info in the ACL."),
    "DENIED": (
        "authenticated",
        "protected_mode",
        "Set a password and bind on the server, which accepts only its own host now.",
    ),
    "LOADING": ("ready", "not_ready", "Wait until it has read its data from disk."),
    "MASTERDOWN": ("ready", "not_ready", "See the replica's link to its master."),
    "MISCONF": ("ready", "not_ready", "See the server's log: it can't write its data to disk."),
    "BUSY": ("ready", "not_ready", "A script is running: see SCRIPT KILL."),
}


class RedisError(Exception):
    """An error that the server answered with."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.word = text.split(" ", 1)[0]


def check(wanted: Wanted, dial: Dialer, found: Found) -> None:
    """Log in, read the version and ask for an answer; what is learnt goes to ``found``."""
    wire, address, found.connect_ms = dial.open(wanted.port, tls=wanted.tls)
    try:
        wire.step("reachable", "Redis' answer to HELLO")
        try:
            greeting: Any = call(wire, "HELLO", "2")
        except RedisError as error:
            greeting = error
        if not isinstance(greeting, (list, RedisError)):
            raise _garbage(wire, str(greeting).encode())
        found.address, found.tls = address, wire.tls
        if isinstance(greeting, RedisError) and greeting.word == "DENIED":
            raise error_trouble(greeting, "authenticated")
        _log_in(wanted, wire, found, greeting)
        _read_info(wire, found)
        _ping(wire, found)
    finally:
        wire.close()


def _log_in(wanted: Wanted, wire: Wire, found: Found, greeting: Any) -> None:
    wire.step("authenticated", "Redis' answer to AUTH")
    asks = isinstance(greeting, RedisError) and greeting.word == "NOAUTH"
    if not wanted.password:
        if asks:
            text = "the server asks for a password, and none is declared"
            check_name, cause, remedy = _ERRORS["NOAUTH"]
            raise IntegrationError(check_name, text, remedy, cause)
        _refuse_unless_open(wire)
        found.authenticated = "without a password"
        return
    words = [wanted.user, wanted.password] if wanted.user else [wanted.password]
    try:
        call(wire, "AUTH", *words)
    except RedisError as error:
        if "without any password configured" in str(error) or "no password is set" in str(error):
            found.authenticated, found.unasked = "without a password", True
            return
        raise error_trouble(error, "authenticated") from error
    found.authenticated = f"AUTH as {wanted.user or 'default'}"
    found.unasked = not asks and isinstance(greeting, list)


def _refuse_unless_open(wire: Wire) -> None:
    # Servers before 6.0 know no HELLO, so only this tells whether they ask for a password.
    try:
        call(wire, "PING")
    except RedisError as error:
        if error.word == "NOAUTH":
            raise error_trouble(error, "authenticated") from error


def _read_info(wire: Wire, found: Found) -> None:
    wire.step("version", "Redis' answer to INFO")
    try:
        server = info_fields(call(wire, "INFO", "server"))
        replication = info_fields(call(wire, "INFO", "replication"))
    except RedisError as error:
        raise error_trouble(error, "version") from error
    found.version = server.get("redis_version", "")
    found.role = replication.get("role", "")
    if found.role == "slave":
        found.role = "replica"
        if replication.get("master_link_status") != "up":
            raise IntegrationError(
                "ready",
                "the server is a replica whose link to its master is"
                f" {replication.get('master_link_status', 'not known')}",
                "See the logs of both servers.",
                "not_ready",
            )


def _ping(wire: Wire, found: Found) -> None:
    wire.step("ready", "Redis' answer to PING")
    begin = time.monotonic()
    try:
        answer = call(wire, "PING")
    except RedisError as error:
        raise error_trouble(error, "ready") from error
    if answer != "PONG":
        text = f"PING was answered with {printable(str(answer))}, not PONG"
        raise IntegrationError("ready", text, "See the server's log.")
    found.answer_ms = round((time.monotonic() - begin) * 1000, 2)
    found.ready = "PING answers"


def call(wire: Wire, *words: str) -> Any:
    """Send a command and return its answer.

    Raises:
        RedisError: the server answered with an error.
    """
    wire.send(request(*words))
    return read(wire)


def request(*words: str) -> bytes:
    """Return a command as it goes over the wire."""
    parts = [word.encode() for word in words]
    bulk = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
    return b"*%d\r\n%s" % (len(parts), bulk)


def read(wire: Wire, depth: int = 0) -> Any:
    """Return the next answer: text, number, list or ``None``."""
    line = wire.line()
    kind, rest = line[:1], line[1:].decode("utf-8", "replace")
    if kind == b"+":
        return rest
    if kind == b"-":
        raise RedisError(printable(rest))
    if kind in (b":", b"$", b"*"):
        try:
            number = int(rest)
        except ValueError:
            raise _garbage(wire, line) from None
        if kind == b":":
            return number
        if number == -1:
            return None
        if kind == b"$" and 0 <= number <= MOST_LENGTH:
            return wire.exactly(number + 2)[:-2].decode("utf-8", "replace")
        if kind == b"*" and 0 <= number <= MOST_ELEMENTS and depth < MOST_DEPTH:
            return [read(wire, depth + 1) for _index in range(number)]
    raise _garbage(wire, line)


def info_fields(text: Any) -> dict[str, str]:
    """Return the fields of an answer to INFO."""
    lines = [line for line in str(text).splitlines() if ":" in line and not line.startswith("#")]
    return {key: printable(value) for key, value in (line.split(":", 1) for line in lines)}


def error_trouble(error: RedisError, current: str) -> IntegrationError:
    """Return what an error of the server means; ``current`` is the step that met it."""
    text = str(error)
    if "invalid password" in text.lower():
        check_name, cause, remedy = _ERRORS["WRONGPASS"]
    else:
        fallback = (current, "server_error", "See the server's log.")
        check_name, cause, remedy = _ERRORS.get(error.word, fallback)
    meanings = {
        "password": "user or password is wrong",
        "password_missing": "the server asks for a password",
        "permission": "the user lacks permissions",
        "not_ready": "the server is not ready",
        "protected_mode": "the server is in protected mode",
    }
    said = f"{meanings[cause]}: {text}" if cause in meanings else text
    return IntegrationError(check_name, said, remedy, cause)


def _garbage(wire: Wire, line: bytes) -> IntegrationError:
    text = f"the answer is {printable(repr(line), 60)}, which is not Redis'"
    return IntegrationError(wire.check, text, "", "garbage")
