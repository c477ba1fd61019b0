# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Constant streaming load from the ``openai`` package, one JSON line per request.

``stream_load.py run`` keeps N streams open in a closed loop until a stop file appears or a limit is
reached; ``stream_load.py summary`` counts what it wrote. A request is ok only when it was answered
with 200, content, a finish reason other than ``abort``, and ``[DONE]``.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import ssl
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

import httpx2
import openai

DONE = b"data: [DONE]"
HARD_SECONDS = 1800


def judged(record):
    """Return the reason why a record is not ok, or an empty string."""
    if record["status"] != 200:
        return f"status {record['status']}"
    if not record["chunks"]:
        return "no content"
    if record["finish_reason"] in (None, "abort"):
        return f"finish_reason {record['finish_reason']}"
    return "" if record["done"] else "no [DONE]"


def summarise(records):
    """Count the records; every figure of time is in seconds."""
    failed = [record for record in records if not record["ok"]]
    good = [record for record in records if record["ok"]]
    return {
        "requests": len(records),
        "ok": len(good),
        "failed": len(failed),
        "errors": dict(Counter(record["error"] for record in failed)),
        "by_model": dict(Counter(record["model"] for record in records)),
        "chunks": sum(record["chunks"] for record in records),
        "ttft_median": _median(record["ttft"] for record in good),
        "ttft_max": max((record["ttft"] for record in good), default=None),
        "total_median": _median(record["total"] for record in good),
        "total_max": max((record["total"] for record in good), default=None),
        "first": min((record["start"] for record in records), default=None),
        "last": max((record["start"] for record in records), default=None),
    }


def _median(values):
    values = list(values)
    return round(statistics.median(values), 4) if values else None


def read(paths, since=0.0, until=float("inf")):
    """Read the records of requests that began in the given span."""
    lines = itertools.chain.from_iterable(Path(path).read_text().splitlines() for path in paths)
    records = [json.loads(line) for line in lines if line.strip()]
    return [record for record in records if since <= record["start"] <= until]


class Watched(httpx2.AsyncByteStream):
    """A response's bytes, with a note whether ``[DONE]`` was among them.

    The package ends its iteration at ``[DONE]`` and at a clean end without it alike.
    """

    def __init__(self, stream, ended, key):
        self.stream, self.ended, self.key = stream, ended, key

    async def __aiter__(self):
        tail = b""
        async for data in self.stream:
            tail = tail[-len(DONE) :] + data
            self.ended[self.key] = self.ended.get(self.key) or DONE in tail
            yield data

    async def aclose(self):
        await self.stream.aclose()


class Transport(httpx2.AsyncHTTPTransport):
    """The package's own transport, whose answers are watched."""

    def __init__(self, ended, **kwargs):
        super().__init__(**kwargs)
        self.ended = ended

    async def handle_async_request(self, request):
        answer = await super().handle_async_request(request)
        answer.stream = Watched(answer.stream, self.ended, request.headers.get("X-Load-Id"))
        return answer


def watching_client(arguments):
    """Return a client that retries nothing, and the mapping of the answers that ended well."""
    ended = {}
    verify = ssl.create_default_context(cafile=arguments.ca) if arguments.ca else True
    client = openai.AsyncOpenAI(
        base_url=arguments.url,
        api_key=_key(arguments),
        max_retries=0,
        timeout=arguments.timeout,
        http_client=openai.DefaultAsyncHttpxClient(transport=Transport(ended, verify=verify)),
    )
    return client, ended


def _key(arguments):
    if arguments.key_file:
        return Path(arguments.key_file).read_text().strip()
    return os.environ.get("OPENAI_API_KEY") or "none"


