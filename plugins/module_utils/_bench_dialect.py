# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The four ways to ask for a generation: what is sent, and what each record of the answer means.

A record counts as an arrival of tokens when it carries content, reasoning or a tool call. Role,
finish, usage, comment and ``[DONE]`` records carry none, however early they come.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

OLLAMA_GENERATE = "ollama_generate"
OLLAMA_CHAT = "ollama_chat"
OPENAI_CHAT = "openai_chat"
OPENAI_COMPLETIONS = "openai_completions"

PATHS = {
    OLLAMA_GENERATE: "/api/generate",
    OLLAMA_CHAT: "/api/chat",
    OPENAI_CHAT: "/v1/chat/completions",
    OPENAI_COMPLETIONS: "/v1/completions",
}
OLLAMA = (OLLAMA_GENERATE, OLLAMA_CHAT)
MOST = 2**63  # of a count or of nanoseconds; JSON knows larger numbers, and infinity

_decode = json.JSONDecoder().raw_decode


class AnswerError(Exception):
    """The server reported an error inside an answer."""


@dataclass(frozen=True)
class Ask:
    """One generation to ask for.

    Attributes:
        model: name of the model.
        prompt: the text.
        max_tokens: tokens to generate at most.
        stream: whether the answer comes piece by piece.
        think: let models that can reason do so.
        extra: further fields of the request; they win over ours.
    """

    model: str
    prompt: str
    max_tokens: int
    stream: bool = True
    think: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


def render(dialect: str, ask: Ask) -> bytes:
    """Return the body of the request."""
    body: dict[str, Any] = {"model": ask.model, "stream": ask.stream}
    if dialect in (OLLAMA_GENERATE, OPENAI_COMPLETIONS):
        body["prompt"] = ask.prompt
    else:
        body["messages"] = [{"role": "user", "content": ask.prompt}]
    if dialect in OLLAMA:
        body["think"] = ask.think
        body["options"] = {"temperature": 0, "num_predict": ask.max_tokens}
    else:
        body["temperature"] = 0
        body["max_tokens"] = ask.max_tokens
        if ask.stream:
            body["stream_options"] = {"include_usage": True}
        if dialect == OPENAI_CHAT and not ask.think:
            body["chat_template_kwargs"] = {"enable_thinking": False}
    return json.dumps({**body, **ask.extra}).encode()


class Answer:
    """What the records of one answer have said so far.

    Attributes:
        times: when each record with tokens arrived, seconds on the clock of the engine.
        first_tokens: tokens in the first of them, where the server says so; else 0.
        done: whether the server said that the answer is whole.
        finish: why it ended.
        prompt_tokens, tokens: what the server counted; None where it said nothing.
        server_ns: durations by the server's account, in nanoseconds, by Ollama's names.
        text: the answer, when it is kept.
    """

    __slots__ = (
        "done",
        "finish",
        "first_tokens",
        "keep",
        "prompt_tokens",
        "server_ns",
        "text",
        "times",
        "tokens",
    )

    def __init__(self, keep: bool = False) -> None:
        self.times = array("d")
        self.first_tokens = 0
        self.done = False
        self.finish = ""
        self.prompt_tokens: int | None = None
        self.tokens: int | None = None
        self.server_ns: dict[str, int] = {}
        self.keep = keep
        self.text: list[str] = []


Read = Callable[[Answer, bytes, float], None]
DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


def reader_of(dialect: str) -> Read:
    """Return the function that takes in one record: ``read(answer, record, arrived_at)``.

    It raises AnswerError for an error that the server reports, ValueError for what is no record.
    """
    if dialect in OLLAMA:
        return _read_ollama
    return _read_openai


def _object(record: bytes) -> dict[str, Any]:
    text = record.decode("utf-8").strip()
    try:
        value, end = _decode(text)
    except RecursionError:
        raise ValueError(f"{text[:80]!r} is nested too deeply") from None
    if not isinstance(value, dict) or end != len(text):
        raise ValueError(f"{text[:80]!r} is no JSON object")
    return value


def _read_openai(answer: Answer, record: bytes, at: float) -> None:
    if record == b"[DONE]":
        answer.done = True
        return
    value = _object(record)
    usage = value.get("usage")
    if usage:
        _usage(answer, usage)
    for choice in value.get("choices") or ():
        delta = choice.get("delta") or choice.get("message") or choice
        text = delta.get("content") or delta.get("text")
        if (
            text
            or delta.get("reasoning_content")
            or delta.get("reasoning")
            or delta.get("tool_calls")
        ):
            answer.times.append(at)
            if len(answer.times) == 1 and answer.tokens:
                answer.first_tokens = answer.tokens
            if answer.keep and text:
                answer.text.append(text)
        if choice.get("finish_reason"):
            answer.finish = str(choice["finish_reason"])
    if value.get("error") or value.get("object") == "error":
        raise AnswerError(error_text(value))


def _usage(answer: Answer, usage: Mapping[str, Any]) -> None:
    answer.prompt_tokens = _count(usage.get("prompt_tokens"), answer.prompt_tokens)
    answer.tokens = _count(usage.get("completion_tokens"), answer.tokens)


def _read_ollama(answer: Answer, record: bytes, at: float) -> None:
    value = _object(record)
    message = value.get("message") or value
    text = message.get("content") or message.get("response")
    if text or message.get("thinking") or message.get("tool_calls"):
        answer.times.append(at)
        if answer.keep and text:
            answer.text.append(text)
    if value.get("error"):
        raise AnswerError(error_text(value))
    if value.get("done"):
        answer.done = True
        answer.finish = str(value.get("done_reason") or "")
        answer.prompt_tokens = _count(value.get("prompt_eval_count"), None)
        answer.tokens = _count(value.get("eval_count"), None)
        for name in DURATIONS:
            duration = _count(value.get(name), None)
            if duration is not None:
                answer.server_ns[name] = duration


def error_text(value: Any) -> str:
    """Return an error's own words, in OpenAI's, vLLM's or Ollama's shape."""
    error = value.get("error", value) if isinstance(value, dict) else value
    if isinstance(error, dict):
        error = error.get("message", error)
    return str(error)


def _count(value: Any, otherwise: int | None) -> int | None:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool)
    usable = usable and 0 <= value < MOST
    return int(value) if usable else otherwise
