# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import nightly_engines as engines
import nightly_session as session
import pytest
from nightly_http import ExchangeError, Reply

GONE = ExchangeError("refused", "connection refused")
LOADED = {"models": [{"name": "phi3:latest", "size": 100, "size_vram": 100}]}
GOOD = {"response": "HX-OK", "done": True, "done_reason": "stop"}
LOAD = {"response": "", "done": True, "done_reason": "load"}


class World:
    """A clock, and an engine that gives one answer after another for each path."""

    def __init__(self, **answers):
        self.answers = {path: list(found) for path, found in answers.items()}
        self.time = 0.0
        self.asked = []

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds

    def send(self, method, url, body, headers, *, timeout_s, ca_path):
        path = url.rpartition("/")[2]
        self.asked.append((method, path, json.loads(body) if body else None, timeout_s, headers))
        self.time += 0.1
        left = self.answers.get(path, [GONE])
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            if answer.kind == "timeout":
                self.time += timeout_s
            raise answer
        if isinstance(answer, Reply):
            return answer
        return Reply(200, json.dumps(answer).encode())

    def session(self, kind="ollama", *, key="", end=1000.0, wait=30.0, **engine):
        entry = {"kind": kind, "url": "http://engine:1", **engine}
        limits = session.Limits(wait_s=wait)
        made = session.engine_from(entry, "engines[0]")
        return session.Session(
            made, key, limits, end, send=self.send, now=self.now, sleep=self.sleep
        )


def ollama(generate=(LOAD, GOOD), ps=(LOADED,), **more):
    return World(version=[{"version": "1"}], generate=generate, ps=ps, **more)


def check(world, model="phi3", **engine):
    return engines.check_model(world.session(**engine), model)


def test_a_model_is_loaded_asked_and_looked_up():
    world = ollama()
    outcome = check(world, answer="HX-OK")
    assert (outcome.ok, outcome.message) == (True, "")
    assert (outcome.gpu_ratio, outcome.seconds) == (1.0, pytest.approx(0.1))
    load, ask = [item for item in world.asked if item[1] == "generate"]
    assert "prompt" not in load[2]
    assert (load[3], ask[3]) == (120.0, 10.0)
    assert ask[2]["prompt"] == "Return exactly the text: HX-OK"
    assert (ask[2]["stream"], ask[2]["think"]) == (False, False)


def test_the_time_of_a_model_that_is_in_use_is_left_alone():
    world = ollama()
    check(world)
    assert all("keep_alive" not in item[2] for item in world.asked if item[2])
    world = ollama(ps=({"models": []}, LOADED))
    check(world)
    assert [item[2]["keep_alive"] for item in world.asked if item[2]] == ["60s", "60s"]


@pytest.mark.parametrize(
    ("ps", "said"),
    [
        ({"models": [{"name": "phi3:latest", "size": 100, "size_vram": 0}]}, "the CPU computes it"),
        (
            {"models": [{"name": "phi3:latest", "size": 100, "size_vram": 60}]},
            "60 of 100 bytes lie in GPU memory (60%), wanted 100%: the CPU computes a part of it",
        ),
        ({"models": []}, "nobody knows what computed the answer"),
        ({"models": [{"name": "phi3:latest"}]}, "gives it no size"),
        ({"models": None}, "nobody knows what computed the answer"),
    ],
)
def test_a_model_that_the_gpu_did_not_compute_has_failed(ps, said):
    outcome = check(ollama(ps=(ps,)))
    assert not outcome.ok
    assert said in outcome.message


