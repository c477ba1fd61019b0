# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine's word against what the cards show: every combination, and how it is put in words."""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used import (
    NO,
    NOT_SEEN,
    NOT_TOLD,
    YES,
    Card,
    Claim,
    Limits,
    Owners,
    Process,
    Seen,
    amount,
    amounts,
    as_dict,
    describe,
    engine_processes,
    judge_used,
    readings,
    seen_between,
)

GB = 10**9
ENGINE, OTHER = 812, 4711
OWNERS = Owners(frozenset({800, ENGINE}), known=True, names=("ollama", "llama-server"))
ON_GPU = Claim(1.0, "size_vram 1.20 of 1.20 GB in /api/ps", held_bytes=1_200_000_000)
ON_CPU = Claim(0.0, "size_vram 0.00 of 1.20 GB in /api/ps", held_bytes=0)
HALF = Claim(0.5, "size_vram 0.60 of 1.20 GB in /api/ps", held_bytes=600_000_000)
OLLAMA = Process(ENGINE, "/usr/local/bin/ollama", 1_300_000_000)
WORKING = Card(0, 34.0, 1_700_000_000, 12 * GB, (OLLAMA,))
IDLE = Card(0, 0.0, 310_000_000, 12 * GB, ())
SECOND = Card(1, 0.0, 10_000_000, 12 * GB, ())


def seen(*cards, samples=5, lasted_s=1.5):
    return Seen(cards, samples, lasted_s)


def judge(claim, what, ratio=1.0, declared=True, owners=OWNERS):
    return judge_used("m", claim, what, owners, Limits(ratio, declared))


def changed(card, **fields):
    return Card(**{**vars(card), **fields})


PROCESS = {YES: (OLLAMA,), NO: (Process(OTHER, "/usr/bin/blender", 10**6),), NOT_TOLD: None}
MEMORY = {YES: 1_700_000_000, NO: 100_000_000, NOT_TOLD: None}
WORK = {YES: (34.0, 1.5), NO: (5.0, 1.0), NOT_TOLD: (None, 1.5), NOT_SEEN: (5.0, 0.9)}


@pytest.mark.parametrize(("process", "memory", "work"), [*itertools.product(PROCESS, MEMORY, WORK)])
def test_every_combination_of_readings(process, memory, work):
    """One reading against the engine is enough; certain is what some say and none denies."""
    busy, lasted_s = WORK[work]
    listed = PROCESS[process]
    if process == YES and memory != YES:  # what a process holds is a reading of memory too
        held = {NO: 100_000_000, NOT_TOLD: None}[memory]
        listed = (Process(ENGINE, "ollama", held),)
    card = Card(0, busy, MEMORY[memory], 12 * GB, listed)
    what = seen(card, lasted_s=lasted_s)
    found = {name: answer for name, (answer, _text) in readings(ON_GPU, what, OWNERS).items()}
    assert found == {"process": process, "memory": memory, "work": work}
    verdict = judge(ON_GPU, what)
    if NO in (process, memory, work):
        wanted = ("FAIL", 0.0)
    elif work == NOT_SEEN or YES not in (process, work):
        wanted = ("WARN", 1.0)
    else:
        wanted = ("PASS", 1.0)
    assert (verdict.status, verdict.value) == wanted, verdict.evidence


