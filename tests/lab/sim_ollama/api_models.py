# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Endpoints that look at and change the store: version, tags, show, copy, delete, blobs."""

from __future__ import annotations

import contextlib
from typing import Any

from sim_ollama import fields, log, models, names, version
from sim_ollama.app import App
from sim_ollama.errors import ApiError
from sim_ollama.httpd import TEXT, Request, Router
from sim_ollama.store import InvalidDigestError, Manifest, StoreError


def add_routes(router: Router) -> None:
    """Add this module's routes."""
    router.add("GET HEAD", "/", root)
    router.add("GET HEAD", "/api/version", show_version)
    router.add("GET", "/api/status", status)
    router.add("GET HEAD", "/api/tags", tags)
    router.add("GET", "/api/ps", running)
    router.add("POST", "/api/show", show)
    router.add("DELETE", "/api/delete", delete)
    router.add("POST", "/api/copy", copy)
    router.add("HEAD", "/api/blobs/:", head_blob)
    router.add("POST", "/api/blobs/:", create_blob)


def root(_app: App, request: Request) -> None:
    """Say that the server runs."""
    request.send(200, b"Ollama is running", TEXT)


def show_version(app: App, request: Request) -> None:
    """Answer the version of the running server."""
    request.json(200, {"version": app.version})


def status(app: App, request: Request) -> None:
    """Answer whether cloud models are disabled (from 0.16.2)."""
    if not version.at_least(app.version, "0.16.2"):
        request.send(404, b"404 page not found", TEXT)
        return
    source = "env" if app.env.no_cloud else "none"
    request.json(200, {"cloud": {"disabled": app.env.no_cloud, "source": source}})


def tags(app: App, request: Request) -> None:
    """List models from manifests alone: missing weights change nothing."""
    found = []
    for manifest in app.store.manifests():
        config = listed_config(app, manifest)
        if config is None:
            continue
        entry = {
            "name": manifest.name.short(),
            "model": manifest.name.short(),
            "modified_at": fields.timestamp(manifest.mtime),
            "size": manifest.size,
            "digest": manifest.digest,
            "details": models.details(config),
        }
        if version.at_least(app.version, "0.30.0") and not _add_capabilities(app, manifest, entry):
            continue
        found.append((int(manifest.mtime), entry))
    found.sort(key=lambda item: -item[0])
    request.json(200, {"models": [entry for _time, entry in found]})


def _add_capabilities(app: App, manifest: Manifest, entry: dict[str, Any]) -> bool:
    """Add what newer versions list; false drops a model whose template is gone."""
    template = manifest.layer("template")
    if template and not app.store.blob_path(str(template["digest"])).exists():
        name = manifest.name.full()
        log.warn("model_list_cache.go:189", "failed to refresh model list cache", model=name)
        return False
    entry["capabilities"] = []
    with contextlib.suppress(ApiError):  # another small part is gone: it isn't looked at
        model = models.load(app.store, manifest.name, manifest.name.short())
        entry["details"].update(_lengths(model.head() or {}))
        entry["capabilities"] = model.capabilities()
    return True


def listed_config(app: App, manifest: Manifest) -> dict[str, Any] | None:
    """Return the config of a listed model; None drops the model from the list."""
    try:
        return models.read_config(app.store, manifest)
    except (OSError, ValueError, StoreError) as exc:
        log.warn("routes.go:877", "bad manifest config", name=manifest.name.full(), error=exc)
        return None


def running(app: App, request: Request) -> None:
    """List loaded models with their size in all and on GPUs."""
    found = []
    for runner in app.scheduler.loaded():
        manifest = runner.model.manifest
        found.append(
            {
                "name": runner.model.name,
                "model": runner.model.name,
                "size": runner.size,
                "digest": manifest.digest,
                "details": models.details(runner.model.config),
                "expires_at": fields.timestamp(runner.expires_at),
                "size_vram": runner.size_vram,
                "context_length": runner.context,
            }
        )
    request.json(200, {"models": found})


