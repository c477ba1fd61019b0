# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Observes a host without touching it: mounts, links, stores, files, units, the engine."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import _model_config, _permissions
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import group_name, user_name
from ansible_collections.hx_infra.llm.plugins.module_utils._mounts import parse_mountinfo
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import read_store

Runner = Callable[[Sequence[str]], "tuple[int, str, str]"]
Http = Callable[[str], "tuple[int, str]"]  # address -> status (0: no answer), body or problem

UNIT_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "FragmentPath",
    "DropInPaths",
    "MainPID",
)
SHARED_SCRIPTS = (
    "service/ollama/start.sh",
    "service/ollama/stop.sh",
    "service/ollama/restart.sh",
    "service/ollama/status.sh",
    "tests/smoke/ollama/smoke.sh",
    "tests/smoke/ollama/comprehensive-smoke.sh",
)
STORE_COUNTS = ("partial_files", "partial_bytes", "orphans", "orphan_bytes", "used_bytes")
LIST_LIMIT = 200  # entries of a list that a record keeps


@dataclass(frozen=True)
class Layout:
    """Where things stand, or should stand, on a host."""

    node_dir: str
    scripts_dir: str
    logs_dir: str
    models_dir: str
    store_dir: str
    bulk_mount: str
    bulk_device: str
    env_file: str
    url: str
    store_candidates: Sequence[str] = ()
    units: Sequence[str] = ()
    timers: Sequence[str] = ()
    audit_paths: Sequence[str] = ()
    audit_exclude: Sequence[str] = ()
    audit_allow: Sequence[str] = ()
    links: Sequence[str] = ()


@dataclass(frozen=True)
class Access:
    """The ways in which a host is looked at; tests give their own."""

    run: Runner
    http: Http
    now: float
    mountinfo: str = "/proc/self/mountinfo"


def observe(layout: Layout, access: Access) -> dict[str, Any]:
    """Return the state of a host as a record keeps it."""
    audited = _permissions.world_writable(layout.audit_paths, layout.audit_exclude)
    found = [item for item in audited if item.path not in set(layout.audit_allow)]
    return {
        "mounts": mounts_of(layout.bulk_device, access.mountinfo),
        "links": [describe_path(path) for path in _standard_paths(layout)],
        "stores": _stores(layout),
        "env_file": describe_env_file(layout.env_file),
        "units": [describe_unit(unit, access.run) for unit in layout.units],
        "timers": [describe_unit(unit, access.run) for unit in layout.timers],
        "scripts": _scripts(layout),
        "world_writable": {
            "count": len(found),
            "paths": [item.path for item in found[:LIST_LIMIT]],
        },
        "engine": describe_engine(layout.url, access.http),
        "baseline": describe_baseline(os.path.join(layout.logs_dir, "perf", "baseline.csv")),
        "telemetry": describe_telemetry(
            os.path.join(layout.node_dir, "logs", "gpu", "nvidia-smi-ping.csv"), access.now
        ),
    }


def mounts_of(device: str, mountinfo: str) -> list[dict[str, Any]]:
    """Return the mounts of a device, found by its name and by its number."""
    if not device:
        return []
    try:
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as stream:
            mounts = parse_mountinfo(stream.read())
    except OSError:
        return []
    names, number = {device, os.path.realpath(device)}, _device_number(device)
    return [
        {"device": device, "target": mount.point, "fstype": mount.fstype, **_usage(mount.point)}
        for mount in mounts
        # the root of the device: not a part of it that is bound elsewhere
        if mount.root == "/" and (mount.source in names or (number and mount.device == number))
    ]


def describe_path(path: str) -> dict[str, Any]:
    """Say what stands at a path: missing, link, mount, dir or file."""
    try:
        status = os.lstat(path)
    except OSError:
        return {"path": path, "kind": "missing", "target": "", "realpath": ""}
    kind, target = "file", ""
    if stat.S_ISLNK(status.st_mode):
        kind, target = "link", os.readlink(path)
    elif stat.S_ISDIR(status.st_mode):
        kind = "mount" if os.path.ismount(path) else "dir"
    real = os.path.realpath(path)
    return {
        "path": path,
        "kind": kind,
        "target": target,
        "realpath": real if os.path.exists(real) else "",
        **_ownership(status),
    }


def describe_env_file(path: str) -> dict[str, Any]:
    """Return what is known of the environment file; values of other variables stay there."""
    described: dict[str, Any] = {"path": path, "exists": False, "models_dir": "", "models": []}
    try:
        status = os.stat(path)
        with open(path, "rb") as stream:
            config = _model_config.parse(stream.read())
    except OSError:
        return described
    described.update(_ownership(status))
    described.update(
        exists=True,
        models_dir=config.settings.get(_model_config.MODELS_DIR, ""),
        models=sorted({variable.model for variable in config.variables}),
        malformed=len(config.malformed),
    )
    return described


def describe_unit(unit: str, run: Runner) -> dict[str, Any]:
    """Return a unit's state as systemd shows it."""
    argv = ["systemctl", "show", unit, f"--property={','.join(UNIT_PROPERTIES)}"]
    code, out, _err = run(argv)
    shown = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    if code != 0:
        shown = {}
    load, pid = shown.get("LoadState", "unknown"), shown.get("MainPID", "0")
    return {
        "name": unit,
        "load": load,
        "active": shown.get("ActiveState", "unknown"),
        "sub": shown.get("SubState", ""),
        "enabled": shown.get("UnitFileState", "") or ("" if load == "loaded" else load),
        "path": shown.get("FragmentPath", ""),
        "drop_ins": shown.get("DropInPaths", "").split(),
        "main_pid": int(pid) if pid.isdigit() else 0,
    }


