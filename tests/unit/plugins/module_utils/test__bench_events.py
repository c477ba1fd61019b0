# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams cut into records: every form that the standard allows, and any split of the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_events
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_events import (
    EventSplitter,
    LineSplitter,
    StreamError,
)

BOUNDED = settings(derandomize=True, max_examples=250, deadline=None, database=None)


def cut(splitter, *pieces):
    """Return the records of a stream that comes in pieces."""
    found = []
    for piece in pieces:
        found += splitter.feed(piece)
    return found + splitter.end()


def split(data, cuts):
    """Cut bytes at places, which may lie outside and repeat."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in zip(places, places[1:])]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a\r\n\r\n", [b"a"]),
        (b"data: a\r\r", [b"a"]),
        (b"data: a\n\r\n", [b"a"]),
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\ndata\ndata: b\n\n", [b"a\n\nb"]),
        (b": keep-alive\n\ndata: a\n\n:\n\n", [b"a"]),
        (b"event: message\nid: 7\nretry: 10\ndata: a\n\n", [b"a"]),
        (b"data: \n\n", []),
        (b"data:\n\n", []),
        (b"\n\n\ndata: a\n\n\n\n", [b"a"]),
        (b"dataset: a\n\n", []),
        (b"data: a: b\n\n", [b"a: b"]),
        (b"data: a\n", [b"a"]),
        (b"data: a", [b"a"]),
        ("data: {'t': 'ü漢🙂'}\n\n".encode(), ["{'t': 'ü漢🙂'}".encode()]),
        (b"data: [DONE]\n\n", [b"[DONE]"]),
    ],
)
def test_events_are_those_of_the_standard(stream, events):
    assert cut(EventSplitter(), stream) == events
    assert cut(EventSplitter(), *(stream[at : at + 1] for at in range(len(stream)))) == events


@pytest.mark.parametrize(
    ("stream", "lines"),
    [
        (b'{"a": 1}\n', [b'{"a": 1}']),
        (b'{"a": 1}\n{"b": 2}\n', [b'{"a": 1}', b'{"b": 2}']),
        (b'{"a": 1}', [b'{"a": 1}']),
        (b"\n\n \n", []),
        ('{"a": "ü漢🙂"}\n'.encode(), ['{"a": "ü漢🙂"}'.encode()]),
    ],
)
def test_lines_are_cut_where_they_end(stream, lines):
    assert cut(LineSplitter(), stream) == lines
    assert cut(LineSplitter(), *(stream[at : at + 1] for at in range(len(stream)))) == lines


def test_an_event_is_handed_out_when_it_is_whole_and_not_later():
    splitter = EventSplitter()
    assert splitter.feed(b"data: a\n") == []
    assert splitter.feed(b"\n") == [b"a"]
    assert splitter.feed(b"data: b\r") == []
    assert splitter.feed(b"\ndata: c\r\n\r") == [b"b\nc"]
    assert splitter.feed(b"\ndata: d\n\n") == [b"d"]


@pytest.mark.parametrize("splitter", [EventSplitter, LineSplitter])
def test_a_record_without_an_end_is_refused(splitter, monkeypatch):
    monkeypatch.setattr(_bench_events, "RECORD_LIMIT", 100)
    endless = splitter()
    assert endless.feed(b"data: " + b"x" * 90) == []
    with pytest.raises(StreamError, match="more than 100 bytes"):
        endless.feed(b"x" * 10)


LINES = st.sampled_from(
    [
        b"data: {}",
        b"data:x",
        b"data: ",
        b"data",
        b": ping",
        b"",
        b"",
        b"id: 1",
        "data: ü漢".encode(),
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=14).map(
    lambda lines: b"".join(line + end for line, end in lines)
)
CUTS = st.lists(st.integers(0, 400), max_size=12)


@BOUNDED
@given(STREAMS, CUTS)
def test_any_split_of_a_stream_gives_the_same_events(stream, cuts):
    assert cut(EventSplitter(), *split(stream, cuts)) == cut(EventSplitter(), stream)


@BOUNDED
@given(st.lists(STREAMS, max_size=6))
def test_pieces_that_end_with_a_line_give_the_same_events(pieces):
    assert cut(EventSplitter(), *pieces) == cut(EventSplitter(), b"".join(pieces))


@BOUNDED
@given(st.lists(st.sampled_from([b"data: a\n\n", b"data: \n\n", b"data: b\n", b"\n"]), max_size=5))
def test_events_that_come_one_by_one_are_those_that_come_together(pieces):
    assert cut(EventSplitter(), *pieces) == cut(EventSplitter(), b"".join(pieces))


@BOUNDED
@given(st.binary(max_size=120) | STREAMS, CUTS)
def test_any_split_of_anything_gives_the_same_lines(stream, cuts):
    assert cut(LineSplitter(), *split(stream, cuts)) == cut(LineSplitter(), stream)


@BOUNDED
@given(st.text("da:t \r\n", max_size=60).map(str.encode) | st.binary(max_size=60), CUTS)
def test_any_split_of_garbage_gives_the_same_events(stream, cuts):
    assert cut(EventSplitter(), *split(stream, cuts)) == cut(EventSplitter(), stream)
