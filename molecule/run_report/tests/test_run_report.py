# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

HOST_RUNS = "/opt/hx-infrastructure/llm-02/health/runs"
EXAMPLE = "/opt/hx-infrastructure/llm-02/health/report"
CONVERGE = "molecule/run_report/converge.yml"


@pytest.fixture
def run(playbook, tmp_path):
    """Run the example; returns the process and the directory with its records."""

    def example(*arguments):
        finished = playbook(CONVERGE, *arguments, MOLECULE_EPHEMERAL_DIRECTORY=str(tmp_path))
        return finished, tmp_path / "runs" / "llm-02"

    return example


def only_record(directory):
    return json.loads(next(directory.glob("*/run-record.json")).read_text(encoding="utf-8"))


def test_record_and_report_are_on_the_host(llm_02):
    names = llm_02.file(HOST_RUNS).listdir()
    assert sorted({name.rsplit(".", 1)[1] for name in names}) == ["html", "json"]
    for name in names:
        file = llm_02.file(f"{HOST_RUNS}/{name}")
        assert (file.user, file.group, file.mode) == ("root", "root", 0o640)
    newest = max(name for name in names if name.endswith(".json"))
    record = json.loads(llm_02.file(f"{HOST_RUNS}/{newest}").content_string)
    assert (record["schema"], record["host"], record["status"]) == (1, "llm-02", "ok")
    assert record["state"]["before"]["engine"]["version"] == "0.11.4"
    names = [model["name"] for model in record["state"]["after"]["stores"][0]["models"]]
    assert "phi3:latest" in names


def test_dry_run_says_what_the_real_run_does_and_leaves_nothing_on_the_host(llm_02, run):
    llm_02.check_output(f"rm -rf {EXAMPLE}")
    before = llm_02.file(HOST_RUNS).listdir()
    finished, directory = run("--check")
    assert finished.returncode == 0, finished.stdout
    assert "llm-02  PLAN ONLY, nothing was changed" in finished.stdout
    assert llm_02.file(HOST_RUNS).listdir() == before
    assert not llm_02.file(EXAMPLE).exists
    planned = only_record(directory)
    assert planned["verdict"] == "PLAN"
    (directory / planned["run_id"] / "run-record.json").unlink()
    finished, directory = run()
    assert finished.returncode == 0, finished.stdout
    done = only_record(directory)
    assert [entry["target"] for entry in done["plan"]] == [EXAMPLE]
    assert done["plan"] == planned["plan"]


def test_latest_report_shows_before_and_after(run):
    _finished, directory = run()
    page = (directory / "latest.html").read_text(encoding="utf-8")
    assert "Before and after" in page
    assert "/opt/hx-infrastructure/llm-02/backups/example.tgz" in page
    assert "phi3:latest" in page


def test_failure_is_recorded_and_explained(run):
    finished, directory = run("-e", "example_disk=gone")
    assert finished.returncode != 0
    assert "failed   Fail where a test asks for it: llm-02: the disk is gone" in finished.stdout
    assert "next     Look at the disk." in finished.stdout
    record = only_record(directory)
    assert (record["status"], record["failure"]["drained"]) == ("failed", False)
    assert record["failure"]["message"].startswith("llm-02: the disk is gone, wanted there.")


def test_only_the_newest_records_are_kept_on_the_host(llm_02, run):
    run()  # at least the fourth real run of this scenario
    assert len(llm_02.file(HOST_RUNS).listdir()) == 2 * 3
