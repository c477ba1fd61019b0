# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_options import ARGUMENT_SPEC
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_series as made

ROOT = Path(__file__).resolve().parents[4]
OLLAMA = {
    "url": "http://127.0.0.1:11434",
    "models": [{"name": "a:1b", "digest": "x", "slo": {"ttft_ms": 500}}, {"name": "b:1b"}],
}
SERVICES = [
    {
        "name": "big",
        "service": {"port": 8001, "host": "0.0.0.0"},
        "model": {"served_names": ["big", "a:1b"]},
        "performance": {"target_latency_ms": 900, "target_throughput_rps": 4, "max_num_seqs": 8},
    },
    {"name": "six", "service": {"port": 8002, "host": "fd00::7"}},
    {"name": "plain", "service": {"port": 8003}},
    {"name": "other", "service": {"port": 8004, "group": {"hosts": ["llm-09", "llm-01"]}}},
]
VLLM = {"services": SERVICES, "address": "llm-01", "keys": "/opt/citadel/config/vllm"}
PRESETS = {
    "quick": [{"iterations": 10}],
    "throughput": [{"iterations": 100, "concurrency": 10}],
    "latency": [{"iterations": 20, "prompt_tokens": 64}, {"iterations": 20, "prompt_tokens": 512}],
    "capacity": [{"iterations": 20, "sweep": {"over": "concurrency"}}],
}
SLO = {"ttft_ms": 500, "target_throughput_rps": 4}
END = {"name": "ollama", "url": "http://127.0.0.1:11434", "models": [{"name": "a:1b", "slo": SLO}]}


def test_ollama_has_one_endpoint_with_the_catalog():
    [end] = made.endpoints("llm-01", "ollama", OLLAMA)
    assert end == {
        "name": "ollama",
        "url": "http://127.0.0.1:11434",
        "api": "ollama_generate",
        "key_file": "",
        "models": [{"name": "a:1b", "slo": {"ttft_ms": 500}}, {"name": "b:1b", "slo": {}}],
    }


def test_each_vllm_service_is_reached_on_its_host_with_its_key_and_objectives():
    ends = made.endpoints("llm-01", "vllm", VLLM)
    assert [end["url"] for end in ends] == [
        "http://127.0.0.1:8001",
        "http://[fd00::7]:8002",
        "http://llm-01:8003",
    ]  # the first host of a group answers for it
    assert ends[0]["key_file"] == "/opt/citadel/config/vllm/big.key.env"
    assert ends[0]["api"] == "openai_chat"
    objectives = {"latency_ms": 900, "target_throughput_rps": 4}
    assert ends[0]["models"] == [{"name": "big", "slo": objectives}]
    assert ends[2]["models"] == [{"name": "plain", "slo": {}}]
    assert not any(
        end["key_file"] for end in made.endpoints("llm-01", "vllm", {**VLLM, "keys": ""})
    )


def test_a_service_is_measured_under_the_name_that_was_asked_for():
    [end] = made.endpoints("llm-01", "vllm", VLLM, ["a:1b"])
    assert [model["name"] for model in end["models"]] == ["a:1b"]


def test_objectives_and_api_that_are_given_replace_declared_ones():
    given = {**OLLAMA, "api": "ollama_chat", "slo": {"ttft_ms": None, "latency_ms": 9, "x": 1}}
    [end] = made.endpoints("llm-01", "ollama", given, ["a:1b"])
    assert end["api"] == "ollama_chat"
    assert end["models"] == [{"name": "a:1b", "slo": {"latency_ms": 9}}]


@pytest.mark.parametrize(
    ("engine", "declared", "chosen", "words"),
    [
        ("ollama", OLLAMA, ["c:1b"], "llm-01: llm_models declares a:1b, b:1b, wanted c:1b"),
        ("ollama", {"url": "u"}, [], "llm_models declares nothing, wanted at least one model"),
        ("vllm", OLLAMA, [], "llm_vllm_services declares nothing"),
        ("sglang", OLLAMA, [], "llm_benchmark_engine is 'sglang', wanted ollama or vllm"),
    ],
)
def test_what_is_not_declared_is_refused(engine, declared, chosen, words):
    with pytest.raises(HostError, match="llm-01: ") as raised:
        made.endpoints("llm-01", engine, declared, chosen)
    assert words in str(raised.value)


def test_a_preset_is_measured_on_each_endpoint():
    found = made.series([END, {**END, "name": "two"}], "latency", PRESETS, {})
    assert [item["label"] for item in found] == [
        "ollama, prompts of 64 tokens",
        "ollama, prompts of 512 tokens",
        "two, prompts of 64 tokens",
        "two, prompts of 512 tokens",
    ]
    assert not any(item["sequential"] for item in found)


def test_the_throughput_of_all_is_judged_only_where_it_can_be_reached():
    def judged(preset, **load):
        [item] = made.series([END], preset, PRESETS, load)
        return sorted(item["models"][0]["slo"])

    assert judged("throughput") == sorted(SLO)
    assert judged("quick", rate=5) == sorted(SLO)
    assert judged("quick") == ["ttft_ms"]
    assert judged("capacity") == ["ttft_ms"]
    assert judged("throughput", concurrency=1) == ["ttft_ms"]


