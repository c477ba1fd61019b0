# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A simulated engine with an exact schedule, to judge benchmark clients; standard library only.

Token k leaves at (arrival of the request's last byte) + ttft + k * itl: absolute deadlines, no
drift. What really happened is kept and told, by the monotonic clock that all processes share:

    POST /v1/chat/completions, /v1/completions, /api/chat, /api/generate
    GET  /health, /v1/models, /api/version, /api/tags
    GET  /stats           {"requests": [{"path", "prompt", "arrived", "writes": [..]}], ..}
    GET  /summary         the same as means and percentiles
    POST /reset           forget all that
    POST /options         change the options of the server: {"itl_ms": 5}

Options come from the command line, and for one request from the header ``X-Schedule`` or the
field ``schedule`` of its body, as JSON. It binds to loopback, and ends when its standard input
does: it never outlives the test that started it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import ssl
import sys
import time
from array import array
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from sim_schedule_plan import PATHS, Options, Plan, plan_of

PROMPT_KEPT = 80  # characters of a prompt, by which a test finds its request again
YIELD_EVERY = 32  # writes of a flood between two turns of the loop
STATS = {"requests": [], "connections": 0, "in_flight": 0, "peak": 0}


def percentile(values: list[float], percent: float) -> float:
    """Return a percentile of sorted values by linear interpolation."""
    place = (len(values) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


def summary(values: list[float]) -> dict[str, float] | None:
    """Return mean, percentiles and extremes; None of nothing."""
    values = sorted(values)
    if not values:
        return None
    found = {f"p{percent:g}": percentile(values, percent) for percent in (50, 99, 99.9)}
    return {
        "count": len(values),
        "mean": sum(values) / len(values),
        "max": values[-1],
        "min": values[0],
        **found,
    }


def summaries() -> dict[str, Any]:
    """Return what the server did, in milliseconds."""
    ttft, gaps, tokens = [], [], 0
    begin, end = float("inf"), 0.0
    for _path, _prompt, arrived, writes in STATS["requests"]:
        tokens += len(writes)
        if not writes:
            continue
        ttft.append((writes[0] - arrived) * 1e3)
        gaps.extend((b - a) * 1e3 for a, b in zip(writes, writes[1:]))
        begin, end = min(begin, arrived), max(end, writes[-1])
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "requests": len(STATS["requests"]),
        "records": tokens,
        "peak": STATS["peak"],
        "span_s": max(0.0, end - begin),
        "ttft_ms": summary(ttft),
        "gap_ms": summary(gaps),
        "cpu_s": used.ru_utime + used.ru_stime,
    }


def stats() -> dict[str, Any]:
    """Return the time of each request and of each write."""
    requests = [
        {"path": path, "prompt": prompt, "arrived": arrived, "writes": list(writes)}
        for path, prompt, arrived, writes in STATS["requests"]
    ]
    return {"requests": requests, "connections": STATS["connections"], "peak": STATS["peak"]}


class Connection(asyncio.Protocol):
    """One connection and the answer on it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = b""
        self.open = True
        self.busy = False
        self.idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Count it."""
        self.transport = transport
        STATS["connections"] += 1
        self.wait()

    def connection_lost(self, _error: Exception | None) -> None:
        """End the answer on it."""
        self.open = False
        self.rest()

    def wait(self) -> None:
        """Close the connection when nothing is asked for a while."""
        if self.server.idle_s:
            self.idle = asyncio.get_running_loop().call_later(
                self.server.idle_s, self.transport.close
            )

    def rest(self) -> None:
        """Take note that no answer is under way."""
        if self.busy:
            STATS["in_flight"] -= 1
            self.busy = False

    def data_received(self, data: bytes) -> None:
        """Take in a piece; answer when the request is whole."""
        at = time.monotonic()
        if self.idle:
            self.idle.cancel()
            self.idle = None
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        lines = self.buffer[:end].decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        if "chunked" in headers.get("transfer-encoding", ""):
            body, taken = unchunked(self.buffer, end + 4)
        else:
            taken = end + 4 + int(headers.get("content-length", 0))
            body = self.buffer[end + 4 : taken]
        if taken < 0 or len(self.buffer) < taken:
            return
        self.buffer = self.buffer[taken:]
        method, target = lines[0].split(" ")[:2]
        option = next((line[12:] for line in lines if line.lower().startswith("x-schedule:")), "")
        self.handle(method, target.split("?", 1)[0], body, option, at)

    def handle(self, method: str, path: str, body: bytes, option: str, at: float) -> None:
        """Answer a request."""
        if method == "POST" and path in PATHS:
            asked = json.loads(body)
            options = self.server.options.changed(asked.get("schedule") or {})
            options = options.changed(json.loads(option) if option else {})
            stream = asked.get("stream", PATHS[path].startswith("ollama"))
            messages = asked.get("messages") or [{"content": asked.get("prompt")}]
            self.record = array("d")
            prompt = str(messages[-1]["content"])[:PROMPT_KEPT]
            STATS["requests"].append((path, prompt, at, self.record))
            self.generate(options, plan_of(PATHS[path], bool(stream), options), at)
        elif path == "/options":
            self.server.options = self.server.options.changed(json.loads(body))
            self.plain({})
        elif path == "/reset":
            STATS.update(requests=[], connections=0, peak=STATS["in_flight"])
            self.plain({})
        else:
            self.plain(
                {
                    "/health": {},
                    "/stats": stats() if path == "/stats" else {},
                    "/summary": summaries() if path == "/summary" else {},
                    "/v1/models": {"object": "list", "data": [MODEL]},
                    "/api/version": {"version": "0.0.0"},
                    "/api/tags": {"models": [{"name": "mock-model", "model": "mock-model"}]},
                }.get(path)
            )

    def plain(self, value: Any) -> None:
        """Answer with JSON, or with 404."""
        body = json.dumps(value).encode()
        status = b"404 Not Found" if value is None else b"200 OK"
        head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self.transport.write(head % (status, len(body)) + body)
        self.wait()

    def generate(self, options: Options, plan: Plan, at: float) -> None:
        """Begin an answer."""
        self.options, self.plan, self.begin = options, plan, at
        STATS["in_flight"] += 1
        STATS["peak"] = max(STATS["peak"], STATS["in_flight"])
        self.busy = True
        self.next = 0
        self.factor = self.server.factor(options)
        loop = asyncio.get_running_loop()
        if options.mode == "paced":
            loop.call_at(self.begin + plan.writes[0].at_ms * self.factor / 1e3, self.tick)
        else:
            self.flood_task = loop.create_task(self.flood())

    def write(self) -> None:
        """Write what is next, and keep when."""
        write = self.plan.writes[self.next]
        self.next += 1
        if write.arrivals:
            self.record.extend([time.monotonic()] * write.arrivals)
        self.transport.write(write.data)

    def tick(self) -> None:
        """Write what is due."""
        writes = self.plan.writes
        while self.open:
            self.write()
            if self.next == len(writes):
                self.ended()
                return
            due = self.begin + writes[self.next].at_ms * self.factor / 1e3
            if due > time.monotonic():
                asyncio.get_running_loop().call_at(due, self.tick)
                return

    async def flood(self) -> None:
        """Write everything as fast as it goes."""
        for number in range(len(self.plan.writes)):
            if not self.open:
                return
            self.write()
            if number % YIELD_EVERY == YIELD_EVERY - 1:
                await asyncio.sleep(0)
        self.ended()

    def ended(self) -> None:
        """Do with the connection what the plan says."""
        self.rest()
        if self.plan.after == "abort":
            self.transport.abort()
        elif self.plan.after == "close":
            self.transport.close()
        elif self.options.close_after_ms >= 0:
            delay = self.options.close_after_ms / 1e3
            asyncio.get_running_loop().call_later(delay, self.transport.close)
        else:
            self.wait()


MODEL = {"id": "mock-model", "object": "model", "root": "mock-model", "max_model_len": 32768}


def unchunked(data: bytes, at: int) -> tuple[bytes, int]:
    """Return a chunked body and where it ends; -1 when it isn't whole."""
    parts = []
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return b"", -1
        size = int(data[at:end].split(b";")[0], 16)
        parts.append(data[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
        if len(data) < at:
            return b"", -1
        if not size:
            return b"".join(parts), at


class Server:
    """The options of all answers, and the speed of each."""

    def __init__(self, options: Options, idle_s: float) -> None:
        self.options = options
        self.idle_s = idle_s
        self._draw = random.Random(options.seed)

    def factor(self, options: Options) -> float:
        """Return by what the times of the next answer are multiplied."""
        return 1 + self._draw.uniform(-options.jitter, options.jitter) if options.jitter else 1.0


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until standard input ends or the time is over."""
    server = Server(Options().changed(json.loads(arguments.options)), arguments.idle_s)
    context = None
    if arguments.cert:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(arguments.cert, arguments.key)
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(0, lambda: sys.stdin.buffer.raw.read(4096) or over.set())
    listening = await loop.create_server(
        lambda: Connection(server), arguments.bind, arguments.port, backlog=1024, ssl=context
    )
    print(listening.sockets[0].getsockname()[1], flush=True)
    async with listening:
        try:
            await asyncio.wait_for(over.wait(), arguments.max_s)
        except asyncio.TimeoutError:
            print("the time is over", file=sys.stderr)


def main() -> None:
    """Run the server; prints its port."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--options", default="{}", help="as JSON")
    parser.add_argument("--idle-s", type=float, default=0, help="close connections idle so long")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--max-s", type=float, default=3600)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
