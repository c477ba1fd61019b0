# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the simulated engine of sim_schedule.py writes, and when: its options and its answers.

No sockets and no clock in here: a plan is a list of writes with their times after the request.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

CHAT, TEXT, OLLAMA_CHAT, OLLAMA_GENERATE = "chat", "text", "ollama_chat", "ollama_generate"
PATHS = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": TEXT,
    "/api/chat": OLLAMA_CHAT,
    "/api/generate": OLLAMA_GENERATE,
}
PROMPT_TOKENS = 32
END = b"0\r\n\r\n"


@dataclass(frozen=True)
class Options:
    """How an answer looks and when its parts leave; milliseconds, counts and bytes.

    Attributes:
        ttft_ms, itl_ms: first token after the request, and each token after the one before.
        tokens: of the answer.
        jitter: each request has its own speed, 1 +- this share (seeded).
        seed: of the jitter.
        mode: ``paced``; ``burst`` writes the whole answer at once; ``token`` one write per token.
        bundle: tokens per record; a record leaves when its last token is due.
        per_write: records per write; a write leaves when its last record is due.
        role: the empty chunk with the role: ``first``, with the first token; ``early``, at once;
            ``none``.
        text: of one token.
        reasoning: tokens of reasoning before the content; -1: all.
        space: whether a space follows ``data:``.
        newline: end of the lines of an event.
        comments: put a keep-alive comment before each event, and one between request and answer.
        chunk_cut: bytes per HTTP chunk; 0: a record each.
        wire_cut: bytes per write; 0: a write each.
        cut_gap_ms: wait between the pieces of a write that is cut, so that they arrive one by one.
        framing: ``chunked``, ``length`` or ``close``.
        stall_at, stall_ms: wait so much longer before this token (from 0).
        cut_at, cut_how: after so many records ``abort`` the connection, ``close`` it, or ``end``
            the body properly but without the records that say so; -1: not.
        cut_bytes: so many bytes of the last record are missing as well.
        error_at, error: after so many records report an error inside the answer; -1: not.
        status: other than 200: an error body at once.
        usage: ``last``, ``every`` or ``none``.
        evals: whether Ollama's final object has its counts and durations.
        finish: whether a finish reason is given.
        done: whether ``[DONE]`` or ``"done": true`` ends the stream.
        close_after_ms: close the connection so long after the answer, though keep-alive was
            promised; -1: not.
        padding: bytes of text added to each token.
        plain: answer in one piece, whatever was asked for.
        surplus: bytes after the end of the answer.
    """

    ttft_ms: float = 50.0
    itl_ms: float = 10.0
    tokens: int = 20
    jitter: float = 0.0
    seed: int = 7
    mode: str = "paced"
    bundle: int = 1
    per_write: int = 1
    role: str = "first"
    text: str = " hello"
    reasoning: int = 0
    space: bool = True
    newline: str = "\n"
    comments: bool = False
    chunk_cut: int = 0
    wire_cut: int = 0
    cut_gap_ms: float = 0.0
    framing: str = "chunked"
    stall_at: int = -1
    stall_ms: float = 0.0
    cut_at: int = -1
    cut_how: str = "abort"
    cut_bytes: int = 0
    error_at: int = -1
    error: str = "the engine died"
    status: int = 200
    usage: str = "last"
    evals: bool = True
    finish: bool = True
    done: bool = True
    close_after_ms: float = -1.0
    padding: int = 0
    plain: bool = False
    surplus: str = ""

    def changed(self, more: dict[str, Any]) -> Options:
        """Return these options with some others; ValueError for one that doesn't exist."""
        unknown = set(more) - {item.name for item in fields(self)}
        if unknown:
            raise ValueError(f"no such options: {sorted(unknown)}")
        return replace(self, **more)


@dataclass(frozen=True)
class Write:
    """Bytes that leave at a time, and how many records with tokens they complete."""

    at_ms: float
    data: bytes
    arrivals: int = 0


@dataclass(frozen=True)
class Plan:
    """The writes of one answer, and what becomes of the connection."""

    writes: tuple[Write, ...]
    after: str = ""


def due_ms(options: Options, token: int) -> float:
    """Return when a token (from 0) is due, milliseconds after the request."""
    stall = options.stall_ms if 0 <= options.stall_at <= token else 0.0
    return options.ttft_ms + token * options.itl_ms + stall