def test_the_part_on_the_gpu_that_is_wanted():
    ps = {"models": [{"name": "phi3:latest", "size": 100, "size_vram": 60}]}
    assert check(ollama(ps=(ps,)), min_gpu_ratio=0.6).ok
    assert not check(ollama(ps=(ps,)), min_gpu_ratio=0.61).ok
    nothing = ollama(ps=({"models": []},))
    assert check(nothing, min_gpu_ratio=0).ok


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"error": "model runner has died"}, "an error inside status 200: model runner has died"),
        ({"response": "", "done": True}, "the answer is empty"),
        ({"response": " \n", "done": True}, "the answer is empty"),
        ({"done": True}, "the answer is empty"),
        ({"response": "HX-OK"}, "not complete"),
        ({"response": "@@@@@@", "done": True}, "it answered '@@@@@@', wanted 'HX-OK'"),
        (["HX-OK"], "no JSON object"),
        (Reply(200, b"<html>OK</html>"), "not JSON: '<html>OK</html>'"),
        (Reply(500, b'{"error":"CUDA error"}'), 'status 500: {"error":"CUDA error"}'),
        (ExchangeError("timeout", "no answer within 10 s"), "no answer within 10 s"),
    ],
)
def test_an_answer_that_is_none(answer, said):
    outcome = check(ollama(generate=(LOAD, answer)), answer="HX-OK")
    assert not outcome.ok
    assert said in outcome.message


def test_a_model_that_cannot_be_loaded():
    missing = Reply(404, b'{"error":"model \'x\' not found"}')
    outcome = check(ollama(generate=(missing,)))
    assert outcome.message == "loading it: /api/generate answered status 404: " + (
        '{"error":"model \'x\' not found"}'
    )
    assert outcome.seconds is None


def test_thinking_is_an_answer():
    thought = {"thinking": "I say HX-OK", "response": "", "done": True}
    assert check(ollama(generate=(LOAD, thought)), answer="HX-OK").ok


REFUSAL = Reply(400, b'{"error":"\\"nomic\\" does not support generate"}')


@pytest.mark.parametrize(
    ("answer", "ok"),
    [
        ({"embeddings": [[0.1, -0.2]]}, True),
        ({"embeddings": []}, False),
        ({"embeddings": [[]]}, False),
        ({"embeddings": [[0, 0]]}, False),
        ({"embeddings": [[0.1, float("nan")]]}, False),
        ({"embeddings": "x"}, False),
        ({"error": "broken"}, False),
    ],
)
def test_a_model_of_vectors_is_asked_for_one(answer, ok):
    world = ollama(generate=(REFUSAL,), embed=(answer,))
    assert check(world).ok is ok


def test_an_engine_that_is_being_restarted_is_waited_for():
    world = ollama(generate=(LOAD, ExchangeError("closed", "closed"), LOAD, GOOD))
    world.answers["version"] = [GONE, GONE, {"version": "1"}]
    outcome = check(world)
    assert outcome.ok
    assert outcome.message == "at the second try; at the first: closed"
    assert [item[1] for item in world.asked].count("version") == 3


def test_an_engine_that_does_not_come_back_is_waited_for_once():
    world = World(version=[GONE], ps=[GONE])
    session = world.session(wait=30.0)
    first = engines.check_model(session, "a")
    assert "did not come back: connection refused" in first.message
    waited = world.time
    assert 29 < waited < 35
    second = engines.check_model(session, "b")
    assert not second.ok
    assert world.time - waited < 3


def test_a_second_try_that_fails_is_a_failure():
    world = ollama(generate=(ExchangeError("closed", "closed"), Reply(500, b"no memory")))
    outcome = check(world)
    assert not outcome.ok
    assert "no memory" in outcome.message


def test_a_hang_is_not_tried_again():
    world = ollama(generate=(LOAD, ExchangeError("timeout", "no answer within 10 s")))
    assert not check(world).ok
    assert [item[1] for item in world.asked].count("generate") == 2


def test_what_waiting_cannot_help_is_told_at_once():
    world = World(models=[Reply(401, b"no")])
    outcome = engines.check_engine(world.session("openai"))
    assert "status 401" in outcome.message
    assert world.time < 1


def test_waiting_ends():
    world = World(version=[GONE])
    outcome = engines.check_engine(world.session(wait=30.0))
    assert "http://engine:1 doesn't answer after 3" in outcome.message
    assert world.time < 33


def test_a_hanging_engine_is_waited_for_within_limits():
    world = World(version=[ExchangeError("timeout", "no answer")])
    assert not engines.check_engine(world.session(wait=30.0)).ok
    assert world.time < 45


