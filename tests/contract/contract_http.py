# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plain HTTP client for tests: status, headers and body as they are, no redirects."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlsplit


class Reply:
    """One whole answer."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    @property
    def error(self) -> str:
        """The `error` field of a JSON answer."""
        return str(self.json()["error"])

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def lines(self) -> list[dict[str, Any]]:
        """The body as JSON lines."""
        return [json.loads(line) for line in self.body.splitlines() if line.strip()]

    def events(self) -> list[Any]:
        """The data of a stream of server-sent events; `[DONE]` stays text."""
        found = []
        for line in self.text.splitlines():
            if line.startswith("data: "):
                data = line[len("data: ") :]
                found.append(data if data == "[DONE]" else json.loads(data))
        return found


def call(
    method: str,
    url: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    timeout: float = 120.0,
) -> Reply:
    """Send one request, with a dict or list as JSON, and read the whole answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, path or "/", body=data, headers=headers or {})
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read())
    finally:
        connection.close()


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Api:
    """One server."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def get(self, path: str, **headers: str) -> Reply:
        """GET a path."""
        return call("GET", self.url + path, headers=headers)

    def head(self, path: str) -> Reply:
        """HEAD a path."""
        return call("HEAD", self.url + path)

    def post(self, path: str, body: Any = None) -> Reply:
        """POST to a path."""
        return call("POST", self.url + path, body)

    def delete(self, path: str, body: Any = None) -> Reply:
        """DELETE a path."""
        return call("DELETE", self.url + path, body)

    def version(self) -> tuple[int, ...]:
        """Return the server's version as numbers."""
        text = str(self.get("/api/version").json()["version"])
        return tuple(int(n) for n in text.split("-", maxsplit=1)[0].split("."))

    def listed(self, name: str) -> dict[str, Any] | None:
        """Return a model's entry in the list of models."""
        found = self.get("/api/tags").json()["models"]
        return next((model for model in found if model["name"] == name), None)

    def running(self, name: str) -> dict[str, Any] | None:
        """Return a model's entry in the list of loaded models."""
        found = self.get("/api/ps").json()["models"]
        return next((model for model in found if model["name"] == name), None)
