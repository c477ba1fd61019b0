# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import http.client
import json
import socket

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_ollama as bench
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Answer

FINAL = {
    "response": "",
    "done": True,
    "done_reason": "stop",
    "total_duration": 500_000_000,
    "load_duration": 20_000_000,
    "prompt_eval_count": 12,
    "prompt_eval_duration": 40_000_000,
    "eval_count": 4,
    "eval_duration": 80_000_000,
}


class Clock:
    def __init__(self):
        self.now = 50.0

    def __call__(self):
        return self.now


def line(**state):
    return json.dumps(state).encode() + b"\n"


def token(text="x", **more):
    return line(response=text, done=False, **more)


def server(clock, schedule, status=200, connect_s=3.0):
    """A transport whose body comes as (seconds after the request, bytes or exception)."""

    def prepare(method, path, body, timeout_s):
        assert (method, path) == ("POST", "/api/generate")
        clock.now += connect_s
        begun = []

        def chunks():
            for at, piece in schedule:
                clock.now = begun[0] + at
                if isinstance(piece, BaseException):
                    raise piece
                yield piece

        def send():
            begun.append(clock.now)
            return Answer(status, chunks())

        return send

    return prepare


def run(schedule, status=200, **more):
    clock = Clock()
    request = bench.Request("qwen3:1.7b", "hello", 16, iteration=2)
    return bench.measure(server(clock, schedule, status, **more), clock, request, "now")


def test_a_request_is_reproducible_and_does_not_think():
    body = json.loads(bench.Request("m", "hello", 16).body())
    assert body == {
        "model": "m",
        "prompt": "hello",
        "stream": True,
        "think": False,
        "options": {"temperature": 0, "num_predict": 16},
    }


def test_first_token_by_the_clients_clock_the_rest_by_the_servers_account():
    sample = run([(0.1, token("a")), (0.2, token("b")), (0.3, line(**FINAL))])
    assert sample.ttft_ms == pytest.approx(100)  # the connection's three seconds do not count
    assert sample.latency_ms == pytest.approx(300)
    assert (sample.total_duration_ms, sample.load_ms) == (500, 20)
    assert (sample.prompt_tokens, sample.prompt_eval_ms) == (12, 40)
    assert (sample.gen_tokens, sample.gen_eval_ms, sample.tokens_per_s) == (4, 80, 50)
    assert (sample.tokens_from, sample.rate_from, sample.chunks) == ("server", "server", 2)
    assert (sample.text, sample.done_reason, sample.error_kind) == ("ab", "stop", "")
    assert (sample.model, sample.iteration, sample.started_at) == ("qwen3:1.7b", 2, "now")
    assert "text" not in sample.as_dict()


def test_an_empty_object_is_no_token_and_reasoning_is_one():
    empty_first = [(0.1, token("")), (0.2, token("a")), (0.3, line(**FINAL))]
    assert run(empty_first).ttft_ms == pytest.approx(200)
    reasoning = [(0.1, token("", thinking="hm")), (0.2, token("a")), (0.3, line(**FINAL))]
    assert run(reasoning).ttft_ms == pytest.approx(100)
    assert run(reasoning).text == "a"


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
def test_lines_may_be_cut_anywhere(size):
    body = token("grün ") + token("€") + b"\r\n" + line(**FINAL)
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    sample = run([(0.1 + index / 1000, piece) for index, piece in enumerate(pieces)])
    assert (sample.text, sample.chunks, sample.error_kind) == ("grün €", 2, "")


def test_a_final_line_without_its_end_still_counts():
    assert run([(0.1, token()), (0.2, line(**FINAL).rstrip())]).error_kind == ""


def test_durations_that_the_server_leaves_out_are_zero_and_the_clients_clock_steps_in():
    final = {"response": "", "done": True, "eval_count": 5}
    sample = run([(0.1, token()), (0.2, token()), (0.5, line(**final))])
    assert (sample.load_ms, sample.gen_eval_ms, sample.prompt_tokens) == (0, 0, 0)
    assert sample.rate_from == "client"
    assert sample.tokens_per_s == pytest.approx(4 / 0.4)  # the first token opens the interval


