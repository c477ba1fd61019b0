# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a report shows, and the documents themselves."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report as report
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_compare as compare
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_files as files
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_summary as summary
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_svg as svg
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_text as text

ROOT = Path(__file__).resolve().parents[4]
FIXTURES = ROOT / "tests" / "unit" / "fixtures" / "run_record"
TEMPLATES = ROOT / "roles" / "run_report" / "templates"
NAMES = ("remediated", "plan_only", "failed")
HOSTILE = "<script>alert(1)</script>\"'&{{ 7 * 7 }}"
VOID = {"meta", "br", "wbr", "line", "rect", "circle", "!doctype"}


def record_of(name):
    return json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))


def html_of(record):
    return files.render(str(TEMPLATES / "report.html.j2"), report.view(record))


def markdown_of(record):
    return files.render(str(TEMPLATES / "report.md.j2"), report.view(record))


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(page)
        self.close()

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
        self.texts.append(data)


def hostile(value):
    """Replace every text of a record that comes from a host by something hostile."""
    kept = ("name", "status", "phase", "kind", "mode", "run_id", "started", "verdict", "host")
    if isinstance(value, dict):
        return {k: v if k in kept or k == "schema" else hostile(v) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


@pytest.mark.parametrize("name", NAMES)
def test_page_is_well_formed_and_stands_alone(name):
    page = Page(html_of(record_of(name)))
    assert page.open == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    named = {attribute for attribute, _value in page.attributes}
    assert not {"src", "href", "onclick", "onload"} & named
    assert "url(" not in html_of(record_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_hostile_texts_stay_texts(name):
    page = html_of(hostile(record_of(name)))
    assert "script" not in Page(page).tags
    assert "<script>" not in page
    assert "{{ 7 * 7 }}" in page
    assert "<script>" not in markdown_of(hostile(record_of(name)))


def test_dry_run_is_marked():
    shown = " ".join(Page(html_of(record_of("plan_only"))).texts)
    assert "PLAN ONLY, nothing was changed." in shown
    assert "A real run would make 36 changes." in shown
    assert "Where to go back" not in shown
    assert "PLAN ONLY" in markdown_of(record_of("plan_only"))


def test_page_holds_what_a_reader_asks_for():
    page = html_of(record_of("remediated"))
    for wanted in (
        "36 changes made, 38 of 39 checks passed.",
        "817 MB",
        "llm-01-20261120-101502.tgz",
        "Restart ollama.service: its drop-in changed.",
        "coefficient of variation",
    ):
        assert wanted in page
    assert page.count("<svg") == 2
    assert page.count('<tr class="changed">') == 17


def test_failure_says_what_how_and_next():
    shown = " ".join(" ".join(Page(html_of(record_of("failed"))).texts).split())
    assert "Stopped in phase storage: Copy the store to the bulk disk failed." in shown
    assert "wanted 5a408ab55df5" in shown
    assert "It is drained: no new requests reach it." in shown
    assert "Check the disk /dev/sda1" in shown


@pytest.mark.parametrize("name", NAMES)
def test_summary_fits_one_screen(name):
    lines = summary.lines(report.view(record_of(name)), {"html": "/runs/report.html"})
    assert len(lines) <= summary.HEIGHT
    assert max(map(len, lines)) <= summary.WIDTH


def test_summary_fits_one_screen_at_its_worst():
    record = record_of("failed")
    record["failure"]["message"] = "very long " * 400
    record["failure"]["next_step"] = "do this " * 100
    lines = summary.lines(report.view(record), {"html": "/runs/report.html"})
    assert len(lines) <= summary.HEIGHT
    assert any(line.startswith("report ") for line in lines)


def test_summary_of_a_failure():
    told = "\n".join(summary.lines(report.view(record_of("failed")), {"html": "/r.html"}))
    assert re.search(r"^ {2}2 Storage +FAIL", told, re.MULTILINE)
    assert re.search(r"^ {2}3 Services +not run$", told, re.MULTILINE)
    assert "host     It is drained" in told
    assert "next     Check the disk" in told


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("remediated", "Look at the warnings in the report."),
        ("plan_only", "Run again without --check to apply the plan."),
    ],
)
def test_next_step(name, wanted):
    assert summary.next_step(report.view(record_of(name))) == wanted


def test_second_run_says_that_nothing_had_to_change():
    record = record_of("remediated")
    record.update(plan=[], changed=0)
    assert report.headline(record).startswith("Nothing had to change, 38 of 39")
    assert "the host stands as declared" in html_of(record)


def test_comparison():
    record = record_of("remediated")
    before, after = record["state"]["before"], record["state"]["after"]
    rows = {row["label"]: row for row in compare.rows(before, after)}
    assert rows["Partial downloads"] == {
        "label": "Partial downloads",
        "before": "17 files, 817 MB",
        "after": "none",
        "changed": True,
    }
    assert not rows["Models"]["changed"]
    assert rows["gpu-telemetry.timer"]["before"] == "not installed"
    assert compare.reclaimed(before, after) == 817000000
    assert compare.rows({}, {}) == []


