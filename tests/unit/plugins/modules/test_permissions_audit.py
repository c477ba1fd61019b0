# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import stat

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _permissions
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.modules import permissions_audit


def mode_of(path):
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def shared(tmp_path):
    path = tmp_path / "tree" / "shared" / "notes"
    path.parent.mkdir(parents=True)
    path.write_text("x")
    path.chmod(0o666)
    return path


def planned(shared):
    found = _permissions.world_writable([str(shared.parents[1])])
    return _permissions.plan(found, {}, [])


def test_the_right_is_taken_and_the_old_mode_remembered(tmp_path, shared):
    log = tmp_path / "log" / "undo.jsonl"
    for change in planned(shared):
        permissions_audit.apply(change, str(log))
    assert mode_of(shared) == 0o664
    assert json.loads(log.read_text())["mode"] == "0666"


def test_a_directory_that_became_a_link_leads_to_no_other_file(tmp_path, shared):
    changes = planned(shared)
    victim = tmp_path / "secret" / "notes"
    victim.parent.mkdir()
    victim.write_text("x")
    victim.chmod(0o600)
    shared.unlink()
    shared.parent.rmdir()
    shared.parent.symlink_to(victim.parent)
    with pytest.raises(HostError, match=r"leads to .*/secret/notes now"):
        permissions_audit.apply(changes[0], str(tmp_path / "undo.jsonl"))
    assert mode_of(victim) == 0o600
    assert not (tmp_path / "undo.jsonl").exists()


def test_only_what_everybody_may_do_is_taken_from_what_stands_there_now(tmp_path, shared):
    changes = planned(shared)
    shared.chmod(0o602)
    permissions_audit.apply(changes[0], str(tmp_path / "undo.jsonl"))
    assert mode_of(shared) == 0o600