def test_nothing_is_asked_when_the_time_is_over():
    world = ollama()
    outcome = engines.check_model(world.session(end=0.0), "phi3")
    assert "the time for the whole run was over" in outcome.message
    assert world.asked == []


def test_a_call_has_no_more_than_the_rest_of_the_time():
    world = ollama()
    engines.check_model(world.session(end=3.0), "phi3")
    assert all(item[3] <= 3.0 for item in world.asked)


def openai(answer, **paths):
    return World(models=[{"data": [{"id": "m"}]}], completions=[answer], **paths)


def choice(reason="stop", **fields):
    return {"choices": [{"finish_reason": reason, **fields}]}


@pytest.mark.parametrize(
    ("api", "answer", "ok"),
    [
        ("completions", choice(text=" hello"), True),
        ("completions", choice("length", text="hello"), True),
        ("completions", choice("abort", text="hel"), False),
        ("completions", choice(None, text="hel"), False),
        ("completions", choice(text=""), False),
        ("completions", {"choices": []}, False),
        ("completions", {"object": "error", "message": "engine is dead"}, False),
        ("completions", {"error": {"message": "engine is dead"}}, False),
        ("completions", {"error": "engine is dead", **choice(text="hello")}, False),
        ("completions", {"choices": ["hello"]}, False),
        ("chat", choice(message={"content": "hello"}), True),
        ("chat", choice(message={"content": None, "reasoning_content": "hm"}), True),
        ("chat", choice(message={"content": ""}), False),
        ("chat", choice(message="hello"), False),
        ("embeddings", {"data": [{"embedding": [0.5]}]}, True),
        ("embeddings", {"data": [{"embedding": []}]}, False),
        ("embeddings", {"data": []}, False),
    ],
)
def test_answers_of_an_openai_engine(api, answer, ok):
    world = World(completions=[answer], embeddings=[answer])
    outcome = engines.check_model(world.session("openai", api=api), "m")
    assert outcome.ok is ok, outcome
    assert outcome.gpu_ratio is None


def test_the_key_goes_with_every_request():
    world = openai(choice(text="x"))
    session = world.session("openai", key="sk-1")
    assert session.models() == ["m"]
    assert engines.check_model(session, "m").ok
    assert {item[4]["Authorization"] for item in world.asked} == {"Bearer sk-1"}


def test_models_of_the_settings_are_not_listed():
    world = World()
    session = world.session(models=["a", {"name": "b", "digest": "1"}, "a"])
    assert session.models() == ["a", "b"]
    assert world.asked == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"models": []}, "lists no model, so that nothing was tested"),
        ({"models": None}, "answered no list"),
        ({"error": "x"}, "answered no list"),
        ([], "no JSON object"),
    ],
)
def test_an_engine_without_models_has_failed(answer, said):
    with pytest.raises(ExchangeError, match=said):
        World(tags=[answer]).session().models()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"kind": "tgi"}, "engines[0].kind is 'tgi', wanted ollama or openai"),
        ({"name": "a b"}, "engines[0].name is 'a b', wanted letters"),
        ({"url": "llm-01:11434"}, "engines[0].url is 'llm-01:11434', wanted http://host:port"),
        ({"url": "http://user:secret@llm-01"}, "without a login"),
        ({"api": "chat"}, "engines[0].api is 'chat', wanted generate"),
        ({"min_gpu_ratio": 2}, "engines[0].min_gpu_ratio is 2, wanted a number from 0 to 1"),
        ({"min_gpu_ratio": None}, "wanted a number from 0 to 1"),
        ({"models": "phi3"}, "engines[0].models is 'phi3', wanted a list of names"),
        ({"models": [{"digest": "1"}]}, "wanted names, or mappings with a name"),
    ],
)
def test_settings_that_cannot_be_used(entry, said):
    with pytest.raises(session.SettingsError) as refused:
        session.engine_from({"kind": "ollama", "url": "http://h:1", **entry}, "engines[0]")
    assert said in str(refused.value)
