# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The API client, against answers as Ollama gives them."""

from __future__ import annotations

import json

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _ollama_api as api
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import Answer

NAME = parse_name("qwen3:1.7b")


class Http:
    """Answers by method and path; keeps what was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def __call__(self, method, url, body, headers, timeout):
        self.asked.append((method, url.partition("11434")[2], json.loads(body) if body else None))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def client(*answers, **options):
    http = Http(*answers)
    return api.OllamaApi("http://127.0.0.1:11434/", http, **options), http


def stream(*events):
    return [json.dumps(event).encode() + b"\n" for event in events]


GOOD = stream(
    {"status": "pulling manifest"},
    {"status": "pulling aabbccddeeff", "digest": "sha256:aa", "total": 100},
    {"status": "pulling aabbccddeeff", "digest": "sha256:aa", "total": 100, "completed": 60},
    {"status": "pulling aabbccddeeff", "digest": "sha256:aa", "total": 100, "completed": 40},
    {"status": "pulling 112233445566", "digest": "sha256:bb", "total": 10, "completed": 10},
    {"status": "pulling aabbccddeeff", "digest": "sha256:aa", "total": 100, "completed": 100},
    {"status": "verifying sha256 digest"},
    {"status": "writing manifest"},
    {"status": "success"},
)


def test_a_good_pull():
    seen = []
    calls, http = client(Answer(200, b"".join(GOOD)))
    calls.pull(NAME, insecure=True, on_progress=lambda *state: seen.append(state))
    request = {"model": "qwen3:1.7b", "insecure": True, "stream": True}
    assert http.asked == [("POST", "/api/pull", request)]
    assert seen[1] == ("pulling aabbccddeeff", 0, 100)
    assert seen[3] == ("pulling aabbccddeeff", 40, 100)  # parts can be rolled back
    assert seen[-1] == ("success", 110, 110)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([], "ended after 'nothing'"),
        (GOOD[:-1], "ended after 'writing manifest', wanted 'success'"),
        ([*GOOD[:2], b'{"status": "pul'], "the stream broke off"),
        ([*GOOD[:2], b'{"error":"max retries exceeded"}\n'], "max retries exceeded"),
        ([b'{"error":"disk full","status":500}\n', *GOOD], "disk full"),
        ([*GOOD, b'{"error":"late"}\n'], "late"),
        (
            [GOOD[0], b'{"error":"pull model manifest: file does not exist"}\n'],
            "pulling qwen3:1.7b failed: pull model manifest: file does not exist",
        ),
    ],
)
def test_failed_pulls(lines, text):
    calls, _http = client(Answer(200, b"".join(lines)))
    with pytest.raises(HostError, match=text.replace("(", r"\(")):
        calls.pull(NAME, insecure=False, on_progress=lambda *_state: None)


def test_a_pull_that_is_refused():
    calls, _http = client(Answer(400, b'{"error":"invalid model name"}'))
    with pytest.raises(HostError, match="HTTP 400 invalid model name"):
        calls.pull(NAME, insecure=False, on_progress=lambda *_state: None)


class Breaking:
    """A body whose connection breaks after some lines."""

    def __init__(self, lines):
        self.rest = lines
        self.closed = False

    def __iter__(self):
        yield from self.rest
        raise ConnectionResetError("connection reset by peer")

    def close(self):
        self.closed = True


def test_a_connection_that_breaks():
    body = Breaking(GOOD[:3])
    calls, _http = client(Answer(200, body))
    with pytest.raises(HostError, match="connection reset by peer"):
        calls.pull(NAME, insecure=False, on_progress=lambda *_state: None)
    assert body.closed


def test_the_deadline_stops_a_pull():
    ticks = iter(range(100))
    body = Breaking(GOOD)
    calls, _http = client(Answer(200, body), deadline=6, clock=lambda: next(ticks))
    with pytest.raises(HostError, match="stopped at the deadline"):
        calls.pull(NAME, insecure=False, on_progress=lambda *_state: None)
    assert body.closed


def test_tags_and_version():
    models = {"models": [{"name": "Qwen3:1.7b", "digest": "ab"}, {"name": "r:5/l/x:1"}]}
    calls, _http = client(Answer(200, json.dumps(models).encode()), Answer(200, b'{"version":"1"}'))
    assert calls.tags() == {NAME.key: "ab", "r:5/l/x:1": ""}
    assert calls.version() == "1"


def test_an_empty_list_is_null():
    calls, _http = client(Answer(200, b'{"models":null}'))
    assert calls.tags() == {}


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (ConnectionRefusedError("Connection refused"), "doesn't answer GET /api/tags: Connection"),
        (Answer(503, b"busy"), "HTTP 503 busy"),
        (Answer(200, b"<html>"), "failed: Expecting value"),
        (Answer(200, b"[]"), "no JSON object"),
        (Answer(200, b'{"error":"odd"}'), "failed: odd"),
    ],
)
def test_bad_answers(answer, text):
    calls, _http = client(answer)
    with pytest.raises(HostError, match=text):
        calls.tags()


def test_delete_and_copy():
    calls, http = client(Answer(200), Answer(404, b'{"error":"model not found"}'), Answer(200))
    calls.delete(NAME)
    calls.delete(NAME)
    calls.copy(parse_name("r:5000/library/x"), NAME)
    assert http.asked[0] == ("DELETE", "/api/delete", {"model": "qwen3:1.7b"})
    request = {"source": "r:5000/library/x:latest", "destination": "qwen3:1.7b"}
    assert http.asked[2] == ("POST", "/api/copy", request)


def test_a_delete_that_fails():
    calls, _http = client(Answer(500, b'{"error":"bad manifest"}'))
    with pytest.raises(HostError, match=r"removing qwen3:1\.7b failed: HTTP 500 bad manifest"):
        calls.delete(NAME)


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ([Answer(200, b'{"done":true,"eval_count":3,"response":"HX-OK"}')], ""),
        ([Answer(400, b"{}"), Answer(200, b'{"embeddings":[[0.1]]}')], ""),
        ([Answer(200, b'{"done":true}')], "the answer is empty"),
        ([Answer(400, b"{}"), Answer(200, b'{"embeddings":[]}')], "the answer is empty"),
        ([Answer(500, b'{"error":"unable to load model"}')], "HTTP 500 unable to load model"),
        ([Answer(400, b"{}"), Answer(404, b'{"error":"no"}')], "HTTP 404 no"),
    ],
)
def test_prove(answers, text):
    calls, _http = client(*answers)
    if not text:
        assert calls.prove(NAME) >= 0
        return
    with pytest.raises(HostError, match=text):
        calls.prove(NAME)


def test_unloading_waits_until_the_model_has_gone():
    here = {"models": [{"name": "qwen3:1.7b", "digest": "ab"}]}
    there = Answer(200, json.dumps(here).encode())
    waited = []
    calls, http = client(
        Answer(200, b'{"done":true,"done_reason":"unload"}'),
        there,
        Answer(200, b'{"models":[]}'),
        sleep=waited.append,
    )
    assert calls.unload(NAME)
    request = {"model": "qwen3:1.7b", "keep_alive": 0, "stream": False}
    assert http.asked[0] == ("POST", "/api/generate", request)
    assert [asked[1] for asked in http.asked[1:]] == ["/api/ps", "/api/ps"]
    assert len(waited) == 1


def test_a_model_that_answers_requests_stays_loaded():
    here = json.dumps({"models": [{"name": "qwen3:1.7b", "digest": "ab"}]}).encode()
    clock = iter(range(0, 1000, 20))
    calls, _http = client(
        *[Answer(200, here) for _look in range(4)],
        sleep=lambda _seconds: None,
        clock=lambda: next(clock),
    )
    assert not calls.unload(NAME)


def test_what_is_loaded():
    listed = {"models": [{"name": "qwen3:1.7b", "digest": "ab", "size_vram": 5}]}
    calls, _http = client(Answer(200, json.dumps(listed).encode()))
    assert calls.loaded() == {NAME.key: "ab"}
