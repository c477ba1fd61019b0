# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples and measurements for the tests of the benchmark's judgement."""

from __future__ import annotations

from array import array

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_job import Sample
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import Measurement
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import Stage


def sample(number=1, ttft=100.0, rate=50.0, error="", **more):
    fields = {
        "number": number,
        "model": "m",
        "ttft_ms": None if error else ttft,
        "latency_ms": 1000.0,
        "tpot_ms": None if error else 1000 / rate,
        "load_ms": 2.0,
        "prompt_tokens": 20,
        "prompt_eval_ms": 40.0,
        "gen_tokens": 0 if error else 50,
        "tokens_per_s": None if error else rate,
        "chunks": 0 if error else 50,
        "error_kind": error,
        "error": f"it was {error}" if error else "",
    }
    return Sample(**{**fields, **more})


def measured(*samples, gaps=(), **more):
    fields = {"wall_s": 2.0, "stage": Stage(requests=len(samples)), **more}
    return Measurement("m", samples=list(samples), gaps_ms=array("d", gaps), **fields)


def good():
    return measured(
        sample(1, rate=50),
        sample(2, rate=52),
        sample(3, rate=51),
        warmup=[sample(ttft=900.0)],
        gaps=[20.0, 20.0, 600.0, 0.0],
    )
