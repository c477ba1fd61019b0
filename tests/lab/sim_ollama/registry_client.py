# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client side of the registry protocol, with its redirects and its error texts."""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import Any
from urllib.parse import urljoin, urlsplit

from sim_ollama import names
from sim_ollama.settings import Settings
from sim_ollama.store import MANIFEST_TYPE

MAX_REDIRECTS = 10
TIMEOUT_SECONDS = 30.0


class RegistryError(Exception):
    """A failure with the text that the real server gives."""


def open_url(
    method: str, url: str, headers: dict[str, str], timeout: float = TIMEOUT_SECONDS
) -> Any:
    """Send one request without following redirects and return the response."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, path or "/", headers=headers)
        return connection.getresponse()
    except (OSError, http.client.HTTPException) as exc:
        connection.close()
        shown = method.capitalize()
        raise RegistryError(f'{shown} "{url}": {_network_text(exc, parts.netloc, host)}') from None


class Client:
    """One model's repository on its registry."""

    def __init__(self, name: names.Name, insecure: bool, settings: Settings) -> None:
        scheme = "http" if insecure else "https"
        resolved = (settings.section("pull").get("resolve") or {}).get(name.host)
        self.base = (resolved or f"{scheme}://{name.host}").rstrip("/")
        self._name = name

    def manifest(self) -> bytes:
        """Return the manifest's bytes."""
        url = self._url("manifests", self._name.tag)
        response = self._follow("GET", url, {"Accept": MANIFEST_TYPE})[0]
        return _body(response)

    def blob_size(self, digest: str) -> int:
        """Return Content-Length; its absence counts as zero."""
        response = self._follow("HEAD", self._url("blobs", digest), {})[0]
        response.close()
        return int(response.headers.get("Content-Length") or 0)

    def direct_url(self, digest: str) -> str:
        """Return where the bytes are: a 307 or 200 answer must carry a Location."""
        response, url = self._follow("GET", self._url("blobs", digest), {}, stop_at_other=True)
        response.close()
        if response.status not in (200, 307):
            raise RegistryError(f"unexpected status code {response.status}")
        location = response.headers.get("Location")
        if not location:
            raise RegistryError("http: no Location header in response")
        return urljoin(url, location)

    def _url(self, kind: str, reference: str) -> str:
        return f"{self.base}/v2/{self._name.namespace}/{self._name.model}/{kind}/{reference}"

    def _follow(
        self, method: str, url: str, headers: dict[str, str], stop_at_other: bool = False
    ) -> tuple[Any, str]:
        first_host = urlsplit(url).hostname
        for _count in range(MAX_REDIRECTS + 1):
            response = open_url(method, url, headers)
            location = response.headers.get("Location")
            if response.status in (301, 302, 303, 307, 308) and location:
                target = urljoin(url, location)
                if stop_at_other and urlsplit(target).hostname != first_host:
                    return response, url
                response.close()
                url = target
                continue
            if response.status == 404:
                raise RegistryError("file does not exist")
            if response.status >= 400:
                raise RegistryError(
                    f"{response.status}: {_body(response).decode('utf-8', 'replace')}"
                )
            return response, url
        raise RegistryError("maximum redirects exceeded (10) for directURL")


def _body(response: Any) -> bytes:
    try:
        return response.read()
    except (OSError, http.client.HTTPException):
        raise RegistryError("unexpected EOF") from None
    finally:
        response.close()


def _network_text(exc: Exception, netloc: str, host: str) -> str:
    if isinstance(exc, socket.gaierror):
        return f"dial tcp: lookup {host}: no such host"
    if isinstance(exc, ConnectionRefusedError):
        return f"dial tcp {netloc}: connect: connection refused"
    if isinstance(exc, http.client.RemoteDisconnected):
        return "EOF"
    if isinstance(exc, TimeoutError):
        return f"dial tcp {netloc}: i/o timeout"
    return str(exc) or type(exc).__name__
