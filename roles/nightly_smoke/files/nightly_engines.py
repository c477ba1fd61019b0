# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask the models of an Ollama or of an OpenAI-compatible engine, one after another.

What counts is the answer, not the status: both kinds of engines report errors inside a 200, and a
model that has fallen back to the CPU answers like one on the GPU. An engine that is being restarted
gets a limited time to come back, and the model that it left without an answer a second try.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nightly_gpu import TOLD, Cards, not_asked
from nightly_http import SNIPPET, ExchangeError, Reply
from nightly_session import ASKED, Engine, Session

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used import Claim, amounts
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used_engines import claim_of_metrics
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import FAIL

GOOD_REASONS = ("stop", "length", "tool_calls")
# Long enough to look where the model lies. A request without it leaves a loaded model's own time as
# it is, and one that the test has loaded shall not hold memory until the morning.
KEEP_ALIVE = "60s"


@dataclass
class Outcome:
    """How one check ended.

    Attributes:
        check: ``engine``, ``suite`` or ``model``.
        subject: the engine, the suite or the model.
        engine: name of the engine; empty for a suite.
        ok: whether it passed.
        seconds: time of the answer.
        load_seconds: time until the model was loaded.
        gpu_ratio: part of the model in GPU memory; 0 where the cards contradict the engine.
        cards: what the cards showed, or why that isn't known; empty where nobody wants to know.
        message: what is wrong, or what has to be told.
    """

    check: str
    subject: str
    engine: str = ""
    ok: bool = True
    seconds: float | None = None
    load_seconds: float | None = None
    gpu_ratio: float | None = None
    cards: str = ""
    message: str = ""

    def fail(self, message: str) -> Outcome:
        """Note what is wrong."""
        self.ok, self.message = False, message
        return self


def check_engine(session: Session) -> Outcome:
    """Tell whether an engine answers, after waiting for it."""
    outcome = Outcome("engine", session.engine.name, session.engine.name)
    begin = session.now()
    try:
        session.wait_until_ready()
    except ExchangeError as trouble:
        waited = session.now() - begin
        return outcome.fail(f"{session.engine.url} doesn't answer after {waited:.0f} s: {trouble}")
    outcome.seconds = round(session.now() - begin, 3)
    return outcome


def models_of(session: Session) -> list[str]:
    """Return the models to ask, after waiting for an engine that is away.

    Raises:
        ExchangeError: they aren't known.
    """
    try:
        return session.models()
    except ExchangeError as trouble:
        if not trouble.away:
            raise
        _wait_again(session, trouble)
        return session.models()


def check_model(session: Session, model: str, cards: Cards | None = None) -> Outcome:
    """Ask one model; one that lost its answer to a restart of the engine is asked again.

    Args:
        session: its engine.
        model: its name.
        cards: the GPUs to watch while it generates; None takes the engine at its word.
    """
    outcome = Outcome("model", model, session.engine.name)

    def ask() -> None:
        if session.engine.kind == "ollama":
            _ask_ollama(session, model, outcome, cards)
        else:
            _ask_openai(session, model, outcome, cards)

    try:
        try:
            ask()
        except ExchangeError as trouble:
            if not trouble.away:
                raise
            _wait_again(session, trouble)
            ask()
            outcome.message = f"at the second try; at the first: {trouble}"
    except ExchangeError as trouble:
        outcome.fail(str(trouble))
    return outcome


def _wait_again(session: Session, first: ExchangeError) -> None:
    try:
        session.pause()
        session.wait_until_ready()
    except ExchangeError as trouble:
        raise ExchangeError(
            trouble.kind, f"{first}; the engine did not come back: {trouble}", trouble.status
        ) from trouble


