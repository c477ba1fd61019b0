# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Creating a model from another one or from uploaded files."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sim_ollama import fields, gguf, names, version
from sim_ollama.app import App
from sim_ollama.errors import ApiError
from sim_ollama.httpd import Request, Router
from sim_ollama.pull import PullError, Report, pull, report_all
from sim_ollama.store import LAYER_TYPE, MANIFEST_TYPE, InvalidDigestError, write_json

REPLACED = ("template", "system", "messages", "license")


def add_routes(router: Router) -> None:
    """Add this module's routes."""
    router.add("POST", "/api/create", handle_create)


def handle_create(app: App, request: Request) -> None:
    """Create a model, streamed or not."""
    body = request.json_body()
    name = names.parse(fields.model_name(body))
    if not name.is_valid():
        raise ApiError(400, "invalid model name")
    source = fields.text(body, "from")
    files = fields.mapping(body, "files")
    if not source and not files:
        raise ApiError(400, "neither 'from' or 'files' was specified")
    if source and not names.parse(source).is_valid():
        raise ApiError(400, "invalid model name")
    streamed = fields.boolean(body, "stream") is not False
    name = app.store.existing(name)

    def work(report: Report) -> None:
        if source:
            config, layers = _from_model(app, request, names.parse(source), report)
        else:
            config, layers = _from_files(app, files, report)
        _finish(app, name, body, config, layers, report)

    report_all(app, request, streamed, work)


def _from_model(
    app: App, request: Request, source: names.Name, report: Report
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    source = app.store.existing(source)
    try:
        manifest = app.store.read(source)
    except FileNotFoundError:
        pull(app, source, False, report, request.cancelled)
        manifest = app.store.read(source)
    config = json.loads(app.store.blob_path(str(manifest.config["digest"])).read_bytes())
    for layer in manifest.layers:
        report({"status": f"using existing layer {layer['digest']}"})
    return config, manifest.layers


def _from_files(
    app: App, files: dict[str, Any], report: Report
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    layers = []
    family = ""
    for digest in files.values():
        report({"status": "parsing GGUF"})
        try:
            path = app.store.blob_path(str(digest))
        except InvalidDigestError as exc:
            raise PullError(str(exc)) from None
        if not path.exists():
            raise PullError(f"open {path}: no such file or directory")
        head = gguf.read(path)
        family = str(head.get("general.architecture", ""))
        stored, size = str(digest), path.stat().st_size
        if version.at_least(app.version, "0.30.0"):
            report({"status": "validating GGUF model"})
            data = path.read_bytes() + b"\0" * 32
            layer = app.store.layer_from_bytes(data, "model")
            stored, size = str(layer["digest"]), len(data)
        layers.append({"mediaType": LAYER_TYPE + "model", "digest": stored, "size": size})
    config = {
        "model_format": "gguf",
        "model_family": family,
        "model_families": [family],
        "model_type": "1.0B",
        "file_type": "F16",
        "architecture": "amd64",
        "os": "linux",
    }
    return config, layers


def _finish(
    app: App,
    name: names.Name,
    body: dict[str, Any],
    config: dict[str, Any],
    layers: list[dict[str, Any]],
    report: Report,
) -> None:
    store = app.store
    for kind in REPLACED:
        value = body.get(kind)
        if value:
            layers = [x for x in layers if x["mediaType"] != LAYER_TYPE + kind]
            texts = value if kind == "license" and isinstance(value, list) else [value]
            for text in texts:
                data = text.encode() if isinstance(text, str) else write_json(text)
                layers.append(_new_layer(app, data, kind, report))
    params = fields.mapping(body, "parameters")
    if params:
        layers, merged = _merged_parameters(app, layers, params)
        data = write_json(dict(sorted(merged.items())))
        layers.append(_new_layer(app, data, "params", report))
    config["rootfs"] = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
    config_layer = _new_layer(app, write_json(config), "config", report)
    report({"status": "writing manifest"})
    try:
        old = set(store.read(name).digests())
    except (OSError, ValueError):
        old = set()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config_layer,
        "layers": layers,
    }
    store.write_manifest(name, write_json(manifest))
    if old and not app.env.no_prune:
        store.remove_unreferenced(sorted(old))
    report({"status": "success"})


def _merged_parameters(
    app: App, layers: list[dict[str, Any]], params: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    merged: dict[str, Any] = {}
    kept = []
    for layer in layers:
        if layer["mediaType"] == LAYER_TYPE + "params":
            merged.update(json.loads(app.store.blob_path(str(layer["digest"])).read_bytes()))
        else:
            kept.append(layer)
    merged.update(params)
    return kept, merged


def _new_layer(app: App, data: bytes, kind: str, report: Report) -> dict[str, Any]:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    known = app.store.blob_path(digest).exists()
    word = "using already created layer" if known else "creating new layer"
    report({"status": f"{word} {digest}"})
    return app.store.layer_from_bytes(data, kind)
