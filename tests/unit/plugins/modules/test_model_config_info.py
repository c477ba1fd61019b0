# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.hx_infra.llm.plugins.modules import model_config_info

FIXTURES = Path(__file__).parents[2] / "fixtures" / "model_config"


def run(path, expected=None, models_dir=None):
    return model_config_info.run(
        {"path": str(path), "expected": expected, "models_dir": models_dir}
    )


def test_a_file_that_agrees():
    result = run(FIXTURES / "canonical.env", ["llama3.2:3b", "qwen3:1.7b", "mistral-small3.2"])
    assert result["ok"] is True
    assert (result["changed"], result["actions"], result["plan"]) == (False, [], [])
    assert result["variables"][0] == {
        "name": "MODEL_LLAMA3_2_3B",
        "value": "llama3.2:3b",
        "line": 3,
        "model": "llama3.2:3b",
        "pin": "",
    }


def test_a_file_that_does_not():
    result = run(FIXTURES / "drifted.env", models_dir="/mnt/active_llm_models")
    assert result["ok"] is False
    failed = {item["check"] for item in result["verdicts"] if item["status"] == "FAIL"}
    assert failed == {"model_lists_agree", "model_count", "env_file_models_dir"}


@pytest.mark.parametrize("kind", ["missing", "directory", "large"])
def test_what_is_no_environment_file_gets_a_verdict(tmp_path, kind):
    path = tmp_path / "ollama.env"
    if kind == "directory":
        path.mkdir()
    elif kind == "large":
        path.write_bytes(b"#" * (model_config_info.MAX_BYTES + 1))
    result = run(path)
    assert (result["ok"], result["readable"]) == (False, False)
    assert result["exists"] is (kind != "missing")
    (verdict,) = result["verdicts"]
    assert verdict["check"] == "env_file_readable"
    assert verdict["status"] == "FAIL"
