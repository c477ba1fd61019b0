# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import jsonschema
import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_problem import message
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _vllm_schema as schema

REVISION = "0123456789abcdef0123456789abcdef01234567"
FULL = {
    "name": "mixtral-8x7b",
    "service": {
        "name": "mixtral-8x7b",
        "port": 8001,
        "host": "10.0.0.1",
        "memory_max": "32G",
        "cpu_quota": "400%",
        "ready_timeout": 1800,
        "drain_seconds": 0,
        "environment": {"NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": 4},
        "group": {"hosts": ["llm-01", "llm-02"], "master_port": 29501},
    },
    "model": {
        "source": {"hub": "org/Model-x.1", "revision": REVISION, "files": {"a/b.json": "0" * 64}},
        "served_names": ["mixtral", "llama3.2:3b", "org/x"],
        "max_model_len": 8192,
        "dtype": "auto",
        "quantization": "awq",
        "kv_cache_dtype": "fp8",
        "kv_cache_gb": 4,
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 2,
        "gpu_memory_utilization": 0.9,
        "gpus": [0, 1],
        "weights_bytes": 1,
        "enforce_eager": False,
        "chat_template": "/etc/x.jinja",
        "trust_remote_code": {"reason": "reviewed by the owners"},
    },
    "performance": {
        "target_latency_ms": 500,
        "target_throughput_rps": 0.5,
        "memory_limit_gb": 32,
        "cpu_cores": 4,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 2048,
        "max_num_queued_reqs": 16,
        "max_n_sequences": 64,
    },
    "monitoring": {
        "health_check_interval": 30,
        "metrics_collection_interval": 15,
        "prometheus_port": 9090,
    },
    "extra_args": {"seed": 1},
}
LEAST = {"name": "a", "service": {"port": 8001}, "model": {"path": "/opt/m"}}


def changed(**sections):
    return {**LEAST, **sections}


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(schema.load())


def test_every_field_is_in_the_full_example():
    definitions = schema.load()["$defs"]
    for section in ("service", "performance", "monitoring"):
        assert set(definitions[section]["properties"]) == set(FULL[section])
    assert set(definitions["model"]["properties"]) == {*FULL["model"], "path"}


@pytest.mark.parametrize(
    "service",
    [
        FULL,
        LEAST,
        changed(service={"port": 8001, "host": "0.0.0.0"}),
        changed(service={"port": 8001, "host": "::"}),
        changed(model={"source": {"archive": "https://x/y.tar", "sha256": "sha256:" + "a" * 64}}),
        changed(model={"source": {"path": "/srv/m", "manifest": "/srv/m.sha256"}}),
        changed(
            model={"source": {"hub": "a/b", "revision": REVISION, "exclude": ["consolidated*"]}}
        ),
    ],
)
def test_accepted(service):
    assert schema.problems([service]) == []


