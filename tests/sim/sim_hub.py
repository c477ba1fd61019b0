# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stand-in for a model hub's file protocol, with the faults that hubs and networks have.

Two servers: the hub itself (lists of files, small files, redirects for large ones) and a content
server on another port, which must never see a token.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
OTHER = "deed" + "1" * 36
LARGE = (".safetensors", ".bin", ".tar.gz")
PIECE = 8192


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324


@dataclass
class Seen:
    """A request that a server has had, and the bytes of content that it sent."""

    server: str
    path: str
    range: str
    token: str
    sent: int = 0


@dataclass
class SimHub:
    """What the hub holds and how it misbehaves.

    Attributes:
        models: content by model, commit and path.
        branches: commit by branch.
        token: when set, files need it; ``gated`` says what a refusal looks like.
        cut: by path, after how many bytes each of the next connections is cut.
        stall: by path, after how many bytes the next connections fall silent.
        statuses: by path, or by ``server:path``, what the next requests are answered with: status
            and headers.
        swap: by path, what the content server sends instead.
        pause_s: between two pieces of a large file.
        page: files per page of a list.
        ranges: whether the content server resumes.
        claim: the commit that answers claim to be of; empty for the true one.
    """

    models: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    token: str = ""
    gated: bool = False
    cut: dict[str, list[int]] = field(default_factory=dict)
    stall: dict[str, list[int]] = field(default_factory=dict)
    statuses: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    swap: dict[str, bytes] = field(default_factory=dict)
    pause_s: float = 0.0
    page: int = 1000
    ranges: bool = True
    claim: str = ""
    seen: list[Seen] = field(default_factory=list)
    hub_port: int = 0
    content_port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.hub_port}"

    def put(self, model: str, files: dict[str, bytes], commit: str = COMMIT) -> None:
        self.models.setdefault(model, {})[commit] = dict(files)

    def sent(self, path: str = "") -> int:
        """Return the bytes of content sent, of one file or of all; probes of a byte don't count."""
        return sum(
            item.sent
            for item in self.seen
            if item.path.endswith(path) and item.range != "bytes=0-0"
        )


