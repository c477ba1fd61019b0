# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Ask an OpenAI-compatible endpoint for its models, and each for an answer.

A list of models proves that a server listens, not that its engine computes: the engine of a model
that it can't run dies at the first request. And an answer with status 200 may have been cut off:
its finish reason says so.
"""

from __future__ import annotations

import http.client
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Prepare, fetch_json
from ansible_collections.hx_infra.llm.plugins.module_utils._endpoint_check_ask import (
    SNIPPET,
    Clock,
    Question,
    Reply,
    ask,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    PASS,
    WARN,
    Verdict,
    judge,
)

STREAM = "stream"
NON_STREAM = "non_stream"
PAUSE_S = 0.25
# name, labels in braces, value, time
_SAMPLE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{.*\})?\s+(\S+)(?:\s+-?\d+)?")


@dataclass(frozen=True)
class Wanted:
    """What the endpoint has to show.

    Attributes:
        models: ids that it has to list and that have to answer.
        question: what each of them is asked.
        budget_s: time for the whole check.
        wait_s: how long, within the budget, the models may take to be listed.
        target_latency_ms: time for an answer; above is a warning, above twice a failure; 0 is none.
        metrics: whether ``/metrics`` has to show vLLM's figures.
    """

    models: Sequence[str]
    question: Question = field(default_factory=Question)
    budget_s: float = 60.0
    wait_s: float = 0.0
    target_latency_ms: float = 0.0
    metrics: bool = False


def check_endpoint(
    wanted: Wanted, prepare: Prepare, now: Callable[[], float], sleep: Callable[[float], None]
) -> dict[str, Any]:
    """Return verdicts, one entry per model, and whether everything was ready and answered."""
    clock = Clock(now, sleep, now() + wanted.budget_s)
    verdicts = listed_verdicts(wanted, prepare, clock)
    missing = {verdict.subject for verdict in verdicts if verdict.status == FAIL}
    models = []
    for name in wanted.models:
        if verdicts[0].status == FAIL or name in missing:
            models.append(_entry(name, Reply(error="not listed"), Reply(error="not listed")))
            continue
        plain = ask(prepare, clock, wanted.question, name, stream=False)
        streamed = ask(prepare, clock, wanted.question, name, stream=True)
        verdicts.append(answer_verdict(name, NON_STREAM, plain))
        verdicts.append(answer_verdict(name, STREAM, streamed))
        if wanted.target_latency_ms > 0 and plain.ok:
            verdicts.append(latency_verdict(name, plain, wanted.target_latency_ms))
        models.append(_entry(name, plain, streamed))
    if wanted.metrics and verdicts[0].status != FAIL:
        verdicts.append(metrics_verdict(prepare, clock))
    ready = all(verdict.status != FAIL for verdict in verdicts)
    return {"verdicts": verdicts, "models": models, "ready": ready}


def listed_verdicts(wanted: Wanted, prepare: Prepare, clock: Clock) -> list[Verdict]:
    """Judge that the endpoint answers and lists the models, waiting as long as allowed."""
    give_up = min(clock.now() + wanted.wait_s, clock.end)
    while True:
        verdicts = _listed_once(wanted, prepare, clock)
        if clock.now() >= give_up or all(verdict.status == PASS for verdict in verdicts):
            return verdicts
        clock.sleep(PAUSE_S)


def _listed_once(wanted: Wanted, prepare: Prepare, clock: Clock) -> list[Verdict]:
    try:
        ids = listed_ids(fetch_json(prepare, "/v1/models", clock.left()))
    except (HostError, OSError) as error:
        return [Verdict("endpoint_ready", FAIL, "", "no answer", "answer", "", str(error))]
    verdicts = [Verdict("endpoint_ready", PASS, "", "answer", "answer", "", "GET /v1/models")]
    for name in wanted.models:
        ok = name in ids
        verdicts.append(
            judge(
                "model_listed", ok, subject=name, value=ids, limit=name, evidence="GET /v1/models"
            )
        )
    return verdicts


def listed_ids(answer: Any) -> list[str]:
    """Return the ids in an answer of ``/v1/models``."""
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        raise HostError("GET /v1/models answered JSON without the list 'data'.")
    return sorted(
        str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry
    )


def answer_verdict(model: str, mode: str, reply: Reply) -> Verdict:
    """Judge how an answer ended."""
    evidence = reply.error or f"{reply.tokens} tokens in {reply.total_ms or 0:.0f} ms"
    return judge(
        f"answer_{mode}",
        reply.ok,
        subject=model,
        value=reply.finish_reason or "no answer",
        limit="stop or length",
        evidence=evidence,
    )


def latency_verdict(model: str, reply: Reply, target_ms: float) -> Verdict:
    """Judge the time of an answer: above the target is a warning, above twice a failure."""
    value = reply.total_ms or 0.0
    status = PASS if value <= target_ms else WARN if value <= 2 * target_ms else FAIL
    evidence = f"time of one answer of {reply.tokens} tokens; twice the limit is a failure"
    return Verdict("latency", status, model, value, target_ms, "ms", evidence)


def metrics_verdict(prepare: Prepare, clock: Clock) -> Verdict:
    """Judge that ``/metrics`` can be parsed and holds vLLM's own series."""
    found, problem = 0, ""
    try:
        answer = prepare("GET", "/metrics", b"", clock.left())()
        text = b"".join(answer.chunks).decode("utf-8", "replace")
        answer.close()
        if answer.status == 200:
            found = len(vllm_series(text))
        else:
            problem = f"GET /metrics answered status {answer.status}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        problem = f"GET /metrics: {error}"
    evidence = problem or "names that begin with vllm: in GET /metrics"
    return judge("metrics", found > 0, value=found, limit="at least 1", evidence=evidence)