def _ask_ollama(session: Session, model: str, outcome: Outcome, cards: Cards | None) -> None:
    keep = {} if _loaded(_listed(session), model) else {"keep_alive": KEEP_ALIVE}
    begin = session.now()
    asked: dict[str, Any] = {"model": model, "stream": False, **keep}
    embeds = False
    try:
        _ollama_object(session.call("/api/generate", asked, session.limits.load_s))
    except ExchangeError as trouble:
        # Versions differ in what they tell about a model, but not in this refusal.
        embeds = trouble.status == 400 and "does not support" in str(trouble)
        if not embeds:
            raise ExchangeError(trouble.kind, f"loading it: {trouble}", trouble.status) from trouble
        _embed_ollama(session, asked, session.limits.load_s)
    outcome.load_seconds = round(session.now() - begin, 3)
    begin = session.now()
    if embeds:
        _embed_ollama(session, asked, session.limits.call_s)
    else:
        options = {"temperature": 0, "num_predict": session.limits.max_tokens}
        question = {"prompt": session.limits.prompt, "think": False, "options": options}
        answer = _ollama_object(session.call("/api/generate", {**asked, **question}))
        if answer.get("done") is not True:
            raise ExchangeError("answer", "the answer is not complete: it lacks done=true")
        _check_text(f"{answer.get('thinking') or ''}{answer.get('response') or ''}", session.engine)
    outcome.seconds = round(session.now() - begin, 3)
    claim = _check_claim(session, model, outcome)
    if claim is not None:
        _look(session, asked, claim, outcome, cards, silent=embeds)


def _look(
    session: Session,
    asked: Mapping[str, Any],
    claim: Claim,
    outcome: Outcome,
    cards: Cards | None,
    *,
    silent: bool,
) -> None:
    """Hold an engine's word against the cards; take it without them, or of a model without text."""
    if cards is None or silent:
        outcome.cards = not_asked(session.engine, silent)
        return
    verdict = cards.look(session, asked, claim)
    if verdict.status == FAIL:
        outcome.gpu_ratio = verdict.value if isinstance(verdict.value, float) else None
        raise ExchangeError("answer", verdict.evidence)
    outcome.cards = verdict.evidence


def _ollama_object(reply: Reply) -> dict[str, Any]:
    answer = reply.object()
    if answer.get("error"):
        raise ExchangeError(
            "answer", f"an error inside status 200: {str(answer['error'])[:SNIPPET]}"
        )
    return answer


def _embed_ollama(session: Session, asked: Mapping[str, Any], seconds: float) -> None:
    body = {key: value for key, value in asked.items() if key != "stream"}
    body["input"] = session.limits.prompt
    answer = _ollama_object(session.call("/api/embed", body, seconds))
    vectors = answer.get("embeddings")
    _check_vector(vectors[0] if isinstance(vectors, list) and vectors else None)


