# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The HTTP function that clients are given, and the one made from Ansible's own."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import socket
import urllib.error
from collections.abc import Iterator, Mapping
from typing import Any, Callable, Protocol

from ansible.module_utils import urls


class Body(Protocol):
    """What is left to read of an answer."""

    def read(self) -> bytes:
        """Return all of it."""

    def __iter__(self) -> Iterator[bytes]:
        """Return its lines as they come."""

    def close(self) -> None:
        """Hang up."""


class Answer:
    """An HTTP answer of whatever status.

    Args:
        status: the HTTP status.
        body: what can be read; bytes are taken as the whole body.
        headers: the headers with lower-case names.
    """

    def __init__(
        self, status: int, body: Body | bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.headers = dict(headers or {})
        self._body: Any = io.BytesIO(body) if isinstance(body, bytes) else body

    def read(self) -> bytes:
        """Return the body.

        Raises:
            OSError: the connection broke.
        """
        try:
            return self._body.read()
        except http.client.HTTPException as error:
            raise OSError(f"the connection broke ({error!r})") from error

    def lines(self) -> Iterator[bytes]:
        """Return the lines of the body as they come.

        Raises:
            OSError: the connection broke, or nothing came within the timeout.
        """
        try:
            yield from self._body
        except http.client.HTTPException as error:
            raise OSError(f"the connection broke ({error!r})") from error

    def close(self) -> None:
        """Hang up; the other side takes it as a wish to stop."""
        self._body.close()

    def abort(self) -> None:
        """End the connection while another thread reads from it, which then sees its end.

        Closing would wait for that thread. The thread that reads has still to close.
        """
        with contextlib.suppress(OSError, ValueError, AttributeError):  # no connection any more
            connection = socket.socket(fileno=os.dup(self._body.fileno()))
            with connection:
                connection.shutdown(socket.SHUT_RDWR)


# method, url, body, headers, timeout in seconds; raises OSError when there is no answer
Http = Callable[[str, str, "bytes | None", Mapping[str, str], float], Answer]


def ansible_http(*, use_proxy: bool = True, ca_path: str | None = None) -> Http:
    """Return an HTTP function over Ansible's own client."""

    def send(
        method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> Answer:
        try:
            answer = urls.open_url(
                url,
                method=method,
                data=body,
                headers=dict(headers),
                timeout=timeout,
                use_proxy=use_proxy,
                use_netrc=False,
                ca_path=ca_path,
                http_agent="hx_infra.llm",
            )
        except urllib.error.HTTPError as error:
            # The error itself, not its file: it closes that when nobody holds it any more.
            return Answer(error.code, error if error.fp else b"", _headers(error.headers))
        except urllib.error.URLError as error:
            raise OSError(str(error.reason)) from error
        except (http.client.HTTPException, urls.ConnectionError, ValueError) as error:
            # ValueError: what was given as address is none
            raise OSError(str(error) or repr(error)) from error
        return Answer(answer.status, answer, _headers(answer.headers))

    return send


def _headers(headers: Any) -> dict[str, str]:
    return {key.lower(): value for key, value in (headers or {}).items()}