@pytest.mark.parametrize(
    ("service", "field", "found", "allowed"),
    [
        (5, "", "5", "a mapping"),
        (changed(name="A b"), "name", '"A b"', "1 to 48 of a-z"),
        (changed(modle={}), "modle", "{} (unknown field)", "did you mean model?"),
        (changed(service={"prot": 1, "port": 8001}), "service.prot", "1 (", "did you mean port?"),
        (changed(service={}), "service.port", "nothing", "a whole number from 1024 to 65535"),
        (changed(service={"port": 80}), "service.port", "80", "from 1024 to 65535"),
        (changed(service={"port": "8001"}), "service.port", '"8001"', "a whole number"),
        (changed(service={"port": True}), "service.port", "true", "a whole number"),
        (
            changed(service={"port": 8001, "memory_max": "32GB"}),
            "service.memory_max",
            '"32GB"',
            "such as 32G",
        ),
        (
            changed(service={"port": 8001, "environment": {"a": "b"}}),
            "service.environment",
            '"a"',
            "variables in capitals",
        ),
        (
            changed(service={"port": 8001, "environment": {"A": "b\nc"}}),
            "service.environment.A",
            '"b\\nc"',
            "one line",
        ),
        (
            changed(service={"port": 8001, "group": {"hosts": ["a"]}}),
            "service.group.hosts",
            '["a"]',
            "at least 2 entries",
        ),
        (changed(model={}), "model", "none of them", "exactly one of path, source"),
        (
            changed(model={"path": "/a", "source": {"hub": "a/b", "revision": REVISION}}),
            "model",
            "path and source",
            "exactly one of path, source",
        ),
        (changed(model={"path": "a/b"}), "model.path", '"a/b"', "an absolute path"),
        (
            changed(model={"source": {"path": "/srv/m"}}),
            "model.source.manifest",
            "nothing",
            "the absolute path of a file that sha256sum wrote",
        ),
        (
            changed(model={"path": "/opt/my model"}),
            "model.path",
            '"/opt/my model"',
            "an absolute path of letters",
        ),
        (
            changed(model={"path": "/opt/100%"}),
            "model.path",
            '"/opt/100%"',
            "an absolute path of letters",
        ),
        (
            changed(model={"source": {"hub": "a/b"}}),
            "model.source.revision",
            "nothing",
            "a commit of 40",
        ),
        (
            changed(model={"source": {"hub": "a/b", "revision": "main"}}),
            "model.source.revision",
            '"main"',
            "a commit of 40",
        ),
        (
            changed(model={"source": {"archive": "/a.tar"}}),
            "model.source.sha256",
            "nothing",
            "64 hexadecimal digits",
        ),
        (
            changed(model={"path": "/a", "trust_remote_code": True}),
            "model.trust_remote_code",
            "true",
            "a mapping with the reason",
        ),
        (
            changed(model={"path": "/a", "trust_remote_code": {"reason": "yes"}}),
            "model.trust_remote_code.reason",
            '"yes"',
            "at least 10 characters",
        ),
        (changed(model={"path": "/a", "gpus": [0, 0]}), "model.gpus", "[0, 0]", "each entry once"),
        (
            changed(model={"path": "/a", "gpu_memory_utilization": 1.01}),
            "model.gpu_memory_utilization",
            "1.01",
            "a number above 0, at most 1",
        ),
        (changed(model={"path": "/a", "dtype": "fp4"}), "model.dtype", '"fp4"', "auto, bfloat16"),
        (changed(performance={"cpu_cores": 0}), "performance.cpu_cores", "0", "a number above 0"),
        (changed(performance=None), "performance", "null", "a mapping"),
        (
            changed(monitoring={"prometheus_port": 0}),
            "monitoring.prometheus_port",
            "0",
            "from 1 to 65535",
        ),
        (changed(extra_args={"--seed": 1}), "extra_args", '"--seed"', "without leading dashes"),
    ],
)
def test_refused(service, field, found, allowed):
    (problem,) = schema.problems([service])
    assert problem["field"] == field
    assert problem["found"].startswith(found)
    assert allowed in problem["allowed"]


def test_every_problem_of_every_service_is_in_one_message():
    problems = schema.problems([{"name": "a"}, {"model": {"path": "x"}}, LEAST])
    assert message(problems, "llm-01").splitlines() == [
        "llm-01: 5 problems in the declared vLLM services:",
        "llm-01: services[a].service: value found nothing, allowed a mapping",
        "llm-01: services[a].model: value found nothing, allowed a mapping",
        "llm-01: services[#2].name: value found nothing, allowed"
        " 1 to 48 of a-z, 0-9, '.', '_' and '-', not at the ends",
        "llm-01: services[#2].service: value found nothing, allowed a mapping",
        'llm-01: services[#2].model.path: value found "x", allowed an absolute path of letters,'
        " digits and ._+@=,~- without a slash at its end",
    ]


def test_something_else_than_a_list():
    problems = schema.problems({"a": 1})
    assert message(problems, "h").splitlines()[1] == (
        'h: services: value found {"a": 1}, allowed a list of services'
    )