def _handler(sim: SimHub, server: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_args: Any) -> None:
            return

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            path = unquote(parts.path)
            token = self.headers.get("Authorization", "")
            self.mine = Seen(server, path, self.headers.get("Range", ""), token)
            sim.seen.append(self.mine)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.answer_to(path, parse_qs(parts.query))

        def answer_to(self, path: str, query: dict[str, list[str]]) -> None:
            for key, queue in sim.statuses.items():
                only, _colon, name = key.rpartition(":")
                if path.endswith(name) and only in ("", server) and queue:
                    status, headers = queue.pop(0)
                    self.say(status, b"", headers)
                    return
            if server == "content":
                self.content(path)
            elif path.startswith("/api/models/"):
                self.api(path[len("/api/models/") :], query)
            else:
                self.resolve(path)

        def say(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def refuse(self, status: int, code: str, message: str) -> None:
            headers = {"X-Error-Code": code, "X-Error-Message": message}
            self.say(status, json.dumps({"error": message}).encode(), headers)

        def found(self, model: str, commit: str) -> dict[str, bytes] | None:
            commits = sim.models.get(model)
            if commits is None:
                self.refuse(401, "RepoNotFound", "Invalid username or password.")
                return None
            if commit not in commits:
                self.refuse(404, "RevisionNotFound", f"Invalid rev id: {commit}")
                return None
            return commits[commit]

        def api(self, rest: str, query: dict[str, list[str]]) -> None:
            verb = "tree" if "/tree/" in rest else "revision"
            model, _verb, revision = rest.partition(f"/{verb}/")
            commit = sim.branches.get(revision, revision)
            files = self.found(model, commit)
            if files is None:
                return
            if verb == "revision":
                self.say(200, json.dumps({"id": model, "sha": commit}).encode(), {})
                return
            start = int(query.get("cursor", ["0"])[0])
            names = sorted(files)[start : start + sim.page]
            headers = {"Content-Type": "application/json"}
            if start + sim.page < len(files):
                following = f"{sim.url}/api/models/{rest}?recursive=true&cursor={start + sim.page}"
                headers["Link"] = f'<{following}>; rel="next"'
            entries = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": "folder"}]
            entries += [self.entry(name, files[name]) for name in names]
            self.say(200, json.dumps(entries).encode(), headers)

        def entry(self, name: str, data: bytes) -> dict[str, Any]:
            plain = {"type": "file", "oid": git_sha1(data), "size": len(data), "path": name}
            if not name.endswith(LARGE):
                return plain
            large = {"oid": sha256(data), "size": len(data), "pointerSize": 134}
            return {**plain, "oid": "1" * 40, "lfs": large, "xetHash": "a" * 64}

        def resolve(self, path: str) -> None:
            model, _resolve, rest = path[1:].partition("/resolve/")
            revision, _slash, name = rest.partition("/")
            commit = sim.branches.get(revision, revision)
            files = self.found(model, commit)
            if files is None:
                return
            if sim.token and self.mine.token != f"Bearer {sim.token}":
                code = "GatedRepo" if sim.gated else "RepoNotFound"
                status = 403 if self.mine.token else 401
                self.refuse(status, code, f"Access to model {model} is restricted.")
            elif name not in files:
                self.refuse(404, "EntryNotFound", "Entry not found")
            else:
                self.offer(path, name, files[name], sim.claim or commit)

        def offer(self, path: str, name: str, data: bytes, commit: str) -> None:
            headers = {"X-Repo-Commit": commit}
            if name.endswith(LARGE):
                where = f"http://127.0.0.1:{sim.content_port}{path}?Signature=secret"
                headers |= {
                    "Location": where,
                    "X-Linked-Etag": f'"{sha256(data)}"',
                    "X-Linked-Size": str(len(data)),
                }
                self.say(302, b"", headers)
            else:
                self.send(name, data, {**headers, "ETag": f'"{git_sha1(data)}"'})

        def content(self, path: str) -> None:
            model, _resolve, rest = path[1:].partition("/resolve/")
            revision, _slash, name = rest.partition("/")
            data = sim.models[model][sim.branches.get(revision, revision)][name]
            self.send(name, sim.swap.get(name, data), {"ETag": '"other"'})

        def send(self, name: str, data: bytes, headers: dict[str, str]) -> None:
            start, status = 0, 200
            if sim.ranges and self.mine.range:
                asked, _dash, last = self.mine.range[len("bytes=") :].partition("-")
                start, status = int(asked), 206
                if start >= len(data):
                    self.say(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                    return
                total, data = len(data), data[: int(last or len(data)) + 1]
                headers = {**headers, "Content-Range": f"bytes {start}-{len(data) - 1}/{total}"}
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(data) - start)}.items():
                self.send_header(key, value)
            self.end_headers()
            limit = self.limit(sim.cut, name)
            silent = self.limit(sim.stall, name)
            while start < len(data) and self.mine.sent < min(limit, silent):
                room = min(limit, silent) - self.mine.sent
                piece = data[start : start + min(PIECE, room)]
                self.wfile.write(piece)
                self.wfile.flush()
                self.mine.sent += len(piece)
                start += len(piece)
                time.sleep(sim.pause_s)
            if silent <= self.mine.sent and start < len(data):
                time.sleep(4)
            if start < len(data):
                self.close_connection = True

        def limit(self, faults: dict[str, list[int]], name: str) -> int:
            return faults[name].pop(0) if faults.get(name) else 1 << 60

    return Handler


@contextlib.contextmanager
def start_hub() -> Iterator[SimHub]:
    """Start both servers on free ports."""
    sim = SimHub()
    servers = []
    for name in ("hub", "content"):
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(sim, name))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
    sim.hub_port, sim.content_port = (server.server_address[1] for server in servers)
    try:
        yield sim
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
