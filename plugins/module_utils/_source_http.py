# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Bytes of a peer or an archive over HTTP, taken up again where a connection broke.

Peers and archives stand in the same network: no proxy is asked. What answers with an error of its
own (5xx), or stops answering, is asked again; what says no is not.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._hub_http import Reply, follow

CHUNK = 1024 * 1024
LONGEST_WAIT_S = 30.0
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True)
class Retries:
    """How patiently a source is asked.

    Attributes:
        tries: how often in a row without a single new byte before giving up.
        stall_s: seconds without a byte after which a connection counts as broken.
        connect_s: seconds that a server has to take a connection.
        first_wait_s: the first pause; each further one is twice as long.
        sleep: waits.
    """

    tries: int = 7
    stall_s: float = 30.0
    connect_s: float = 10.0
    first_wait_s: float = 1.0
    sleep: Callable[[float], None] = time.sleep


class RefusedError(Exception):
    """A source answered, and asking again won't change its answer."""


class Client:
    """Asks one server.

    Args:
        token: goes to the origin that was asked, never to one that it redirects to.
        ca_path: a file of certificates to trust instead of the system's.
        retries: how patiently.
    """

    def __init__(self, token: str, ca_path: str | None, retries: Retries) -> None:
        self._token = token
        self._ca_path = ca_path
        self._retries = retries

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Reply:
        """Send one request.

        Raises:
            OSError: there is no answer.
        """
        try:
            return follow(url, headers or {}, self._token, self._once)
        except http.client.HTTPException as error:
            raise OSError(f"the connection broke ({error!r})") from error
        except ValueError as error:  # what was given as address is none
            raise OSError(str(error)) from error

    def body(self, url: str, limit: int) -> bytes:
        """Return a small file.

        Raises:
            RefusedError: the answer is no, or is longer than the limit.
            OSError: there is no answer, or none but an error of the server's own.
        """
        reply = self.get(url)
        try:
            _check(reply)
            content = bytearray()
            while len(content) <= limit:
                data = reply.read(CHUNK)
                if not data:
                    return bytes(content)
                content += data
            raise RefusedError(f"its answer is longer than {limit} bytes")
        finally:
            reply.close()

    def bytes_from(
        self,
        url: str,
        offset: int,
        size: int | None,
        on_trouble: Callable[[str], None] = lambda _problem: None,
    ) -> Iterator[bytes]:
        """Yield a file from an offset to its end, over as many connections as it takes.

        Args:
            url: the file.
            offset: where to begin.
            size: the file's length; None to believe the server.
            on_trouble: told why the server is asked once more, before a pause.

        Raises:
            HostError: the server refuses, or too many connections in a row brought nothing.
        """
        at, fruitless = offset, 0
        while size is None or at < size:
            before, problem = at, ""
            try:
                reply = self.get(url, {"Range": f"bytes={at}-"} if at else {})
                try:
                    size = _check_part(reply, at, size)
                    for data in _pieces(reply, 0 if reply.status == 206 else at):
                        at += len(data)
                        yield data
                finally:
                    reply.close()
                if size is None or at >= size:
                    return
                problem = "the connection was cut"
            except RefusedError as error:
                raise HostError(f"{url}: {error}.") from error
            except socket.timeout:  # a TimeoutError since Python 3.10
                problem = f"stalled: nothing came for {self._retries.stall_s:.0f} s"
            except OSError as error:
                problem = str(error) or repr(error)
            fruitless = 1 if at > before else fruitless + 1
            if fruitless >= self._retries.tries:
                total = "?" if size is None else size
                raise HostError(
                    f"{url}: {problem}, at {at} of {total} bytes, {fruitless} times in a row.",
                    "What has come is kept; the next run goes on from there.",
                )
            on_trouble(problem)
            self._retries.sleep(min(LONGEST_WAIT_S, self._retries.first_wait_s * 2**fruitless / 2))

    def _once(self, url: str, headers: Mapping[str, str]) -> Reply:
        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection = self._connection(parts)
        try:
            connection.connect()
            connection.sock.settimeout(self._retries.stall_s)
            sent = {"Connection": "close", "User-Agent": "hx_infra.llm", **headers}
            connection.request("GET", path, headers=sent)
            answer = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        found = {key.lower(): value for key, value in answer.getheaders()}
        return Reply(answer.status, url, found, "", answer)

    def _connection(self, parts: Any) -> http.client.HTTPConnection:
        host, port, timeout = parts.hostname or "", parts.port, self._retries.connect_s
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=self._ca_path or None)
            return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
        return http.client.HTTPConnection(host, port, timeout=timeout)


def _check(reply: Reply) -> None:
    """Tell a good answer from a no and from a server's own trouble."""
    if reply.status in (200, 206):
        return
    if reply.status == 401:
        raise RefusedError("it doesn't accept the token (401)")
    if reply.status == 404:
        raise RefusedError("it doesn't have it (404)")
    if reply.status < 500:
        raise RefusedError(f"it answers {reply.status}")
    raise OSError(f"it answers {reply.status}")


def _check_part(reply: Reply, at: int, size: int | None) -> int | None:
    """Make sure that the wanted bytes come, of a file of the wanted length; return its length."""
    _check(reply)
    text = reply.headers.get("content-length", "")
    if reply.status == 206:
        match = _RANGE.match(reply.headers.get("content-range", ""))
        if match is None or int(match.group(1)) != at:
            raise RefusedError(f"it doesn't give what was asked for, the bytes from {at} on")
        text = match.group(2)
    if not text.isdigit() or reply.headers.get("content-encoding"):
        return size
    if size is not None and int(text) != size:
        raise RefusedError(f"it offers {text} bytes, wanted {size}")
    return int(text)


def _pieces(reply: Reply, skip: int) -> Iterator[bytes]:
    """Yield a body as it comes; what a server that can't resume sends once more is dropped."""
    while True:
        data = reply.read(CHUNK)
        if not data:
            return
        if skip >= len(data):
            skip -= len(data)
            continue
        yield data[skip:] if skip else data
        skip = 0
