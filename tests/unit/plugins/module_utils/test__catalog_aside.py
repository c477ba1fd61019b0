# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Setting bad blobs aside."""

from __future__ import annotations

import errno
import os

import pytest
from store_samples import blob_path, digest_of, write_blob

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_aside import Aside, Judgement
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import read_store

GOOD = b"good"
DIGEST = digest_of(GOOD)


@pytest.fixture
def blob(tmp_path):
    path = write_blob(tmp_path, GOOD)
    path.write_bytes(b"bad!")
    return path


@pytest.fixture
def aside_path(tmp_path):
    return tmp_path / ".hx" / "aside" / f"sha256-{DIGEST}"


def bad_file(root):
    return read_store(str(root)).blobs[DIGEST]


def test_there_and_back(tmp_path, blob, aside_path):
    place = Aside(str(tmp_path))
    place.put(bad_file(tmp_path))
    assert not blob.exists()
    assert aside_path.read_bytes() == b"bad!"
    place.settle(DIGEST, lambda: Judgement(False))
    assert blob.read_bytes() == b"bad!"
    assert not aside_path.exists()


def test_what_came_and_is_bad_too_makes_room(tmp_path, blob, aside_path):
    place = Aside(str(tmp_path))
    place.put(bad_file(tmp_path))
    blob.write_bytes(b"worse")
    bad = bad_file(tmp_path).inode
    place.settle(DIGEST, lambda: Judgement(False, bad))
    assert blob.read_bytes() == b"bad!"
    assert not aside_path.exists()


def test_a_good_one_came(tmp_path, blob, aside_path):
    place = Aside(str(tmp_path))
    place.put(bad_file(tmp_path))
    write_blob(tmp_path, GOOD)
    place.settle(DIGEST, lambda: Judgement(True))
    assert blob.read_bytes() == GOOD
    assert not aside_path.exists()


def test_nobody_knows(tmp_path, blob, aside_path):
    place = Aside(str(tmp_path))
    place.put(bad_file(tmp_path))
    write_blob(tmp_path, GOOD)
    place.settle(DIGEST, lambda: Judgement(None))
    assert blob.exists()
    assert aside_path.exists()


def test_what_was_set_aside_first_stays(tmp_path, blob, aside_path):
    place = Aside(str(tmp_path))
    place.put(bad_file(tmp_path))
    blob.write_bytes(b"worse")
    Aside(str(tmp_path)).put(bad_file(tmp_path))
    assert not blob.exists()
    assert aside_path.read_bytes() == b"bad!"


def test_the_last_of_two_repairs_puts_it_back(tmp_path, blob):
    place = Aside(str(tmp_path))
    file = bad_file(tmp_path)
    place.put(file)
    place.put(file)
    place.settle(DIGEST, lambda: Judgement(False))
    assert not blob.exists()
    place.settle(DIGEST, lambda: Judgement(False))
    assert blob.exists()


def test_a_good_one_that_another_repair_brought_stays(tmp_path, blob, aside_path):
    """A repair that knows the blob as bad comes late: the file is another one by now."""
    place = Aside(str(tmp_path))
    file = bad_file(tmp_path)
    place.put(file)
    write_blob(tmp_path, GOOD)
    place.put(file)
    assert blob.read_bytes() == GOOD
    place.settle(DIGEST, lambda: Judgement(True))
    place.settle(DIGEST, lambda: Judgement(True))
    assert blob.read_bytes() == GOOD
    assert not aside_path.exists()


@pytest.mark.parametrize("before", [None, b"bad too"])
def test_a_good_one_that_comes_while_a_repair_ends_stays(tmp_path, blob, aside_path, before):
    place = Aside(str(tmp_path))
    place.put(bad_file(tmp_path))
    inode = None
    if before:
        blob.write_bytes(before)
        inode = bad_file(tmp_path).inode
    judged = []

    def judge():
        judged.append(1)
        if len(judged) > 1:
            return Judgement(True)
        new = blob.with_name("new")
        new.write_bytes(GOOD)
        new.rename(blob)
        return Judgement(False, inode)

    place.settle(DIGEST, judge)
    assert blob.read_bytes() == GOOD
    assert not aside_path.exists()


def test_putting_back_where_there_are_no_hard_links(tmp_path, blob, aside_path, monkeypatch):
    def refuse(*_args, **_options):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    place = Aside(str(tmp_path))
    place.put(bad_file(tmp_path))
    write_blob(tmp_path, GOOD)
    assert not place.restore(DIGEST)
    assert blob.read_bytes() == GOOD
    blob.unlink()
    assert place.restore(DIGEST)
    assert blob.read_bytes() == b"bad!"
    assert not aside_path.exists()


def test_putting_back_replaces_nothing(tmp_path, blob, aside_path):
    place = Aside(str(tmp_path))
    place.put(bad_file(tmp_path))
    write_blob(tmp_path, GOOD)
    place.restore(DIGEST)
    assert blob.read_bytes() == GOOD
    assert aside_path.exists()
    blob.unlink()
    place.restore(DIGEST)
    assert blob.read_bytes() == b"bad!"
    place.restore(DIGEST)
    place.drop(DIGEST)


def test_a_blob_under_the_name_that_very_old_servers_gave(tmp_path, blob, aside_path):
    blob.rename(blob.with_name(f"sha256:{DIGEST}"))
    place = Aside(str(tmp_path))
    place.put(bad_file(tmp_path))
    assert aside_path.exists()
    place.settle(DIGEST, lambda: Judgement(False))
    assert blob.exists()


def test_another_disk_is_said(tmp_path, blob, monkeypatch):
    def refuse(*_args, **_options):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    file = bad_file(tmp_path)
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(HostError, match=r"can't be set aside.*\.hx/aside has to be on the file"):
        Aside(str(tmp_path)).put(file)
    assert blob.exists()


def test_no_link_is_followed(tmp_path, blob):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".hx").symlink_to("elsewhere")
    with pytest.raises(HostError, match="can't be set aside"):
        Aside(str(tmp_path)).put(bad_file(tmp_path))
    assert blob_path(tmp_path, GOOD).exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []
