# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a hub says, and how requests follow redirects."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._hub import (
    Hub,
    HubFile,
    RetryError,
    read_tree,
    retry_after,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._hub_http import (
    Reply,
    follow,
    host_of,
    origin,
)

COMMIT = "a" * 40
HOME = "https://hub.example/org/m/resolve/x/model.safetensors"


def reply(status: int = 200, body: Any = b"", **headers: str) -> Reply:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return Reply(status, HOME, named, "", io.BytesIO(data))


def hub(*answers: Any, token: str = "", **more: Any) -> tuple[Hub, list[str]]:
    queue, asked = list(answers), []

    def get(url: str, _headers: Mapping[str, str], _token: str, _timeout: float) -> Reply:
        asked.append(url)
        answer = queue.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    options: dict[str, Any] = {"sleep": lambda _seconds: None, **more}
    return Hub("https://hub.example", "org/m", get, token, **options), asked


def test_reads_small_and_large_files() -> None:
    entries = [
        {"type": "directory", "path": "d", "oid": "1" * 40, "size": 0},
        {"type": "file", "path": "config.json", "oid": "B" * 40, "size": 7},
        {
            "type": "file", "path": "m.safetensors", "oid": "1" * 40, "size": 134,
            "lfs": {"oid": "c" * 64, "size": 10**10, "pointerSize": 134}, "xetHash": "e" * 64,
        },
    ]  # fmt: skip
    assert read_tree(entries, "here") == [
        HubFile("config.json", 7, git_sha1="b" * 40),
        HubFile("m.safetensors", 10**10, sha256="c" * 64),
    ]


@pytest.mark.parametrize(
    "entries",
    [
        None,
        {"error": "x"},
        [{"path": "a"}],
        [{"type": "file", "path": "a", "size": 1, "oid": "zz"}],
        [{"type": "file", "path": "a", "size": 1, "oid": "1" * 40, "lfs": {"oid": "1" * 40}}],
    ],
)
def test_a_list_that_cannot_be_understood(entries: Any) -> None:
    with pytest.raises(HostError, match="can't be understood"):
        read_tree(entries, "here")


def test_pages_stay_at_the_endpoint() -> None:
    page = [{"type": "file", "path": "a.json", "size": 1, "oid": "1" * 40}]
    link = '<https://elsewhere.example/api/models/org/m/tree/x?cursor=2>; rel="next"'
    client, asked = hub(reply(body=page, link=link), reply(body=page))
    assert len(client.files(COMMIT)) == 2
    assert asked[1] == "https://hub.example/api/models/org/m/tree/x?cursor=2"


@pytest.mark.parametrize(
    ("answer", "token", "said"),
    [
        (reply(403, x_error_code="GatedRepo"), "t", "the token's account has no access"),
        (reply(401, x_error_code="GatedRepo"), "", "no token was given"),
        (reply(401, x_error_code="RepoNotFound"), "", "no such model, or it is private"),
        (reply(401), "t", "the token is not accepted"),
        (reply(404, x_error_code="RevisionNotFound"), "", "no such revision"),
        (reply(404), "", "It is not there"),
        (reply(400, {"error": "odd\nrequest"}), "", "answered 400 (odd request)"),
        (reply(200, b"<html>"), "", "is no JSON"),
    ],
)
def test_refusals_say_what_to_do(answer: Reply, token: str, said: str) -> None:
    client, _asked = hub(answer, token=token)
    with pytest.raises(HostError) as caught:
        client.files(COMMIT)
    assert said in str(caught.value)
    assert "hub.example: org/m" in str(caught.value)


def test_waits_as_long_as_it_is_asked_within_bounds() -> None:
    waits: list[float] = []
    answers = [reply(429, retry_after="7"), reply(503), OSError("cut"), reply(body=[])]
    client, _asked = hub(*answers, sleep=waits.append)
    assert client.files(COMMIT) == []
    assert waits == [7.0, 2.0, 4.0]
    client, _asked = hub(reply(429, retry_after="3600"))
    with pytest.raises(HostError, match="It asks to wait 3600 s"):
        client.files(COMMIT)
    client, asked = hub(*[OSError("refused")] * 9)
    with pytest.raises(HostError, match="after 5 tries"):
        client.files(COMMIT)
    assert len(asked) == 5


def test_a_content_servers_refusal_is_a_reason_to_ask_the_hub_again() -> None:
    answer = reply(403)
    answer.url = "https://content.example/x"
    client, _asked = hub(answer)
    with pytest.raises(RetryError, match=r"content\.example answers 403"):
        client.open(COMMIT, "a", 0, 1.0)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": "Sat, 21 Nov 2026"}, None),
        ({"retry-after": "-1"}, None),
        ({"ratelimit": '"api";r=0;t=55'}, 55.0),
        ({"ratelimit": '"api";r=10;t=55'}, None),
        ({"retry-after": "3", "ratelimit": '"api";r=0;t=55'}, 3.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("url", "host"),
    [("https://a.example/x", "a.example"), ("http://a.example:8080", "a.example:8080")],
)
def test_host_of(url: str, host: str) -> None:
    assert host_of(url) == host
    assert origin("https://a.example:443/x") == origin("https://A.example/y")


def walk(*targets: str) -> list[tuple[str, str]]:
    """Follow redirects and return each address with the token that it was given."""
    sent, queue = [], list(targets)

    def once(url: str, headers: Mapping[str, str]) -> Reply:
        sent.append((url, headers.get("Authorization", "")))
        if queue:
            return reply(302, location=queue.pop(0))
        return reply()

    follow(HOME, {}, "secret", once)
    return sent


def test_the_token_stays_with_scheme_host_and_port() -> None:
    sent = walk(
        "/renamed/model",
        "https://hub.example:444/x",
        "https://evil.example/",
        "https://hub.example/z",
    )
    assert [token for _url, token in sent] == ["Bearer secret"] * 2 + [""] * 2 + ["Bearer secret"]
    assert sent[1][0] == "https://hub.example/renamed/model"


@pytest.mark.parametrize("target", ["http://hub.example/x", "file:///etc/passwd", "ftp://a/b"])
def test_redirects_to_insecure_places_are_refused(target: str) -> None:
    with pytest.raises(OSError, match="redirects to"):
        walk(target)


def test_redirects_end() -> None:
    with pytest.raises(OSError, match="more than 8 redirects"):
        walk(*["/again"] * 20)