def test_what_is_asked_for_takes_the_place_of_the_preset():
    def options(preset, **load):
        return [item["options"] for item in made.series([END], preset, PRESETS, load)]

    crowd = {"cv_limit": 0}
    assert options("throughput", rate="2.5") == [{"iterations": 100, "rate": 2.5, **crowd}]
    assert options("capacity", concurrency="4") == [{"iterations": 20, "concurrency": 4, **crowd}]
    assert options("quick", duration=30) == [{"duration": 30}]
    # Both steps are the same now, so one is enough.
    assert options("latency", prompts=["x"]) == [{"iterations": 20, "prompts": ["x"]}]
    assert options("latency", prompt_tokens="100") == [{"iterations": 20, "prompt_tokens": 100}]


def test_one_request_at_a_time_is_what_first_baselines_are_of():
    def alone(preset, **load):
        return [item["sequential"] for item in made.series([END], preset, PRESETS, load)]

    assert alone("quick") == [True]
    assert alone("quick", rate="0") == [True]
    assert alone("throughput") == [False]
    assert alone("quick", rate=1) == [False]
    assert alone("capacity") == [False]
    assert alone("quick", prompt_tokens="64") == [False]


@pytest.mark.parametrize(
    "changed",
    [
        {"prompts": ["x"]},
        {"prompt_file": "/p"},
        {"num_predict": "16"},
        {"think": True},
        {"extra_body": {"top_k": 1}},
        {"stream": False},
        {"unique_prompts": False},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_first_baselines_are_of_plain_requests_only(changed):
    [item] = made.series([END], "quick", PRESETS, changed)
    assert not item["sequential"]


def test_what_is_said_as_it_is_anyway_keeps_the_first_baseline():
    same = {"num_predict": "128", "think": False, "stream": True, "extra_body": {}, "warmup": 2}
    [item] = made.series([END], "quick", PRESETS, same)
    assert item["sequential"]


def test_first_baselines_are_of_the_hosts_own_server():
    [item] = made.series([{**END, "elsewhere": True}], "quick", PRESETS, {})
    assert not item["sequential"]


def test_variation_is_judged_only_of_one_request_at_a_time():
    presets = {**PRESETS, "throughput": [{"concurrency": 10, "cv_limit": 0}]}

    def limit(preset, **load):
        [item] = made.series([END], preset, presets, load)
        return item["options"].get("cv_limit")

    assert limit("quick") is None  # the module's own
    assert limit("quick", concurrency="8") == 0
    assert limit("quick", rate=2) == 0
    assert limit("quick", sweep={"over": "rate"}) == 0
    assert limit("quick", concurrency=8, cv_limit="15") == 15
    assert limit("throughput") == 0
    assert limit("throughput", concurrency=1) is None


@pytest.mark.parametrize(
    ("preset", "load", "words"),
    [
        ("slow", {}, "the preset is 'slow', wanted one of capacity, latency, quick, throughput"),
        ("quick", {"rat": 1}, "the load says rat, wanted"),
        ("quick", {"in_service": True}, "the load says in_service"),
        ("quick", {"iterations": "many"}, "iterations is 'many', wanted a whole number"),
        ("quick", {"rate": "fast"}, "rate is 'fast', wanted a number"),
    ],
)
def test_what_is_no_load_is_refused(preset, load, words):
    with pytest.raises(HostError) as raised:
        made.series([END], preset, PRESETS, load)
    assert words in str(raised.value)


def test_every_part_of_a_load_is_an_option_and_reaches_the_module():
    [task] = [
        entry["hx_infra.llm.inference_benchmark"]
        for entry in yaml.safe_load((ROOT / "roles/benchmark/tasks/measure.yml").read_text())
        if "hx_infra.llm.inference_benchmark" in entry
    ]
    assert set(made.LOAD) <= set(ARGUMENT_SPEC)
    for name in made.LOAD:
        assert f"options.{name} |" in str(task[name]), name
    declared = yaml.safe_load((ROOT / "playbooks/vars/declaration.yml").read_text())
    assert set(declared["hx_benchmark_asked"]) <= set(made.LOAD)


def test_the_roles_presets_are_loads():
    variables = yaml.safe_load((ROOT / "roles/benchmark/vars/main.yml").read_text())
    presets = variables["__benchmark_presets"]
    specs = yaml.safe_load((ROOT / "roles/benchmark/meta/argument_specs.yml").read_text())
    choices = specs["argument_specs"]["main"]["options"]["benchmark_preset"]["choices"]
    assert sorted(choices) == sorted(presets)
    for name, steps in presets.items():
        for step in steps if name != "report" else []:
            assert set(step) <= set(made.LOAD), name
    assert presets["throughput"] == [{"iterations": 100, "concurrency": 10, "cv_limit": 0}]
