# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from vllm_samples import GIB, LLAMA_31_8B, QWEN3_8B, gpu, make, service, told

from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_gpus
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_declaration import Service
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_files import ModelFiles
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_observe import Host, Listener


def small(name="a", port=8001, **more):
    return service(name, port, **{"max_model_len": 1024, "gpu_memory_utilization": 0.5, **more})


def host(**more):
    known = {"10.0.0.1": ("10.0.0.1",), "loop": ("127.0.1.1",), "far": ("10.9.9.9",), "gone": ()}
    local = frozenset({"10.0.0.1", "127.0.1.1"})
    return Host(**{"addresses": known, "local": local, **more})


def test_a_plan_without_services_is_empty():
    result = make()
    assert (result.services, result.problems, result.verdicts) == ([], [], [])


def test_every_problem_of_every_service_is_told_at_once():
    bad = [
        small("a", 8001, quantization="bitsandbytes", gpus=[3]),
        small("b", 8001, tensor_parallel_size=3, extra={"swap-space": 1}),
    ]
    fields = [field for field, _found, _allowed in told(make(*bad))]
    assert fields == [
        "b.service.port",
        "a.model.quantization",
        "a.model.gpus",
        "b.extra_args.swap-space",
        "b.model.tensor_parallel_size",
        "b.model.tensor_parallel_size",
        "b.model.gpus",
        "b.model.gpus",
    ]


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (
            [small("a", 8001), small("a", 8002)],
            ("a.name", "a", "each name once on a host"),
        ),
        (
            [small("a", section={"name": "b"})],
            ("a.service.name", "b", "a"),
        ),
        (
            [small("a", section={"memory_max": "8G"}, performance={"memory_limit_gb": 8})],
            (
                "a.service.memory_max",
                "8G",
                "one of service.memory_max and performance.memory_limit_gb",
            ),
        ),
        (
            [small("a", section={"cpu_quota": "100%"}, performance={"cpu_cores": 1})],
            (
                "a.service.cpu_quota",
                "100%",
                "one of service.cpu_quota and performance.cpu_cores",
            ),
        ),
        (
            [small("a", 8001), small("b", 8001)],
            ("b.service.port", "8001", "a port of its own; 8001 is the port of a"),
        ),
        (
            [small("a", max_model_len=200000)],
            (
                "a.model.max_model_len",
                "200000",
                "at most 131072, the max_position_embeddings of the model",
            ),
        ),
    ],
)
def test_refusals_of_declarations(declared, expected):
    assert expected in told(make(*declared))


@pytest.mark.parametrize(
    ("listener", "words"),
    [
        (Listener("0.0.0.0", 8001, 42, "nginx"), "nginx (pid 42) listens on 0.0.0.0:8001"),
        (Listener("::", 8001, 0, ""), "a process that can't be seen listens on :::8001"),
        (
            Listener("10.0.0.1", 8001, 7, "python3", frozenset({"other.service"})),
            "python3 (pid 7) of other.service",
        ),
        (Listener("127.0.0.1", 8001, 7, "x"), None),
        (Listener("10.0.0.1", 8002, 7, "x"), None),
        (Listener("10.0.0.1", 8001, 7, "vllm", frozenset({"citadel-llm@a.service"})), None),
        (Listener("10.0.0.1", 8001, 7, "docker-proxy"), "docker-proxy (pid 7)"),
    ],
)
def test_ports_that_others_listen_on(listener, words):
    found = told(make(small(), observed=host(listeners=(listener,))))
    if words is None:
        assert found == []
    else:
        assert [(field, words in allowed) for field, _f, allowed in found] == [
            ("a.service.port", True)
        ]


@pytest.mark.parametrize(
    "listener",
    [
        Listener("10.0.0.1", 8001, 12, "conmon", frozenset()),
        Listener("10.0.0.1", 8001, 14, "docker-proxy", frozenset({"docker.service"})),
    ],
)
def test_the_port_of_a_service_s_own_container_is_its_own(listener):
    own = {"citadel-llm@a.service": frozenset({11, 12})}
    assert told(make(small(), observed=host(listeners=(listener,), unit_pids=own))) == []
    others = {"citadel-llm@b.service": frozenset({11, 12})}
    [problem] = told(make(small(), observed=host(listeners=(listener,), unit_pids=others)))
    assert problem[0] == "a.service.port"


