# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A server on loopback that answers on a schedule; a program that stands alone.

It speaks the dialect of the run that the client is calibrated for, on a port of 127.0.0.1 that the
system picks, until its input ends or ``limit_s`` have passed. First it writes ``{"port": n}``; when
its input ends, an account of what it did, in microseconds since ``base`` by CLOCK_MONOTONIC:

``{"base": s, "kernel": bool, "requests": [[number, arrived, [before, ...], [after, ...]], ...]}``

``arrived`` is the kernel's stamp of the request where it gives one. ``before`` and ``after``
enclose each write: what is sent over loopback has arrived when the write returns. Being late with
a write is no error, as the account says when it really was.

The request's number is the end of its model's name.
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import json
import os
import selectors
import socket
import ssl
import struct
import sys
import time
from typing import Any

SO_TIMESTAMPNS = 35
TIMESPEC = struct.Struct("@ll")
READ_SIZE = 262144
GOLDEN = 0.6180339887498949  # its multiples spread evenly over 0 to 1, whatever their number
SPREAD = 0.4  # of the time to the first token: streams that keep step wake the client all at once
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

now = time.monotonic


def chunk(data: bytes) -> bytes:
    """Return a piece of a body as it goes over the wire."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def pieces(dialect: str, tokens: int) -> tuple[bytes, bytes, bytes]:
    """Return head, record of one token, and end of an answer."""
    if dialect.startswith("ollama"):
        piece: dict[str, Any] = {"model": "calibration", "created_at": "2026-01-01T00:00:00Z"}
        chat = dialect == "ollama_chat"

        def line(text: str, **more: Any) -> bytes:
            said = (
                {"message": {"role": "assistant", "content": text}} if chat else {"response": text}
            )
            return chunk(json.dumps({**piece, **said, "done": False, **more}).encode() + b"\n")

        end = line("", done=True, done_reason="length", eval_count=tokens, prompt_eval_count=8)
        return HEAD % b"application/x-ndjson", line(" token"), end + LAST_CHUNK
    piece = {"id": "calibration", "object": "chat.completion.chunk", "model": "calibration"}

    def event(choices: list[Any], **more: Any) -> bytes:
        text = json.dumps({**piece, "choices": choices, **more})
        return chunk(b"data: " + text.encode() + b"\n\n")

    def choice(text: str, finish: str | None) -> dict[str, Any]:
        said = {"delta": {"content": text}} if dialect == "openai_chat" else {"text": text}
        return {"index": 0, **said, "logprobs": None, "finish_reason": finish}

    usage = {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": tokens + 8}
    end = event([choice("", "length")]) + event([], usage=usage) + chunk(b"data: [DONE]\n\n")
    return HEAD % b"text/event-stream", event([choice(" token", None)]), end + LAST_CHUNK


def stamp(ancillary: list[tuple[int, int, bytes]]) -> tuple[float, bool]:
    """Return when what was just read had arrived, and whether the kernel said so."""
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = TIMESPEC.unpack_from(value)
            age = time.time() - seconds - nanoseconds * 1e-9
            if 0 <= age < 60:  # else the wall clock was set meanwhile
                return now() - age, True
    return now(), False


class Client:
    """One connection and the answer that is under way on it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = b""
        self.arrived = 0.0
        self.stamped = False
        self.number = 0
        self.written = 0
        self.start = 0.0
        self.before: list[int] = []
        self.after: list[int] = []


class Server:
    """Answers with a first token after about ``ttft_ms`` and the others ``gap_ms`` apart."""

    def __init__(self, settings: dict[str, Any], listener: socket.socket) -> None:
        self._settings = settings
        self._head, self._token, self._end = pieces(settings["dialect"], settings["tokens"])
        self._listener = listener
        self._tls = anonymous_tls(server=True) if settings["tls"] else None
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(0, selectors.EVENT_READ)
        self._due: list[tuple[float, int, Client]] = []
        self._base = now()
        self._kernel = True
        self._account: list[Any] = []

    def run(self) -> dict[str, Any]:
        """Serve until the input ends; return the account."""
        ends = self._base + self._settings["limit_s"]
        while now() < ends:
            wait = min(ends, self._due[0][0] if self._due else ends) - now()
            # The selector rounds up to milliseconds: only the whole ones are waited there.
            ready = self._selector.select(int(wait * 1000) / 1000 if wait > 0 else 0)
            for key, _mask in ready:
                if key.fileobj == 0:
                    return {"base": self._base, "kernel": self._kernel, "requests": self._account}
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._read(key.data)
            if not ready and 0 < wait < 0.001:
                time.sleep(wait)
            while self._due and self._due[0][0] <= now():
                self._write(heapq.heappop(self._due)[2])
        return {}

    def _accept(self) -> None:
        sock, _peer = self._listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):  # then no request has a stamp
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        if self._tls is not None:
            sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self._selector.register(sock, selectors.EVENT_READ, Client(sock))

    def _read(self, client: Client) -> None:
        try:
            # TLS hides the stamp: what came is looked at on the raw socket and left there.
            raw, ancillary, _flags, _peer = socket.socket.recvmsg(
                client.sock, READ_SIZE, 64, socket.MSG_PEEK if self._tls else 0
            )
            client.arrived, client.stamped = stamp(ancillary)
            data = client.sock.recv(READ_SIZE) if self._tls else raw
        except (ssl.SSLWantReadError, BlockingIOError):
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(client.sock)
            client.sock.close()
            return
        client.data += data
        head, found, body = client.data.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) >= length:
            client.data = b""
            self._begin(client, json.loads(body[:length]))

    def _begin(self, client: Client, body: dict[str, Any]) -> None:
        self._kernel = self._kernel and client.stamped
        client.number = int(body["model"].rpartition("-")[2])
        client.before, client.after, client.written = [], [], 0
        factor = 1 + SPREAD * (2 * (client.number * GOLDEN % 1) - 1)
        client.start = client.arrived + self._settings["ttft_ms"] / 1e3 * factor
        heapq.heappush(self._due, (client.start, client.number, client))

    def _write(self, client: Client) -> None:
        data = self._token if client.written else self._head + self._token
        last = client.written + 1 >= self._settings["tokens"]
        if last:
            data += self._end
        before = now()
        try:
            client.sock.sendall(data)
        except OSError:  # the client is gone, or takes nothing any more
            return
        after = now()
        client.before.append(int((before - self._base) * 1e6))
        client.after.append(int((after - self._base) * 1e6) + 1)
        client.written += 1
        if last:
            arrived = round((client.arrived - self._base) * 1e6)
            self._account.append([client.number, arrived, client.before, client.after])
            return
        due = client.start + client.written * self._settings["gap_ms"] / 1e3
        heapq.heappush(self._due, (due, client.number, client))


def anonymous_tls(server: bool) -> ssl.SSLContext:
    """Return a context that encrypts without certificates, which nobody has to make or keep.

    Good for loopback only. TLS 1.3 has no such suites.

    Raises:
        ssl.SSLError: this OpenSSL has none either.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    if not server:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AECDH+AES:@SECLEVEL=0")
    return context


def main() -> None:
    """Serve as the first line of the input says."""
    data = b""
    while not data.endswith(b"\n"):
        piece = os.read(0, 65536)
        if not piece:
            return
        data += piece
    settings = json.loads(data)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        listener.setblocking(False)
        server = Server(settings, listener)
        sys.stdout.write(json.dumps({"port": listener.getsockname()[1]}) + "\n")
        sys.stdout.flush()
        gc.disable()
        sys.stdout.write(json.dumps(server.run()) + "\n")


if __name__ == "__main__":
    main()
