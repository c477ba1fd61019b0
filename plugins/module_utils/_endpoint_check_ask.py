# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""One request to an OpenAI-compatible endpoint, and how its answer ended."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Prepare

GOOD_REASONS = ("stop", "length", "tool_calls")
PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
SNIPPET = 300


@dataclass(frozen=True)
class Question:
    """What to ask: the API, the prompt, the tokens to generate at most."""

    api: str = "completions"
    prompt: str = "Say hello."
    max_tokens: int = 8


@dataclass
class Reply:
    """What one request brought."""

    ok: bool = False
    ttft_ms: float | None = None
    total_ms: float | None = None
    finish_reason: str = ""
    tokens: int = 0
    error: str = ""


@dataclass(frozen=True)
class Clock:
    """Where time comes from, and when the budget ends."""

    now: Callable[[], float]
    sleep: Callable[[float], None]
    end: float

    def left(self) -> float:
        """Return the seconds that are left; at least one, or no request could say what is wrong."""
        return max(self.end - self.now(), 1.0)


def ask(prepare: Prepare, clock: Clock, question: Question, model: str, *, stream: bool) -> Reply:
    """Send one request and read its answer to the end."""
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": question.max_tokens,
        "temperature": 0,
        "stream": stream,
    }
    if question.api == "chat":
        body["messages"] = [{"role": "user", "content": question.prompt}]
    else:
        body["prompt"] = question.prompt
    reply = Reply()
    try:
        send = prepare("POST", PATHS[question.api], json.dumps(body).encode(), clock.left())
        begin = clock.now()
        answer = send()
        try:
            if answer.status != 200:
                text = b"".join(answer.chunks)[:SNIPPET].decode("utf-8", "replace")
                reply.error = f"status {answer.status}: {text}"
            elif stream:
                read_stream(answer.chunks, reply, lambda: _milliseconds(clock, begin))
            else:
                read_object(b"".join(answer.chunks), reply)
        finally:
            answer.close()
        reply.total_ms = _milliseconds(clock, begin)
    except (OSError, http.client.HTTPException) as error:
        reply.error = str(error) or type(error).__name__
    if not reply.error and reply.finish_reason not in GOOD_REASONS:
        reply.error = f"the answer ended with finish reason {reply.finish_reason or 'none'!r}"
    reply.ok = not reply.error
    return reply


def _milliseconds(clock: Clock, begin: float) -> float:
    return round((clock.now() - begin) * 1000, 3)


def read_object(content: bytes, reply: Reply) -> None:
    """Read an answer in one piece."""
    try:
        answer = json.loads(content)
        choice = answer["choices"][0]
        reply.finish_reason = str(choice.get("finish_reason") or "")
        reply.tokens = int((answer.get("usage") or {}).get("completion_tokens") or 0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        reply.error = f"not an OpenAI answer: {content[:SNIPPET].decode('utf-8', 'replace')}"


def read_stream(chunks: Iterator[bytes], reply: Reply, elapsed: Callable[[], float]) -> None:
    """Read a stream of server-sent events up to its ``[DONE]``."""
    for data in events(chunks):
        if data == "[DONE]":
            return
        try:
            event = json.loads(data)
            problem = event.get("error")
            choices = event.get("choices") or []
        except (ValueError, AttributeError):
            reply.error = f"not an OpenAI event: {data[:SNIPPET]}"
            return
        if problem:
            reply.error = f"error in the stream: {json.dumps(problem)[:SNIPPET]}"
            return
        for choice in choices:
            if choice_text(choice):
                reply.tokens += 1
                if reply.ttft_ms is None:
                    reply.ttft_ms = elapsed()
            reply.finish_reason = str(choice.get("finish_reason") or reply.finish_reason)
    reply.error = f"the stream broke off after {reply.tokens} pieces, before [DONE]"


def events(chunks: Iterator[bytes]) -> Iterator[str]:
    """Yield the data of each server-sent event, however the bytes are cut."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip().decode("utf-8", "replace")


def choice_text(choice: dict[str, Any]) -> str:
    """Return the text of a streamed choice, of either API; reasoning counts as text."""
    delta = choice.get("delta") or {}
    return str(
        choice.get("text")
        or delta.get("content")
        or delta.get("reasoning_content")
        or delta.get("reasoning")
        or ""
    )
