# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from vllm_samples import (
    DEEPSEEK_V3,
    GIB,
    LLAMA_31_8B,
    MIXTRAL_8X7B,
    PHI_3_MINI,
    QWEN3_8B,
    gpu,
    make,
    service,
    told,
)

from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_model as model
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_files import ModelFiles
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_observe import Host

KIB = 1024


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LLAMA_31_8B, 128 * KIB),
        (QWEN3_8B, 144 * KIB),
        (MIXTRAL_8X7B, 128 * KIB),
        (PHI_3_MINI, 384 * KIB),
    ],
)
def test_kv_cache_per_token(config, expected):
    shape = model.shape_of(config)
    assert shape.unknown == ""
    assert model.kv_bytes_per_token(shape, 2) == expected
    assert model.kv_bytes_per_token(shape, 1) == expected // 2
    assert model.kv_bytes_per_token(shape, 2, tensor_parallel=2) == expected // 2


def test_fewer_heads_than_workers_are_copied_and_stages_are_rounded_up():
    shape = model.shape_of(QWEN3_8B)
    assert model.kv_bytes_per_token(shape, 2, tensor_parallel=16) == 144 * KIB // 8
    assert model.kv_bytes_per_token(shape, 2, pipeline_parallel=5) == 8 * 2 * 8 * 128 * 2


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "config.json can't be read yet"),
        (DEEPSEEK_V3, "multi-head latent attention"),
        ({**LLAMA_31_8B, "num_hidden_layers": None}, "doesn't say num_hidden_layers"),
        ({**QWEN3_8B, "layer_types": ["linear_attention", "full_attention"]}, "layer_types"),
        ({**LLAMA_31_8B, "mamba_d_state": 16}, "mamba_d_state"),
        ({**LLAMA_31_8B, "num_key_value_heads": [8, 4]}, "num_key_value_heads"),
        ({**LLAMA_31_8B, "is_encoder_decoder": True}, "encoder and a decoder"),
        ({**LLAMA_31_8B, "num_kv_shared_layers": 10}, "share"),
    ],
)
def test_what_is_not_known_is_said(config, reason):
    assert reason in model.shape_of(config).unknown


@pytest.mark.parametrize(
    ("config", "windowed"),
    [
        (PHI_3_MINI, True),
        (QWEN3_8B, False),
        ({**QWEN3_8B, "sliding_window": 4096}, False),
        ({**LLAMA_31_8B, "layer_types": ["sliding_attention", "full_attention"]}, True),
    ],
)
def test_sliding_windows(config, windowed):
    assert bool(model.shape_of(config).at_most) == windowed


def test_the_text_part_of_a_multimodal_model_counts():
    shape = model.shape_of({"dtype": "bfloat16", "text_config": QWEN3_8B})
    assert (shape.layers, shape.dtype, shape.context) == (36, "bfloat16", 40960)


@pytest.mark.parametrize(
    ("declared", "config", "share"),
    [
        ("auto", LLAMA_31_8B, 1.0),
        ("float32", LLAMA_31_8B, 2.0),
        ("auto", {**LLAMA_31_8B, "torch_dtype": "float32"}, 0.5),
        ("float16", {**LLAMA_31_8B, "quantization_config": {"quant_method": "awq"}}, 1.0),
        ("auto", {"hidden_size": 1}, 1.0),
    ],
)
def test_weights_in_memory(declared, config, share):
    assert model.loaded_share(declared, model.shape_of(config)) == share


def fit(*declared, **more):
    result = make(*declared, **more)
    assert told(result) == []
    return result.services[0]["fit"]


