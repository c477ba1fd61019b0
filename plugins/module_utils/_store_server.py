# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A program that gives some models of a store to other hosts, read only.

It needs nothing but Python's standard library, since its text is run by itself on the target:
``python3 -I store_server.py settings.json``. The settings are a JSON object:

``root``       the store.
``manifests``  paths of the manifests, relative to the store, of the models that are given away.
``address``, ``port``  where it listens; port 0 stands for a free one.
``token_file`` a file with the token that each request has to bring.
``ready_file`` written when it listens: a JSON object with ``port`` and ``pid``.
``allow``      networks that may ask; an empty list stands for all.
``connections`` how many transfers there are at once; further requests are told to come back.
``idle_s``     seconds after which one who takes no byte of a transfer is hung up on.
``head_s``     seconds within which a request has to be there as a whole.
``lifetime_s`` seconds after which it ends by itself.

``GET /v1/manifests/<host>/<namespace>/<model>/<tag>`` and ``GET /v1/blobs/sha256-<hex>``, the
latter with ``Range`` for those who resume. A blob is given when one of the manifests refers to it.
Whoever brings no token learns nothing but that.

A transfer takes one of the places for transfers. Who hasn't asked yet, and who is refused, takes
one of other places, each for a few seconds at most. Every refusal ends its connection.
"""

from __future__ import annotations

import contextlib
import hmac
import http.server
import io
import ipaddress
import json
import os
import re
import signal
import socket
import socketserver
import stat
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

BLOB = re.compile(r"sha256-([0-9a-f]{64})")
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
PREFIX = "/v1/"
MANIFEST_LIMIT = 4 * 1024 * 1024
HEAD_LIMIT = 16 * 1024  # bytes of a request
WAITING = 64  # connections besides those of the transfers
LINGER_S = 1.0  # for one who is refused to hang up
GRACE_S = 0.2  # for a transfer to end whose last byte has just gone
RETRY_AFTER_S = 2
TRANSFERS = "HX-Transfers"  # with a 503: how many there are, of how many
JSON, BYTES = "application/json", "application/octet-stream"


class Shelf:
    """The files that may be given away, opened below the store and never through a link.

    Args:
        root: the store.
        manifests: the paths of the manifests.
    """

    def __init__(self, root: str, manifests: list[str]) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        self._manifests = {path.lower(): path for path in manifests}
        self._blobs: set[str] = set()
        for path in manifests:
            self.manifest(path)

    def manifest(self, path: str) -> bytes:
        """Return a manifest as it is now; its blobs may be asked for from then on.

        Raises:
            FileNotFoundError: it is none of the given ones, or isn't there.
        """
        known = self._manifests.get(path.lower())
        if known is None:
            raise FileNotFoundError(path)
        with os.fdopen(self._open(known), "rb") as stream:
            content = stream.read(MANIFEST_LIMIT)
        with contextlib.suppress(ValueError, LookupError, AttributeError, TypeError):
            data = json.loads(content)
            entries = [*data["layers"], data.get("config") or {}]
            self._blobs |= {str(entry.get("digest", "")).replace(":", "-") for entry in entries}
        return content

    def blob(self, name: str) -> int:
        """Open a blob.

        Raises:
            FileNotFoundError: no manifest refers to it, or it isn't there.
        """
        if not BLOB.fullmatch(name) or name not in self._blobs:
            raise FileNotFoundError(name)
        return self._open(f"blobs/{name}")

    def _open(self, path: str) -> int:
        folder = os.dup(self._root)
        *parents, name = path.split("/")
        try:
            for parent in parents:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                inner = os.open(parent, flags, dir_fd=folder)
                os.close(folder)
                folder = inner
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(name, flags, dir_fd=folder)
        except OSError as error:
            raise FileNotFoundError(path) from error
        finally:
            os.close(folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileNotFoundError(path)
        return descriptor


class HeadError(Exception):
    """A request didn't come as it has to.

    Args:
        status: what to answer; 0 when nothing of a request came, so that there is nothing to.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"no request ({status})")
        self.status = status


