# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a stored model is: its parts, details and capabilities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from sim_ollama import gguf, names
from sim_ollama.errors import ApiError
from sim_ollama.store import Manifest, Store

EMBEDDING_FAMILIES = ("bert",)


class Model(NamedTuple):
    """One model with every part but its weights read into memory."""

    manifest: Manifest
    config: dict[str, Any]
    template: str
    system: str
    params: dict[str, Any]
    messages: list[dict[str, Any]]
    licenses: list[str]
    weights: Path | None
    weights_size: int

    @property
    def name(self) -> str:
        """The short name."""
        return self.manifest.name.short()

    @property
    def key(self) -> str:
        """What a runner is keyed by: the weights file."""
        return str(self.weights)

    def head(self) -> dict[str, Any] | None:
        """Return the weights' key-value pairs; None when the file cannot be opened."""
        try:
            return gguf.read(self.weights) if self.weights else None
        except OSError:
            return None
        except ValueError:
            return {}

    def capabilities(self) -> list[str]:
        """Return what the model can do; nothing when its weights cannot be opened."""
        head = self.head()
        if head is None:
            return []
        family = str(head.get("general.architecture", ""))
        if any(word in family for word in EMBEDDING_FAMILIES):
            return ["embedding"]
        found = ["completion"]
        if ".Tools" in self.template:
            found.append("tools")
        if ".Suffix" in self.template:
            found.append("insert")
        if ".Thinking" in self.template:
            found.append("thinking")
        return found


def details(config: dict[str, Any]) -> dict[str, Any]:
    """Return the `details` object of listings."""
    return {
        "parent_model": "",
        "format": config.get("model_format", ""),
        "family": config.get("model_family", ""),
        "families": config.get("model_families"),
        "parameter_size": config.get("model_type", ""),
        "quantization_level": config.get("file_type", ""),
    }


def read_config(store: Store, manifest: Manifest) -> dict[str, Any]:
    """Read a manifest's config blob: OSError when missing, ValueError when it is no JSON."""
    digest = manifest.config.get("digest")
    if not digest:
        return {}
    value = json.loads(store.blob_path(str(digest)).read_bytes())
    if not isinstance(value, dict):
        raise ValueError("json: cannot unmarshal value into Go value of type server.ConfigV2")
    return value


def load(store: Store, name: names.Name, asked: str) -> Model:
    """Read a model: 404 when the manifest or any small part is missing, 500 when it is broken."""
    try:
        manifest = store.read(store.existing(name))
        config = read_config(store, manifest)
        template = _text(store, manifest, "template") or _text(store, manifest, "prompt")
        return Model(
            manifest=manifest,
            config=config,
            template=template or "{{ .Prompt }}",
            system=_text(store, manifest, "system"),
            params=json.loads(_text(store, manifest, "params") or "{}"),
            messages=json.loads(_text(store, manifest, "messages") or "[]"),
            licenses=[
                _blob_text(store, layer)
                for layer in manifest.layers
                if str(layer.get("mediaType", "")).endswith(".license")
            ],
            weights=_weights(store, manifest),
            weights_size=int((manifest.layer("model") or {}).get("size", 0)),
        )
    except OSError:
        raise ApiError(404, f"model '{asked}' not found") from None
    except ValueError as exc:
        raise ApiError(500, str(exc)) from None


def _weights(store: Store, manifest: Manifest) -> Path | None:
    layer = manifest.layer("model")
    return store.blob_path(str(layer["digest"])) if layer else None


def _text(store: Store, manifest: Manifest, kind: str) -> str:
    layer = manifest.layer(kind)
    return _blob_text(store, layer) if layer else ""


def _blob_text(store: Store, layer: dict[str, Any]) -> str:
    return store.blob_path(str(layer["digest"])).read_text(encoding="utf-8", errors="replace")
