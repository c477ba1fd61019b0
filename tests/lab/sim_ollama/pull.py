# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pulling a model: the status sequence, cache hits without a check, verification, pruning."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, Callable

from sim_ollama import download, fields, log, names, version
from sim_ollama.app import App
from sim_ollama.errors import ApiError, ClientGoneError
from sim_ollama.httpd import NdjsonStream, Request, Router
from sim_ollama.registry_client import Client, RegistryError
from sim_ollama.store import StoreError, write_json

Report = Callable[[dict[str, Any]], None]


class PullError(Exception):
    """A pull that failed, with the text that the client sees."""


def add_routes(router: Router) -> None:
    """Add this module's routes."""
    router.add("POST", "/api/pull", handle_pull)
    router.add("POST", "/api/push", handle_push)


def handle_pull(app: App, request: Request) -> None:
    """Pull a model, streamed or not."""
    body = request.json_body()
    name = names.parse(fields.model_name(body))
    insecure = bool(fields.boolean(body, "insecure"))
    streamed = fields.boolean(body, "stream") is not False
    if not name.is_valid():
        raise ApiError(400, "invalid model name")
    name = app.store.existing(name)
    report_all(
        app, request, streamed, lambda report: pull(app, name, insecure, report, request.cancelled)
    )


def handle_push(_app: App, request: Request) -> None:
    """Refuse: the lab has no registry to push to."""
    request.json_body()
    raise ApiError(500, "push is not simulated")


def report_all(app: App, request: Request, streamed: bool, work: Callable[[Report], None]) -> None:
    """Run work that reports progress; without a stream only its last word is answered."""
    real_status = version.at_least(app.version, "0.12.6")
    stream = NdjsonStream(request, real_status, False)
    last: dict[str, Any] = {}

    def report(line: dict[str, Any]) -> None:
        last.clear()
        last.update(line)
        if streamed:
            stream.send(line)

    try:
        work(report)
    except (PullError, RegistryError, StoreError, OSError, ValueError) as exc:
        if request.cancelled():
            raise ClientGoneError from None
        text = _error_text(exc)
        if streamed:
            stream.fail(500, text)
            return
        raise ApiError(500, text) from None
    if streamed:
        stream.end()
    else:
        request.json(200, dict(last), "application/json")


def pull(
    app: App, name: names.Name, insecure: bool, report: Report, cancelled: Callable[[], bool]
) -> None:
    """Fetch the manifest and every layer, verify what was fetched, write the manifest."""
    store = app.store
    old = _old_digests(app, name)
    report({"status": "pulling manifest"})
    client = Client(name, insecure, app.settings)
    try:
        raw = client.manifest()
        manifest = json.loads(raw)
    except (RegistryError, ValueError) as exc:
        raise PullError(f"pull model manifest: {exc}") from None
    layers = list(manifest.get("layers") or [])
    if (manifest.get("config") or {}).get("digest"):
        layers.append(manifest["config"])
    fetched = []
    for layer in layers:
        if not _cache_hit(app, layer, report):
            _fetch(app, client, layer, report, cancelled)
            fetched.append(layer["digest"])
    report({"status": "verifying sha256 digest"})
    for digest in fetched:
        _verify(app, digest)
    report({"status": "writing manifest"})
    if not version.at_least(app.version, "0.19.0"):
        raw = _serialised(manifest)
    store.write_manifest(name, raw)
    unused = sorted(old - {layer["digest"] for layer in layers})
    if unused and not app.env.no_prune:
        report({"status": "removing unused layers"})
        store.remove_unreferenced(unused)
    report({"status": "success"})


def _old_digests(app: App, name: names.Name) -> set[str]:
    try:
        return set(app.store.read(name).digests())
    except FileNotFoundError:
        return set()
    except (OSError, ValueError) as exc:
        log.warn("images.go:560", "pulling model with bad existing manifest", error=exc)
        return set()


def _cache_hit(app: App, layer: dict[str, Any], report: Report) -> bool:
    digest = str(layer["digest"])
    try:
        size = app.store.blob_path(digest).stat().st_size
    except FileNotFoundError:
        return False
    report(_progress(digest, size, size))
    return True


def _fetch(
    app: App,
    client: Client,
    layer: dict[str, Any],
    report: Report,
    cancelled: Callable[[], bool],
) -> None:
    digest = str(layer["digest"])
    job = app.downloads.join(client, app.store.blob_path(digest), digest)
    try:
        download.wait(job, lambda total, done: report(_progress(digest, total, done)), cancelled)
    finally:
        app.downloads.leave(job)


def _verify(app: App, digest: str) -> None:
    path = app.store.blob_path(digest)
    with path.open("rb") as file:
        found = hashlib.sha256()
        while True:
            data = file.read(1 << 20)
            if not data:
                break
            found.update(data)
    got = "sha256:" + found.hexdigest()
    if got != digest:
        path.unlink()
        raise PullError(f"digest mismatch, file must be downloaded again: want {digest}, got {got}")


def _progress(digest: str, total: int, completed: int) -> dict[str, Any]:
    line: dict[str, Any] = {"status": f"pulling {digest[7:19]}", "digest": digest}
    if total:
        line["total"] = total
    if completed:
        line["completed"] = completed
    return line


def _serialised(manifest: dict[str, Any]) -> bytes:
    keys = ("mediaType", "digest", "size", "from", "name")

    def descriptor(value: dict[str, Any]) -> dict[str, Any]:
        return {key: value[key] for key in keys if key in value}

    return write_json(
        {
            "schemaVersion": manifest.get("schemaVersion", 2),
            "mediaType": manifest.get("mediaType", ""),
            "config": descriptor(manifest.get("config") or {}),
            "layers": [descriptor(layer) for layer in manifest.get("layers") or []],
        }
    )


def _error_text(exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.filename:
        return f"open {exc.filename}: {os.strerror(exc.errno or 5).lower()}"
    return str(exc)
