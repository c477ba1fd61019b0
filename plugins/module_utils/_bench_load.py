# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Generate the load of a benchmark: a closed loop of N clients per model, one model at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_ollama import (
    Request,
    Sample,
    measure,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Prepare, fetch_json
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

NONCE = "{nonce}"

Tell = Callable[[str, str, int, int, str], None]


@dataclass(frozen=True)
class Load:
    """The load for each model.

    Attributes:
        prompts: templates, used in turn; ``{nonce}`` becomes a text unique to the request.
        run_id: the part of that text that is unique to the run.
        iterations: measured requests per model, over all clients.
        warmup: requests per model before them, not measured.
        concurrency: clients that each send their next request when the last one is answered.
        num_predict: tokens to generate at most.
        think: let the model reason before it answers.
        timeout_s: time for one request.
        max_duration_s: time for everything; no request starts after it.
    """

    prompts: Sequence[str]
    run_id: str
    iterations: int = 3
    warmup: int = 1
    concurrency: int = 1
    num_predict: int = 128
    think: bool = False
    timeout_s: float = 120.0
    max_duration_s: float = 1800.0


@dataclass
class Measurement:
    """What the load told about one model.

    Attributes:
        model: the model asked.
        samples: the measured requests, in the order of their numbers.
        warmup: the requests before them.
        wall_s: time from the first measured request to the last answer.
        not_sent: requests that were due but not sent.
        gpu_ratio: part of the model that lies in GPU memory; None when the server did not say.
    """

    model: str
    samples: list[Sample] = field(default_factory=list)
    warmup: list[Sample] = field(default_factory=list)
    wall_s: float = 0.0
    not_sent: int = 0
    gpu_ratio: float | None = None


@dataclass(frozen=True)
class Tools:
    """What touches the world.

    Attributes:
        prepare: the transport.
        clock: monotonic seconds.
        timestamp: wall clock as RFC 3339.
        tell: takes model, phase, done, total and a note.
    """

    prepare: Prepare
    clock: Callable[[], float]
    timestamp: Callable[[], str]
    tell: Tell = lambda *_: None


def run_load(models: Sequence[str], load: Load, tools: Tools) -> list[Measurement]:
    """Measure one model after the other."""
    ends_at = tools.clock() + load.max_duration_s
    return [_measure_model(model, load, tools, ends_at) for model in models]


def unique_prompt(load: Load, model: str, phase: str, number: int) -> str:
    """Return the prompt of a request; no two requests share its beginning.

    A server that has seen the beginning of a prompt does not evaluate it again but counts it,
    which would flatter its prompt rate.
    """
    template = load.prompts[number % len(load.prompts)]
    nonce = f"{load.run_id}-{model}-{phase}-{number}"
    return template.replace(NONCE, nonce) if NONCE in template else f"[{nonce}] {template}"


def loaded_ratio(state: Any, model: str) -> float | None:
    """Return which part of a loaded model lies in GPU memory, from the answer of ``/api/ps``."""
    entry = loaded_entry(state, model)
    if entry is None:
        return None
    size, on_gpu = entry.get("size") or 0, entry.get("size_vram") or 0
    return on_gpu / size if 0 <= on_gpu <= size and size else None


def loaded_entry(state: Any, model: str) -> Mapping[str, Any] | None:
    """Return what ``/api/ps`` says about a model; None when it is not loaded."""
    entries = state.get("models") if isinstance(state, dict) else None
    for entry in entries or []:
        if canonical(str(entry.get("name") or entry.get("model") or "")) == canonical(model):
            return entry
    return None


def canonical(model: str) -> str:
    """Return a model's name with its tag."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def _measure_model(model: str, load: Load, tools: Tools, ends_at: float) -> Measurement:
    result = Measurement(model)
    for number in range(1, load.warmup + 1):
        if tools.clock() >= ends_at:
            break
        tools.tell(model, "warming up", number - 1, load.warmup, "")
        result.warmup.append(_one(model, "warmup", number, load, tools))
    if result.warmup and result.warmup[-1].error_kind:
        result.not_sent = load.iterations  # a model that cannot be warmed up cannot be measured
        return result
    begun = tools.clock()
    result.samples = _closed_loop(model, load, tools, ends_at)
    result.wall_s = tools.clock() - begun
    result.not_sent = load.iterations - len(result.samples)
    try:
        result.gpu_ratio = loaded_ratio(fetch_json(tools.prepare, "/api/ps", 10.0), model)
    except HostError:
        result.gpu_ratio = None
    return result


def _closed_loop(model: str, load: Load, tools: Tools, ends_at: float) -> list[Sample]:
    samples: list[Sample] = []
    numbers = iter(range(1, load.iterations + 1))
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                number = next(numbers, None) if tools.clock() < ends_at else None
            if number is None:
                return
            sample = _one(model, "measure", number, load, tools)
            with lock:
                samples.append(sample)
                tools.tell(model, "measuring", len(samples), load.iterations, _note(sample))

    tools.tell(model, "measuring", 0, load.iterations, "")
    if load.concurrency == 1:
        client()
    else:
        clients = [threading.Thread(target=client) for _client in range(load.concurrency)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
    return sorted(samples, key=lambda sample: sample.iteration)


def _one(model: str, phase: str, number: int, load: Load, tools: Tools) -> Sample:
    request = Request(
        model=model,
        prompt=unique_prompt(load, model, phase, number),
        max_tokens=load.num_predict,
        iteration=number,
        think=load.think,
        timeout_s=load.timeout_s,
    )
    return measure(tools.prepare, tools.clock, request, tools.timestamp())


def _note(sample: Sample) -> str:
    if sample.error_kind:
        return f"error: {sample.error_kind}"
    rate = "" if sample.tokens_per_s is None else f", {sample.tokens_per_s:.1f} tokens/s"
    return f"first token {sample.ttft_ms or 0:.0f} ms{rate}"
