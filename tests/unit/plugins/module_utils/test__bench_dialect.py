# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each dialect sends, and what each record of an answer means."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_dialect import (
    OLLAMA_CHAT,
    OLLAMA_GENERATE,
    OPENAI_CHAT,
    OPENAI_COMPLETIONS,
    PATHS,
    Answer,
    AnswerError,
    Ask,
    error_text,
    reader_of,
    render,
)

BOUNDED = settings(derandomize=True, max_examples=300, deadline=None, database=None)
ASK = Ask("m", "why?", 64)


def rendered(dialect, ask=ASK):
    return json.loads(render(dialect, ask))


def read(dialect, *records, keep=True):
    """Return the answer that records make; they arrive one second apart."""
    answer, take = Answer(keep), reader_of(dialect)
    for at, record in enumerate(records):
        take(answer, record if isinstance(record, bytes) else json.dumps(record).encode(), at)
    return answer


def chat(delta, finish=None, **more):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def usage(tokens):
    return {"prompt_tokens": 9, "completion_tokens": tokens}


@pytest.mark.parametrize("dialect", PATHS)
def test_each_dialect_asks_for_a_repeatable_answer_of_bounded_length(dialect):
    body = rendered(dialect)
    options = body.get("options", body)
    assert (body["model"], body["stream"], options["temperature"]) == ("m", True, 0)
    assert 64 in (options.get("num_predict"), options.get("max_tokens"))
    assert "why?" in (body.get("prompt"), *(m["content"] for m in body.get("messages", ())))


def test_thinking_is_off_unless_wanted():
    thinking = Ask("m", "why?", 64, think=True)
    assert rendered(OLLAMA_GENERATE)["think"] is False
    assert rendered(OLLAMA_CHAT, thinking)["think"] is True
    assert rendered(OPENAI_CHAT)["chat_template_kwargs"] == {"enable_thinking": False}
    assert "chat_template_kwargs" not in rendered(OPENAI_CHAT, thinking)
    assert "chat_template_kwargs" not in rendered(OPENAI_COMPLETIONS)


def test_the_usage_is_asked_for_where_the_standard_leaves_it_out():
    assert rendered(OPENAI_CHAT)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in rendered(OPENAI_CHAT, Ask("m", "why?", 64, stream=False))
    assert "stream_options" not in rendered(OLLAMA_CHAT)


def test_further_fields_win():
    body = rendered(OPENAI_CHAT, Ask("m", "why?", 64, extra={"temperature": 0.7, "top_k": 1}))
    assert (body["temperature"], body["top_k"], body["max_tokens"]) == (0.7, 1, 64)


@pytest.mark.parametrize(
    "record",
    [
        chat({"role": "assistant", "content": ""}),
        chat({}, "stop"),
        chat({"content": None}),
        {"choices": [], "usage": usage(3)},
        {"choices": None},
        {"id": "1"},
        b"[DONE]",
    ],
)
def test_records_without_tokens_are_no_arrivals(record):
    assert list(read(OPENAI_CHAT, record).times) == []


@pytest.mark.parametrize(
    ("dialect", "record"),
    [
        (OPENAI_CHAT, chat({"content": "x"})),
        (OPENAI_CHAT, chat({"role": "assistant", "content": "x"})),
        (OPENAI_CHAT, chat({"reasoning_content": "x"})),
        (OPENAI_CHAT, chat({"reasoning": "x"})),
        (OPENAI_CHAT, chat({"tool_calls": [{"index": 0}]})),
        (OPENAI_CHAT, {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}),
        (OPENAI_COMPLETIONS, {"choices": [{"text": "x", "finish_reason": None}]}),
        (OLLAMA_GENERATE, {"response": "x", "done": False}),
        (OLLAMA_GENERATE, {"response": "", "thinking": "x", "done": False}),
        (OLLAMA_CHAT, {"message": {"content": "x"}, "done": False}),
        (OLLAMA_CHAT, {"message": {"content": "", "thinking": "x"}, "done": False}),
        (OLLAMA_CHAT, {"message": {"content": "", "tool_calls": [{}]}, "done": False}),
        (OLLAMA_GENERATE, {"response": "x", "done": True}),
    ],
)
def test_content_reasoning_and_tool_calls_are_arrivals(dialect, record):
    assert list(read(dialect, b'{"done": false}', record).times) == [1]


