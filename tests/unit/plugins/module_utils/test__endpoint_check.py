# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _endpoint_check as check
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Answer
from ansible_collections.hx_infra.llm.plugins.module_utils._endpoint_check_ask import Question
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

MODELS = {"data": [{"id": "tiny"}, {"id": "llama3.2:3b"}]}
GOOD = {"choices": [{"text": "hi", "finish_reason": "length"}], "usage": {"completion_tokens": 8}}


def event(text="", reason=None, **more):
    return {"choices": [{"text": text, "finish_reason": reason}], **more}


def stream(*events, done=True):
    lines = [f"data: {json.dumps(item)}\n\n" for item in events]
    return "".join(lines + (["data: [DONE]\n\n"] if done else [])).encode()


class Endpoint:
    """Answers from a table; every answer takes a second of the fake clock."""

    def __init__(self, **answers):
        self.answers = {
            "models": (200, json.dumps(MODELS).encode()),
            "plain": (200, json.dumps(GOOD).encode()),
            "stream": (200, stream(event("a"), event("b"), event("", "length"))),
            "metrics": (200, b'# HELP x\nvllm:num_requests_running{engine="0"} 0.0\nup 1\n'),
            **answers,
        }
        self.time = 0.0
        self.bodies = []

    def prepare(self, method, path, body, timeout):
        kind = path.rsplit("/", 1)[1]
        if method == "POST":
            self.bodies.append((path, json.loads(body)))
            kind = "stream" if self.bodies[-1][1]["stream"] else "plain"
        answer = self.answers[kind]
        answer = answer.pop(0) if isinstance(answer, list) else answer

        def send():
            self.time += 1.0
            if isinstance(answer, BaseException):
                raise answer
            status, content = answer
            # cut where no event ends, as a network does
            return Answer(status, iter([content[:7], content[7:]]))

        return send

    def sleep(self, seconds):
        self.time += seconds

    def run(self, **wanted):
        given = check.Wanted(**{"models": ["tiny"], **wanted})
        found = check.check_endpoint(given, self.prepare, lambda: self.time, self.sleep)
        found["by_check"] = {verdict.check: verdict for verdict in found["verdicts"]}
        return found


def test_a_good_endpoint_is_ready():
    endpoint = Endpoint()
    found = endpoint.run(models=["tiny", "llama3.2:3b"], metrics=True)
    assert found["ready"]
    assert {verdict.status for verdict in found["verdicts"]} == {"PASS"}
    assert [model["name"] for model in found["models"]] == ["tiny", "llama3.2:3b"]
    assert found["models"][0] == {
        "name": "tiny",
        "ok": True,
        "ttft_ms": 1000.0,
        "total_ms": 1000.0,
        "stream_ms": 1000.0,
        "finish_reason": "length",
        "error": "",
    }
    assert endpoint.bodies[0][0] == "/v1/completions"
    assert endpoint.bodies[0][1]["max_tokens"] == 8


