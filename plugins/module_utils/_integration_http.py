# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Asking the services that speak HTTP, with a deadline for the whole of an answer."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._integration_model import (
    Found,
    IntegrationError,
    Wanted,
    printable,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_wire import Dialer, Wire

_WANTS_TLS = re.compile(r"HTTPS (server|port)|HTTP request was sent to HTTPS", re.IGNORECASE)
_LOCKED = (401, 403)


class Reply:
    """A whole answer."""

    def __init__(
        self, path: str, status: int, headers: Mapping[str, str], body: bytes, took_ms: float
    ) -> None:
        self.path = path
        self.status = status
        self.headers = {key.lower(): value for key, value in headers.items()}
        self.body = body
        self.took_ms = took_ms

    @property
    def locked(self) -> bool:
        """Whether the server wants other credentials."""
        return self.status in _LOCKED

    @property
    def said(self) -> str:
        """Request, status and the beginning of the body, for a message."""
        text = self.field("message") or self.field("error") or printable(self.body, 80)
        moved = self.headers.get("location", "")
        more = f", it leads to {printable(moved)}" if moved else f": {text}" if text else ""
        return f"GET {self.path}: status {self.status}{more}"

    def json(self) -> Any:
        """Return the body as data; ``None`` when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def field(self, *names: str) -> str:
        """Return a text from the body's nested mappings; empty when it isn't there."""
        value = self.json()
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return printable(value) if isinstance(value, str) else ""


class Client:
    """Asks one server.

    Args:
        wanted: the declaration.
        dial: opens its connections.
        found: gets address and times of the first answer.
        headers: the credentials.
    """

    def __init__(
        self, wanted: Wanted, dial: Dialer, found: Found, headers: Mapping[str, str]
    ) -> None:
        self.wanted = wanted
        self._dial = dial
        self._found = found
        self._headers = dict(headers)

    def get(self, path: str, check: str = "reachable", *, credentials: bool = True) -> Reply:
        """Return the answer to a GET; a failure on the way counts against this check."""
        path = self.wanted.path.rstrip("/") + path
        wire, address, connect_ms = self._dial.open(self.wanted.port, tls=self.wanted.tls)
        try:
            wire.step(check, f"the answer to GET {path}")
            begin = time.monotonic()
            headers = {"User-Agent": "hx_infra.llm", "Connection": "close"}
            reply = _ask(wire, self.wanted, path, {**headers, **self._given(credentials)}, begin)
        finally:
            wire.close()
        if not self._found.address:
            self._found.address, self._found.tls = address, wire.tls
            self._found.connect_ms = connect_ms
        if reply.status == 400 and _WANTS_TLS.search(printable(reply.body, 400)):
            self._found.address = ""
            raise IntegrationError(
                "reachable",
                "the port speaks TLS, and tls is declared false",
                "Declare tls: true.",
                "wants_tls",
            )
        return reply

    def not_this(self, reply: Reply) -> IntegrationError:
        """Return what to say of an HTTP server that is another one."""
        self._found.address = ""
        text = f"the port answers HTTP, but not like {self.wanted.service} ({reply.said})"
        remedy = f"Correct host, port or path; behind a proxy, path is {self.wanted.service}'s own."
        return IntegrationError("reachable", text, remedy, "wrong_service")

    def locked_out(self, reply: Reply, credentials: str) -> IntegrationError:
        """Return what to say of an answer 401 or 403; ``credentials`` says what was sent."""
        if self.wanted.password:
            text = f"the {credentials} is not accepted ({reply.said})"
            remedy = "Correct the credentials in the declaration, or grant them access."
            return IntegrationError("authenticated", text, remedy, "password")
        text = f"the server asks for credentials, and none are declared ({reply.said})"
        remedy = "Declare password or password_file."
        return IntegrationError("authenticated", text, remedy, "password_missing")

    def _given(self, credentials: bool) -> dict[str, str]:
        return self._headers if credentials else {}


def user_or_bearer(wanted: Wanted) -> tuple[dict[str, str], str]:
    """Return headers with the credentials and what they are: a login, or a token without user."""
    if not wanted.password:
        return {}, ""
    if not wanted.user:
        return {"Authorization": f"Bearer {wanted.password}"}, "token"
    pair = base64.b64encode(f"{wanted.user}:{wanted.password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}, f"login as {wanted.user}"


class _Answer(io.RawIOBase):
    """The bytes of a connection as a file, which keeps the step's deadline."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire
        self.anything = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._wire.some(len(buffer))
        except IntegrationError as trouble:
            # After the first byte the end of the connection is the end of the answer.
            if trouble.cause == "closed" and self.anything:
                return 0
            raise
        self.anything = True
        buffer[: len(data)] = data
        return len(data)


class _Socket:
    """What http.client needs of a socket."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.sendall: Callable[[bytes], None] = wire.send

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Answer(self._wire))

    def close(self) -> None:
        """Leave it to the owner of the connection."""


def _ask(wire: Wire, wanted: Wanted, path: str, headers: dict[str, str], begin: float) -> Reply:
    connection = http.client.HTTPConnection(wanted.host, wanted.port)
    connection.sock = _Socket(wire)  # type: ignore[assignment]
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
    except (ValueError, http.client.InvalidURL):
        # What http.client says of a header holds the header, so it isn't passed on.
        text = "the request can't be made: path, user or password hold signs that HTTP can't carry"
        remedy = "Correct them in the declaration."
        raise IntegrationError("reachable", text, remedy, "declaration") from None
    except http.client.HTTPException as error:
        text = f"the answer is not HTTP: {printable(str(error) or repr(error), 60)}"
        raise IntegrationError(wire.check, text, "See the service's log.", "garbage") from error
    took = round((time.monotonic() - begin) * 1000, 2)
    return Reply(path, answer.status, dict(answer.getheaders()), body, took)