def test_a_chat_stream_is_counted_by_its_usage():
    answer = read(
        OPENAI_CHAT,
        chat({"role": "assistant", "content": ""}),
        chat({"content": "a b"}),
        chat({"content": " c"}),
        chat({}, "length"),
        {"choices": [], "usage": usage(3)},
        b"[DONE]",
    )
    assert list(answer.times) == [1, 2]
    assert (answer.tokens, answer.prompt_tokens, answer.first_tokens) == (3, 9, 0)
    assert (answer.finish, answer.done, "".join(answer.text)) == ("length", True, "a b c")


def test_usage_in_each_record_says_how_many_tokens_came_first():
    answer = read(
        OPENAI_CHAT,
        chat({"role": "assistant", "content": ""}, usage=usage(0)),
        chat({"content": "a b c d"}, usage=usage(4)),
        chat({"content": " e"}, usage=usage(5)),
    )
    assert (answer.first_tokens, answer.tokens) == (4, 5)


def test_ollamas_last_object_has_counts_and_durations():
    last = {
        "response": "",
        "done": True,
        "done_reason": "stop",
        "eval_count": 7,
        "prompt_eval_count": 5,
        "total_duration": 4,
        "load_duration": 1,
        "prompt_eval_duration": 2,
        "eval_duration": 3,
    }
    answer = read(OLLAMA_GENERATE, {"response": "x", "done": False}, last)
    assert (answer.tokens, answer.prompt_tokens, answer.finish, answer.done) == (7, 5, "stop", True)
    assert answer.server_ns == {key: last[key] for key in last if key.endswith("duration")}


def test_what_the_server_leaves_out_is_not_made_up():
    answer = read(OLLAMA_GENERATE, {"response": "x", "done": False}, {"done": True})
    assert (answer.tokens, answer.prompt_tokens, answer.server_ns) == (None, None, {})
    assert read(OPENAI_CHAT, chat({"content": "x"}), b"[DONE]").tokens is None


def test_text_is_kept_only_when_wanted():
    assert read(OPENAI_CHAT, chat({"content": "x"}), keep=False).text == []


@pytest.mark.parametrize(
    ("dialect", "record", "words"),
    [
        (OPENAI_CHAT, {"error": {"message": "died", "code": 500}}, "died"),
        (OPENAI_CHAT, {"object": "error", "message": "died"}, "died"),
        (OPENAI_COMPLETIONS, {"error": "died"}, "died"),
        (OLLAMA_CHAT, {"error": "died"}, "died"),
        (OLLAMA_GENERATE, {"error": {"message": "died"}}, "died"),
    ],
)
def test_an_error_inside_an_answer_is_told_in_the_servers_words(dialect, record, words):
    with pytest.raises(AnswerError, match=words):
        read(dialect, record)


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"x",
        b"[1]",
        b'"text"',
        b'{"a": 1',
        b'{"a": 1} x',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a": ' * 100_000,
    ],
)
def test_what_is_no_record_is_a_value_error(dialect, record):
    with pytest.raises(ValueError):  # noqa: PT011 - its words come from the decoder
        read(dialect, record)


@pytest.mark.parametrize("count", ["Infinity", "1e400", "-1", "NaN", "true", '"7"', "null", "1e30"])
def test_counts_that_are_none_are_left_out(count):
    record = b'{"choices": [], "usage": {"completion_tokens": %s}}' % count.encode()
    assert read(OPENAI_CHAT, record).tokens is None
    record = b'{"done": true, "eval_count": %s, "eval_duration": %s}' % ((count.encode(),) * 2)
    answer = read(OLLAMA_GENERATE, record)
    assert (answer.tokens, answer.server_ns) == (None, {})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"error": {"message": "a"}}, "a"),
        ({"error": "a"}, "a"),
        ({"message": "a"}, "a"),
        ({"detail": "a"}, "{'detail': 'a'}"),
        ("a", "a"),
        (["a"], "['a']"),
    ],
)
def test_error_texts_of_every_shape(value, text):
    assert error_text(value) == text


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "x", "\ud800"])
)
NAMES = st.sampled_from(
    [
        *("choices", "delta", "content", "usage", "error", "message", "done", "eval_count"),
        *("text", "finish_reason", "completion_tokens", "response", "thinking", "object"),
    ]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)


@BOUNDED
@given(st.sampled_from(sorted(PATHS)), st.dictionaries(NAMES, VALUES, max_size=6))
def test_any_object_is_read_or_refused_by_a_declared_error(dialect, record):
    # AttributeError and TypeError: fields of another type, which the job takes for malformed.
    try:
        answer = read(dialect, record)
    except (AnswerError, ValueError, AttributeError, TypeError):
        return
    assert isinstance(answer.finish, str)
    assert answer.tokens is None or answer.tokens >= 0