def test_a_model_of_a_hub_comes_from_the_hub_that_was_asked():
    declared = small(source={"hub": "org/x", "revision": "0" * 40})
    del declared["model"]["path"]
    [found] = make(declared, hub_url="https://mirror.example").services
    assert found["source"]["endpoint"] == "https://mirror.example"
    assert "endpoint" not in make(declared).services[0]["source"]
    assert "endpoint" not in found["config"]["model"]["source"]


def test_a_directory_as_source_is_served_where_it_is():
    source = {"path": "/srv/m", "manifest": "/srv/m.sha256"}
    declared = small(source=source)
    del declared["model"]["path"]
    [found] = make(declared, hub_url="https://mirror.example").services
    assert (found["model_path"], found["source"]) == ("/srv/m", source)
    [problem] = told(make(declared, files={"a": ModelFiles(False)}))
    assert problem == ("a.model.source", "/srv/m does not exist", "a directory with a model")


def test_everything_is_taken_by_a_service_that_binds_to_all_interfaces():
    listener = Listener("127.0.0.1", 8001, 7, "x")
    declared = small(section={"host": "0.0.0.0"})
    result = make(declared, observed=host(listeners=(listener,)), api_key=True)
    assert "x (pid 7)" in told(result)[0][2]


@pytest.mark.parametrize(
    ("section", "more", "words"),
    [
        ({"host": "0.0.0.0"}, {}, "all interfaces need an API key"),
        ({}, {"address": "0.0.0.0", "api_key": True}, "service.host declared as such"),
        ({"host": "far"}, {}, "an address of this host"),
        ({"host": "gone"}, {}, "an address"),
        ({"host": "loop"}, {}, "look at /etc/hosts"),
        ({"host": "::"}, {"api_key": True}, None),
        ({}, {}, None),
    ],
)
def test_where_a_service_binds(section, more, words):
    found = told(make(small(section=section), observed=host(), **more))
    if words is None:
        assert found == []
    else:
        assert [field for field, _f, _a in found] == ["a.service.host"]
        assert words in found[0][2]


@pytest.mark.parametrize(
    ("declared", "files", "words"),
    [
        (small(), ModelFiles(False), "a directory with a model"),
        (small(), ModelFiles(True, trouble="holds no *.safetensors"), "a complete model"),
        (
            small(),
            ModelFiles(True, other_formats=("m.gguf",), trouble="holds no *.safetensors"),
            "GGUF left vLLM's core",
        ),
        (
            small(),
            ModelFiles(True, other_formats=("pytorch_model.bin",)),
            "other formats run code when they are read",
        ),
        (small(path="/store/blobs/sha256-00"), ModelFiles(True, GIB, LLAMA_31_8B), "GGUF left"),
        (
            small(),
            ModelFiles(
                True, GIB, {**LLAMA_31_8B, "quantization_config": {"quant_method": "bitsandbytes"}}
            ),
            "bitsandbytes left vLLM's core",
        ),
        (
            small(),
            ModelFiles(True, GIB, {**LLAMA_31_8B, "auto_map": {"AutoModel": "x.X"}}),
            "model.trust_remote_code with a reason",
        ),
    ],
)
def test_models_that_are_not_served(declared, files, words):
    found = told(make(declared, files={"a": files}))
    assert len(found) == 1
    assert found[0][0] == "a.model.path"
    assert words in found[0][2]


def test_code_of_a_model_runs_only_with_a_reason():
    files = {"a": ModelFiles(True, GIB, {**LLAMA_31_8B, "auto_map": {"AutoModel": "x.X"}})}
    result = make(small(trust_remote_code={"reason": "reviewed by us"}), files=files)
    assert result.services[0]["args"]["trust-remote-code"] is True


