# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What benchmark runs amount to: figures, recommendations by rule, and whether a host is ready."""

from __future__ import annotations

import pytest
from bench_runs import entry, run, sample, verdict

from ansible_collections.hx_infra.llm.plugins.module_utils import _bench_sweep as sweep
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _performance_report as reports
from ansible_collections.hx_infra.llm.plugins.plugin_utils import (
    _performance_report_figures as figures,
)
from ansible_collections.hx_infra.llm.plugins.plugin_utils import (
    _performance_report_render as rendered,
)
from ansible_collections.hx_infra.llm.plugins.plugin_utils import (
    _performance_report_rules as rules,
)

FACTS = {
    "host": "llm-01",
    "models": [{"name": "llama3.2:3b", "size_bytes": 2_000_000_000, "digest": "sha256:a80c"}],
    "disk": {"path": "/data", "total_bytes": 1000e9, "free_bytes": 700e9},
}
SLO = {"ttft_ms": 500}


def swept(model="llama3.2:3b", broken_from=8, **given):
    points = [
        {
            "value": load,
            "total_tokens_per_s": 80.0 * load,
            "ttft_p95_ms": 100.0,
            "broken": ["TTFT (p95) is 900 ms"] if load >= broken_from else [],
        }
        for load in (1, 2, 4, 8)
    ]
    made = {**sweep.summarise(points, SLO), "model": model}
    entries = [entry(model, concurrency=load, slo=500, **given) for load in (1, 2, 4, 8)]
    return run(entries, made)


def ready():
    made = swept()
    for item in made["entries"]:
        item["metrics"]["cold_ttft_ms"] = 400.0
    return made


def rules_found(runs, facts=None, **limits):
    report = reports.build_report(runs, facts or FACTS, limits)
    return {item["rule"]: item for item in report["recommendations"]}, report


def test_a_host_that_nothing_stands_against_is_ready():
    found, report = rules_found([ready()])
    assert set(found) == {"R15"}
    assert report["verdict"] == "READY"
    assert report["unknown"] == [
        "Latency by prompt length of llama3.2:3b: its prompts are about as long."
    ]


def changed(**given):
    """Return a ready run whose first entry has other figures."""
    made = ready()
    made["entries"][0].update(given)
    return made


def metric(**given):
    made = ready()
    made["entries"][0]["metrics"].update(given)
    return made


def observed(**given):
    made = ready()
    for item in made["entries"][0]["timeline"]["rows"]:
        item.update({name: value for name, value in given.items() if name in item})
        for gpu in item["gpu"]:
            gpu.update({name: value for name, value in given.items() if name in gpu})
    return made


def failed(kind, number):
    samples = [sample(n, error=kind if n <= number else "") for n in range(1, 201)]
    made = ready()
    made["entries"][0] = entry(samples=samples, concurrency=1, slo=500)
    return made


BASE = {"before": 100.0, "after": 150.0, "change_percent": 50.0}
CASES = [
    ("R02", "blocker", changed(validity={"state": "INVALID", "reasons": ["Client-limited."]})),
    ("R02", "condition", changed(validity={"state": "UNRELIABLE", "reasons": ["Few."]})),
    ("R03", "blocker", changed(verdicts=[verdict("ttft", "FAIL", 812.0, 400, "ms")])),
    ("R03", "condition", changed(verdicts=[verdict("ttft", "WARN", 812.0, 400, "ms")])),
    (
        "R05",
        "blocker",
        changed(comparison={"baseline": "b", "metrics": {"ttft_ms": {**BASE, "verdict": "FAIL"}}}),
    ),
    (
        "R05",
        "condition",
        changed(comparison={"baseline": "b", "metrics": {"ttft_ms": {**BASE, "verdict": "WARN"}}}),
    ),
    ("R06", "blocker", failed("out_of_memory", 1)),
    ("R07", "blocker", failed("timeout", 10)),
    ("R07", "condition", failed("timeout", 1)),
    ("R08", "condition", metric(tokens_per_s={"count": 40, "median": 90.0, "cv_percent": 21.0})),
    ("R09", "condition", metric(gap_ms={"count": 3000, "stalls": 40, "max": 900.0})),
    ("R12", "condition", metric(gpu_ratio=0.8)),
    ("R12", "blocker", metric(gpu_ratio=0.0)),
    ("R13", "advice", metric(cold_ttft_ms=9000.0)),
    ("R14", "blocker", swept(broken_from=1)),
    ("R17", "condition", observed(memory_used_bytes=15.5e9)),
    ("R18", "condition", observed(temperature_c=84.0)),
    ("R19", "condition", observed(throttle=["sw_power_cap", "sw_thermal_slowdown"])),
    ("R21", "condition", observed(memory_used_bytes=63e9)),
]


