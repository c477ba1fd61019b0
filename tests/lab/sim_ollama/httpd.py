# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP side: routing, bodies, JSON answers and streams, with the real server's manners."""

from __future__ import annotations

import ipaddress
import json
import select
import socket
import socketserver
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable
from urllib.parse import unquote

from sim_ollama import fields, log
from sim_ollama.app import App
from sim_ollama.errors import ApiError, ClientGoneError, TruncatedStreamError

Route = Callable[[App, "Request"], None]
LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
NDJSON = "application/x-ndjson"
JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"


class Request:
    """One request and the ways to answer it."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.method = handler.command
        self.path = unquote(handler.path.split("?", 1)[0])
        self.argument = ""
        self.status = 0
        self.started = time.monotonic()
        self._chunked = False
        self._left = _content_length(handler)

    def read(self, size: int = -1) -> bytes:
        """Read from the body; empty at its end."""
        if self._left is None:
            return self._read_chunk()
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._handler.rfile.read(wanted) if wanted else b""
        self._left -= len(data)
        return data

    def body(self) -> bytes:
        """Read the whole body."""
        parts = []
        while True:
            part = self.read()
            if not part:
                return b"".join(parts)
            parts.append(part)

    def json_body(self) -> dict[str, Any]:
        """Read the body as a JSON object: 400 with the real texts when it is none."""
        raw = self.body()
        if not raw.strip():
            raise ApiError(400, "missing request body")
        try:
            value = json.JSONDecoder().raw_decode(raw.decode("utf-8", "replace").lstrip())[0]
        except ValueError as exc:
            raise ApiError(400, _parser_text(raw, exc)) from None
        if not isinstance(value, dict):
            raise ApiError(400, "json: cannot unmarshal value into Go value of type api request")
        if self.path.startswith("/api/"):
            fields.check(value)
        return value

    def cancelled(self) -> bool:
        """Tell whether the client has closed its connection."""
        connection = self._handler.connection
        try:
            if not select.select([connection], [], [], 0)[0]:
                return False
            return connection.recv(1, socket.MSG_PEEK) == b""
        except (OSError, ValueError):
            return True

    def send(self, status: int, data: bytes = b"", content_type: str = "") -> None:
        """Answer with a whole body."""
        self.status = status
        handler = self._handler
        try:
            handler.send_response(status)
            if content_type:
                handler.send_header("Content-Type", content_type)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            if self.method != "HEAD":
                handler.wfile.write(data)
        except OSError:
            raise ClientGoneError from None

    def json(self, status: int, value: object, content_type: str = JSON) -> None:
        """Answer with JSON."""
        self.send(status, encode(value), content_type)

    def begin_stream(self, content_type: str) -> None:
        """Begin an answer of unknown length."""
        self.status = 200
        self._chunked = True
        handler = self._handler
        try:
            handler.send_response(200)
            handler.send_header("Content-Type", content_type)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
        except OSError:
            raise ClientGoneError from None

    def write(self, data: bytes) -> None:
        """Write one chunk of a stream at once."""
        try:
            self._handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self._handler.wfile.flush()
        except OSError:
            raise ClientGoneError from None

    def end_stream(self) -> None:
        """End a stream in order."""
        try:
            self._handler.wfile.write(b"0\r\n\r\n")
        except OSError:
            raise ClientGoneError from None

    def drop(self) -> None:
        """Close the connection in the middle of an answer."""
        self._handler.close_connection = True

    def finish(self) -> None:
        """Leave no unread body on a connection that stays open."""
        if self._left is None or self._left > 0:
            self._handler.close_connection = True

    @property
    def streaming(self) -> bool:
        """Whether a stream has begun."""
        return self._chunked

    def _read_chunk(self) -> bytes:
        line = self._handler.rfile.readline(1024).split(b";")[0].strip()
        size = int(line or b"0", 16)
        data = self._handler.rfile.read(size)
        self._handler.rfile.readline(16)
        if size == 0:
            self._left = 0
        return data


class Router:
    """Paths and methods to functions."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str], Route] = {}

    def add(self, methods: str, path: str, route: Route) -> None:
        """Add a route; a path that ends with `/:` takes one argument."""
        for method in methods.split():
            self._routes[(method, path)] = route

    def find(self, request: Request) -> Route:
        """Return the route: 404 or 405 as plain text when there is none."""
        path = request.path
        for pattern in (path, path.rsplit("/", 1)[0] + "/:", _v1_model(path)):
            found = self._routes.get((request.method, pattern))
            if found is not None:
                if pattern != path:
                    request.argument = path[len(pattern) - 1 :]
                return found
            if any(known == pattern for _method, known in self._routes):
                raise PlainError(405, "405 method not allowed")
        raise PlainError(404, "404 page not found")