@pytest.mark.parametrize(
    ("claim", "what", "ratio", "status", "value"),
    [
        (ON_GPU, seen(WORKING, SECOND), 1.0, "PASS", 1.0),
        (ON_CPU, seen(IDLE, SECOND), 1.0, "FAIL", 0.0),
        (ON_CPU, Seen(why="Driver Not Loaded"), 1.0, "FAIL", 0.0),
        (ON_CPU, seen(WORKING), 1.0, "FAIL", 0.0),  # the engine knows better
        (ON_GPU, seen(IDLE, SECOND), 1.0, "FAIL", 0.0),
        (HALF, seen(WORKING), 1.0, "FAIL", 0.5),
        (HALF, seen(WORKING), 0.5, "PASS", 0.5),
        (HALF, seen(IDLE), 0.5, "FAIL", 0.0),
        (Claim(0.99996, "all but a rounding", 1), seen(WORKING), 1.0, "PASS", 1.0),
        (Claim(None, "not loaded"), seen(WORKING), 1.0, "FAIL", None),
        (Claim(None, "odd sizes", otherwise="WARN"), seen(WORKING), 1.0, "WARN", None),
        # the claims of all models of the engine against what all its processes hold
        (Claim(1.0, "one of two models", 2_700_000_000), seen(WORKING), 1.0, "FAIL", 0.0),
        # a model over both cards
        (
            Claim(1.0, "spread", 4 * GB),
            seen(WORKING, changed(WORKING, index=1)),
            1.0,
            "PASS",
            1.0,
        ),
        # another program's card, however busy, is not the engine's
        (
            ON_GPU,
            seen(
                changed(WORKING, busy_percent=0.0),
                changed(SECOND, busy_percent=99.0, processes=(Process(OTHER, "x", GB),)),
            ),
            1.0,
            "FAIL",
            0.0,
        ),
        # a bare context of CUDA while the work is done elsewhere
        (
            ON_GPU,
            seen(changed(WORKING, processes=(Process(ENGINE, "ollama", 300_000_000),))),
            1.0,
            "FAIL",
            0.0,
        ),
        # in a container the list is empty, and memory and work have to say it
        (ON_GPU, seen(changed(WORKING, processes=())), 1.0, "PASS", 1.0),
        (ON_GPU, seen(changed(WORKING, processes=(), busy_percent=0.0)), 1.0, "FAIL", 0.0),
        # a card that is gone does no work, and a sick one beside a working one is no pass
        (ON_GPU, seen(changed(WORKING, failed="GPU is lost", lost=True)), 1.0, "FAIL", 0.0),
        (
            ON_GPU,
            seen(changed(WORKING, failed="GPU is lost", lost=True), SECOND),
            1.0,
            "FAIL",
            0.0,
        ),
        (
            ON_GPU,
            seen(WORKING, Card(1, failed="GPU is lost", lost=True)),
            1.0,
            "WARN",
            1.0,
        ),
        (ON_GPU, seen(WORKING, Card(1, failed="Unknown Error")), 1.0, "WARN", 1.0),
    ],
)
def test_judgement(claim, what, ratio, status, value):
    verdict = judge(claim, what, ratio)
    assert (verdict.check, verdict.subject) == ("gpu_used", "m")
    assert (verdict.status, verdict.value, verdict.limit) == (status, value, ratio)


@pytest.mark.parametrize(
    ("declared", "why", "blind", "status"),
    [
        (True, "no driver", True, "FAIL"),
        (False, "no driver", True, "PASS"),
        (True, "no token", False, "WARN"),
        (False, "no token", False, "PASS"),
        (True, "", False, "PASS"),
    ],
)
def test_cards_that_cannot_be_read(declared, why, blind, status):
    verdict = judge(ON_GPU, Seen(why=why, blind=blind), declared=declared)
    assert (verdict.status, verdict.value) == (status, 1.0)
    assert (f"not known: {why}" in verdict.evidence) == bool(why)
    assert ("expected and have to be readable" in verdict.evidence) == (status == "FAIL")


def test_vllm_has_to_hold_half_of_what_it_reserves_on_its_cards():
    claim = Claim(1.0, "vLLM", reserved_ratio=0.9)
    owners = Owners(names=("VLLM::*",))

    def holding(memory):
        return changed(WORKING, used=memory, processes=(Process(9, "VLLM::EngineCore", memory),))

    assert judge(claim, seen(holding(6 * GB), SECOND), owners=owners).status == "PASS"
    verdict = judge(claim, seen(holding(5 * GB), SECOND), owners=owners)
    assert verdict.status == "FAIL"
    assert "5.00 GB are taken, wanted at least 5.40 GB" in verdict.evidence


