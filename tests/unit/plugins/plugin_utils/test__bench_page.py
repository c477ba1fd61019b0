# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page of a benchmark run, its plots, and the schema of what it is made from."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest
from bench_runs import entry, run, sample, summary, verdict

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_sweep as sweep
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_outcome as outcome
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_page as page
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_plots as plots
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_plots_load as load_plots
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_svg as svg

SCHEMA = Path(page.__file__).with_name("schemas") / "benchmark.json"
HOSTILE = "<script>alert(1)</script>\"'&{{ 7 * 7 }}"
LARGEST = 1_500_000
NUMBER = re.compile(r"-?\d+\.?\d*")
VOID = {"meta", "br", "wbr"}


class Page(HTMLParser):
    """Collects tags and text, and checks that every tag is closed."""

    def __init__(self, content):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(content)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def shown(made):
    return Page(page.render_page(made))


def swept(limit=500):
    slo = {"ttft_ms": limit}
    points = [
        sweep.point_of(
            load,
            {
                "ttft_ms": {"median": ttft, "p95": ttft, "p99": ttft * 1.2},
                "total_tokens_per_s": rate,
                "requests_per_s": rate / 90,
            },
            requests=20,
            failed=0,
            slo=slo,
        )
        for load, ttft, rate in (
            (1, 100.0, 80.0),
            (2, 120.0, 150.0),
            (4, 300.0, 260.0),
            (8, 900.0, 280.0),
        )
    ]
    entries = [
        entry(concurrency=load, slo=limit, samples=[sample(n, ttft=ttft) for n in range(1, 21)])
        for load, ttft in ((1, 100.0), (2, 120.0), (4, 300.0), (8, 900.0))
    ]
    return run(entries, sweep.summarise(points, slo, {"limit": 64}))


def failing():
    samples = [sample(n, error="http_5xx", text=HOSTILE) for n in range(1, 11)]
    invalid = {"state": "INVALID", "reasons": ["No request was answered."]}
    return run([entry(samples=samples, validity=invalid)])


CASES = {
    "plain": run(),
    "one sample": run([entry(samples=[sample(1)])]),
    "no gpu": run([entry(gpus=0)]),
    "no timeline": run([entry(timeline=None)]),
    "all failed": failing(),
    "not streamed": run([entry(samples=[sample(n, ttft=None) for n in range(1, 20)])]),
    "sweep": swept(),
    "several models": run([entry("a"), entry("b"), entry("c"), entry("d")]),
    "nothing": run([]),
    "bare": run([entry(client=None, server_truth=None, metrics={}, verdicts=[])]),
    "no calibration": run([entry(client={"overhead_ms": 0.4, "limit_ms": None})]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_runs_that_the_tests_draw_are_runs(name):
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(CASES[name])))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda made: made.update(schema=2), "schema"),
        (lambda made: made.pop("entries"), "entries"),
        (lambda made: made["entries"][0].pop("validity"), "validity"),
        (lambda made: made["entries"][0]["samples"][0].update(ttft_ms="12"), "ttft_ms"),
        (lambda made: made["entries"][0]["verdicts"][0].update(status="OK"), "status"),
        (lambda made: made["entries"][0]["metrics"]["ttft_ms"].pop("count"), "count"),
    ],
)
def test_the_schema_refuses_what_the_page_could_not_show(change, where):
    made = copy.deepcopy(CASES["plain"])
    change(made)
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(made))
    assert errors
    assert where in f"{errors[0].json_path} {errors[0].message}"


