# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Rules that a JSON schema can't state: between services, and between services and the host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_declaration import (
    WILDCARDS,
    Service,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_files import ModelFiles
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_flags import (
    check_choice,
    check_environment,
    check_extra_args,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_flags_data import GONE_FORMATS
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_model import Shape
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_observe import Host, Listener
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_problem import problem

Problems = list[dict[str, str]]
PUBLISHER = "docker-proxy"  # Docker's program that listens on a published port


def check_names(services: Sequence[Service]) -> Problems:
    """Refuse two services of one name, and a section that names another service."""
    result = []
    seen: set[str] = set()
    for service in services:
        if service.name in seen:
            result.append(problem(service.name, "name", service.name, "each name once on a host"))
        seen.add(service.name)
        inner = service.section("service").get("name")
        if inner is not None and inner != service.name:
            result.append(problem(service.name, "service.name", inner, service.name))
        declared = service.section("service").get("memory_max")
        if declared and service.section("performance").get("memory_limit_gb") is not None:
            allowed = "one of service.memory_max and performance.memory_limit_gb"
            result.append(problem(service.name, "service.memory_max", declared, allowed))
        quota = service.section("service").get("cpu_quota")
        if quota and service.section("performance").get("cpu_cores") is not None:
            allowed = "one of service.cpu_quota and performance.cpu_cores"
            result.append(problem(service.name, "service.cpu_quota", quota, allowed))
    return result


def check_ports(services: Sequence[Service], host: Host) -> Problems:
    """Refuse ports that two services want, or that another process listens on already."""
    result = []
    taken: dict[int, str] = {}
    for service in services:
        for field, port in _ports(service):
            if port in taken:
                other = f"a port of its own; {port} is the {taken[port]}"
                result.append(problem(service.name, field, port, other))
                continue
            taken[port] = f"{field.rsplit('.', 1)[-1]} of {service.name}"
            for listener in host.listeners:
                if listener.port == port and _foreign(service, listener, host):
                    allowed = f"a free port; {_who(listener)} listens on {listener.address}:{port}"
                    result.append(problem(service.name, field, port, allowed))
                    break
    return result


def _ports(service: Service) -> Iterable[tuple[str, int]]:
    if service.serves:
        yield "service.port", service.port
        if service.group:
            yield "service.group.master_port", service.master_port


def _foreign(service: Service, listener: Listener, host: Host) -> bool:
    own = host.unit_pids.get(service.unit, frozenset())
    if service.unit in listener.units or listener.pid in own:
        return False
    if own and listener.name == PUBLISHER:
        return False  # it holds the port for the unit's container, from Docker's own control group
    wanted = set(host.addresses.get(service.host, ())) | {service.host}
    everywhere = wanted | {listener.address}
    return bool(everywhere & set(WILDCARDS)) or listener.address in wanted


def _who(listener: Listener) -> str:
    if not listener.pid:
        return "a process that can't be seen"
    unit = f" of {sorted(listener.units)[0]}" if listener.units else ""
    return f"{listener.name} (pid {listener.pid}){unit}"


def check_binding(service: Service, host: Host) -> Problems:
    """Refuse an address that this host doesn't have, and one that is open to everybody."""
    if not service.serves:
        return []
    result = []
    if service.host in WILDCARDS:
        if not service.section("service").get("host"):
            allowed = "one address, or service.host declared as such"
            result.append(problem(service.name, "service.host", service.host, allowed))
        if not service.settings.api_key:
            allowed = (
                "one address; all interfaces need an API key, and even then /metrics, /invocations"
                " and others answer without it"
            )
            result.append(problem(service.name, "service.host", service.host, allowed))
        return result
    found = host.addresses.get(service.host)
    if found is None:
        return result
    if not found:
        result.append(
            problem(service.name, "service.host", f"{service.host} (no such name)", "an address")
        )
    elif not set(found) & host.local:
        text = f"{service.host} ({', '.join(found)})"
        result.append(problem(service.name, "service.host", text, "an address of this host"))
    elif found[0].startswith("127.") and service.host not in ("localhost", found[0]):
        text = f"{service.host} (here {found[0]}, which no other host reaches)"
        allowed = "a name whose first address here is the one that others use; look at /etc/hosts"
        result.append(problem(service.name, "service.host", text, allowed))
    return result


def check_values(service: Service, version: str) -> Problems:
    """Judge what depends on the version of vLLM: flags, variables, data types."""
    model = service.section("model")
    name = service.name
    return (
        check_extra_args(name, service.extra_args, version)
        + check_environment(name, service.section("service").get("environment") or {}, version)
        + check_choice(
            name, "model.quantization", model.get("quantization"), version, "quantization"
        )
        + check_choice(
            name, "model.kv_cache_dtype", model.get("kv_cache_dtype"), version, "kv_cache_dtype"
        )
    )


def check_model(service: Service, files: ModelFiles, shape: Shape) -> Problems:
    """Refuse models that can't be served: not there, of a gone format, with too few positions."""
    result = []
    model = service.section("model")
    path = service.model_path
    local = model.get("path") or service.source.get("path")
    said = f"{path} {service.source.get('hub', '')}".lower()
    if (
        "gguf" in said
        or "/blobs/sha256" in said
        or any(name.endswith(".gguf") for name in files.other_formats)
    ):
        found = str(service.source.get("hub") or path)
        result.append(problem(service.name, _model_field(service), found, GONE_FORMATS["gguf"]))
    elif files.other_formats:
        found = f"{path} with {files.other_formats[0]}"
        allowed = "safetensors; other formats run code when they are read"
        result.append(problem(service.name, _model_field(service), found, allowed))
    elif local and not files.present:
        found = f"{path} {files.trouble or 'does not exist'}"
        allowed = "a directory with a model"
        result.append(problem(service.name, _model_field(service), found, allowed))
    elif local and files.trouble:
        found = f"{path} {files.trouble}"
        allowed = "a complete model: config.json and its safetensors"
        result.append(problem(service.name, _model_field(service), found, allowed))
    if shape.quantization in GONE_FORMATS:
        allowed = GONE_FORMATS[shape.quantization]
        found = f"{shape.quantization} in config.json"
        result.append(problem(service.name, _model_field(service), found, allowed))
    result += _code(service, files)
    longest = model.get("max_model_len")
    if longest and shape.context and longest > shape.context:
        allowed = f"at most {shape.context}, the max_position_embeddings of the model"
        result.append(problem(service.name, "model.max_model_len", longest, allowed))
    return result


def _code(service: Service, files: ModelFiles) -> Problems:
    """Refuse a model that brings code unless that was declared with a reason."""
    if service.section("model").get("trust_remote_code"):
        return []
    block = (files.config or {}).get("auto_map")
    if not block:
        return []
    allowed = (
        "a model without code of its own, or model.trust_remote_code with a reason (the code runs"
        " as the service's account)"
    )
    return [problem(service.name, _model_field(service), "auto_map in config.json", allowed)]


def _model_field(service: Service) -> str:
    return "model.source" if service.source else "model.path"


def check_parallel(service: Service, shape: Shape) -> Problems:
    """Judge tensor and pipeline parallelism by the model's heads and layers."""
    result = []
    size, stages = service.tensor_parallel, service.pipeline_parallel
    if shape.heads and shape.heads % size:
        divisors = [str(n) for n in range(1, min(shape.heads, 64) + 1) if shape.heads % n == 0]
        allowed = f"a divisor of the model's {shape.heads} attention heads: {', '.join(divisors)}"
        result.append(problem(service.name, "model.tensor_parallel_size", size, allowed))
    if shape.kv_heads and shape.kv_heads % size and size % shape.kv_heads:
        allowed = f"a divisor or a multiple of the model's {shape.kv_heads} KV heads"
        result.append(problem(service.name, "model.tensor_parallel_size", size, allowed))
    if shape.layers and stages > shape.layers:
        allowed = f"at most the model's {shape.layers} layers"
        result.append(problem(service.name, "model.pipeline_parallel_size", stages, allowed))
    result += _check_warm_up(service)
    return result


def _check_warm_up(service: Service) -> Problems:
    """Refuse stages of the CPU build without its warm-up.

    The warm-up makes the buffers that a stage takes from the one before. It is left out when
    nothing is compiled and the KV cache has a declared size (v1/worker/cpu_worker.py of 0.32);
    the service becomes ready all the same and dies at the first request.
    """
    if not service.settings.cpu or service.pipeline_parallel == 1:
        return []
    allowed = (
        f"nothing with pipeline_parallel_size {service.pipeline_parallel}: without compilation the"
        " CPU build becomes ready and dies at the first request"
    )
    result = []
    if service.section("model").get("enforce_eager"):
        result.append(problem(service.name, "model.enforce_eager", "true", allowed))
    variable = "TORCH_COMPILE_DISABLE"
    if str((service.section("service").get("environment") or {}).get(variable, "")) == "1":
        field = f"service.environment.{variable}"
        result.append(problem(service.name, field, "1", allowed))
    return result
