# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a model is kept at work, on a clock that only moves with its tokens; what it needs."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import nightly_engines as engines
import nightly_gpu as gpu
import nightly_session as session
import pytest
import yaml
from nightly_http import ExchangeError, Reply

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_used_engines
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used import Claim

GB = 10**9
ROLE = Path(gpu.__file__).parents[1]
CLAIM = Claim(1.0, "all of it", 2 * GB)
ASKED = {"model": "m", "stream": False, "keep_alive": "60s"}
BUSY = {
    "index": 0,
    "util_percent": 90.0,
    "memory_used_bytes": 2 * GB,
    "memory_total_bytes": 8 * GB,
    "processes": [{"pid": 9, "type": "C", "name": "/usr/bin/ollama", "memory_bytes": 2 * GB}],
}
IDLE = {**BUSY, "util_percent": 0.0}


class World:
    """A clock, an engine whose every token takes a tenth of a second, and what reads the cards."""

    def __init__(self):
        self.now = 100.0
        self.tokens = 1000  # per answer
        self.token_s = 0.1
        self.breaks = {}  # what an answer breaks off with, by tokens
        self.card = BUSY
        self.card_after = {}  # by seconds of the generation
        self.why = ""
        self.asked = []
        self.readers = self.ended = 0
        self._lines = []

    # what a session needs

    def send(self, method, url, body, headers, *, timeout_s, ca_path, take):
        self.asked.append(body.decode())
        end = self.now + timeout_s
        for number in range(self.tokens):
            if number in self.breaks:
                raise self.breaks[number]
            if self.now + self.token_s > end:
                self.now = end
                raise ExchangeError("timeout", "no answer in time")
            self.now += self.token_s
            self._sample()
            if take(b'{"response":"one"}\n'):
                break
        return Reply(200)

    def _sample(self):
        for after, card in self.card_after.items():
            if self.now - 100.0 >= after:
                self.card = card
        if self.card:
            self._lines.append({"at": self.now, "gpu": [self.card]})

    # what reads the cards

    def __call__(self, _python, _limit_s):
        self.readers += 1
        return self

    def __enter__(self):
        self._lines = []
        return self

    def __exit__(self, *_raised):
        self.ended += 1

    def lines(self):
        return self._lines

    def unreadable(self):
        return self.why


@pytest.fixture
def world():
    return World()


def look(world, *, seconds=10.0, declared=True, end=10_000.0, url="http://127.0.0.1:1", again=0):
    entry = {"kind": "ollama", "url": url}
    talks = session.Session(
        session.engine_from(entry, "engines[0]"),
        "",
        session.Limits(),
        end,
        send=world.send,
        now=lambda: world.now,
    )
    cards = gpu.Cards(gpu.Watching("/venv/bin/python", declared, seconds), world)
    verdicts = [cards.look(talks, ASKED, CLAIM) for _turn in range(1 + again)]
    assert world.readers == world.ended
    return verdicts if again else verdicts[0]


def took(world):
    return pytest.approx(world.now - 100.0)


def test_an_answer_is_cut_off_as_soon_as_all_agree(world):
    verdict = look(world)
    assert (verdict.status, verdict.value) == ("PASS", 1.0)
    assert verdict.evidence == "all of it; GPU 0: 90 % busy, ollama (pid 9) holds 2.00 GB"
    assert 1.0 < world.now - 100.0 < 1.5
    [body] = world.asked
    for said in ('"stream": true', '"keep_alive": "60s"', '"num_predict": 1024', '"think": false'):
        assert said in body


def test_what_a_card_shows_in_the_first_second_may_be_of_the_model_before(world):
    world.card_after = {1.0: IDLE}
    verdict = look(world)
    assert (verdict.status, verdict.value) == ("FAIL", 0.0)
    assert "a GPU was at most 0 % busy in " in verdict.evidence


