# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One HTTP exchange under a deadline that holds for all of it: name, connection, every byte.

A socket's own timeout begins anew with each byte, and looking up a name has none at all. So an
exchange runs in a thread that is left behind when its time is over.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable
from urllib.parse import urlsplit

MAX_BODY = 4 * 1024 * 1024
SNIPPET = 200
PIECE = 65536
# Statuses of a server, or of a proxy before it, that is there but not able to work at the moment.
AWAY_STATUSES = frozenset({502, 503, 504})


class ExchangeError(Exception):
    """No usable answer.

    Args:
        kind: ``refused``, ``closed``, ``timeout``, ``name``, ``tls``, ``network``, ``status``,
            ``answer`` or ``budget``.
        message: what was found, in words.
        status: the HTTP status, where there was one.
    """

    def __init__(self, kind: str, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status

    @property
    def away(self) -> bool:
        """Tell whether a server that is being restarted would look like this."""
        return self.kind in ("refused", "closed") or self.status in AWAY_STATUSES


@dataclass(frozen=True)
class Reply:
    """An HTTP answer as it came."""

    status: int
    body: bytes = b""

    @property
    def snippet(self) -> str:
        """Return the beginning of the body in one line, for messages."""
        text = self.body[: 4 * SNIPPET].decode("utf-8", "replace")
        return " ".join(text.split())[:SNIPPET]

    def object(self) -> dict[str, Any]:
        """Return the body as a JSON object.

        Raises:
            ExchangeError: it is none.
        """
        try:
            found = json.loads(self.body)
        except ValueError:
            raise ExchangeError("answer", f"the answer is not JSON: {self.snippet!r}") from None
        if not isinstance(found, dict):
            raise ExchangeError("answer", f"the answer is no JSON object: {self.snippet!r}")
        return found


@dataclass
class _Wire:
    """The socket of an exchange, so that it can be cut from outside."""

    sock: Any = field(default=None)

    def cut(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)


def exchange(
    method: str,
    url: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    timeout_s: float,
    ca_path: str = "",
    take: Callable[[bytes], bool] | None = None,
) -> Reply:
    """Send a request and return its whole answer; redirections are not followed.

    Args:
        method: GET or POST.
        url: whom to ask.
        body: what is sent; nothing when empty.
        headers: go with it.
        timeout_s: seconds for all of it.
        ca_path: certificates of the authorities to trust; the system's when empty.
        take: gets the body of an answer of status 200 piece by piece as it arrives, in a thread,
            and returns True to end the exchange; the reply has no body then.

    Raises:
        ExchangeError: there is no answer within ``timeout_s`` seconds, or none at all.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of a port or an address in brackets
        usable = False
    if not usable:
        raise ExchangeError("network", "the address is none of http:// or https://")
    wire = _Wire()
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def talk() -> Reply:
        connection = _connection(parts, timeout_s, ca_path)
        try:
            connection.connect()
            wire.sock = connection.sock
            connection.request(method, path, body=body or None, headers=dict(headers or {}))
            response = connection.getresponse()
            if take is not None and response.status == 200:
                _hand_on(response, take)
                return Reply(response.status)
            data = response.read(MAX_BODY + 1)
        finally:
            connection.close()
        if len(data) > MAX_BODY:
            raise ExchangeError("answer", f"the answer has over {MAX_BODY} bytes")
        return Reply(response.status, data)

    return within(timeout_s, talk, wire.cut)


def _hand_on(response: http.client.HTTPResponse, take: Callable[[bytes], bool]) -> None:
    while True:
        piece = response.read1(PIECE)
        if not piece or take(piece):
            return


def within(seconds: float, work: Callable[[], Any], cut: Callable[[], None] = lambda: None) -> Any:
    """Return what ``work`` returns; leave it behind when its time is over.

    Args:
        seconds: how long it may take.
        work: what is done in a thread of its own.
        cut: called when it is left behind, to free what it holds.

    Raises:
        ExchangeError: its time is over, or it failed.
    """
    box: queue.Queue[tuple[bool, Any]] = queue.Queue(maxsize=1)

    def run() -> None:
        try:
            box.put((True, work()))
        except Exception as error:  # whatever it is, the one who waits has to be told
            box.put((False, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        ok, found = box.get(timeout=max(seconds, 0.001))
    except queue.Empty:
        raise ExchangeError("timeout", f"no answer within {seconds:g} s") from None
    finally:
        cut()
    if ok:
        return found
    if isinstance(found, ExchangeError):
        raise found
    raise trouble_of(found) from found


def trouble_of(error: Exception) -> ExchangeError:
    """Say what an exception of the network means."""
    for kinds, kind, text in _MEANINGS:
        if isinstance(error, kinds):
            return ExchangeError(kind, text or _plain(error))
    return ExchangeError("answer", f"{type(error).__name__}: {error}")


def _plain(error: Exception) -> str:
    said = str(getattr(error, "strerror", None) or error)
    name = getattr(error, "filename", None)
    return f"{said}: {name}" if name else said


# In this order: most of them are OSErrors too.
_MEANINGS: tuple[tuple[tuple[type[Exception], ...], str, str], ...] = (
    ((ssl.SSLCertVerificationError,), "tls", "the server's certificate is not accepted"),
    ((ssl.SSLError,), "tls", "the server doesn't speak TLS as wanted"),
    ((socket.timeout, TimeoutError), "timeout", "the connection timed out"),
    ((socket.gaierror,), "name", "the server's name is not resolved"),
    ((ConnectionRefusedError,), "refused", "connection refused"),
    (
        (ConnectionError, http.client.IncompleteRead),
        "closed",
        "the connection was closed before the answer was complete",
    ),
    ((http.client.HTTPException,), "answer", "the server doesn't answer in HTTP"),
    ((OSError,), "network", ""),
)


def _connection(parts: Any, timeout_s: float, ca_path: str) -> http.client.HTTPConnection:
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca_path or None)
        return http.client.HTTPSConnection(
            parts.hostname, parts.port or 443, timeout=timeout_s, context=context
        )
    return http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout_s)