@pytest.mark.parametrize("name", CASES)
def test_every_page_is_whole_and_self_contained(name):
    made = shown(CASES[name])
    assert "script" not in made.tags
    assert "link" not in made.tags
    assert "img" not in made.tags
    for key, value in made.attributes:
        assert key != "src"
        assert not key.startswith("on")
        if key == "href":
            assert value.startswith("#")
    assert "llm-01" in made.text
    assert "None" not in made.text
    assert "nan" not in made.text.split()


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_drawn_outside_of_a_drawing(name):
    content = page.render_page(CASES[name])
    for width, height, body in re.findall(
        r'<svg viewBox="0 0 (\d+) (\d+)"[^>]*>(.*?)</svg>', content, re.DOTALL
    ):
        for x, y in re.findall(r'<text class="[^"]*" x="([\d.-]+)" y="([\d.-]+)"', body):
            assert 0 <= float(x) <= float(width)
            assert 0 <= float(y) <= float(height)
        for steps in re.findall(r' d="M([^hlmz"]*)"', body):
            for pair in re.split(r"[ML]", steps):
                numbers = [float(value) for value in NUMBER.findall(pair)]
                assert all(0 <= x <= float(width) for x in numbers[::2])
                assert all(0 <= y <= float(height) for y in numbers[1::2])


def test_the_head_says_what_was_asked_and_how_it_ended():
    text = shown(run([entry(slo=150)])).text
    assert "PASS" in text
    assert "ollama 0.11.4" in text
    assert "Every objective was kept. 1 model, 40 requests, 40 answered." in text


def test_without_objectives_a_pass_does_not_claim_that_any_was_kept():
    text = shown(run()).text
    assert "No objective was declared; the requests were answered." in text
    assert "Every objective was kept" not in text


def test_a_missed_objective_is_told_in_a_sentence():
    made = shown(run([entry(slo=90)]))
    assert "FAIL" in made.text
    assert "TTFT is 100 ms, wanted at most 90 ms." in made.text


def test_a_run_that_cannot_be_trusted_is_graver_than_a_failed_one():
    doubtful = {"state": "UNRELIABLE", "reasons": ["GPU 0 held its clocks down."]}
    word, reasons = outcome.of_run(run([entry(slo=90, validity=doubtful)]))
    assert word == "UNRELIABLE"
    assert reasons == ["GPU 0 held its clocks down.", "TTFT is 100 ms, wanted at most 90 ms."]


def test_the_gravest_model_is_named_first():
    doubtful = {"state": "INVALID", "reasons": ["The client was the limit."]}
    word, reasons = outcome.of_run(run([entry("a", slo=90), entry("b", validity=doubtful)]))
    assert word == "INVALID"
    assert [reason.partition(":")[0] for reason in reasons] == ["b", "a"]


def test_a_run_of_nothing_is_invalid():
    assert outcome.of_run(run([])) == ("INVALID", ["The run measured nothing."])


def test_key_figures_stand_beside_their_own_error():
    text = shown(run()).text
    for told in ("TTFT, median 100 ms", "client adds 0.41 ms", "client adds 0.02 ms"):
        assert told in text
    assert "0.93 ms loop lag, p99" in text
    assert "the run is INVALID over 5 ms" in text
    assert "97 ms mean TTFT by ollama: the client saw 3 ms more. network" in text


def test_cold_is_told_apart_from_warm():
    text = shown(run()).text
    assert "8.00 s load of the model, by the server" in text
    assert "8.50 s first token while cold" in text
    assert "100 ms first token once warm, median" in text


def test_errors_of_a_server_cannot_become_markup():
    content = page.render_page(failing())
    assert "<script" not in content
    assert "{{" not in content.replace("{{ 7 * 7 }}", "")
    made = Page(content)
    assert "<script>alert(1)</script>" in made.text
    assert "http 5xx 10" in made.text
    assert "INVALID" in made.text


def test_names_cannot_become_markup():
    made = run([entry(HOSTILE), entry(f"{HOSTILE}2")], host=HOSTILE)
    assert "<script" not in page.render_page(made)


def test_requests_that_all_failed_are_marked_on_the_axis_of_time():
    made = shown(failing())
    assert "Crosses mark 10 requests that failed; none was answered" in made.text
    assert "Time to first token" not in made.text