def test_an_idle_card_costs_the_time_that_was_set_and_no_more(world):
    world.card = {**IDLE, "memory_used_bytes": 0, "processes": []}
    verdict = look(world, seconds=3.0)
    assert verdict.status == "FAIL"
    assert verdict.evidence.startswith("the engine says all of it, but no process of the engine")
    assert took(world) == 3.0


def test_a_model_that_has_little_to_say_is_asked_again(world):
    world.tokens, world.card_after = 5, {0.0: IDLE, 2.0: BUSY}
    assert look(world).status == "PASS"
    assert 4 <= len(world.asked) <= 6


def test_the_end_of_the_time_is_none_of_a_model_between_two_answers(world):
    world.tokens, world.card = 9, IDLE
    assert look(world, seconds=3.6 + 0.05).status == "FAIL"  # the fifth answer has no time
    assert took(world) == 3.65


@pytest.mark.parametrize(("declared", "status"), [(True, "FAIL"), (False, "PASS")])
def test_a_driver_that_hangs_costs_its_time_once(world, declared, status):
    world.card = None
    verdicts = look(world, seconds=3.0, declared=declared, again=2)
    assert {verdict.status for verdict in verdicts} == {status}
    for verdict in verdicts:
        assert "is not known: no reading came within 3 s" in verdict.evidence
        assert ("GPUs are declared" in verdict.evidence) is declared
        assert verdict.value == 1.0
    assert (world.readers, len(world.asked), took(world)) == (1, 1, 3.0)


def test_a_driver_that_hangs_in_the_middle_costs_its_time_once_too(world):
    world.card_after = {0.5: None}
    verdicts = look(world, seconds=3.0, again=1)
    for verdict in verdicts:
        assert "is not known: no reading came within 3 s" in verdict.evidence
    assert (world.readers, took(world)) == (1, 3.0)


def test_nothing_is_generated_where_the_cards_cannot_be_read(world):
    world.why = "NVML: Driver Not Loaded; nvidia-smi is not installed"
    verdicts = look(world, again=1)
    assert all(world.why in verdict.evidence for verdict in verdicts)
    assert (world.readers, world.asked) == (1, [])


def test_the_cards_of_another_host_are_not_watched_and_no_failure(world):
    verdict = look(world, url="http://192.0.2.1:11434")
    assert verdict.status == "PASS"
    assert "the engine at 192.0.2.1 is not on this host" in verdict.evidence
    assert world.readers == 0


def test_a_doubt_is_told_and_no_failure(world):
    world.card = {**BUSY, "util_percent": None, "processes": None}
    verdict = look(world, seconds=3.0)
    assert verdict.status == "WARN"
    assert "the cards tell neither processes nor utilisation" in verdict.evidence


def test_the_time_of_the_whole_run_ends_a_look(world):
    world.card = IDLE
    look(world, seconds=10.0, end=104.0)
    assert took(world) == 4.0


def test_nothing_is_watched_when_too_little_is_left(world):
    with pytest.raises(ExchangeError, match="not watched: the time for the whole run was over"):
        look(world, end=102.0)
    assert (world.readers, world.asked) == (0, [])


def test_one_model_that_is_slow_says_nothing_about_the_next(world):
    world.token_s = 2.5
    first, second = look(world, seconds=3.0, again=1)
    assert first.status == second.status == "FAIL"
    assert "not known: it generated too late or too briefly" in first.evidence
    assert (world.readers, len(world.asked)) == (2, 2)


@pytest.mark.parametrize(
    ("fields", "kind", "said"),
    [
        ({"token_s": 20.0}, "timeout", "no token came within 3 s"),
        ({"tokens": 0}, "answer", "the answer is empty"),
        ({"breaks": {3: ExchangeError("closed", "it was closed")}}, "closed", "it was closed"),
    ],
)
def test_a_generation_that_fails_is_told_and_the_reader_ends(world, fields, kind, said):
    for name, value in fields.items():
        setattr(world, name, value)
    with pytest.raises(ExchangeError, match=f"while the GPUs were watched: {said}") as trouble:
        look(world, seconds=3.0)
    assert trouble.value.kind == kind  # an engine that is being restarted is waited for
    assert world.readers == world.ended == 1


