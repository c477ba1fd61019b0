# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils._gateway_routes import (
    backend_name,
    routes,
)

LLAMA = {"llm_models": [{"name": "llama3.2:3b"}]}


def tiny(name="tiny", port=8001, **model):
    return {"name": name, "service": {"port": port}, "model": model}


def names(found):
    return {route["model"]: [server["name"] for server in route["servers"]] for route in found}


def test_a_route_holds_what_the_gateway_needs():
    assert routes(["llm-01"], {"llm-01": LLAMA}) == [
        {
            "model": "llama3.2:3b",
            "backend": backend_name("llama3.2:3b"),
            "servers": [
                {
                    "name": "llm-01.ollama",
                    "host": "llm-01",
                    "engine": "ollama",
                    "address": "llm-01",
                    "port": 11434,
                    "weight": 10,
                }
            ],
        }
    ]


def test_both_engines_of_a_model_meet_in_one_backend():
    hosts = {
        "llm-03": {
            "llm_address": "10.0.0.3",
            "llm_vllm_services": [tiny(served_names=["llama3.2:3b", "tiny"])],
            "llm_gateway_weights": {"llama3.2:3b": {"vllm": 0}},
        },
        "llm-01": {**LLAMA, "llm_engine_listen": "127.0.0.1:11500"},
    }
    found = routes(["llm-03", "llm-01"], hosts)
    assert names(found) == {
        "llama3.2:3b": ["llm-01.ollama", "llm-03.vllm.tiny"],
        "tiny": ["llm-03.vllm.tiny"],
    }
    ollama, vllm = found[0]["servers"]
    assert (ollama["port"], ollama["weight"]) == (11500, 10)
    assert (vllm["address"], vllm["port"], vllm["weight"]) == ("10.0.0.3", 8001, 0)
    assert found[1]["servers"][0]["weight"] == 10


@pytest.mark.parametrize("declared", ["fd00::7", "[fd00::7]"])
def test_an_address_of_ipv6_stands_in_the_routes_without_brackets(declared):
    [route] = routes(["a"], {"a": {**LLAMA, "llm_address": declared}})
    assert route["servers"][0]["address"] == "fd00::7"


def test_a_service_serves_its_own_name_unless_told_otherwise():
    assert names(routes(["a"], {"a": {"llm_vllm_services": [tiny("mixtral")]}})) == {
        "mixtral": ["a.vllm.mixtral"]
    }


@pytest.mark.parametrize("value", [False, "false", "no", "False"])
def test_a_host_without_a_gateway_is_left_out(value):
    hosts = {"a": {**LLAMA, "llm_gateway": value}, "b": {**LLAMA, "llm_gateway": True}}
    assert names(routes(["a", "b"], hosts)) == {"llama3.2:3b": ["b.ollama"]}


def test_names_that_look_alike_get_backends_of_their_own():
    assert backend_name("a:b") != backend_name("a/b")
    assert backend_name("llama3.2:3b").startswith("m_llama3.2_3b_")
    assert len(backend_name("x" * 200)) < 80


def test_the_order_of_hosts_makes_no_difference():
    hosts = {"a": LLAMA, "b": LLAMA}
    assert routes(["a", "b"], hosts) == routes(["b", "a"], hosts)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"llm_models": [{"name": 'a"b'}]}, ["llm_models", 'a"b', "letters"]),
        ({"llm_models": [{"name": "a b"}]}, ["a b"]),
        ({"llm_models": [{"name": "a\n"}]}, ["llm_models"]),
        ({"llm_models": [{}]}, ["None"]),
        ({**LLAMA, "llm_engine": "tgi"}, ["llm_engine", "tgi", "ollama, vllm"]),
        ({**LLAMA, "llm_engine_listen": "0.0.0.0"}, ["llm_engine_listen", "65535"]),
        ({"llm_vllm_services": [tiny(port=0)]}, ["llm_vllm_services[tiny].service.port", "0"]),
        ({"llm_vllm_services": [{"name": "x"}]}, ["service.port", "None"]),
        ({"llm_vllm_services": [tiny("a.b")]}, ["a.b"]),
        ({**LLAMA, "llm_gateway_weights": {"llama3.2:3b": {"ollama": 11}}}, ["11", "0 to 10"]),
        ({**LLAMA, "llm_gateway_weights": {"llama3.2:3b": {"ollama": -1}}}, ["-1", "0 to 10"]),
        (
            {"llm_vllm_services": [tiny("a", served_names=["m"]), tiny("b", served_names=["m"])]},
            ["'m' is declared twice", "a:8001", "x.vllm.a", "x.vllm.b"],
        ),
    ],
)
def test_what_cannot_be_routed_is_refused(declared, words):
    with pytest.raises(HostError) as caught:
        routes(["x"], {"x": {"llm_address": "a", **declared}})
    assert str(caught.value).startswith("x: ")
    for word in words:
        assert word in str(caught.value)