def describe_store(path: str) -> dict[str, Any]:
    """Return the models of a store, and what is left over in it."""
    try:
        store = read_store(path)
    except HostError as error:
        return {"models": [], "unreadable": [str(error)], **dict.fromkeys(STORE_COUNTS, 0)}
    referenced = store.referenced()
    orphans = [blob for digest, blob in store.blobs.items() if digest not in referenced]
    models = [
        {"name": str(model.name), "digest": model.digest, "size_bytes": model.size}
        for model in store.models.values()
    ]
    return {
        "models": sorted(models, key=lambda model: model["name"]),
        "partial_files": len(store.partials),
        "partial_bytes": sum(file.held for file in store.partials),
        "orphans": len(orphans),
        "orphan_bytes": sum(blob.held for blob in orphans),
        "used_bytes": sum(file.held for file in [*store.blobs.values(), *store.partials]),
        "unreadable": sorted(store.corrupt),
    }


def describe_engine(url: str, http: Http) -> dict[str, Any]:
    """Return whether the engine answers, its version and the models that it lists."""
    engine: dict[str, Any] = {"url": url, "answers": False, "version": "", "models": []}
    if not url:
        return engine
    version = _json(http(f"{url.rstrip('/')}/api/version"))
    if not isinstance(version, Mapping):
        return engine
    engine.update(answers=True, version=str(version.get("version", "")))
    tags = _json(http(f"{url.rstrip('/')}/api/tags"))
    models = tags.get("models") if isinstance(tags, Mapping) else None
    for model in models if isinstance(models, list) else []:
        engine["models"].append(
            {
                "name": str(model.get("name", "")),
                "digest": str(model.get("digest", "")),
                "size_bytes": int(model.get("size") or 0),
            }
        )
    engine["models"].sort(key=lambda model: model["name"])
    return engine


def describe_baseline(path: str) -> dict[str, Any]:
    """Return the number of rows of a baseline file and the models in it."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            rows = [line.strip().split(",") for line in stream if line.strip()]
    except OSError:
        return {"path": path, "exists": False, "rows": 0, "models": []}
    body = [row for row in rows if len(row) > 1 and row[0] != "timestamp"]
    return {
        "path": path,
        "exists": True,
        "rows": len(body),
        "models": sorted({row[1] for row in body}),
    }


def describe_telemetry(path: str, now: float) -> dict[str, Any]:
    """Return how old the last GPU sample is."""
    try:
        status = os.stat(path)
    except OSError:
        return {"path": path, "exists": False, "age_seconds": None}
    return {"path": path, "exists": True, "age_seconds": max(0, round(now - status.st_mtime))}


def owners_of(root: str) -> dict[str, int]:
    """Count the files and directories of a tree by their owner and group."""
    counts: Counter[str] = Counter()
    for base, directories, files in os.walk(root):
        for name in ["", *files] if os.path.isdir(base) else files:
            try:
                status = os.lstat(os.path.join(base, name) if name else base)
            except OSError:
                continue
            owned = _ownership(status)
            counts[f"{owned['owner']}:{owned['group']}"] += 1
        directories.sort()
    return dict(sorted(counts.items()))


def _stores(layout: Layout) -> list[dict[str, Any]]:
    """Return every store that holds something, each once, whatever names lead to it."""
    found, seen = [], set()
    for path in [layout.models_dir, layout.store_dir, *layout.store_candidates]:
        real = os.path.realpath(path) if path else ""
        if not real or real in seen:
            continue
        seen.add(real)
        if any(os.path.isdir(os.path.join(real, part)) for part in ("manifests", "blobs")):
            found.append({"path": real, "owners": owners_of(real), **describe_store(real)})
    return found


def _scripts(layout: Layout) -> list[dict[str, Any]]:
    """Return the shared scripts and, for each, the node's own name of it."""
    return [
        {
            "name": name,
            "shared": describe_path(os.path.join(layout.scripts_dir, name)),
            "local": describe_path(os.path.join(layout.node_dir, "scripts", name)),
        }
        for name in SHARED_SCRIPTS
    ]


def _standard_paths(layout: Layout) -> Iterable[str]:
    paths = [
        os.path.join(layout.node_dir, "data", "llm_bulk_storage"),
        layout.bulk_mount,
        layout.models_dir,
        os.path.join(layout.node_dir, "models", "production"),
        layout.store_dir,
        layout.scripts_dir,
        os.path.join(layout.logs_dir, "perf"),
        *layout.links,
    ]
    return dict.fromkeys(path for path in paths if path)


def _ownership(status: os.stat_result) -> dict[str, str]:
    return {
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "owner": user_name(status.st_uid),
        "group": group_name(status.st_gid),
    }


def _device_number(device: str) -> str:
    try:
        status = os.stat(device)
    except OSError:
        return ""
    if not stat.S_ISBLK(status.st_mode):
        return ""
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def _usage(target: str) -> dict[str, int]:
    try:
        usage = os.statvfs(target)
    except OSError:
        return {"size_bytes": 0, "used_bytes": 0}
    return {
        "size_bytes": usage.f_blocks * usage.f_frsize,
        "used_bytes": (usage.f_blocks - usage.f_bfree) * usage.f_frsize,
    }


def _json(answer: tuple[int, str]) -> Any:
    status, body = answer
    if status != 200:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return None
