# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A simulated model registry (and a static server for releases), with switchable faults."""

from __future__ import annotations

import argparse
import json
import re
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST = re.compile(r"/v2/([^/]+)/([^/]+)/manifests/([^/]+)")
BLOB = re.compile(r"/v2/([^/]+)/([^/]+)/blobs/(sha256[:-][0-9a-f]{64})")
DIRECT = re.compile(r"/direct/(sha256-[0-9a-f]{64})")
RANGE = re.compile(r"bytes=([0-9]+)-([0-9]*)")
CHUNK_BYTES = 1 << 16


class Faults:
    """The settings file with the faults, re-read whenever it changes; missing means none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp = (0, 0, 0)
        self._faults: dict[str, Any] = {}
        self._failed_requests = 0

    def get(self, key: str) -> Any:
        """Return the value of one fault, None where it is off."""
        with self._lock:
            return self._current().get(key) or None

    def next_status(self, path: str) -> tuple[int, str] | None:
        """Return status and text that shall replace this answer, and count it."""
        with self._lock:
            fault = self._current().get("http_status")
            if not fault or not path.startswith(tuple(fault.get("paths") or ("/",))):
                return None
            if fault.get("count") is not None and self._failed_requests >= int(fault["count"]):
                return None
            self._failed_requests += 1
        return int(fault.get("status", 500)), str(fault.get("message", "simulated failure"))

    def _current(self) -> dict[str, Any]:
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stamp != self._stamp:
                self._faults = json.loads(self._path.read_text()).get("faults") or {}
                self._stamp, self._failed_requests = stamp, 0
        except FileNotFoundError:
            self._faults, self._stamp = {}, (0, 0, 0)
        except (OSError, ValueError, AttributeError) as exc:
            say(f"settings file is not usable, keeping the last ones: {exc}")
        return self._faults


def say(text: str) -> None:
    """Write one line to the log."""
    print(text, file=sys.stderr, flush=True)


class FileHandler(BaseHTTPRequestHandler):
    """Sends files, whole or in part, and applies the faults that concern bytes."""

    protocol_version = "HTTP/1.1"
    server: Server

    def handle_any(self) -> None:
        """Answer one request."""
        path = unquote(self.path.split("?", 1)[0])
        fault = None if path == "/v2/" else self.server.faults.next_status(path)
        if fault is not None:
            self.reply(fault[0], fault[1].encode())
        else:
            self.answer(path)

    def __getattr__(self, name: str) -> Any:
        """Give GET and HEAD the same function."""
        if name in ("do_GET", "do_HEAD"):
            return self.handle_any
        raise AttributeError(name)

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
        faults = self.server.faults
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
        faults = self.server.faults
        rate = float(faults.get("bytes_per_second") or 0)
        cut = faults.get("cut_after_bytes")
        allowed = left if cut is None else min(left, int(cut))
        with path.open("rb") as file:
            file.seek(first)
            while allowed > 0:
                data = file.read(min(CHUNK_BYTES, allowed))
                if faults.get("wrong_bytes"):
                    data = bytes(byte ^ 0xFF for byte in data)
                self.wfile.write(data)
                allowed -= len(data)
                left -= len(data)
                if rate:
                    time.sleep(len(data) / rate)
        if left > 0:
            self.close_connection = True

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
        delay = float(self.server.faults.get("delay_seconds") or 0)
        if delay:
            time.sleep(delay)
        manifest, blob, direct = (
            MANIFEST.fullmatch(path),
            BLOB.fullmatch(path),
            DIRECT.fullmatch(path),
        )
        if manifest:
            self._manifest(*manifest.groups())
        elif blob:
            self._blob(blob.group(3).replace(":", "-"))
        elif direct:
            self._direct(direct.group(1))
        else:
            self._missing("NAME_UNKNOWN", "repository name not known to registry")

    def _manifest(self, namespace: str, model: str, tag: str) -> None:
        pattern = f"*/{namespace}/{model}/{tag}"
        found = sorted((self.server.root / "manifests").glob(pattern))
        if not found:
            self._missing("MANIFEST_UNKNOWN", "manifest unknown")
            return
        self.reply(200, found[0].read_bytes(), Content_Type=MANIFEST_TYPE)

    def _blob(self, name: str) -> None:
        path = self.server.root / "blobs" / name
        faults = self.server.faults
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
    faults = Faults(args.config)
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