@pytest.mark.parametrize("part", ["before", "after"])
def test_a_state_that_is_missing_is_no_error(part):
    record = record_of("remediated")
    record["state"][part] = {}
    assert Page(html_of(record)).open == []


def test_a_host_that_could_not_be_observed_again_is_not_compared():
    record = record_of("failed")
    record["state"]["after"] = {}
    page = html_of(record)
    assert "At its end the host could not be observed." in page
    assert 'class="changed"' not in page


def test_a_run_that_began_in_the_middle_compares_nothing():
    record = record_of("remediated")
    record["state"]["before"] = {}
    page = html_of(record)
    assert "the run began in the middle" in page
    assert 'class="changed"' not in page
    assert "/data/llm_bulk_storage" in page
    assert "| What | Now |" in markdown_of(record)


def test_empty_record():
    record = copy.deepcopy(record_of("remediated"))
    record.update(plan=[], verdicts=[], phases=[], data={}, changed=0, seconds=0)
    record["state"] = {"before": {}, "after": {}}
    assert Page(html_of(record)).open == []
    assert markdown_of(record)


@pytest.mark.parametrize(
    "measured",
    [
        {"model": "a", "ttft_ms": [10.0, 30.0, 20.0], "tokens_per_s": 5},
        {"model": "a", "metrics": {"ttft_ms": {"median": 20.0}, "tokens_per_s": {"median": 5}}},
        {"model": "a", "ttft_ms": {"median": 20}, "tokens_per_s": [4, 5, 6]},
    ],
)
def test_speeds_in_every_form(measured):
    record = record_of("remediated")
    record["data"]["benchmark"] = [measured]
    speed = report.model_speeds(record)[0]
    assert (speed["median"], speed["rate"]) == (20.0, 5.0)


def test_a_model_that_was_measured_in_two_ways():
    record = record_of("remediated")
    verdict = {"check": "ttft", "subject": "llama3.2:3b", "limit": 50}
    record["data"]["benchmark"] = [
        {"model": "llama3.2:3b", "series": "baseline", "ttft_ms": [10.0], "verdicts": [verdict]},
        {"model": "llama3.2:3b", "series": "concurrency", "ttft_ms": [90.0]},
    ]
    first, second = report.model_speeds(record)
    assert (first["label"], first["limit"]) == ("llama3.2:3b", 50.0)
    assert (second["label"], second["limit"], second["further"]) == ("concurrency", None, True)
    shown = report.view(record)
    assert shown["figures"][-1]["value"] == "10 ms"
    assert shown["models"][0]["ttft"] == "10 ms"


def test_plot_uses_a_logarithm_only_when_needed():
    near = [{"label": "a", "samples": [], "median": 100.0, "limit": 300.0, "rate": 10}]
    far = [*near, {"label": "b", "samples": [], "median": 9000.0, "limit": None, "rate": 1}]
    assert "logarithmic" not in svg.latency(near)
    assert "logarithmic" in svg.latency(far)
    assert svg.latency([]) == ""
    assert "over" in svg.latency([{**near[0], "limit": 50.0}])


@pytest.mark.parametrize(
    ("count", "wanted"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (817e6, "817 MB"),
        (999.6e6, "1.0 GB"),
        (18.4e9, "18 GB"),
    ],
)
def test_size(count, wanted):
    assert text.size(count) == wanted


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        (0.25, "250 ms"),
        (2.4, "2.4 s"),
        (59, "59 s"),
        (60, "1 min"),
        (84, "1 min 24 s"),
        (3600, "1 h"),
        (3725, "1 h 2 min"),
        (None, "not known"),
    ],
)
def test_duration(seconds, wanted):
    assert text.duration(seconds) == wanted


def test_newest_runs_are_kept(tmp_path):
    for number in range(5):
        folder = tmp_path / f"2026112{number}T000000Z-real"
        folder.mkdir()
        (folder / files.RECORD).write_text("{}")
    (tmp_path / "notes").mkdir()
    assert files.keep_newest(str(tmp_path), 2) == [f"2026112{n}T000000Z-real" for n in range(3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "20261123T000000Z-real",
        "20261124T000000Z-real",
        "notes",
    ]
    assert files.keep_newest(str(tmp_path), 0) == []


def test_latest_leads_to_the_newest_report(tmp_path):
    for run in ("one", "two"):
        files.write(str(tmp_path / run / files.HTML), run)
        files.point_latest(str(tmp_path), run)
    assert (tmp_path / files.LATEST).read_text() == "two"


def test_fixtures_say_where_they_come_from():
    assert (FIXTURES / "README.md").is_file()