@pytest.mark.parametrize(("rule", "severity", "made"), CASES)
def test_each_rule_objects_with_its_value_and_limit(rule, severity, made):
    found, report = rules_found([made])
    assert found[rule]["severity"] == severity
    assert found[rule]["text"].endswith(".")
    severities = {item["severity"] for item in found.values()}
    if "blocker" in severities:
        assert report["verdict"] == "NOT READY"
    else:
        assert report["verdict"] == (
            "READY WITH CONDITIONS" if "condition" in severities else "READY"
        )
    gravest = min(severities, key=rules.ORDER.index)
    told = any(found[rule]["text"] in reason for reason in report["reasons"])
    assert told == (severity == gravest != "advice")


def test_doubts_about_a_model_are_one_finding_that_names_loads_and_reasons():
    runs = []
    for prompt, busy in ((64, 91), (512, 92), (2048, 93), (4096, 94), (8192, 0)):
        made = run([entry("llama3.2:3b", concurrency=1)])
        made["options"] = {**made["options"], "prompt_tokens": prompt}
        doubts = {"state": "UNRELIABLE", "reasons": [f"{busy} % busy", "few"]}
        made["entries"][0]["validity"] = doubts if busy else {"state": "VALID", "reasons": []}
        runs.append(made)
    report = reports.build_report(runs, FACTS, {})
    [told] = [item["text"] for item in report["recommendations"] if item["rule"] == "R02"]
    assert told.startswith("The figures at 4 of 5 loads (1 at once, prompts of 64 tokens; ")
    assert "; 1 more) are UNRELIABLE: 91 % busy; few; 92 % busy; 2 more. Measure" in told


@pytest.mark.parametrize(
    ("rule", "made", "limit"),
    [
        ("R08", metric(tokens_per_s={"count": 9, "median": 9.0, "cv_percent": 20.0}), {}),
        ("R12", metric(gpu_ratio=1.0), {}),
        ("R13", metric(cold_ttft_ms=5000.0), {}),
        ("R18", observed(temperature_c=84.0), {"gpu_temperature_c": 85}),
        ("R17", observed(memory_used_bytes=14.3e9), {}),
        ("R19", observed(throttle=["sw_power_cap"]), {}),
    ],
)
def test_a_figure_at_its_limit_is_within_it(rule, made, limit):
    found, _report = rules_found([made], **limit)
    assert rule not in found


def test_a_full_disk_is_a_condition():
    facts = {**FACTS, "disk": {"path": "/data", "total_bytes": 100e9, "free_bytes": 10e9}}
    found, _report = rules_found([ready()], facts)
    assert (found["R22"]["value"], found["R22"]["limit"], found["R22"]["unit"]) == (90.0, 85.0, "%")
    assert "10 GB are free" in found["R22"]["text"]


def test_idle_gpus_are_told_once_and_stop_nothing():
    made = ready()
    for item in made["entries"]:
        for second in item["timeline"]["rows"]:
            for gpu in second["gpu"]:
                gpu["util_percent"] = 20.0
    found, report = rules_found([made])
    assert found["R20"]["severity"] == "advice"
    assert report["verdict"] == "READY"


def test_without_objectives_nothing_proves_that_it_is_fast_enough():
    found, report = rules_found([run([entry()])])
    assert found["R04"]["severity"] == "condition"
    assert found["R16"]["severity"] == "condition"
    assert report["verdict"] == "READY WITH CONDITIONS"


def test_a_model_of_the_catalog_that_was_not_measured_is_named():
    facts = {**FACTS, "models": [*FACTS["models"], {"name": "phi3:latest"}]}
    found, report = rules_found([ready()], facts)
    assert found["R11"]["subject"] == "phi3:latest"
    assert "Size of phi3:latest: not in the catalog's facts." in report["unknown"]


