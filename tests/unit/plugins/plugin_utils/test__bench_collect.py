# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_collect as collect

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=timezone.utc)


def a_run(day, host="llm-01", models=("a:1b",), **options):
    return {
        "schema": 1,
        "host": host,
        "url": "http://127.0.0.1:11434",
        "dialect": "ollama_generate",
        "started_at": f"2026-11-{day:02}T10:00:00.000Z",
        "options": options,
        "entries": [{"model": model} for model in models],
    }


def keep(folder, name, run):
    path = folder / "llm-01" / f"benchmark-{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(run if isinstance(run, str) else json.dumps(run))
    return path


def test_of_runs_with_the_same_load_the_newest_counts(tmp_path):
    keep(tmp_path, "1", a_run(1, concurrency=4))
    keep(tmp_path, "2", a_run(20, concurrency=4))
    keep(tmp_path, "3", a_run(19, concurrency=8))
    keep(tmp_path, "4", a_run(18, models=("b:1b",), concurrency=4))
    runs, told = collect.runs_of(str(tmp_path), "llm-01", NOW, 0)
    assert [run["started_at"][8:10] for run in runs] == ["18", "19", "20"]
    assert told == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"extra_body": {"top_k": 1}}, {"extra_body": {"top_k": 2}}),
        ({"unique_prompts": True}, {"unique_prompts": False}),
        ({"run_from": "target"}, {"run_from": "controller"}),
    ],
)
def test_options_that_change_figures_make_another_load(tmp_path, one, other):
    keep(tmp_path, "1", a_run(19, **one))
    keep(tmp_path, "2", a_run(20, **other))
    runs, _told = collect.runs_of(str(tmp_path), "llm-01", NOW, 0)
    assert len(runs) == 2


def test_a_label_says_the_lengths_that_are_not_the_usual_ones():
    def label(**options):
        return collect.load_label("1 at once", collect.request_of({"options": options}))

    assert label() == label(num_predict=128, prompt_tokens=0) == "1 at once"
    assert label(prompt_tokens=2048) == "1 at once, prompts of 2,048 tokens"
    assert label(prompt_tokens=64, num_predict=16) == (
        "1 at once, prompts of 64 tokens, answers of 16 tokens"
    )


def test_options_that_change_no_figure_make_no_other_load(tmp_path):
    keep(tmp_path, "1", a_run(19, concurrency=4, fail_on="FAIL"))
    keep(tmp_path, "2", a_run(20, concurrency=4, fail_on="never"))
    runs, _told = collect.runs_of(str(tmp_path), "llm-01", NOW, 0)
    assert len(runs) == 1


def test_old_runs_and_other_hosts_are_left_out(tmp_path):
    keep(tmp_path, "1", a_run(11, rate=1))
    keep(tmp_path, "2", a_run(20, rate=2))
    keep(tmp_path, "3", a_run(20, host="llm-02", rate=3))
    runs, _told = collect.runs_of(str(tmp_path), "llm-01", NOW, 7)
    assert [run["options"]["rate"] for run in runs] == [2]
    assert collect.runs_of(str(tmp_path), "llm-07", NOW, 7) == ([], [])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "can't be read as a benchmark's run"),
        ("[]", "lacks schema, host"),
        (json.dumps({**a_run(20), "schema": 9}), "has schema 9, wanted"),
        (json.dumps({**a_run(20), "started_at": "soon"}), "soon"),
    ],
)
def test_a_file_that_is_no_run_is_told_and_hides_no_other(tmp_path, content, words):
    broken = keep(tmp_path, "1", content)
    keep(tmp_path, "2", a_run(20))
    runs, told = collect.runs_of(str(tmp_path), "llm-01", NOW, 30)
    assert len(runs) == 1
    assert len(told) == 1
    assert words in told[0]
    if words != "soon":
        with pytest.raises(HostError, match="benchmark-1"):
            collect.read_run(broken)


def test_hosts_of_which_nothing_was_measured_are_named():
    runs = [a_run(20), {**a_run(20, host="llm-02"), "entries": []}]
    assert collect.without_runs(["llm-01", "llm-02", "llm-03"], runs) == ["llm-02", "llm-03"]
