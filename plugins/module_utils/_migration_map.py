# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The migration map: does each part of a host stand where the standard says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    PASS,
    WARN,
    Verdict,
)

SERVICE, SMOKE = "service/", "tests/smoke/"
GOOD = "as the standard says"
SHOWN = 6  # problems that one verdict names


@dataclass(frozen=True)
class Declaration:
    """What the standard says for one host.

    Attributes:
        models: the wanted models, each with ``name`` and perhaps ``digest``.
        forbidden: names of models that must not be there.
        models_dir: the canonical path of the models.
        store_dir: where the store really is.
        bulk_mount: where the bulk disk is mounted.
        bulk_device: the bulk disk; empty when the host has none.
        node_data_link: the node's own name of the bulk disk.
        env_owner: owner and group of the environment file.
        env_mode: mode of the environment file.
        old_paths: names that worked before, each with ``path`` and ``target``.
    """

    models: Sequence[Mapping[str, Any]]
    models_dir: str
    store_dir: str
    bulk_mount: str
    bulk_device: str
    node_data_link: str
    forbidden: Sequence[str] = ()
    env_owner: str = "root:ollama"
    env_mode: str = "0640"
    old_paths: Sequence[Mapping[str, str]] = ()


def judge_map(state: Mapping[str, Any], declaration: Declaration) -> list[Verdict]:
    """Return one verdict for each part of the map.

    Args:
        state: the host as ``host_state_info`` observes it, its links with all declared paths.
        declaration: what is wanted.
    """
    links = {item["path"]: item for item in state["links"]}
    resolved = {path: item["realpath"] for path, item in links.items()}
    return [
        _verdict("service_scripts", *_scripts(state, SERVICE)),
        _verdict("smoke_tests", *_scripts(state, SMOKE)),
        _perf_logs(state, declaration),
        _verdict("data_path", *_data_path(state, declaration, links)),
        _verdict("environment_file", *_environment(state, declaration)),
        _verdict("models", *_models(state, declaration, resolved)),
        _verdict("old_paths", *_old_paths(declaration, resolved)),
        _verdict("permissions", *_permissions(state)),
        _verdict("units", *_units(state)),
    ]


def _verdict(check: str, problems: list[str], evidence: str, status: str = FAIL) -> Verdict:
    if not problems:
        return Verdict(check, PASS, value=GOOD, limit=GOOD, evidence=evidence)
    more = len(problems) - SHOWN
    told = problems[:SHOWN] + ([f"and {more} more"] if more > 0 else [])
    return Verdict(
        check, status, value=f"{len(problems)} not", limit=GOOD, evidence="; ".join(told)
    )


def _scripts(state: Mapping[str, Any], kind: str) -> tuple[list[str], str]:
    mine = [item for item in state["scripts"] if item["name"].startswith(kind)]
    problems = []
    for item in mine:
        shared, local = item["shared"], item["local"]
        if shared["kind"] != "file":
            problems.append(f"{shared['path']} is {shared['kind']}, wanted a file")
            continue
        found = (shared["owner"], shared["group"], shared["mode"])
        if found != ("root", "root", "0755"):
            problems.append(
                f"{shared['path']} is {':'.join(found[:2])} {found[2]}, wanted root:root 0755"
            )
        if local["kind"] != "link" or local["realpath"] != shared["realpath"]:
            problems.append(f"{local['path']} is no link to {shared['path']}")
    return problems, f"{len(mine)} shared scripts, root:root 0755, and the node's links to them"


def _perf_logs(state: Mapping[str, Any], declaration: Declaration) -> Verdict:
    baseline = state["baseline"]
    if not baseline["exists"]:
        return _verdict("perf_logs", [f"{baseline['path']} does not exist"], "")
    missing = sorted(
        model["name"] for model in declaration.models if model["name"] not in baseline["models"]
    )
    problems = [f"no baseline of {name}" for name in missing]
    return _verdict(
        "perf_logs", problems, f"{baseline['path']} has a baseline of every declared model", WARN
    )


