# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What a model's ``config.json`` says about its memory: layers, heads, context, data types.

What it doesn't say is left out and named; nothing is filled in by guessing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_BYTES = {
    "bfloat16": 2,
    "float16": 2,
    "half": 2,
    "float32": 4,
    "float": 4,
}
_KV_BYTES = {
    "float16": 2,
    "bfloat16": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
}
# Fields that name the number of KV heads, as vLLM 0.32 looks for them
# (transformers_utils/model_arch_config_convertor.py).
_KV_HEADS = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num")
_RECURRENT = ("mamba", "linear_attention", "recurrent", "conv")
_STATE_FIELDS = ("ssm_state_size", "mamba_d_state", "state_size", "linear_num_key_heads")


@dataclass(frozen=True)
class Shape:
    """What the KV cache of a model depends on; None is a value that isn't known."""

    layers: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    context: int | None = None
    dtype: str = ""
    quantization: str = ""
    unknown: str = ""  # why the KV cache can't be computed
    at_most: str = ""  # why the computed KV cache is an upper bound


def shape_of(config: Mapping[str, Any] | None) -> Shape:
    """Read a model's ``config.json``; None when there is none to read."""
    if config is None:
        return Shape(unknown="config.json can't be read yet")
    text = config.get("text_config")
    inner: Mapping[str, Any] = text if isinstance(text, Mapping) else config
    layers = _whole(inner.get("num_hidden_layers"))
    heads = _whole(inner.get("num_attention_heads"))
    declared = [inner[name] for name in _KV_HEADS if inner.get(name) is not None]
    kv_heads = _whole(declared[0]) if declared else heads
    head_dim = _whole(inner.get("head_dim"))
    hidden = _whole(inner.get("hidden_size"))
    if head_dim is None and hidden and heads:
        head_dim = hidden // heads
    missing = [
        name
        for name, value in (
            ("num_hidden_layers", layers),
            ("num_attention_heads", heads),
            ("num_key_value_heads", kv_heads),
            ("head_dim or hidden_size", head_dim),
        )
        if value is None
    ]
    unknown = _unusual(config, inner)
    if not unknown and missing:
        unknown = f"config.json doesn't say {', '.join(missing)}"
    return Shape(
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        context=_whole(inner.get("max_position_embeddings")),
        dtype=_dtype(config, inner),
        quantization=_quantization(config, inner),
        unknown=unknown,
        at_most=_windowed(inner),
    )


def _unusual(config: Mapping[str, Any], inner: Mapping[str, Any]) -> str:
    """Say why the formula of plain attention doesn't hold; empty when it does."""
    state = "some layers keep a state in place of keys and values"
    kinds = inner.get("layer_types") or inner.get("layers_block_type") or []
    recurrent = any(word in str(kind) for kind in kinds for word in _RECURRENT)
    states = [name for name in _STATE_FIELDS if inner.get(name) is not None]
    reasons = (
        (
            inner.get("kv_lora_rank") is not None,
            "the model uses multi-head latent attention (kv_lora_rank)",
        ),
        (recurrent, f"{state} (layer_types)"),
        (states, f"{state} ({', '.join(states)})"),
        (config.get("is_encoder_decoder"), "the model has an encoder and a decoder"),
        (inner.get("block_configs"), "the layers differ from each other (block_configs)"),
        (
            inner.get("num_kv_shared_layers"),
            "layers share their keys and values (num_kv_shared_layers)",
        ),
    )
    return next((text for holds, text in reasons if holds), "")


def _windowed(inner: Mapping[str, Any]) -> str:
    """Say why the cache may be smaller than the formula; empty when it can't be."""
    window = inner.get("sliding_window")
    if window and inner.get("use_sliding_window", True):
        return f"attention over a sliding window of {window} tokens"
    if any("sliding" in str(kind) or "chunked" in str(kind) for kind in _kinds(inner)):
        return "attention over a sliding window in some layers"
    return ""


def _kinds(inner: Mapping[str, Any]) -> list[Any]:
    kinds = inner.get("layer_types")
    return list(kinds) if isinstance(kinds, list) else []


def _dtype(config: Mapping[str, Any], inner: Mapping[str, Any]) -> str:
    for place in (config, inner):
        for name in ("dtype", "torch_dtype"):
            if isinstance(place.get(name), str):
                return str(place[name]).replace("torch.", "")
    return ""


def _quantization(config: Mapping[str, Any], inner: Mapping[str, Any]) -> str:
    for place in (config, inner):
        for name in ("quantization_config", "compression_config"):
            block = place.get(name)
            if isinstance(block, Mapping):
                method = str(block.get("quant_method") or "of an unnamed kind").lower()
                return method.replace("compressed_tensors", "compressed-tensors")
    return ""


def _whole(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    return None


def dtype_bytes(declared: str, shape: Shape) -> int:
    """Return the bytes of one activation.

    ``auto`` never means more than 2: vLLM turns a float32 checkpoint into a half-precision one.
    """
    return _BYTES.get(declared, 2)


def loaded_share(declared: str, shape: Shape) -> float:
    """Return how many bytes in memory a byte of weights on disk becomes."""
    stored = _BYTES.get(shape.dtype)
    if shape.quantization or not stored:
        return 1.0
    return dtype_bytes(declared, shape) / stored


def kv_element_bytes(kv_dtype: str, declared: str, shape: Shape) -> int | None:
    """Return the bytes of one element of the KV cache; None when it isn't known."""
    if kv_dtype == "auto":
        return dtype_bytes(declared, shape)
    return _KV_BYTES.get(kv_dtype)


def kv_bytes_per_token(
    shape: Shape, element_bytes: int, tensor_parallel: int = 1, pipeline_parallel: int = 1
) -> int:
    """Return the KV cache of one token on the fullest worker.

    KV heads are split over the workers of a layer and copied when there are fewer of them than
    workers; a stage has its part of the layers, rounded up.
    """
    if not (shape.layers and shape.kv_heads and shape.head_dim):
        raise ValueError("the shape is not known")
    heads = max(1, shape.kv_heads // tensor_parallel)
    layers = -(-shape.layers // pipeline_parallel)
    return 2 * layers * heads * shape.head_dim * element_bytes
