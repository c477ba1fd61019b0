# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the gateway costs: added time per request and per chunk, requests lost per operation.

The lab's gateway is configured by the role, with two engines of this program as its hosts: they
stamp each chunk with the time at which they sent it. Needs a lab that is up; leaves the gateway
with the lab's own routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GATEWAY = "gw-01"
MODEL = "bench"
ENGINES = ("bench-1", "bench-2")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(**delta):
    choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}
    body = {"id": "b", "object": "chat.completion.chunk", "created": 0, "model": MODEL}
    return (
        b"data: " + json.dumps({**body, "choices": [choice], "t": time.time()}).encode() + b"\n\n"
    )


async def engine(reader, writer, interval):
    """Answer requests like an engine: the list of models, or a stream of stamped chunks."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if b"content-length:" in line]
            body = await reader.readexactly(int(length[0].split(b":")[1]) if length else 0)
            if head.startswith(b"GET"):
                listed = json.dumps({"object": "list", "data": [{"id": MODEL}]}).encode()
                writer.write(HEAD % b"application/json" + chunked(listed) + chunked(b""))
            else:
                writer.write(HEAD % b"text/event-stream")
                for _number in range(json.loads(body).get("max_tokens") or 10):
                    writer.write(chunked(event(content="x")))
                    await writer.drain()
                    await asyncio.sleep(interval)
                writer.write(chunked(event()) + chunked(b"data: [DONE]\n\n") + chunked(b""))
            await writer.drain()
    writer.close()


async def one_stream(address, port, chunks):
    """Make one request; return seconds to the first byte and the delay of each chunk."""
    reader, writer = await asyncio.open_connection(address, port)
    body = json.dumps({"model": MODEL, "messages": [], "max_tokens": chunks, "stream": True})
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: b\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    begin = time.perf_counter()
    writer.write((request + body).encode())
    await reader.readline()
    first, delays = time.perf_counter() - begin, []
    while b"[DONE]" not in (line := await reader.readline()):
        if line.startswith(b"data: "):
            delays.append(time.time() - json.loads(line[6:])["t"])
    writer.close()
    return first, delays


async def sample(address, port, streams, chunks=60):
    """Keep the streams open at the same time; return medians in milliseconds."""
    answers = await asyncio.gather(
        *(one_stream(address, port, chunks) for _stream in range(streams))
    )
    delays = [delay for _first, found in answers for delay in found]
    firsts = [first for first, _found in answers]
    return statistics.median(firsts) * 1000, statistics.median(delays) * 1000


def command(*arguments):
    """Run one of ansible's programs; return what it printed."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / arguments[0]), *arguments[1:]],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
    return done.stdout


def traffic(**options):
    command("ansible", GATEWAY, "-m", "hx_infra.llm.gateway_traffic", "-a", json.dumps(options))


def weigh(first, second):
    pairs = sorted(zip(ENGINES, (first, second)), key=lambda pair: -pair[1])
    for host, weight in pairs:  # the one that grows goes first
        traffic(host=host, state="weighted", weight=weight)


def steps():
    for first in (10, 9, 5, 1, 0, 5, 10):
        weigh(first, 10 - first)
    weigh(10, 10)


def reload():
    command("ansible", GATEWAY, "-m", "ansible.builtin.command", "-a", "systemctl reload haproxy")


OPERATIONS = {
    "drain": lambda: traffic(host=ENGINES[0], state="drained", budget=60),
    "undrain": lambda: traffic(host=ENGINES[0], state="ready"),
    "reload": reload,
    "weights, 8 steps": steps,
}


def lost(url, operation):
    """Run the operation under load; return the load's summary."""
    with tempfile.TemporaryDirectory() as folder:
        stop = Path(folder) / "stop"
        arguments = ["run", "--url", url, "--model", MODEL, "--streams", "8", "--max-tokens", "20"]
        arguments += ["--out", f"{folder}/load.jsonl", "--stop", str(stop)]
        load = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "load" / "stream_load.py"), *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(2)
        operation()
        time.sleep(1)
        stop.touch()
        return json.loads(load.communicate(timeout=120)[0])


def address_of(engine_program, *arguments):
    done = subprocess.run([engine_program, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.split()[0]


async def measure(runs, show):
    program = subprocess.run(
        [ROOT / "tests" / "lab" / "engine.sh"], check=True, capture_output=True, text=True
    ).stdout.strip()
    gateway = address_of(program, "exec", f"hx-llm-lab-{GATEWAY}", "hostname", "-i")
    here = address_of(program, "exec", f"hx-llm-lab-{GATEWAY}", "sh", "-c", NEXT_HOP)
    servers = [
        await asyncio.start_server(lambda r, w: engine(r, w, 0.02), here, 0) for _engine in ENGINES
    ]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    routes = {"bench_routes": [route(here, ports)]}
    play = ("ansible-playbook", "tests/bench/gateway.yml", "-e", json.dumps(routes))
    await asyncio.to_thread(command, *play)
    try:
        for streams in (1, 16):
            found = {name: ([], []) for name in ("direct", "gateway")}
            for _turn in range(4 * runs):
                for name, place in (("direct", (here, ports[0])), ("gateway", (gateway, 8000))):
                    first, chunk = await sample(*place, streams)
                    found[name][0].append(first)
                    found[name][1].append(chunk)
            for name, (firsts, chunks) in found.items():
                show(f"{name}, {streams} streams: first byte", firsts, "ms")
                show(f"{name}, {streams} streams: delay of a chunk", chunks, "ms")
        for name, operation in OPERATIONS.items():
            summary = await asyncio.to_thread(lost, f"http://{gateway}:8000/v1", operation)
            print(f"{name:44} {summary['failed']:8} lost of {summary['requests']} requests")
    finally:
        await asyncio.to_thread(command, "ansible-playbook", "playbooks/gateway.yml")


# The lab's bridge, where this program listens: the gateway's next hop.
NEXT_HOP = "awk '$2 == \"00000000\" {print $3}' /proc/net/route | sed 's/../0x& /g' | " + (
    "{ read -r d c b a; printf '%d.%d.%d.%d' $a $b $c $d; }"
)


def route(address, ports):
    servers = [
        {"name": f"{host}.ollama", "host": host, "engine": "ollama", "weight": 10}
        | {"address": address, "port": port}
        for host, port in zip(ENGINES, ports)
    ]
    return {"model": MODEL, "backend": "m_bench", "servers": servers}


def main(runs, show):
    """Measure and print."""
    asyncio.run(measure(runs, show))
