# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""One measured request to Ollama's ``/api/generate``; clock and transport are parameters.

Time to first token runs from sending the request on an open connection to the read that carried
the first piece of content or reasoning. All lines that came in one read share its time. Durations
and token counts of the last object are the server's own truth; a duration that the server leaves
out is zero, and a rate that would need it comes from the client's clock and says so.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_stats import tokens_per_second
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Prepare

GENERATE = "/api/generate"
NS_PER_MS = 1_000_000
TEXT_LIMIT = 300

# Kinds of errors, as they are counted in results.
CONNECTION = "connection"
TIMEOUT = "timeout"
HTTP_4XX = "http_4xx"
HTTP_5XX = "http_5xx"
OUT_OF_MEMORY = "out_of_memory"
SERVER_ERROR = "server_error"  # an error line inside an answer with status 200
TRUNCATED = "truncated"  # the answer ended before the server said that it is done
MALFORMED = "malformed"

_OUT_OF_MEMORY = re.compile(
    r"out[- ]of[- ]memory|requires more system memory|cudaMalloc failed|unable to allocate",
    re.IGNORECASE,
)


@dataclass
class Sample:
    """What one request told; durations in milliseconds, None where nothing was told.

    Attributes:
        model: the model asked.
        iteration: number of the request, from 1.
        started_at: wall clock at the start, RFC 3339.
        ttft_ms: time to the first token, by the client's clock.
        latency_ms: time to the end of the answer, by the client's clock.
        total_duration_ms: the same by the server's account.
        load_ms: the server's account of loading, which includes its queueing.
        prompt_tokens: tokens of the prompt.
        prompt_eval_ms: time that the server spent on them.
        gen_tokens: tokens generated, counted by the server or, failing that, by chunks.
        gen_eval_ms: time that the server spent on them.
        tokens_per_s: generated tokens per second of generation.
        tokens_from: ``server`` or ``chunks``.
        rate_from: ``server`` or ``client``: whose duration the rate is over.
        chunks: pieces of content received.
        done_reason: why the server stopped.
        error_kind: kind of the error; empty when there is none.
        error: what went wrong, in the server's words where it said some.
        text: the answer.
    """

    model: str
    iteration: int = 0
    started_at: str = ""
    ttft_ms: float | None = None
    latency_ms: float | None = None
    total_duration_ms: float | None = None
    load_ms: float | None = None
    prompt_tokens: int = 0
    prompt_eval_ms: float | None = None
    gen_tokens: int = 0
    gen_eval_ms: float | None = None
    tokens_per_s: float | None = None
    tokens_from: str = "server"
    rate_from: str = "server"
    chunks: int = 0
    done_reason: str = ""
    error_kind: str = ""
    error: str = ""
    text: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the sample without its text, figures rounded to microseconds."""
        return {
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in vars(self).items()
            if name != "text"
        }


@dataclass(frozen=True)
class Request:
    """One request to make."""

    model: str
    prompt: str
    max_tokens: int
    iteration: int = 1
    stream: bool = True
    think: bool = False
    timeout_s: float = 120.0

    def body(self) -> bytes:
        """Return the rendered request."""
        content = {
            "model": self.model,
            "prompt": self.prompt,
            "stream": self.stream,
            "think": self.think,
            "options": {"temperature": 0, "num_predict": self.max_tokens},
        }
        return json.dumps(content).encode()


class _ServerError(Exception):
    """The server reported an error."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = OUT_OF_MEMORY if _OUT_OF_MEMORY.search(text) else kind


def measure(
    prepare: Prepare, clock: Callable[[], float], request: Request, started_at: str = ""
) -> Sample:
    """Make one request and return its sample; whatever goes wrong becomes part of the sample."""
    sample = Sample(request.model, request.iteration, started_at)
    reader = _Reader(sample)
    answer = None
    begun = ended = clock()
    try:
        send = prepare("POST", GENERATE, request.body(), request.timeout_s)
        begun = ended = clock()
        answer = send()
        if answer.status != 200:
            raise _refusal(answer.status, b"".join(answer.chunks))
        for piece in answer.chunks:
            ended = clock()
            reader.feed(piece, ended)
        reader.finish(ended)
    except _ServerError as error:
        sample.error_kind, sample.error = error.kind, _short(str(error))
    except socket.timeout:
        sample.error_kind = TIMEOUT
        sample.error = f"no complete answer within {request.timeout_s:g} s"
    except http.client.IncompleteRead:
        sample.error_kind, sample.error = TRUNCATED, "the connection ended inside the answer"
    except http.client.HTTPException as error:
        sample.error_kind, sample.error = MALFORMED, _short(repr(error))
    except OSError as error:
        started = reader.first_at is not None
        sample.error_kind = TRUNCATED if started else CONNECTION
        sample.error = _short(str(error))
    except ValueError as error:
        sample.error_kind, sample.error = MALFORMED, _short(str(error))
    finally:
        if answer is not None:
            answer.close()
    reader.settle(begun, ended)
    return sample


