# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""GET over Ansible's HTTP client, with redirects followed by hand.

A model hub answers a request for a large file with a redirect to another host. The token that the
hub is given must not go there, so every hop is made here, and the token goes along only as long as
scheme, host and port are those it was meant for.
"""

from __future__ import annotations

import contextlib
import http.client
import urllib.error
from collections.abc import Mapping
from typing import Any, Callable
from urllib.parse import urljoin, urlsplit

from ansible.module_utils import urls

REDIRECTS = (301, 302, 303, 307, 308)
MAX_HOPS = 8
_PORTS = {"http": 80, "https": 443}


class Reply:
    """The answer to a GET, its body still to be read.

    Args:
        status: the HTTP status.
        url: where it came from, after redirects; it may hold a signature, so it is for no message.
        headers: headers with lower-case names.
        commit: what the hub says the file's commit is, at whatever hop.
        body: what can be read.
    """

    def __init__(
        self, status: int, url: str, headers: Mapping[str, str], commit: str, body: Any
    ) -> None:
        self.status = status
        self.url = url
        self.headers = dict(headers)
        self.commit = commit
        self._body = body

    @property
    def host(self) -> str:
        """The host that answered, with its port where it isn't the usual one."""
        return host_of(self.url)

    def read(self, size: int = -1) -> bytes:
        """Return bytes of the body as they come, at most so many; nothing at its end.

        Raises:
            OSError: the connection broke, or nothing came within the timeout.
        """
        try:
            if size < 0:
                return bytes(self._body.read())
            read1 = getattr(self._body, "read1", None) or self._body.read
            return bytes(read1(size))
        except http.client.HTTPException as error:
            raise OSError(f"the connection broke ({error!r})") from error

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._body.close()


# url, headers, token, timeout in seconds; raises OSError when there is no answer
Get = Callable[[str, Mapping[str, str], str, float], Reply]


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(scheme, 0)


def host_of(url: str) -> str:
    """Return host, and port where it isn't the usual one."""
    scheme, host, port = origin(url)
    return host if port == _PORTS.get(scheme) else f"{host}:{port}"


def hub_http(*, use_proxy: bool = True) -> Get:
    """Return the GET function."""

    def get(url: str, headers: Mapping[str, str], token: str, timeout: float) -> Reply:
        return follow(url, headers, token, lambda at, sent: _once(at, sent, timeout, use_proxy))

    return get


def follow(
    url: str,
    headers: Mapping[str, str],
    token: str,
    once: Callable[[str, Mapping[str, str]], Reply],
) -> Reply:
    """Make a request and what its redirects lead to; the token stays with its origin.

    Raises:
        OSError: there is no answer, or the redirects lead nowhere, or to an insecure place.
    """
    home, at, commit = origin(url), url, ""
    for _hop in range(MAX_HOPS):
        sent = {"Accept-Encoding": "identity", **headers}
        if token and origin(at) == home:
            sent["Authorization"] = f"Bearer {token}"
        reply = once(at, sent)
        commit = commit or reply.headers.get("x-repo-commit", "")
        if reply.status not in REDIRECTS:
            reply.commit = commit
            return reply
        reply.close()
        target = urljoin(at, reply.headers.get("location", ""))
        if origin(target)[0] not in _PORTS:
            raise OSError(f"{host_of(at)} redirects to no web address")
        if origin(at)[0] == "https" and origin(target)[0] != "https":
            raise OSError(f"{host_of(at)} redirects to {host_of(target)} over plain HTTP")
        at = target
    raise OSError(f"more than {MAX_HOPS} redirects")


def _once(url: str, headers: Mapping[str, str], timeout: float, use_proxy: bool) -> Reply:
    try:
        answer = urls.open_url(
            url,
            method="GET",
            headers=dict(headers),
            timeout=timeout,
            use_proxy=use_proxy,
            use_netrc=False,
            follow_redirects="none",
            http_agent="hx_infra.llm",
        )
    except urllib.error.HTTPError as error:
        return Reply(error.code, url, _lower(error.headers), "", error)
    except urllib.error.URLError as error:
        raise OSError(str(error.reason)) from error
    except (http.client.HTTPException, urls.ConnectionError, ValueError) as error:
        raise OSError(str(error) or repr(error)) from error
    return Reply(answer.status, url, _lower(answer.headers), "", answer)


def _lower(headers: Any) -> dict[str, str]:
    return {key.lower(): value for key, value in (headers or {}).items()}
