# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Endpoints that use a model: generate, chat, embed."""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

from sim_ollama import fields, models, names, version
from sim_ollama.app import App
from sim_ollama.engine import Job, Piece, Result, count_tokens, generate
from sim_ollama.errors import ApiError, TruncatedStreamError
from sim_ollama.httpd import NdjsonStream, Request, Router
from sim_ollama.runner import Runner

BROKEN = "an error was encountered while running the model: unexpected EOF"
EMBEDDING_LENGTH = 64


class Ask(NamedTuple):
    """What a generate or chat request comes down to."""

    asked: str
    prompt: str
    question: str
    body: dict[str, Any]
    think: bool | None
    verb: str
    arrived: float


def add_routes(router: Router) -> None:
    """Add this module's routes."""
    router.add("POST", "/api/generate", handle_generate)
    router.add("POST", "/api/chat", handle_chat)
    router.add("POST", "/api/embed", handle_embed)
    router.add("POST", "/api/embeddings", handle_embeddings)


def handle_generate(app: App, request: Request) -> None:
    """Answer a prompt."""
    body = request.json_body()
    prompt = fields.text(body, "prompt")
    if fields.boolean(body, "raw") and (body.get("template") or body.get("system")):
        raise ApiError(400, "raw mode does not support template, system, or context")
    asking = ask(request, body, prompt, prompt, "generate")
    _answer(app, request, asking, _generate_chunk)


def handle_chat(app: App, request: Request) -> None:
    """Answer a conversation."""
    body = request.json_body()
    prompt, question = conversation(fields.sequence(body, "messages"))
    asking = ask(request, body, prompt, question, "chat")
    _answer(app, request, asking, _chat_chunk)


def ask(request: Request, body: dict[str, Any], prompt: str, question: str, verb: str) -> Ask:
    """Read the fields that generate and chat share."""
    think = body.get("think")
    if think is not None and not isinstance(think, (bool, str)):
        raise ApiError(400, "think must be a boolean or string")
    wanted = None if think is None else bool(think)
    asked = fields.text(body, "model")
    return Ask(asked, prompt, question, body, wanted, verb, request.started)


def conversation(messages: list[Any]) -> tuple[str, str]:
    """Return the whole prompt and the last thing that the user said."""
    lines, question = [], ""
    for message in messages:
        if not isinstance(message, dict):
            raise ApiError(400, "json: cannot unmarshal value into Go struct field .messages")
        content = message.get("content") or ""
        if isinstance(content, list):
            content = " ".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
        lines.append(f"{message.get('role', '')}: {content}")
        if message.get("role") == "user":
            question = str(content)
    return "\n".join(lines), question


def find_model(app: App, asked: str, verb: str) -> models.Model:
    """Return the model that a request names, with the failures of the played version."""
    name = names.parse(asked)
    if not name.is_valid():
        if version.at_least(app.version, "0.30.0"):
            raise ApiError(400, "invalid model name")
        if verb == "chat" and not asked:
            raise ApiError(400, "model is required")
        raise ApiError(404, f"model '{asked}' not found")
    return models.load(app.store, name, asked)


def wants_load_only(asking: Ask) -> bool:
    """Tell whether nothing is asked: the model shall be loaded or unloaded."""
    if asking.verb == "chat":
        return not asking.body.get("messages")
    return asking.prompt == ""


def loaded_runner(
    app: App, request: Request, model: models.Model, asking: Ask
) -> tuple[Runner, bool]:
    """Load a model for an answer and return it with whether it shall think."""
    capabilities = model.capabilities()
    if "completion" not in capabilities:
        raise ApiError(400, f'"{asking.asked}" does not support {asking.verb}')
    if asking.think and "thinking" not in capabilities:
        if version.at_least(app.version, "0.12.0"):
            raise ApiError(400, f'"{asking.asked}" does not support thinking')
        raise ApiError(400, f"{model.manifest.name.full()} does not support thinking")
    if asking.body.get("suffix") and "insert" not in capabilities:
        raise ApiError(400, f"{model.manifest.name.full()} does not support insert")
    options = {**model.params, **fields.mapping(asking.body, "options")}
    keep = fields.keep_alive(asking.body)
    runner = app.scheduler.acquire(model, options, keep, request.cancelled)
    return runner, "thinking" in capabilities and asking.think is not False


def events(
    app: App, request: Request, runner: Runner, asking: Ask, think: bool
) -> Iterator[object]:
    """Yield the answer's Pieces and its Result."""
    options = {**runner.model.params, **fields.mapping(asking.body, "options")}
    job = Job(
        runner, asking.prompt, asking.question, options, think, bool(asking.body.get("format"))
    )
    return generate(job, app.settings, request.cancelled)


def _answer(
    app: App, request: Request, asking: Ask, chunk: Callable[[str, str], dict[str, Any]]
) -> None:
    keep = fields.keep_alive(asking.body)
    model = find_model(app, asking.asked, asking.verb)
    if wants_load_only(asking) and keep is not None and int(min(keep, 1.0)) == 0:
        app.scheduler.expire(model)
        request.json(200, _head(asking, chunk("", ""), "unload"))
        return
    runner, think = loaded_runner(app, request, model, asking)
    granted = time.monotonic()
    try:
        if wants_load_only(asking):
            request.json(200, _head(asking, chunk("", ""), "load"))
        elif fields.boolean(asking.body, "stream") is False:
            _whole(app, request, runner, asking, think, granted, chunk)
        else:
            _streamed(app, request, runner, asking, think, granted, chunk)
    finally:
        app.scheduler.release(runner)