def _data_path(
    state: Mapping[str, Any], declaration: Declaration, links: Mapping[str, Mapping[str, Any]]
) -> tuple[list[str], str]:
    problems = []
    if declaration.bulk_device:
        targets = sorted({mount["target"] for mount in state["mounts"]})
        if targets != [declaration.bulk_mount]:
            where = ", ".join(targets) or "nowhere"
            problems.append(
                f"{declaration.bulk_device} is mounted at {where}, wanted {declaration.bulk_mount}"
            )
    name = declaration.node_data_link
    link = links.get(name, {"kind": "missing", "target": ""})
    if link["kind"] != "link" or link["target"].rstrip("/") != declaration.bulk_mount:
        problems.append(f"{name} is {_told(link)}, wanted a link to {declaration.bulk_mount}")
    return problems, f"{name} -> {declaration.bulk_mount}"


def _environment(state: Mapping[str, Any], declaration: Declaration) -> tuple[list[str], str]:
    found = state["env_file"]
    if not found["exists"]:
        return [f"{found['path']} does not exist"], ""
    problems = []
    owner = f"{found['owner']}:{found['group']}"
    if (owner, found["mode"]) != (declaration.env_owner, declaration.env_mode):
        problems.append(
            f"{found['path']} is {owner} {found['mode']},"
            f" wanted {declaration.env_owner} {declaration.env_mode}"
        )
    if found["models_dir"] != declaration.models_dir:
        problems.append(
            f"OLLAMA_MODELS is {found['models_dir'] or 'not set'}, wanted {declaration.models_dir}"
        )
    wanted = {model["name"] for model in declaration.models}
    problems.extend(f"{name} is not in it" for name in sorted(wanted - set(found["models"])))
    problems.extend(f"{name} is not declared" for name in sorted(set(found["models"]) - wanted))
    return problems, f"{found['path']}, {owner} {found['mode']}, {len(wanted)} models"


def _models(
    state: Mapping[str, Any], declaration: Declaration, resolved: Mapping[str, str]
) -> tuple[list[str], str]:
    real = resolved.get(declaration.store_dir, "")
    problems = []
    if not real or resolved.get(declaration.models_dir) != real:
        where = resolved.get(declaration.models_dir) or "nowhere"
        problems.append(f"{declaration.models_dir} leads to {where}, not {declaration.store_dir}")
    store = next((item for item in state["stores"] if item["path"] == real), None)
    if store is None:
        return [*problems, f"no store at {declaration.store_dir}"], ""
    present = {model["name"]: model["digest"] for model in store["models"]}
    for model in declaration.models:
        name, pin = model["name"], str(model.get("digest") or "").replace("sha256:", "")
        if name not in present:
            problems.append(f"{name} is missing")
        elif not present[name].replace("sha256:", "").startswith(pin):
            problems.append(f"{name} is {present[name][:12]}, wanted {pin[:12]}")
    problems.extend(
        f"{name} is there but forbidden" for name in declaration.forbidden if name in present
    )
    partials = store.get("partial_files", 0)
    if partials:
        problems.append(f"{partials} partial downloads")
    evidence = f"{len(declaration.models)} declared models in {declaration.store_dir}, no partials"
    return problems, evidence


def _old_paths(declaration: Declaration, resolved: Mapping[str, str]) -> tuple[list[str], str]:
    problems = []
    for item in declaration.old_paths:
        found, wanted = resolved.get(item["path"], ""), resolved.get(item["target"], "")
        if not found or found != wanted:
            problems.append(f"{item['path']} leads to {found or 'nowhere'}, not {item['target']}")
    names = ", ".join(item["path"] for item in declaration.old_paths)
    return problems, f"still lead to the same place: {names}" if names else "none declared"


def _permissions(state: Mapping[str, Any]) -> tuple[list[str], str]:
    audit = state["world_writable"]
    problems = [f"everybody may write {path}" for path in audit["paths"]]
    return problems, "nothing that everybody may write"


def _units(state: Mapping[str, Any]) -> tuple[list[str], str]:
    units = [*state["units"], *state["timers"]]
    problems = []
    for unit in units:
        if unit["active"] != "active":
            problems.append(f"{unit['name']} is {unit['active']}, wanted active")
        if unit["enabled"] not in ("enabled", "static"):
            problems.append(f"{unit['name']} is {unit['enabled'] or 'not enabled'}, wanted enabled")
    return problems, f"active and enabled: {', '.join(unit['name'] for unit in units)}"


def _told(link: Mapping[str, Any]) -> str:
    return f"a link to {link['target']}" if link["kind"] == "link" else str(link["kind"])