def test_the_arithmetic_of_a_model_that_fits():
    found = fit(service(max_model_len=8192, gpu_memory_utilization=0.9))
    assert found["fits"] is True
    assert found["weights_bytes"] == 5 * GIB
    assert found["kv_bytes_per_token"] == 128 * KIB
    assert found["kv_bytes"] == GIB
    assert found["overhead_bytes"] == 3 * GIB // 2
    assert found["total_bytes"] == 7.5 * GIB
    assert found["budget_bytes"] == -(-16 * GIB * 9 // 10)
    assert found["max_len_that_fits"] == int((14.4 - 6.5) * 8192) // 16 * 16
    assert found["sentence"] == (
        "weights 5.00 GiB + KV cache 128 KiB/token x 8192 tokens = 1.00 GiB + fixed overhead"
        " 1.50 GiB; GPU 0 gives 16.00 GiB x 0.9 = 14.40 GiB; together 7.50 GiB, it fits"
    )


def test_a_context_that_is_too_long_is_refused_with_the_largest_that_fits():
    problems = told(make(service(gpu_memory_utilization=0.9)))
    assert problems == [
        (
            "a.model.max_model_len",
            "131072",
            "at most 64704: weights 5.00 GiB + KV cache 128 KiB/token x 131072 tokens = 16.00 GiB"
            " + fixed overhead 1.50 GiB; GPU 0 gives 16.00 GiB x 0.9 = 14.40 GiB; together"
            " 22.50 GiB, 8.10 GiB too much; the largest max_model_len that fits is 64704",
        )
    ]
    assert fit(service(gpu_memory_utilization=0.9, max_model_len=64704))["fits"] is True
    assert make(service(gpu_memory_utilization=0.9, max_model_len=64720)).problems


def test_weights_that_are_too_large_are_refused_whatever_the_context():
    (problem,) = told(make(service(max_model_len=16), weights=15 * GIB))
    assert problem[0] == "a.model"
    assert "weights and overhead alone are 16.50 GiB" in problem[2]
    (problem,) = told(make(service(max_model_len=16), weights=15 * GIB, config=DEEPSEEK_V3))
    assert "KV cache not known (the model uses multi-head latent attention" in problem[2]


def test_tensor_parallelism_divides():
    pair = (gpu(0), gpu(1))
    found = fit(service(max_model_len=8192, tensor_parallel_size=2), gpus=pair, weights=16 * GIB)
    assert (found["weights_bytes"], found["kv_bytes_per_token"]) == (8 * GIB, 64 * KIB)
    assert "16.00 GiB / 2 (tensor parallel) = 8.00 GiB" in found["sentence"]


@pytest.mark.parametrize(
    ("more", "declared", "words"),
    [
        ({"config": DEEPSEEK_V3}, service(), "KV cache not known (the model uses multi-head"),
        (
            {"files": {"a": ModelFiles(True, 5 * GIB)}},
            service(),
            "KV cache not known (config.json can't be read yet)",
        ),
        ({"weights": None}, service(max_model_len=16), "weights not known"),
        ({}, service(kv_cache_dtype="nvfp4"), "kv_cache_dtype nvfp4"),
        ({}, service(extra={"hf-overrides": {"a": 1}}), "hf-overrides"),
        ({"gpus": [gpu(memory_total_bytes=None)]}, service(), "size of its GPUs is not known"),
        ({"config": PHI_3_MINI, "gpus": [gpu(gib=8)]}, service(), "at most 384 KiB/token"),
    ],
)
def test_what_is_not_known_is_a_warning(more, declared, words):
    result = make(declared, **more)
    assert told(result) == []
    assert [verdict.status for verdict in result.verdicts] == ["WARN"]
    assert result.services[0]["fit"]["known"] is False
    assert words in result.services[0]["fit"]["sentence"]


def test_an_upper_bound_that_fits_is_a_pass():
    result = make(service(), config=PHI_3_MINI)
    assert result.verdicts[0].status == "PASS"


def test_more_weights_than_the_model_s_are_named():
    found = fit(service(max_model_len=64, extra={"enable_lora": True}))
    assert "(not counted: memory for enable-lora)" in found["sentence"]


def cpu(*declared, available=64, held=None, **more):
    host = Host(
        unit_memory=held or {},
        memory_available=available * GIB,
        addresses={"10.0.0.1": ("10.0.0.1",)},
        local=frozenset({"10.0.0.1"}),
    )
    return make(*declared, build="cpu", observed=host, gpus=(), **more)


def test_the_cpu_build_judges_kv_space_and_host_memory():
    result = cpu(service(max_model_len=8192))
    assert told(result) == []
    assert "5.00 GiB + KV cache" in result.services[0]["fit"]["sentence"]
    (problem,) = told(cpu(service(max_model_len=131072)))
    assert problem[0] == "a.model.max_model_len"
    assert "at most 32768" in problem[2]
    (problem,) = told(cpu(service(max_model_len=64), available=11))
    assert "overhead of 1 worker(s) are 12.00 GiB, 1.00 GiB too much" in problem[2]
    (problem,) = told(cpu(service(max_model_len=64, section={"memory_max": "8G"})))
    assert "memory limit 8G" in problem[2]
    assert "12.00 GiB, 4.00 GiB too much" in problem[2]


def test_no_more_fits_than_the_model_was_made_for():
    assert fit(service(), config=QWEN3_8B)["max_len_that_fits"] == 40960


def test_memory_of_the_services_themselves_is_not_lost_to_them():
    declared = service(max_model_len=64)
    unit = {"citadel-llm@a.service": 6 * GIB}
    assert told(cpu(declared, available=6))
    assert told(cpu(declared, available=6, held=unit)) == []


def test_services_of_the_cpu_build_share_the_host_s_memory():
    pair = (service("a", 8001, max_model_len=64), service("b", 8002, max_model_len=64))
    assert told(cpu(*pair, available=24)) == []
    (problem,) = told(cpu(*pair, available=23))
    assert problem[0] == "b.model"
