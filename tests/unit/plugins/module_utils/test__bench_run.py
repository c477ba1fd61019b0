# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_options, _bench_run
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_csv import BASELINE_HEADER
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_entry import (
    Known,
    identity_of,
    limits_of,
    measured_entry,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_job import Sample
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import Measurement
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_session import Session
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_shapes import Stage
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

ENGINE = {"name": "ollama", "version": "0.11.4", "digests": {"a": "d1", "b": "d2"}}
FACTS = {"engine": ENGINE, "prompts": ["why?"], "gpus": [], "driver": ""}


def suboptions(name, **given):
    spec = _bench_options.ARGUMENT_SPEC[name]["options"]
    return {**{key: option.get("default") for key, option in spec.items()}, **given}


def suboptions_of_slo(**given):
    spec = _bench_options.ARGUMENT_SPEC["models"]["options"]["slo"]["options"]
    return {**dict.fromkeys(spec), **given}


def params(**more):
    defaults = {
        name: option.get("default") for name, option in _bench_options.ARGUMENT_SPEC.items()
    }
    models = [{"name": "a", "slo": None}, {"name": "b", "slo": {"ttft_ms": 1.0}}]
    return {**defaults, "models": models, **more}


def measurement(model, rates=(50.0, 51.0, 52.0), **more):
    samples = [
        Sample(
            number,
            model,
            ttft_ms=100.0,
            latency_ms=900.0,
            gen_tokens=50,
            tokens_per_s=rate,
            started_at="2026-01-01T00:00:00.000Z",
        )
        for number, rate in enumerate(rates, start=1)
    ]
    return Measurement(
        model,
        Stage(requests=len(samples)),
        samples,
        wall_s=2.0,
        begun_at="2026-01-01T00:00:00.000Z",
        in_flight=1,
        **more,
    )


@pytest.fixture
def measured(monkeypatch):
    """Let a session find these measurements instead of sending requests; returns its calls."""
    calls = []

    def install(*measurements):
        def measure(session):
            calls.append(session)
            known = Known(session._params, FACTS, *limits_of(session._params), {})
            pairs = [
                (
                    one,
                    measured_entry(
                        one, calibration={}, server_truth={}, timeline=None, known=known
                    ),
                )
                for one in measurements
            ]
            return pairs, FACTS, []

        monkeypatch.setattr(Session, "measure", measure)
        monkeypatch.setattr(Session, "facts", lambda _session: dict(FACTS))
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


def test_what_was_measured_elsewhere_is_judged_and_recorded(tmp_path, measured):
    measured(measurement("a"))
    elsewhere = _bench_run.run(params(), check_mode=False)["benchmark"]
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
        (
            {"concurrency": 4, "iterations": 3},
            "concurrency is 4, wanted at most the number of iterations (3)",
        ),
        ({"iterations": 10**6}, "iterations is 1000000, wanted at most 20000"),
        ({"rate": -1.0, "iterations": 3}, "rate is -1, wanted at least 0.001"),
        ({"concurrency": 50_000}, "concurrency is 50000, wanted at most 4096"),
        ({"duration": 2000.0}, "duration is 2000 s, wanted at most max_duration (1800 s)"),
        ({"sweep": suboptions("sweep", values=[0.0])}, "values of sweep is 0, wanted 1 to 4096"),
        ({"sweep": suboptions("sweep", values=[])}, "values of sweep is empty"),
        ({"sweep": suboptions("sweep", limit=1e5)}, "limit of sweep is 100000, wanted 1 to 4096"),
        ({"sweep": suboptions("sweep", start=0.5)}, "start of sweep is 0.5, wanted 1 to 4096"),
        ({"sweep": suboptions("sweep", factor=1.0)}, "factor of sweep is 1, wanted more than 1"),
        ({"sweep": suboptions("sweep", refine=-1)}, "refine of sweep is -1"),
        (
            {"sweep": suboptions("sweep", over="rate", values=[0.0]), "duration": 5.0},
            "values of sweep is 0, wanted at least 0.001 (rate)",
        ),
        (
            {"sweep": suboptions("sweep", over="rate", limit=float("inf")), "duration": 5.0},
            "limit of sweep is inf",
        ),
        ({"rate": 2.0}, "a schedule has no end, wanted iterations or duration"),
        (
            {"rate": 2.0, "duration": 5.0, "sweep": suboptions("sweep")},
            "rate and sweep are both given",
        ),
        ({"sweep": suboptions("sweep", over="rate")}, "a schedule has no end"),
        ({"baseline": suboptions("baseline", directory="/b")}, "neither compare nor set"),
        ({"url": "http://me:secret@llm-01:8000"}, "url holds a user or password"),
        ({"prompts": []}, "prompts holds no or an empty prompt"),
        ({"prompts": [" "]}, "prompts holds no or an empty prompt"),
        ({"models": []}, "models is empty"),
        ({"models": [{"name": "a"}, {"name": "a"}]}, "model a is given twice"),
    ],
)
def test_wrong_options_are_named(option, message):
    (error,) = _bench_options.option_errors(params(**option))
    assert message in error


