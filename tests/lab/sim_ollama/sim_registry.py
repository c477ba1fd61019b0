# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A simulated model registry (and a static server for releases), with switchable faults.

It also answers as a peer that lends its models does, so that copies between hosts can fail too.
"""

from __future__ import annotations

import argparse
import json
import re
import select
import socket
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from registry_faults import Counts, Faults, say

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST = re.compile(r"/v2/([^/]+)/([^/]+)/manifests/([^/]+)")
BLOB = re.compile(r"/v2/([^/]+)/([^/]+)/blobs/(sha256[:-][0-9a-f]{64})")
DIRECT = re.compile(r"/direct/(sha256-[0-9a-f]{64})")
PEER_MANIFEST = re.compile(r"/v1/manifests/([^/]+)/([^/]+)/([^/]+)/([^/]+)")
PEER_BLOB = re.compile(r"/v1/blobs/(sha256-[0-9a-f]{64})")
RANGE = re.compile(r"bytes=([0-9]+)-([0-9]*)")
REQUESTS = "/sim/requests"
CHUNK_BYTES = 1 << 16
LOOK_SECONDS = 0.02  # how often a stalled answer looks whether it may go on


class FileHandler(BaseHTTPRequestHandler):
    """Sends files, whole or in part, and applies the faults that concern bytes."""

    protocol_version = "HTTP/1.1"
    server: Server

    def handle_any(self) -> None:
        """Answer one request, or fail it in the way that is switched on."""
        path = unquote(self.path.split("?", 1)[0])
        if path == REQUESTS:
            self.reply(200, self.server.counts.as_json(), Content_Type="application/json")
            return
        self.server.counts.count(f"{self.command} {path}")
        faults = self.server.faults
        if path == "/v2/":
            self.answer(path)
        elif faults.next_strike("drop", path) is not None:
            self.close_connection = True
        else:
            fault = faults.next_strike("http_status", path)
            if fault is None:
                self.answer(path)
            else:
                text = str(fault.get("message", "simulated failure"))
                self.reply(int(fault.get("status", 500)), text.encode())

    def do_DELETE(self) -> None:
        """Begin to count anew."""
        if self.path == REQUESTS:
            self.server.counts.forget()
            self.reply(200, b"{}", Content_Type="application/json")
        else:
            self.reply(405, b"")

    def __getattr__(self, name: str) -> Any:
        """Give GET and HEAD the same function."""
        if name in ("do_GET", "do_HEAD"):
            return self.handle_any
        raise AttributeError(name)

    @property
    def faults(self) -> dict[str, Any]:
        """The faults that concern this request, as they are switched at this moment."""
        return self.server.faults.of(unquote(self.path.split("?", 1)[0]))

    def answer(self, path: str) -> None:
        """Serve a static file below the server's root."""
        root = self.server.root.resolve()
        target = (root / path.lstrip("/")).resolve()
        if root in target.parents and target.is_file():
            self.send_file(target)
        elif target.is_dir() and (target == root or root in target.parents):
            listing = "\n".join(sorted(p.name for p in target.iterdir())) + "\n"
            self.reply(200, listing.encode())
        else:
            self.reply(404, b"404 page not found\n")

    def reply(self, status: int, data: bytes, **headers: str) -> None:
        """Answer with a whole body."""
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_file(self, path: Path, **headers: str) -> None:
        """Send a file, or the range that is asked for."""
        faults = self.faults
        size = path.stat().st_size
        first, last, status = 0, size - 1, 200
        asked = RANGE.fullmatch(self.headers.get("Range") or "")
        if asked and not faults.get("no_range"):
            first = int(asked.group(1))
            last = min(int(asked.group(2) or size - 1), size - 1)
            if first > last:
                self.reply(416, b"", Content_Range=f"bytes */{size}")
                return
            status = 206
            headers["Content_Range"] = f"bytes {first}-{last}/{size}"
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        if self.command != "HEAD":
            self._send_bytes(path, first, last - first + 1)

    def _send_bytes(self, path: Path, first: int, left: int) -> None:
        faults = self.faults
        rate = float(faults.get("bytes_per_second") or 0)
        cut = faults.get("cut_after_bytes")
        stall = faults.get("stall_after_bytes")
        allowed = left if cut is None else min(left, int(cut))
        until_stall = allowed if stall is None else min(allowed, int(stall))
        with path.open("rb") as file:
            file.seek(first)
            while allowed > 0:
                if until_stall == 0:
                    if not self._stall():
                        break
                    until_stall = allowed
                data = file.read(min(CHUNK_BYTES, until_stall))
                if faults.get("wrong_bytes"):
                    data = bytes(byte ^ 0xFF for byte in data)
                self.wfile.write(data)
                allowed -= len(data)
                until_stall -= len(data)
                left -= len(data)
                if rate:
                    time.sleep(len(data) / rate)
        if left > 0:
            self.close_connection = True

    def _stall(self) -> bool:
        """Send nothing until the fault is switched off (true) or the client leaves (false)."""
        self.wfile.flush()
        with self.server.counts.stalling():
            while self.faults.get("stall_after_bytes") is not None:
                ready = select.select([self.connection], [], [], LOOK_SECONDS)[0]
                if ready and not self.connection.recv(1, socket.MSG_PEEK):
                    return False
        return True

    def log_message(self, text: str, *args: Any) -> None:
        """Write one line per request."""
        say(f"{self.client_address[0]} {text % args}")


class RegistryHandler(FileHandler):
    """The registry protocol over a store directory."""

    def answer(self, path: str) -> None:
        """Answer manifests, blobs and direct addresses."""
        if path == "/v2/":
            self.reply(200, b"{}", Content_Type="application/json")
            return
        delay = float(self.faults.get("delay_seconds") or 0)
        if delay:
            time.sleep(delay)
        manifest = MANIFEST.fullmatch(path)
        blob = BLOB.fullmatch(path)
        direct = DIRECT.fullmatch(path)
        peer_manifest = PEER_MANIFEST.fullmatch(path)
        peer_blob = PEER_BLOB.fullmatch(path)
        if manifest:
            self._manifest("*", *manifest.groups())
        elif peer_manifest:
            self._manifest(*peer_manifest.groups())
        elif blob:
            self._blob(blob.group(3).replace(":", "-"))
        elif direct or peer_blob:
            self._direct((direct or peer_blob).group(1))
        else:
            self._missing("NAME_UNKNOWN", "repository name not known to registry")

    def _manifest(self, host: str, namespace: str, model: str, tag: str) -> None:
        pattern = f"{host}/{namespace}/{model}/{tag}"
        found = sorted((self.server.root / "manifests").glob(pattern))
        if not found:
            self._missing("MANIFEST_UNKNOWN", "manifest unknown")
            return
        content = found[0].read_bytes()
        if self.faults.get("moving_manifest"):
            content = moved(content, self.server.counts.next_turn())
        self.reply(200, content, Content_Type=MANIFEST_TYPE)

    def _blob(self, name: str) -> None:
        path = self.server.root / "blobs" / name
        faults = self.faults
        if not path.is_file():
            self._missing("BLOB_UNKNOWN", "blob unknown to registry")
        elif self.command == "HEAD":
            if faults.get("no_content_length"):
                self.send_response(200)
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True
            else:
                self.send_file(path)
        elif faults.get("no_location"):
            self.send_file(path)
        else:
            host = self.server.direct_host or self.headers.get("Host", "")
            self.reply(307, b"", Location=f"http://{host}/direct/{name}")

    def _direct(self, name: str) -> None:
        path = self.server.root / "blobs" / name
        if path.is_file():
            self.send_file(path, Location=f"/direct/{name}")
        else:
            self._missing("BLOB_UNKNOWN", "blob unknown to registry")

    def _missing(self, code: str, message: str) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self.reply(404, body, Content_Type="application/json")


def moved(content: bytes, turn: int) -> bytes:
    """Return a manifest whose layers stand in another order than as stored and than last time."""
    data = json.loads(content)
    layers = data["layers"]
    steps = 1 + turn % max(1, len(layers) - 1)
    data["layers"] = layers[steps:] + layers[:steps]
    return json.dumps(data, separators=(",", ":")).encode()


class Server(ThreadingHTTPServer):
    """One listening port over one directory."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[FileHandler],
        root: Path,
        faults: Faults,
        direct_host: str = "",
    ) -> None:
        super().__init__(address, handler)
        self.root = root
        self.faults = faults
        self.direct_host = direct_host
        self.counts = Counts()

    def server_bind(self) -> None:
        """Bind without asking name services for this machine's full name."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note that a client went away in the middle of an answer."""
        say(f"{client_address[0]} connection ended early")


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--bind", default="0.0.0.0")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--direct-host", default="", help="host:port of direct addresses")
    parser.add_argument("--config", type=Path, default=Path("/etc/sim-ollama/registry.json"))
    parser.add_argument("--releases", type=Path, help="directory of release archives")
    parser.add_argument("--releases-port", type=int, default=8080)
    args = parser.parse_args(argv)
    faults = Faults(args.config, args.store)
    registry = Server((args.bind, args.port), RegistryHandler, args.store, faults, args.direct_host)
    if args.releases is not None:
        static = Server((args.bind, args.releases_port), FileHandler, args.releases, faults)
        threading.Thread(target=static.serve_forever, daemon=True).start()
    say(f"listening on port {args.port}, serving {args.store}")
    try:
        registry.serve_forever()
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    raise SystemExit(main())