def test_a_source_may_be_absent_still():
    declared = service(
        max_model_len=1024, source={"hub": "org/x", "revision": "0" * 40}, weights_bytes=GIB
    )
    del declared["model"]["path"]
    result = make(declared, files={"a": ModelFiles(False, GIB, None, "declared")})
    assert told(result) == []
    assert result.services[0]["model_path"] == "/opt/citadel/models/org--x/000000000000"
    assert result.services[0]["source"]["hub"] == "org/x"


@pytest.mark.parametrize(
    ("size", "config", "words"),
    [
        (3, LLAMA_31_8B, "a divisor of the model's 32 attention heads: 1, 2, 4, 8, 16, 32"),
        (3, {**LLAMA_31_8B, "num_attention_heads": 24}, "a multiple of the model's 8 KV heads"),
        (16, QWEN3_8B, None),
    ],
)
def test_tensor_parallelism_and_heads(size, config, words):
    gpus = [gpu(index) for index in range(size)]
    found = told(make(small(tensor_parallel_size=size), gpus=gpus, config=config))
    if words is None:
        assert found == []
    else:
        assert words in found[0][2]


def test_more_stages_than_layers():
    config = {**LLAMA_31_8B, "num_hidden_layers": 1}
    pair = [gpu(0), gpu(1)]
    found = told(make(small(pipeline_parallel_size=2), gpus=pair, config=config))
    assert found[0][2] == "at most the model's 1 layers"


EAGER = {"enforce_eager": True}
UNCOMPILED = {"section": {"environment": {"TORCH_COMPILE_DISABLE": 1}}}


@pytest.mark.parametrize(
    ("build", "stages", "more", "fields"),
    [
        ("cpu", 2, EAGER, ["a.model.enforce_eager"]),
        ("cpu", 2, UNCOMPILED, ["a.service.environment.TORCH_COMPILE_DISABLE"]),
        ("cpu", 2, {}, []),
        ("cpu", 1, EAGER, []),
        ("cuda", 2, EAGER, []),
    ],
)
def test_stages_of_the_cpu_build_need_its_warm_up(build, stages, more, fields):
    gpus = [gpu(index) for index in range(stages)]
    found = told(make(small(pipeline_parallel_size=stages, **more), gpus=gpus, build=build))
    assert [field for field, _found, _allowed in found] == fields


@pytest.mark.parametrize(
    ("model", "gpus", "found", "words"),
    [
        ({"gpus": [2]}, [gpu(0)], "2", "a GPU of this host: 0"),
        ({"gpus": [0]}, [gpu(0, state="lost")], "0, which is lost", "a GPU that works"),
        ({"gpus": [0, 1]}, [gpu(0), gpu(1)], "[0, 1] (2 GPUs)", "1 (tensor_parallel_size 1"),
        (
            {"tensor_parallel_size": 2},
            [gpu(0), gpu(1, name="RTX 3080")],
            "NVIDIA GeForce RTX 5070 Ti, RTX 3080",
            "GPUs of one kind",
        ),
        ({"tensor_parallel_size": 2}, [gpu(0)], "1", "a GPU of this host: 0"),
    ],
)
def test_gpus(model, gpus, found, words):
    problems = told(make(small(**model), gpus=gpus))
    assert ("a.model.gpus", found) == problems[0][:2]
    assert words in problems[0][2]


def test_the_gpu_build_needs_a_driver():
    facts = {"state": "driver_not_loaded", "gpus": [], "errors": [{"message": "no driver"}]}
    (problem,) = _vllm_gpus.check_driver([Service({"name": "a"}, None)], facts)
    assert problem["found"] == "driver_not_loaded (no driver)"
    assert "the CPU build" in problem["allowed"]