def vllm_series(text: str) -> set[str]:
    """Return the names of vLLM's series in a Prometheus exposition.

    Raises:
        ValueError: a line is none of Prometheus' text format.
    """
    names = set()
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        sample = _SAMPLE.fullmatch(line.strip())
        if sample is None:
            raise ValueError(f"not a sample: {line[:SNIPPET]!r}")
        float(sample.group(2))
        if sample.group(1).startswith("vllm:"):
            names.add(sample.group(1))
    return names


def _entry(name: str, plain: Reply, streamed: Reply) -> dict[str, Any]:
    return {
        "name": name,
        "ok": plain.ok and streamed.ok,
        "ttft_ms": streamed.ttft_ms,
        "total_ms": plain.total_ms,
        "stream_ms": streamed.total_ms,
        "finish_reason": streamed.finish_reason or plain.finish_reason,
        "error": plain.error or streamed.error,
    }


def parse_key(text: str, source: str) -> str:
    """Return the key of a credential file: the key alone, or a line ``VLLM_API_KEY=...``.

    Raises:
        HostError: there is none in it.
    """
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    named = [line.partition("=")[2] for line in lines if line.startswith("VLLM_API_KEY=")]
    found = named or (lines if len(lines) == 1 else [])
    key = found[0].strip("\"'") if found else ""
    if not key or any(character.isspace() for character in key):
        raise HostError(
            f"{source} holds no key.", "Write the key as its only line, or as VLLM_API_KEY=<key>."
        )
    return key


def read_key(path: str | None) -> str:
    """Return the key of a credential file, empty without one."""
    if not path:
        return ""
    try:
        with open(path, encoding="utf-8") as stream:
            mode = os.fstat(stream.fileno()).st_mode & 0o777
            text = stream.read()
    except OSError as error:
        raise HostError(
            f"{path} can't be read: {error.strerror}.", "Run with become, or correct key_file."
        ) from error
    if mode & 0o007:  # a group may be let in on purpose
        raise HostError(
            f"{path} has mode {mode:04o}, wanted 0600, or 0640 for a group that may read it.",
            f"Run: chmod o= {path}",
        )
    return parse_key(text, path)


def key_headers(key: str) -> dict[str, str]:
    """Return the header that carries a key."""
    return {"Authorization": f"Bearer {key}"} if key else {}
