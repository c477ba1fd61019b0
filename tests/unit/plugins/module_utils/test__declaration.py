# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every problem of a declaration, in the words that an operator reads."""

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._declaration import validate

GOOD = {
    "engine": "ollama",
    "gpus": {"count": 2, "name": "RTX 4070 Ti", "driver_min": "575.64.03", "cuda_min": "12.9"},
    "models": [
        {"name": "llama3.2:3b", "digest": "a80c4f17acd5"},
        {"name": "mistral-small3.2:latest", "slo": {"ttft_ms": 6000, "slo_percentile": "p95"}},
        {"name": "x", "source": "registry:5000/library/x:1", "insecure": True, "update": False},
    ],
    "models_forbidden": ["phi3:latest", "gemma2:2b"],
    "base_dir": "/opt/hx-infrastructure",
    "models_dir": "/mnt/active_llm_models",
    "store_dir": "/data/llm_bulk_storage/ollama/models",
    "bulk_device": "/dev/disk/by-uuid/0a1b",
    "bulk_mount": "/data/llm_bulk_storage",
}
NAME = 'a model name such as "qwen3:1.7b"'
DIGEST = "12 to 64 hexadecimal digits, as `ollama list` shows them"


def lines(**changes):
    return [str(problem) for problem in validate("llm-01", {**GOOD, **changes})]


