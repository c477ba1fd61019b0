# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What is measured: the engine and its version, the models' digests, the host's GPUs.

Two measurements are compared only when these agree. What can't be found out stays empty, and the
comparison says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_dialect import OLLAMA
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Prepare, fetch_json
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

TIMEOUT_S = 10.0


def canonical(model: str) -> str:
    """Return a model's name with its tag."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def engine_facts(prepare: Prepare, dialect: str, models: Iterable[str]) -> dict[str, Any]:
    """Return ``name``, ``version`` and ``digests`` (per model) of the engine behind a URL."""
    if dialect not in OLLAMA:
        version = _answer(prepare, "/version").get("version")  # vLLM's; a gateway has none
        if version:
            return {"name": "vllm", "version": str(version), "digests": {}}
    version = _answer(prepare, "/api/version").get("version")
    if not version:
        return {"name": "", "version": "", "digests": {}}
    found = {
        canonical(str(entry.get("name") or "")): str(entry.get("digest") or "")
        for entry in _answer(prepare, "/api/tags").get("models") or []
        if isinstance(entry, dict)
    }
    digests = {model: found.get(canonical(model), "") for model in models}
    return {"name": "ollama", "version": str(version), "digests": digests}


def gpu_ratio(prepare: Prepare, model: str) -> float | None:
    """Return which part of a loaded model lies in GPU memory, by Ollama's ``/api/ps``."""
    return loaded_ratio(_answer(prepare, "/api/ps"), model)


def loaded_ratio(state: Any, model: str) -> float | None:
    """Return which part of a loaded model lies in GPU memory, from the answer of ``/api/ps``."""
    entry = loaded_entry(state, model)
    if entry is None:
        return None
    size, on_gpu = entry.get("size") or 0, entry.get("size_vram") or 0
    return on_gpu / size if 0 <= on_gpu <= size and size else None


def loaded_entry(state: Any, model: str) -> Mapping[str, Any] | None:
    """Return what ``/api/ps`` says about a model; None when it is not loaded."""
    entries = state.get("models") if isinstance(state, dict) else None
    for entry in entries or []:
        if isinstance(entry, dict):
            name = str(entry.get("name") or entry.get("model") or "")
            if canonical(name) == canonical(model):
                return entry
    return None


def gpu_names(facts: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Return the names of the GPUs and the driver's version, from what ``read_gpus`` found."""
    names = tuple(str(gpu.get("name") or "") for gpu in facts.get("gpus") or [])
    return names, str((facts.get("driver") or {}).get("version") or "")


def _answer(prepare: Prepare, path: str) -> Mapping[str, Any]:
    """Return an object that a GET answers; an empty one where there is no such thing."""
    with contextlib.suppress(HostError):
        found = fetch_json(prepare, path, TIMEOUT_S)
        if isinstance(found, dict):
            return found
    return {}
