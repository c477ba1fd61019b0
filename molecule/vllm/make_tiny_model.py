# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make a Llama of random weights that a real vLLM serves: 0.7 MB, in a second, without torch.

make_tiny_model.py FOLDER-OR-ARCHIVE.tar [HEAD_DIM]

The same call makes the same bytes, so that an archive can be declared by its digest.

Its vocabulary is the 256 bytes, so that every text can be asked. With a head_dim of 16 vLLM's CPU
build loads it, says that it is ready, and dies at the first request.
"""

from __future__ import annotations

import io
import json
import random
import struct
import sys
import tarfile
from pathlib import Path

HIDDEN, MIDDLE, VOCABULARY, LAYERS = 128, 256, 320, 2
SPECIAL = ("<s>", "</s>", "<unk>")
TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


def byte_alphabet() -> list[str]:
    """Return the characters that stand for the bytes 0 to 255, as byte-level tokenizers do."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = iter(range(256, 512))
    return sorted(chr(byte) if byte in plain else chr(next(shifted)) for byte in range(256))


def tokenizer() -> dict:
    """Return a byte-level tokenizer without merges."""
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *byte_alphabet()))}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": token, **flags, "special": True}
            for number, token in enumerate(SPECIAL)
        ],
        "normalizer": None,
        "pre_tokenizer": {**level, "use_regex": True},
        "post_processor": None,
        "decoder": {**level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [],
        },
    }


def config(head_dim: int) -> dict:
    """Return the model's configuration."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_size": HIDDEN,
        "intermediate_size": MIDDLE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HIDDEN // head_dim,
        "num_key_value_heads": 1,
        "head_dim": head_dim,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-06,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }


def shapes(head_dim: int) -> dict[str, list[int]]:
    """Return the shape of each tensor."""
    found = {
        "lm_head.weight": [VOCABULARY, HIDDEN],
        "model.embed_tokens.weight": [VOCABULARY, HIDDEN],
        "model.norm.weight": [HIDDEN],
    }
    for number in range(LAYERS):
        layer = f"model.layers.{number}"
        found[f"{layer}.input_layernorm.weight"] = [HIDDEN]
        found[f"{layer}.post_attention_layernorm.weight"] = [HIDDEN]
        found[f"{layer}.self_attn.q_proj.weight"] = [HIDDEN, HIDDEN]
        found[f"{layer}.self_attn.k_proj.weight"] = [head_dim, HIDDEN]
        found[f"{layer}.self_attn.v_proj.weight"] = [head_dim, HIDDEN]
        found[f"{layer}.self_attn.o_proj.weight"] = [HIDDEN, HIDDEN]
        found[f"{layer}.mlp.gate_proj.weight"] = [MIDDLE, HIDDEN]
        found[f"{layer}.mlp.up_proj.weight"] = [MIDDLE, HIDDEN]
        found[f"{layer}.mlp.down_proj.weight"] = [HIDDEN, MIDDLE]
    return found


def bfloat16(values: list[float]) -> bytes:
    """Encode numbers as the upper halves of single-precision ones."""
    raw = struct.pack(f"<{len(values)}f", *values)
    return b"".join(raw[start + 2 : start + 4] for start in range(0, len(raw), 4))


def safetensors(head_dim: int) -> bytes:
    """Return a file of random weights; norms are ones."""
    source = random.Random(7)  # noqa: S311 - weights, not secrets
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = bytearray()
    for name, shape in sorted(shapes(head_dim).items()):
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        norm = len(shape) == 1
        data = bfloat16([1.0 if norm else source.gauss(0.0, 0.02) for _index in range(count)])
        header[name] = {
            "dtype": "BF16",
            "shape": shape,
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + bytes(body)


def files(head_dim: int) -> dict[str, bytes]:
    """Return the model's files by name."""
    described = {"tokenizer_class": "PreTrainedTokenizerFast"} | {
        f"{name}_token": token for name, token in zip(("bos", "eos", "unk"), SPECIAL)
    }
    texts = {
        "config.json": json.dumps(config(head_dim), indent=2),
        "generation_config.json": json.dumps({"bos_token_id": 0, "eos_token_id": 1}),
        "tokenizer.json": json.dumps(tokenizer()),
        "tokenizer_config.json": json.dumps(described, indent=2),
        "chat_template.jinja": TEMPLATE,
    }
    return {
        **{name: text.encode() for name, text in texts.items()},
        "model.safetensors": safetensors(head_dim),
    }


def make(target: Path, head_dim: int) -> None:
    """Write the model's files, into a folder or an archive."""
    found = files(head_dim)
    if target.suffix == ".tar":
        with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
            for name, content in sorted(found.items()):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return
    target.mkdir(parents=True, exist_ok=True)
    for name, content in found.items():
        (target / name).write_bytes(content)


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 64)