def test_answers_that_were_not_streamed_have_no_ttft_and_no_gaps():
    text = shown(CASES["not streamed"]).text
    assert "end to end, median 1.00 s" in text
    assert "TTFT, median" not in text.partition("What the words mean")[0]
    assert "How evenly tokens came" not in text


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no gpu", "Not observed: gpu: no driver."),
        ("no timeline", "The machine was not observed during this load."),
    ],
)
def test_what_was_not_observed_is_said(name, told):
    made = shown(CASES[name])
    assert told in made.text
    assert "GPU utilisation" not in made.text


def test_one_sample_is_not_drawn_as_a_distribution():
    text = shown(CASES["one sample"]).text
    assert "How long requests took" not in text
    assert "TTFT of each request" in text


def test_the_sweep_shows_its_knee_and_why_it_ended():
    made = shown(CASES["sweep"])
    assert "4 is the last step that kept the objectives." in made.text
    assert "At 8 TTFT (p95) is 900 ms, wanted at most 500 ms." in made.text
    assert "knee 4" in made.text
    assert "objective 500 ms" in made.text


def test_a_knee_that_was_not_reached_is_not_called_one():
    made = swept(limit=5000)
    assert made["sweeps"][0]["knee"]["at_least"] is True
    text = shown(made).text.partition("What the words mean")[0]
    assert "at least 8" in text
    assert "knee" not in text
    assert "Every step kept the objectives, the highest at 8." in text


def test_a_model_that_could_not_be_warmed_up_shows_why():
    bad = sample(1, error="timeout", text="no answer in 120 s")
    made = entry(samples=[], warmup=[bad], errors={"timeout": 1, "not_sent": 40}, not_sent=40)
    made.update(timeline=None, wall_s=0.0, client={"overhead_ms": None, "calibration": {}})
    text = shown(run([made])).text
    assert "timeout 1 no answer in 120 s" in text
    assert "requests answered 0 of 40 40 not sent" in text
    assert "not known client overhead: the client was not calibrated" in text


def test_what_trust_says_is_told_once():
    doubtful = {"state": "UNRELIABLE", "reasons": ["Few samples."]}
    told = verdict("trust", "WARN", "UNRELIABLE", "VALID", evidence="Few samples.")
    made = entry(validity=doubtful, verdicts=[told])
    assert outcome.of_entry(made) == ("UNRELIABLE", ["Few samples."])


def test_a_run_without_a_name_of_its_host_is_headed_by_its_address():
    assert "<h1>http://127.0.0.1:11434</h1>" in page.render_page(run(host=""))


@pytest.mark.parametrize(
    ("check", "value", "limit", "unit", "expected"),
    [
        ("ttft", 812.5, 400, "ms", "TTFT is 812.5 ms, wanted at most 400 ms."),
        (
            "throughput",
            2.0,
            5.0,
            "requests/s",
            "Requests per second is 2 requests/s, wanted at least 5 requests/s.",
        ),
        ("answered", 3, 4, "requests", "3 of 4 requests were answered completely."),
        (
            "comparison_tokens_per_s",
            -25.0,
            -20.0,
            "%",
            "Change of tokens per second is -25 %, wanted at least -20 %.",
        ),
        ("strange_check", None, None, "", "Strange check: not measured."),
    ],
)
def test_verdicts_are_told_in_sentences(check, value, limit, unit, expected):
    assert outcome.sentence(verdict(check, "FAIL", value, limit, unit)) == expected


def test_steps_beyond_the_knee_do_not_fail_a_run():
    made = CASES["sweep"]
    assert outcome.of_entry(made["entries"][3])[0] == "FAIL"
    assert outcome.of_run(made)[0] == "PASS"
    assert "beyond the knee" in shown(made).text


def test_a_sweep_whose_first_step_breaks_fails_the_run():
    made = swept(limit=50)
    assert made["sweeps"][0]["knee"] is None
    assert outcome.of_run(made)[0] == "FAIL"
    assert "there is no knee" in shown(made).text


