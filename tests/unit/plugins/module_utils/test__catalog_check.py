# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run knows about the content of blobs."""

from __future__ import annotations

import json
import os

import pytest
from catalog_rig import Told
from store_samples import LONG_AGO, blob_path, digest_of, write_model

from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_check as checks
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_progress import CatalogProgress
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import Watch
from ansible_collections.hx_infra.llm.plugins.module_utils._store_ledger import Ledger

ONE, TWO = b"weights one", b"weights two"


@pytest.fixture
def root(tmp_path):
    write_model(tmp_path / "store", "one", ONE, TWO)
    return tmp_path / "store"


def make(root, *, keep=True, ledger=None, **options):
    told = Told()
    path = str(root.parent / "ledger.json") if ledger is None else ledger
    checker = checks.Checker(
        str(root),
        Ledger(path),
        CatalogProgress(told),
        options.pop("watch", Watch()),
        keep=keep,
        **options,
    )
    return checker, told


def run(checker, **options):
    store = checker.read_store()
    checker.check(store, list(store.blobs), "models", **options)
    return store


def numbers(checker):
    found = checker.as_dict()
    return found["read"], found["remembered"], found["bytes"]


def flip(root, content):
    path = blob_path(root, content)
    path.write_bytes(content.upper())
    os.utime(path, (LONG_AGO, LONG_AGO))


def test_what_was_read_is_remembered_by_the_next_run(root):
    checker, told = make(root)
    run(checker)
    size = len(b"config" + ONE + TWO)
    assert numbers(checker) == (3, 0, size)
    assert told.states[-1] == ("models", "verifying", size, size, "")
    again, _told = make(root)
    run(again)
    assert numbers(again) == (0, 3, 0)
    run(again)
    assert numbers(again) == (0, 3, 0)


def test_full_reads_everything_once(root):
    checker, _told = make(root)
    run(checker)
    again, _told = make(root)
    run(again, full=True)
    run(again, full=True)
    assert numbers(again)[:2] == (3, 0)


def test_check_mode_leaves_no_trace(root):
    checker, _told = make(root, keep=False)
    run(checker)
    checker.forget_missing(checker.read_store())
    assert sorted(os.listdir(root.parent)) == ["store"]


def test_a_flaw_is_known_until_the_file_is_another_one(root):
    flip(root, ONE)
    checker, _told = make(root)
    digest = digest_of(ONE)
    assert run(checker).blobs[digest].bad
    assert checker.read_store().blobs[digest].bad
    run(checker)
    assert numbers(checker)[0] == 3  # a bad one isn't read again
    [bad] = checker.as_dict()["corrupt"]
    assert bad["path"] == f"blobs/sha256-{digest}"
    assert digest_of(ONE.upper())[:12] in bad["flaw"]
    blob_path(root, ONE).write_bytes(ONE)
    assert not checker.read_store().blobs[digest].bad
    assert not run(checker).blobs[digest].bad


def test_the_ledger_is_saved_while_a_long_reading_goes_on(root, monkeypatch):
    monkeypatch.setattr(checks, "SAVE_S", -1.0)
    saves = []
    save = Ledger.save
    monkeypatch.setattr(Ledger, "save", lambda *args: (saves.append(1), save(*args)))
    checker, told = make(root)
    run(checker)
    assert len(saves) == len(told.states) + 1  # at each news, and at the end


def test_a_stop_keeps_what_was_read(root):
    asked = []
    checker, _told = make(root, watch=Watch(stopped=lambda: "".join(asked)))
    store = checker.read_store()
    checker.check(store, [digest_of(ONE)], "models")
    asked.append("SIGTERM")
    with pytest.raises(HostError, match="verifying models was stopped by SIGTERM"):
        checker.check(store, [digest_of(TWO)], "models")
    again, _told = make(root)
    run(again)
    assert numbers(again)[:2] == (2, 1)


def test_a_ledger_that_cannot_be_written_is_a_warning(root):
    warned = []
    (root.parent / "file").write_text("")
    checker, _told = make(root, ledger=str(root.parent / "file" / "l.json"), warn=warned.append)
    run(checker)
    run(checker, full=True)
    [text] = warned
    assert "can't be written" in text


def test_the_ledger_forgets_what_is_gone(root):
    checker, _told = make(root)
    run(checker)
    blob_path(root, ONE).unlink()
    checker.forget_missing(checker.read_store())
    kept = json.loads((root.parent / "ledger.json").read_text())["blobs"]
    assert digest_of(ONE) not in kept
    assert digest_of(TWO) in kept


def test_what_was_verified_is_no_longer_shown_beside_what_follows(root):
    checker, told = make(root)
    run(checker)
    checker._progress.update("one:latest", "pulling", 1, 10)
    assert told.states[-1][0] == "one:latest"
