# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Moves of a real store: across file systems, within one, killed anywhere, refused and failed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from relocate_host import Host, contents, kill_at_call, kill_at_step, make_store

from ansible_collections.hx_infra.llm.plugins.module_utils import _relocate_commit, _relocate_copy
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import exchange


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host whose bulk disk is another file system."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="hx-relocate-") as bulk:
        yield Host(tmp_path / "host", Path(bulk))


@pytest.fixture
def one_disk(tmp_path: Path) -> Host:
    """A host whose store stays on its file system."""
    return Host(tmp_path / "host", tmp_path / "bulk")


def test_moves_to_another_file_system(host: Host) -> None:
    predicted = host.run(check=True)
    assert contents(host.old) == host.original
    assert not host.target.exists()
    assert not host.journal_dir.exists()
    assert predicted["store_now"] == str(host.old)

    result = host.run()

    host.check_arrived()
    assert result["actions"] == predicted["actions"]
    assert result["plan"] == predicted["plan"]
    assert (result["mode"], result["store_now"]) == ("copy", str(host.target))
    assert result["blobs_verified"] == 7
    assert result["bytes_copied"] > 200_000
    assert host.calls() == ["stop", "start"]
    assert 0 < result["interruption"]["total"] < 5
    (retained,) = host.retained()
    assert result["retained"] == str(retained)
    assert contents(retained) == host.original
    assert all(not path.lstat().st_mode & 0o222 for path in [retained, *retained.rglob("*")])
    (undo,) = host.journal_dir.glob("*.undo.json")
    assert json.loads(undo.read_text())["modes"]["."] == 0o755


def test_second_run_changes_nothing(host: Host) -> None:
    host.run()
    calls = host.calls()
    for check in (True, False):
        again = host.run(check=check)
        assert (again["changed"], again["actions"], again["plan"]) == (False, [], [])
        assert again["store_now"] == str(host.target)
    assert host.calls() == calls


def test_renames_on_one_file_system(one_disk: Host) -> None:
    inode = one_disk.old.stat().st_ino
    predicted = one_disk.run(check=True)
    result = one_disk.run()
    one_disk.check_arrived()
    assert result["actions"] == predicted["actions"]
    assert (result["mode"], result["bytes_copied"], result["retained"]) == ("rename", 0, "")
    assert one_disk.target.stat().st_ino == inode
    assert not one_disk.run()["changed"]


def test_creates_an_empty_store(tmp_path: Path) -> None:
    host = Host(tmp_path / "host", tmp_path / "bulk")
    shutil.rmtree(host.old.parent)
    result = host.run()
    assert result["mode"] == "create"
    assert os.readlink(host.old) == str(host.canonical)
    assert host.canonical.resolve() == host.target
    assert host.calls() == []
    assert not host.run()["changed"]


def test_link_where_a_directory_should_be_and_the_reverse(host: Host) -> None:
    host.target.parent.mkdir(parents=True)
    host.target.symlink_to(host.old)
    os.rename(host.old, host.canonical)
    host.old.symlink_to(host.canonical)
    host.run()
    host.check_arrived()
    assert not host.run()["changed"]


def test_keeps_times_holes_and_hard_links(host: Host) -> None:
    blob = next(host.old.glob("blobs/sha256-*"))
    os.link(blob, host.old / "second-name")
    host.original = contents(host.old)
    before = {path.name: path.stat() for path in host.old.glob("blobs/*")}
    host.run()
    for path in host.target.glob("blobs/*"):
        assert path.stat().st_mtime_ns == before[path.name].st_mtime_ns
    partial = next(host.target.glob("blobs/*-partial"))
    assert partial.stat().st_blocks * 512 < partial.stat().st_size
    assert (host.target / "second-name").stat().st_ino == (
        host.target / "blobs" / blob.name
    ).stat().st_ino
    host.check_arrived()


def test_what_is_pulled_during_the_copy_arrives_too(host: Host) -> None:
    def on_step(name: str) -> None:
        if name == "verify":
            make_store(host.root / "pulled", {"tiny:1b": [b"pulled meanwhile"]})
            for part in ("blobs", "manifests"):
                shutil.copytree(host.root / "pulled" / part, host.old / part, dirs_exist_ok=True)
            next(host.old.glob("blobs/*-partial")).unlink()
        if name == "stop":
            host.original = contents(host.old)

    with pytest.raises(HostError, match="lists other models"):
        host.run(on_step=on_step)  # the list had been taken before: the move is taken back
    assert host.old.is_dir()
    assert not host.old.is_symlink()
    host.run()
    host.check_arrived()
    assert (host.target / "manifests/registry.ollama.ai/library/tiny/1b").exists()