def change(percent, low, high, status="PASS", better=None, p_value=0.2):
    return {
        "before": 100.0,
        "after": 100.0 + percent,
        "change_percent": percent,
        "low_percent": low,
        "high_percent": high,
        "p_value": p_value,
        "verdict": status,
        "better": better,
    }


def compared(**given):
    made = {
        "baseline": "before-0.11.4",
        "comparable": True,
        "why_not": [],
        "metrics": {"ttft_ms": change(25.0, 18.0, 31.0, "FAIL", False, 0.0004)},
    }
    return {**made, **given}


def test_a_baseline_is_compared_with_its_interval_and_verdict():
    made = shown(run([entry(comparison=compared())]))
    assert "Against the baseline before-0.11.4" in made.text
    assert "100 ms 125 ms +25.0 % worse" in made.text
    assert "+18.0 % to +31.0 % < 0.001" in made.text
    assert "TTFT changed by +25.0 % against before-0.11.4: 100 ms before, 125 ms now." in made.text
    assert outcome.of_run(run([entry(comparison=compared())]))[0] == "FAIL"


def test_a_verdict_that_tells_of_the_baseline_is_not_told_twice():
    told = verdict("ttft_vs_baseline", "WARN", 125.0, 120.0, "ms")
    made = entry(comparison=compared(), verdicts=[told])
    assert outcome.of_entry(made) == (
        "WARN",
        ["TTFT against the baseline is 125 ms, wanted at most 120 ms."],
    )


def test_a_baseline_that_is_not_comparable_says_why():
    why = compared(comparable=False, why_not=["another digest"], metrics={})
    assert "Not comparable: another digest" in shown(run([entry(comparison=why)])).text


def test_sixty_four_models_fit_into_a_page():
    name = "organisation-with-a-long-name/model-{:02d}-instruct-with-a-very-long-name-awq-int4"
    entries = [entry(name.format(number), slo=90) for number in range(64)]
    content = page.render_page(run(entries))
    assert len(content.encode()) < LARGEST
    made = Page(content)
    assert "64 models" in made.text
    assert "52 more, each with its model below." in made.text
    drawn = re.findall(r'<text class="name"[^>]*>([^<]*)<', content)
    assert len(set(drawn)) == 64


def test_ten_thousand_samples_fit_into_a_page_and_the_slowest_is_drawn():
    samples = [sample(n, ttft=100.0 + n % 97) for n in range(1, 10_001)]
    for number, item in enumerate(samples):
        item["at_s"] = number / 100
    samples[7777]["ttft_ms"] = 60_000.0
    content = page.render_page(run([entry(samples=samples)]))
    assert len(content.encode()) < LARGEST / 10
    assert "Of 10,000 requests the slowest of each moment" in Page(content).text


def test_thinning_keeps_the_highest_and_the_shape():
    points = [(float(x), float(x % 10)) for x in range(10_000)]
    points[4321] = (4321.0, 999.0)
    kept = svg.thinned(points, 500)
    assert len(kept) <= 500
    assert (4321.0, 999.0) in kept
    assert kept == sorted(kept)
    assert sum(y < 5 for _x, y in kept) > 50
    assert svg.thinned(points[:3], 500) == points[:3]
    assert len(svg.thinned([(1.0, float(y)) for y in range(1000)], 100)) <= 100


def test_averaging_keeps_the_mean():
    points = [(float(x), float(x % 2)) for x in range(1000)]
    kept = svg.averaged(points, 100)
    assert len(kept) == 100
    assert all(y == 0.5 for _x, y in kept)


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0, 100, False, [0, 20, 40, 60, 80, 100]),
        (0, 0.37, False, [0, 0.1, 0.2, 0.3]),
        (1, 1000, True, [1, 3, 10, 30, 100, 300, 1000]),
        (1, 1e6, True, [1, 10, 100, 1e3, 1e4, 1e5, 1e6]),
        (3, 40, True, [5, 10, 20]),
    ],
)
def test_marks_of_an_axis_are_round_and_inside(low, high, log, expected):
    assert svg.Axis(low, high, 0, 100, log=log).marks == pytest.approx(expected)