class PlainError(Exception):
    """A plain-text answer of the router itself."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def handle_any(self) -> None:
        """Answer one request of any method."""
        request = Request(self)
        try:
            self._answer(request)
        except PlainError as exc:
            request.send(exc.status, exc.text.encode(), TEXT)
        except ClientGoneError:
            request.status = request.status or 499
            self.close_connection = True
        except TruncatedStreamError:
            self.close_connection = True
        request.finish()
        log.access(
            request.status,
            time.monotonic() - request.started,
            str(self.client_address[0]),
            request.method,
            request.path,
        )

    def __getattr__(self, name: str) -> Any:
        """Give every `do_<METHOD>` the same function."""
        if name.startswith("do_"):
            return self.handle_any
        raise AttributeError(name)

    def _answer(self, request: Request) -> None:
        app = self.server.app
        if self.server.loopback and not allowed_host(self.headers.get("Host", "")):
            request.send(403)
            return
        fault = app.settings.next_http_fault(request.path)
        if fault is not None:
            request.json(fault.status, {"error": fault.message})
            return
        route = self.server.router.find(request)
        try:
            route(app, request)
        except ApiError as exc:
            request.status = exc.status
            if request.streaming:
                raise
            request.json(exc.status, {"error": exc.message})

    def log_message(self, *_args: object) -> None:
        """Write nothing: the access log has its own format."""


class Server(ThreadingHTTPServer):
    """The listening socket; it listens before the application is ready."""

    daemon_threads = True
    request_queue_size = 256
    app: App
    router: Router

    def __init__(self, address: tuple[str, int]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.loopback = _is_loopback(address[0])
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Bind without asking name services for this machine's full name."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Write a failure of a handler to the log, not a traceback per broken connection."""
        text = traceback.format_exc()
        if "ConnectionResetError" not in text and "BrokenPipeError" not in text:
            log.error("sim", "handler failed", client=client_address, error=text)


class NdjsonStream:
    """A stream of JSON lines; how a first error is answered depends on the version."""

    def __init__(self, request: Request, real_status: bool, error_status: bool) -> None:
        self._request = request
        self._real_status = real_status
        self._error_status = error_status
        self._lock = threading.Lock()

    def send(self, value: object) -> None:
        """Send one line at once."""
        with self._lock:
            if not self._request.streaming:
                self._request.begin_stream(NDJSON)
            self._request.write(encode(value) + b"\n")

    def fail(self, status: int, message: str) -> None:
        """Send an error: inside the 200 stream, or as a real status where nothing was sent."""
        if self._real_status and not self._request.streaming:
            self._request.json(status, {"error": message})
            return
        line: dict[str, object] = {"error": message}
        if self._error_status:
            line["status"] = status
        self.send(line)
        self._request.end_stream()

    def end(self) -> None:
        """End the stream in order."""
        if not self._request.streaming:
            self._request.begin_stream(NDJSON)
        self._request.end_stream()


def encode(value: object) -> bytes:
    """Encode as Go does: compact, with <, > and & escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode()


def allowed_host(header: str) -> bool:
    """Tell whether a Host header is one of this machine's or of a private network."""
    host = header
    if header.startswith("["):
        host = header[1:].split("]", 1)[0]
    elif header.count(":") == 1:
        host = header.split(":", 1)[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.lower()
        own = socket.gethostname().lower()
        return name in ("", "localhost", own) or name.endswith(LOCAL_SUFFIXES)
    private = address.is_private and not address.is_reserved and not _documentation(address)
    return address.is_loopback or private or address.is_unspecified


def _documentation(address: Any) -> bool:
    blocks = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15")
    return address.version == 4 and any(address in ipaddress.ip_network(block) for block in blocks)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _content_length(handler: Handler) -> int | None:
    if "chunked" in handler.headers.get("Transfer-Encoding", "").lower():
        return None
    try:
        return int(handler.headers.get("Content-Length") or 0)
    except ValueError:
        return 0


def _v1_model(path: str) -> str:
    return "/v1/models/:" if path.startswith("/v1/models/") else ""


def _parser_text(raw: bytes, exc: ValueError) -> str:
    text = raw.decode("utf-8", "replace")
    position = getattr(exc, "pos", 0)
    if position >= len(text.strip()):
        return "unexpected EOF"
    char = text.lstrip()[position : position + 1]
    return f"invalid character '{char}' looking for beginning of value"
