# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The dry run told the truth, and the run left a record that can be shown."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
KEPT = ROOT / "build" / "molecule"


def records(folder):
    found = sorted((KEPT / folder / "llm-01").glob("*/run-record.json"))
    return [json.loads(path.read_text()) for path in found]


def steps(record):
    return [
        (entry["phase"], entry["role"], entry["step"], entry["action"], entry["target"])
        for entry in record["plan"]
    ]


@pytest.fixture(scope="module")
def first_real_run():
    return min(records("real"), key=lambda record: record["started"])


def test_the_dry_run_changed_nothing():
    before = (KEPT / "before.txt").read_text().splitlines()
    after = (KEPT / "after.txt").read_text().splitlines()
    assert len(before) > 1000
    assert sorted(set(before) ^ set(after)) == []


def test_the_dry_run_predicted_exactly_what_the_real_run_did(first_real_run):
    [dry] = records("dry")
    assert dry["mode"] == "check"
    predicted, done = steps(dry), steps(first_real_run)
    assert len(done) > 20
    assert predicted == done


def test_the_second_run_planned_nothing():
    second = max(records("real"), key=lambda record: record["started"])
    assert steps(second) == []


def test_the_second_run_restarted_nothing(llm_01):
    second = max(records("real"), key=lambda record: record["started"])
    shown = llm_01.run("systemctl show ollama --timestamp=unix -p ActiveEnterTimestamp --value")
    assert 0 < int(shown.stdout.strip().lstrip("@")) < second["started_epoch"]


def test_the_record_has_a_verdict_for_every_phase(first_real_run):
    verdicts = {phase["name"]: phase["verdict"] for phase in first_real_run["phases"]}
    phases = ["prepare", "storage", "services", "models", "validate", "harden", "undrain"]
    assert list(verdicts) == phases
    assert set(verdicts.values()) == {"PASS"}
    assert first_real_run["verdict"] == "PASS"


def test_the_reclaimed_bytes_are_reported(first_real_run):
    pruned = [entry for entry in first_real_run["plan"] if entry.get("verb") == "prune_partial"]
    assert len(pruned) == 17
    assert sum(entry["details"]["bytes"] for entry in pruned) > 1_000_000


class Resources(HTMLParser):
    """Collects what a page would fetch from elsewhere."""

    def __init__(self):
        super().__init__()
        self.fetched = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in {"src", "href"} and value and not value.startswith(("#", "data:")):
                self.fetched.append((tag, value))


def test_the_report_stands_alone_and_names_what_matters():
    page = (KEPT / "real" / "llm-01" / "latest.html").read_text()
    parser = Resources()
    parser.feed(page)
    assert parser.fetched == []
    for text in ("llm-01", "mistral-small3.2:latest", "<svg"):
        assert text in page


def test_the_host_keeps_record_and_report(llm_01):
    listing = llm_01.run("find /opt/hx-infrastructure/llm-01/health -name '*.html'").stdout
    assert listing.strip()
