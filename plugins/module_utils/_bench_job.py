# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""One request of a benchmark, from its bytes to its sample.

Times, as docs/benchmark.md defines them:

start   closed loop: just before the first byte is handed to the system, on an open connection.
        Open loop: when the schedule wanted it sent.
TTFT    start to the arrival of the first record with content, reasoning or a tool call.
E2E     start to the arrival of the end of the answer.
gap     between the arrivals of two such records that follow each other; all are kept.
TPOT    (last arrival - first arrival) / (tokens - tokens of the first record).
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_dialect import (
    OLLAMA,
    PATHS,
    Answer,
    AnswerError,
    error_text,
    reader_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_events import (
    EventSplitter,
    LineSplitter,
    StreamError,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_http import (
    ResponseDecoder,
    WireError,
)

# Kinds of errors, as they are counted in results.
CONNECTION = "connection"
TIMEOUT = "timeout"
HTTP_4XX = "http_4xx"
HTTP_429 = "http_429"
HTTP_5XX = "http_5xx"
OUT_OF_MEMORY = "out_of_memory"
SERVER_ERROR = "server_error"  # an error inside an answer with status 200
TRUNCATED = "truncated"  # the answer ended before the server said that it is done
MALFORMED = "malformed"
EMPTY = "empty"  # a whole answer without a token

BODY_LIMIT = 4 * 2**20
TEXT_LIMIT = 300
NS_PER_MS = 1e6

_OUT_OF_MEMORY = re.compile(
    r"out[- ]of[- ]memory|requires more system memory|cudaMalloc failed|unable to allocate",
    re.IGNORECASE,
)


@dataclass
class Sample:
    """What one request told; durations in milliseconds, None where nothing was told.

    Attributes:
        number: of the request in its stage, from 1.
        model: the model asked.
        phase: ``warmup`` or ``measure``.
        stage: index of the load that it belongs to.
        started_at: wall clock at the start, RFC 3339 with milliseconds.
        at_s: start, seconds after the start of the stage.
        dispatch_lag_ms: from the scheduled time to sending; None in a closed loop.
        ttft_ms, latency_ms, tpot_ms: as above.
        prompt_tokens: tokens of the prompt by the server's count; 0 where it said nothing.
        gen_tokens: tokens generated, counted by the server or, failing that, by records.
        tokens_from: ``server`` or ``chunks``.
        tokens_per_s: generated tokens per second of generation.
        rate_from: ``server`` or ``client``: whose duration the rate is over.
        total_duration_ms, load_ms, prompt_eval_ms, gen_eval_ms: by the server's account.
        chunks: records with tokens.
        gap_max_ms: longest gap.
        stalls: gaps over the limit for stalls.
        finish: why the server stopped.
        error_kind: kind of the error; empty when there is none.
        error: what went wrong, in the server's words where it said some.
    """

    number: int = 0
    model: str = ""
    phase: str = "measure"
    stage: int = 0
    started_at: str = ""
    at_s: float = 0.0
    dispatch_lag_ms: float | None = None
    ttft_ms: float | None = None
    latency_ms: float | None = None
    tpot_ms: float | None = None
    prompt_tokens: int = 0
    gen_tokens: int = 0
    tokens_from: str = "server"
    tokens_per_s: float | None = None
    rate_from: str = "server"
    total_duration_ms: float | None = None
    load_ms: float | None = None
    prompt_eval_ms: float | None = None
    gen_eval_ms: float | None = None
    chunks: int = 0
    gap_max_ms: float | None = None
    stalls: int = 0
    finish: str = ""
    error_kind: str = ""
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the sample, figures rounded to microseconds."""
        return {
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_dict(cls, entry: dict[str, Any]) -> Sample:
        """Rebuild a sample from a result."""
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in entry.items() if name in known})


@dataclass(frozen=True)
class Setting:
    """What the requests of one run have in common.

    Attributes:
        url: base URL.
        dialect: one of ``_bench_dialect.PATHS``.
        stream: whether answers come piece by piece.
        timeout_s: for one request.
        headers: sent with every request, such as the key.
        stall_ms: a gap over it is a stall.
    """

    url: str
    dialect: str
    stream: bool = True
    timeout_s: float = 120.0
    headers: tuple[tuple[str, str], ...] = ()
    stall_ms: float = 500.0


def request_bytes(setting: Setting, body: bytes) -> bytes:
    """Return the whole request, ready for the wire."""
    parts = urlsplit(setting.url)
    host = parts.netloc.rpartition("@")[2]
    lines = [
        f"POST {parts.path.rstrip('/')}{PATHS[setting.dialect]} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in setting.headers),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


class GenerationJob:
    """A request that the engine drives; its sample is whole when ``finished`` was called.

    Args:
        setting: what all requests share.
        sample: number, model, phase, stage.
        body: the rendered body.
        intended: when the schedule wants it sent; None in a closed loop.
        finished: called with the job when the answer is complete or has failed.
        wall: monotonic seconds to RFC 3339.
    """

    def __init__(
        self,
        setting: Setting,
        sample: Sample,
        body: bytes,
        *,
        intended: float | None,
        finished: Callable[[GenerationJob], None],
        wall: Callable[[float], str],
    ) -> None:
        self.sample = sample
        self.request = request_bytes(setting, body)
        self.timeout_s = setting.timeout_s
        self.answer = Answer()
        self.begin = 0.0
        self.end = 0.0
        self._setting = setting
        self._intended = intended
        self._finished = finished
        self._wall = wall
        self._read = reader_of(setting.dialect)
        self._decoder = ResponseDecoder()
        ndjson = setting.dialect in OLLAMA
        self._splitter = LineSplitter() if ndjson else EventSplitter()
        self._whole: list[bytes] = []
        self._length = 0
        self._records: bool | None = None  # not known before the head of the answer

    @property
    def started(self) -> bool:
        """Tell whether anything of the answer has come."""
        return self._decoder.started

    @property
    def reusable(self) -> bool:
        """Tell whether the connection may carry another request."""
        return self._decoder.complete and self._decoder.reusable

    def sent(self, at: float) -> None:
        """Take note that the request is about to go out."""
        self.begin = at if self._intended is None else self._intended
        if self._intended is not None:
            self.sample.dispatch_lag_ms = (at - self._intended) * 1e3
        self.sample.started_at = self._wall(self.begin)

    def arrived(self, data: bytes, at: float) -> bool:
        """Take in what has come; tell whether the exchange is over."""
        try:
            body = self._decoder.feed(data)
            if body:
                self._body(body, at)
            if not self._decoder.complete:
                return False
            self._complete(at)
        except AnswerError as error:
            return self._fail(SERVER_ERROR, str(error), at)
        except (WireError, StreamError, ValueError, AttributeError, TypeError) as error:
            return self._fail(MALFORMED, str(error), at)
        return True

    def closed(self, at: float) -> None:
        """Take note that the server closed the connection."""
        try:
            self._decoder.end()
            self._complete(at)
        except WireError as error:
            cut = self._decoder.status == 200
            self._fail(TRUNCATED if cut else CONNECTION, str(error), at)
        except AnswerError as error:
            self._fail(SERVER_ERROR, str(error), at)
        except (StreamError, ValueError, AttributeError, TypeError) as error:
            self._fail(MALFORMED, str(error), at)

    def failed(self, kind: str, text: str, at: float) -> None:
        """Take note that there will be no answer."""
        self._fail(kind, text, at)

    def gaps(self) -> array:
        """Return the time between arrivals, in milliseconds."""
        times = self.answer.times
        return array("d", ((b - a) * 1e3 for a, b in zip(times, times[1:])))

    @property
    def _in_records(self) -> bool:
        """Tell whether the body is a stream; gateways put errors in its place, with status 200."""
        if self._records is None:
            plain = self._decoder.headers.get("content-type", "").startswith("application/json")
            streamed = self._setting.stream and self._decoder.status == 200
            self._records = streamed and (self._setting.dialect in OLLAMA or not plain)
        return self._records

    def _last(self, record: bytes, at: float) -> None:
        """Take in a record without an end; half a record means that the answer was cut off."""
        try:
            self._read(self.answer, record, at)
        except ValueError:
            if not self.answer.times:
                raise

    def _body(self, body: bytes, at: float) -> None:
        if self._in_records:
            for record in self._splitter.feed(body):
                self._read(self.answer, record, at)
            return
        self._length += len(body)
        if self._length > BODY_LIMIT:
            raise ValueError(f"an answer of more than {BODY_LIMIT} bytes")
        self._whole.append(body)

    def _complete(self, at: float) -> None:
        status = self._decoder.status
        if status != 200:
            text = b"".join(self._whole)
            self._fail(_kind(status), f"status {status}: {_words(text)}", at)
            return
        if self._in_records:
            for record in self._splitter.end():
                self._last(record, at)
        else:
            self._read(self.answer, b"".join(self._whole), at)
            self.answer.done = True
            if self._setting.stream:
                raise ValueError("a JSON document in place of a stream")
        if not self.answer.done and not self.answer.finish:
            self._fail(TRUNCATED, "the answer ended before the server said that it is done", at)
            return
        if not self.answer.times and not self.answer.tokens:
            self._fail(EMPTY, "a whole answer without a token", at)
            return
        self.end = at
        self._settle()
        self._finished(self)

    def _fail(self, kind: str, text: str, at: float) -> bool:
        if self.sample.error_kind:
            return True
        short = _printable(" ".join(text.split())[:TEXT_LIMIT])
        self.sample.error_kind = OUT_OF_MEMORY if _OUT_OF_MEMORY.search(text) else kind
        self.sample.error = short or kind
        self.end = at
        self._settle()
        self._finished(self)
        return True

    def _settle(self) -> None:
        """Turn times and counts into figures."""
        sample, answer = self.sample, self.answer
        sample.latency_ms = max(0.0, self.end - self.begin) * 1e3
        sample.chunks = len(answer.times)
        sample.finish = _printable(answer.finish)
        sample.prompt_tokens = answer.prompt_tokens or 0
        sample.gen_tokens = answer.tokens or 0
        if answer.tokens is None and self._setting.stream:
            sample.gen_tokens, sample.tokens_from = sample.chunks, "chunks"
        for name, key in (
            ("total_duration_ms", "total_duration"),
            ("load_ms", "load_duration"),
            ("prompt_eval_ms", "prompt_eval_duration"),
            ("gen_eval_ms", "eval_duration"),
        ):
            if key in answer.server_ns:
                setattr(sample, name, answer.server_ns[key] / NS_PER_MS)
        if self._setting.stream and answer.times:
            self._stream_figures()
        self._rate()

    def _stream_figures(self) -> None:
        sample, times = self.sample, self.answer.times
        sample.ttft_ms = (times[0] - self.begin) * 1e3
        later = sample.gen_tokens - max(1, self.answer.first_tokens)
        if later > 0 and len(times) > 1:
            sample.tpot_ms = (times[-1] - times[0]) * 1e3 / later
        gaps = self.gaps()
        if gaps:
            sample.gap_max_ms = max(gaps)
            sample.stalls = sum(gap > self._setting.stall_ms for gap in gaps)

    def _rate(self) -> None:
        sample = self.sample
        if sample.gen_eval_ms and sample.gen_tokens:
            sample.tokens_per_s = sample.gen_tokens / (sample.gen_eval_ms / 1e3)
            return
        sample.rate_from = "client"
        if sample.tpot_ms:
            sample.tokens_per_s = 1e3 / sample.tpot_ms
        elif not self._setting.stream and sample.gen_tokens and sample.latency_ms:
            sample.tokens_per_s = sample.gen_tokens / (sample.latency_ms / 1e3)


def _kind(status: int) -> str:
    if status == 429:
        return HTTP_429
    return HTTP_5XX if status >= 500 else HTTP_4XX


def _words(body: bytes) -> str:
    try:
        return error_text(json.loads(body))
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace").strip()


def _printable(text: str) -> str:
    """Return a text without the halves of surrogate pairs, which JSON may hold and no file."""
    return text.encode("utf-8", "replace").decode("utf-8")
