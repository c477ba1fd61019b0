# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""From a host's declaration to its engines' services: where they stand, what they have to show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._runtime_model import (
    WILDCARDS,
    split_listen,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_declaration import (
    Service,
    Settings,
)

RUNTIME, NIGHTLY = "runtime", "nightly"
PURPOSES = (RUNTIME, NIGHTLY)
# What Ollama's models are asked for; those of other engines may follow no instructions.
ANSWER = "HX-OK"


def engine_services(declared: Mapping[str, Any], host: str, purpose: str) -> list[dict[str, Any]]:
    """Return the services of a host, as the role of that purpose takes them.

    Args:
        declared: see the filter engine_services.
        host: its name.
        purpose: ``runtime`` or ``nightly``.

    Raises:
        HostError: the purpose is none, or a service lacks what is needed of it.
    """
    if purpose not in PURPOSES:
        raise HostError(f"{host}: the purpose is {purpose!r}, wanted {' or '.join(PURPOSES)}.")
    vllm = list(_vllm(declared, host))
    # A host that has moved to vLLM altogether declares no models for Ollama any more.
    has_ollama = bool(declared.get("models")) or not declared.get("services")
    services = [*([_ollama(declared)] if has_ollama else []), *vllm]
    if purpose == RUNTIME:
        return services
    return [_for_the_night(service, _gpu_count(declared)) for service in services]


def _gpu_count(declared: Mapping[str, Any]) -> int | None:
    count = (declared.get("gpus") or {}).get("count")
    return None if count is None else int(count)


def _ollama(declared: Mapping[str, Any]) -> dict[str, Any]:
    listen = str(declared.get("listen") or "0.0.0.0:11434")
    models = [
        {key: str(model[key]) for key in ("name", "digest") if model.get(key)}
        for model in declared.get("models") or []
    ]
    port = split_listen(listen)[1] or 11434
    count = _gpu_count(declared)
    return {
        "name": "ollama",
        "kind": "ollama",
        "unit": str(declared["unit"]),
        "url": str(declared["url"]),
        "listen": listen,
        "version": str(declared.get("version") or ""),
        "models": models,
        "exclusive": bool(declared.get("exclusive")),
        "key_file": "",
        "reach": f"http://{_in_url(str(declared['address']))}:{port}/api/version",
        **({"gpus": count} if count is not None else {}),
    }


def _vllm(declared: Mapping[str, Any], host: str) -> Iterator[dict[str, Any]]:
    build = str(declared.get("vllm_build") or "gpu")
    settings = Settings(
        host=host,
        address=str(declared["address"]),
        build="cpu" if build == "cpu" else "cuda",
        unit_format=f"{declared.get('vllm_unit') or 'citadel-llm'}@{{name}}.service",
    )
    keys = str(declared.get("keys") or "")
    for entry in declared.get("services") or []:
        try:
            service = Service(entry, settings)
            port, name = service.port, service.name
        except (KeyError, TypeError, ValueError) as error:
            raise HostError(
                f"{host}: llm_vllm_services has {entry!r}, wanted name and service.port."
            ) from error
        if not service.serves:  # the first host of a group answers for all
            continue
        at = service.host
        reached = "127.0.0.1" if at in WILDCARDS else at
        yield {
            "name": name,
            "kind": "openai",
            "unit": service.unit,
            "url": f"http://{_in_url(reached)}:{port}",
            "listen": f"{_in_url(at)}:{port}",
            "version": str(declared.get("vllm_version") or ""),
            "models": [{"name": served} for served in service.served_names],
            "exclusive": False,
            "key_file": f"{keys}/{name}.key.env" if keys else "",
            "own_process": str(declared.get("vllm_runtime") or "venv") == "venv",
            "gpus": len(service.gpus),
            "reach": f"http://{_in_url(settings.address)}:{port}/version",
        }


def _for_the_night(service: Mapping[str, Any], gpus: int | None) -> dict[str, Any]:
    """Return a service for the nightly test; ``gpus`` is the number that the host declares."""
    kept = {name: service[name] for name in ("name", "kind", "url")}
    kept["models"] = [model["name"] for model in service["models"]]
    if service["key_file"]:
        kept["key_file"] = service["key_file"]
    if service["kind"] == "ollama":
        kept["answer"] = ANSWER
        if gpus == 0:
            kept["min_gpu_ratio"] = 0
    elif service["gpus"] and gpus != 0:  # the build for GPUs; that for processors has none
        kept["min_gpu_ratio"] = 1
    return kept


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address and not address.startswith("[") else address