def _listed(session: Session) -> list[Mapping[str, Any]]:
    """Return the models that are loaded."""
    entries = session.call("/api/ps").object().get("models")
    return [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []


def _loaded(entries: list[Mapping[str, Any]], model: str) -> Mapping[str, Any] | None:
    for entry in entries:
        name = str(entry.get("name") or entry.get("model") or "")
        if canonical(name) == canonical(model):
            return entry
    return None


def canonical(model: str) -> str:
    """Return a model's name with its tag."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def _check_claim(session: Session, model: str, outcome: Outcome) -> Claim | None:
    """Judge where a model lies by the engine's own word and return it; None if nobody asks."""
    wanted = session.engine.min_gpu_ratio
    if wanted <= 0:
        return None
    entries = _listed(session)
    entry = _loaded(entries, model)
    if entry is None:
        raise ExchangeError(
            "answer", "/api/ps doesn't list it, so nobody knows what computed the answer"
        )
    size, on_gpu = _count(entry.get("size")), _count(entry.get("size_vram"))
    if size <= 0:
        raise ExchangeError(
            "answer", "/api/ps gives it no size, so nobody knows what computed the answer"
        )
    outcome.gpu_ratio = round(min(on_gpu / size, 1.0), 4)
    if outcome.gpu_ratio < wanted:
        raise ExchangeError(
            "answer",
            f"{on_gpu} of {size} bytes lie in GPU memory ({outcome.gpu_ratio:.0%}), wanted"
            f" {wanted:.0%}: the CPU computes {'it' if on_gpu == 0 else 'a part of it'}",
        )
    return Claim(
        outcome.gpu_ratio,
        f"size_vram {amounts(on_gpu, size)} in /api/ps",
        held_bytes=sum(_count(one.get("size_vram")) for one in entries),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _ask_openai(session: Session, model: str, outcome: Outcome, cards: Cards | None) -> None:
    _question_openai(session, model, outcome)
    silent = session.engine.api == "embeddings"
    claim = _check_metrics(session, outcome, watched=cards is not None and not silent)
    if claim is not None:
        _look(session, {"model": model}, claim, outcome, cards, silent=silent)


def _check_metrics(session: Session, outcome: Outcome, *, watched: bool) -> Claim | None:
    """Judge by vLLM's own metrics whether it computes on a GPU; None if nobody asks.

    Metrics that tell nothing leave it to the cards, if they are watched: they have to show the work
    that is declared.
    """
    wanted = session.engine.min_gpu_ratio
    if wanted <= 0:
        return None
    path = TOLD[session.engine.kind]
    try:
        text = session.call(path).body.decode("utf-8", "replace")
    except ExchangeError as trouble:
        said = f"where it computes is not known: {trouble}"
        raise ExchangeError(trouble.kind, said, trouble.status) from trouble
    claim = claim_of_metrics(text)
    if claim.ratio is None:
        if claim.otherwise == FAIL or not watched:
            raise ExchangeError("answer", f"{claim.said}, so nobody knows what computed the answer")
        return replace(claim, ratio=1.0, said=f"nothing of a GPU ({claim.said})")
    outcome.gpu_ratio = round(claim.ratio, 4)
    if outcome.gpu_ratio < wanted:
        said = f"{claim.said} ({outcome.gpu_ratio:.0%} on the GPU), wanted {wanted:.0%}"
        raise ExchangeError("answer", f"{said}: the CPU computes it")
    return claim


def _question_openai(session: Session, model: str, outcome: Outcome) -> None:
    engine, limits = session.engine, session.limits
    body: dict[str, Any] = {"model": model}
    if engine.api == "embeddings":
        body["input"] = limits.prompt
    else:
        body.update(max_tokens=limits.max_tokens, temperature=0, stream=False)
        if engine.api == "chat":
            body["messages"] = [{"role": "user", "content": limits.prompt}]
        else:
            body["prompt"] = limits.prompt
    begin = session.now()
    answer = session.call(ASKED[engine.api], body).object()
    outcome.seconds = round(session.now() - begin, 3)
    problem = answer.get("error") or (answer.get("object") == "error" and answer.get("message"))
    if problem:
        said = problem if isinstance(problem, str) else json.dumps(problem)
        raise ExchangeError("answer", f"an error inside status 200: {said[:SNIPPET]}")
    key = "data" if engine.api == "embeddings" else "choices"
    entries = answer.get(key)
    first = entries[0] if isinstance(entries, list) and entries else None
    if not isinstance(first, dict):
        raise ExchangeError("answer", f"the answer holds no {key}")
    if engine.api == "embeddings":
        _check_vector(first.get("embedding"))
        return
    reason = first.get("finish_reason")
    if reason not in GOOD_REASONS:
        raise ExchangeError("answer", f"the answer ended with finish reason {reason!r}")
    message = first.get("message") if isinstance(first.get("message"), dict) else {}
    parts = [first.get("text"), *(message.get(key) for key in ("reasoning_content", "reasoning"))]
    _check_text("".join(str(part) for part in [*parts, message.get("content")] if part), engine)


def _check_text(text: str, engine: Engine) -> None:
    said = " ".join(text.split())
    if not said:
        raise ExchangeError("answer", "the answer is empty")
    if engine.answer and engine.answer not in text:
        raise ExchangeError("answer", f"it answered {said[:80]!r}, wanted {engine.answer!r}")


def _check_vector(vector: Any) -> None:
    entries = vector if isinstance(vector, list) else []
    numbers = [item for item in entries if isinstance(item, (int, float))]
    if not any(numbers) or not all(math.isfinite(item) for item in numbers):
        raise ExchangeError("answer", "the answer holds no vector of numbers")
