# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clients were at work while the host was remediated, twice: none of them noticed."""

from __future__ import annotations

import calendar
import json
import time
from pathlib import Path

import pytest

KEPT = Path(__file__).resolve().parents[3] / "build" / "molecule" / "real"
LOG = "/var/log/hx-gateway/access.jsonl"
SETTING = json.dumps({"llm_ollama_settings": {"OLLAMA_KEEP_ALIVE": "7m"}})


def runs():
    found = [json.loads(path.read_text()) for path in KEPT.glob("llm-01/*/run-record.json")]
    return sorted(found, key=lambda record: record["started"])


def span(record, phase=None):
    """Return begin and end of a run, or of one of its phases, as seconds since 1970."""
    part = next(item for item in record["phases"] if item["name"] == phase) if phase else record
    return part["started_epoch"], part["started_epoch"] + part["seconds"]


@pytest.fixture(scope="module")
def log(gw_01):
    """Return the gateway's lines: (when the answer ended, server)."""
    lines = [json.loads(line) for line in gw_01.file(LOG).content_string.splitlines()]
    return [
        (calendar.timegm(time.strptime(line["time"], "%Y-%m-%dT%H:%M:%SZ")), line["server"])
        for line in lines
        if line["method"] == "POST"
    ]


def test_no_request_failed(load):
    assert len(load) > 50
    assert [record for record in load if not record["ok"]] == []


def test_requests_were_answered_in_every_phase_of_both_runs(load):
    for record in runs():
        for phase in record["phases"]:
            begin, end = span(record, phase["name"])
            if end - begin < 3:  # as long as a request and the clients' pause
                continue
            answered = [r for r in load if r["ok"] and begin <= r["start"] <= end]
            assert answered, (record["run_id"], phase["name"])


def test_the_host_got_no_request_while_its_engine_was_changed(log):
    first = runs()[0]
    begin, _end = span(first, "services")
    _begin, end = span(first, "harden")
    assert [
        server for when, server in log if begin + 1 < when < end - 1 and "llm-01" in server
    ] == []


def test_the_host_served_before_and_afterwards(log):
    first, second = runs()[0], runs()[-1]
    assert [when for when, server in log if when < span(first)[1] and "llm-01" in server]
    assert [when for when, server in log if when > span(second)[0] and "llm-01" in server]


def test_the_record_tells_of_the_drain():
    data = runs()[0]["data"]["traffic"]
    assert data["drained"] is True
    assert data["drained_by"] == ["remediate"]
    assert data["gateways"] == ["gw-01"]
    assert data["undrained"] is True
    assert data["cut_streams"] == 0
    assert data["seconds"] > 0
    assert "traffic" not in runs()[-1]["data"]


def test_the_report_shows_it():
    [page] = [path for path in KEPT.glob("llm-01/*/report.md") if runs()[0]["run_id"] in str(path)]
    assert "without requests" in page.read_text()


def test_the_last_host_of_a_model_is_refused_before_anything_changes(playbook, llm_01, tmp_path):
    other = playbook("playbooks/drain.yml", "-l", "llm-03")
    assert other.returncode == 0, other.stdout + other.stderr
    begun = llm_01.run("systemctl show ollama -p ActiveEnterTimestamp --value").stdout
    arguments = ("-l", "llm-01", "-e", SETTING, "-e", f"llm_report_dir={tmp_path}")
    result = playbook("playbooks/remediate.yml", *arguments)
    output = " ".join((result.stdout + result.stderr).split())
    assert result.returncode != 0
    for word in (
        "llm-01",
        "llama3.2:3b",
        "qwen3:1.7b",
        "llm_drain_allow_last",
        "Nothing was changed",
    ):
        assert word in output, output[-3000:]
    assert "changed=0" in output
    assert llm_01.run("systemctl show ollama -p ActiveEnterTimestamp --value").stdout == begun
    back = playbook("playbooks/undrain.yml", "-l", "llm-03")
    assert back.returncode == 0, back.stdout + back.stderr


def test_a_host_whose_engine_does_not_start_stays_drained(playbook, gw_01, tmp_path):
    broken = json.dumps(
        {"ollama_service_extra": ["ExecStartPre=/bin/false"], "ollama_ready_timeout": 5}
    )
    where = f"llm_report_dir={tmp_path}"
    phase = ("playbooks/phase_services.yml", "-l", "llm-01")
    result = playbook(*phase, "-e", broken, "-e", where)
    output = " ".join((result.stdout + result.stderr).split())
    assert result.returncode != 0
    assert "undrain.yml -l llm-01" in output
    [record] = [json.loads(path.read_text()) for path in tmp_path.glob("llm-01/*/run-record.json")]
    assert record["failure"]["drained"] is True
    assert "llm-01" in gw_01.file("/var/lib/hx-llm/gateway/drained.json").content_string
    result = playbook(*phase, "-e", where)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "llm-01" not in gw_01.file("/var/lib/hx-llm/gateway/drained.json").content_string
