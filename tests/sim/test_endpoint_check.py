# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The check of an OpenAI-compatible endpoint against the simulated Ollama, over real sockets."""

from __future__ import annotations

import time

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import http_prepare
from ansible_collections.hx_infra.llm.plugins.module_utils._endpoint_check import (
    Wanted,
    check_endpoint,
    key_headers,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._endpoint_check_ask import Question

MODEL = "tiny:1b"


def check(url, **wanted):
    prepare = http_prepare(url, headers=key_headers("sk-unused"))
    return check_endpoint(
        Wanted(**{"models": [MODEL], "budget_s": 30.0, **wanted}),
        prepare,
        time.monotonic,
        time.sleep,
    )


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_served_model_answers_in_one_piece_and_streamed(ollama, api):
    found = check(ollama.url, question=Question(api=api))
    assert found["ready"], found
    [model] = found["models"]
    assert (model["ok"], model["error"]) == (True, "")
    assert model["finish_reason"] in ("stop", "length")
    assert 0 < model["ttft_ms"] <= model["stream_ms"]


def test_a_model_that_is_not_there_is_a_failure(ollama):
    found = check(ollama.url, models=[MODEL, "none:7b"])
    assert not found["ready"]
    assert [model["ok"] for model in found["models"]] == [True, False]


def test_ollama_has_no_figures_of_vllm(ollama):
    found = check(ollama.url, metrics=True)
    assert [verdict.check for verdict in found["verdicts"] if verdict.status == "FAIL"] == [
        "metrics"
    ]


def test_nobody_there_is_a_failure_that_says_so(old):
    old.stop()
    found = check(old.url)
    assert not found["ready"]
    assert "refused" in found["verdicts"][0].evidence
