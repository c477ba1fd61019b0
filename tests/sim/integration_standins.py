# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stand-ins on loopback for services that Debian doesn't have, and for servers that misbehave.

They answer as the documentation of Qdrant and Grafana says; none was compared with the real one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import socket
import ssl
import struct
import subprocess
import threading
from contextlib import contextmanager
from typing import ClassVar

KEY = "standin-Key-35xD"
OTHER_KEY = "other-Key-1"


@contextmanager
def listening(serve, context=None):
    """Serve each connection in a thread; yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def one(sock):
        try:
            with context.wrap_socket(sock, server_side=True) if context else sock as ready:
                ready.settimeout(10)
                serve(ready, ended)
        except OSError:
            return  # the check hung up, or didn't like the certificate

    def accept():
        while True:
            try:
                sock, _address = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def silent(_sock, ended):
    """Accept and never say anything."""
    ended.wait(10)


def dripping(sock, ended):
    """Say one more letter of an endless header, faster than any timeout of a single read."""
    sock.recv(65536)
    sock.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not ended.wait(0.05):
        sock.sendall(b"x")


def saying(*answers):
    """Answer the first thing that comes with the first answer, and so on; then hang up."""

    def serve(sock, _ended):
        for answer in answers:
            if not sock.recv(65536):
                return
            sock.sendall(answer)
        sock.recv(65536)

    return serve


def http2(sock, _ended):
    """Answer the preface with settings, as a gRPC server does."""
    assert sock.recv(65536).startswith(b"PRI * HTTP/2.0")
    sock.sendall(struct.pack("!HBBBI", 0, 6, 4, 0, 0) + struct.pack("!HI", 3, 100))


class _Pages(http.server.BaseHTTPRequestHandler):
    pages: ClassVar[dict] = {}
    unlocked: tuple = ()
    wanted: tuple = ()

    def do_GET(self):
        header, value, refusal = self.wanted
        page = self.pages.get(self.path, (404, {"message": "Not found"}))
        if self.path not in self.unlocked and self.headers.get(header) != value:
            page = (401, refusal)
        body = page[1] if isinstance(page[1], bytes) else json.dumps(page[1]).encode()
        self.send_response(page[0])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        pass


@contextmanager
def pages(answers, unlocked, wanted, context=None):
    """Serve pages, all but the unlocked ones only with the wanted header; yields the port."""
    fields = {"pages": answers, "unlocked": unlocked, "wanted": wanted}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Pages", (_Pages,), fields))
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def qdrant(key=KEY, **changed):
    """Serve as Qdrant does."""
    answers = {
        "/": (200, {"title": "qdrant - vector search engine", "version": "1.12.4"}),
        "/collections": (200, {"result": {"collections": []}, "status": "ok"}),
        "/readyz": (200, b"all shards are ready"),
        **changed,
    }
    return pages(answers, ("/", "/readyz"), ("api-key", key, b"Must provide an API key"))


def grafana(user="hx", password=KEY, context=None, **changed):
    """Serve as Grafana does."""
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    answers = {
        "/api/health": (200, {"database": "ok", "version": "11.3.0", "commit": "abc"}),
        "/api/org": (200, {"id": 1, "name": "Main Org."}),
        "/api/datasources": (200, [{"name": "Prometheus", "type": "prometheus"}]),
        **changed,
    }
    refusal = {"message": "Invalid username or password"}
    wanted = ("Authorization", f"Basic {pair}", refusal)
    return pages(answers, ("/api/health",), wanted, context)


def prometheus(**changed):
    """Serve as Prometheus does, with one target up and one down."""
    result = [
        {"metric": {"instance": "a:1"}, "value": [0, "1"]},
        {"metric": {"instance": "b:1"}, "value": [0, "0"]},
    ]
    answers = {
        "/-/ready": (200, b"Prometheus Server is Ready.\n"),
        "/api/v1/status/buildinfo": (200, {"status": "success", "data": {"version": "3.1.0"}}),
        "/api/v1/query?query=up%7Bjob%3D%22llm%22%7D": (200, {"data": {"result": result}}),
        **changed,
    }
    return pages(answers, (), ("Authorization", f"Bearer {KEY}", b"Unauthorized"))


def postgres_that_knows(password, *, honest=True):
    """Log in by SCRAM-SHA-256 as PostgreSQL does; a dishonest one signs with something else."""

    def message(kind, number, text=b""):
        return kind + struct.pack("!II", len(text) + 8, number) + text

    def serve(sock, _ended):
        sock.recv(65536)
        sock.sendall(message(b"R", 10, b"SCRAM-SHA-256\0\0"))
        first = sock.recv(65536)[5:].split(b"\0", 1)[1][4:].decode()
        bare = first[3:]
        salt, nonce = b"0123456789", bare.split("r=", 1)[1] + "server"
        challenge = f"r={nonce},s={base64.b64encode(salt).decode()},i=4096"
        sock.sendall(message(b"R", 11, challenge.encode()))
        final = sock.recv(65536)[5:].decode().split(",p=")[0]
        signed = f"{bare},{challenge},{final}".encode()
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 4096)
        key = hmac.new(salted, b"Server Key" if honest else b"Other", hashlib.sha256).digest()
        proof = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
        sock.sendall(message(b"R", 12, b"v=" + proof) + message(b"R", 0))
        version = b"server_version\x0017.2\0"
        sock.sendall(b"S" + struct.pack("!I", len(version) + 4) + version + b"Z\0\0\0\5I")
        sock.recv(65536)
        row = struct.pack("!HI", 1, 1) + b"1"
        sock.sendall(b"D" + struct.pack("!I", len(row) + 4) + row + b"Z\0\0\0\5I")
        sock.recv(65536)

    return serve


def bulk(text):
    """Return a text as Redis sends it."""
    return f"${len(text)}\r\n{text}\r\n".encode()


def postgres_error(code, text):
    """Return an error as PostgreSQL sends it."""
    body = f"SFATAL\0C{code}\0M{text}\0\0".encode()
    return b"E" + struct.pack("!I", len(body) + 4) + body


def server_context(folder, name="localhost"):
    """Make a certificate for a name; returns a context for servers and the certificate's path."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    argv += [
        "-nodes",
        "-days",
        "2",
        "-subj",
        f"/CN={name}",
        "-addext",
        f"subjectAltName=DNS:{name}",
    ]
    argv += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(argv, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, str(certificate)
