# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One request from its bytes to its sample: times, counts, kinds of errors, any split of bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_job
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_dialect import (
    OLLAMA_CHAT,
    OLLAMA_GENERATE,
    OPENAI_CHAT,
    OPENAI_COMPLETIONS,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_job import (
    GenerationJob,
    Sample,
    Setting,
    request_bytes,
)

BOUNDED = settings(derandomize=True, max_examples=200, deadline=None, database=None)
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
NDJSON = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)
END = b"0\r\n\r\n"


def piece(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(value):
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return piece(f"data: {text}\n\n".encode())


def token(text=" x", **more):
    return event({"choices": [{"index": 0, "delta": {"content": text}}], **more})


def line(**value):
    return piece(json.dumps(value, ensure_ascii=False).encode() + b"\n")


def refusal(status, body):
    head = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    return head + body


ROLE = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
FINISH = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
USAGE = event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5}})
DONE = event("[DONE]")


class Told:
    """A job and what it told, driven as the engine drives it."""

    def __init__(self, dialect=OPENAI_CHAT, stream=True, intended=None, **more):
        self.finished = []
        self.job = GenerationJob(
            Setting("http://h:1", dialect, stream=stream, **more),
            Sample(number=1),
            b"{}",
            intended=intended,
            finished=self.finished.append,
            wall=lambda at: f"wall {at:g}",
        )
        self.sample = self.job.sample

    def play(self, *pieces, begin=10.0, step=1.0, close=True):
        """Feed pieces one step apart; close the connection when they were not enough."""
        self.job.sent(begin)
        at = begin
        for data in pieces:
            at += step
            if self.job.arrived(data, at):
                return self
        if close:
            self.job.closed(at + step)
        return self


def whole(dialect, *pieces, **more):
    told = Told(dialect, **more).play(*pieces)
    assert len(told.finished) == 1
    return told.sample


def test_a_request_is_rendered_with_path_length_and_headers():
    setting = Setting(
        "http://u:p@h:8000/base/", OPENAI_CHAT, headers=(("Authorization", "Bearer k"),)
    )
    head, _end, body = request_bytes(setting, b'{"a": 1}').partition(b"\r\n\r\n")
    assert head.decode().split("\r\n") == [
        "POST /base/v1/chat/completions HTTP/1.1",
        "Host: h:8000",
        "Content-Type: application/json",
        "Content-Length: 8",
        "Authorization: Bearer k",
    ]
    assert body == b'{"a": 1}'


def test_times_of_a_stream_are_those_of_its_arrivals():
    told = Told().play(SSE + ROLE, token(), token() + token(), token(), FINISH + USAGE + DONE + END)
    sample = told.sample
    assert sample.error == ""
    # Role at 11, tokens at 12, 13 (two in one read), 14, the end at 15.
    assert (sample.ttft_ms, sample.latency_ms) == (2000.0, 5000.0)
    assert list(told.job.gaps()) == [1000.0, 0.0, 1000.0]
    assert (sample.chunks, sample.gen_tokens, sample.tokens_from) == (4, 5, "server")
    assert sample.tpot_ms == 2000.0 / (5 - 1)
    assert (sample.tokens_per_s, sample.rate_from) == (2.0, "client")
    assert (sample.gap_max_ms, sample.stalls, sample.finish) == (1000.0, 2, "length")
    assert sample.started_at == "wall 10"
    assert told.job.reusable


def test_tokens_of_the_first_record_are_left_out_of_the_rate_where_known():
    used = {"prompt_tokens": 9, "completion_tokens": 4}
    last = {"prompt_tokens": 9, "completion_tokens": 8}
    sample = whole(OPENAI_CHAT, SSE, token(usage=used), token(usage=last), DONE + END)
    assert sample.tpot_ms == 1000.0 / (8 - 4)


def test_stalls_are_gaps_over_the_limit():
    told = Told(stall_ms=1000.0).play(SSE + token(), token(), token(), DONE + END, step=1.0)
    assert told.sample.stalls == 0
    told = Told(stall_ms=999.0).play(SSE + token(), token(), token(), DONE + END, step=1.0)
    assert told.sample.stalls == 2


def test_an_open_loop_counts_from_the_time_that_was_meant():
    told = Told(intended=7.0).play(SSE + token(), DONE + END, begin=10.0)
    sample = told.sample
    assert (sample.dispatch_lag_ms, sample.ttft_ms, sample.latency_ms) == (3000.0, 4000.0, 5000.0)
    assert sample.started_at == "wall 7"


def test_a_closed_loop_has_no_schedule_to_be_late_for():
    assert whole(OPENAI_CHAT, SSE + token(), DONE + END).dispatch_lag_ms is None