@lru_cache(maxsize=64)
def plan_of(kind: str, stream: bool, options: Options) -> Plan:
    """Return the plan of an answer; the same options give the same bytes."""
    if options.status != 200:
        return Plan((Write(0.0, _refusal(options)),))
    if not stream or options.plain:
        at = due_ms(options, options.tokens - 1)
        body = json.dumps(_whole(kind, options), ensure_ascii=False).encode()
        return Plan((Write(at, _head("length", "application/json", len(body)) + body, 1),))
    records = _grouped(_records(kind, options), options.per_write)
    if options.mode == "burst":
        records = [(0.0, b"".join(r[1] for r in records), sum(r[2] for r in records))]
    ctype = "text/event-stream" if kind in (CHAT, TEXT) else "application/x-ndjson"
    whole = options.cut_at < 0 or options.cut_how == "end"
    if options.cut_bytes:
        at, record, _arrivals = records[-1]
        records[-1] = (at, record[: -options.cut_bytes], 0)
    length = sum(len(record) for _at, record, _arrivals in records)
    head = _head(options.framing, ctype, length)
    writes = []
    for number, (at, record, arrivals) in enumerate(records):
        data = _framed(record, options) if options.framing == "chunked" else record
        last = number == len(records) - 1
        tail = END if last and whole and options.framing == "chunked" else b""
        tail += options.surplus.encode() if last else b""
        writes += _pieces(at, (head if not number else b"") + data + tail, arrivals, options)
    after = "" if whole else options.cut_how
    return Plan(tuple(writes), after or ("close" if options.framing == "close" else ""))


def _head(framing: str, ctype: str, length: int) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {ctype}", "Cache-Control: no-cache"]
    if framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
    elif framing == "length":
        lines.append(f"Content-Length: {length}")
    else:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode()


def _refusal(options: Options) -> bytes:
    words = {429: "Rate limit reached", 503: "Server overloaded"}.get(options.status, options.error)
    error = {"message": words, "type": "server_error", "code": options.status}
    body = json.dumps({"error": error}).encode()
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        options.status,
        len(body),
        body,
    )


def _framed(record: bytes, options: Options) -> bytes:
    size = options.chunk_cut or len(record)
    parts = [record[at : at + size] for at in range(0, len(record), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


def _pieces(at: float, data: bytes, arrivals: int, options: Options) -> list[Write]:
    size = options.wire_cut or len(data)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    times = [at + number * options.cut_gap_ms for number in range(len(pieces))]
    counts = [0] * (len(pieces) - 1) + [arrivals]
    return [Write(*entry) for entry in zip(times, pieces, counts)]


Record = tuple[float, bytes, int]


def _grouped(records: list[Record], per_write: int) -> list[Record]:
    """Put records into one write each; a write leaves when its last record is due."""
    groups: list[Record] = []
    held: list[Record] = []
    for record in records:
        held.append(record)
        if sum(entry[2] for entry in held) >= per_write or per_write == 1:
            groups.append((record[0], b"".join(entry[1] for entry in held), _arrivals(held)))
            held = []
    if held:
        groups.append((held[-1][0], b"".join(entry[1] for entry in held), _arrivals(held)))
    return groups


def _arrivals(records: list[Record]) -> int:
    return sum(record[2] for record in records)


def _records(kind: str, options: Options) -> list[Record]:
    """Return the records of a stream: when due, the bytes, 1 when it carries tokens."""
    render = _event if kind in (CHAT, TEXT) else _line
    ping = f": keep-alive{options.newline * 2}".encode() if kind in (CHAT, TEXT) else b""
    found: list[Record] = []
    if options.comments and ping:
        found.append((options.ttft_ms / 2, ping, 0))
    if kind == CHAT and options.role != "none":
        delta = {"role": "assistant", "content": ""}
        at = 0.0 if options.role == "early" else options.ttft_ms
        found.append((at, render(_chat(delta, None, options, 0), options), 0))
    sent = number = 0
    last = options.ttft_ms
    while sent < options.tokens:
        if number == options.cut_at:
            return found
        if number == options.error_at:
            return [*found, (last, render(_error(kind, options), options), 0)]
        count = min(options.bundle, options.tokens - sent)
        thinks = options.reasoning < 0 or sent < options.reasoning
        sent, number = sent + count, number + 1
        last = due_ms(options, sent - 1)
        text = (options.text + "x" * options.padding) * count
        record = render(_content(kind, text, thinks, options, sent), options)
        found.append((last, (ping if options.comments else b"") + record, 1))
    if number == options.error_at:
        return [*found, (last, render(_error(kind, options), options), 0)]
    return [*found, *((last, record, 0) for record in _ending(kind, options))]


def _event(value: Any, options: Options) -> bytes:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"data:{' ' if options.space else ''}{text}{options.newline * 2}".encode()


def _line(value: Any, options: Options) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + options.newline).encode()


def _usage(tokens: int) -> dict[str, int]:
    total = PROMPT_TOKENS + tokens
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": tokens,
        "total_tokens": total,
    }


