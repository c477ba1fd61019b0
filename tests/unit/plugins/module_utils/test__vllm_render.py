# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from vllm_samples import make, service, told


def one(**more):
    result = make(service(max_model_len=8192, **more.pop("declared", {})), **more)
    assert told(result) == []
    return result.services[0]


def test_the_file_for_config():
    declared = {
        "served_names": ["m", "m:latest"],
        "dtype": "bfloat16",
        "enforce_eager": True,
        "section": {"drain_seconds": 90},
        "performance": {"max_num_seqs": 8, "max_num_queued_reqs": 32},
        "extra": {"enable_prefix_caching": False},
    }
    assert one(declared=declared)["args"] == {
        "model": "/models/a",
        "served-model-name": ["m", "m:latest"],
        "load-format": "safetensors",
        "max-model-len": 8192,
        "dtype": "bfloat16",
        "max-num-seqs": 8,
        "max-num-queued-reqs": 32,
        "gpu-memory-utilization": 0.92,
        "enforce-eager": True,
        "shutdown-timeout": 90,
        "host": "10.0.0.1",
        "port": 8001,
        "disable-fastapi-docs": True,
        "disable-access-log-for-endpoints": "/health,/metrics,/ping,/load,/version",
        "no-enable-prefix-caching": True,
    }


def test_no_key_is_rendered_anywhere():
    found = one(api_key=True)
    assert found["api_key"] is True
    assert "api-key" not in str(found["args"]).lower()
    assert "VLLM_API_KEY" not in found["environment"]


def test_the_environment_of_the_gpu_build():
    found = one(declared={"section": {"environment": {"NCCL_P2P_DISABLE": 1}}})["environment"]
    assert found == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "GPU-0",
        "DO_NOT_TRACK": "1",
        "HF_HOME": "/var/cache/citadel-llm/a/huggingface",
        "HF_HUB_OFFLINE": "1",
        "NCCL_P2P_DISABLE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_CACHE_ROOT": "/var/cache/citadel-llm/a/vllm",
        "VLLM_ENGINE_READY_TIMEOUT_S": "900",
        "VLLM_MAX_N_SEQUENCES": "128",
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_NO_USAGE_STATS": "1",
    }


def test_the_cpu_build_has_a_kv_space_and_no_gpus():
    found = one(declared={"kv_cache_gb": 2}, build="cpu", gpus=())
    assert found["environment"]["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert not [name for name in found["environment"] if name.startswith("CUDA")]
    assert "gpu-memory-utilization" not in found["args"]
    assert (found["gpus"], found["config"]["model"]["kv_cache_gb"]) == ([], 2)


@pytest.mark.parametrize(
    ("section", "performance", "memory", "quota"),
    [
        ({}, {}, "", ""),
        ({"memory_max": "32G", "cpu_quota": "250%"}, {}, "32G", "250%"),
        ({}, {"memory_limit_gb": 32, "cpu_cores": 4}, "32G", "400%"),
        ({}, {"memory_limit_gb": 1.5, "cpu_cores": 0.5}, "1536M", "50%"),
    ],
)
def test_limits(section, performance, memory, quota):
    declared = {"section": {"drain_seconds": 10, **section}, "performance": performance}
    assert one(declared=declared)["limits"] == {
        "memory_max": memory,
        "cpu_quota": quota,
        "start_timeout_s": 900,
        "stop_timeout_s": 40,
    }


def test_the_installed_sections_show_the_defaults():
    found = one()["config"]
    assert found["service"] == {
        "name": "a",
        "port": 8001,
        "host": "10.0.0.1",
        "drain_seconds": 60,
        "ready_timeout": 900,
    }
    assert found["model"]["gpus"] == [0]
    assert found["model"]["gpu_memory_utilization"] == 0.92
    assert (found["performance"], found["monitoring"]) == ({}, {})
