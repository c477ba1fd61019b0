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

    def __init__(self, *answers, tries=3):
        self.waits = []
        retries = source_http.Retries(tries, 60.0, 10.0, 1.0, self.waits.append)
        super().__init__("", None, retries)
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
