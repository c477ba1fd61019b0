# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import threading

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_load as bench
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Answer

FINAL = json.dumps({"response": "x", "done": True, "eval_count": 4, "eval_duration": 10**8})


class Server:
    """Answers at once; time passes only by requests."""

    def __init__(self, status=None, seconds=1.0):
        self.status = status or (lambda number: 200)
        self.seconds = seconds
        self.now = 0.0
        self.prompts = []
        self.models = []
        self.busy = self.most = 0
        self.lock = threading.Lock()

    def clock(self):
        return self.now

    def prepare(self, method, path, body, timeout_s):
        if path == "/api/ps":
            state = {"models": [{"name": "a:latest", "size": 8, "size_vram": 4}]}
            return lambda: Answer(200, iter([json.dumps(state).encode()]))
        request = json.loads(body)

        def send():
            with self.lock:
                self.prompts.append(request["prompt"])
                self.models.append(request["model"])
                self.busy += 1
                self.most = max(self.most, self.busy)
                self.now += self.seconds
                status = self.status(len(self.prompts))
            threading.Event().wait(0.01)
            with self.lock:
                self.busy -= 1
            return Answer(status, iter([FINAL.encode()]))

        return send

    def tools(self, tell=lambda *_: None):
        return bench.Tools(self.prepare, self.clock, lambda: "now", tell)


def load(**more):
    return bench.Load(**{"prompts": ["{nonce} why?"], "run_id": "r", **more})


def test_models_are_measured_one_after_the_other_after_their_warmup():
    server = Server()
    first, second = bench.run_load(["a", "b"], load(iterations=3, warmup=2), server.tools())
    assert server.models == ["a"] * 5 + ["b"] * 5
    assert [sample.iteration for sample in first.samples] == [1, 2, 3]
    assert (len(first.warmup), first.not_sent, first.gpu_ratio) == (2, 0, 0.5)
    assert first.wall_s == pytest.approx(3)
    assert (second.model, second.gpu_ratio) == ("b", None)


def test_no_two_requests_share_a_beginning():
    server = Server()
    prompts = ["{nonce} why?", "Plain question"]
    bench.run_load(["a", "b"], load(prompts=prompts, iterations=4), server.tools())
    assert len({prompt[:20] for prompt in server.prompts}) == 10
    assert any(prompt.endswith("Plain question") for prompt in server.prompts)


def test_clients_work_at_the_same_time_and_send_each_number_once():
    server = Server()
    (measured,) = bench.run_load(["a"], load(iterations=12, concurrency=4), server.tools())
    assert server.most > 1
    assert [sample.iteration for sample in measured.samples] == list(range(1, 13))


def test_no_request_starts_after_the_end():
    server = Server(seconds=10)
    load_ = load(iterations=5, warmup=1, max_duration_s=30)
    first, second = bench.run_load(["a", "b"], load_, server.tools())
    assert (len(first.samples), first.not_sent) == (2, 3)
    assert (len(second.samples), len(second.warmup), second.not_sent) == (0, 0, 5)


def test_a_model_that_cannot_be_warmed_up_is_not_measured():
    server = Server(status=lambda number: 500)
    (measured,) = bench.run_load(["a"], load(iterations=5), server.tools())
    assert (len(server.prompts), measured.not_sent) == (1, 5)
    assert measured.warmup[0].error_kind == "http_5xx"


def test_an_error_while_measuring_does_not_stop_the_others():
    server = Server(status=lambda number: 500 if number == 3 else 200)
    (measured,) = bench.run_load(["a"], load(iterations=4), server.tools())
    assert [sample.error_kind for sample in measured.samples] == ["", "http_5xx", "", ""]


def test_progress_names_model_phase_and_the_last_figures():
    told = []
    server = Server()
    bench.run_load(["a"], load(iterations=2), server.tools(lambda *line: told.append(line)))
    assert told[0] == ("a", "warming up", 0, 1, "")
    assert told[1] == ("a", "measuring", 0, 2, "")
    assert told[-1][:4] == ("a", "measuring", 2, 2)
    assert "40.0 tokens/s" in told[-1][4]


@pytest.mark.parametrize(
    ("entry", "ratio"),
    [
        ({"size": 8, "size_vram": 8}, 1.0),
        ({"size": 8, "size_vram": 2}, 0.25),
        ({"size": 8}, 0.0),
        ({"size": 0, "size_vram": 0}, None),
        ({"size": 8, "size_vram": 9}, None),
    ],
)
def test_loaded_ratio(entry, ratio):
    state = {"models": [{"name": "a:latest", **entry}]}
    assert bench.loaded_ratio(state, "a") == ratio
    assert bench.loaded_ratio(state, "b") is None


@pytest.mark.parametrize("state", [None, [], {}, {"models": None}])
def test_a_strange_answer_says_nothing(state):
    assert bench.loaded_ratio(state, "a") is None


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("phi3", "phi3:latest"),
        ("phi3:3b", "phi3:3b"),
        ("registry:5000/library/phi3", "registry:5000/library/phi3:latest"),
    ],
)
def test_canonical(name, full):
    assert bench.canonical(name) == full