class _Reader:
    """Collect the lines of one answer into a sample."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.first_at: float | None = None
        self._rest = b""
        self._parts: list[str] = []
        self._final: dict[str, Any] | None = None

    def feed(self, piece: bytes, at: float) -> None:
        """Take the bytes of one read."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._line(line, at)

    def finish(self, at: float) -> None:
        """Take what is left at the end of the body."""
        rest, self._rest = self._rest, b""
        try:
            self._line(rest, at)
        except ValueError:
            raise _ServerError(TRUNCATED, "the answer ended in the middle of a line") from None
        if self._final is None:
            raise _ServerError(TRUNCATED, "the answer ended without a final object")

    def settle(self, begun: float, ended: float) -> None:
        """Work out the figures."""
        sample, final = self.sample, self._final or {}
        sample.text = "".join(self._parts)
        sample.latency_ms = (ended - begun) * 1000
        if self.first_at is not None:
            sample.ttft_ms = (self.first_at - begun) * 1000
        if self._final is None:
            return
        sample.done_reason = str(final.get("done_reason", ""))
        sample.total_duration_ms = _ms(final, "total_duration")
        sample.load_ms = _ms(final, "load_duration")
        sample.prompt_tokens = _count(final, "prompt_eval_count")
        sample.prompt_eval_ms = _ms(final, "prompt_eval_duration")
        sample.gen_tokens = _count(final, "eval_count")
        sample.gen_eval_ms = _ms(final, "eval_duration")
        if not sample.gen_tokens and sample.chunks:
            sample.gen_tokens, sample.tokens_from = sample.chunks, "chunks"
        sample.tokens_per_s = tokens_per_second(sample.gen_tokens, sample.gen_eval_ms / 1000)
        if sample.tokens_per_s is None and self.first_at is not None:
            # The first token came at the start of this interval, so it is not counted in it.
            sample.rate_from = "client"
            sample.tokens_per_s = tokens_per_second(sample.gen_tokens - 1, ended - self.first_at)

    def _line(self, line: bytes, at: float) -> None:
        if not line.strip():
            return
        state = json.loads(line)
        if not isinstance(state, dict):
            raise ValueError(f"the answer has a line that is no object: {_short(str(state))}")
        if "error" in state:
            raise _ServerError(SERVER_ERROR, _error_text(state))
        content = state.get("response") or ""
        if content or state.get("thinking"):
            self._parts.append(content)
            self.sample.chunks += 1
            if self.first_at is None:
                self.first_at = at
        if state.get("done"):
            self._final = state


def final_metrics_missing(sample: Sample) -> list[str]:
    """Name the metrics of the final object that an answer with generated text must have."""
    wanted = {
        "total_duration": sample.total_duration_ms,
        "prompt_eval_count": sample.prompt_tokens,
        "eval_count": sample.gen_tokens if sample.tokens_from == "server" else 0,
        "eval_duration": sample.gen_eval_ms,
    }
    return [name for name, value in wanted.items() if not value]


def _refusal(status: int, body: bytes) -> _ServerError:
    try:
        text = _error_text(json.loads(body))
    except ValueError:
        text = body.decode("utf-8", "replace").strip()
    return _ServerError(HTTP_5XX if status >= 500 else HTTP_4XX, f"status {status}: {text}")


def _error_text(state: Any) -> str:
    error = state.get("error", "") if isinstance(state, dict) else state
    return str(error.get("message", error) if isinstance(error, dict) else error)


def _ms(final: dict[str, Any], key: str) -> float:
    value = final.get(key) or 0
    return float(value) / NS_PER_MS if isinstance(value, (int, float)) else 0.0


def _count(final: dict[str, Any], key: str) -> int:
    value = final.get(key) or 0
    return int(value) if isinstance(value, (int, float)) else 0


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= TEXT_LIMIT else flat[: TEXT_LIMIT - 3] + "..."