def _base(kind: str) -> dict[str, Any]:
    name = "chat.completion.chunk" if kind == CHAT else "text_completion"
    return {"id": "cmpl-0123456789abcdef", "object": name, "created": 0, "model": "mock-model"}


def _chat(delta: dict[str, Any], finish: str | None, options: Options, sent: int) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    every = {"usage": _usage(sent)} if options.usage == "every" else {}
    return {**_base(CHAT), "choices": [choice], **every}


def _text(text: str, finish: str | None, options: Options, sent: int) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    every = {"usage": _usage(sent)} if options.usage == "every" else {}
    return {**_base(TEXT), "choices": [choice], **every}


def _ollama(kind: str, text: str, thinks: bool) -> dict[str, Any]:
    base = {"model": "mock-model", "created_at": "2026-01-01T00:00:00.000000Z", "done": False}
    field = "thinking" if thinks else ("content" if kind == OLLAMA_CHAT else "response")
    if kind == OLLAMA_CHAT:
        return {**base, "message": {"role": "assistant", "content": "", field: text}}
    return {**base, "response": "", field: text}


def _content(kind: str, text: str, thinks: bool, options: Options, sent: int) -> dict[str, Any]:
    if kind == CHAT:
        return _chat({"reasoning_content" if thinks else "content": text}, None, options, sent)
    if kind == TEXT:
        return _text(text, None, options, sent)
    return _ollama(kind, text, thinks)


def _error(kind: str, options: Options) -> dict[str, Any]:
    if kind in (CHAT, TEXT):
        return {"error": {"message": options.error, "type": "internal", "code": 500}}
    return {"error": options.error}


def _final(kind: str, options: Options) -> dict[str, Any]:
    found = {**_ollama(kind, "", False), "done": True, "done_reason": "length"}
    if options.evals:
        prompt = int(options.ttft_ms * 1e6)
        answer = int((options.tokens - 1) * options.itl_ms * 1e6)
        found |= {"total_duration": prompt + answer, "load_duration": 0}
        found |= {"prompt_eval_count": PROMPT_TOKENS, "prompt_eval_duration": prompt}
        found |= {"eval_count": options.tokens, "eval_duration": answer}
    return found


def _ending(kind: str, options: Options) -> list[bytes]:
    """Return the records after the last token."""
    if options.cut_at >= 0:
        return []
    if kind not in (CHAT, TEXT):
        return [_line(_final(kind, options), options)] if options.done else []
    found = []
    if options.finish:
        make = _chat({}, "length", options, options.tokens) if kind == CHAT else None
        found.append(_event(make or _text("", "length", options, options.tokens), options))
    if options.usage == "last":
        usage = {**_base(kind), "choices": [], "usage": _usage(options.tokens)}
        found.append(_event(usage, options))
    if options.done:
        found.append(_event("[DONE]", options))
    return found


def _whole(kind: str, options: Options) -> dict[str, Any]:
    """Return the answer to a request that asked for no stream."""
    if options.error_at >= 0:
        return _error(kind, options)
    text = options.text * options.tokens
    if kind in (CHAT, TEXT):
        message = {"message": {"role": "assistant", "content": text}}
        choice = message if kind == CHAT else {"text": text}
        usage = {} if options.usage == "none" else {"usage": _usage(options.tokens)}
        choices = [{"index": 0, **choice, "finish_reason": "length"}]
        return {**_base(kind), "choices": choices, **usage}
    final = _final(kind, options)
    if kind == OLLAMA_CHAT:
        return {**final, "message": {"role": "assistant", "content": text}}
    return {**final, "response": text}
