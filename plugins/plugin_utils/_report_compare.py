# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The before and after of a host: one row for each thing that a reader asks about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_text as text

State = Mapping[str, Any]
NOTHING = "none"


def rows(before: State, after: State) -> list[dict[str, Any]]:
    """Return label, value before, value after and whether they differ."""
    if not before and not after:
        return []
    compared = []
    for label, tell in TOLD:
        old, new = _told(tell, before), _told(tell, after)
        if old or new:
            compared.append({"label": label, "before": old, "after": new, "changed": old != new})
    for kind in ("units", "timers"):
        for name in _names(before, after, kind):
            old, new = _unit(before, kind, name), _unit(after, kind, name)
            compared.append({"label": name, "before": old, "after": new, "changed": old != new})
    return compared


def reclaimed(before: State, after: State) -> int:
    """Return the bytes of partial downloads and unreferenced blobs that are gone."""
    if not before or not after:
        return 0
    return max(0, _left_over(before) - _left_over(after))


def left_over(state: State) -> int:
    """Return the bytes of partial downloads and unreferenced blobs that there are."""
    return _left_over(state) if state else 0


def models(state: State) -> list[Mapping[str, Any]]:
    """Return the models of all stores, each name once."""
    found = {model["name"]: model for store in state.get("stores", []) for model in store["models"]}
    return [found[name] for name in sorted(found)]


def _told(tell: Callable[[State], str], state: State) -> str:
    return tell(state) if state else ""


def _left_over(state: State) -> int:
    return sum(
        int(store.get("partial_bytes") or 0) + int(store.get("orphan_bytes") or 0)
        for store in state.get("stores", [])
    )


def _mounts(state: State) -> str:
    found = state.get("mounts", [])
    return ", ".join(f"{item['device']} at {item['target']}" for item in found) or "not mounted"


def _path(number: int) -> Callable[[State], str]:
    """Tell what stands at one of the standard paths, by its place in the list."""

    def tell(state: State) -> str:
        links = state.get("links", [])
        if len(links) <= number:
            return ""
        item = links[number]
        kinds = {"dir": "directory", "mount": "mount point"}
        kind = kinds.get(item["kind"], item["kind"])
        told = f"link to {item['target']}" if item["kind"] == "link" else kind
        return f"{item['path']}: {told}"

    return tell


def _stores(state: State) -> str:
    return ", ".join(store["path"] for store in state.get("stores", [])) or NOTHING


def _models(state: State) -> str:
    names = [model["name"] for model in models(state)]
    return f"{len(names)}: {', '.join(names)}" if names else NOTHING


def _partials(state: State) -> str:
    number = sum(store["partial_files"] for store in state.get("stores", []))
    held = sum(store.get("partial_bytes", 0) for store in state.get("stores", []))
    return f"{text.counted(number, 'file')}, {text.size(held)}" if number else NOTHING


def _orphans(state: State) -> str:
    number = sum(store["orphans"] for store in state.get("stores", []))
    return text.counted(number, "blob") if number else NOTHING


def _owners(state: State) -> str:
    counts: dict[str, int] = {}
    for store in state.get("stores", []):
        for owner, number in store["owners"].items():
            counts[owner] = counts.get(owner, 0) + number
    return ", ".join(f"{owner} ({counts[owner]})" for owner in sorted(counts)) or NOTHING


def _env_file(state: State) -> str:
    found = state.get("env_file", {})
    if not found.get("exists"):
        return "missing"
    return f"{found['owner']}:{found['group']} {found['mode']}"


def _env_models_dir(state: State) -> str:
    return str(state.get("env_file", {}).get("models_dir") or "not set")


def _env_models(state: State) -> str:
    return ", ".join(state.get("env_file", {}).get("models", [])) or NOTHING


def _shared_scripts(state: State) -> str:
    scripts = state.get("scripts", [])
    there = sum(item["shared"]["kind"] == "file" for item in scripts)
    return f"{there} of {len(scripts)}"


def _linked_scripts(state: State) -> str:
    scripts = state.get("scripts", [])
    linked = sum(
        item["local"]["kind"] == "link" and item["local"]["realpath"] == item["shared"]["realpath"]
        for item in scripts
    )
    return f"{linked} of {len(scripts)}"


def _world_writable(state: State) -> str:
    return str(state.get("world_writable", {}).get("count", 0) or NOTHING)


def _engine(state: State) -> str:
    engine = state.get("engine", {})
    if not engine.get("answers"):
        return "does not answer"
    return f"version {engine['version']}, lists {text.counted(len(engine['models']), 'model')}"


def _baseline(state: State) -> str:
    return ", ".join(state.get("baseline", {}).get("models", [])) or NOTHING


def _telemetry(state: State) -> str:
    return "recording" if state.get("telemetry", {}).get("exists") else NOTHING


def _names(before: State, after: State, kind: str) -> Iterable[str]:
    return dict.fromkeys(
        unit["name"] for state in (before, after) if state for unit in state.get(kind, [])
    )


def _unit(state: State, kind: str, name: str) -> str:
    found = next((unit for unit in state.get(kind, []) if unit["name"] == name), None)
    if found is None:
        return ""
    if found["load"] == "not-found":
        return "not installed"
    return f"{found['active']}, {found['enabled'] or 'not enabled'}"


TOLD: tuple[tuple[str, Callable[[State], str]], ...] = (
    ("Bulk disk", _mounts),
    ("Node's data path", _path(0)),
    ("Canonical model path", _path(2)),
    ("Old model path", _path(3)),
    ("Store", _stores),
    ("Models", _models),
    ("Partial downloads", _partials),
    ("Unreferenced blobs", _orphans),
    ("Owners in the store", _owners),
    ("Environment file", _env_file),
    ("OLLAMA_MODELS", _env_models_dir),
    ("Models in the file", _env_models),
    ("Shared scripts", _shared_scripts),
    ("Node's links to them", _linked_scripts),
    ("World-writable paths", _world_writable),
    ("Engine", _engine),
    ("Baseline", _baseline),
    ("GPU telemetry", _telemetry),
)
