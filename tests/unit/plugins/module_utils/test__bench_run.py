# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_options, _bench_run
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_csv import BASELINE_HEADER
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_load import Measurement
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_ollama import Sample
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError


def params(**more):
    defaults = {
        name: option.get("default") for name, option in _bench_options.ARGUMENT_SPEC.items()
    }
    models = [{"name": "a", "slo": None}, {"name": "b", "slo": {"ttft_ms": 1.0}}]
    return {**defaults, "models": models, **more}


def measurement(model, rates=(50.0, 51.0, 52.0), **more):
    samples = [
        Sample(model, number, "now", 100.0, 900.0, gen_tokens=50, tokens_per_s=rate)
        for number, rate in enumerate(rates, start=1)
    ]
    return Measurement(model, samples, wall_s=2.0, **more)


@pytest.fixture
def measured(monkeypatch):
    calls = []

    def install(*measurements):
        monkeypatch.setattr(
            _bench_run, "measure", lambda given: calls.append(given) or list(measurements)
        )
        return calls

    return install


def test_check_mode_sends_nothing_and_predicts_what_the_run_then_does(tmp_path, measured):
    path = str(tmp_path / "baseline.csv")
    calls = measured(measurement("a"), measurement("b"))
    predicted = _bench_run.run(params(baseline_file=path), check_mode=True)
    assert calls == []
    assert list(tmp_path.iterdir()) == []
    done = _bench_run.run(params(baseline_file=path), check_mode=False)
    for key in ("changed", "actions", "plan", "baseline_recorded", "diff"):
        assert predicted[key] == done[key]
    assert done["actions"] == [
        "record the first baseline of a",
        "record the first baseline of b",
    ]
    assert done["plan"][0] == {"action": "record_baseline", "target": "a", "path": path}
    assert predicted["verdicts"] == []


def test_the_second_run_compares_and_changes_nothing(tmp_path, measured):
    path = str(tmp_path / "baseline.csv")
    measured(measurement("a"), measurement("b"))
    _bench_run.run(params(baseline_file=path), check_mode=False)
    before = (tmp_path / "baseline.csv").read_text()
    again = _bench_run.run(params(baseline_file=path), check_mode=False)
    assert (again["changed"], again["actions"], again["plan"]) == (False, [], [])
    assert (tmp_path / "baseline.csv").read_text() == before
    compared = [v for v in again["verdicts"] if v["check"] == "tokens_per_s_vs_baseline"]
    assert [verdict["subject"] for verdict in compared] == ["a", "b"]


def test_an_unsound_measurement_is_not_recorded(tmp_path, measured):
    path = tmp_path / "baseline.csv"
    measured(measurement("a", rates=(10.0, 50.0, 90.0)), measurement("b"))
    result = _bench_run.run(params(baseline_file=str(path)), check_mode=False)
    assert result["baseline_recorded"] == ["b"]
    assert [entry["baseline_recorded"] for entry in result["benchmark"]] == [False, True]
    assert path.read_text().startswith(f"{BASELINE_HEADER}\n")
    assert ",a," not in path.read_text()


def test_without_a_baseline_file_nothing_changes(measured, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    measured(measurement("a"), measurement("b"))
    result = _bench_run.run(params(), check_mode=False)
    assert (result["changed"], result["actions"]) == (False, [])
    assert list(tmp_path.iterdir()) == []


def test_rows_in_the_results_file_are_no_change(tmp_path, measured):
    path = tmp_path / "results.csv"
    measured(measurement("a"), measurement("b"))
    result = _bench_run.run(params(results_file=str(path)), check_mode=False)
    assert result["changed"] is False
    assert len(path.read_text().splitlines()) == 7


def test_a_broken_baseline_file_stops_before_any_request(tmp_path, measured):
    path = tmp_path / "baseline.csv"
    path.write_text("something else\n")
    calls = measured()
    with pytest.raises(HostError, match="something else"):
        _bench_run.run(params(baseline_file=str(path)), check_mode=False)
    assert calls == []


def test_what_was_measured_elsewhere_is_judged_and_recorded(tmp_path, measured, monkeypatch):
    measured(measurement("a"))
    elsewhere = _bench_run.run(params(), check_mode=False)["benchmark"]
    monkeypatch.undo()
    path = tmp_path / "baseline.csv"
    result = _bench_run.run(
        params(measurements=elsewhere, baseline_file=str(path)), check_mode=False
    )
    assert result["baseline_recorded"] == ["a"]
    assert result["benchmark"][0]["metrics"] == elsewhere[0]["metrics"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"iterations": 0}, "iterations is 0, wanted at least 1"),
        ({"cv_limit": -1.0}, "cv_limit is -1, wanted at least 0"),
        ({"concurrency": 4}, "concurrency is 4, wanted at most the number of iterations (3)"),
        ({"prompts": []}, "prompts holds no or an empty prompt"),
        ({"prompts": [" "]}, "prompts holds no or an empty prompt"),
        ({"models": []}, "models is empty"),
        ({"models": [{"name": "a"}, {"name": "a"}]}, "model a is given twice"),
    ],
)
def test_wrong_options_are_named(option, message):
    (error,) = _bench_options.option_errors(params(**option))
    assert message in error


def test_the_defaults_are_right():
    assert _bench_options.option_errors(params()) == []
