# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What a service is started with: the file for ``--config``, the environment, systemd's limits.

A secret is in none of them. Keys of the file are long flags without their dashes; what isn't
declared and has no value of ours is left out, so that vLLM's own default holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_declaration import (
    MAX_N_SEQUENCES,
    STOP_GRACE_SECONDS,
    Service,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_flags import render

_MODEL = {
    "max_model_len": "max-model-len",
    "dtype": "dtype",
    "quantization": "quantization",
    "kv_cache_dtype": "kv-cache-dtype",
    "chat_template": "chat-template",
}
_PERFORMANCE = {
    "max_num_seqs": "max-num-seqs",
    "max_num_batched_tokens": "max-num-batched-tokens",
    "max_num_queued_reqs": "max-num-queued-reqs",
}
# Probes would fill the access log.
_QUIET = "/health,/metrics,/ping,/load,/version"


def args(service: Service, group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of the YAML file that ``vllm serve --config FILE`` reads."""
    model, performance = service.section("model"), service.section("performance")
    result: dict[str, Any] = {
        "model": service.model_path,
        "served-model-name": service.served_names,
        "load-format": "safetensors",
    }
    result.update({flag: model[key] for key, flag in _MODEL.items() if model.get(key) is not None})
    result.update(
        {
            flag: performance[key]
            for key, flag in _PERFORMANCE.items()
            if performance.get(key) is not None
        }
    )
    if service.tensor_parallel > 1:
        result["tensor-parallel-size"] = service.tensor_parallel
    if service.pipeline_parallel > 1:
        result["pipeline-parallel-size"] = service.pipeline_parallel
    if not service.settings.cpu:
        result["gpu-memory-utilization"] = service.utilization
    if model.get("enforce_eager"):
        result["enforce-eager"] = True
    if model.get("trust_remote_code"):
        result["trust-remote-code"] = True
    result["shutdown-timeout"] = service.drain_seconds
    if service.serves:
        result.update(
            {
                "host": service.host,
                "port": service.port,
                "disable-fastapi-docs": True,
                "disable-access-log-for-endpoints": _QUIET,
            }
        )
    if group:
        result.update(_group_args(service, group))
    result.update(render(service.extra_args, service.settings.version))
    return result


def _group_args(service: Service, group: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "distributed-executor-backend": "mp",
        "nnodes": group["nnodes"],
        "node-rank": group["rank"],
        "master-addr": group["master_addr"],
        "master-port": group["master_port"],
    }
    if not service.serves:
        result["headless"] = True
    return result


def environment(
    service: Service, group: Mapping[str, Any], gpus: Mapping[int, Mapping[str, Any]]
) -> dict[str, str]:
    """Return the variables of a service; its API key comes from a credential file."""
    cache = f"{service.settings.cache_dir}/{service.name}"
    limit = service.section("performance").get("max_n_sequences", MAX_N_SEQUENCES)
    result = {
        "DO_NOT_TRACK": "1",
        "HF_HOME": f"{cache}/huggingface",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_CACHE_ROOT": f"{cache}/vllm",
        "VLLM_ENGINE_READY_TIMEOUT_S": str(service.ready_timeout),
        "VLLM_MAX_N_SEQUENCES": str(limit),
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_NO_USAGE_STATS": "1",
    }
    if service.settings.cpu:
        result["VLLM_CPU_KVCACHE_SPACE"] = str(service.kv_cache_gb)
    else:
        visible = [str(gpus.get(index, {}).get("uuid") or index) for index in service.gpus]
        result["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        result["CUDA_VISIBLE_DEVICES"] = ",".join(visible)
    if group:
        result["VLLM_HOST_IP"] = str(group["host_ip"])
    declared = service.section("service").get("environment") or {}
    result.update({name: str(value) for name, value in declared.items()})
    return dict(sorted(result.items()))


def limits(service: Service) -> dict[str, Any]:
    """Return the limits that systemd holds the service to."""
    return {
        "memory_max": service.memory_max,
        "cpu_quota": service.cpu_quota,
        "start_timeout_s": service.ready_timeout,
        "stop_timeout_s": service.drain_seconds + STOP_GRACE_SECONDS,
    }


def config(service: Service) -> dict[str, Any]:
    """Return the sections of the service with their defaults, as the installed file shows them."""
    model = dict(service.section("model"))
    model.update(
        {
            "path": service.model_path,
            "served_names": service.served_names,
            "tensor_parallel_size": service.tensor_parallel,
        }
    )
    if service.settings.cpu:
        model["kv_cache_gb"] = service.kv_cache_gb
    else:
        model.update({"gpus": service.gpus, "gpu_memory_utilization": service.utilization})
    result: dict[str, Any] = {
        "service": {
            **service.section("service"),
            "name": service.name,
            "host": service.host,
            "drain_seconds": service.drain_seconds,
            "ready_timeout": service.ready_timeout,
        },
        "model": model,
        "performance": dict(service.section("performance")),
        "monitoring": dict(service.section("monitoring")),
    }
    if service.extra_args:
        result["extra_args"] = dict(service.extra_args)
    return result
