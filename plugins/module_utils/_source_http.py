# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Bytes of a peer or an archive over HTTP, taken up again where a connection broke.

Peers and archives stand in the same network: no proxy is asked. What answers with an error of its
own (5xx), or stops answering, is asked again; what says no is not. One that is full says when to
ask again, and is waited for.
"""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Callable, Iterator, Mapping

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._hub_http import Reply, follow
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import Watch
from ansible_collections.hx_infra.llm.plugins.module_utils._source_connection import Pace, get
from ansible_collections.hx_infra.llm.plugins.module_utils._source_retries import (
    BusyError,
    Patience,
    Retries,
)

__all__ = ["CHUNK", "BusyError", "Client", "Patience", "RefusedError", "Retries"]

CHUNK = 1024 * 1024
TRANSFERS = "hx-transfers"  # what _store_server says with a 503
_RANGE = re.compile(r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)")
_NOTHING_AFTER = re.compile(r"bytes \*/(\d{1,18})")
_LENGTH = re.compile(r"[0-9]{1,18}")
_SECONDS = re.compile(r"[0-9]{1,9}")
_TAKEN = re.compile(r"[0-9]{1,6} of [0-9]{1,6}")


class RefusedError(Exception):
    """A source answered, and asking again won't change its answer."""


class Client:
    """Asks one server.

    Args:
        token: goes to the origin that was asked, never to one that it redirects to.
        ca_path: a file of certificates to trust instead of the system's.
        retries: how patiently.
        watch: when to give up altogether.
    """

    def __init__(
        self, token: str, ca_path: str | None, retries: Retries, watch: Watch | None = None
    ) -> None:
        self._token = token
        self._ca_path = ca_path
        self._retries = retries
        self._watch = watch or Watch()
        self._pace = Pace(self._watch, retries.connect_s, retries.stall_s)

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Reply:
        """Send one request.

        Raises:
            HostError: it is time to give up.
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
            HostError: it is time to give up.
            RefusedError: the answer is no, or is longer than the limit.
            BusyError: the server is full.
            OSError: there is no answer, or none but an error of the server's own, or not the whole
                of one in time.
        """
        within_s, clock = self._watch.stall_s, self._watch.clock
        until = clock() + within_s
        reply = self.get(url)
        try:
            _check(reply)
            content = bytearray()
            while len(content) <= limit:
                data = reply.read(CHUNK)
                if not data:
                    return bytes(content)
                content += data
                if clock() >= until:
                    raise OSError(f"no more than {len(content)} bytes came within {within_s:g} s")
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
            HostError: the server refuses, or too many connections in a row brought nothing, or it
                stays full, or it is time to give up.
        """
        at, patience = offset, Patience(self._retries, self._watch.stall_s)
        while size is None or at < size:
            before = at
            trouble: OSError
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
                trouble = OSError("the connection was cut")
            except RefusedError as error:
                raise HostError(f"{url}: {error}.") from error
            except OSError as error:
                trouble = error
            problem = self._said(trouble)
            pause_s = patience.pause_s(trouble, came=at > before)
            if pause_s is None:
                total = "?" if size is None else size
                raise HostError(
                    f"{url}: {problem}, at {at} of {total} bytes, {patience.spent}.",
                    "What has come is kept; the next run goes on from there.",
                )
            on_trouble(problem)
            self._retries.sleep(pause_s)

    def _once(self, url: str, headers: Mapping[str, str]) -> Reply:
        return get(url, headers, self._ca_path, self._pace)

    def _said(self, trouble: OSError) -> str:
        if isinstance(trouble, socket.timeout):  # a TimeoutError since Python 3.10
            return f"stalled: nothing came for {self._retries.stall_s:.0f} s"
        return str(trouble) or repr(trouble)


def _check(reply: Reply) -> None:
    """Tell a good answer from a no, from a server that is full, and from its own trouble."""
    if reply.status in (200, 206):
        return
    if reply.status == 401:
        raise RefusedError("it doesn't accept the token (401)")
    if reply.status == 404:
        raise RefusedError("it doesn't have it (404)")
    if reply.status < 500:
        raise RefusedError(f"it answers {reply.status}")
    again = reply.headers.get("retry-after", "")
    if reply.status == 503 and _SECONDS.fullmatch(again):
        taken = reply.headers.get(TRANSFERS, "")
        full = f"it is full, {taken} transfers are taken (503)"
        raise BusyError(full if _TAKEN.fullmatch(taken) else "it is busy (503)", int(again))
    raise OSError(f"it answers {reply.status}")


def _check_part(reply: Reply, at: int, size: int | None) -> int | None:
    """Make sure that the wanted bytes come, of a file of the wanted length; return its length."""
    end = _NOTHING_AFTER.fullmatch(reply.headers.get("content-range", ""))
    if reply.status == 416 and end:
        wanted = f"some from {at} on" if size is None else str(size)
        raise RefusedError(f"it offers {end.group(1)} bytes, wanted {wanted}")
    _check(reply)
    text = reply.headers.get("content-length", "")
    if reply.status == 206:
        match = _RANGE.match(reply.headers.get("content-range", ""))
        if match is None or int(match.group(1)) != at:
            raise RefusedError(f"it doesn't give what was asked for, the bytes from {at} on")
        text = match.group(2)
    if not _LENGTH.fullmatch(text) or reply.headers.get("content-encoding"):
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
