# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Ask each model for a known answer and judge what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_facts import (
    canonical,
    loaded_entry,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_ollama import (
    Request,
    Sample,
    final_metrics_missing,
    measure,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Prepare, fetch_json
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    WARN,
    Verdict,
    at_least,
    judge,
)

STREAM = "stream"
NON_STREAM = "non_stream"
SNIPPET = 80


@dataclass(frozen=True)
class Wanted:
    """What the server has to show.

    Attributes:
        models: the models to ask.
        modes: ``stream`` and ``non_stream``, in this order or one of them.
        prompt: what to ask.
        answer: what the answer has to contain.
        num_predict: tokens to generate at most.
        timeout_s: time for one request.
        gpu_ratio: least part of a model in GPU memory; 0 does not judge it.
        version: the server's version; empty for any.
        catalog: the models that the server has to list; None judges none.
        exclusive: whether a further model is a failure.
    """

    models: Sequence[str]
    modes: Sequence[str] = (STREAM, NON_STREAM)
    prompt: str = "Return exactly the text: HX-OK"
    answer: str = "HX-OK"
    num_predict: int = 32
    timeout_s: float = 120.0
    gpu_ratio: float = 1.0
    version: str = ""
    catalog: Sequence[str] | None = None
    exclusive: bool = True


def check_all(
    wanted: Wanted,
    prepare: Prepare,
    clock: Callable[[], float],
) -> tuple[list[Verdict], list[dict[str, Any]]]:
    """Return the verdicts, and per model and mode what was answered."""
    verdicts = [check_version(wanted, prepare)]
    if wanted.catalog is not None:
        verdicts.append(check_catalog(wanted, prepare))
    answers = []
    for model in wanted.models:
        for mode in wanted.modes:
            request = Request(
                model=model,
                prompt=wanted.prompt,
                max_tokens=wanted.num_predict,
                stream=mode == STREAM,
                timeout_s=wanted.timeout_s,
            )
            sample = measure(prepare, clock, request)
            verdicts += judge_answer(sample, mode, wanted.answer)
            answers.append(
                {
                    "model": model,
                    "mode": mode,
                    "text": sample.text[:SNIPPET],
                    "latency_ms": round(sample.latency_ms or 0, 3),
                    "ttft_ms": round(sample.ttft_ms, 3) if sample.ttft_ms else None,
                    "load_ms": sample.load_ms,
                    "gen_tokens": sample.gen_tokens,
                    "error_kind": sample.error_kind,
                    "error": sample.error,
                }
            )
        if wanted.gpu_ratio > 0:
            verdicts.append(check_gpu(model, wanted, prepare))
    return verdicts, answers


def judge_answer(sample: Sample, mode: str, answer: str) -> list[Verdict]:
    """Judge the text and the final metrics of one answer."""
    if sample.error_kind:
        evidence = f"{sample.error_kind}: {sample.error}"
        return [Verdict(f"answer_{mode}", FAIL, sample.model, None, answer, "", evidence)]
    missing = final_metrics_missing(sample)
    text = sample.text.strip()
    return [
        judge(
            f"answer_{mode}",
            answer in text,
            subject=sample.model,
            value=text[:SNIPPET],
            limit=answer,
            evidence=f"answered in {sample.latency_ms or 0:.0f} ms, {sample.gen_tokens} tokens",
        ),
        judge(
            f"final_metrics_{mode}",
            not missing,
            subject=sample.model,
            value=missing,
            limit=[],
            evidence="metrics that the final object lacks",
        ),
    ]


def check_version(wanted: Wanted, prepare: Prepare) -> Verdict:
    """Judge that the API answers, with the wanted version."""
    try:
        state = fetch_json(prepare, "/api/version", wanted.timeout_s)
    except HostError as error:
        limit = wanted.version or "any version"
        return Verdict("api_version", FAIL, "ollama", None, limit, "", str(error))
    found = str(state.get("version", "")) if isinstance(state, dict) else ""
    return judge(
        "api_version",
        found == wanted.version if wanted.version else bool(found),
        subject="ollama",
        value=found,
        limit=wanted.version or "any version",
        evidence="GET /api/version",
    )


def check_catalog(wanted: Wanted, prepare: Prepare) -> Verdict:
    """Judge that the server lists the wanted models, and no others."""
    expected = {canonical(name) for name in wanted.catalog or []}
    try:
        state = fetch_json(prepare, "/api/tags", wanted.timeout_s)
    except HostError as error:
        return Verdict("catalog", FAIL, "ollama", None, sorted(expected), "", str(error))
    entries = (state.get("models") if isinstance(state, Mapping) else None) or []
    found = {canonical(str(entry.get("name", ""))) for entry in entries}
    missing, extra = sorted(expected - found), sorted(found - expected)
    told = [f"missing: {', '.join(missing)}"] if missing else []
    told += [f"not declared: {', '.join(extra)}"] if extra else []
    return judge(
        "catalog",
        found == expected if wanted.exclusive else not missing,
        subject="ollama",
        value=sorted(found),
        limit=sorted(expected),
        evidence="; ".join(told) or "GET /api/tags lists exactly the expected models",
    )


def check_gpu(model: str, wanted: Wanted, prepare: Prepare) -> Verdict:
    """Judge which part of a model lies in GPU memory, while it is still loaded."""
    try:
        entry = loaded_entry(fetch_json(prepare, "/api/ps", wanted.timeout_s), model)
    except HostError as error:
        return Verdict("gpu_used", FAIL, model, None, wanted.gpu_ratio, "", str(error))
    if entry is None:
        evidence = "GET /api/ps does not list the model as loaded"
        return Verdict("gpu_used", FAIL, model, None, wanted.gpu_ratio, "", evidence)
    size, on_gpu = int(entry.get("size") or 0), int(entry.get("size_vram") or 0)
    if size <= 0 or on_gpu > size:
        evidence = f"GET /api/ps gives size {size} and size_vram {on_gpu}, which tells nothing"
        return Verdict("gpu_used", WARN, model, None, wanted.gpu_ratio, "", evidence)
    return at_least(
        "gpu_used",
        round(on_gpu / size, 4),
        wanted.gpu_ratio,
        subject=model,
        evidence=f"GET /api/ps: {on_gpu} of {size} bytes in GPU memory",
    )
