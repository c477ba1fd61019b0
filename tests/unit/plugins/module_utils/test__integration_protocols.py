# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the protocols' own parts make of bytes and data; conversations are in tests/sim."""

from __future__ import annotations

import struct

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._integration_http import (
    Reply,
    user_or_bearer,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_identify import name_of
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_model import (
    IntegrationError,
    Wanted,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_postgres import (
    error_fields,
    md5_answer,
    startup,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_prometheus import (
    targets,
    up_query,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_qdrant import (
    EMPTY_SETTINGS,
    is_settings,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_redis import (
    RedisError,
    info_fields,
    read,
    request,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_wire import Wire

SECRET = "pw"


class Peer:
    def __init__(self, data):
        self.data = data

    def settimeout(self, _seconds):
        pass

    def recv(self, limit):
        data, self.data = self.data[:limit], self.data[limit:]
        return data


def wire(data):
    return Wire(Peer(data), 5, lambda: 0.0)


def test_the_startup_message():
    message = startup("hx", "citadel")
    length, version = struct.unpack("!II", message[:8])
    assert (length, version) == (len(message), 196608)
    assert message[8:].startswith(b"user\0hx\0database\0citadel\0")
    assert message.endswith(b"\0\0")


def test_a_login_by_md5():
    answer = md5_answer("user", "secret", b"\x01\x02\x03\x04")
    assert answer == b"md5fccef98e4f1cf6cbe96b743fad4e8bd0"


def test_the_fields_of_an_error():
    assert error_fields(b"SFATAL\0C28P01\0Mno\0\0") == {"S": "FATAL", "C": "28P01", "M": "no"}


def test_a_command_of_redis():
    assert request("AUTH", "pässword") == b"*2\r\n$4\r\nAUTH\r\n$9\r\np\xc3\xa4ssword\r\n"


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"+PONG\r\n", "PONG"),
        (b":12\r\n", 12),
        (b"$5\r\na\r\nbc\r\n", "a\r\nbc"),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b"*2\r\n$1\r\na\r\n*1\r\n:3\r\n", ["a", [3]]),
    ],
)
def test_answers_of_redis(data, value):
    assert read(wire(data)) == value


def test_an_error_of_redis():
    with pytest.raises(RedisError, match="NOAUTH Authentication") as caught:
        read(wire(b"-NOAUTH Authentication required.\r\n"))
    assert caught.value.word == "NOAUTH"


@pytest.mark.parametrize(
    "data",
    [b"HTTP/1.1 400\r\n", b":x\r\n", b"$-2\r\n", b"$99999999\r\n", b"*5000\r\n", b"*1\r\n" * 9],
)
def test_what_is_not_redis(data):
    with pytest.raises(IntegrationError, match="which is not Redis'"):
        read(wire(data))


def test_the_fields_of_info():
    text = "# Server\r\nredis_version:7.0.15\r\nos:Linux a:b\r\n"
    assert info_fields(text) == {"redis_version": "7.0.15", "os": "Linux a:b"}


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (b"HTTP/1.1 400 Bad Request", "HTTP"),
        (b"-ERR wrong number of arguments", "Redis"),
        (b"-NOAUTH Authentication required.", "Redis"),
        (b"SSH-2.0-OpenSSH_9.2p1", "SSH"),
        (b"\x15\x03\x01\x00\x02\x02F", "TLS"),
        (b"220 mail ESMTP", "SMTP or FTP"),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00...", "HTTP/2"),
        (b"J\x00\x00\x00\x0a8.0.36", "MySQL"),
        (b"hello", ""),
        (b"", ""),
    ],
)
def test_services_are_known_by_their_first_bytes(answer, name):
    assert name_of(answer) == name


@pytest.mark.parametrize(
    ("head", "good"),
    [
        (EMPTY_SETTINGS, True),
        (b"\0\0\x0c\4\0\0\0\0\0", True),
        (b"\0\0\x0b\4\0\0\0\0\0", False),
        (b"\0\0\0\4\1\0\0\0\0", False),
        (b"HTTP/1.1 ", False),
    ],
)
def test_the_first_frame_of_http2(head, good):
    assert is_settings(head) is good


@pytest.mark.parametrize(
    ("fields", "query"),
    [
        ({"job": "llm"}, 'up{job="llm"}'),
        ({"job": 'a"b\\', "instance": "h:1"}, 'up{job="a\\"b\\\\",instance="h:1"}'),
    ],
)
def test_the_query_for_targets(fields, query):
    assert up_query(Wanted("prometheus", "h", **fields)) == query


def test_targets_of_an_answer():
    result = [
        {"metric": {"instance": "a:1"}, "value": [0, "1"]},
        {"metric": {"instance": "b:1"}, "value": [0, "0"]},
    ]
    assert targets({"data": {"result": result}}) == {"a:1": True, "b:1": False}
    assert targets({"data": {"result": []}}) == {}
    assert targets({"error": "bad"}) is None
    assert targets(None) is None


def test_credentials_for_http():
    login = Wanted("grafana", "h", user="hx", password=SECRET)
    assert user_or_bearer(login) == ({"Authorization": "Basic aHg6cHc="}, "login as hx")
    token = Wanted("grafana", "h", password=SECRET)
    assert user_or_bearer(token) == ({"Authorization": "Bearer pw"}, "token")
    assert user_or_bearer(Wanted("grafana", "h", user="hx")) == ({}, "")


@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        ({}, b'{"message": "no"}', "GET /x: status 401: no"),
        ({}, b"<html>\n no", "GET /x: status 401: <html> no"),
        ({}, b"", "GET /x: status 401"),
        ({"Location": "/login"}, b"moved", "GET /x: status 401, it leads to /login"),
    ],
)
def test_an_answer_is_said_in_short(headers, body, said):
    assert Reply("/x", 401, headers, body, 1.0).said == said