def test_few_samples_are_a_condition():
    made = run([entry(samples=[sample(n) for n in range(1, 6)], slo=500)])
    found, _report = rules_found([made])
    assert (found["R10"]["value"], found["R10"]["limit"]) == (5, 20.0)


def test_nothing_measured_is_not_ready():
    found, report = rules_found([])
    assert report["verdict"] == "NOT READY"
    assert "R01" in found
    assert "GPU memory, temperature and power: no GPU was observed." in report["unknown"]


def test_what_the_facts_do_not_say_is_not_guessed():
    made = run(
        [entry(timeline=None, samples=[sample(n, ttft=None, prompt_tokens=0) for n in range(9)])]
    )
    made["entries"][0]["metrics"].update(load_ms=None, cold_ttft_ms=None, gpu_ratio=None)
    report = reports.build_report([made], {})
    told = " ".join(report["unknown"])
    for part in ("Size of", "Load time of", "TTFT of", "prompt length", "GPU placement", "Disk"):
        assert part in told
    assert "The catalog: no facts were given" in told
    row = report["models"][0]
    assert row["size_bytes"] is None
    assert row["load_bytes_per_s"] is None
    assert "not known" in rendered.render_markdown(report)


def test_runs_of_two_hosts_are_refused():
    with pytest.raises(HostError, match=r"llm-01, llm-02.*wanted those of one host"):
        reports.build_report([ready(), run(host="llm-02")], FACTS)


def test_a_limit_that_no_rule_has_is_refused():
    with pytest.raises(HostError, match="no limit speed"):
        reports.build_report([ready()], FACTS, {"speed": 1})


def test_load_time_is_told_by_size():
    row = reports.build_report([ready()], FACTS)["models"][0]
    assert row["load_bytes_per_s"] == pytest.approx(2e9 / 8.0)


def test_capacity_is_the_knee_of_the_sweep():
    _found, report = rules_found([ready()])
    (row,) = report["capacity"]
    assert (row["value"], row["source"], row["at_least"]) == (4, "sweep", False)


def test_without_a_sweep_capacity_is_the_highest_load_that_passed():
    made = run(
        [
            entry(concurrency=2, slo=500),
            entry(concurrency=8, slo=500),
            entry(concurrency=16, slo=90),
        ]
    )
    (row,) = reports.build_report([made], FACTS)["capacity"]
    assert (row["value"], row["source"], row["at_least"]) == (8, "load", True)


def test_a_sweep_of_one_model_says_nothing_of_another():
    made = swept()
    made["entries"].append(entry("other", slo=90))
    rows = {row["model"]: row for row in reports.build_report([made], FACTS)["capacity"]}
    assert rows["llama3.2:3b"]["source"] == "sweep"
    assert rows["other"]["value"] is None


def test_models_are_compared_at_a_load_that_all_have():
    made = run([entry("a", concurrency=1), entry("a", concurrency=8), entry("b", concurrency=8)])
    report = reports.build_report([made], {})
    assert [row["load"] for row in report["models"]] == ["8 at once", "8 at once"]
    assert report["same_load"] is True
    other = run([entry("a", concurrency=1), entry("b", concurrency=8)])
    report = reports.build_report([other], {})
    assert [row["load"] for row in report["models"]] == ["1 at once", "8 at once"]
    assert "the loads differ" in rendered.render_markdown(report)


def test_models_are_compared_at_prompts_of_one_length():
    def measured(model, tokens, ttft):
        samples = [sample(n, ttft=ttft, prompt_tokens=tokens) for n in range(1, 31)]
        options = {"prompt_tokens": tokens}
        return run([entry(model, samples=samples, concurrency=1)], options=options)

    runs = [measured("a", 2048, 900.0), measured("a", 64, 100.0), measured("b", 64, 120.0)]
    report = reports.build_report(runs, {})
    assert [(row["load"], row["ttft_ms"]) for row in report["models"]] == [
        ("1 at once, prompts of 64 tokens", 100.0),
        ("1 at once, prompts of 64 tokens", 120.0),
    ]
    assert report["same_load"] is True
    [lengths] = [item for item in report["prompt_lengths"] if item["model"] == "a"]
    assert len(lengths["rows"]) == 2  # all lengths, though models are compared at one
    report = reports.build_report(runs[::2], {})
    assert report["same_load"] is False