def test_ollamas_account_is_in_the_sample():
    last = {"done": True, "done_reason": "stop", "eval_count": 20, "eval_duration": 10**9}
    last |= {"prompt_eval_count": 3, "prompt_eval_duration": 2 * 10**6}
    last |= {"load_duration": 10**6, "total_duration": 3 * 10**6}
    sample = whole(OLLAMA_GENERATE, NDJSON, line(response="a"), line(response="", **last) + END)
    assert (sample.tokens_per_s, sample.rate_from, sample.gen_tokens) == (20.0, "server", 20)
    assert (sample.load_ms, sample.prompt_eval_ms, sample.total_duration_ms) == (1.0, 2.0, 3.0)
    assert (sample.prompt_tokens, sample.finish, sample.gen_eval_ms) == (3, "stop", 1000.0)


def test_without_a_count_records_are_counted():
    sample = whole(OPENAI_CHAT, SSE, token(), token(), FINISH + DONE + END)
    assert (sample.gen_tokens, sample.tokens_from, sample.tpot_ms) == (2, "chunks", 1000.0)


def test_one_token_has_no_rate_and_no_gap():
    sample = whole(OPENAI_CHAT, SSE, token(), FINISH + DONE + END)
    assert (sample.ttft_ms, sample.tpot_ms, sample.tokens_per_s) == (2000.0, None, None)
    assert sample.gap_max_ms is None


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (OPENAI_CHAT, {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}),
        (OPENAI_COMPLETIONS, {"choices": [{"text": "x", "finish_reason": "stop"}]}),
        (OLLAMA_CHAT, {"message": {"content": "x"}, "done": True, "eval_count": 4}),
    ],
)
def test_an_answer_in_one_piece(dialect, body):
    body = {**body, "usage": {"prompt_tokens": 2, "completion_tokens": 4}}
    sample = whole(dialect, refusal(200, json.dumps(body).encode()), stream=False)
    assert (sample.error, sample.gen_tokens, sample.ttft_ms) == ("", 4, None)
    assert (sample.latency_ms, sample.tokens_per_s) == (1000.0, 4.0)


PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
DIED = b'{"error": {"message": "died"}}'


@pytest.mark.parametrize(
    ("dialect", "pieces", "kind", "words"),
    [
        (OPENAI_CHAT, [refusal(429, b'{"error": {"message": "slow down"}}')], "http_429", "slow"),
        (OPENAI_CHAT, [refusal(503, b"<h1>busy</h1>")], "http_5xx", "status 503: <h1>busy"),
        (OPENAI_CHAT, [refusal(404, b"")], "http_4xx", "status 404"),
        (OPENAI_CHAT, [refusal(500, b"[" * 100_000)], "http_5xx", "status 500"),
        (OPENAI_CHAT, [refusal(500, b'{"error": "CUDA out of memory"}')], "out_of_memory", "CUDA"),
        (
            OPENAI_CHAT,
            [SSE, token(), event({"error": {"message": "died"}})],
            "server_error",
            "died",
        ),
        (OPENAI_CHAT, [PLAIN % (len(DIED), DIED)], "server_error", "died"),
        (OPENAI_CHAT, [PLAIN % (2, b"{}")], "malformed", "in place of a stream"),
        (OLLAMA_CHAT, [NDJSON, line(error="died")], "server_error", "died"),
        (OPENAI_CHAT, [SSE, token(), END], "truncated", "before the server said"),
        (OPENAI_CHAT, [SSE, token()], "truncated", "closed in the middle"),
        (OPENAI_CHAT, [SSE, token(), token()[:-9]], "truncated", "closed in the middle"),
        (
            OPENAI_CHAT,
            [SSE, token(), piece(b'data: {"choi'), END],
            "truncated",
            "before the server",
        ),
        (OLLAMA_CHAT, [NDJSON, line(message={"content": "x"}), END], "truncated", "before"),
        (OPENAI_CHAT, [SSE, piece(b"data: {x}\n\n")], "malformed", ""),
        (OPENAI_CHAT, [SSE, event({"choices": [7]})], "malformed", ""),
        (OPENAI_CHAT, [SSE, event({"choices": 7})], "malformed", ""),
        (OPENAI_CHAT, [SSE, piece(b"data: " + b"[" * 100_000 + b"\n\n")], "malformed", "deeply"),
        (OPENAI_CHAT, [b"SSH-2.0\r\n\r\n"], "malformed", "no status line"),
        (OPENAI_CHAT, [SSE, ROLE, FINISH, DONE, END], "empty", "without a token"),
        (OPENAI_CHAT, [], "connection", "before an answer"),
        (OPENAI_CHAT, [b"HTTP/1.1 2"], "connection", "middle"),
    ],
)
def test_what_goes_wrong_is_told_apart(dialect, pieces, kind, words):
    sample = whole(dialect, *pieces)
    assert sample.error_kind == kind
    assert words in sample.error
    assert sample.error


