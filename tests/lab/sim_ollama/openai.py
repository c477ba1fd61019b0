# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenAI-compatible endpoints."""

from __future__ import annotations

import functools
import itertools
import time
from typing import Any, Callable, Optional

from sim_ollama import fields, names
from sim_ollama.api_infer import (
    BROKEN,
    Ask,
    conversation,
    embed,
    events,
    find_model,
    loaded_runner,
)
from sim_ollama.api_models import listed_config
from sim_ollama.app import App
from sim_ollama.engine import Piece, Result
from sim_ollama.errors import ApiError, TruncatedStreamError
from sim_ollama.httpd import Request, Route, Router, encode

ERROR_TYPES = {400: "invalid_request_error", 404: "not_found_error"}
OPTIONS = {
    "max_tokens": "num_predict",
    "max_completion_tokens": "num_predict",
    "temperature": "temperature",
    "seed": "seed",
    "top_p": "top_p",
    "stop": "stop",
}
_numbers = itertools.count(100)


def add_routes(router: Router) -> None:
    """Add this module's routes."""
    router.add("GET", "/v1/models", openai_errors(list_models))
    router.add("GET", "/v1/models/:", openai_errors(one_model))
    router.add("POST", "/v1/chat/completions", openai_errors(chat_completions))
    router.add("POST", "/v1/completions", openai_errors(completions))
    router.add("POST", "/v1/embeddings", openai_errors(embeddings))


def openai_errors(route: Route) -> Route:
    """Wrap a route so that its failures have the shape of this API."""

    @functools.wraps(route)
    def wrapped(app: App, request: Request) -> None:
        try:
            route(app, request)
        except ApiError as exc:
            if request.streaming or exc.status == 499:
                raise
            request.json(exc.status, {"error": error_object(exc.status, exc.message)})

    return wrapped


def error_object(status: int, message: str) -> dict[str, Any]:
    """Return the inner error object."""
    kind = ERROR_TYPES.get(status, "api_error")
    return {"message": message, "type": kind, "param": None, "code": None}


def list_models(app: App, request: Request) -> None:
    """List models."""
    found = sorted(app.store.manifests(), key=lambda m: -int(m.mtime))
    data = [_model_entry(m) for m in found if listed_config(app, m) is not None]
    request.json(200, {"object": "list", "data": data})


def one_model(app: App, request: Request) -> None:
    """Describe one model."""
    name = names.parse(request.argument)
    try:
        if not name.is_valid():
            raise FileNotFoundError
        manifest = app.store.read(app.store.existing(name))
    except (OSError, ValueError):
        raise ApiError(404, f"model '{request.argument}' not found") from None
    request.json(200, _model_entry(manifest))


def chat_completions(app: App, request: Request) -> None:
    """Answer a conversation."""
    body = request.json_body()
    messages = fields.sequence(body, "messages")
    if not messages:
        raise ApiError(400, "[] is too short - 'messages'")
    prompt, question = conversation(messages)
    _answer(app, request, body, prompt, question, _chat_choice)


def completions(app: App, request: Request) -> None:
    """Answer a prompt."""
    body = request.json_body()
    prompt = body.get("prompt") or ""
    if isinstance(prompt, list):
        prompt = str(prompt[0]) if prompt else ""
    _answer(app, request, body, str(prompt), str(prompt), _text_choice)


def embeddings(app: App, request: Request) -> None:
    """Return one vector for each input."""
    body = request.json_body()
    value = body.get("input")
    if not value:
        raise ApiError(400, "invalid input")
    inputs = [value] if isinstance(value, str) else [str(item) for item in value]
    vectors, count, _loaded = embed(app, request, body, inputs)
    data = [{"object": "embedding", "embedding": v, "index": i} for i, v in enumerate(vectors)]
    request.json(
        200,
        {
            "object": "list",
            "data": data,
            "model": fields.text(body, "model"),
            "usage": {"prompt_tokens": count, "total_tokens": count},
        },
    )


Choice = Callable[[str, str, Optional[str], bool], dict[str, Any]]


def _answer(
    app: App, request: Request, body: dict[str, Any], prompt: str, question: str, choice: Choice
) -> None:
    options = {own: body[key] for key, own in OPTIONS.items() if body.get(key) is not None}
    think = {"none": False}.get(str(body.get("reasoning_effort")))
    inner = {**body, "options": options, "messages": body.get("messages") or [prompt]}
    asking = Ask(
        fields.text(body, "model"), prompt, question, inner, think, "chat", request.started
    )
    model = find_model(app, asking.asked, "chat")
    runner, thinking = loaded_runner(app, request, model, asking)
    chat = choice is _chat_choice
    head = {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{next(_numbers)}",
        "object": "chat.completion" if chat else "text_completion",
        "created": int(time.time()),
        "model": asking.asked,
        "system_fingerprint": "fp_ollama",
    }
    try:
        produced = events(app, request, runner, asking, thinking)
        if fields.boolean(body, "stream"):
            if chat:
                head["object"] = "chat.completion.chunk"
            usage = bool(fields.mapping(body, "stream_options").get("include_usage"))
            _streamed(request, head, produced, choice, usage)
        else:
            _whole(request, head, produced, choice)
    finally:
        app.scheduler.release(runner)


def _whole(request: Request, head: dict[str, Any], produced: Any, choice: Choice) -> None:
    text, thought = [], []
    result: Result | None = None
    try:
        for event in produced:
            if isinstance(event, Piece):
                (thought if event.thinking else text).append(event.text)
            else:
                result = event
    except TruncatedStreamError as exc:
        if exc.mode == "cut":
            request.drop()
            return
        raise ApiError(500, BROKEN) from None
    reason = result.reason if result else None
    answer = {**head, "choices": [choice("".join(text), "".join(thought), reason, False)]}
    if result:
        answer["usage"] = _usage(result)
    request.json(200, answer)


def _streamed(
    request: Request, head: dict[str, Any], produced: Any, choice: Choice, usage: bool
) -> None:
    request.begin_stream("text/event-stream")
    result: Result | None = None
    try:
        for event in produced:
            if isinstance(event, Piece):
                text, thought = ("", event.text) if event.thinking else (event.text, "")
                _event(request, {**head, "choices": [choice(text, thought, None, True)]})
            else:
                result = event
    except TruncatedStreamError as exc:
        if exc.mode == "error":
            _event(request, {"error": error_object(500, BROKEN)})
        if exc.mode == "cut":
            request.drop()
        else:
            request.end_stream()
        return
    reason = result.reason if result else "stop"
    _event(request, {**head, "choices": [choice("", "", reason, True)]})
    if usage and result:
        _event(request, {**head, "choices": [], "usage": _usage(result)})
    request.write(b"data: [DONE]\n\n")
    request.end_stream()


def _event(request: Request, value: dict[str, Any]) -> None:
    request.write(b"data: " + encode(value) + b"\n\n")


def _chat_choice(text: str, thought: str, reason: str | None, part: bool) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    if thought:
        message["reasoning"] = thought
    return {"index": 0, "delta" if part else "message": message, "finish_reason": reason}


def _text_choice(text: str, _thought: str, reason: str | None, _part: bool) -> dict[str, Any]:
    return {"text": text, "index": 0, "finish_reason": reason}


def _usage(result: Result) -> dict[str, int]:
    return {
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.tokens,
        "total_tokens": result.prompt_tokens + result.tokens,
    }


def _model_entry(manifest: Any) -> dict[str, Any]:
    return {
        "id": manifest.name.short(),
        "object": "model",
        "created": int(manifest.mtime),
        "owned_by": manifest.name.namespace,
    }
