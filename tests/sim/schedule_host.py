# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the simulated schedule server, and measure it with the collection's client.

with Schedule(itl_ms=5, tokens=40) as server:
    measured = measure(server, concurrency=4, requests=8)
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_dialect import (
    OPENAI_CHAT,
    Ask,
    render,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_engine import Engine
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_job import (
    GenerationJob,
    Sample,
    Setting,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import (
    Measurement,
    Plan,
    Runner,
    address_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_prompts import Prompts
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import (
    CLOSED,
    Stage,
    feeder_of,
)

NUMBER = re.compile(r"^\[t-mock-model-measure\d+-(\d+)\]")
PROGRAM = Path(__file__).resolve().parent / "sim_schedule.py"


class Schedule:
    """A running schedule server; ends with the block."""

    def __init__(
        self,
        bind: str = "127.0.0.1",
        idle_s: float = 0.0,
        cert: tuple[Path, Path] | None = None,
        max_s: float = 600.0,
        **options: Any,
    ) -> None:
        argv = [sys.executable, "-B", str(PROGRAM), "--bind", bind, "--max-s", str(max_s)]
        argv += ["--idle-s", str(idle_s), "--options", json.dumps(options)]
        if cert:
            argv += ["--cert", str(cert[0]), "--key", str(cert[1])]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline() or 0)
        if not self.port:
            raise RuntimeError("the schedule server did not start")
        host = f"[{bind}]" if ":" in bind else bind
        self.url = f"{'https' if cert else 'http'}://{host}:{self.port}"

    def __enter__(self) -> Schedule:
        return self

    def __exit__(self, *_args: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server."""
        self.process.stdin.close()
        self.process.wait(timeout=10)
        self.process.stdout.close()

    def ask(self, path: str, body: Any = None) -> Any:
        """Ask the server itself: GET, or POST with a body."""
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(self.url + path, data=data, timeout=30) as answer:
            return json.load(answer)

    def reset(self, **options: Any) -> None:
        """Forget what was, and change options for what comes."""
        self.ask("/options", options)
        self.ask("/reset", {})

    def truth(self) -> Truth:
        """Return what the server did since it was reset."""
        return Truth(self.ask("/stats"))


class Truth:
    """What the server really did, in milliseconds; ``gaps`` pools all requests."""

    def __init__(self, stats: dict[str, Any]) -> None:
        self.requests = stats["requests"]
        self.connections = stats["connections"]
        self.peak = stats["peak"]
        self.ttft = [(r["writes"][0] - r["arrived"]) * 1e3 for r in self.requests if r["writes"]]
        self.gaps = [
            (b - a) * 1e3 for r in self.requests for a, b in zip(r["writes"], r["writes"][1:])
        ]


def measure(
    server: Schedule,
    *,
    dialect: str = OPENAI_CHAT,
    stage: Stage | None = None,
    concurrency: int = 1,
    requests: int = 1,
    stream: bool = True,
    timeout_s: float = 20.0,
    prompt: str = "why?",
    **options: Any,
) -> Measurement:
    """Measure the server; ``options`` are those of the schedule, for these requests."""
    setting = Setting(server.url, dialect, stream=stream, timeout_s=timeout_s)
    extra = {"schedule": options} if options else {}
    plan = Plan(setting, Prompts(texts=[prompt], run_id="t"), max_tokens=100, extra=extra)
    stage = stage or Stage(CLOSED, concurrency, 0.0, requests)
    return Runner(address_of(server.url, None, True), plan).run("mock-model", stage)


def paired(measured: Measurement, truth: Truth) -> list[tuple[Any, dict[str, Any]]]:
    """Return each sample with what the server did for it, by the number in its prompt."""
    served = {int(NUMBER.search(r["prompt"])[1]): r for r in truth.requests}
    return [(sample, served[sample.number]) for sample in measured.samples]


def ttft_errors(measured: Measurement, truth: Truth) -> list[float]:
    """Return by how much each sample's TTFT is over the truth, milliseconds."""
    return [
        sample.ttft_ms - (served["writes"][0] - served["arrived"]) * 1e3
        for sample, served in paired(measured, truth)
    ]


def good(measured: Measurement) -> list[Any]:
    """Return the samples, all of which must be good."""
    assert [sample.error for sample in measured.samples if sample.error_kind] == []
    return measured.samples


def percentile(values: Any, percent: float) -> float:
    """Return a percentile, as the schedule server counts it."""
    return statistics.quantiles(values, n=1000, method="inclusive")[round(percent * 10) - 1]


def drive(url, requests=1, *, engine=None, address=None, timeout_s=5.0, warm=0, stage=None, **more):
    """Run an engine without anything above it; return its account and the samples."""
    samples = []
    extra = {"schedule": more} if more else {}
    body = render(OPENAI_CHAT, Ask("m", "why?", 9, extra=extra))
    setting = Setting(url, OPENAI_CHAT, timeout_s=timeout_s)
    engine = engine or Engine(address or address_of(url, None, True))
    try:
        engine.warm_up(warm)
        feeder = feeder_of(
            stage or Stage(CLOSED, 1, 0.0, requests),
            time.monotonic(),
            lambda number, intended: GenerationJob(
                setting,
                Sample(number=number),
                body,
                intended=intended,
                finished=lambda job: samples.append(job.sample),
                wall=str,
            ),
        )
        engine.run(feeder)
    finally:
        engine.close()
    return engine.account, samples


def kinds(samples):
    return [sample.error_kind for sample in samples]
