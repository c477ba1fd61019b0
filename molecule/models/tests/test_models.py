# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

STORE = "/mnt/active_llm_models"
EXPECTED = ["deepcoder:14b", "dolphin3:8b", "gemma2:2b", "phi3:latest"]


def test_the_engine_lists_exactly_the_declared_models(llm_02, api):
    assert sorted(model["name"] for model in api(llm_02, "/api/tags")["models"]) == EXPECTED


def test_every_model_answers(llm_02, api):
    for name in EXPECTED:
        answer = api(llm_02, "/api/generate", {"model": name, "prompt": "Hi", "stream": False})
        assert answer["done"], name
        assert answer["eval_count"] > 0, name


def test_every_blob_is_what_its_name_says(llm_02):
    listed = llm_02.check_output(f"cd {STORE}/blobs && sha256sum *").splitlines()
    assert listed
    for line in listed:
        digest, name = line.split()
        assert name == f"sha256-{digest}"


def test_no_blob_is_missing_and_none_is_left_over(llm_02):
    manifests = llm_02.check_output(f"cat {STORE}/manifests/*/*/*/*")
    decoder, position, wanted = json.JSONDecoder(), 0, set()
    while position < len(manifests):
        manifest, position = decoder.raw_decode(manifests, position)
        wanted |= {entry["digest"] for entry in [manifest["config"], *manifest["layers"]]}
    present = llm_02.check_output(f"ls {STORE}/blobs").split()
    assert sorted(present) == sorted(digest.replace(":", "-") for digest in wanted)


def test_the_store_belongs_to_the_engine(llm_02):
    pulled = llm_02.check_output(f"stat -c %U {STORE}/manifests/*/*/gemma2/2b {STORE}/blobs/*")
    assert set(pulled.split()) == {"ollama"}
