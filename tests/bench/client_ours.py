# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Our client as a bare program for tests/bench/client.py; standard library only, as on a target.

client_ours.py run URL STREAMS REQUESTS     measure; prints one JSON object
client_ours.py drain URL STREAMS REQUESTS   only ask and throw the answers away: what the server
                                            does when hardly anybody disturbs it
"""

from __future__ import annotations

import json
import selectors
import socket
import statistics
import sys
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "collections"))

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_job import Setting
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import (
    Plan,
    Runner,
    address_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_prompts import Prompts
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import CLOSED, Stage

MODEL = "mock-model"


def summary(values):
    """Return mean and percentiles; None of nothing."""
    if len(values) < 2:
        return {"mean": values[0], "p50": values[0], "p99": values[0]} if values else None
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"mean": statistics.fmean(values), "p50": cuts[49], "p99": cuts[98]}


def run(url, streams, requests):
    plan = Plan(Setting(url, "openai_chat"), Prompts(tokens=32, run_id="bench"), max_tokens=100)
    runner = Runner(address_of(url, None, True), plan)
    measured = runner.run(MODEL, Stage(CLOSED, streams, 0.0, requests))
    good = [sample for sample in measured.samples if not sample.error_kind]
    tokens = sum(sample.gen_tokens for sample in good)
    return {
        "n": len(good),
        "ttft": summary([sample.ttft_ms for sample in good]),
        "gap": summary(list(measured.gaps_ms)),
        "tokens_per_s": tokens / measured.wall_s,
        "load_cpu_s": measured.account.cpu_s,
        "read_age_p99_ms": (summary(list(measured.account.read_age_ms)) or {}).get("p99"),
    }


def drain(url, streams, requests):
    body = json.dumps({"model": MODEL, "stream": True, "messages": [{"content": "x"}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    place = urlsplit(url)
    selector = selectors.DefaultSelector()
    left = requests
    for _number in range(min(streams, requests)):
        sock = socket.create_connection((place.hostname, place.port))
        selector.register(sock, selectors.EVENT_READ)
        sock.sendall(head.encode() + body)
        left -= 1
    done = 0
    while done < requests:
        for key, _mask in selector.select():
            if key.fileobj.recv(262144).endswith(b"\r\n0\r\n\r\n"):
                done += 1
                if left:
                    left -= 1
                    key.fileobj.sendall(head.encode() + body)
    return {"n": done}


if __name__ == "__main__":
    what = {"run": run, "drain": drain}[sys.argv[1]]
    print(json.dumps(what(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
