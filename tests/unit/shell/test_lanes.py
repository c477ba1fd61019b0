# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lanes of `make test`, with a `make` that only notes what it is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

LANES = Path(__file__).parents[3] / "tools/lanes.sh"
MAKE = """#!/bin/bash
echo "$1 ${PRIORITY:-as it was}" >>"$NOTES"
case $1 in lane-1) sleep 1 ;; esac
[[ " $BROKEN " != *" $1 "* ]] || { echo "FAILED tests/of_$1"; exit 3; }
"""
NICE = """#!/bin/bash
PRIORITY="$1 $2" exec "${@:3}"
"""
PARTS = {
    *("lab", "lint", "lane-1", "lane-2", "sanity", "units", "core218", "import"),
    *(f"simulators-{number}" for number in range(1, 5)),
}


@pytest.fixture
def lanes(tmp_path):
    """Run the lanes; return the finished process and what was made, with the priority of each."""
    (tmp_path / "tools").mkdir()
    shutil.copy(LANES, tmp_path / "tools")
    for name, text in (("make", MAKE), ("nice", NICE)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    notes = tmp_path / "notes"

    def run(*broken):
        notes.write_text("")
        done = subprocess.run(
            ["bash", tmp_path / "tools/lanes.sh"],
            env={
                **os.environ,
                "PATH": f"{tmp_path}:{os.environ['PATH']}",
                "NOTES": str(notes),
                "BROKEN": " ".join(broken),
            },
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        made = [line.split(maxsplit=1) for line in notes.read_text().splitlines()]
        return done, [name for name, _priority in made], dict(made)

    return run


def test_each_part_is_done_once(lanes):
    done, made, _priority = lanes()
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(made) == sorted(PARTS)
    assert "What failed" not in done.stdout


def test_what_only_computes_is_done_at_the_lowest_priority_while_something_is_measured(lanes):
    _done, _made, priority = lanes()
    assert priority["lint"] == "-n 19"
    others = {priority[name] for name in PARTS if name.startswith(("la", "simulators"))}
    assert others == {"as it was"}


@pytest.mark.parametrize("broken", ["lint", "lane-1", "lane-2", "simulators-3", "sanity"])
def test_a_failure_ends_nothing_else_and_is_said_last(lanes, broken):
    done, made, _priority = lanes(broken)
    assert done.returncode != 0
    assert sorted(made) == sorted(PARTS)
    said = done.stdout.rpartition("What failed:")[2]
    assert f"FAILED tests/of_{broken}" in said
    assert said.count("FAILED") == 1


def test_without_the_lab_nothing_is_measured(lanes):
    done, made, _priority = lanes("lab")
    assert done.returncode == 3
    assert set(made) <= {"lab", "lint"}