class Head(io.RawIOBase):
    """What requests are read from: each has to be whole in time, and isn't long.

    Args:
        connection: where they come from.
        within_s: how long one may take altogether.
        clock: monotonic seconds.
    """

    def __init__(
        self, connection: Any, within_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._connection = connection
        self._within_s = within_s
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Expect a further request."""
        self._until = self._clock() + self._within_s
        self._room = HEAD_LIMIT

    def readable(self) -> bool:
        """Say that it is there to be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for some bytes.

        Raises:
            HeadError: the request takes too long, or is too long.
        """
        left, late = self._until - self._clock(), 408 if self._room < HEAD_LIMIT else 0
        if not self._room:
            raise HeadError(431)
        if left <= 0:
            raise HeadError(late)
        self._connection.settimeout(left)
        try:
            count = int(self._connection.recv_into(buffer, min(len(buffer), self._room)))
        except socket.timeout:  # a TimeoutError since Python 3.10
            raise HeadError(late) from None
        self._room -= count
        return count


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # who names none gets a status all the same
    server_version = "hx-store"
    sys_version = ""
    server: Server
    requestline = command = ""
    request_version = default_request_version
    _refused = False

    def setup(self) -> None:
        """Give up on whoever takes nothing, or doesn't get done with asking."""
        self.timeout = self.server.idle_s
        super().setup()
        self.rfile.close()
        self._asked = Head(self.connection, min(self.server.head_s, self.server.idle_s))
        self.rfile = io.BufferedReader(self._asked)

    def handle_one_request(self) -> None:
        """Read a request and answer it, or say what is wrong with it."""
        self._asked.begin()
        self.requestline = ""
        try:
            super().handle_one_request()
        except HeadError as error:
            self.close_connection = True
            if error.status:
                self._refuse(error.status)

    def finish(self) -> None:
        """Let one who is refused read why: bytes that nobody reads would undo the answer."""
        super().finish()
        if not self._refused:
            return
        until = time.monotonic() + LINGER_S
        with contextlib.suppress(OSError):  # it has hung up, or doesn't
            self.connection.shutdown(socket.SHUT_WR)
            while time.monotonic() < until:
                self.connection.settimeout(LINGER_S)
                if not self.connection.recv(HEAD_LIMIT):
                    return

    def do_GET(self) -> None:
        """Give a file, or a part of it."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Say how long a file is."""
        self._answer(with_body=False)

    def send_error(self, code: int, message: Any = None, explain: Any = None) -> None:
        """Refuse what is no request, without a word about it."""
        self._refuse(code)

    def log_message(self, format: str, *args: Any) -> None:
        """Note who asked for what; nothing of a request but its first line, and that escaped."""
        text = (format % args).encode("unicode_escape").decode()[:300]
        sys.stderr.write(f"{self.client_address[0]} {text}\n")

    def _answer(self, *, with_body: bool) -> None:
        if not self._let_in():
            self._refuse(401, {"WWW-Authenticate": "Bearer"})
        elif not self.server.transfers.acquire(timeout=GRACE_S):
            limit = self.server.connections
            again = {"Retry-After": str(RETRY_AFTER_S), TRANSFERS: f"{limit} of {limit}"}
            self._refuse(503, again)
        else:
            try:
                self._file(with_body)
            finally:
                self.server.transfers.release()

    def _file(self, with_body: bool) -> None:
        path = self.path[len(PREFIX) :] if self.path.startswith(PREFIX) else ""
        try:
            if path.startswith("blobs/"):
                descriptor = self.server.shelf.blob(path[len("blobs/") :])
                with os.fdopen(descriptor, "rb") as stream:
                    self._give(stream, with_body)
                return
            content = self.server.shelf.manifest(path)
        except FileNotFoundError:
            self._refuse(404)
            return
        self._head(200, len(content), JSON)
        if with_body:
            self.wfile.write(content)

    def _let_in(self) -> bool:
        scheme, _space, token = self.headers.get("Authorization", "").partition(" ")
        given = token.strip().encode("utf-8", "surrogateescape")
        return hmac.compare_digest(given, self.server.token) and scheme.lower() == "bearer"

    def _give(self, stream: Any, with_body: bool) -> None:
        size = os.fstat(stream.fileno()).st_size
        first, last = self._range(size)
        if first > last and size:
            self._refuse(416, {"Content-Range": f"bytes */{size}"})
            return
        length = last - first + 1
        if length == size:
            self._head(200, size, BYTES)
        else:
            self._head(206, length, BYTES, {"Content-Range": f"bytes {first}-{last}/{size}"})
        if with_body and length:
            sent = self.connection.sendfile(stream, first, length)
            if sent != length:  # hanging up is all that is left to say so
                self.close_connection = True
                self.log_error("the file was cut meanwhile: %d of %d bytes", sent, length)

    def _range(self, size: int) -> tuple[int, int]:
        """Return the first and the last byte that are wanted; a request that isn't read: all."""
        match = RANGE.fullmatch(self.headers.get("Range", "").strip())
        if match is None or not any(match.groups()):
            return 0, size - 1
        first, last = match.groups()
        if not first:
            return max(0, size - int(last)), size - 1
        return int(first), min(int(last), size - 1) if last else size - 1

    def _head(
        self, status: int, length: int, kind: str, more: dict[str, str] | None = None
    ) -> None:
        self.connection.settimeout(self.server.idle_s)  # the time to ask is over
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        for key, value in (more or {}).items():
            self.send_header(key, value)
        self.end_headers()

    def _refuse(self, status: int, more: dict[str, str] | None = None) -> None:
        self._refused = True
        self._head(status, 0, JSON, {"Connection": "close", **(more or {})})


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Listens, and makes a bounded number of transfers.

    Args:
        settings: see the program's own description.

    Attributes:
        connections: how many transfers there may be at once.
        transfers: the places for them.
    """

    daemon_threads = True
    request_queue_size = 64
    allow_reuse_address = True

    def __init__(self, settings: dict[str, Any]) -> None:
        with open(settings["token_file"], "rb") as stream:
            self.token = stream.read().strip()
        if not self.token:
            raise ValueError("the token is empty")
        self.shelf = Shelf(settings["root"], settings["manifests"])
        self.idle_s = float(settings.get("idle_s", 60))
        self.head_s = float(settings.get("head_s", 10))
        self.connections = int(settings.get("connections", 32))
        self.transfers = threading.BoundedSemaphore(self.connections)
        self._networks = [ipaddress.ip_network(text) for text in settings.get("allow", [])]
        self._places = threading.BoundedSemaphore(self.connections + WAITING)
        if ":" in settings["address"]:
            self.address_family = socket.AF_INET6
        super().__init__((settings["address"], int(settings["port"])), Handler)

    def server_bind(self) -> None:
        """Bind without asking a name server for one's own name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Hang up on strangers."""
        address = ipaddress.ip_address(client_address[0].partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None) or address
        return not self._networks or any(mapped in network for network in self._networks)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread; when there are many, as soon as one of them is over.

        Those without a transfer are over soon, and whoever comes meanwhile is kept by the kernel.
        """
        if not self._places.acquire(timeout=2 * (self.head_s + LINGER_S)):
            sys.stderr.write(f"{client_address[0]} hung up on: too many connections\n")
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note that a connection broke, which is the other side's business."""
        error = sys.exc_info()[1]
        sys.stderr.write(f"{client_address[0]} {type(error).__name__}: {error}\n")


def main(path: str) -> None:
    """Serve until the lifetime is over."""
    with open(path, "rb") as stream:
        settings = json.load(stream)
    server = Server(settings)
    ready = settings["ready_file"]
    with open(f"{ready}.new", "w", encoding="utf-8") as stream:
        json.dump({"port": server.server_port, "pid": os.getpid()}, stream)
    os.replace(f"{ready}.new", ready)
    lifetime_s = float(settings.get("lifetime_s", 0))
    if lifetime_s:
        signal.signal(signal.SIGALRM, lambda *_unused: os._exit(0))
        signal.setitimer(signal.ITIMER_REAL, lifetime_s)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