def test_an_axis_holds_values_beyond_its_ends():
    axis = svg.Axis(1, 100, 0, 200, log=True)
    assert [axis.place(value) for value in (0.01, 1, 10, 100, 5000)] == pytest.approx(
        [0, 0, 100, 200, 200]
    )
    assert svg.Axis(5, 5, 0, 10).place(5) == 0


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], (0.0, 1.0, False)), ([0.0], (0.0, 1.0, False)), ([10, 100], (0.0, 108.0, False))],
)
def test_values_that_lie_close_stand_on_a_plain_axis(values, expected):
    assert svg.spread(values) == pytest.approx(expected)
    assert svg.spread([1.0, 100.0])[2] is True


def test_names_that_differ_stay_different_when_shortened():
    names = [f"a-very-long-common-beginning-{n}-and-a-very-long-common-end" for n in range(12)]
    assert len(set(svg.distinct(names, 20))) == 12
    assert all(len(name) <= 20 for name in svg.distinct(names, 20))
    assert svg.distinct(["short", "other"], 20) == ["short", "other"]


def test_gaps_over_the_limit_are_marked():
    drawn = plots.gaps(
        {"histogram": [[10, 5], [12.5, 9], [500, 0], [625, 2]], "stall_limit_ms": 500}
    )
    assert drawn.count('class="bar bad"') == 1
    assert "2 gaps of 500 ms to 625 ms" in drawn
    assert plots.gaps({"histogram": []}) == ""
    assert plots.gaps({"histogram": [[10, 0]]}) == ""


def test_the_timeline_is_laid_on_the_axis_of_the_requests():
    made = entry()
    made["timeline"]["begun_at"] = "2026-11-20T10:14:55.000Z"
    assert plots.offset(made) == pytest.approx(-5.0)
    panel = plots.machine_panels(made, 1000)[0]
    assert panel.series[0][1][0] == (pytest.approx(-5.0), 400.0)
    made["timeline"]["begun_at"] = "unknown"
    assert plots.offset(made) == 0.0


def test_each_gpu_has_a_line_of_its_own():
    panels = {panel.title: panel for panel in plots.machine_panels(entry(gpus=2), 1000)}
    assert [name for name, _points in panels["GPU utilisation"].series] == ["GPU 0", "GPU 1"]
    assert panels["GPU memory"].high == 16_000_000_000
    assert "Host CPU, all cores" in panels


def test_percentiles_are_marked_where_they_are():
    made = entry(samples=[sample(n, ttft=float(n)) for n in range(1, 102)])
    drawn = plots.distribution(made, {"ttft_ms": 50.0}, 1200)
    for told in ("p50  51 ms", "p90  91 ms", "p99  100 ms", "objective 50 ms"):
        assert told in drawn


def test_an_interval_is_drawn_around_zero():
    drawn = load_plots.interval(change(10.0, 5.0, 15.0), 20.0, "bad")
    assert 'cx="192"' in drawn
    assert "change +10.0 %, 95 % interval +5.0 to +15.0 %" in drawn
    assert load_plots.interval({"change_percent": None}, 20.0, "bad") == ""
    assert load_plots.reach_of([change(10.0, 5.0, 300.0)]) == 100.0
    assert load_plots.reach_of([]) == 5.0


def test_a_metric_without_values_has_no_row():
    made = entry()
    made["metrics"]["tpot_ms"] = summary([])
    rows = page.page_view(run([made]))["entries"][0]["table"]
    assert "TPOT" not in [row[0] for row in rows]
    assert "TTFT" in [row[0] for row in rows]
