# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A plain HTTP/1.1 exchange that hands on the bytes of a stream as they arrive.

The clients of Ansible read an answer as a whole or line by line behind a buffer. To measure when
a byte came, the connection has to be open before the clock starts, and each read has to return
what is there.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

READ_SIZE = 65536
CONNECT_TIMEOUT_S = 10.0


@dataclass
class Answer:
    """An HTTP answer whose body is still to come.

    Attributes:
        status: the HTTP status.
        chunks: the body, piece by piece as it arrives; raises TimeoutError at the deadline.
        close: ends the exchange, also in the middle of a body.
    """

    status: int
    chunks: Iterator[bytes] = field(default_factory=lambda: iter(()))
    close: Callable[[], None] = lambda: None


Send = Callable[[], Answer]
Prepare = Callable[[str, str, bytes, float], Send]


@dataclass(frozen=True)
class Endpoint:
    """Where an inference server listens."""

    scheme: str
    host: str
    port: int
    path: str


def parse_url(url: str) -> Endpoint:
    """Split a base URL, refusing what cannot be one."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        raise HostError(
            f"url is {url!r}, wanted http://host:port or https://host:port.",
            "Give the base URL of the inference server.",
        )
    default = 443 if parts.scheme == "https" else 80
    return Endpoint(parts.scheme, parts.hostname, port or default, parts.path.rstrip("/"))


def http_prepare(
    url: str,
    *,
    ca_path: str | None = None,
    validate_certs: bool = True,
    headers: Mapping[str, str] | None = None,
) -> Prepare:
    """Return the real transport for a base URL; ``headers`` go with every request.

    The returned function ``(method, path, body, timeout_s)`` opens the connection; what it
    returns sends the request. The time between the two is not part of a measurement.
    """
    endpoint = parse_url(url)

    def prepare(method: str, path: str, body: bytes, timeout_s: float) -> Send:
        connection = _connect(endpoint, min(timeout_s, CONNECT_TIMEOUT_S), ca_path, validate_certs)
        sent = {**({"Content-Type": "application/json"} if body else {}), **(headers or {})}

        wire = connection.sock

        def send() -> Answer:
            deadline = time.monotonic() + timeout_s
            try:
                _limit(wire, deadline)
                connection.request(method, endpoint.path + path, body=body or None, headers=sent)
                response = connection.getresponse()
            except BaseException:
                connection.close()
                raise
            chunks = _chunks(connection, wire, response, deadline)
            return Answer(response.status, chunks, connection.close)

        return send

    return prepare


def fetch_json(prepare: Prepare, path: str, timeout_s: float) -> Any:
    """Return what a GET answers as JSON.

    Raises:
        HostError: no connection, a status other than 200, or no JSON.
    """
    try:
        answer = prepare("GET", path, b"", timeout_s)()
        with_body = b"".join(answer.chunks)
        answer.close()
        if answer.status != 200:
            raise HostError(f"GET {path} answered status {answer.status}, wanted 200.")
        return json.loads(with_body)
    except (OSError, http.client.HTTPException) as error:
        raise HostError(f"GET {path} failed: {error or type(error).__name__}.") from error
    except ValueError as error:
        raise HostError(f"GET {path} answered something that is not JSON: {error}.") from error


def _connect(
    endpoint: Endpoint, timeout_s: float, ca_path: str | None, validate_certs: bool
) -> http.client.HTTPConnection:
    connection: http.client.HTTPConnection
    if endpoint.scheme == "https":
        context = ssl.create_default_context(cafile=ca_path)
        if not validate_certs:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            endpoint.host, endpoint.port, timeout=timeout_s, context=context
        )
    else:
        connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=timeout_s)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _limit(wire: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise socket.timeout("timed out")
    if wire.fileno() != -1:
        wire.settimeout(left)


def _chunks(
    connection: http.client.HTTPConnection,
    wire: socket.socket,
    response: http.client.HTTPResponse,
    deadline: float,
) -> Iterator[bytes]:
    try:
        while True:
            _limit(wire, deadline)
            piece = response.read1(READ_SIZE)
            if not piece:
                break
            yield piece
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
    finally:
        connection.close()
