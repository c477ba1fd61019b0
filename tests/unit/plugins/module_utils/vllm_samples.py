# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Minimal model configurations and hosts for the tests of vLLM's planner."""

from __future__ import annotations

from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_declaration import (
    Settings,
    services,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_files import ModelFiles
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_observe import Host
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_plan import plan

GIB = 1024**3
LLAMA_31_8B = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
QWEN3_8B = {
    "model_type": "qwen3",
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_size": 4096,
    "max_position_embeddings": 40960,
    "sliding_window": None,
    "use_sliding_window": False,
    "torch_dtype": "bfloat16",
}
MIXTRAL_8X7B = {
    "model_type": "mixtral",
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "num_local_experts": 8,
    "max_position_embeddings": 32768,
    "sliding_window": None,
    "torch_dtype": "bfloat16",
}
PHI_3_MINI = {
    "model_type": "phi3",
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "hidden_size": 3072,
    "max_position_embeddings": 4096,
    "sliding_window": 2047,
    "torch_dtype": "bfloat16",
}
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "hidden_size": 7168,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "max_position_embeddings": 163840,
    "torch_dtype": "bfloat16",
}


def gpu(index=0, gib=16, **more):
    return {
        "index": index,
        "uuid": f"GPU-{index}",
        "name": "NVIDIA GeForce RTX 5070 Ti",
        "state": "ok",
        "memory_total_bytes": gib * GIB,
        "memory_used_bytes": 0,
        "processes": [],
        **more,
    }


def service(name="a", port=8001, section=None, extra=None, performance=None, **model):
    declared = {
        "name": name,
        "service": {"port": port, **(section or {})},
        "model": {"path": f"/models/{name}", **model},
    }
    if extra is not None:
        declared["extra_args"] = extra
    if performance is not None:
        declared["performance"] = performance
    return declared


def settings(**more):
    return Settings(**{"host": "llm-01", "address": "10.0.0.1", **more})


def make(*declared, gpus=None, weights=5 * GIB, config=None, observed=None, files=None, **more):
    """Plan services on a host with a GPU of 16 GiB and a model of 5 GiB, unless told otherwise."""
    held = settings(**more)
    items = services(declared, held)
    known = ModelFiles(True, weights, LLAMA_31_8B if config is None else config, "test")
    observed = observed or Host(
        addresses={"10.0.0.1": ("10.0.0.1",)}, local=frozenset({"10.0.0.1"})
    )
    facts = {"state": "ok", "gpus": [gpu()] if gpus is None else list(gpus), "errors": []}
    return plan(
        items, held, observed, facts, {i.name: (files or {}).get(i.name, known) for i in items}
    )


def told(result):
    """Return the problems as (service.field, found, allowed)."""
    return [(f"{p['service']}.{p['field']}", p["found"], p["allowed"]) for p in result.problems]
