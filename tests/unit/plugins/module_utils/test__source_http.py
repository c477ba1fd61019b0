# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bytes over HTTP: taken up again where a connection broke, and given up in time."""

from __future__ import annotations

import io
import socket

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _source_http as source_http
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._hub_http import Reply
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import StoppedError, Watch

URL = "http://peer:1/v1/blobs/x"
CONTENT = bytes(range(250))
SIZE = len(CONTENT)


class Body(io.BytesIO):
    """A body that may end with an error."""

    def __init__(self, content, error=None):
        super().__init__(content)
        self.error = error

    def read1(self, size=-1):
        data = super().read(min(size, 50))
        if not data and self.error:
            raise self.error
        return data


class Scripted(source_http.Client):
    """A client whose answers are given beforehand."""

    def __init__(self, *answers, tries=3, watch=None):
        self.waits = []
        retries = source_http.Retries(tries, 60.0, 10.0, 1.0, self.waits.append)
        super().__init__("", None, retries, watch)
        self.told = []
        self.answers = list(answers)
        self.asked = []

    def get(self, url, headers=None):
        self.asked.append(dict(headers or {}).get("Range", ""))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        status, body, more = answer
        return Reply(status, url, more, "", body)

    def all(self, offset=0, size=SIZE):
        return b"".join(self.bytes_from(URL, offset, size, self.told.append))


def whole(upto=SIZE, error=None):
    return 200, Body(CONTENT[:upto], error), {"content-length": str(SIZE)}


def busy(retry_after="5", taken=""):
    headers = {"retry-after": retry_after, **({"hx-transfers": taken} if taken else {})}
    return 503, Body(b""), headers


def part(first, upto=SIZE, error=None, total=SIZE):
    headers = {"content-range": f"bytes {first}-{total - 1}/{total}"}
    return 206, Body(CONTENT[first:upto], error), headers


def test_a_whole_file():
    client = Scripted(whole())
    assert client.all() == CONTENT
    assert (client.asked, client.waits) == ([""], [])


def test_the_length_may_be_the_servers_word():
    assert Scripted(whole()).all(size=None) == CONTENT
    client = Scripted(whole(100, OSError("broke")), part(100))
    assert client.all(size=None) == CONTENT


@pytest.mark.parametrize(
    "error", [None, ConnectionResetError("reset"), socket.timeout("timed out"), OSError("broke")]
)
def test_a_broken_connection_is_taken_up_where_it_was(error):
    client = Scripted(whole(100, error), part(100, 150, error), part(150))
    assert client.all() == CONTENT
    assert client.asked == ["", "bytes=100-", "bytes=150-"]
    assert client.waits == [1.0, 1.0]
    assert len(client.told) == 2
    assert all(client.told)


def test_an_offset_to_begin_with():
    client = Scripted(part(200))
    assert client.all(200) == CONTENT[200:]
    assert client.asked == ["bytes=200-"]


def test_a_server_that_can_not_resume():
    client = Scripted(whole(100, OSError("broke")), whole())
    assert client.all() == CONTENT


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ([OSError("no route to host")] * 3, "no route to host, at 0 of 250 bytes, 3 times"),
        ([whole(0) for _turn in range(3)], "the connection was cut, at 0 of 250 bytes"),
        (
            [whole(0, socket.timeout("x")) for _turn in range(3)],
            "nothing came for 60 s, at 0 of 250",
        ),
        ([(503, Body(b""), {})] * 3, "it answers 503, at 0 of 250"),
        ([whole(100), *[OSError("gone")] * 3], "gone, at 100 of 250 bytes, 3 times in a row"),
    ],
)
def test_too_many_tries_without_a_byte(answers, text):
    client = Scripted(*answers)
    with pytest.raises(HostError, match=text) as caught:
        client.all()
    assert "goes on from there" in caught.value.remedy
    assert len(client.waits) <= 3


def test_the_pauses_grow_and_begin_anew_with_new_bytes():
    gone = OSError("gone")
    client = Scripted(gone, gone, whole(100), gone, part(100))
    assert client.all() == CONTENT
    assert client.waits == [1.0, 2.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((401, Body(b""), {}), "it doesn't accept the token"),
        ((403, Body(b""), {}), "it answers 403"),
        ((404, Body(b""), {}), "it doesn't have it"),
        ((416, Body(b""), {}), "it answers 416"),
        ((416, Body(b""), {"content-range": "bytes */9"}), "it offers 9 bytes, wanted 250"),
        ((416, Body(b""), {"content-range": "bytes */x"}), "it answers 416"),
        (part(10), "it doesn't give what was asked for, the bytes from 0 on"),
        ((206, Body(b"x"), {}), "it doesn't give what was asked for"),
        ((200, Body(b"x"), {"content-length": "1"}), "it offers 1 bytes, wanted 250"),
        (part(0, total=999), "it offers 999 bytes, wanted 250"),
    ],
)
def test_a_no_is_not_asked_for_again(answer, text):
    client = Scripted(answer)
    with pytest.raises(HostError, match=text):
        client.all()
    assert client.waits == []


