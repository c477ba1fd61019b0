# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock of a store: one holder at a time, and whoever is refused learns who it is."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _store_lock as locks
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError


def no_pause(_seconds):
    pass


@pytest.fixture
def lock_file(tmp_path):
    return tmp_path / ".hx" / "lock"


def test_the_second_is_refused_and_told_who_the_first_is(tmp_path):
    with locks.StoreLock(str(tmp_path), "model_catalog"):
        text = rf"model_catalog \(pid {os.getpid()} on .*, since 20.*Z\)"
        with pytest.raises(HostError, match=text):
            locks.StoreLock(str(tmp_path), "other", pause=no_pause).__enter__()
        with pytest.raises(HostError, match=f"another run works on the model store {tmp_path}"):
            locks.StoreLock(str(tmp_path), "other", look_only=True).__enter__()
        assert f"pid {os.getpid()}" in locks.held(str(tmp_path))
    assert locks.held(str(tmp_path)) == ""
    with locks.StoreLock(str(tmp_path), "other"):
        assert locks.held(str(tmp_path)).startswith("other")


def test_looking_leaves_no_trace(tmp_path):
    assert locks.held(str(tmp_path)) == ""
    with locks.StoreLock(str(tmp_path), "check", look_only=True):
        assert locks.held(str(tmp_path)) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_not_there(tmp_path):
    root = str(tmp_path / "none")
    assert locks.held(root) == ""
    with locks.StoreLock(root, "model_catalog"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_holder_left_counts_for_nothing(tmp_path, lock_file):
    lock_file.parent.mkdir()
    lock_file.write_text('{"pid": 1, "purpose": "killed"}')
    assert locks.held(str(tmp_path)) == ""
    with locks.StoreLock(str(tmp_path), "model_catalog"):
        assert str(os.getpid()) in lock_file.read_text()
        assert "killed" not in lock_file.read_text()


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
def test_a_holder_that_has_not_said_who_it_is(tmp_path, lock_file, content):
    lock_file.parent.mkdir()
    lock_file.write_text(content, encoding="latin-1")
    with lock_file.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert locks.held(str(tmp_path)) == "a process that has not said yet who it is"


def test_somebody_who_only_looks_refuses_nobody(tmp_path, lock_file):
    lock_file.parent.mkdir()
    lock_file.write_text("")
    with lock_file.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)

        def looked(_seconds):
            fcntl.flock(stream, fcntl.LOCK_UN)

        with locks.StoreLock(str(tmp_path), "model_catalog", pause=looked):
            assert "model_catalog" in locks.held(str(tmp_path))


def test_a_full_disk_does_not_keep_a_run_from_the_lock(tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with locks.StoreLock(str(tmp_path), "model_catalog"):
        assert locks.held(str(tmp_path)) == "a process that has not said yet who it is"
    assert locks.held(str(tmp_path)) == ""


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said(tmp_path, lock_file, monkeypatch, code):
    def refuse(*_args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(HostError, match=f"the lock {lock_file} can't be taken: "):
        locks.StoreLock(str(tmp_path), "model_catalog", pause=no_pause).__enter__()
    with pytest.raises(HostError, match=f"the lock {lock_file} can't be taken: "):
        locks.held(str(tmp_path))


def test_no_link_is_followed(tmp_path, lock_file):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    lock_file.parent.mkdir()
    lock_file.symlink_to(victim)
    with pytest.raises(HostError, match="can't be made"):
        locks.StoreLock(str(tmp_path), "model_catalog").__enter__()
    with pytest.raises(HostError, match="can't be read"):
        locks.held(str(tmp_path))
    assert victim.read_text() == "mine"
    lock_file.unlink()
    lock_file.parent.rmdir()
    (tmp_path / "elsewhere").mkdir()
    lock_file.parent.symlink_to("elsewhere")
    with pytest.raises(HostError, match="can't be made"):
        locks.StoreLock(str(tmp_path), "model_catalog").__enter__()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_it_belongs_to_the_owner_of_the_store(tmp_path, lock_file):
    tmp_path.chmod(0o755)
    os.chown(tmp_path, 12345, 12346)
    with locks.StoreLock(str(tmp_path), "model_catalog"):
        for path in (lock_file, lock_file.parent):
            assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)
        assert stat.S_IMODE(lock_file.stat().st_mode) == 0o644


def test_a_move_keeps_all_others_out_and_writes_nothing(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    with locks.MoveLock(str(store)):
        for _name in range(2):
            assert locks.held(str(store)) == "a move (model_store_relocate)"
            for look_only in (True, False):
                lock = locks.StoreLock(str(store), "run", look_only=look_only, pause=no_pause)
                with pytest.raises(HostError, match=rf"{store}: a move \(model_store_relocate\)"):
                    lock.__enter__()
            with pytest.raises(HostError, match="a move"):
                locks.MoveLock(str(store), pause=no_pause).__enter__()
            store = store.rename(tmp_path / "moved")
        assert list(store.iterdir()) == []
    assert locks.held(str(store)) == ""
    with locks.StoreLock(str(store), "run"):
        assert locks.held(str(store)).startswith("run (pid ")


def test_a_store_that_a_run_holds_is_not_moved(tmp_path):
    with locks.StoreLock(str(tmp_path), "model_catalog"):
        lock = locks.MoveLock(str(tmp_path), pause=no_pause)
        with pytest.raises(HostError, match=r"works on the model store .*: model_catalog \(pid"):
            lock.__enter__()
    with locks.MoveLock(str(tmp_path)):
        pass


def test_somebody_who_only_looks_hinders_no_move(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)

    def looked(_seconds):
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    with locks.MoveLock(str(tmp_path), pause=looked):
        assert locks.held(str(tmp_path)) != ""
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    with pytest.raises(HostError, match="a process that has not said yet who it is"):
        locks.MoveLock(str(tmp_path), pause=no_pause).__enter__()
    os.close(descriptor)


def test_a_refused_run_holds_nothing(tmp_path):
    """Else a run that is refused, and goes on in the same process, would refuse the next one."""
    with locks.StoreLock(str(tmp_path), "first"), pytest.raises(HostError):
        locks.StoreLock(str(tmp_path), "second", pause=no_pause).__enter__()
    with locks.MoveLock(str(tmp_path), pause=no_pause):
        pass
