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
echo "$1" >>"$NOTES"
case $1 in lane-1) sleep 1 ;; esac
[[ " $BROKEN " = *" $1 "* ]] || exit 0
if [ "$1" = lint ]; then echo "a line is too long in lint"; else echo "FAILED tests/of_$1"; fi
exit 3
"""
PARTS = {
    *("lab", "lint", "lane-1", "lane-2", "sanity", "units", "core218", "import"),
    *(f"simulators-{number}" for number in range(1, 5)),
}


@pytest.fixture
def lanes(tmp_path):
    """Run the lanes; return the finished process and what was made, in the order of the begins."""
    (tmp_path / "tools").mkdir()
    shutil.copy(LANES, tmp_path / "tools")
    (tmp_path / "make").write_text(MAKE)
    (tmp_path / "make").chmod(0o755)
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
        return done, notes.read_text().split()

    return run


def test_each_part_is_done_once(lanes):
    done, made = lanes()
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(made) == sorted(PARTS)
    assert "What failed" not in done.stdout


def test_nothing_else_is_begun_before_the_lab_is_up_and_a_third_lane_waits_for_the_measuring(lanes):
    _done, made = lanes()
    assert set(made[:2]) == {"lab", "lint"}
    # The second lane does what takes no time here; the first one measures for a second.
    assert made.index("lane-1") < made.index("simulators-1")


@pytest.mark.parametrize("broken", ["lint", "lane-1", "lane-2", "simulators-3", "sanity"])
def test_a_failure_ends_nothing_else_and_is_said_last(lanes, broken):
    done, made = lanes(broken)
    assert done.returncode != 0
    assert sorted(made) == sorted(PARTS)
    said = done.stdout.rpartition("What failed:")[2]
    reason = "a line is too long in lint" if broken == "lint" else f"FAILED tests/of_{broken}"
    assert reason in said.splitlines()
    assert said.count("build/") == 1


def test_without_the_lab_nothing_is_measured(lanes):
    done, made = lanes("lab")
    assert done.returncode == 3
    assert set(made) <= {"lab", "lint"}