def test_an_error_inside_of_an_answer_is_one():
    talk = gpu._Talk(lambda: 0.0, list, lambda _seen: None)
    with pytest.raises(ExchangeError, match=r"status 200: .*CUDA error"):
        talk.take(b'{"error":"CUDA error"}\n')


def test_programs_and_prompt_are_those_of_the_validation():
    assert _gpu_used_engines.OLLAMA.names == gpu.OWNERS.names
    assert _gpu_used_engines.VLLM.names == gpu.VLLM_OWNERS.names
    found = gpu.long_question(entry("ollama"), {"model": "m"})
    wanted = json.loads(_gpu_used_engines.OLLAMA.body("m"))
    assert found["prompt"] == wanted["prompt"]
    assert found["options"]["num_predict"] == wanted["options"]["num_predict"]
    found = gpu.long_question(entry("openai"), {"model": "m"})
    assert found == json.loads(_gpu_used_engines.VLLM.body("m"))
    chat = gpu.long_question(entry("openai", api="chat"), {"model": "m"})
    assert chat.pop("messages") == [{"role": "user", "content": found.pop("prompt")}]
    assert chat == found


def entry(kind, **more):
    return session.engine_from({"kind": kind, "url": "http://e:1", **more}, "engines[0]")


class Gone:
    """Cards for which the engine is away at the first look."""

    def __init__(self, verdict):
        self.turns = [ExchangeError("closed", "gone"), verdict]

    def look(self, _session, asked, claim):
        self.asked, self.claim = asked, claim
        turn = self.turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        return turn


def checked(cards, kind="ollama", metrics=(200, b""), **more):
    """Check a model of an engine that answers everything as it should."""
    loaded = [{"name": name, "size": 100, "size_vram": 100} for name in ("m:latest", "other:1b")]
    answers = {
        "/api/version": b'{"version": "1"}',
        "/api/ps": str({"models": loaded}).replace("'", '"').encode(),
        "/api/generate": b'{"response": "x", "done": true}',
        "/v1/completions": b'{"choices": [{"text": "x", "finish_reason": "stop"}]}',
        "/v1/embeddings": b'{"data": [{"embedding": [0.5]}]}',
    }

    def send(_method, url, *_body, **_more):
        path = url.removeprefix("http://e:1")
        return Reply(*metrics) if path == "/metrics" else Reply(200, answers[path])

    engine = entry(kind, **more)
    talks = session.Session(engine, "", session.Limits(), 1e9, send=send, sleep=lambda _s: None)
    return engines.check_model(talks, "m", cards)


def verdict(status, value=1.0):
    return gpu.Verdict("gpu_used", status, "m", value, 1.0, "", "what was seen")


def test_a_model_whose_engine_was_restarted_is_watched_again():
    cards = Gone(verdict("PASS"))
    outcome = checked(cards)
    assert (outcome.ok, outcome.cards) == (True, "what was seen")
    assert "at the second try; at the first: gone" in outcome.message
    assert cards.asked["model"] == "m"
    assert "prompt" not in cards.asked
    assert (cards.claim.ratio, cards.claim.held_bytes) == (1.0, 200)


@pytest.mark.parametrize(
    ("found", "ok", "ratio", "message"),
    [
        (verdict("PASS"), True, 1.0, ""),
        (verdict("WARN"), True, 1.0, ""),
        (verdict("FAIL", 0.0), False, 0.0, "what was seen"),
        (verdict("FAIL", 1.0), False, 1.0, "what was seen"),
    ],
)
def test_what_the_cards_show_decides(found, ok, ratio, message):
    cards = Gone(found)
    del cards.turns[0]
    outcome = checked(cards)
    assert (outcome.ok, outcome.gpu_ratio, outcome.message) == (ok, ratio, message)