@pytest.mark.parametrize(
    ("kind", "answer", "failed", "said"),
    [
        ("plain", (200, stream()), "answer_non_stream", "not an OpenAI answer"),
        (
            "plain",
            (200, json.dumps(GOOD).replace("length", "abort").encode()),
            "answer_non_stream",
            "finish reason 'abort'",
        ),
        ("plain", (500, b"no engine"), "answer_non_stream", "status 500: no engine"),
        ("plain", ConnectionResetError("gone"), "answer_non_stream", "gone"),
        ("stream", (200, stream(event("a", "abort"))), "answer_stream", "finish reason 'abort'"),
        ("stream", (200, stream(event("a", "length"), done=False)), "answer_stream", "broke off"),
        ("stream", (200, stream(event("a"))), "answer_stream", "finish reason 'none'"),
        ("stream", (200, stream({"error": {"message": "dead"}})), "answer_stream", "dead"),
        ("stream", (200, b"data: <html>\n\n"), "answer_stream", "not an OpenAI event"),
        ("stream", (200, b"data: 7\n\n"), "answer_stream", "not an OpenAI event"),
        ("metrics", (200, b"up 1\n"), "metrics", "names that begin with vllm:"),
        ("metrics", (200, b"<html>\n"), "metrics", "GET /metrics"),
        ("metrics", (404, b""), "metrics", "status 404"),
    ],
)
def test_what_goes_wrong_is_a_failure_that_says_so(kind, answer, failed, said):
    found = Endpoint(**{kind: answer}).run(metrics=True)
    assert not found["ready"]
    verdict = found["by_check"][failed]
    assert verdict.status == "FAIL"
    assert said in verdict.evidence
    others = [v.status for v in found["verdicts"] if v.check != failed]
    assert set(others) == {"PASS"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, b"{}"), "status 401"),
        (ConnectionRefusedError("refused"), "refused"),
        ((200, b"[]"), "without the list"),
        ((200, b"<html>"), "not JSON"),
    ],
)
def test_an_endpoint_that_lists_nothing_is_asked_nothing(answer, said):
    endpoint = Endpoint(models=answer)
    found = endpoint.run(metrics=True)
    assert [v.check for v in found["verdicts"]] == ["endpoint_ready"]
    assert said in found["verdicts"][0].evidence
    assert found["models"][0]["error"] == "not listed"
    assert endpoint.bodies == []


def test_a_model_that_is_not_listed_is_not_asked():
    endpoint = Endpoint()
    found = endpoint.run(models=["tiny", "other"])
    assert not found["ready"]
    assert [body["model"] for _path, body in endpoint.bodies] == ["tiny", "tiny"]
    assert found["models"][1]["ok"] is False


def test_it_waits_for_models_as_long_as_told():
    late = [
        ConnectionRefusedError("refused"),
        (200, b'{"data": []}'),
        (200, json.dumps(MODELS).encode()),
    ]
    assert Endpoint(models=list(late)).run(wait_s=10)["ready"]
    assert not Endpoint(models=list(late)).run()["ready"]


@pytest.mark.parametrize(
    ("target", "status"), [(1000.0, "PASS"), (600.0, "WARN"), (400.0, "FAIL"), (0.0, None)]
)
def test_latency_warns_above_the_target_and_fails_above_twice(target, status):
    verdict = Endpoint().run(target_latency_ms=target)["by_check"].get("latency")
    assert (verdict.status if verdict else None) == status


def test_chat_is_asked_by_messages_and_read_from_deltas():
    chat = {"choices": [{"delta": {"content": "hi"}, "finish_reason": None}]}
    end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    endpoint = Endpoint(stream=(200, stream(chat, end)))
    found = endpoint.run(question=Question(api="chat"))
    assert found["ready"]
    path, body = endpoint.bodies[1]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": "Say hello."}]
    assert found["models"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("sk-1\n", "sk-1"),
        ("# ours\nVLLM_API_KEY=sk-2\n", "sk-2"),
        ('VLLM_API_KEY="sk-3"\nOTHER=x\n', "sk-3"),
    ],
)
def test_a_key_is_read_from_either_form(text, key):
    assert check.parse_key(text, "file") == key


@pytest.mark.parametrize("text", ["", "a\nb\n", "VLLM_API_KEY=\n", "two words\n"])
def test_a_file_without_one_key_is_refused(text):
    with pytest.raises(HostError, match="holds no key"):
        check.parse_key(text, "/etc/key")


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601])
def test_a_key_that_others_may_read_is_refused(tmp_path, mode):
    path = tmp_path / "key"
    path.write_text("sk-1\n")
    path.chmod(mode)
    with pytest.raises(HostError, match=f"mode {mode:04o}, wanted 0600, or 0640 for a group"):
        check.read_key(str(path))


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o660])
def test_a_key_for_owner_and_group_is_taken(tmp_path, mode):
    path = tmp_path / "key"
    path.write_text("sk-1\n")
    path.chmod(mode)
    assert check.read_key(str(path)) == "sk-1"


def test_a_key_that_is_not_there_is_told(tmp_path):
    with pytest.raises(HostError, match="can't be read"):
        check.read_key(str(tmp_path / "none"))
