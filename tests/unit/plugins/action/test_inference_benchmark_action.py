# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.hx_infra.llm.plugins.action import inference_benchmark as action


@pytest.fixture
def result():
    run = {"host": "llm-01", "started_at": "2026-01-01T00:00:00.000Z", "run_id": "ab12cd34"}
    return {"changed": True, "run": run, "benchmark": [], "problems": ["the CSV is full."]}


def test_the_page_and_its_figures_stand_side_by_side(result, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "ansible_collections.hx_infra.llm.plugins.plugin_utils._bench_files.render_page",
        lambda run: f"<p>{run['host']}</p>",
    )
    action.ActionModule._report(result, str(tmp_path), "llm-01")
    page = Path(result["report_file"])
    assert page.read_text() == "<p>llm-01</p>"
    assert json.loads(page.with_suffix(".json").read_text())["run_id"] == "ab12cd34"
    assert (page.parent / "benchmark.html").resolve() == page
    assert not result.get("failed")


def test_a_page_that_cannot_be_written_takes_nothing_away(result, tmp_path):
    (tmp_path / "file").write_text("")
    action.ActionModule._report(result, str(tmp_path / "file"), "llm-01")
    assert result["failed"]
    assert result["changed"]
    assert result["problems"][0] == "the CSV is full."
    assert "Correct report_dir" in result["problems"][1]
    assert result["msg"].startswith("llm-01: the page of the benchmark can't be written")