@pytest.mark.parametrize("other_disk", [True, False], ids=["copy", "rename"])
def test_killed_at_every_step(tmp_path: Path, other_disk: bool) -> None:
    number = 0
    while True:
        number += 1
        assert number < 40
        with tempfile.TemporaryDirectory(dir="/dev/shm") as shm:
            bulk = Path(shm) if other_disk else tmp_path / f"bulk{number}"
            host = Host(tmp_path / f"host{number}", bulk)
            if not kill_at_step(host, number):
                break
            _check_recovery(host)
    assert number > 8


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("other_disk", [True, False], ids=["copy", "rename"])
def test_killed_at_every_call(tmp_path: Path, other_disk: bool, after: bool) -> None:
    number = 0
    while True:
        number += 1
        assert number < 400
        with tempfile.TemporaryDirectory(dir="/dev/shm") as shm:
            bulk = Path(shm) if other_disk else tmp_path / f"bulk{number}"
            host = Host(tmp_path / f"host{number}", bulk)
            if not kill_at_call(host, number, after):
                break
            _check_recovery(host)
            shutil.rmtree(host.root)
    assert number > 20


def _check_recovery(host: Host) -> None:
    host.check_survived()
    predicted = host.run(check=True)
    result = host.run()
    assert result["actions"] == predicted["actions"]
    host.check_arrived()
    assert host.unit_file.read_text() == "active"
    for tree in host.retained():
        assert contents(tree) == host.original
    calls = host.calls()
    assert not host.run()["changed"]
    assert host.calls() == calls


def test_killed_again_and_again(host: Host) -> None:
    for number in range(1, 12):
        kill_at_step(host, number)
        host.check_survived()
    host.run()
    host.check_arrived()
    assert host.unit_file.read_text() == "active"


def test_engine_that_does_not_serve_the_models_gets_its_old_store_back(host: Host) -> None:
    host.broken_start.touch()
    with pytest.raises(HostError, match=r"lists other models.*taken back.*runs on the old store"):
        host.run()
    assert contents(host.old) == host.original
    assert not host.old.is_symlink()
    assert not host.canonical.is_symlink()
    assert host.unit_file.read_text() == "active"
    host.broken_start.unlink()
    copied = host.run()
    host.check_arrived()
    assert copied["bytes_copied"] == 0


def test_stopped_engine_stays_stopped(host: Host) -> None:
    host.unit_file.write_text("inactive")
    result = host.run()
    host.check_arrived()
    assert host.calls() == []
    assert result["interruption"]["total"] == 0


def _blob(host: Host) -> Path:
    return max(host.old.glob("blobs/sha256-*"), key=lambda path: path.stat().st_blocks)


def test_bad_digest_stops_before_the_service_is_touched(host: Host) -> None:
    blob = _blob(host)
    with open(blob, "r+b") as stream:
        stream.write(b"X")
    with pytest.raises(HostError, match=r"llm-01: the blob .* is damaged.*was not touched"):
        host.run()
    assert host.calls() == []
    assert host.old.is_dir()
    assert not host.target.exists()
    result = host.run(allow_damaged=True)
    assert result["blobs_verified"] == 6
    assert "is damaged" in result["warnings"][0]


def test_bad_copy_is_made_once_more(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    real = _relocate_copy.file_sha256
    seen: list[str] = []

    def read_badly_once(path: str, *args: Any) -> str:
        seen.append(path)
        return "0" * 64 if len(seen) == 1 else real(path, *args)

    monkeypatch.setattr(_relocate_copy, "file_sha256", read_badly_once)
    assert host.run()["blobs_verified"] == 7
    host.check_arrived()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda blob: blob.unlink(), "which is missing"),
        (lambda blob: os.truncate(blob, 10), "bytes, found 10"),
    ],
)
def test_incomplete_store_is_refused(host: Host, spoil: Any, message: str) -> None:
    spoil(_blob(host))
    for check in (True, False):
        with pytest.raises(HostError, match=message):
            host.run(check=check)
    assert host.calls() == []


