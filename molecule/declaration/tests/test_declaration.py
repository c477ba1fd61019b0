# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json


def test_every_problem_is_named_at_once(playbook):
    wrong = {
        "llm_engine": "llamafile",
        "llm_models": [{"name": "qwen3:1.7b"}, {"digest": "a80c4f17acd5"}],
        "llm_models_forbidden": ["qwen3:1.7b"],
        "llm_bulk_device": "sda1",
    }
    result = playbook("molecule/declaration/converge.yml", "-e", json.dumps(wrong))
    assert result.returncode != 0
    output = " ".join((result.stdout + result.stderr).split())
    for field in ("llm_engine", "llm_models[1].name", "llm_models_forbidden", "llm_bulk_device"):
        assert f"llm-01: {field}" in output, output


def test_the_lab_s_own_declarations_are_right(playbook):
    result = playbook("molecule/declaration/converge.yml")
    assert result.returncode == 0, result.stdout
    assert "changed=0" in result.stdout