def test_an_engine_without_figures_has_to_hold_something():
    claim = Claim(1.0, "it says so")
    assert judge(claim, seen(WORKING)).status == "PASS"
    empty = changed(WORKING, used=0, processes=(Process(ENGINE, "ollama", 0),))
    assert judge(claim, seen(empty)).status == "FAIL"


@pytest.mark.parametrize(
    ("owners", "processes", "own"),
    [
        (OWNERS, [Process(ENGINE, "x"), Process(OTHER, "ollama")], [ENGINE]),
        # the engine that listens is known, so its namesake is another one
        (OWNERS, [Process(OTHER, "/opt/other/ollama")], []),
        # a proxy listens for a container
        (Owners(frozenset({5}), False, ("ollama",)), [Process(OTHER, "/bin/ollama run")], [OTHER]),
        (Owners(frozenset(), False, ("llama-server",)), [Process(7, "llama-server")], [7]),
        (Owners(frozenset(), False, ("VLLM::*",)), [Process(7, "VLLM::Worker_TP0")], [7]),
        (Owners(frozenset(), False, ("ollama",)), [Process(7, "/usr/bin/ollama-exporter")], []),
        # numbers of another namespace have no name here
        (OWNERS, [Process(OTHER), Process(9, "python3")], [OTHER]),
        (Owners(frozenset(), False, ("ollama",)), [Process(OTHER), Process(9, "ollama")], [9]),
    ],
)
def test_whose_process_it_is(owners, processes, own):
    cards = [Card(0, processes=tuple(processes)), Card(1, processes=None)]
    assert [one.pid for _index, one in engine_processes(cards, owners)] == own


def test_a_verdict_names_figures():
    evidence = judge(ON_GPU, seen(WORKING, SECOND)).evidence
    assert evidence == (
        "size_vram 1.20 of 1.20 GB in /api/ps; GPU 0: 34 % busy, ollama (pid 812) holds 1.30 GB"
    )
    evidence = judge(ON_GPU, seen(IDLE, changed(SECOND, processes=None))).evidence
    assert evidence.startswith("the engine says size_vram 1.20 of 1.20 GB in /api/ps, but ")
    assert "310.00 MB" not in evidence
    assert "GPU 0: 0 % busy, no process, 0.31 GB of 12.00 GB used" in evidence
    assert "GPU 1: 0 % busy, 10.00 MB of 12.00 GB used" in evidence
    assert "a GPU was at most 0 % busy in 1.5 s, wanted more than 5 %" in evidence
    evidence = judge(ON_GPU, seen(IDLE)).evidence
    assert "but no process of the engine is on a GPU, 0.31 GB are taken" in evidence
    assert "wanted at least 0.60 GB" in evidence
    evidence = judge(ON_CPU, Seen(why="NVML: Driver Not Loaded")).evidence
    assert evidence == "size_vram 0.00 of 1.20 GB in /api/ps; NVML: Driver Not Loaded"
    evidence = judge(ON_GPU, seen(WORKING, Card(1, failed="GPU is lost", lost=True))).evidence
    assert evidence.endswith("; GPU 1: GPU is lost; not certain: GPU 1 failed")


def test_a_card_shows_what_others_do_on_it():
    other = Card(0, None, None, None, (Process(OTHER, "", 2 * GB),))
    known = Owners(frozenset({1}), True, ())
    words = "GPU 0: a process without a name (pid 4711) holds 2.00 GB"
    assert describe(seen(other), known) == words
    named = changed(other, processes=(Process(OTHER, "/usr/bin/blender", 2 * GB),))
    assert describe(seen(named), known) == "GPU 0: blender (pid 4711) holds 2.00 GB"
    assert describe(seen(Card(0)), known) == "GPU 0: no reading"


def sample(at, *cards):
    return {"at": at, "gpu": list(cards)}


def told(index=0, busy=0.0, used=0, processes=(), **more):
    figures = {"util_percent": busy, "memory_used_bytes": used, "memory_total_bytes": 12 * GB}
    return {"index": index, **figures, "processes": processes, **more}


