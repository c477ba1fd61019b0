# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write deterministic model stores for the lab: same digests on every machine and run."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pwd
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sim_ollama import gguf, names
from sim_ollama.store import CONFIG_TYPE, LAYER_TYPE, MANIFEST_TYPE, Store, write_json

MIB = 1024 * 1024
SPARSE_SIZE = 24 * MIB
SPARSE_DATA = 384 * 1024

LICENSES = {
    "apache": "Apache License, Version 2.0 (stand-in text of the lab, not the licence itself).\n",
    "llama": "LLAMA 3.2 Community License (stand-in text of the lab, not the licence itself).\n",
    "mit": "MIT License (stand-in text of the lab, not the licence itself).\n",
    "gemma": "Gemma Terms of Use (stand-in text of the lab, not the terms themselves).\n",
}

CHAT_TEMPLATE = (
    "{{- if .System }}<|system|>\n{{ .System }}<|end|>\n{{ end }}"
    "{{- range .Messages }}<|{{ .Role }}|>\n{{ .Content }}<|end|>\n{{ end }}<|assistant|>\n"
)
THINKING_TEMPLATE = CHAT_TEMPLATE + "{{- if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}"


class Spec(NamedTuple):
    """One model to generate."""

    name: str
    family: str
    parameters: str
    quantization: str
    weights_mib: int
    license: str
    blocks: int
    context: int
    thinking: bool = False


SETS = {
    "llm-01": [
        Spec("llama3.2:3b", "llama", "3.2B", "Q4_K_M", 20, "llama", 28, 131072),
        Spec("qwen3:1.7b", "qwen3", "2.0B", "Q4_K_M", 14, "apache", 28, 40960, True),
        Spec("mistral-small3.2:latest", "mistral3", "24.0B", "Q4_K_M", 60, "apache", 40, 131072),
    ],
    "llm-02": [
        Spec("phi3:latest", "phi3", "3.8B", "Q4_0", 22, "mit", 32, 131072),
        Spec("gemma2:2b", "gemma2", "2.6B", "Q4_0", 16, "gemma", 26, 8192),
        Spec("cogito:32b", "qwen2", "32.8B", "Q4_K_M", 70, "apache", 64, 131072),
        Spec("deepcoder:14b", "qwen2", "14.8B", "Q4_K_M", 45, "mit", 48, 131072),
        Spec("dolphin3:8b", "llama", "8.0B", "Q4_K_M", 30, "llama", 32, 131072),
    ],
}
SETS["tiny"] = [  # a set for quick tests, never seeded in the lab
    Spec("tiny:1b", "llama", "1.0B", "Q4_0", 1, "apache", 8, 4096),
    Spec("tiny-think:1b", "qwen3", "1.0B", "Q4_0", 1, "apache", 8, 4096, True),
]


def weights(spec: Spec) -> bytes:
    """Return the weights: a GGUF head, then pseudo-random bytes from the model's name."""
    head = gguf.header(
        {
            "general.architecture": spec.family,
            "general.basename": spec.name.split(":")[0],
            "general.size_label": spec.parameters,
            f"{spec.family}.block_count": spec.blocks,
            f"{spec.family}.context_length": spec.context,
            f"{spec.family}.embedding_length": 2048,
        }
    )
    size = spec.weights_mib * MIB
    noise = hashlib.shake_256(f"hx-infra weights {spec.name}".encode()).digest(size - len(head))
    return head + noise


def build(spec: Spec, store: Store) -> dict[str, object]:
    """Write one model into the store and return its name, digest and size."""
    parts = {
        "model": weights(spec),
        "template": (THINKING_TEMPLATE if spec.thinking else CHAT_TEMPLATE).encode(),
        "license": LICENSES[spec.license].encode(),
        "params": write_json({"stop": ["<|end|>", "<|user|>"], "temperature": 0.7}),
    }
    config = {
        "model_format": "gguf",
        "model_family": spec.family,
        "model_families": [spec.family],
        "model_type": spec.parameters,
        "file_type": spec.quantization,
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [_digest(data) for data in parts.values()]},
    }
    parts["config"] = write_json(config)
    layers = []
    for kind, data in parts.items():
        layer = {
            "mediaType": CONFIG_TYPE if kind == "config" else LAYER_TYPE + kind,
            "digest": _digest(data),
            "size": len(data),
        }
        layers.append(layer)
        _write(store.blob_path(layer["digest"]), data)
    manifest = write_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": layers.pop(),
            "layers": layers,
        }
    )
    name = names.parse(spec.name)
    _write(store.manifests_dir / name.path(), manifest)
    digest = hashlib.sha256(manifest).hexdigest()
    return {
        "name": name.short(),
        "id": digest[:12],
        "digest": digest,
        "size": sum(len(data) for data in parts.values()),
    }


def seed_partials(store: Store, count: int) -> list[str]:
    """Write exactly count files of broken-off downloads and return their names."""
    written: list[str] = []
    group = 0
    while len(written) < count:
        digest = hashlib.sha256(f"hx-infra partial {group}".encode()).hexdigest()
        base = store.blobs / f"sha256-{digest}-partial"
        with base.open("wb") as file:
            file.write(hashlib.shake_256(digest.encode()).digest(SPARSE_DATA))
            file.truncate(SPARSE_SIZE)
        written.append(base.name)
        parts = 1 + group % 3
        for number in range(parts):
            if len(written) >= count:
                break
            size = SPARSE_SIZE // parts
            done = SPARSE_DATA if number == 0 else 0
            part = {"N": number, "Offset": number * size, "Size": size, "Completed": done}
            _write(base.with_name(f"{base.name}-{number}"), write_json(part) + b"\n")
            written.append(f"{base.name}-{number}")
        group += 1
    return written


def make(out: Path, models: list[Spec], partials: int = 0) -> list[dict[str, object]]:
    """Write models and partial downloads below out and describe the models."""
    store = Store(out)
    store.prepare()
    listing = [build(spec, store) for spec in models]
    seed_partials(store, partials)
    return listing


def specs(wanted: str) -> list[Spec]:
    """Return the models of a set, of `all`, or of a comma list of model names."""
    known = {spec.name: spec for group in SETS.values() for spec in group}
    if wanted == "all":
        return SETS["llm-01"] + SETS["llm-02"]
    if wanted in SETS:
        return SETS[wanted]
    missing = [name for name in wanted.split(",") if name not in known]
    if missing:
        raise SystemExit(f"unknown model or set {', '.join(missing)}; known: {', '.join(known)}")
    return [known[name] for name in wanted.split(",")]


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o644)


def _chown(out: Path, owner: str) -> None:
    user, _colon, group = owner.partition(":")
    entry = pwd.getpwnam(user)
    for folder, _dirs, files in os.walk(out):
        for path in [Path(folder), *(Path(folder) / f for f in files)]:
            shutil.chown(path, entry.pw_uid, group or entry.pw_gid)


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="the store's root (holds blobs/ and manifests/)")
    parser.add_argument("--set", dest="wanted", default="all", help="llm-01, llm-02, all or names")
    parser.add_argument("--owner", default="", help="user[:group] that shall own the files")
    parser.add_argument("--partials", type=int, default=0, help="number of partial files to seed")
    parser.add_argument("--list", action="store_true", help="print names, digests, sizes as JSON")
    args = parser.parse_args(argv)
    if args.out is None:
        parser.error("--out is needed")
    os.umask(0o022)
    listing = make(args.out, specs(args.wanted), args.partials)
    if args.owner:
        _chown(args.out, args.owner)
    if args.list:
        print(json.dumps(listing, indent=2))
    return 0


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    raise SystemExit(main())
