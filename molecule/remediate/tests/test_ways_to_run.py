# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ways in which operators start the playbook, on the host that is remediated already."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
INVENTORY = str(ROOT / "inventories" / "lab")


@pytest.fixture
def reports(tmp_path):
    return f"llm_report_dir={tmp_path}/reports"


def assert_ran(result, *phases):
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert "changed=0" in output
    for number, name in enumerate(
        ["prepare", "storage", "services", "models", "validate", "harden"], start=1
    ):
        assert (f"Phase {number} {name} | end" in output) == (name in phases), name


def test_one_phase_by_its_tag(playbook, reports):
    result = playbook("playbooks/remediate.yml", "-l", "llm-01", "--tags", "storage", "-e", reports)
    assert_ran(result, "storage")


def test_one_phase_by_its_playbook(playbook, reports):
    assert_ran(playbook("playbooks/phase_models.yml", "-l", "llm-01", "-e", reports), "models")


def test_from_a_phase_on(playbook, reports):
    start = "Phase 6 harden | begin"
    result = playbook(
        "playbooks/remediate.yml", "-l", "llm-01", "--start-at-task", start, "-e", reports
    )
    assert_ran(result, "harden")


def test_from_the_playbooks_folder(playbook, reports):
    result = playbook(
        "remediate.yml",
        *("-l", "llm-01", "--tags", "prepare", "-e", reports),
        cwd=ROOT / "playbooks",
        ANSIBLE_CONFIG="ansible.cfg",
    )
    assert_ran(result, "prepare")


def test_from_the_tarball_installed_elsewhere(playbook, reports, tmp_path):
    built = tmp_path / "build"
    nothing = tmp_path / "nothing.cfg"
    nothing.write_text("")
    collections = tmp_path / "collections"
    # Elsewhere: nothing of the checkout's own configuration may help.
    elsewhere = {k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_")}
    for command in (
        ["ansible-galaxy", "collection", "build", str(ROOT), "--output-path", str(built)],
        ["ansible-galaxy", "collection", "install", "--offline", "-p", str(collections)],
    ):
        arguments = command if "build" in command else [*command, *map(str, built.glob("*.gz"))]
        subprocess.run(arguments, cwd=tmp_path, env=elsewhere, check=True, capture_output=True)
    result = playbook(
        "hx_infra.llm.remediate",
        *("-i", INVENTORY, "-l", "llm-01", "--tags", "prepare,models", "-e", reports),
        cwd=tmp_path,
        ANSIBLE_CONFIG=str(nothing),
        ANSIBLE_COLLECTIONS_PATH=str(collections),
    )
    assert_ran(result, "prepare", "models")
