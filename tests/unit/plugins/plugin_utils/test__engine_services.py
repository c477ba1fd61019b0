# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils._engine_services import engine_services

DECLARED = {
    "models": [{"name": "phi3:latest", "digest": "74d1", "slo": {"ttft_ms": 1}}],
    "gpus": {"count": 2, "name": "RTX"},
    "unit": "ollama.service",
    "url": "http://127.0.0.1:11434",
    "listen": "0.0.0.0:11434",
    "version": "0.11.4",
    "address": "llm-01",
}
QWEN = {
    "name": "qwen3",
    "service": {"port": 8001},
    "model": {"served_names": ["qwen3-8b"], "gpus": [0, 1]},
}


def services(purpose="runtime", host="llm-01", **changed):
    return engine_services({**DECLARED, **changed}, host, purpose)


def test_ollama():
    assert services() == [
        {
            "name": "ollama",
            "kind": "ollama",
            "unit": "ollama.service",
            "url": "http://127.0.0.1:11434",
            "listen": "0.0.0.0:11434",
            "version": "0.11.4",
            "models": [{"name": "phi3:latest", "digest": "74d1"}],
            "exclusive": False,
            "key_file": "",
            "reach": "http://llm-01:11434/api/version",
            "gpus": 2,
        }
    ]


def test_vllm():
    [found] = services(models=[], services=[QWEN], keys="/keys", vllm_version="0.32.0")
    assert found == {
        "name": "qwen3",
        "kind": "openai",
        "unit": "citadel-llm@qwen3.service",
        "url": "http://llm-01:8001",
        "listen": "llm-01:8001",
        "version": "0.32.0",
        "models": [{"name": "qwen3-8b"}],
        "exclusive": False,
        "key_file": "/keys/qwen3.key.env",
        "own_process": True,
        "gpus": 2,
        "reach": "http://llm-01:8001/version",
    }


def test_a_host_with_both_and_one_with_neither():
    assert [found["name"] for found in services(services=[QWEN])] == ["ollama", "qwen3"]
    assert [found["name"] for found in services(models=[])] == ["ollama"]


@pytest.mark.parametrize(
    ("bound", "url", "listen"),
    [
        ("0.0.0.0", "http://127.0.0.1:8001", "0.0.0.0:8001"),
        ("::", "http://127.0.0.1:8001", "[::]:8001"),
        ("192.0.2.11", "http://192.0.2.11:8001", "192.0.2.11:8001"),
        ("fd00::1", "http://[fd00::1]:8001", "[fd00::1]:8001"),
    ],
)
def test_how_the_host_itself_reaches_a_service(bound, url, listen):
    entry = {**QWEN, "service": {"port": 8001, "host": bound}}
    [found] = services(models=[], services=[entry])
    assert (found["url"], found["listen"]) == (url, listen)
    assert found["reach"] == "http://llm-01:8001/version"


def test_a_build_for_the_cpu_and_a_container():
    [found] = services(models=[], services=[QWEN], vllm_build="cpu", vllm_runtime="container")
    assert (found["gpus"], found["own_process"]) == (0, False)


def test_the_first_host_of_a_group_has_the_service():
    group = {"port": 8001, "group": {"name": "g", "hosts": ["llm-01", "llm-02"]}}
    entry = {**QWEN, "service": group}
    assert [found["name"] for found in services(models=[], services=[entry])] == ["qwen3"]
    assert services(host="llm-02", models=[], services=[entry]) == []


def test_without_a_declared_number_of_gpus_the_host_is_asked():
    assert "gpus" not in services(gpus={})[0]
    assert services(gpus={"count": 0})[0]["gpus"] == 0


def test_engines_of_the_nightly_test():
    found = services("nightly", services=[QWEN], keys="/keys")
    assert found == [
        {
            "name": "ollama",
            "kind": "ollama",
            "url": "http://127.0.0.1:11434",
            "models": ["phi3:latest"],
            "answer": "HX-OK",
        },
        {
            "name": "qwen3",
            "kind": "openai",
            "url": "http://llm-01:8001",
            "models": ["qwen3-8b"],
            "key_file": "/keys/qwen3.key.env",
            "min_gpu_ratio": 1,
        },
    ]
    assert services("nightly", gpus={"count": 0})[0]["min_gpu_ratio"] == 0


@pytest.mark.parametrize(
    ("changed", "judged"),
    [
        ({}, True),
        ({"gpus": {}}, True),
        ({"gpus": {"name": "RTX"}, "vllm_runtime": "container"}, True),
        ({"gpus": {"count": 0}}, False),
        ({"vllm_build": "cpu"}, False),
    ],
)
def test_what_vllm_computes_on_is_judged_at_night_where_the_declaration_is_a_gpu(changed, judged):
    [found] = services("nightly", models=[], services=[QWEN], **changed)
    assert ("min_gpu_ratio" in found) is judged


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"name": "x"}, "llm_vllm_services has {'name': 'x'}, wanted name and service.port"),
        ({"service": {"port": 1}}, "wanted name and service.port"),
        ({"name": "x", "service": {"port": "http"}}, "wanted name and service.port"),
    ],
)
def test_a_service_that_lacks_something(entry, said):
    with pytest.raises(HostError, match="llm-01: ") as refused:
        services(services=[entry])
    assert said in str(refused.value)


def test_another_purpose():
    with pytest.raises(HostError, match="wanted runtime or nightly"):
        services("daily")
