# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Blobs read and compared with their names: what is found, remembered and left in peace."""

from __future__ import annotations

import hashlib
import os
import threading

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _ollama_store as stores
from ansible_collections.hx_infra.llm.plugins.module_utils import _store_verify
from ansible_collections.hx_infra.llm.plugins.module_utils._store_ledger import Ledger
from ansible_collections.hx_infra.llm.plugins.module_utils._store_verify import verify

CONTENTS = [b"", b"config", b"weights" * 1000, b"x" * 3_000_000]


def digest_of(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def root(tmp_path):
    blobs = tmp_path / "models" / "blobs"
    blobs.mkdir(parents=True)
    for content in CONTENTS:
        path = blobs / f"sha256-{digest_of(content)}"
        path.write_bytes(content)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return tmp_path / "models"


def path_of(root, content):
    return root / "blobs" / f"sha256-{digest_of(content)}"


def run(root, ledger=None, digests=None, **options):
    store = stores.read_store(str(root))
    ledger = Ledger(None) if ledger is None else ledger
    found = verify(store, store.blobs if digests is None else digests, ledger, **options)
    return store, found


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_good_blobs_are_read_once(root):
    ledger = Ledger(None)
    store, first = run(root, ledger, now=lambda: 42.0)
    assert (first.read, first.remembered) == (4, 0)
    assert first.bytes_read == sum(map(len, CONTENTS))
    assert first.corrupt == first.unreadable == {}
    assert not any(file.flaw for file in store.blobs.values())
    assert {ledger.verified_at(file) for file in store.blobs.values()} == {42.0}
    _store, second = run(root, ledger)
    assert (second.read, second.remembered, second.bytes_read) == (0, 4, 0)
    _store, full = run(root, ledger, full=True)
    assert (full.read, full.remembered) == (4, 0)


def test_only_what_was_asked_for(root):
    digest = digest_of(b"config")
    _store, found = run(root, digests=[digest, digest, "f" * 64])
    assert (found.read, found.remembered, found.bytes_read) == (1, 0, 6)


def test_a_flipped_bit(root):
    ledger = Ledger(None)
    path = path_of(root, CONTENTS[3])
    run(root, ledger)
    flip(path)
    store, found = run(root, ledger)
    digest = digest_of(CONTENTS[3])
    assert (found.read, found.remembered) == (1, 3)
    assert list(found.corrupt) == [digest]
    actual = digest_of(path.read_bytes())
    assert found.corrupt[digest] == f"its content has the digest {actual[:12]}…"
    assert store.blobs[digest].flaw == found.corrupt[digest]
    layer = stores.Layer(digest, 3_000_000)
    assert store.blob_state(layer) == stores.CORRUPT
    assert ledger.verified_at(store.blobs[digest]) is None


def test_a_change_behind_the_ledgers_back_is_found_by_a_full_run(root):
    ledger = Ledger(None)
    path = path_of(root, CONTENTS[2])
    run(root, ledger)
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run(root, ledger)[1].corrupt == {}
    store, found = run(root, ledger, full=True)
    assert list(found.corrupt) == [digest_of(CONTENTS[2])]
    assert ledger.verified_at(store.blobs[digest_of(CONTENTS[2])]) is None


def test_a_blob_that_cannot_be_read(root, monkeypatch):
    real = os.open

    def broken(path, *args, **options):
        if str(path).endswith(digest_of(CONTENTS[1])):
            raise OSError(5, "Input/output error", path)
        return real(path, *args, **options)

    monkeypatch.setattr(_store_verify.os, "open", broken)
    store, found = run(root)
    digest = digest_of(CONTENTS[1])
    assert found.unreadable == {digest: "it can't be read: Input/output error"}
    assert found.corrupt == {}
    assert store.blobs[digest].flaw == found.unreadable[digest]


def test_a_blob_that_went_away(root):
    store = stores.read_store(str(root))
    path_of(root, CONTENTS[1]).unlink()
    found = verify(store, list(store.blobs), Ledger(None))
    assert found.corrupt == found.unreadable == {}
    assert digest_of(CONTENTS[1]) not in store.blobs


def test_a_pipe_in_the_place_of_a_blob(root):
    store = stores.read_store(str(root))
    path = path_of(root, CONTENTS[1])
    path.unlink()
    os.mkfifo(path)
    found = verify(store, list(store.blobs), Ledger(None))
    assert list(found.unreadable.values()) == ["it can't be read: it is no regular file any more"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_blob_that_changes_while_it_is_read(root, monkeypatch, times):
    """Read once more after one change; not judged by what was read in between."""
    path, changes, real = path_of(root, CONTENTS[1]), [], os.readv

    def changing(descriptor, buffers):
        count = real(descriptor, buffers)
        if count == 0 and len(changes) < times:
            changes.append(os.utime(path, (len(changes) + 1, len(changes) + 1)))
        return count

    monkeypatch.setattr(_store_verify.os, "readv", changing)
    ledger = Ledger(None)
    _store, found = run(root, ledger, digests=[digest_of(CONTENTS[1])])
    file = stores.read_store(str(root)).blobs[digest_of(CONTENTS[1])]
    if times == 1:
        assert found.unreadable == found.corrupt == {}
        assert ledger.verified_at(file)
    else:
        assert list(found.unreadable.values()) == ["it changes while it is being read"]
        assert ledger.verified_at(file) is None


def test_a_fresh_blob_is_old_enough_when_it_is_noted(root, monkeypatch):
    """A change in the same tick of the clock would not show in the time of the last change."""
    waited = []
    monkeypatch.setattr(_store_verify.time, "sleep", waited.append)
    path = path_of(root, CONTENTS[1])
    os.utime(path, (1_700_000_000.0, 1_700_000_000.0))
    monkeypatch.setattr(_store_verify.time, "time", lambda: 1_700_000_000.5)
    run(root, digests=[digest_of(CONTENTS[1])])
    assert waited == [1.5]


def test_the_largest_first_and_progress(root):
    told = []
    run(root, workers=1, progress=lambda name, done, total: told.append((name, done, total)))
    total = sum(map(len, CONTENTS))
    assert told[0][2] == told[-1][2] == told[-1][1] == total
    assert told[-1][0].startswith("blobs/sha256-")
    assert [done for _name, done, _total in told] == sorted(done for _name, done, _total in told)


def test_nothing_to_read_starts_nothing(root, monkeypatch):
    ledger = Ledger(None)
    run(root, ledger)
    monkeypatch.setattr(_store_verify, "ThreadPoolExecutor", None)
    told = []
    assert run(root, ledger, progress=lambda *args: told.append(args))[1].remembered == 4
    assert told == []


def test_an_error_of_the_caller_ends_all_threads(root, monkeypatch):
    before, ours, reading, real = set(threading.enumerate()), set(), threading.Event(), os.readv

    def read(descriptor, buffers):
        reading.set()
        return real(descriptor, buffers)

    def fail(*_args):
        assert reading.wait(20)
        ours.update(set(threading.enumerate()) - before)
        raise KeyboardInterrupt

    monkeypatch.setattr(_store_verify.os, "readv", read)
    with pytest.raises(KeyboardInterrupt):
        run(root, workers=2, progress=fail)
    assert ours
    assert [thread for thread in ours if thread.is_alive()] == []


def test_windows_that_were_not_cached_are_dropped(root, monkeypatch):
    monkeypatch.setattr(_store_verify, "WINDOW", 1024 * 1024)
    monkeypatch.setattr(
        _store_verify, "cached_windows", lambda _descriptor, _size: [False, True, False]
    )
    dropped = []
    monkeypatch.setattr(
        _store_verify, "drop_window", lambda _descriptor, index: dropped.append(index)
    )
    run(root, digests=[digest_of(CONTENTS[3])])
    assert dropped == [0, 2]


@pytest.mark.parametrize("allowed", [True, False])
def test_idle(root, monkeypatch, allowed):
    asked = []
    monkeypatch.setattr(_store_verify, "be_idle", lambda: asked.append(1) or allowed)
    _store, found = run(root, idle=True, workers=2)
    assert found.idle is allowed
    assert asked
    assert run(root)[1].idle is False