def test_gpus_that_are_over_committed():
    pair = [small("a", 8001), small("b", 8002, gpu_memory_utilization=0.6)]
    assert told(make(*pair)) == [
        (
            "b.model.gpu_memory_utilization",
            "0.5 (a) + 0.6 (b) = 1.1 of GPU 0",
            "together at most 1 of GPU 0: 16.00 GiB - 0 bytes held by others = 16.00 GiB,"
            " asked for 17.60 GiB",
        )
    ]
    apart = [small("a", 8001), small("b", 8002, gpu_memory_utilization=0.6, gpus=[1])]
    assert told(make(*apart, gpus=[gpu(0), gpu(1)])) == []


def test_what_other_processes_hold_is_not_there_for_services():
    processes = [
        {"pid": 7, "name": "/usr/bin/ollama runner", "memory_bytes": 4 * GIB},
        {"pid": 9, "name": "VLLM::EngineCore", "memory_bytes": 8 * GIB},
    ]
    busy = [gpu(memory_used_bytes=12 * GIB, processes=processes)]
    own = {"citadel-llm@a.service": frozenset({9})}
    pair = [small("a", 8001), small("b", 8002, gpu_memory_utilization=0.25)]
    assert told(make(*pair, gpus=busy, weights=GIB, observed=host(unit_pids=own))) == []
    more = [small("a", 8001), small("b", 8002, gpu_memory_utilization=0.3)]
    (problem,) = told(make(*more, gpus=busy, weights=GIB, observed=host(unit_pids=own)))
    assert problem[1] == "0.5 (a) + 0.3 (b) = 0.8 of GPU 0"
    assert problem[2].startswith(
        "together at most 0.75 of GPU 0: 16.00 GiB - 4.00 GiB held by others (of which ollama"
    )
    assert "(pid 7) 4.00 GiB" in problem[2]


def test_what_the_driver_keeps_is_nobody_s():
    reserved = [gpu(memory_reserved_bytes=GIB, memory_free_bytes=15 * GIB)]
    result = make(small(), gpus=reserved)
    assert told(result) == []
    assert result.services[0]["fit"]["budget_bytes"] == 15 * GIB // 2


def test_services_on_one_gpu_start_one_after_another():
    three = [
        small("a", 8001, gpu_memory_utilization=0.45, gpus=[0]),
        small("b", 8002, gpu_memory_utilization=0.45, gpus=[1]),
        small("c", 8003, tensor_parallel_size=2, gpu_memory_utilization=0.45, gpus=[0, 1]),
    ]
    result = make(*three, gpus=[gpu(0), gpu(1)])
    assert [(found["order"], found["after"]) for found in result.services] == [
        (0, []),
        (0, []),
        (1, ["citadel-llm@a.service", "citadel-llm@b.service"]),
    ]


def test_a_version_without_a_list_is_refused_once():
    assert told(make(small("a"), small("b", 8002), version="0.99.0")) == [
        (".", "vLLM 0.99.0", "a version with a list of its flags: 0.32")
    ]


@pytest.mark.parametrize(
    ("build", "ignored"),
    [("cpu", ["model.gpus", "model.gpu_memory_utilization"]), ("cuda", ["model.kv_cache_gb"])],
)
def test_fields_that_mean_nothing_to_a_build_are_a_warning(build, ignored):
    result = make(small(gpus=[0], kv_cache_gb=1), build=build)
    found = [v for v in result.verdicts if v.check == "vllm_ignored_field"]
    assert [(v.status, v.value) for v in found] == [("WARN", name) for name in ignored]


def test_what_the_hub_did_not_tell_is_said_with_address_and_answer():
    note = "GET https://hub.example/org/x/resolve/0/config.json: answered 401 Unauthorized"
    declared = small(source={"hub": "org/x", "revision": "0" * 40}, weights_bytes=GIB)
    del declared["model"]["path"]
    result = make(declared, files={"a": ModelFiles(False, GIB, None, "declared", notes=(note,))})
    assert told(result) == []
    said = {verdict.check: (verdict.status, verdict.evidence) for verdict in result.verdicts}
    assert said["vllm_hub"] == ("WARN", note)
    assert said["vllm_fit"][0] == "WARN"
    assert f"config.json can't be read yet: {note}" in said["vllm_fit"][1]