def _whole(
    app: App,
    request: Request,
    runner: Runner,
    asking: Ask,
    think: bool,
    granted: float,
    chunk: Callable[[str, str], dict[str, Any]],
) -> None:
    text, thought = [], []
    result: Result | None = None
    try:
        for event in events(app, request, runner, asking, think):
            if isinstance(event, Piece):
                (thought if event.thinking else text).append(event.text)
            elif isinstance(event, Result):
                result = event
    except TruncatedStreamError as exc:
        if exc.mode == "cut":
            request.drop()
            return
        raise ApiError(500, BROKEN) from None
    answer = _head(asking, chunk("".join(text), "".join(thought)), result.reason if result else "")
    if result is not None:
        answer.update(metrics(asking, granted, result))
    request.json(200, answer)


def _streamed(
    app: App,
    request: Request,
    runner: Runner,
    asking: Ask,
    think: bool,
    granted: float,
    chunk: Callable[[str, str], dict[str, Any]],
) -> None:
    real_status = version.at_least(app.version, "0.12.6")
    stream = NdjsonStream(request, real_status, not real_status)
    try:
        for event in events(app, request, runner, asking, think):
            if isinstance(event, Piece):
                part = chunk("", event.text) if event.thinking else chunk(event.text, "")
                stream.send(_head(asking, part, ""))
            elif isinstance(event, Result):
                last = _head(asking, chunk("", ""), event.reason)
                stream.send({**last, **metrics(asking, granted, event)})
        stream.end()
    except TruncatedStreamError as exc:
        if exc.mode == "cut":
            request.drop()
        elif exc.mode == "error":
            stream.fail(500, BROKEN)
        else:
            stream.end()
    except ApiError as exc:
        if exc.status == 499:
            raise
        stream.fail(exc.status, exc.message)


def _head(asking: Ask, content: dict[str, Any], reason: str) -> dict[str, Any]:
    line = {"model": asking.asked, "created_at": fields.now(), **content, "done": bool(reason)}
    if reason:
        line["done_reason"] = reason
    return line


def _generate_chunk(text: str, thought: str) -> dict[str, Any]:
    return {"response": text, "thinking": thought} if thought else {"response": text}


def _chat_chunk(text: str, thought: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    if thought:
        message["thinking"] = thought
    return {"message": message}


def metrics(asking: Ask, granted: float, result: Result) -> dict[str, int]:
    """Return the measures of the final object; zeros are left out."""
    values = {
        "total_duration": fields.nanoseconds(time.monotonic() - asking.arrived),
        "load_duration": fields.nanoseconds(granted - asking.arrived),
        "prompt_eval_count": result.prompt_tokens,
        "prompt_eval_duration": fields.nanoseconds(result.prompt_seconds),
        "eval_count": result.tokens,
        "eval_duration": fields.nanoseconds(result.seconds),
    }
    return {key: value for key, value in values.items() if value}


# Embeddings


def handle_embed(app: App, request: Request) -> None:
    """Return one vector for each input."""
    body = request.json_body()
    value = body.get("input")
    if value is None or value == "":
        inputs: list[str] = []
    elif isinstance(value, str):
        inputs = [value]
    elif isinstance(value, list) and all(isinstance(item, str) for item in value):
        inputs = value
    else:
        raise ApiError(400, "invalid input type")
    vectors, count, loaded = embed(app, request, body, inputs)
    answer = {
        "model": fields.text(body, "model"),
        "embeddings": vectors,
        "total_duration": fields.nanoseconds(time.monotonic() - request.started),
        "load_duration": fields.nanoseconds(loaded),
    }
    if count:
        answer["prompt_eval_count"] = count
    request.json(200, answer)


def handle_embeddings(app: App, request: Request) -> None:
    """Return one vector: the older endpoint."""
    body = request.json_body()
    prompt = fields.text(body, "prompt")
    vectors, _count, _loaded = embed(app, request, body, [prompt] if prompt else [])
    request.json(200, {"embedding": vectors[0] if vectors else []})


def embed(
    app: App, request: Request, body: dict[str, Any], inputs: list[str]
) -> tuple[list[list[float]], int, float]:
    """Load the model; return vectors, the count of tokens and the seconds until it was granted."""
    asked = fields.text(body, "model")
    try:
        model = find_model(app, asked, "embed")
    except ApiError as exc:
        if exc.status == 404:
            raise ApiError(404, f'model "{asked}" not found, try pulling it first') from None
        raise
    counts = [count_tokens(text) for text in inputs]
    context = app.env.context_length
    if fields.boolean(body, "truncate") is False and any(count > context for count in counts):
        raise ApiError(400, "the input length exceeds the context length")
    options = fields.mapping(body, "options")
    keep = fields.keep_alive(body)
    runner = app.scheduler.acquire(model, options, keep, request.cancelled)
    loaded = time.monotonic() - request.started
    app.scheduler.release(runner)
    length = EMBEDDING_LENGTH
    if version.at_least(app.version, "0.11.11"):
        length = min(length, int(body.get("dimensions") or length))
    vectors = [_vector(f"{model.name} {text}", length) for text in inputs]
    return vectors, sum(counts), loaded


def _vector(text: str, length: int) -> list[float]:
    rng = random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
    values = [rng.gauss(0.0, 1.0) for _turn in range(length)]
    norm = math.sqrt(sum(v * v for v in values))
    return [round(v / norm, 8) for v in values]
