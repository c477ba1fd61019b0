# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""From the hosts' declarations to the gateway's routes: which model is served where."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

DEFAULT_WEIGHT = 10
MAX_WEIGHT = 10
ENGINES = ("ollama", "vllm")
# What both engines accept in a name, and what needs no quoting in a map file or a URL's query.
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}\Z")
SERVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")


def backend_name(model: str) -> str:
    """Name the backend of a model: readable, and never the same for two models."""
    readable = re.sub(r"[^A-Za-z0-9._-]", "_", model)[:60]
    return f"m_{readable}_{hashlib.sha256(model.encode()).hexdigest()[:8]}"


def routes(hosts: Sequence[str], declarations: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """Return one route per model, each with the servers that hold it, in a stable order."""
    servers: dict[str, list[dict[str, Any]]] = {}
    for host in hosts:
        declared = declarations[host]
        if not _flag(declared.get("llm_gateway", True)):
            continue
        for model, server in _servers_of(host, declared):
            servers.setdefault(model, []).append(server)
    for model, members in servers.items():
        _refuse_twins(model, members)
    return [
        {
            "model": model,
            "backend": backend_name(model),
            "servers": sorted(servers[model], key=lambda server: str(server["name"])),
        }
        for model in sorted(servers)
    ]


def _servers_of(host: str, declared: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    # Without the brackets of IPv6: whoever adds a port puts them there.
    address = str(declared.get("llm_address") or host).strip("[]")
    weights = declared.get("llm_gateway_weights") or {}
    engine = str(declared.get("llm_engine") or "ollama")
    if engine not in ENGINES:
        raise HostError(f"{host}: llm_engine is '{engine}', wanted one of {', '.join(ENGINES)}.")
    listen = str(declared.get("llm_engine_listen") or "0.0.0.0:11434")
    for model in declared.get("llm_models") or []:
        name = _checked(host, "llm_models", model.get("name"))
        port = _port(host, "llm_engine_listen", listen.rpartition(":")[2])
        weight = _weight(host, weights, name, engine)
        yield name, _server(host, engine, address=address, port=port, weight=weight)
    for service in declared.get("llm_vllm_services") or []:
        label = str(service.get("name") or "")
        field = f"llm_vllm_services[{label}]"
        if not SERVICE_NAME.match(label):
            raise HostError(
                f"{host}: llm_vllm_services holds the name '{label}', wanted"
                " letters, digits, - and _ only."
            )
        port = _port(host, f"{field}.service.port", (service.get("service") or {}).get("port"))
        for served in (service.get("model") or {}).get("served_names") or [label]:
            name = _checked(host, f"{field}.model.served_names", served)
            weight = _weight(host, weights, name, "vllm")
            yield name, _server(host, "vllm", label, address=address, port=port, weight=weight)


def _server(host: str, engine: str, *service: str, **endpoint: Any) -> dict[str, Any]:
    name = ".".join((host, engine, *service))
    return {"name": name, "host": host, "engine": engine, **endpoint}


def _checked(host: str, field: str, name: Any) -> str:
    if not isinstance(name, str) or not MODEL_NAME.match(name):
        raise HostError(
            f"{host}: {field} holds the model name {name!r}, wanted"
            " letters, digits and ._:/@+- only."
        )
    return name


def _port(host: str, field: str, value: Any) -> int:
    if str(value).isdigit() and 0 < int(value) < 65536:
        return int(value)
    raise HostError(f"{host}: {field} gives the port {value!r}, wanted a number from 1 to 65535.")


def _weight(host: str, weights: Mapping[str, Any], model: str, engine: str) -> int:
    value = (weights.get(model) or {}).get(engine, DEFAULT_WEIGHT)
    if str(value).isdigit() and int(value) <= MAX_WEIGHT:
        return int(value)
    raise HostError(
        f"{host}: llm_gateway_weights gives '{model}' on {engine} the weight {value!r},"
        f" wanted a whole number from 0 to {MAX_WEIGHT}."
    )


def _flag(value: Any) -> bool:
    return str(value).strip().lower() not in ("false", "no", "off", "0", "n", "f")


def _refuse_twins(model: str, members: Sequence[Mapping[str, Any]]) -> None:
    """Refuse one endpoint under two names: a drain of one would leave the other serving."""
    seen: dict[Any, str] = {}
    for server in members:
        for key in ((server["address"], server["port"]), server["name"]):
            if key in seen:
                raise HostError(
                    f"{server['host']}: '{model}' is declared twice on"
                    f" {server['address']}:{server['port']}, as {seen[key]} and {server['name']};"
                    " wanted one endpoint per server. Correct llm_address, the port or the models."
                )
            seen[key] = str(server["name"])