def test_who_is_not_asked_is_told():
    assert checked(None).cards == "by /api/ps alone, the GPUs were not asked"
    assert checked(None, "openai").cards == ""
    told = checked(None, "openai", (200, ON_GPU), min_gpu_ratio=1)
    assert (told.ok, told.gpu_ratio) == (True, 1.0)
    assert told.cards == "by /metrics alone, the GPUs were not asked"
    told = checked(Gone(None), "openai", (200, ON_GPU), min_gpu_ratio=1, api="embeddings")
    assert told.cards.endswith("the GPUs were not asked: it makes no text that lasts long enough")


ON_GPU = b'vllm:cache_config_info{gpu_memory_utilization="0.9",num_gpu_blocks="100"} 1.0\n'
ON_CPU = b'vllm:cache_config_info{cpu_kvcache_space_bytes="4294967296",num_gpu_blocks="9"} 1.0\n'


@pytest.mark.parametrize(
    ("found", "ok", "ratio"), [(verdict("PASS"), True, 1.0), (verdict("FAIL", 0.0), False, 0.0)]
)
def test_vllm_is_held_against_the_cards_too(found, ok, ratio):
    cards = Gone(found)
    del cards.turns[0]
    outcome = checked(cards, "openai", (200, ON_GPU), min_gpu_ratio=1)
    assert (outcome.ok, outcome.gpu_ratio) == (ok, ratio)
    assert (outcome.message, outcome.cards) == (
        ("", "what was seen") if ok else ("what was seen", "")
    )
    assert cards.asked == {"model": "m"}
    assert (cards.claim.ratio, cards.claim.reserved_ratio) == (1.0, 0.9)


def test_vllm_that_says_cpu_needs_no_look():
    outcome = checked(Gone(None), "openai", (200, ON_CPU), min_gpu_ratio=1)
    assert (outcome.ok, outcome.gpu_ratio) == (False, 0.0)
    said = "4.29 GB of cache in main memory, by vllm:cache_config_info (0% on the GPU), wanted 100%"
    assert outcome.message == f"{said}: the CPU computes it"
    assert checked(Gone(None), "openai", (200, ON_CPU)).ok  # it may, where no GPU is declared


@pytest.mark.parametrize("metrics", [(404, b"not found"), (200, b"")])
def test_vllm_whose_metrics_tell_nothing_has_to_be_seen_on_the_cards(metrics):
    outcome = checked(None, "openai", metrics, min_gpu_ratio=1)
    assert not outcome.ok
    assert "is not known: /metrics answered status 404" in outcome.message or (
        outcome.message
        == "GET /metrics has no vllm:cache_config_info, so nobody knows what computed the answer"
    )
    cards = Gone(verdict("PASS"))
    del cards.turns[0]
    outcome = checked(cards, "openai", metrics, min_gpu_ratio=1)
    assert outcome.ok is (metrics[0] == 200)
    assert outcome.gpu_ratio is None  # the engine gave no figure


def test_a_child_that_cannot_be_started_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with gpu.Sampler(str(tmp_path / "python"), 10.0) as sampler:
        why = sampler.unreadable()
    assert why == f"{tmp_path}/python: No such file or directory; nvidia-smi is not installed"
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nread -r line; exit 7\n")
    broken.chmod(0o755)
    with gpu.Sampler(str(broken), 10.0) as sampler:
        assert sampler.unreadable() == "what reads the GPUs ended with status 7"


def test_all_that_is_imported_is_installed():
    found = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
    programs = {path.name for path in (ROLE / "files").glob("*.py")}
    assert set(found["__nightly_smoke_programs"]) == programs
    judgement = set(found["__nightly_smoke_judgement"])
    utils = gpu.PROGRAMS
    assert {gpu.CHILD.name, gpu.READERS.name} <= judgement
    wanted = programs | judgement
    for path in [*(ROLE / "files").glob("*.py"), *(utils / name for name in judgement)]:
        for module in imported(path):
            name = module.rpartition(".")[2]
            known = f"{name}.py" in wanted or module.partition(".")[0] in sys.stdlib_module_names
            assert known or module == "pynvml", f"{path.name} imports {module}"


def imported(path):
    """Return the modules that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module.endswith("module_utils"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
