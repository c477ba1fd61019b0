# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""How each engine is made to work, and what it says about where its models lie.

Ollama tells it per model, in ``/api/ps``. vLLM has no such answer: on a GPU it reserves a part of
the card's memory for good and says so in ``/metrics``, and a build for processors shows there
that its cache lies in main memory. It doesn't fall back from the one to the other.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_facts import loaded_entry
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_ollama import GENERATE, Request
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Prepare, fetch_json
from ansible_collections.hx_infra.llm.plugins.module_utils._endpoint_check_ask import PATHS
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used import Claim, amount, amounts
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import WARN

# Short, so that little of the work is reading it; every model has a lot to say to it.
PROMPT = "Count from one to two thousand in words, one number per line."
# vLLM refuses a request whose answer could not fit into its context; several follow each other.
OLLAMA_TOKENS, VLLM_TOKENS = 1024, 256
_CONFIG = re.compile(r"^vllm:cache_config_info\{(.*)\} ", re.MULTILINE)
_RUNNING = re.compile(r"^vllm:num_requests_running(?:\{.*\})? (\S+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Engine:
    """One kind of engine.

    Attributes:
        path: where a generation is asked for.
        body: a model's request for a long, streamed answer.
        claim: what the engine says about a model; never raises.
        names: patterns of its programs that compute on a GPU.
        listeners: patterns of its program that listens, by the kernel's name of the process.
    """

    path: str
    body: Callable[[str], bytes]
    claim: Callable[[Prepare, str, float], Claim]
    names: tuple[str, ...]
    listeners: tuple[str, ...]


def ollama_body(model: str) -> bytes:
    """Return the request for a long answer of Ollama."""
    return Request(model, PROMPT, OLLAMA_TOKENS).body()


def ollama_claim(prepare: Prepare, model: str, timeout_s: float) -> Claim:
    """Return what ``/api/ps`` says about a model, as the command ``ollama ps`` reads it.

    ``size_vram`` that is absent is 0 (ollama/ollama#4840). The size of all models in GPU memory
    goes with it, for the runners of all of them are the engine's.
    """
    try:
        state = fetch_json(prepare, "/api/ps", timeout_s)
    except HostError as error:
        return Claim(None, str(error))
    entry = loaded_entry(state, model)
    if entry is None:
        return Claim(None, "GET /api/ps does not list the model as loaded")
    size, on_gpu = _sizes(entry)
    if size <= 0 or on_gpu > size:
        said = f"GET /api/ps gives size {size} and size_vram {on_gpu}, which tells nothing"
        return Claim(None, said, otherwise=WARN)
    entries = [one for one in state.get("models") or [] if isinstance(one, Mapping)]
    return Claim(
        on_gpu / size,
        f"size_vram {amounts(on_gpu, size)} in /api/ps",
        held_bytes=sum(_sizes(one)[1] for one in entries),
    )


def _sizes(entry: Mapping[str, Any]) -> tuple[int, int]:
    return int(entry.get("size") or 0), int(entry.get("size_vram") or 0)


def vllm_body(model: str) -> bytes:
    """Return the request for a long answer of vLLM."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": VLLM_TOKENS, "temperature": 0}
    return json.dumps({**body, "stream": True}).encode()


def vllm_claim(prepare: Prepare, _model: str, timeout_s: float) -> Claim:
    """Return what ``/metrics`` says about an engine of vLLM, which serves one model."""
    try:
        answer = prepare("GET", "/metrics", b"", timeout_s)()
        text = b"".join(answer.chunks).decode("utf-8", "replace")
        answer.close()
    except (OSError, http.client.HTTPException) as error:
        return Claim(None, f"GET /metrics failed: {error or type(error).__name__}")
    if answer.status != 200:
        return Claim(None, f"GET /metrics answered status {answer.status}, wanted 200")
    return claim_of_metrics(text)


def claim_of_metrics(text: str) -> Claim:
    """Read vLLM's own account of its cache from its metrics, over all engines of a server.

    The label ``cpu_kvcache_space_bytes`` has a value in the build for processors only (vLLM's
    ``platforms/cpu.py``), which also calls the blocks of that cache ``num_gpu_blocks``.
    """
    configs = [dict(_LABEL.findall(labels)) for labels in _CONFIG.findall(text)]
    if not configs:
        return Claim(None, "GET /metrics has no vllm:cache_config_info", otherwise=WARN)
    on_cpu = sum(_number(config.get("cpu_kvcache_space_bytes")) for config in configs)
    if on_cpu:
        said = f"{amount(on_cpu)} of cache in main memory, by vllm:cache_config_info"
        return Claim(0.0, said, held_bytes=0)
    blocks = int(sum(_number(config.get("num_gpu_blocks")) for config in configs))
    if not blocks:
        said = "vllm:cache_config_info has no num_gpu_blocks, which tells nothing"
        return Claim(None, said, otherwise=WARN)
    reserved = max(_number(config.get("gpu_memory_utilization")) for config in configs)
    running = int(sum(_number(value) for value in _RUNNING.findall(text)))
    said = f"{blocks} blocks of GPU cache, {reserved * 100:g} % of the memory reserved,"
    said += f" {running} running, by /metrics"
    return Claim(1.0, said, reserved_ratio=min(reserved, 1.0))


def _number(text: str | None) -> float:
    """Return a label's number; 0 for the ``None`` that vLLM writes."""
    try:
        return max(0.0, float(text or 0))
    except ValueError:
        return 0.0


OLLAMA = Engine(
    path=GENERATE,
    body=ollama_body,
    claim=ollama_claim,
    names=("ollama", "ollama_llama_server", "llama-server"),
    listeners=("ollama",),
)
VLLM = Engine(
    path=PATHS["completions"],
    body=vllm_body,
    claim=vllm_claim,
    names=("VLLM::*", "vllm"),
    listeners=("VLLM::*", "vllm", "python*"),
)