def test_a_small_file_has_a_limit():
    assert Scripted(whole()).body(URL, 250) == CONTENT
    with pytest.raises(source_http.RefusedError, match="longer than 249 bytes"):
        Scripted(whole()).body(URL, 249)
    with pytest.raises(OSError, match="it answers 500"):
        Scripted((500, Body(b""), {})).body(URL, 9)


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/", "http://[::1/", "https://:x/"])
def test_an_address_that_is_none(url):
    client = source_http.Client("", None, source_http.Retries())
    with pytest.raises(OSError, match=r".+"):
        client.get(url)


@pytest.mark.parametrize(
    ("answer", "pause", "text"),
    [
        (busy(), 5.0, "it is busy (503)"),
        (busy(taken="2 of 2"), 5.0, "it is full, 2 of 2 transfers are taken (503)"),
        (busy(taken="\x1b[2J"), 5.0, "it is busy (503)"),
        (busy("0"), 1.0, "it is busy (503)"),
        (busy("86400"), 30.0, "it is busy (503)"),
        (busy("soon"), 1.0, "it answers 503"),
        (busy("\xb2"), 1.0, "it answers 503"),
        (busy("9" * 5000), 1.0, "it answers 503"),
    ],
)
def test_who_is_full_says_when_to_ask_again(answer, pause, text):
    client = Scripted(answer, whole())
    assert client.all() == CONTENT
    assert (client.waits, client.told) == ([pause], [text])


def test_who_stays_full_is_left_in_time():
    client = Scripted(*[busy(taken="2 of 2")] * 9, watch=Watch(stall_s=12.0))
    text = (
        r"it is full, 2 of 2 transfers are taken \(503\), at 0 of 250 bytes, asked again for 12 s"
    )
    with pytest.raises(HostError, match=text) as caught:
        client.all()
    assert client.waits == [5.0, 5.0, 2.0]
    assert "goes on from there" in caught.value.remedy


def test_the_wait_for_who_is_full_begins_anew_with_new_bytes():
    cut = (whole(100), part(100, 150))
    client = Scripted(busy(), cut[0], busy(), cut[1], busy(), part(150), watch=Watch(stall_s=5.0))
    assert client.all() == CONTENT
    assert client.waits == [5.0, 1.0, 5.0, 1.0, 5.0]


def test_being_full_is_no_fault():
    gone = OSError("gone")
    client = Scripted(busy(), gone, busy(), gone, busy(), whole())
    assert client.all() == CONTENT
    with pytest.raises(HostError, match="gone, at 0 of 250 bytes, 3 times in a row"):
        Scripted(gone, busy(), gone, busy(), gone).all()


def test_a_small_file_of_who_is_full():
    with pytest.raises(source_http.BusyError, match="it is full, 3 of 3") as caught:
        Scripted(busy("7", "3 of 3")).body(URL, 9)
    assert caught.value.retry_s == 7


def test_lengths_that_are_none():
    strange = (200, Body(CONTENT), {"content-length": "\xb2"})
    assert Scripted(strange).all() == CONTENT


def test_a_small_file_has_to_come_in_time():
    times = iter((0.0, 3.0, 6.0, 9.0))
    client = Scripted(whole(), watch=Watch(stall_s=9.0, clock=lambda: next(times)))
    with pytest.raises(OSError, match="no more than 150 bytes came within 9 s"):
        client.body(URL, SIZE)


def test_pauses_end_when_it_is_time():
    slept, said = [], iter(("", "", "SIGTERM"))
    retries = source_http.Retries(sleep=slept.append)
    with pytest.raises(StoppedError, match="waiting to ask a source again was stopped by SIGTERM"):
        retries.under(Watch(stopped=lambda: next(said), tick_s=0.5)).sleep(30.0)
    assert slept == [0.5, 0.5]
    slept.clear()
    retries.under(Watch(tick_s=0.5)).sleep(1.25)
    assert slept == [0.5, 0.5, 0.25]
    with pytest.raises(HostError, match="was stopped at the deadline"):
        retries.under(Watch(deadline=1.0, clock=lambda: 2.0)).sleep(0.0)
