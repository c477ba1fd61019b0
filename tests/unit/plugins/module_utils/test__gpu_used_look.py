# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a model is kept at work, on a clock that only moves with its tokens."""

from __future__ import annotations

import socket

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_used_look
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Answer
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used import (
    Claim,
    Limits,
    Owners,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used_engines import Engine
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used_look import Looking, Lookout

GB = 10**9
BUSY = {
    "index": 0,
    "util_percent": 90.0,
    "memory_used_bytes": 2 * GB,
    "memory_total_bytes": 8 * GB,
    "processes": [{"pid": 9, "type": "C", "name": "ollama", "memory_bytes": 2 * GB}],
}
IDLE = {**BUSY, "util_percent": 0.0, "memory_used_bytes": 0, "processes": []}


class World:
    """A clock, an engine whose every token takes a tenth of a second, and a sampler."""

    def __init__(self):
        self.now = 100.0
        self.token_s = 0.1
        self.tokens = 1000  # per answer
        self.status = 200
        self.fails_after = None
        self.state = "nvml"
        self.card = BUSY
        self.card_after = {}  # by seconds of the generation
        self.missed = ""
        self.from_s = 0.0  # of the generation, when the sampler gives its first reading
        self.claim = Claim(1.0, "all of it", 2 * GB)
        self.requests = 0
        self.claims_at = []
        self.closed = 0
        self.started = self.stopped = 0
        self._lines = []

    def clock(self):
        return self.now

    def prepare(self, _method, _path, _body, timeout_s):
        end = self.now + timeout_s
        self.requests += 1

        def chunks():
            for number in range(self.tokens):
                if self.fails_after is not None and number >= self.fails_after:
                    raise ConnectionResetError("reset by peer")
                if self.now + self.token_s > end:
                    self.now = end
                    raise socket.timeout("timed out")
                self.now += self.token_s
                self.read_the_cards()
                yield b'{"response":"one"}\n' if self.status == 200 else b"busy\n"

        def close():
            self.closed += 1

        return lambda: Answer(self.status, chunks(), close)

    def read_the_cards(self):
        if self.now - 100.0 < self.from_s:
            return
        for after, card in self.card_after.items():
            if self.now - 100.0 >= after:
                self.card = card
        if self.missed:
            self._lines.append({"at": self.now, "missed": "gpu", "why": self.missed})
        elif self.card:
            self._lines.append({"at": self.now, "gpu": [self.card]})

    # what a sampler has

    def start(self):
        self.started += 1

    def stop(self):
        self.stopped += 1

    def lines(self, offset):
        return self._lines[offset:], len(self._lines)

    def state_of(self, _source):
        return self.state


@pytest.fixture
def world(monkeypatch):
    made = World()
    sampler = type("Sampler", (), {})()
    sampler.start, sampler.stop, sampler.lines = made.start, made.stop, made.lines
    sampler.state = made.state_of
    monkeypatch.setattr(_gpu_used_look, "Sampler", lambda _watch: sampler)
    owners = Owners(frozenset({9}), True, ("ollama",))
    monkeypatch.setattr(_gpu_used_look, "owners_of", lambda *_: owners)
    return made


def watch(world, *models, seconds=10.0, limits=None, url="http://127.0.0.1:1", before=None):
    def claim(_prepare, _model, _timeout_s):
        world.claims_at.append(round(world.now - 100.0, 3))
        return world.claim

    engine = Engine("/generate", lambda model: model.encode(), claim, ("ollama",), ("ollama",))
    looking = Looking(url, seconds, limits or Limits(1.0, declared=True))
    with Lookout(looking, engine, world.prepare, world.clock) as lookout:
        verdicts = []
        for model in models or ["m"]:
            if before:
                before(model)
            verdicts.append(lookout.watch(model))
    assert world.stopped == 1
    assert world.closed == world.requests
    return verdicts if models else verdicts[0], lookout.figures


def test_an_answer_is_cut_off_as_soon_as_all_agree(world):
    verdict, [figures] = watch(world)
    assert (verdict.status, verdict.value) == ("PASS", 1.0)
    assert world.requests == 1
    assert 1.0 < world.now - 100.0 < 1.5  # a second that doesn't count, and one reading
    assert world.claims_at == [0.1]  # with the first token, while the model is at work
    assert figures["samples"] >= 1
    assert figures["gpus"][0]["busy_percent"] == 90.0


def test_what_a_card_shows_in_the_first_second_may_be_of_the_model_before(world):
    world.card_after = {0.9: {**BUSY, "util_percent": 0.0}}
    verdict, _figures = watch(world, seconds=3.0)
    assert (verdict.status, verdict.value) == ("FAIL", 0.0)
    assert "a GPU was at most 0 % busy in " in verdict.evidence


def test_a_late_reading_is_waited_for(world):
    world.from_s = 4.0
    verdict, _figures = watch(world)
    assert verdict.status == "PASS"
    assert 4.0 <= world.now - 100.0 < 4.5


def test_a_model_that_has_little_to_say_is_asked_again(world):
    world.from_s, world.tokens = 4.0, 5
    verdict, _figures = watch(world)
    assert verdict.status == "PASS"
    assert world.requests > 5


def test_an_idle_card_costs_the_time_that_was_set_and_no_more(world):
    world.card = IDLE
    verdict, [figures] = watch(world, seconds=3.0)
    assert (verdict.status, verdict.value) == ("FAIL", 0.0)
    assert "no process of the engine is on a GPU" in verdict.evidence
    assert world.now - 100.0 == pytest.approx(3.0)
    assert figures["seconds"] > 2.0


def test_an_engine_that_says_cpu_needs_one_reading_as_evidence(world):
    world.claim, world.card = Claim(0.0, "nothing of it", 0), IDLE
    verdict, _figures = watch(world)
    assert (verdict.status, verdict.value) == ("FAIL", 0.0)
    assert verdict.evidence == "nothing of it; GPU 0: 0 % busy, no process, 0 B of 8.00 GB used"
    assert world.now - 100.0 < 0.5


def test_a_driver_that_hangs_costs_its_time_once_and_no_answer(world):
    world.card = None
    verdicts, figures = watch(world, "a", "b", "c", seconds=3.0)
    assert [verdict.status for verdict in verdicts] == ["FAIL"] * 3
    assert all("nvml gave no reading within 3 s" in verdict.evidence for verdict in verdicts)
    assert world.now - 100.0 == pytest.approx(3.0)
    assert world.requests == 1
    assert [one["samples"] for one in figures] == [0, 0, 0]


def test_a_driver_that_hangs_in_the_middle_is_no_pass(world):
    world.card_after = {0.5: None}
    verdict, _figures = watch(world, seconds=4.0)
    assert verdict.status == "FAIL"
    assert "nvml gave no reading within 4 s; GPUs are expected and have to be" in verdict.evidence


def test_a_driver_that_answers_again_is_looked_at_again(world):
    world.card = None

    def before(model):
        if model == "c":
            world.card = BUSY
            world.read_the_cards()  # while the model gives its known answers

    verdicts, _figures = watch(world, "a", "b", "c", seconds=4.0, before=before)
    assert [verdict.status for verdict in verdicts] == ["FAIL", "FAIL", "PASS"]
    assert world.requests == 2


def test_a_model_that_is_too_slow_is_no_reason_to_look_away_from_the_next(world):
    world.token_s = 2.5
    first, second = watch(world, "a", "b", seconds=3.0)[0]
    assert first.status == second.status == "WARN"
    assert "not known: it generated too late or too briefly to tell" in first.evidence
    assert world.requests == 2


def test_readings_that_fail_say_why(world):
    world.missed = "nvidia-smi did not answer within 5 s"
    verdict, _figures = watch(world, seconds=2.0)
    assert verdict.status == "FAIL"
    assert world.missed in verdict.evidence


def test_nothing_is_generated_where_the_cards_cannot_be_read(world):
    world.state = "none: NVML: Driver Not Loaded; nvidia-smi is not installed"
    verdict, _figures = watch(world)
    assert verdict.status == "FAIL"
    assert "not known: NVML: Driver Not Loaded; nvidia-smi is not" in verdict.evidence
    assert world.requests == 0
    assert world.claims_at == [0.0]
    verdict, _figures = watch_again(world, limits=Limits(1.0, declared=False))
    assert verdict.status == "PASS"


def watch_again(world, **more):
    world.stopped = 0
    return watch(world, **more)


def test_the_cards_of_another_host_are_not_watched(world):
    verdict, _figures = watch(world, url="http://192.0.2.1:11434")
    assert world.started == 0
    assert "the engine at 192.0.2.1 is not on this host" in verdict.evidence


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"status": 500}, "the generation failed with status 500: busy"),
        ({"tokens": 0}, "the generation is empty, with status 200"),
        ({"fails_after": 0}, "the generation broke off: reset by peer"),
    ],
)
def test_a_generation_that_fails_is_no_reading_and_ends_at_once(world, fields, why):
    for name, value in fields.items():
        setattr(world, name, value)
    world.card = None
    verdict, _figures = watch(world)
    assert verdict.status == "WARN"
    assert why in verdict.evidence
    assert world.requests == 1
    assert len(world.claims_at) == 1


def test_an_engine_that_is_silent_until_the_time_is_over(world):
    world.token_s = 20.0
    verdict, _figures = watch(world, seconds=3.0)
    assert "no token came within 3 s" in verdict.evidence
    assert world.now - 100.0 == pytest.approx(3.0)


def test_one_models_failure_says_nothing_about_the_next(world):
    world.status = 500
    verdicts, _figures = watch(world, "a", "b")
    assert world.requests == 2
    assert {verdict.status for verdict in verdicts} == {"WARN"}


def test_an_error_inside_of_an_answer_ends_it(world):
    def chunks():
        yield b'{"error":"CUDA error: device lost"}\n'

    world.prepare = lambda *_: lambda: Answer(200, chunks(), lambda: None)
    verdict, _figures = watch(world)
    assert 'status 200: {"error":"CUDA error: device lost"}' in verdict.evidence