def test_variation_is_that_of_one_request_at_a_time():
    crowd = entry(concurrency=8)
    crowd["metrics"]["tokens_per_s"]["cv_percent"] = 60.0
    alone = entry(concurrency=1)
    alone["metrics"]["tokens_per_s"]["cv_percent"] = 3.0
    assert figures.stability("m", [alone, crowd])["cv_percent"] == 3.0
    assert figures.stability("m", [crowd])["cv_percent"] is None


def test_capacity_is_that_of_the_newest_sweep():
    old, new = swept(broken_from=2), swept(broken_from=8)
    old["started_at"] = "2026-11-01T10:00:00Z"
    for runs in ([old, new], [new, old]):
        (row,) = reports.build_report(runs, FACTS)["capacity"]
        assert row["value"] == 4


def test_latency_by_prompt_length_groups_and_fits():
    samples = [
        sample(n, ttft=50.0 + tokens * 0.2, prompt_tokens=tokens)
        for n, tokens in enumerate((10, 63, 64, 127, 128, 1000, 2000), start=1)
    ]
    samples.append(sample(9, ttft=9000.0, prompt_tokens=500))  # one that stalled bends no slope
    found = figures.prompt_lengths("m", [entry(samples=samples)])
    assert [(row["low"], row["high"], row["requests"]) for row in found["rows"]] == [
        (0, 63, 2),
        (64, 127, 2),
        (128, 255, 1),
        (256, 511, 1),
        (512, 1023, 1),
        (1024, 2047, 1),
    ]
    assert found["ms_per_1000"] == pytest.approx(200.0, rel=0.05)


def test_prompts_of_one_length_carry_no_slope():
    found = figures.prompt_lengths("m", [entry()])
    assert found["ms_per_1000"] is None
    assert figures.prompt_lengths("m", [entry(samples=[sample(1, prompt_tokens=0)])]) is None


def test_figures_beyond_the_knee_and_of_invalid_loads_are_left_out():
    made = ready()
    made["entries"][3]["errors"] = {"timeout": 40}
    assert len(figures.entries_of([made])["llama3.2:3b"]) == 3
    made["entries"][0]["validity"] = {"state": "INVALID", "reasons": []}
    assert len(figures.entries_of([made])["llama3.2:3b"]) == 2


def test_the_disk_is_told_by_model():
    found = figures.disk(FACTS)
    assert found["used_percent"] == pytest.approx(30.0)
    assert found["rows"] == [
        {"model": "llama3.2:3b", "size_bytes": 2_000_000_000, "percent": pytest.approx(0.2)}
    ]
    assert figures.disk({})["used_percent"] is None


def test_both_documents_hold_the_same():
    report = reports.build_report([ready(), metric(cold_ttft_ms=9000.0)], FACTS)
    markdown, html = rendered.render_markdown(report), rendered.render_html(report)
    for title in (
        "Models compared",
        "Load time by size",
        "Latency by prompt length: llama3.2:3b",
        "Concurrency capacity",
        "GPU memory and load",
        "System memory and processor",
        "Disk use of the store",
        "Stability",
        "Findings and recommendations",
    ):
        assert f"## {title}\n" in markdown
        assert f"<h2>{title}</h2>" in html
    for rule in report["recommendations"]:
        assert f"| {rule['rule']} |" in markdown
        assert f">{rule['rule']}</td>" in html
    assert "cv_percent 20" in markdown
    assert "<script" not in html
    assert "src=" not in html


def test_tables_of_the_markdown_have_as_many_cells_in_every_row():
    markdown = rendered.render_markdown(reports.build_report([ready()], FACTS))
    lines = markdown.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("|---"):
            cells = line.count("|")
            at = number - 1
            while at < len(lines) and lines[at].startswith("|"):
                assert lines[at].replace("\\|", "").count("|") == cells, lines[at]
                at += 1


def test_names_cannot_become_markup():
    bad = "<script>alert(1)</script>|`"
    made = run([entry(bad, validity={"state": "UNRELIABLE", "reasons": [bad]})], host=bad)
    report = reports.build_report([made], {"models": [{"name": bad}]})
    assert "<script" not in rendered.render_html(report)
    assert "<script" not in rendered.render_markdown(report)
