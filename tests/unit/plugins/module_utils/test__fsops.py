# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import stat

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _fsops


def mode_of(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_write_atomic_replaces_a_link_and_what_a_killed_run_left(tmp_path):
    target = tmp_path / "elsewhere"
    target.write_text("not to be touched")
    path = tmp_path / "file"
    path.symlink_to(target)
    (tmp_path / ".file.hx-new").symlink_to(target)
    _fsops.write_atomic(str(path), b"new", 0o640, mtime_ns=10**9)
    assert (path.read_bytes(), path.is_symlink(), mode_of(path)) == (b"new", False, 0o640)
    assert path.stat().st_mtime == 1
    assert target.read_text() == "not to be touched"
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "file"]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(TypeError):
        _fsops.write_atomic(str(path), None)
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["file"])


def test_walk_lists_everything_and_follows_no_link(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "f").write_text("x")
    (tmp_path / "link").symlink_to("/etc")
    assert [name for name, _info in _fsops.walk(str(tmp_path))] == [".", "a", "link", "a/b", "a/f"]


def test_walk_passes_over_a_directory_that_became_a_link(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("x")
    seen = []
    for name, _info in _fsops.walk(str(tmp_path)):
        if name == "inside":
            (tmp_path / "inside").rmdir()
            (tmp_path / "inside").symlink_to(tmp_path / "secret")
        seen.append(name)
    assert "inside/key" not in seen
    assert "secret/key" in seen


@pytest.mark.parametrize("swap", ["link", "file", "nothing"])
def test_set_access_changes_what_was_listed_and_nothing_else(tmp_path, swap):
    victim, path = tmp_path / "victim", tmp_path / "file"
    for item in (victim, path):
        item.write_text("x")
        item.chmod(0o600)
    listed = os.lstat(path)
    path.rename(tmp_path / "moved")
    if swap == "link":
        path.symlink_to(victim)
    elif swap == "file":
        victim.rename(path)
        victim = path
    with pytest.raises(FileNotFoundError):
        _fsops.set_access(str(path), listed, owner=(os.getuid(), os.getgid()), mode=0o666)
    assert mode_of(victim) == 0o600


def test_set_access_of_the_listed_file_and_of_a_link_itself(tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_text("x")
    link.symlink_to(path)
    _fsops.set_access(str(link), os.lstat(link), mode=0o600)
    assert mode_of(path) != 0o600
    _fsops.set_access(str(path), os.lstat(path), mode=0o600)
    assert mode_of(path) == 0o600


def test_open_same_follows_no_link(tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    listed = os.lstat(path)
    os.close(_fsops.open_same(str(path), listed))
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(FileNotFoundError):
        _fsops.open_same(str(path), listed)


def test_remove_empty_tree_never_removes_a_file(tmp_path):
    empty, full = tmp_path / "empty", tmp_path / "full"
    (empty / "a" / "b").mkdir(parents=True)
    (full / "a").mkdir(parents=True)
    (full / "a" / "file").write_text("x")
    _fsops.remove_empty_tree(str(empty))
    assert not empty.exists()
    with pytest.raises(OSError, match="not empty"):
        _fsops.remove_empty_tree(str(full))
    assert (full / "a" / "file").exists()


def test_make_directories_ends_for_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _fsops.make_directories("a/b", 0o750) == ["a", "a/b"]
    assert mode_of(tmp_path / "a" / "b") == 0o750
