# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The roles models and declaration, run by ansible-playbook on this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import start_ollama, start_registry

ROOT = Path(__file__).resolve().parent.parent.parent
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
ONE, TWO = "tiny:1b", "tiny-think:1b"


def play(folder, role, variables, *arguments, tasks_from="main", result="", hosts=None):
    """Run a role; return exit status, output, and what the role registered."""
    shown = folder / "result.json"
    inventory = folder / "hosts.json"
    inventory.write_text(json.dumps({"all": {"hosts": hosts or {"localhost": {}}}}))
    book = [
        {
            "hosts": "all",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": sys.executable},
            "tasks": [
                {
                    "name": "Run the role",
                    "ansible.builtin.import_role": {
                        "name": f"hx_infra.llm.{role}",
                        "tasks_from": tasks_from,
                    },
                    "vars": variables,
                },
                {
                    "name": "Show the result",
                    "ansible.builtin.copy": {
                        "content": "{{ " + result + " | to_json }}",
                        "dest": str(shown),
                    },
                    "check_mode": False,
                    "changed_when": False,
                    "when": bool(result),
                },
            ],
        }
    ]
    path = folder / "play.yml"
    path.write_text(json.dumps(book))
    shown.unlink(missing_ok=True)
    done = subprocess.run(
        [str(PLAYBOOK), "-i", str(inventory), str(path), *arguments],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(shown.read_text()) if shown.exists() else None
    return done.returncode, done.stdout + done.stderr, found


@pytest.fixture
def variables(tmp_path):
    """An empty engine and a registry, as variables of the role."""
    with start_registry(tmp_path) as registry:
        ollama = start_ollama(tmp_path, "", env={"OLLAMA_NOPRUNE": "1"})
        registry.set_faults(bytes_per_second=500_000)
        yield {
            "models_catalog": [{"name": ONE}, {"name": TWO, "slo": {"ttft_ms": 6000}}],
            "models_forbidden": ["phi3"],
            "models_store": str(ollama.store),
            "models_url": ollama.url,
            "models_registry": registry.host,
            "models_registry_insecure": True,
            "models_reserve_bytes": 1024,
            "models_state_dir": str(tmp_path / "state"),
        }
        ollama.stop()


def test_check_run_and_run_again(tmp_path, variables):
    register = "__models_result_catalog"
    status, output, predicted = play(
        tmp_path, "models", variables, "--check", "--diff", result=register
    )
    assert status == 0, output
    assert "+tiny:1b" in output
    status, output, result = play(tmp_path, "models", variables, "--diff", result=register)
    assert status == 0, output
    assert f"localhost | {ONE} | pulling" in output
    assert result["actions"] == predicted["actions"]
    assert result["plan"] == predicted["plan"]
    assert "ansible_job_id" not in result
    status, output, again = play(tmp_path, "models", variables, result=register)
    assert status == 0, output
    assert "changed=0" in output
    assert again["actions"] == []


def test_a_plan_and_its_refusal(tmp_path, variables):
    reserve = variables.pop("models_reserve_bytes")
    hosts = {
        "llm-01": {"models_reserve_bytes": reserve},
        "full": {"models_reserve_bytes": 10**18},
    }
    status, output, planned = play(
        tmp_path, "models", variables, tasks_from="plan", result="models_planned", hosts=hosts
    )
    assert status == 2
    assert "Nothing was pulled. Free disk space" in output
    assert re.search(r"llm-01 +: ok=[0-9]+ +changed=0 .* failed=0", output), output
    assert re.search(r"full +: .* failed=1", output), output
    assert [(model["name"], model["size_bytes"]) for model in planned] == [
        (ONE, 1049330),
        (TWO, 1049388),
    ]
    assert {key for model in planned for key in model} == {"name", "size_bytes", "digest"}


def test_the_declaration(tmp_path):
    models = {"declaration_models": [{"name": ONE}], "declaration_models_forbidden": ["phi3"]}
    wrong = {
        "declaration_engine": "tgi",
        "declaration_models": [{"name": "phi3:latest"}, {"digest": "xyz"}],
        "declaration_models_forbidden": ["phi3"],
    }
    types = {"declaration_models": "x", "declaration_gpus": 5}
    status, output, _result = play(
        tmp_path, "declaration", {}, hosts={"good": models, "wrong": wrong, "types": types}
    )
    assert status == 2
    assert re.search(r"good +: ok=2 +changed=0 .* failed=0", output), output
    for text in (
        'wrong: llm_engine: found "tgi", wanted ollama',
        "wrong: llm_models[1].name: found nothing, wanted a model name such as",
        'wrong: llm_models[1].digest: found "xyz"',
        'wrong: llm_models_forbidden[0]: found "phi3"',
        'types: llm_models: found "x", wanted a list',
        "types: llm_gpus: found 5, wanted a dictionary",
    ):
        assert text in output
