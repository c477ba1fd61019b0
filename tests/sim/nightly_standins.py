# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stand-ins on loopback for the nightly test: engines that misbehave, receivers of notifications.

The receivers keep what they got; they know of HTTP and SMTP what a sender has to get right.
"""

from __future__ import annotations

import base64
import http.server
import json
import socketserver
import threading
from contextlib import contextmanager


class _Http(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stand_in: StandIn

    def do_GET(self):
        self.answer(None)

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.answer(json.loads(self.rfile.read(length) or b"null"))

    def answer(self, body):
        self.stand_in.requests.append((self.command, self.path, body, dict(self.headers)))
        status, reply = self.stand_in.reply(self.command, self.path, body, self.headers)
        data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(status)
        if not isinstance(reply, bytes):
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args):
        pass


class StandIn:
    """An HTTP server that answers what it was told, by path, and keeps what it was asked."""

    def __init__(self, answers, header=None):
        self.answers = answers
        self.header = header
        self.requests = []
        self.url = ""

    def reply(self, _method, path, body, headers):
        if self.header and headers.get(self.header[0]) != self.header[1]:
            return 401, {"error": "unauthorized"}
        found = self.answers.get(path, (404, {"error": "not found"}))
        if callable(found):
            found = found(body)
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        return found


@contextmanager
def http_server(answers, header=None, context=None):
    """Serve answers by path: a pair of status and JSON or bytes, a list of such, a function."""
    stand_in = StandIn(answers, header)
    handler = type("Handler", (_Http,), {"stand_in": stand_in})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    scheme, name = ("https", "localhost") if context else ("http", "127.0.0.1")
    stand_in.url = f"{scheme}://{name}:{server.server_port}"
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()


def ollama_answers(generate=None, models=("phi3:latest",), on_gpu=100, **more):
    """Return the answers of an Ollama whose models are loaded."""
    loaded = [{"name": name, "size": 100, "size_vram": on_gpu} for name in models]
    answers = {
        "/api/version": (200, {"version": "0.11.4"}),
        "/api/tags": (200, {"models": [{"name": name} for name in models]}),
        "/api/ps": (200, {"models": loaded}),
        "/api/generate": generate or (200, {"response": "HX-OK", "done": True}),
    }
    return {**answers, **more}


class _Smtp(socketserver.StreamRequestHandler):
    def handle(self):
        told, mailbox = self.server.told, self.server.mailbox
        self.timeout = 10
        self.say(told.get("greeting", "220 mx ESMTP"))
        mail = {"to": [], "login": None, "tls": self.server.context is not None}
        while True:
            line = self.rfile.readline(4096).decode("utf-8", "replace").rstrip("\r\n")
            if not line:
                return
            verb = line.split(" ", 1)[0].upper()
            if verb in told:
                self.say(told[verb])
                continue
            if verb == "EHLO":
                self.say("250-mx\r\n250-AUTH PLAIN\r\n250 8BITMIME")
            elif verb == "AUTH":
                mail["login"] = base64.b64decode(line.split(" ")[2]).decode().split("\0")[1:]
                self.say("235 ok")
            elif verb == "MAIL":
                mail["from"] = line
                self.say("250 ok")
            elif verb == "RCPT":
                if any(refused in line for refused in self.server.refused):
                    self.say("550 no such user")
                else:
                    mail["to"].append(line)
                    self.say("250 ok")
            elif verb == "DATA":
                self.say("354 go on")
                lines = []
                while (text := self.rfile.readline().decode()) not in (".\r\n", ""):
                    lines.append(text)
                mailbox.append({**mail, "text": "".join(lines)})
                self.say("250 taken")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")

    def say(self, text):
        self.wfile.write(f"{text}\r\n".encode())


class _SmtpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def get_request(self):
        sock, address = super().get_request()
        return (self.context.wrap_socket(sock, server_side=True) if self.context else sock), address

    def handle_error(self, *_args):
        pass


@contextmanager
def smtp_server(context=None, refused=(), **told):
    """Take mails; yields the port and the mails taken. Answers to some verbs can be told."""
    server = _SmtpServer(("127.0.0.1", 0), _Smtp)
    server.told, server.mailbox, server.context = told, [], context
    server.refused = refused
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_address[1], server.mailbox
    finally:
        server.shutdown()
        server.server_close()
