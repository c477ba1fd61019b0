# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_facts as facts
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Answer


def server(**answers):
    """Return a transport to a server that answers some paths and 404 for the others."""

    def prepare(_method, path, _body, _timeout_s):
        name = path.strip("/").replace("/", "_")
        if name not in answers:
            return lambda: Answer(404, iter([b"{}"]))
        return lambda: Answer(200, iter([json.dumps(answers[name]).encode()]))

    return prepare


def test_ollama_says_its_version_and_the_digests():
    tags = {"models": [{"name": "a:latest", "digest": "d1"}, {"name": "b:1b", "digest": "d2"}]}
    prepare = server(api_version={"version": "0.11.4"}, api_tags=tags)
    found = facts.engine_facts(prepare, "ollama_generate", ["a", "b:1b", "c"])
    assert found == {
        "name": "ollama",
        "version": "0.11.4",
        "digests": {"a": "d1", "b:1b": "d2", "c": ""},
    }


def test_vllm_says_its_version():
    found = facts.engine_facts(server(version={"version": "0.32.0"}), "openai_chat", ["a"])
    assert (found["name"], found["version"]) == ("vllm", "0.32.0")


def test_ollama_behind_openais_api_is_told_from_vllm():
    prepare = server(api_version={"version": "0.11.4"}, api_tags={"models": []})
    assert facts.engine_facts(prepare, "openai_chat", ["a"])["name"] == "ollama"


@pytest.mark.parametrize("answers", [{}, {"version": []}, {"api_version": {}}])
def test_an_unknown_engine_stays_empty(answers):
    found = facts.engine_facts(server(**answers), "openai_chat", ["a"])
    assert found == {"name": "", "version": "", "digests": {}}


def test_gpus_are_named_with_their_driver():
    read = {"gpus": [{"name": "RTX 4070 Ti"}, {}], "driver": {"version": "550.1"}}
    assert facts.gpu_names(read) == (("RTX 4070 Ti", ""), "550.1")
    assert facts.gpu_names({}) == ((), "")


@pytest.mark.parametrize(
    ("entry", "ratio"),
    [
        ({"size": 8, "size_vram": 8}, 1.0),
        ({"size": 8, "size_vram": 2}, 0.25),
        ({"size": 8}, 0.0),
        ({"size": 0, "size_vram": 0}, None),
        ({"size": 8, "size_vram": 9}, None),
    ],
)
def test_loaded_ratio(entry, ratio):
    state = {"models": [{"name": "a:latest", **entry}]}
    assert facts.loaded_ratio(state, "a") == ratio
    assert facts.loaded_ratio(state, "b") is None


@pytest.mark.parametrize("state", [None, [], {}, {"models": None}])
def test_a_strange_answer_says_nothing(state):
    assert facts.loaded_ratio(state, "a") is None


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("phi3", "phi3:latest"),
        ("phi3:3b", "phi3:3b"),
        ("registry:5000/library/phi3", "registry:5000/library/phi3:latest"),
    ],
)
def test_canonical(name, full):
    assert facts.canonical(name) == full