@pytest.mark.parametrize("declaration", [GOOD, {}, {"bulk_device": "", "bulk_mount": ""}])
def test_good_declarations(declaration):
    assert validate("llm-01", declaration) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"engine": "tgi"}, 'llm_engine: found "tgi", wanted ollama'),
        (
            {"engine": "vllm"},
            'llm_engine: found "vllm", wanted ollama; this version has no roles for that engine '
            "yet",
        ),
        ({"engine": []}, "llm_engine: found [], wanted ollama"),
        ({"models": [{"name": "a"}, {}]}, f"llm_models[1].name: found nothing, wanted {NAME}"),
        ({"models": [{"name": ""}]}, f"llm_models[0].name: found nothing, wanted {NAME}"),
        ({"models": [{"name": None}]}, f"llm_models[0].name: found nothing, wanted {NAME}"),
        ({"models": [{"name": 3}]}, f"llm_models[0].name: found 3, wanted {NAME}"),
        ({"models": [{"name": "a b"}]}, f'llm_models[0].name: found "a b", wanted {NAME}'),
        (
            {"models": [{"name": "a@sha256:12"}]},
            f'llm_models[0].name: found "a@sha256:12", wanted {NAME}; a digest goes into the field '
            "digest",
        ),
        (
            {"models": ["a"]},
            'llm_models[0]: found "a", wanted a dictionary such as {name: "qwen3:1.7b"}',
        ),
        ({"models": "a"}, 'llm_models: found "a", wanted a list'),
        (
            {"models": [{"name": "phi4"}, {"name": "Phi4:latest"}]},
            'llm_models[1].name: found "Phi4:latest", wanted each model once, it is models[0] '
            "already",
        ),
        (
            {"models": [{"name": "phi3"}]},
            'llm_models_forbidden[0]: found "phi3:latest", wanted a model that is not declared, '
            "it is models[0]",
        ),
        ({"models_forbidden": [""]}, f"llm_models_forbidden[0]: found nothing, wanted {NAME}"),
        (
            {"models_forbidden": ["a/b/c/d"]},
            f'llm_models_forbidden[0]: found "a/b/c/d", wanted {NAME}',
        ),
        ({"models_forbidden": {}}, "llm_models_forbidden: found {}, wanted a list"),
        (
            {"models": [{"name": "a", "digest": "a80c4f"}]},
            f'llm_models[0].digest: found "a80c4f", wanted {DIGEST}',
        ),
        (
            {"models": [{"name": "a", "digest": "nothexnothex"}]},
            f'llm_models[0].digest: found "nothexnothex", wanted {DIGEST}',
        ),
        (
            {"models": [{"name": "a", "digest": 123456789012}]},
            f"llm_models[0].digest: found 123456789012, wanted {DIGEST}",
        ),
        (
            {"models": [{"name": "a", "source": "r:5000/a"}]},
            'llm_models[0].source: found "r:5000/a", wanted a full name '
            "host[:port]/namespace/model:tag",
        ),
        (
            {"models": [{"name": "a", "update": "maybe"}]},
            'llm_models[0].update: found "maybe", wanted true or false',
        ),
        (
            {"models": [{"name": "a", "slo": {"ttft_ms": 0}}]},
            "llm_models[0].slo.ttft_ms: found 0, wanted a number above 0",
        ),
        (
            {"models": [{"name": "a", "slo": {"slo_percentile": "p98"}}]},
            'llm_models[0].slo.slo_percentile: found "p98", wanted one of p50, p90, p95, p99',
        ),
        (
            {"models": [{"name": "a", "slo": {"tfft_ms": 100}}]},
            "llm_models[0].slo.tfft_ms: found 100, wanted one of the objectives ttft_ms, tpot_ms, "
            "itl_p99_ms, latency_ms, tokens_per_s, target_throughput_rps, goodput_rps, "
            "slo_percentile",
        ),
        (
            {"models": [{"name": "a", "slo": 5}]},
            "llm_models[0].slo: found 5, wanted a dictionary such as {ttft_ms: 6000}",
        ),
        (
            {"models": [{"name": "a", "digset": "x"}]},
            'llm_models[0].digset: found "x", wanted one of the fields name, digest, source, '
            "insecure, update, slo",
        ),
        ({"gpus": {"count": -1}}, "llm_gpus.count: found -1, wanted a number of GPUs, 0 or more"),
        (
            {"gpus": {"count": True}},
            "llm_gpus.count: found true, wanted a number of GPUs, 0 or more",
        ),
        ({"gpus": {"count": "2"}}, 'llm_gpus.count: found "2", wanted a number of GPUs, 0 or more'),
        (
            {"gpus": {"names": "RTX 4070 Ti"}},
            'llm_gpus.names: found "RTX 4070 Ti", wanted a list of texts such as ["RTX 4070 Ti"]',
        ),
        (
            {"gpus": {"driver_pin": 575}},
            'llm_gpus.driver_pin: found 575, wanted a version in quotes such as "575.64.03"',
        ),
        (
            {"gpus": {"driver_min": "575.x"}},
            'llm_gpus.driver_min: found "575.x", wanted a version in quotes such as "575.64.03"',
        ),
        (
            {"gpus": {"cuda_min": 12.9}},
            'llm_gpus.cuda_min: found 12.9, wanted a version in quotes such as "12.9"',
        ),
        (
            {"gpus": {"temperature_max_c": -3}},
            "llm_gpus.temperature_max_c: found -3, wanted a number of degrees Celsius above 0",
        ),
        (
            {"gpus": [1]},
            'llm_gpus: found [1], wanted a dictionary such as {count: 2, driver_min: "575.64.03"}',
        ),
        (
            {"base_dir": "opt"},
            "llm_base_dir: found \"opt\", wanted an absolute path without '..', '//' and a '/' at "
            "its end",
        ),
        (
            {"models_dir": "/mnt/../x"},
            "llm_models_dir: found \"/mnt/../x\", wanted an absolute path without '..', '//' and "
            "a '/' at its end",
        ),
        (
            {"models_dir": "/data/llm_bulk_storage"},
            'llm_models_dir: found "/data/llm_bulk_storage", wanted a path of its own, it is '
            "llm_bulk_mount",
        ),
        (
            {"store_dir": "/data/llm_bulk_storage"},
            'llm_store_dir: found "/data/llm_bulk_storage", wanted a directory below '
            "llm_bulk_mount, not the mount point",
        ),
        (
            {"models_dir": "/data/llm_bulk_storage/ollama/models/x"},
            'llm_models_dir: found "/data/llm_bulk_storage/ollama/models/x", wanted a path '
            "neither above nor below llm_store_dir (/data/llm_bulk_storage/ollama/models)",
        ),
        (
            {"store_dir": "/opt"},
            'llm_base_dir: found "/opt/hx-infrastructure", wanted a path outside llm_store_dir '
            "(/opt)",
        ),
        (
            {"bulk_device": "sda1"},
            'llm_bulk_device: found "sda1", wanted a device below /dev, such as '
            "/dev/disk/by-uuid/...",
        ),
        (
            {"bulk_device": "/dev/../etc/passwd"},
            'llm_bulk_device: found "/dev/../etc/passwd", wanted a device below /dev, such as '
            "/dev/disk/by-uuid/...",
        ),
    ],
)
def test_problems(changes, line):
    assert lines(**changes) == [f"llm-01: {line}"]


def test_all_problems_at_once():
    found = lines(
        engine="tgi",
        models=[{"digest": "x"}, {"name": "phi3"}],
        gpus={"count": -1},
        bulk_device="sda1",
    )
    assert [line.split(":")[1].strip() for line in found] == [
        "llm_engine",
        "llm_models[0].name",
        "llm_models[0].digest",
        "llm_models_forbidden[0]",
        "llm_gpus.count",
        "llm_bulk_device",
    ]
