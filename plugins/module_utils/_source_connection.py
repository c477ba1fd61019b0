# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""One GET over a connection of its own, on which nothing is waited for longer than one may.

``http.client`` waits for one byte at a time, and a server that sends one now and then is waited
for without end. So its reads go through here, where a deadline or a wish to stop is noticed within
a moment, whatever the server does.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.hx_infra.llm.plugins.module_utils._hub_http import Reply, host_of
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import Watch


@dataclass(frozen=True)
class Pace:
    """How long one waits for a server.

    Attributes:
        watch: when to give up altogether.
        connect_s: seconds that it has to take a connection.
        stall_s: seconds without a byte after which the connection counts as broken; all that comes
            before an answer's content has to be there within them.
    """

    watch: Watch
    connect_s: float
    stall_s: float


def get(url: str, headers: Mapping[str, str], ca_path: str | None, pace: Pace) -> Reply:
    """Send one request; no redirect is followed.

    Args:
        url: an http or https address.
        headers: headers to send.
        ca_path: a file of certificates to trust instead of the system's.
        pace: how long to wait, also for what is read of the reply.

    Raises:
        OSError: there is no answer.
        HostError: it is time to give up.
        HTTPException: what answers doesn't speak HTTP.
        ValueError: the address is none.
    """
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = _connection(parts, ca_path, pace.watch.seconds(pace.connect_s))
    connection.response_class = partial(_Answer, pace, f"reading from {host_of(url)}")
    try:
        connection.connect()
        connection.sock.settimeout(pace.stall_s)
        sent = {"Connection": "close", "User-Agent": "hx_infra.llm", **headers}
        connection.request("GET", path, headers=sent)
        connection.sock.settimeout(pace.watch.tick_s)
        answer = connection.getresponse()
    except BaseException:
        connection.close()
        raise
    found = {key.lower(): value for key, value in answer.getheaders()}
    return Reply(answer.status, url, found, "", answer)


class Watched(io.RawIOBase):
    """What comes over a connection whose timeout is one tick.

    Args:
        connection: where it comes from.
        hold: is closed with this.
        pace: how long to wait.
        what: the work, for messages.
    """

    def __init__(self, connection: Any, hold: Any, pace: Pace, what: str) -> None:
        self._connection = connection
        self._hold = hold
        self._pace = pace
        self._what = what
        self._head_until: float | None = pace.watch.clock() + pace.stall_s

    def head_is_over(self) -> None:
        """Say that what comes from now on is content, which may take its time."""
        self._head_until = None

    def readable(self) -> bool:
        """Say that it is there to be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for some bytes.

        Raises:
            HostError: it is time to give up.
            OSError: the connection broke, or nothing came for too long.
        """
        watch, began = self._pace.watch, self._pace.watch.clock()
        while True:
            watch.check(self._what)
            if self._head_until is not None and watch.clock() >= self._head_until:
                raise OSError(f"its answer didn't begin within {self._pace.stall_s:g} s")
            try:
                return int(self._connection.recv_into(buffer))
            except socket.timeout:  # a TimeoutError since Python 3.10
                if watch.clock() - began >= self._pace.stall_s:
                    raise

    def close(self) -> None:
        """Hang up."""
        try:
            super().close()
        finally:
            self._hold.close()


class _Answer(http.client.HTTPResponse):
    """An answer that is read through ``Watched``."""

    def __init__(self, pace: Pace, what: str, connection: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(connection, *args, **kwargs)
        self._watched = Watched(connection, self.fp.detach(), pace, what)
        self.fp = io.BufferedReader(self._watched)

    def begin(self) -> None:
        """Read what comes before the content."""
        super().begin()
        self._watched.head_is_over()


def _connection(parts: Any, ca_path: str | None, timeout: float) -> http.client.HTTPConnection:
    host, port = parts.hostname or "", parts.port
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca_path or None)
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    return http.client.HTTPConnection(host, port, timeout=timeout)