async def one_request(client, ended, number, model, arguments):
    """Make one streaming request; whatever goes wrong is a record, not an exception."""
    began, start = time.monotonic(), time.time()
    record = {"start": round(start, 4), "model": model, "ok": False, "status": 0, "ttft": None}
    record.update(total=0.0, chunks=0, error="", finish_reason=None, done=False, id="")
    try:
        answer = await client.chat.completions.with_raw_response.create(
            model=model,
            messages=[{"role": "user", "content": f"{arguments.prompt} {number}" + arguments.fill}],
            max_tokens=arguments.max_tokens,
            stream=True,
            extra_headers={"X-Load-Id": str(number)},
        )
        record.update(status=answer.status_code, id=answer.headers.get("x-request-id", ""))
        async for chunk in await _parsed(answer):
            for choice in chunk.choices:
                if choice.delta.content or getattr(choice.delta, "reasoning", None):
                    record["chunks"] += 1
                    if record["ttft"] is None:
                        record["ttft"] = round(time.monotonic() - began, 4)
                record["finish_reason"] = choice.finish_reason or record["finish_reason"]
    except openai.APIStatusError as exc:
        record.update(status=exc.status_code, error=f"status {exc.status_code}: {exc.message}")
        record["id"] = exc.response.headers.get("x-request-id", "")
    except (openai.OpenAIError, httpx2.HTTPError, ValueError) as exc:
        cause = exc.__cause__ or exc
        record["error"] = f"{type(cause).__name__}: {exc}"
    record["done"] = bool(ended.pop(str(number), False))
    record["error"] = record["error"] or judged(record)
    record["ok"] = not record["error"]
    record["total"] = round(time.monotonic() - began, 4)
    return record


async def _parsed(answer):
    stream = answer.parse()
    return await stream if asyncio.iscoroutine(stream) else stream


async def run(arguments):
    """Keep the streams going; return all records."""
    client, ended = watching_client(arguments)
    numbers = itertools.count()
    models = itertools.cycle(arguments.model)
    stop, end = Path(arguments.stop), time.monotonic() + min(arguments.seconds, HARD_SECONDS)
    records = []

    async def stream(out, name):
        while not stop.exists() and time.monotonic() < end:
            number = next(numbers)
            if arguments.requests and number >= arguments.requests:
                return
            record = await one_request(client, ended, number, next(models), arguments)
            record["stream"] = name
            records.append(record)
            out.write(json.dumps(record) + "\n")
            out.flush()
            # A failing endpoint must not turn a closed loop into a busy one.
            await asyncio.sleep(arguments.pause if record["ok"] else max(arguments.pause, 0.2))

    with open(arguments.out, "a", encoding="utf-8") as out:
        await asyncio.gather(*(stream(out, name) for name in range(arguments.streams)))
    await client.close()
    return records


def options(argv):
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    load = commands.add_parser("run", help="make requests until the stop file appears")
    load.add_argument("--url", required=True, help="base URL with /v1")
    load.add_argument("--model", action="append", required=True, help="may be given several times")
    load.add_argument("--streams", type=int, default=4)
    load.add_argument("--out", required=True, help="file that gets one JSON line per request")
    load.add_argument("--stop", required=True, help="the load ends when this file appears")
    load.add_argument("--seconds", type=float, default=300, help="hard limit of time")
    load.add_argument("--requests", type=int, default=0, help="hard limit of requests, 0 for none")
    load.add_argument("--max-tokens", type=int, default=40)
    load.add_argument("--prompt", default="Count slowly")
    load.add_argument("--fill-bytes", type=int, default=0, help="further bytes in each prompt")
    load.add_argument("--pause", type=float, default=0.0, help="seconds between requests")
    load.add_argument("--timeout", type=float, default=120)
    load.add_argument("--key-file", default="", help="API key; else the variable OPENAI_API_KEY")
    load.add_argument("--ca", default="", help="CA bundle for a TLS endpoint")
    total = commands.add_parser("summary", help="count the requests of one or more files")
    total.add_argument("files", nargs="+")
    total.add_argument("--since", type=float, default=0.0, help="only requests begun since then")
    total.add_argument("--until", type=float, default=float("inf"))
    return parser.parse_args(argv)


def main(argv=None):
    """Run one command; exit 1 when a request failed, 2 when there was none."""
    arguments = options(argv)
    if arguments.command == "run":
        arguments.fill = " " + "x" * arguments.fill_bytes if arguments.fill_bytes else ""
        records = asyncio.run(run(arguments))
    else:
        records = read(arguments.files, arguments.since, arguments.until)
    summary = summarise(records)
    print(json.dumps(summary))
    return 2 if not records else int(summary["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
