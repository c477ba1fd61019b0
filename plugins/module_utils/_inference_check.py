# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Ask each model for a known answer and judge what comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import _endpoint_check
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_facts import canonical
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_ollama import (
    Request,
    Sample,
    final_metrics_missing,
    measure,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Prepare, fetch_json
from ansible_collections.hx_infra.llm.plugins.module_utils._endpoint_check_ask import Question
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used import (
    Limits,
    Owners,
    Seen,
    judge_used,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used_engines import (
    OLLAMA,
    VLLM,
    Engine,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used_look import Lookout
from ansible_collections.hx_infra.llm.plugins.module_utils._model_version_record import (
    kept_versions,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    Verdict,
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
    lookout: Lookout | None = None,
) -> tuple[list[Verdict], list[dict[str, Any]]]:
    """Return the verdicts, and per model and mode what was answered.

    With a lookout the cards are watched while each model that answers generates.
    """
    verdicts = [check_version(wanted, prepare)]
    if wanted.catalog is not None:
        verdicts.append(check_catalog(wanted, prepare))
    answers = []
    for model in wanted.models:
        answered = True
        for mode in wanted.modes:
            request = Request(
                model=model,
                prompt=wanted.prompt,
                max_tokens=wanted.num_predict,
                stream=mode == STREAM,
                timeout_s=wanted.timeout_s,
            )
            sample = measure(prepare, clock, request)
            answered = answered and not sample.error_kind
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
            watching = lookout if answered else None
            verdicts.append(check_gpu(model, OLLAMA, wanted, prepare, watching))
    return verdicts, answers


def check_openai(
    wanted: Wanted, prepare: Prepare, lookout: Lookout | None = None
) -> tuple[list[Verdict], list[dict[str, Any]]]:
    """Do the same with vLLM: its models are listed and answer, what they say isn't judged."""
    asked = _endpoint_check.Wanted(
        models=wanted.models,
        question=Question("completions", wanted.prompt, wanted.num_predict),
        budget_s=wanted.timeout_s * len(wanted.modes) * len(wanted.models),
    )
    found = _endpoint_check.check_endpoint(asked, prepare, time.monotonic, time.sleep)
    verdicts, answers = list(found["verdicts"]), []
    for entry in found["models"]:
        for mode, latency in ((NON_STREAM, "total_ms"), (STREAM, "stream_ms")):
            answers.append(
                {
                    "model": entry["name"],
                    "mode": mode,
                    "text": "",
                    "latency_ms": entry[latency] or 0.0,
                    "ttft_ms": entry["ttft_ms"] if mode == STREAM else None,
                    "load_ms": None,
                    "gen_tokens": None,
                    "error_kind": "" if entry["ok"] else "endpoint",
                    "error": entry["error"],
                }
            )
        # The metrics speak of the engine as a whole, not of a model that it doesn't serve.
        if wanted.gpu_ratio > 0 and entry["ok"]:
            verdicts.append(check_gpu(entry["name"], VLLM, wanted, prepare, lookout))
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
    found -= kept_versions(found, expected)
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


def check_gpu(
    model: str,
    engine: Engine,
    wanted: Wanted,
    prepare: Prepare,
    lookout: Lookout | None = None,
) -> Verdict:
    """Judge which part of a model lies in GPU memory, by the engine's word if nobody watches."""
    if lookout is not None:
        return lookout.watch(model)
    claim = engine.claim(prepare, model, wanted.timeout_s)
    return judge_used(model, claim, Seen(), Owners(), Limits(wanted.gpu_ratio))
