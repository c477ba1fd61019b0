# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

NODE = "/opt/hx-infrastructure/llm-02"
CONVERGE = "molecule/hardening/converge.yml"
UNDO = "/var/lib/hx-llm/permissions-undo.jsonl"


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("health/open", 0o775),
        ("health/open/notes.txt", 0o664),
        ("health/open/run.sh", 0o775),
        ("health/sticky", 0o1777),
        ("health/drop", 0o777),
        ("models/left/file", 0o666),
    ],
)
def test_only_the_one_permission_goes(llm_02, path, mode):
    assert llm_02.file(f"{NODE}/{path}").mode == mode


def test_a_critical_file_is_put_right(llm_02):
    file = llm_02.file(f"{NODE}/health/closed.txt")
    assert (file.user, file.group, file.mode) == ("root", "root", 0o640)


def test_links_are_not_followed(llm_02):
    assert llm_02.file("/etc/hostname").mode == 0o644


def test_old_modes_are_kept_for_undo(llm_02):
    lines = llm_02.file(UNDO).content_string.splitlines()
    old = {entry["path"]: entry["mode"] for entry in map(json.loads, lines)}
    assert old[f"{NODE}/health/open"] == "0777"
    assert old[f"{NODE}/health/open/notes.txt"] == "0666"


def test_status_document_says_how_the_host_stands(llm_02):
    text = llm_02.file(f"{NODE}/health/status.md").content_string
    for part in ("service scripts", "data path", "environment file", "models", "old paths"):
        assert f"| {part} | PASS |" in text
    assert "`phi3:latest`" in text
    assert "Engine: version 0.11.4" in text


@pytest.fixture
def broken_link(llm_02):
    link = f"{NODE}/data/llm_bulk_storage"
    llm_02.check_output(f"ln -sfn /srv {link}")
    yield
    llm_02.check_output(f"ln -sfn /data/llm_bulk_storage {link}")


@pytest.mark.usefixtures("broken_link")
def test_a_part_out_of_place_fails_the_role_and_is_named(playbook):
    run = playbook(CONVERGE)
    assert run.returncode != 0
    assert "llm-02: 2 of 9 parts do not stand as the standard says" in run.stdout + run.stderr
    assert "wanted a link to /data/llm_bulk_storage" in run.stdout + run.stderr


@pytest.mark.usefixtures("broken_link")
def test_check_mode_reports_but_neither_fails_nor_writes(llm_02, playbook):
    llm_02.check_output(f"chmod 0666 {NODE}/health/open/notes.txt")
    digest = "find {} -printf '%p %m %u %g %T@\\n' | sort | sha256sum"
    before = llm_02.check_output(digest.format(f"{NODE}/health {UNDO}"))
    run = playbook(CONVERGE, "--check", "--diff")
    assert run.returncode == 0, run.stdout
    assert f"-{NODE}/health/open/notes.txt 0666" in run.stdout
    assert llm_02.check_output(digest.format(f"{NODE}/health {UNDO}")) == before
    llm_02.check_output(f"chmod 0664 {NODE}/health/open/notes.txt")
