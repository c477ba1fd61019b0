# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real HAProxy on loopback with streaming engines behind it and clients before it.

An engine sends a stream's first chunk at once and the last one when the test lets it, so that no
test depends on how long something takes.
"""

from __future__ import annotations

import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contract_http import free_port

from ansible_collections.hx_infra.llm.plugins.modules import gateway_info, gateway_traffic

HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
PATIENCE_S = 20.0
MODELS = {"llama3.2:3b": "m_llama", "qwen3:1.7b": "m_qwen"}


def wait_until(check: Callable[[], Any], what: str) -> None:
    """Wait until something holds; fail when it doesn't become true."""
    end = time.monotonic() + PATIENCE_S
    while not check():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.02)


class Engine(http.server.ThreadingHTTPServer):
    """A streaming engine; streams stay open while it holds them, and fail while it is broken."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int = 0) -> None:
        self.released = threading.Event()
        self.released.set()
        self.requests = 0
        self.broken = False
        super().__init__(("127.0.0.1", port), _Handler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, *_args: object) -> None:
        """Say nothing about a connection that was cut."""

    def hold(self) -> None:
        """Keep the streams that begin from now on open."""
        self.released.clear()

    def release(self) -> None:
        """Let all streams end."""
        self.released.set()

    def stop(self) -> None:
        """Refuse connections from now on."""
        self.release()
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer a health check."""
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_POST(self) -> None:
        """Stream two chunks, the last one when the engine releases it."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests += 1
        if self.server.broken:
            self.send_error(500)
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            self._chunk(f"from {self.server.port}\n".encode())
            self.server.released.wait(PATIENCE_S)
            self._chunk(b"[DONE]")
            self._chunk(b"")
        except OSError:
            self.close_connection = True

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


class Client(threading.Thread):
    """One request; ``port`` is the engine that answered, ``ok`` whether the answer was whole."""

    def __init__(self, port: int, model: str) -> None:
        super().__init__(daemon=True)
        self._gateway = port
        self._model = model
        self.port = 0
        self.ok: bool | None = None
        self.begun = threading.Event()
        self.start()

    def run(self) -> None:
        """Send the request and read the answer to its end."""
        connection = http.client.HTTPConnection("127.0.0.1", self._gateway, timeout=PATIENCE_S)
        try:
            connection.request("POST", "/v1/completions", json.dumps({"model": self._model}))
            answer = connection.getresponse()
            first = answer.readline()
            if answer.status == 200 and first.startswith(b"from "):
                self.port = int(first.split()[1])
                self.begun.set()
            self.ok = answer.read().endswith(b"[DONE]")
        except (OSError, http.client.HTTPException):
            self.ok = False
        finally:
            connection.close()
            self.begun.set()


class Load:
    """Clients that send one short request after the other until they are stopped."""

    def __init__(self, gateway: GatewayHost, model: str, clients: int = 4) -> None:
        self._gateway = gateway
        self._model = model
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.done = 0
        self.failed = 0
        self._threads = [
            threading.Thread(target=self._run, daemon=True) for _client in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Load:
        wait_until(lambda: self.done, "the load's first answer")
        return self

    def __exit__(self, *_args: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            client = Client(self._gateway.port, self._model)
            client.join(PATIENCE_S)
            with self._lock:
                self.done += 1
                self.failed += not client.ok
            time.sleep(0.005)


class GatewayHost:
    """HAProxy with its sockets and files in a directory, and two inference hosts.

    llm-01 and llm-03 serve both models; llm-03 also has a vLLM for the first one, of weight 0.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.program = str(HAPROXY)
        self.port = free_port()
        self.engines = {name: Engine() for name in ("llm-01", "llm-03", "vllm")}
        self.routes = self._routes()
        self.state_file = root / "server-state"
        self.notes_file = root / "notes/drained.json"
        self.routes_file = root / "routes.json"
        self.routes_file.write_text(json.dumps(self.routes))
        self.config = root / "haproxy.cfg"
        self.write_config()
        self.process: subprocess.Popen[bytes] | None = None
        self.clients: list[Client] = []

    def _routes(self) -> list[dict[str, Any]]:
        routes = []
        for model, backend in MODELS.items():
            hosts = [("llm-01", "ollama", "llm-01", 10), ("llm-03", "ollama", "llm-03", 10)]
            if backend == "m_llama":
                hosts.append(("llm-03", "vllm.tiny", "vllm", 0))
            servers = [
                {
                    "name": f"{host}.{engine}",
                    "host": host,
                    "engine": engine.partition(".")[0],
                    "address": "127.0.0.1",
                    "port": self.engines[behind].port,
                    "weight": weight,
                }
                for host, engine, behind, weight in hosts
            ]
            routes.append({"model": model, "backend": backend, "servers": servers})
        return routes

    def write_config(self) -> None:
        """Write HAProxy's configuration from the routes."""
        root = self.root
        lines = ["global", f"  stats socket {root}/a.sock mode 600 level admin expose-fd listeners"]
        lines += [f"  server-state-file {self.state_file}", "defaults", "  mode http"]
        lines += ["  option http-no-delay", "  option http-server-close", "  option redispatch 1"]
        lines += ["  load-server-state-from-file global", "  timeout connect 2s"]
        lines += ["  timeout client 30s", "  timeout server 30s", "frontend gw"]
        lines += [f"  bind 127.0.0.1:{self.port}", "  option http-buffer-request"]
        model = "{ req.body,json_query('$.model') -m str"
        for route in self.routes:
            lines.append(f"  use_backend {route['backend']} if {model} {route['model']} }}")
        for route in self.routes:
            lines += [f"backend {route['backend']}", "  balance random", "  option httpchk"]
            lines.append("  http-check send meth GET uri /v1/models")
            lines.append("  default-server check inter 100ms fall 2 rise 1")
            for server in route["servers"]:
                address = (
                    f"[{server['address']}]" if ":" in server["address"] else server["address"]
                )
                place = f"{address}:{server['port']}"
                lines.append(f"  server {server['name']} {place} weight {server['weight']}")
        self.config.write_text("\n".join(lines) + "\n")

    def start(self) -> GatewayHost:
        """Start HAProxy with a master, as Debian's unit does."""
        argv = [self.program, "-W", "-S", f"{self.root}/m.sock", "-f", str(self.config)]
        with open(self.root / "log", "ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)
        wait_until(self._answers, "HAProxy answers")
        self.wait_for_checks()
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.root / "log").read_text()
        try:
            return bool(self.ask("show info"))
        except OSError:
            return False

    def wait_for_checks(self) -> None:
        """Wait until each server's health is known."""
        wait_until(
            lambda: all(row["check"] not in ("", "INI") for row in self.rows().values()),
            "the first health checks",
        )

    def stop(self) -> None:
        """End HAProxy at once, without saving anything."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def close(self) -> None:
        """End everything."""
        for engine in self.engines.values():
            engine.release()
        for client in self.clients:
            client.join(PATIENCE_S)
        self.stop()
        for engine in self.engines.values():
            engine.stop()

    def reload(self, save: bool = True) -> None:
        """Reload as the unit does: save the state, then tell the master."""
        assert self.process is not None
        if save:
            self.state_file.write_text(self.ask("show servers state"))
        before = self.info()["worker"]
        self.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: self.info()["worker"] != before, "the new worker")

    def ask(self, command: str) -> str:
        """Ask the worker, not by the collection's code."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE_S)
            connection.connect(f"{self.root}/a.sock")
            connection.sendall(command.encode() + b"\n")
            with connection.makefile() as stream:
                return stream.read()

    def rows(self) -> dict[str, dict[str, str]]:
        """Return status, weight and check of each server as HAProxy shows them."""
        head, *lines = self.ask("show stat").strip().splitlines()
        columns = head[2:].split(",")
        table = [dict(zip(columns, line.split(","), strict=False)) for line in lines]
        return {
            f"{row['pxname']}/{row['svname']}": {
                "status": row["status"],
                "weight": row["weight"],
                "check": row["check_status"].strip("* "),
            }
            for row in table
            if row["type"] == "2"
        }

    def statuses(self) -> dict[str, str]:
        """Return each server's status."""
        return {name: row["status"] for name, row in self.rows().items()}

    def params(self, **changes: Any) -> dict[str, Any]:
        """Return the parameters of gateway_traffic for this gateway."""
        values = {name: spec.get("default") for name, spec in gateway_traffic.ARGUMENTS.items()}
        values.update(
            socket=f"{self.root}/a.sock",
            master_socket=f"{self.root}/m.sock",
            gateway="gw-01",
            state_file=str(self.state_file),
            notes_file=str(self.notes_file),
            routes_file=str(self.routes_file),
            budget=int(PATIENCE_S),
            owner="remediate",
        )
        return {**values, **changes}

    def run(self, state: str, check: bool = False, hooks: Any = None, **changes: Any) -> Any:
        """Run gateway_traffic's code, on llm-01 unless told otherwise."""
        if "server" not in changes:
            changes.setdefault("host", "llm-01")
        return gateway_traffic.run(self.params(state=state, **changes), check, **(hooks or {}))

    def info(self, since: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run gateway_info's code."""
        return gateway_info.run({**self.params(), "since": since})

    def notes(self) -> dict[str, Any]:
        """Return the noted owners."""
        if not self.notes_file.exists():
            return {}
        servers = json.loads(self.notes_file.read_text())["servers"]
        return {target: note["owner"] for target, note in servers.items()}

    def open_streams(self, count: int, model: str = "llama3.2:3b") -> list[Client]:
        """Begin streams and wait until each has its first chunk."""
        clients = [Client(self.port, model) for _stream in range(count)]
        self.clients += clients
        for client in clients:
            assert client.begun.wait(PATIENCE_S)
            assert client.port, "a stream did not begin"
        return clients

    def streams_on(self, host: str, model: str = "llama3.2:3b") -> list[Client]:
        """Begin streams until at least two of them are open on a host's Ollama, and hold all."""
        for engine in self.engines.values():
            engine.hold()
        clients: list[Client] = []
        port = self.engines[host].port
        while sum(client.port == port for client in clients) < 2:
            clients += self.open_streams(2, model)
            assert len(clients) < 60, f"{host} gets no streams"
        return clients

    def release(self) -> None:
        """Let all streams end."""
        for engine in self.engines.values():
            engine.release()