def test_no_space_is_refused_with_numbers(host: Host) -> None:
    with pytest.raises(HostError, match=r"bytes free; wanted \d+ \(\d+ still to copy"):
        host.run(check=True, reserve_bytes=1 << 60)
    assert not host.target.exists()


def test_disk_full_during_the_copy_leaves_the_service_alone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            host.run()
    assert host.calls() == []
    host.check_survived()
    host.run()
    host.check_arrived()


def test_foreign_target_is_refused_and_a_verified_copy_is_taken(host: Host) -> None:
    host.target.mkdir(parents=True)
    (host.target / "thesis.txt").write_text("not a model")
    with pytest.raises(HostError, match=r"holds 1 files that are no copy of"):
        host.run(check=True)
    assert (host.target / "thesis.txt").exists()
    shutil.rmtree(host.target)
    shutil.copytree(host.old, host.target)
    assert host.run()["bytes_copied"] == 0
    host.check_arrived()


def test_second_run_at_the_same_time_is_refused(host: Host) -> None:
    refused = []

    def on_step(name: str) -> None:
        if name == "copy":
            for check in (True, False):
                with pytest.raises(HostError, match="Another run is working") as caught:
                    host.run(check=check)
                refused.append(caught)

    host.run(on_step=on_step)
    assert len(refused) == 2
    host.check_arrived()


def test_running_download_is_refused(host: Host) -> None:
    partial = next(host.old.glob("blobs/*-partial"))
    os.utime(partial, (time.time(), time.time()))
    child = os.fork()
    if child == 0:
        with open(partial, "r+b"):
            time.sleep(20)
        os._exit(0)
    try:
        time.sleep(0.2)
        with pytest.raises(HostError, match=r"download into .* is in progress \(sha256-abab"):
            host.run(check=True, partial_minutes=10)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    host.run(partial_minutes=10)  # young, but nobody's: it moves with the store
    host.check_arrived()


def test_program_that_writes_into_the_store_is_named(host: Host) -> None:
    blob = _blob(host)
    child = os.fork()
    if child == 0:
        with open(blob, "r+b"):
            time.sleep(20)
        os._exit(0)
    try:
        time.sleep(0.2)
        with pytest.raises(HostError, match=rf"written to by another program: \w+ \(pid {child}\)"):
            host.run()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert host.unit_file.read_text() == "active"
    host.check_survived()


def test_without_the_exchange_call(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_args: str) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(_relocate_commit, "exchange", missing)
    host.run()
    host.check_arrived()


def test_exchange_swaps_a_directory_with_a_link(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("/elsewhere")
    exchange(str(tmp_path / "directory"), str(tmp_path / "link"))
    assert os.readlink(tmp_path / "directory") == "/elsewhere"
    assert (tmp_path / "link").is_dir()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_ownership_of_the_copy_and_in_place(host: Host) -> None:
    for part in (host.root.parent.parent.parent, host.root.parent.parent, host.root.parent):
        part.chmod(0o755)
    host.target.parent.mkdir(parents=True)
    for part in (host.target.parent.parent, host.target.parent):
        part.chmod(0o755)
    names = {"owner": "daemon", "group": "daemon"}
    first = host.run(**names)
    host.check_arrived()
    assert first["owned"] == len(list(host.target.rglob("*"))) + 1
    assert {path.owner() for path in host.target.rglob("*")} == {"daemon"}
    (retained,) = host.retained()
    assert {path.owner() for path in retained.rglob("*")} == {"root"}
    (host.target / "blobs").chmod(0o777)
    os.chown(host.target / "manifests", 0, 0)
    second = host.run(**names)
    assert second["actions"] == [
        f"Give 2 of {first['owned']} entries of {host.target} to daemon:daemon, "
        "writable by nobody else"
    ]
    assert second["owned"] == 2
    assert not host.run(**names)["changed"]
    host.target.parent.chmod(0o700)
    with pytest.raises(HostError, match=r"daemon cannot reach .*/ollama: .*/ollama is root:root"):
        host.run(check=True, **names)


def test_two_stores_are_refused(host: Host) -> None:
    second = host.root / "second"
    make_store(second, {"tiny:1b": [b"x"]})
    with pytest.raises(HostError, match="models stand at more than one place"):
        host.run(old_paths=[str(host.old), str(second)])