def show(app: App, request: Request) -> None:
    """Describe one model."""
    body = request.json_body()
    asked = fields.model_name(body)
    if not asked:
        raise ApiError(400, "model is required")
    name = names.parse(asked)
    if not name.is_valid():
        raise ApiError(400, "invalid model name")
    model = models.load(app.store, name, asked)
    head = model.head() or {}
    answer: dict[str, Any] = {
        "license": "\n".join(model.licenses),
        "modelfile": _modelfile(model),
        "parameters": _parameters(model.params),
        "template": model.template,
        "system": model.system,
        "details": models.details(model.config),
        "messages": model.messages,
        "model_info": {k: v for k, v in head.items() if v != ""},
        "capabilities": model.capabilities(),
        "modified_at": fields.timestamp(model.manifest.mtime),
    }
    if fields.boolean(body, "verbose"):
        answer["tensors"] = []
    keep = ("details", "model_info", "capabilities", "modified_at")
    request.json(200, {k: v for k, v in answer.items() if v or k in keep})


def delete(app: App, request: Request) -> None:
    """Remove a model; a loaded one stays in memory until it expires."""
    asked = fields.model_name(request.json_body())
    name = names.parse(asked)
    if not name.is_valid():
        raise ApiError(400, f'name "{asked}" is invalid')
    try:
        manifest = app.store.read(app.store.existing(name))
    except FileNotFoundError:
        raise ApiError(404, f"model '{asked}' not found") from None
    except (OSError, ValueError) as exc:
        raise ApiError(500, str(exc)) from None
    try:
        app.store.delete(manifest)
    except OSError as exc:
        raise ApiError(500, str(exc)) from None
    request.send(200)


def copy(app: App, request: Request) -> None:
    """Give a model a second name: only the manifest is duplicated."""
    body = request.json_body()
    parsed = {}
    for key in ("source", "destination"):
        name = names.parse(fields.text(body, key))
        if not name.is_valid():
            raise ApiError(400, f'{key} "{fields.text(body, key)}" is invalid')
        parsed[key] = app.store.existing(name)
    try:
        app.store.copy(parsed["source"], parsed["destination"])
    except FileNotFoundError:
        raise ApiError(404, f'model "{fields.text(body, "source")}" not found') from None
    except (OSError, StoreError) as exc:
        raise ApiError(500, str(exc)) from None
    request.send(200)


def head_blob(app: App, request: Request) -> None:
    """Say whether a blob is there."""
    try:
        path = app.store.blob_path(request.argument)
    except InvalidDigestError as exc:
        raise ApiError(400, str(exc)) from None
    if not path.exists():
        raise ApiError(404, f'blob "{request.argument}" not found')
    request.send(200)


def create_blob(app: App, request: Request) -> None:
    """Take an upload; a wrong digest leaves it stored under its true one."""
    try:
        path = app.store.blob_path(request.argument)
    except InvalidDigestError as exc:
        raise ApiError(400, str(exc)) from None
    if path.exists():
        request.send(200)
        return
    if app.settings.fault("disk_full_after_bytes"):
        raise ApiError(500, f"write {path}: no space left on device")
    try:
        digest = app.store.layer_from_reader(request.read)
    except OSError as exc:
        text = (exc.strerror or str(exc)).lower()
        raise ApiError(500, f"write {path}: {text}") from None
    if digest != request.argument:
        raise ApiError(400, f'digest mismatch, expected "{request.argument}", got "{digest}"')
    request.send(201)


def _lengths(head: dict[str, Any]) -> dict[str, Any]:
    wanted = ("context_length", "embedding_length")
    return {key.rsplit(".", 1)[1]: v for key, v in head.items() if key.endswith(wanted)}


def _parameters(params: dict[str, Any]) -> str:
    lines = []
    for key, value in params.items():
        for item in value if isinstance(value, list) else [value]:
            shown = f'"{item}"' if isinstance(item, str) else item
            lines.append(f"{key:<30} {shown}")
    return "\n".join(lines)


def _modelfile(model: models.Model) -> str:
    lines = [
        '# Modelfile generated by "ollama show"',
        "# To build a new Modelfile based on this, replace FROM with:",
        f"# FROM {model.name}",
        "",
        f"FROM {model.weights}",
        f'TEMPLATE """{model.template}"""',
    ]
    if model.system:
        lines.append(f"SYSTEM {model.system}")
    for key, value in model.params.items():
        lines += [f"PARAMETER {key} {v}" for v in (value if isinstance(value, list) else [value])]
    lines += [f'LICENSE """{text}"""' for text in model.licenses]
    return "\n".join(lines) + "\n"
