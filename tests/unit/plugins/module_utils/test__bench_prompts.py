# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prompts: unique, of a wanted length, and the same again for the same request."""

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_prompts import Prompts, fitted


def test_prompts_are_used_in_turn_and_begin_with_a_text_of_their_own():
    prompts = Prompts(texts=["a", "b"], run_id="r")
    found = [prompts.text("m", "measure0", number) for number in (1, 2, 3)]
    assert len({text.split("]")[0] for text in found}) == 3
    assert found[0][-1] == found[2][-1] != found[1][-1]
    assert all(text.startswith(f"[r-m-measure0-{n}] ") for n, text in enumerate(found, 1))


def test_the_place_of_the_unique_text_can_be_chosen():
    prompts = Prompts(texts=["say {nonce}, then {nonce}"], run_id="r")
    assert prompts.text("m", "warmup0", 1) == "say r-m-warmup0-1, then r-m-warmup0-1"


def test_prompts_are_the_same_every_time_when_that_is_wanted():
    prompts = Prompts(texts=["why?", "{nonce}"], run_id="r", unique=False)
    assert {prompts.text("m", "p", number) for number in range(1, 9)} == {"why?", "benchmark"}
    filler = Prompts(tokens=20, run_id="r", unique=False)
    assert len({filler.text("m", "p", number) for number in range(1, 9)}) == 1


@pytest.mark.parametrize("tokens", [1, 32, 4096])
def test_synthetic_prompts_have_their_words_and_differ(tokens):
    prompts = Prompts(tokens=tokens, run_id="r")
    one, two = (prompts.text("m", "p", number) for number in (1, 2))
    assert one != two
    assert len(one.split("]")[1].split()) == tokens
    assert prompts.text("m", "p", 1) == one


def test_models_phases_and_runs_share_no_beginning():
    prompts = Prompts(tokens=4, run_id="r")
    other = Prompts(tokens=4, run_id="s")
    found = {
        prompts.text("m", "warmup0", 1),
        prompts.text("m", "measure0", 1),
        prompts.text("m", "measure1", 1),
        prompts.text("n", "measure0", 1),
        other.text("m", "measure0", 1),
    }
    assert len({text.split("]")[0] for text in found}) == 5


def counted(words, per_word=1.5, extra=40):
    """Return what a server counts for a prompt of so many words."""
    return round(words * per_word + extra)


def test_two_probes_tell_the_words_from_what_every_prompt_costs():
    prompts = Prompts(tokens=1000)
    for _turn in range(2):
        probes = [(1000, counted(1000)), (500, counted(500))]
        prompts = fitted(prompts, probes)
    assert prompts.extra_tokens == pytest.approx(40)
    assert counted(prompts.words) == pytest.approx(1000, abs=2)


def test_one_probe_fits_the_ratio():
    prompts = fitted(Prompts(tokens=1000), [(1000, 1540)])
    assert counted(prompts.words) == pytest.approx(1000, abs=20)


@pytest.mark.parametrize(
    "probes",
    [
        [],
        [(0, 10)],
        [(100, 0)],
        [(-3, 7)],
    ],
)
def test_probes_that_say_nothing_change_nothing(probes):
    prompts = Prompts(tokens=1000)
    assert fitted(prompts, probes) == prompts


def test_probes_that_contradict_each_other_give_way_to_the_last():
    prompts = fitted(Prompts(tokens=1000), [(1000, 500), (500, 900)])
    assert prompts.words_per_token == pytest.approx(500 / 900)
    assert prompts.extra_tokens == 0.0


def test_texts_are_not_fitted():
    prompts = Prompts(texts=["why?"])
    assert fitted(prompts, [(100, 200)]) == prompts


def test_a_prompt_never_has_less_than_one_word():
    assert Prompts(tokens=10, extra_tokens=40.0).words == 1


def test_texts_are_used_in_turn_from_the_first_one():
    prompts = Prompts(texts=["one", "two"], unique=False)
    asked = [prompts.text("a", "measure", number) for number in (1, 2, 3)]
    assert asked == ["one", "two", "one"]
