# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Answer
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used_engines import (
    OLLAMA,
    VLLM,
    claim_of_metrics,
)

# The labels of a server of vLLM 0.32 on a card, shortened; a build for processors sets
# cpu_kvcache_space_bytes, which is "None" otherwise.
CONFIG = (
    'vllm:cache_config_info{block_size="16",cache_dtype="auto",cpu_kvcache_space_bytes="%s",'
    'engine="%d",gpu_memory_utilization="0.92",num_cpu_blocks="None",num_gpu_blocks="%s"} 1.0\n'
)
RUNNING = 'vllm:num_requests_running{engine="0",model_name="m"} 1.0\n'


def answering(body, status=200):
    def prepare(_method, _path, _body, _timeout_s):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return lambda: Answer(status, iter([data]))

    return prepare


def refused(*_):
    raise ConnectionRefusedError("connection refused")


def loaded(**sizes):
    return {"models": [{"name": "a:latest", **sizes}]}


@pytest.mark.parametrize(
    ("state", "ratio", "said"),
    [
        (loaded(size=4 * 10**9, size_vram=4 * 10**9), 1.0, "size_vram 4.00 of 4.00 GB in /api/ps"),
        (loaded(size=4 * 10**9, size_vram=10**9), 0.25, "size_vram 1.00 of 4.00 GB in /api/ps"),
        (loaded(size=4 * 10**9), 0.0, "size_vram 0.00 of 4.00 GB in /api/ps"),
        ({"models": []}, None, "GET /api/ps does not list the model as loaded"),
        ({"models": None}, None, "GET /api/ps does not list the model as loaded"),
        (loaded(size=0, size_vram=0), None, "size 0 and size_vram 0, which tells nothing"),
        (loaded(size=8, size_vram=9), None, "size 8 and size_vram 9, which tells nothing"),
        (b"<html>", None, "not JSON"),
    ],
)
def test_ollama(state, ratio, said):
    claim = OLLAMA.claim(answering(state), "a", 1.0)
    assert claim.ratio == ratio
    assert said in claim.said
    assert claim.otherwise == ("WARN" if "tells nothing" in said else "FAIL")


def test_ollamas_models_are_held_by_the_same_engine():
    state = {
        "models": [
            {"name": "a:latest", "size": 8, "size_vram": 6},
            {"name": "b:1b", "size": 5, "size_vram": 5},
            {"name": "c:1b", "size": 5},
        ]
    }
    claim = OLLAMA.claim(answering(state), "a", 1.0)
    assert (claim.ratio, claim.held_bytes) == (0.75, 11)


@pytest.mark.parametrize("engine", [OLLAMA, VLLM])
@pytest.mark.parametrize(("prepare", "said"), [(refused, "refused"), (answering({}, 503), "503")])
def test_an_engine_that_does_not_answer_claims_nothing(engine, prepare, said):
    claim = engine.claim(prepare, "a", 1.0)
    assert (claim.ratio, claim.otherwise) == (None, "FAIL")
    assert said in claim.said


def test_vllm_on_cards():
    text = CONFIG % ("None", 0, "573") + CONFIG % ("None", 1, "427") + RUNNING
    claim = VLLM.claim(answering(text.encode()), "m", 1.0)
    assert (claim.ratio, claim.reserved_ratio, claim.held_bytes) == (1.0, 0.92, None)
    assert claim.said == (
        "1000 blocks of GPU cache, 92 % of the memory reserved, 1 running, by /metrics"
    )


def test_vllm_for_processors():
    """That build calls the blocks of its cache GPU blocks too."""
    claim = claim_of_metrics(CONFIG % ("4294967296", 0, "1024") + RUNNING)
    assert claim.ratio == 0.0
    assert claim.said == "4.29 GB of cache in main memory, by vllm:cache_config_info"


@pytest.mark.parametrize("text", ["", "haproxy_up 1\n", CONFIG % ("None", 0, "None")])
def test_vllm_that_does_not_tell(text):
    claim = claim_of_metrics(text)
    assert (claim.ratio, claim.otherwise) == (None, "WARN")


@pytest.mark.parametrize("engine", [OLLAMA, VLLM])
def test_the_answer_that_is_asked_for_is_streamed_and_long(engine):
    body = json.loads(engine.body("m"))
    assert (body["model"], body["stream"]) == ("m", True)
    limit = body.get("max_tokens") or body["options"]["num_predict"]
    assert limit >= 256
