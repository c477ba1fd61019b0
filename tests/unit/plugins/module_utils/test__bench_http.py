# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP/1.1 answers from pieces: framing, ends, refusals, and any split of the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_http import (
    CHUNK_LINE_LIMIT,
    HEAD_LIMIT,
    ResponseDecoder,
    WireError,
)

BOUNDED = settings(derandomize=True, max_examples=150, deadline=None, database=None)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(*parts):
    return CHUNKED + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def length(body, head=b"HTTP/1.1 200 OK\r\n"):
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def decode(*pieces, closed=False):
    """Return decoder and body of an answer that comes in pieces."""
    decoder = ResponseDecoder()
    body = b"".join(decoder.feed(piece) for piece in pieces)
    if closed:
        decoder.end()
    return decoder, body


def split(data, cuts):
    """Cut bytes at places, which may lie outside and repeat."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in zip(places, places[1:])]


ANSWERS = {
    "length": length(b"hello"),
    "empty": length(b""),
    "chunks": chunked(b"hel", b"lo", b"x" * 300),
    "extension and trailer": CHUNKED + b"5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\nX: 2\r\n\r\n",
    "capital size": CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n" + length(b"hi"),
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "refusal": length(b'{"error": "no"}', b"HTTP/1.1 503 Busy\r\n"),
}


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        ("length", 200, b"hello"),
        ("empty", 200, b""),
        ("chunks", 200, b"hello" + b"x" * 300),
        ("extension and trailer", 200, b"hello"),
        ("capital size", 200, b"0123456789"),
        ("interim", 200, b"hi"),
        ("no reason", 200, b"hi"),
        ("no content", 204, b""),
        ("refusal", 503, b'{"error": "no"}'),
    ],
)
def test_an_answer_is_whole_and_the_connection_can_go_on(name, status, body):
    decoder, found = decode(ANSWERS[name])
    assert (decoder.status, found) == (status, body)
    assert decoder.complete
    assert decoder.reusable


def test_header_names_are_lower_case_and_values_stripped():
    decoder, _body = decode(
        b"HTTP/1.1 200 OK\r\nContent-TYPE:  text/plain \r\nContent-Length:0\r\n\r\n"
    )
    assert decoder.headers == {"content-type": "text/plain", "content-length": "0"}


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: Close\r\n",
        b"HTTP/1.0 200 OK\r\n",
    ],
)
def test_a_connection_that_ends_is_not_used_again(head):
    decoder, body = decode(length(b"hi", head))
    assert (decoder.complete, decoder.reusable, body) == (True, False, b"hi")


def test_an_answer_without_a_length_ends_with_the_connection():
    decoder, body = decode(b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo")
    assert not decoder.complete
    decoder.end()
    assert (decoder.complete, decoder.reusable, body) == (True, False, b"hello")


def test_the_next_answer_starts_afresh():
    decoder, _body = decode(ANSWERS["refusal"])
    decoder.reset()
    assert (decoder.status, decoder.started, decoder.complete) == (0, False, False)
    assert decoder.feed(ANSWERS["length"]) == b"hello"
    assert decoder.status == 200


def test_an_answer_has_started_with_its_first_byte():
    decoder = ResponseDecoder()
    assert not decoder.started
    decoder.feed(b"H")
    assert decoder.started


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "before an answer"),
        (b"HTTP/1.1 200", "in the middle of the answer"),
        (CHUNKED, "in the middle of the answer"),
        (CHUNKED + b"5\r\nhel", "in the middle of the answer"),
        (length(b"hello")[:-1], "in the middle of the answer"),
    ],
)
def test_a_connection_that_ends_too_early_is_an_error(data, words):
    decoder, _body = decode(data)
    with pytest.raises(WireError, match=words):
        decoder.end()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "is no status line"),
        (b"HTTP/2 200\r\n\r\n", "is no status line"),
        (b"HTTP/1.1 abc\r\n\r\n", "is no status line"),
        ("HTTP/1.1 ²\r\n\r\n".encode("latin-1"), "is no status line"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n", "is no number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "is no number"),
        ("HTTP/1.1 200 OK\r\nContent-Length: ²\r\n\r\n".encode("latin-1"), "is no number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", "is no number"),
        (CHUNKED + b"zz\r\n", "is no size of a chunk"),
        (CHUNKED + b"-5\r\n", "is no size of a chunk"),
        (CHUNKED + b"\r\n", "is no size of a chunk"),
        (CHUNKED + b"2\r\nabc\r\n", "longer than it said"),
        (CHUNKED + b"1" * CHUNK_LINE_LIMIT, "does not end"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * HEAD_LIMIT, "the head does not end"),
        (CHUNKED + b"0\r\nX: " + b"a" * HEAD_LIMIT, "the trailer does not end"),
    ],
)
def test_what_is_no_answer_is_refused_in_words(data, words):
    with pytest.raises(WireError, match=words):
        decode(data)


@pytest.mark.parametrize("cut", [0, 1, 4])
def test_bytes_after_the_end_cost_the_connection_wherever_the_reads_are_cut(cut):
    answer, more = length(b"hello"), b"HTTP/1.1 408 Request Timeout\r\n\r\n"
    decoder, body = decode(answer + more[:cut])
    assert (body, decoder.complete, decoder.reusable) == (b"hello", True, cut == 0)
    with pytest.raises(WireError, match="after the end of the answer"):
        decoder.feed(more)


@pytest.mark.parametrize("name", ANSWERS)
def test_byte_by_byte_is_the_same_answer(name):
    data = ANSWERS[name]
    whole, body = decode(data)
    decoder, found = decode(*(data[at : at + 1] for at in range(len(data))))
    assert found == body
    assert (decoder.status, decoder.headers) == (whole.status, whole.headers)
    assert decoder.complete


@BOUNDED
@given(st.sampled_from(sorted(ANSWERS)), st.lists(st.integers(0, 2000), max_size=12))
def test_any_split_is_the_same_answer(name, cuts):
    data = ANSWERS[name]
    whole, body = decode(data)
    decoder, found = decode(*split(data, cuts))
    assert found == body
    for field in ("status", "headers", "complete", "reusable"):
        assert getattr(decoder, field) == getattr(whole, field)


@BOUNDED
@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    st.lists(st.integers(0, 2000), max_size=12),
)
def test_any_body_comes_back_from_its_chunks(parts, cuts):
    decoder, body = decode(*split(chunked(*parts), cuts))
    assert body == b"".join(parts)
    assert decoder.complete


HEADS = (b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n", CHUNKED, CHUNKED + b"5\r\nhello\r\n")


@BOUNDED
@given(st.sampled_from(HEADS), st.binary(max_size=80), st.lists(st.integers(0, 200), max_size=5))
def test_garbage_raises_nothing_but_the_declared_error(head, garbage, cuts):
    def outcome(pieces):
        decoder, found = ResponseDecoder(), b""
        try:
            for piece in pieces:
                found += decoder.feed(piece)
                if decoder.complete:
                    return decoder.status, found
            decoder.end()
        except WireError:
            return "refused"
        return decoder.status, found

    assert outcome(split(head + garbage, cuts)) == outcome([head + garbage])