def test_only_readings_between_the_tokens_count_and_the_most_of_each():
    own = {"pid": ENGINE, "type": "C", "name": "ollama", "memory_bytes": GB}
    lines = [
        {"source": "gpu", "state": "nvml"},
        sample(9.9, told(busy=99.0)),
        sample(10.0, told(busy=3.0, used=5, processes=[{**own, "memory_bytes": 7}])),
        {"at": 10.1, "missed": "gpu", "why": "a hiccup"},
        sample(10.5, told(busy=40.0, used=4, processes=[own, {"pid": 900, "type": "G"}])),
        sample(11.2, told(busy=10.0, used=3, processes=[own])),
        sample(11.4, told(busy=77.0)),
    ]
    found = seen_between(lines, 10.0, 11.3)
    assert (found.samples, found.lasted_s) == (3, pytest.approx(1.2))
    [card] = found.cards
    assert (card.busy_percent, card.used) == (40.0, 5)
    assert card.processes == (Process(ENGINE, "ollama", GB), Process(900))


def test_utilisation_of_the_first_second_is_left_out_and_nothing_else():
    own = {"pid": ENGINE, "type": "C", "name": "ollama", "memory_bytes": GB}
    lines = [
        sample(10.2, told(busy=97.0, used=GB, processes=[own])),
        sample(11.0, told(busy=3.0), told(1, busy=None)),
    ]
    found = seen_between(lines, 10.0, 11.5, skip_s=1.0)
    assert (found.samples, found.lasted_s) == (1, pytest.approx(1.0))
    first, second = found.cards
    assert (first.busy_percent, first.used) == (3.0, GB)
    assert first.processes == (Process(ENGINE, "ollama", GB),)
    assert second.busy_percent is None
    assert seen_between(lines, 10.0, 10.9, "too brief", skip_s=1.0) == Seen(why="too brief")


def test_no_reading_between_the_tokens_has_a_reason():
    lines = [sample(1.0, told()), {"at": 10.1, "missed": "gpu", "why": "GPU 1: GPU is lost"}]
    assert seen_between(lines, 10.0, 11.0, "silence") == Seen(why="GPU 1: GPU is lost")
    assert seen_between(lines[:1], 10.0, 11.0, "silence") == Seen(why="silence")


def test_what_a_card_does_not_tell_is_no_zero():
    [card] = seen_between([sample(1.0, told(busy=None, used=None, processes=None))], 0, 2).cards
    assert (card.busy_percent, card.used, card.processes) == (None, None, None)


def test_a_card_that_is_lost_in_the_middle():
    lost = {"index": 1, "failed": "GPU is lost", "code": 15}
    lines = [sample(1.0, told(), told(1, busy=50.0)), sample(2.0, told(), lost)]
    whole, gone = seen_between(lines, 0.0, 3.0).cards
    assert (whole.lost, whole.failed) == (False, "")
    assert (gone.lost, gone.failed) == (True, "GPU is lost")
    sick = {**lost, "code": 999}
    assert seen_between([sample(1.0, sick)], 0.0, 3.0).cards[0].lost is False
    recovered = [sample(1.0, lost), sample(2.0, told(1))]
    assert seen_between(recovered, 0.0, 3.0).cards[0].failed == ""


def test_figures_for_a_result():
    stranger = Process(OTHER, "x", 1)
    found = as_dict("m", ON_GPU, seen(changed(WORKING, processes=(OLLAMA, stranger))), OWNERS)
    assert (found["model"], found["ratio"], found["samples"]) == ("m", 1.0, 5)
    [card] = found["gpus"]
    assert (card["busy_percent"], card["memory_used_bytes"]) == (34.0, 1_700_000_000)
    assert [one["engine"] for one in card["processes"]] == [True, False]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (None, "0 B"), (8, "8 B"), (3 * 10**6, "3.00 MB"), (310 * 10**6, "0.31 GB")],
)
def test_amounts_have_a_fitting_unit(size, text):
    assert amount(size) == text


def test_amounts_of_a_whole():
    assert amounts(0, 3_900_000_000) == "0.00 of 3.90 GB"
    assert amounts(4, 8) == "4 of 8 B"
