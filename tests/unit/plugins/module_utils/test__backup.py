# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _backup
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError


@pytest.fixture
def tree(tmp_path):
    top = tmp_path / "config"
    (top / "ollama").mkdir(parents=True)
    (top / "ollama" / "ollama.env").write_text("OLLAMA_HOST=0.0.0.0\n")
    (top / "empty").mkdir()
    (top / "link").symlink_to("/nowhere/at/all")
    os.chmod(top / "ollama" / "ollama.env", 0o640)
    return top


def archive_of(tmp_path, tree, stamp="20260101-000000"):
    members, _left = _backup.collect([str(tree)], 1 << 20)
    path = tmp_path / "backups" / f"host-{stamp}.tgz"
    path.parent.mkdir(exist_ok=True)
    _backup.write(str(path), members, {"created": stamp})
    return str(path), members


def test_collect_takes_files_links_and_empty_directories(tree):
    members, left_out = _backup.collect([str(tree), "/does/not/exist"], 1 << 20)
    kinds = {os.path.relpath(m["path"], tree): m["kind"] for m in members}
    assert kinds == {
        ".": "directory",
        "empty": "directory",
        "link": "link",
        "ollama": "directory",
        "ollama/ollama.env": "file",
    }
    assert left_out == []


def test_collect_leaves_out_large_files_and_says_so(tree):
    (tree / "weights").write_bytes(b"x" * 100)
    members, left_out = _backup.collect([str(tree)], 99)
    assert left_out == [str(tree / "weights")]
    assert all(m["path"] != str(tree / "weights") for m in members)


def test_content_digest_sees_bytes_modes_and_nothing_else(tree):
    before = _backup.content_digest(_backup.collect([str(tree)], 1 << 20)[0])
    os.utime(tree / "ollama" / "ollama.env", (1, 1))
    assert _backup.content_digest(_backup.collect([str(tree)], 1 << 20)[0]) == before
    os.chmod(tree / "ollama" / "ollama.env", 0o600)
    assert _backup.content_digest(_backup.collect([str(tree)], 1 << 20)[0]) != before


def test_an_unchanged_host_needs_no_second_archive(tmp_path, tree):
    path, members = archive_of(tmp_path, tree)
    found = _backup.archives(os.path.dirname(path), "host")
    decision = _backup.plan(members, found, 20, "/unused")
    assert decision["create"] is False
    assert decision["path"] == path
    assert decision["remove"] == []


@pytest.mark.parametrize(
    ("count", "keep", "removed"), [(3, 20, 0), (3, 3, 1), (5, 2, 4), (3, 0, 0), (1, 1, 1)]
)
def test_retention_counts_the_new_archive(count, keep, removed):
    existing = [{"path": f"/b/{i}", "index": "", "content": f"c{i}"} for i in range(count)]
    decision = _backup.plan([], existing, keep, "/b/new")
    assert decision["create"] is True
    assert [item["path"] for item in decision["remove"]] == [f"/b/{i}" for i in range(removed)]


def test_retention_never_removes_the_archive_that_is_reused():
    content = _backup.content_digest([])
    existing = [
        {"path": "/b/0", "index": "", "content": content},
        {"path": "/b/1", "index": "", "content": "other"},
    ]
    decision = _backup.plan([], existing, 1, "/b/new")
    assert decision["path"] == "/b/0"
    assert [item["path"] for item in decision["remove"]] == ["/b/1"]


def test_an_archive_without_its_index_does_not_count(tmp_path, tree):
    path, _members = archive_of(tmp_path, tree)
    os.unlink(path[: -len(".tgz")] + ".json")
    assert _backup.archives(os.path.dirname(path), "host") == []
    assert _backup.archives(str(tmp_path / "missing"), "host") == []


def test_verify_names_a_member_that_differs(tmp_path, tree):
    path, members = archive_of(tmp_path, tree)
    broken = [dict(m, sha256="0" * 64) if m["kind"] == "file" else m for m in members]
    with pytest.raises(HostError, match=r"ollama\.env reads back as sha256"):
        _backup.verify(path, broken)


def test_verify_names_a_missing_member_and_a_cut_archive(tmp_path, tree):
    path, members = archive_of(tmp_path, tree)
    with pytest.raises(HostError, match="lacks 1 members"):
        _backup.verify(path, [*members, {"path": "/x", "kind": "directory"}])
    archive = Path(path)
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(HostError, match="can't be read back"):
        _backup.verify(path, members)


def test_restore_brings_back_what_changed_and_nothing_else(tmp_path, tree):
    path, _members = archive_of(tmp_path, tree)
    index = _backup.load_index(path)["members"]
    assert _backup.differing(index) == []
    (tree / "ollama" / "ollama.env").write_text("broken")
    (tree / "link").unlink()
    (tree / "link").mkdir()
    (tree / "later").write_text("made after the backup")
    different = _backup.differing(index)
    assert [os.path.relpath(m["path"], tree) for m in different] == ["link", "ollama/ollama.env"]
    _backup.restore(path, different)
    assert _backup.differing(index) == []
    assert (tree / "ollama" / "ollama.env").read_text() == "OLLAMA_HOST=0.0.0.0\n"
    assert os.readlink(tree / "link") == "/nowhere/at/all"
    assert (tree / "later").exists()


def test_restore_refuses_a_damaged_archive_before_it_touches_anything(tmp_path, tree):
    path, _members = archive_of(tmp_path, tree)
    index = _backup.load_index(path)["members"]
    (tree / "ollama" / "ollama.env").write_text("broken")
    with tarfile.open(path, "w:gz"):
        pass
    with pytest.raises(HostError, match="lacks"):
        _backup.restore(path, _backup.differing(index))
    assert (tree / "ollama" / "ollama.env").read_text() == "broken"


def test_archives_of_a_longer_name_are_not_ours(tmp_path, tree):
    path, _members = archive_of(tmp_path, tree)
    directory = os.path.dirname(path)
    os.rename(path, os.path.join(directory, "host-old-20260101-000000.tgz"))
    os.rename(f"{path[:-4]}.json", os.path.join(directory, "host-old-20260101-000000.json"))
    assert _backup.archives(directory, "host") == []
    assert _backup.leftovers(directory, "host") == []


def test_leftovers_are_what_no_index_names(tmp_path, tree):
    path, _members = archive_of(tmp_path, tree)
    directory = os.path.dirname(path)
    left = ["host-20260102-000000.tgz", "host-20260103-000000.tgz.partial"]
    for name in left:
        Path(directory, name).write_bytes(b"cut")
    assert _backup.leftovers(directory, "host") == [os.path.join(directory, n) for n in left]


def test_nobody_else_may_read_archive_and_index(tmp_path, tree):
    path, _members = archive_of(tmp_path, tree)
    for name in (path, f"{path[:-4]}.json"):
        assert os.stat(name).st_mode & 0o777 == 0o600


def test_restore_puts_a_directory_in_the_place_of_a_file_that_is_kept(tmp_path, tree):
    path, members = archive_of(tmp_path, tree)
    (tree / "empty").rmdir()
    (tree / "empty").write_text("in the way")
    _backup.restore(path, _backup.differing(members))
    assert _backup.differing(members) == []
    assert (tree / "empty.hx-before-restore").read_text() == "in the way"