def test_a_host_in_service_is_left_alone(measured):
    calls = measured(measurement("a"))
    for check_mode in (True, False):
        with pytest.raises(HostError, match="takes requests of clients, wanted it drained"):
            _bench_run.run(params(in_service=True), check_mode)
    assert calls == []
    _bench_run.run(params(in_service=True, allow_in_service=True), check_mode=False)
    assert len(calls) == 1


def test_check_mode_says_what_would_be_sent():
    told = _bench_run.run(params(rate=2.0, duration=30.0), check_mode=True)["would_send"]
    assert told == [
        f"send requests for 30 s, 2 requests/s, poisson, at most 128 tokens each, to {model}"
        " after 1 to warm up"
        for model in ("a", "b")
    ]


def test_figures_survive_files_that_cannot_be_written(tmp_path, measured):
    measured(measurement("a"), measurement("b"))
    missing = str(tmp_path / "missing" / "results.csv")
    result = _bench_run.run(params(results_file=missing), check_mode=False)
    assert missing in result["problems"][0]
    assert [entry["model"] for entry in result["benchmark"]] == ["a", "b"]


def test_a_named_baseline_is_set_compared_and_not_replaced_by_chance(tmp_path, measured):
    wanted = suboptions("baseline", directory=str(tmp_path), set="first")
    measured(measurement("a"), measurement("b"))
    predicted = _bench_run.run(params(baseline=wanted), check_mode=True)
    assert list(tmp_path.iterdir()) == []
    done = _bench_run.run(params(baseline=wanted), check_mode=False)
    assert predicted["actions"] == done["actions"] != []
    compare = suboptions("baseline", directory=str(tmp_path), compare="first")
    measured(measurement("a", rates=(20.0, 21.0, 20.0)), measurement("b"))
    result = _bench_run.run(params(baseline=compare), check_mode=False)
    assert result["changed"] is False
    [slower, same] = [
        entry["comparison"]["metrics"]["tokens_per_s"] for entry in result["benchmark"]
    ]
    assert slower["change_percent"] < -50
    assert slower["verdict"] != "PASS"
    assert same["verdict"] == "PASS"
    calls = measured(measurement("a"))
    sent = len(calls)
    for check_mode in (True, False):
        with pytest.raises(HostError, match="another measurement of a"):
            _bench_run.run(params(baseline=wanted), check_mode)
    assert len(calls) == sent


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"compare": "release", "may_differ": ["model"]}, "model may not differ"),
        ({"compare": "../release"}, "baseline is named"),
        ({"compare": "damaged"}, "is no baseline"),
        ({"set": "damaged"}, "is no baseline"),
        ({"set": "../release"}, "baseline is named"),
        ({"set": "release.previous"}, "wanted a name without"),
        ({"set": "file"}, "is no directory"),
    ],
)
def test_a_baseline_that_cannot_be_used_stops_before_any_request(
    tmp_path, measured, given, message
):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.json").write_text("{")
    (tmp_path / "file").write_text("")
    calls = measured(measurement("a"))
    wanted = suboptions("baseline", directory=str(tmp_path), **given)
    for check_mode in (True, False):
        with pytest.raises(HostError, match=message):
            _bench_run.run(params(baseline=wanted), check_mode)
    assert calls == []


def test_a_baseline_that_cannot_be_used_loses_nothing_measured_elsewhere(tmp_path, measured):
    measured(measurement("a"))
    elsewhere = _bench_run.run(params(), check_mode=False)["benchmark"]
    wanted = suboptions("baseline", directory=str(tmp_path), set="a.previous")
    result = _bench_run.run(params(measurements=elsewhere, baseline=wanted), check_mode=False)
    assert "wanted a name without" in result["problems"][0]
    assert [entry["model"] for entry in result["benchmark"]] == ["a"]
    assert result["run"]["options"]["baseline"]["set"] == "a.previous"


def test_check_mode_predicts_the_named_baselines_of_a_sweep(tmp_path):
    wanted = suboptions("baseline", directory=str(tmp_path), set="first")
    sweep = suboptions("sweep", values=[1.0, 4.0])
    told = _bench_run.run(params(baseline=wanted, sweep=sweep), check_mode=True)
    assert told["changed"] is True
    assert told["actions"] == [
        f"set baseline first of {model} ({places} at once)"
        for model in ("a", "b")
        for places in (1, 4)
    ]


def test_a_step_that_the_time_cut_off_is_no_failure_after_whole_ones():
    entry = {"model": "a", "cut": True, "stage": {"concurrency": 4}}
    sweep = {"model": "a", "over": "concurrency", "knee": None}
    assert _bench_run.beyond_knee(entry, [{**sweep, "points": [{"value": 1}]}])
    assert not _bench_run.beyond_knee(entry, [{**sweep, "points": []}])
    assert not _bench_run.beyond_knee({**entry, "cut": False}, [{**sweep, "points": [{}]}])


@pytest.mark.parametrize(
    ("wanted", "limit", "told"),
    [
        (4.0, 5000.0, [[], ["PASS", "PASS"], []]),  # 1.5, 6 and 3 requests a second
        (7.0, 5000.0, [[], ["FAIL", "FAIL"], []]),
        (4.0, 1.0, [["FAIL", "FAIL"]]),  # not even the first step keeps the others
    ],
)
def test_a_sweep_is_asked_for_a_throughput_once_where_it_comes_closest(
    measured, wanted, limit, told
):
    steps = []
    for places, wall_s in ((1, 2.0), (4, 0.5), (8, 1.0))[: len(told)]:
        step = measurement("a")
        step.stage, step.wall_s = Stage(requests=3, concurrency=places), wall_s
        steps.append(step)
    measured(*steps)
    slo = suboptions_of_slo(latency_ms=limit, target_throughput_rps=wanted, goodput_rps=wanted)
    given = {**params(), "models": [{"name": "a", "slo": slo}]}
    entries = _bench_run.run(given, check_mode=False)["benchmark"]
    given.update(sweep=suboptions("sweep", values=[1.0, 4.0, 8.0]), measurements=entries)
    result = _bench_run.run(given, check_mode=False)
    found = [
        [v["status"] for v in entry["verdicts"] if v["check"] in _bench_run.TOGETHER]
        for entry in result["benchmark"]
    ]
    assert found == told


def test_the_identity_tells_extra_fields_prompts_and_place(measured):
    def identity(**options):
        known = Known(params(**options), FACTS, *limits_of(params(**options)), {})
        run = measurement("a")
        made = measured_entry(run, calibration={}, server_truth={}, timeline=None, known=known)
        return identity_of(run, made["asked"], known)

    usual = identity()
    assert (usual.extra_digest, usual.unique_prompts, usual.run_from) == ("", True, "target")
    seeded = identity(extra_body={"seed": 1, "top_k": 2})
    assert seeded.extra_digest not in ("", identity(extra_body={"seed": 2}).extra_digest)
    assert seeded == identity(extra_body={"top_k": 2, "seed": 1})
    other = identity(unique_prompts=False, run_from="controller")
    assert (other.unique_prompts, other.run_from) == (False, "controller")


def test_an_unreliable_measurement_is_no_first_baseline(tmp_path, measured):
    measured(measurement("a", rates=(50.0, 51.0)), measurement("b"))
    path = str(tmp_path / "baseline.csv")
    result = _bench_run.run(params(baseline_file=path), check_mode=False)
    assert [entry["validity"]["state"] for entry in result["benchmark"]] == ["UNRELIABLE", "VALID"]
    assert result["baseline_recorded"] == ["b"]


def test_the_json_file_holds_the_run(tmp_path, measured):
    measured(measurement("a"))
    result = _bench_run.run(params(json_dir=str(tmp_path), host="llm-01"), check_mode=False)
    whole = json.loads(Path(result["json_file"]).read_text(encoding="utf-8"))
    assert (whole["host"], whole["entries"][0]["model"]) == ("llm-01", "a")
    assert "key_file" not in whole["options"]


def test_what_requests_had_besides_is_told_by_its_names_only(tmp_path, measured):
    measured(measurement("a"))
    extra = {"user": "secret", "ignore_eos": True}
    result = _bench_run.run(params(json_dir=str(tmp_path), extra_body=extra), check_mode=False)
    path = Path(result["json_file"])
    assert "secret" not in path.read_text(encoding="utf-8")
    assert result["run"]["options"]["extra_body"]["fields"] == ["ignore_eos", "user"]
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_run_that_was_measured_elsewhere_keeps_its_name_and_times(measured):
    measured(measurement("a"))
    elsewhere = _bench_run.run(params(), check_mode=False)
    told = {"run_id": "ab12cd34", "started_at": "2026-01-01T00:00:00.000Z", "seconds": 9.5}
    given = params(measurements=elsewhere["benchmark"], measured_run=told)
    run = _bench_run.run(given, check_mode=False)["run"]
    assert {name: run[name] for name in told} == told


def test_the_defaults_are_right():
    assert _bench_options.option_errors(params()) == []