def test_a_failure_from_the_engine_is_kept_and_told_once():
    told = Told().play(SSE, close=False)
    told.job.failed("timeout", "no complete answer in 5 s", 15.0)
    told.job.closed(16.0)
    assert len(told.finished) == 1
    assert (told.sample.error_kind, told.sample.latency_ms) == ("timeout", 5000.0)
    assert not told.job.reusable


def test_words_of_the_server_are_short_and_can_be_written_to_a_file():
    body = json.dumps({"error": "\ud800 " + "x\n" * 5000}).encode()
    sample = whole(OPENAI_CHAT, refusal(500, body))
    assert len(sample.error) <= _bench_job.TEXT_LIMIT
    assert sample.error.encode("utf-8").startswith(b"status 500: ? x x")
    finish = piece(b'data: {"choices": [{"delta": {}, "finish_reason": "\\ud800"}]}\n\n')
    sample = whole(OPENAI_CHAT, SSE + token() + finish + DONE + END)
    assert (sample.error, sample.finish) == ("", "?")


def test_an_endless_answer_in_one_piece_is_refused(monkeypatch):
    monkeypatch.setattr(_bench_job, "BODY_LIMIT", 1000)
    sample = whole(OPENAI_CHAT, refusal(200, b"x" * 1001), stream=False)
    assert (sample.error_kind, sample.error) == ("malformed", "an answer of more than 1000 bytes")


def test_bytes_after_the_answer_cost_the_connection_only():
    told = Told().play(SSE + token() + DONE + END + b"HTTP/1.1 408 Timeout\r\n\r\n")
    assert told.sample.error == ""
    assert not told.job.reusable


def test_a_sample_survives_its_result():
    sample = whole(OPENAI_CHAT, SSE, token(), token(), DONE + END)
    again = Sample.from_dict({**json.loads(json.dumps(sample.as_dict())), "newer": 1})
    assert again.as_dict() == sample.as_dict()


STREAMS = {
    "chat": (OPENAI_CHAT, SSE + ROLE + token("ü漢🙂") + token() + FINISH + USAGE + DONE + END),
    "comments": (OPENAI_CHAT, SSE + piece(b": ping\n\n") + ROLE + token() + token() + DONE + END),
    "CR LF": (
        OPENAI_CHAT,
        SSE
        + piece(b'data:{"choices":[{"text":"a"}]}\r\n\r\ndata: \r\n\r\ndata:[DONE]\r\n\r\n')
        + END,
    ),
    "error": (OPENAI_CHAT, SSE + token() + event({"error": "died"}) + END),
    "cut": (OPENAI_CHAT, SSE + token() + token()),
    "refused": (OPENAI_CHAT, refusal(503, b'{"error": {"message": "busy"}}')),
    "plain": (OPENAI_CHAT, PLAIN % (len(DIED), DIED)),
    "generate": (
        OLLAMA_GENERATE,
        NDJSON + line(response="ü") + line(response="", done=True, eval_count=1) + END,
    ),
    "until closed": (
        OLLAMA_CHAT,
        b'HTTP/1.1 200 OK\r\n\r\n{"message": {"content": "x"}}\n{"done": true, "eval_count": 1}',
    ),
    "surplus": (OPENAI_CHAT, SSE + token() + DONE + END + b"more"),
}


def outcome(dialect, pieces):
    """Return what of a sample depends on the bytes and not on when they came."""
    told = Told(dialect).play(*pieces, step=0.0)
    assert len(told.finished) == 1
    sample = told.sample.as_dict()
    return sample, list(told.job.gaps())


def split(data, cuts):
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in zip(places, places[1:])]


@pytest.mark.parametrize("name", STREAMS)
def test_byte_by_byte_gives_the_same_sample(name):
    dialect, data = STREAMS[name]
    assert outcome(dialect, split(data, range(len(data)))) == outcome(dialect, [data])


@BOUNDED
@given(st.sampled_from(sorted(STREAMS)), st.lists(st.integers(0, 2000), max_size=16))
def test_any_split_gives_the_same_sample(name, cuts):
    dialect, data = STREAMS[name]
    assert outcome(dialect, split(data, cuts)) == outcome(dialect, [data])


@BOUNDED
@given(
    st.sampled_from(sorted(STREAMS)),
    st.integers(0, 2000),
    st.binary(max_size=12),
    st.lists(st.integers(0, 2000), max_size=4),
)
def test_garbage_is_told_by_its_kind_whatever_the_split(name, place, garbage, cuts):
    dialect, data = STREAMS[name]
    at = place % (len(data) + 1)
    spoilt = data[:at] + garbage + data[at + len(garbage) :]
    sample, _gaps = outcome(dialect, [spoilt])
    kinds = {"", "malformed", "truncated", "connection", "server_error", "empty"}
    assert sample["error_kind"] in kinds | {"http_4xx", "http_5xx", "http_429"}
    assert bool(sample["error"]) == bool(sample["error_kind"])
    assert outcome(dialect, split(spoilt, cuts))[0]["error_kind"] == sample["error_kind"]