def test_tokens_that_the_server_does_not_count_are_counted_by_chunks():
    sample = run([(0.1, token()), (0.5, token()), (0.6, line(response="", done=True))])
    assert (sample.gen_tokens, sample.tokens_from) == (2, "chunks")
    assert sample.tokens_per_s == pytest.approx(2)


def test_everything_in_one_read_has_no_rate_without_the_servers_account():
    sample = run([(0.1, token() + token() + line(response="", done=True))])
    assert (sample.tokens_per_s, sample.error_kind) == (None, "")


@pytest.mark.parametrize(
    ("schedule", "status", "kind", "text"),
    [
        ([(0.1, line(error="model 'x' not found"))], 404, bench.HTTP_4XX, "model 'x' not found"),
        ([(0.1, line(error="boom"))], 500, bench.HTTP_5XX, "status 500: boom"),
        ([(0.1, b"<html>bad gateway</html>")], 502, bench.HTTP_5XX, "bad gateway"),
        ([(0.1, line(error={"message": "busy"}))], 503, bench.HTTP_5XX, "status 503: busy"),
        (
            [(0.1, line(error="model requires more system memory (9 GiB) than is available"))],
            500,
            bench.OUT_OF_MEMORY,
            "more system memory",
        ),
        (
            [(0.1, token()), (0.2, line(error="runner died"))],
            200,
            bench.SERVER_ERROR,
            "runner died",
        ),
        (
            [(0.1, token()), (0.2, line(error="CUDA error: out of memory"))],
            200,
            bench.OUT_OF_MEMORY,
            "CUDA",
        ),
        ([(0.1, token()), (0.2, token())], 200, bench.TRUNCATED, "without a final object"),
        ([], 200, bench.TRUNCATED, "without a final object"),
        ([(0.1, token() + b'{"resp')], 200, bench.TRUNCATED, "middle of a line"),
        ([(0.1, token()), (0.2, ConnectionResetError("reset"))], 200, bench.TRUNCATED, "reset"),
        (
            [(0.1, token()), (0.2, http.client.IncompleteRead(b""))],
            200,
            bench.TRUNCATED,
            "inside the answer",
        ),
        ([(0.1, ConnectionResetError("reset"))], 200, bench.CONNECTION, "reset"),
        ([(0.1, socket.timeout("timed out"))], 200, bench.TIMEOUT, "within 120 s"),
        ([(0.1, b"no json\n")], 200, bench.MALFORMED, ""),
        ([(0.1, b"[1]\n")], 200, bench.MALFORMED, "no object"),
        ([(0.1, http.client.BadStatusLine("x"))], 200, bench.MALFORMED, "BadStatusLine"),
    ],
)
def test_errors_have_a_kind_and_the_servers_words(schedule, status, kind, text):
    sample = run(schedule, status)
    assert sample.error_kind == kind
    assert text in sample.error


def test_a_server_that_cannot_be_reached_is_an_error_of_the_sample():
    def prepare(*_):
        raise ConnectionRefusedError("refused")

    sample = bench.measure(prepare, Clock(), bench.Request("m", "p", 1))
    assert (sample.error_kind, sample.error) == (bench.CONNECTION, "refused")
    assert sample.ttft_ms is None


@pytest.mark.parametrize(
    ("final", "missing"),
    [
        (FINAL, []),
        ({**FINAL, "eval_duration": 0}, ["eval_duration"]),
        (
            {"done": True},
            ["total_duration", "prompt_eval_count", "eval_count", "eval_duration"],
        ),
    ],
)
def test_final_metrics_missing(final, missing):
    assert bench.final_metrics_missing(run([(0.1, token()), (0.2, line(**final))])) == missing
