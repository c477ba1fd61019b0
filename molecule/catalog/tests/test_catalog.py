# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The damaged store after the role: whole, from the peer where that had it, and nothing lost."""

from __future__ import annotations

STORE = "/mnt/active_llm_models"
DECLARED = [
    "deepcoder:14b",
    "dolphin3:8b",
    "gemma2:2b",
    "llama3.2:3b",
    "phi3:latest",
    "qwen3:1.7b",
]
UNDECLARED = "cogito:32b"
ALL = sorted([*DECLARED, UNDECLARED])


def test_the_engine_lists_the_declared_models_and_the_undeclared_one(llm_02, api):
    assert sorted(model["name"] for model in api(llm_02, "/api/tags")["models"]) == ALL


def test_every_model_answers(llm_02, api):
    brief = {"prompt": "Hi", "stream": False, "options": {"num_predict": 4}}
    for name in ALL:
        answer = api(llm_02, "/api/generate", {"model": name, **brief})
        assert answer["done"], name
        assert answer["eval_count"] > 0, name


def test_every_blob_is_there_and_is_what_its_name_says(store):
    assert store.missing() == []
    assert store.damaged() == []


def test_nothing_is_left_over(store):
    assert store.files("blobs/*-partial*") == {}
    assert store.files(".hx/aside/*") == store.files(".hx/incoming/*") == {}


def test_what_nobody_declared_is_as_it_was(store):
    assert store.run("cat manifests/README.txt") == "models of llm-02, ask before you delete any"
    stray = "manifests/registry.ollama.ai/library/gemma2/2b~"
    assert store.run(f"cat '{stray}'") == "kept before the update"


def test_the_store_belongs_to_the_engine(llm_02):
    others = f"find {STORE}/blobs {STORE}/manifests ! -user ollama ! -name README.txt ! -name '*~'"
    assert llm_02.check_output(others) == ""
    assert llm_02.check_output(f"find {STORE}/ -perm /022 ! -type l") == ""


def test_the_peer_gave_what_it_has(store, registry):
    asked = " ".join(registry.counts()["requests"])
    for name in ("phi3:latest", "llama3.2:3b"):
        assert store.weights(name) not in asked, name
    for name in ("gemma2:2b", "deepcoder:14b", "qwen3:1.7b"):
        assert store.weights(name) in asked, name


def test_the_peer_serves_no_longer(svc_01):
    units = "systemctl list-units --all --no-legend --plain 'hx-model-store-serve*'"
    assert svc_01.check_output(units) == ""
    assert svc_01.run("ls /run/hx-llm | grep serve").stdout == ""
