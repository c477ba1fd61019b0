# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Answer
from ansible_collections.hx_infra.llm.plugins.module_utils._inference_check import (
    Wanted,
    check_all,
    check_openai,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import Verdict

FINAL = {
    "done": True,
    "total_duration": 5,
    "prompt_eval_count": 3,
    "prompt_eval_duration": 1,
    "eval_count": 3,
    "eval_duration": 2,
}
PARTS = {"size": 8, "size_vram": 8}


class Server:
    def __init__(self, text="HX-OK", final=None, loaded=None, names=("a:latest",), **state):
        self.text = text
        self.final = FINAL if final is None else final
        self.loaded = PARTS if loaded is None else loaded
        self.names = names
        self.state = {"status": 200, "version": "0.11.4", **state}
        self.asked = []

    def prepare(self, method, path, body, timeout_s):
        self.asked.append(path)
        if path == "/api/generate":
            asked = json.loads(body)
            assert asked["think"] is False
            assert asked["options"]["temperature"] == 0
            if asked["stream"]:
                lines = [{"response": self.text}, {"response": "", **self.final}]
            else:
                lines = [{"response": self.text, **self.final}]
            content = "".join(f"{json.dumps(line)}\n" for line in lines)
            return lambda: Answer(self.state["status"], iter([content.encode()]))
        if path == "/api/ps":
            found = {"models": [{"name": "a:latest", **self.loaded}] if self.loaded else []}
        elif path == "/api/tags":
            found = {"models": [{"name": name} for name in self.names]}
        else:
            found = {"version": self.state["version"]}
        return lambda: Answer(200, iter([json.dumps(found).encode()]))


def check(server, **wanted):
    verdicts, answers = check_all(
        Wanted(**{"models": ["a"], **wanted}), server.prepare, lambda: 0.0
    )
    return {verdict.check: verdict for verdict in verdicts}, answers


def test_a_host_that_does_what_it_shall_passes_each_check():
    server = Server()
    verdicts, answers = check(server, version="0.11.4", catalog=["a"])
    assert {name: verdict.status for name, verdict in verdicts.items()} == dict.fromkeys(
        [
            "api_version",
            "catalog",
            "answer_stream",
            "final_metrics_stream",
            "answer_non_stream",
            "final_metrics_non_stream",
            "gpu_used",
        ],
        "PASS",
    )
    assert [(answer["mode"], answer["text"]) for answer in answers] == [
        ("stream", "HX-OK"),
        ("non_stream", "HX-OK"),
    ]
    assert server.asked[-1] == "/api/ps"  # while the model is still loaded


@pytest.mark.parametrize(
    ("server", "name", "value", "evidence"),
    [
        (Server(text="I cannot"), "answer_stream", "I cannot", "answered"),
        (Server(final={"done": True}), "final_metrics_stream", None, "lacks"),
        (Server(final={}), "answer_stream", None, "truncated"),
        (Server(status=500), "answer_non_stream", None, "http_5xx"),
        (Server(version="0.12.0"), "api_version", "0.12.0", "/api/version"),
        (Server(loaded={"size": 8, "size_vram": 4}), "gpu_used", 0.5, "size_vram 4 of 8 B"),
        (Server(loaded={"size": 8}), "gpu_used", 0.0, "size_vram 0 of 8 B"),
        (Server(loaded={}), "gpu_used", None, "does not list"),
        (
            Server(names=["b:1b"]),
            "catalog",
            ["b:1b"],
            "missing: a:latest; not declared: b:1b",
        ),
    ],
)
def test_what_is_wrong_fails_its_check(server, name, value, evidence):
    verdicts, _rest = check(server, version="0.11.4", catalog=["a"])
    assert verdicts[name].status == "FAIL"
    assert evidence in verdicts[name].evidence
    if value is not None:
        assert verdicts[name].value == value


def test_a_further_model_is_no_failure_where_it_is_allowed():
    server = Server(names=["a:latest", "b:1b"])
    assert check(server, catalog=["a"])[0]["catalog"].status == "FAIL"
    verdict = check(server, catalog=["a"], exclusive=False)[0]["catalog"]
    assert (verdict.status, verdict.evidence) == ("PASS", "not declared: b:1b")
    assert check(server, catalog=["c"], exclusive=False)[0]["catalog"].status == "FAIL"


def test_the_kept_version_of_a_declared_model_is_no_further_model():
    server = Server(names=["a:latest", "a:latest-hx-previous"])
    assert check(server, catalog=["a"])[0]["catalog"].status == "PASS"
    server = Server(names=["a:latest", "b:1b-hx-previous"])
    assert check(server, catalog=["a"])[0]["catalog"].status == "FAIL"


def test_sizes_that_tell_nothing_are_a_warning():
    verdicts, _rest = check(Server(loaded={"size": 8, "size_vram": 9}))
    assert verdicts["gpu_used"].status == "WARN"


def test_what_is_not_wanted_is_not_judged():
    server = Server(loaded={"size": 8, "size_vram": 2})
    assert check(server, gpu_ratio=0.25)[0]["gpu_used"].status == "PASS"
    verdicts, _rest = check(server, gpu_ratio=0, modes=["stream"])
    assert set(verdicts) == {"api_version", "answer_stream", "final_metrics_stream"}


def test_a_server_that_is_not_there_fails_everything_and_raises_nothing():
    def prepare(*_):
        raise ConnectionRefusedError("connection refused")

    wanted = Wanted(models=["a"], catalog=["a"])
    verdicts, answers = check_all(wanted, prepare, lambda: 0.0)
    assert {verdict.status for verdict in verdicts} == {"FAIL"}
    assert all("refused" in verdict.evidence for verdict in verdicts)
    assert answers[0]["error_kind"] == "connection"


class Lookout:
    """Watches nothing, and notes which models it was asked about."""

    def __init__(self):
        self.watched = []

    def watch(self, model):
        self.watched.append(model)
        return Verdict("gpu_used", "PASS", model, 1.0, 1.0, "", "watched")


def test_a_model_that_answers_is_watched():
    server, lookout = Server(), Lookout()
    verdicts, _answers = check_all(Wanted(models=["a"]), server.prepare, lambda: 0.0, lookout)
    assert lookout.watched == ["a"]
    assert verdicts[-1].evidence == "watched"
    assert "/api/ps" not in server.asked


@pytest.mark.parametrize("server", [Server(status=500), Server(final={})])
def test_a_model_that_does_not_answer_is_not_kept_at_work(server):
    lookout = Lookout()
    verdicts, _answers = check_all(Wanted(models=["a"]), server.prepare, lambda: 0.0, lookout)
    assert lookout.watched == []
    assert verdicts[-1].check == "gpu_used"


def test_nobody_watches_where_placement_is_not_judged():
    lookout = Lookout()
    check_all(Wanted(models=["a"], gpu_ratio=0), Server().prepare, lambda: 0.0, lookout)
    assert lookout.watched == []


METRICS = b'vllm:cache_config_info{gpu_memory_utilization="0.9",num_gpu_blocks="100"} 1.0\n'


def vllm(models=("m",), text="Hello"):
    """A server of vLLM, as a transport."""
    choice = {"text": text, "finish_reason": "length"}

    def prepare(_method, path, body, _timeout_s):
        if path == "/v1/models":
            content = json.dumps({"data": [{"id": name} for name in models]}).encode()
        elif path == "/metrics":
            content = METRICS
        elif json.loads(body)["stream"]:
            content = f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n".encode()
        else:
            content = json.dumps({"choices": [choice], "usage": {"completion_tokens": 2}}).encode()
        return lambda: Answer(200, iter([content]))

    return prepare


def test_vllm_is_asked_in_its_own_way():
    verdicts, answers = check_openai(Wanted(models=["m"]), vllm())
    assert {verdict.check: verdict.status for verdict in verdicts} == dict.fromkeys(
        ["endpoint_ready", "model_listed", "answer_non_stream", "answer_stream", "gpu_used"], "PASS"
    )
    assert "100 blocks of GPU cache" in verdicts[-1].evidence
    assert [(answer["model"], answer["mode"], answer["error"]) for answer in answers] == [
        ("m", "non_stream", ""),
        ("m", "stream", ""),
    ]


def test_only_models_of_vllm_that_answer_are_watched():
    lookout = Lookout()
    verdicts, answers = check_openai(Wanted(models=["m", "other"]), vllm(), lookout)
    assert lookout.watched == ["m"]
    assert [verdict.check for verdict in verdicts if verdict.status == "FAIL"] == ["model_listed"]
    assert [verdict.subject for verdict in verdicts if verdict.check == "gpu_used"] == ["m"]
    assert answers[-1]["error_kind"] == "endpoint"
    verdicts, _answers = check_openai(Wanted(models=["m"], gpu_ratio=0), vllm(), lookout)
    assert "gpu_used" not in [verdict.check for verdict in verdicts]
