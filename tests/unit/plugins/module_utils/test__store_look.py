# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A look at a store on disk: what is read, what is remembered, and what is left untouched."""

from __future__ import annotations

import json
import os
import threading

import pytest
from store_samples import blob_path, digest_of, write_blob, write_model, write_partial

from ansible_collections.hx_infra.llm.plugins.module_utils import (
    _store_look,
    _store_report,
    _store_verify,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._store_ledger import ledger_path
from ansible_collections.hx_infra.llm.plugins.module_utils._store_lock import StoreLock

WEIGHTS, OTHER = b"w" * 5000, b"o" * 9000


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "models"
    write_model(root, "one:1b", WEIGHTS, b"license")
    write_model(root, "two:1b", OTHER, b"license")
    return root


def look(root, *, write=True, progress=lambda *_args: None, **options):
    params = {
        "store": str(root),
        "verify": "none",
        "idle_io": False,
        "workers": None,
        "models": [],
        "deadline_s": 100,
        "state_dir": str(root.parent / "state"),
        "partial_min_age_s": 0,
        "owner": "",
        "group": "",
        "file_mode": "",
        "dir_mode": "",
        "details": "summary",
        **options,
    }
    result = {}
    result["warnings"] = _store_look.inspect(params, write=write, progress=progress, result=result)
    return result


def tree(folder):
    return {
        path: (path.lstat().st_mode, path.lstat().st_mtime_ns, path.lstat().st_ino)
        for path in folder.rglob("*")
    }


def grave(result):
    return {row["check"] for row in result["verdicts"] if row["status"] != "PASS"}


def test_a_good_store(root):
    result = look(root)
    assert result["exists"] is True
    assert [row["name"] for row in result["models"]] == ["one:1b", "two:1b"]
    assert (result["findings"], grave(result), result["blobs"]) == ([], set(), [])
    assert len(result["shared"]) == 2
    assert result["verification"]["mode"] == "none"
    assert json.dumps(result)


@pytest.mark.parametrize("mode", ["none", "changed", "full"])
def test_nothing_is_changed_but_the_ledger(root, mode):
    write_partial(root, b"p" * 50, 7)
    before = tree(root.parent)
    look(root, verify=mode, write=False)
    assert tree(root.parent) == before
    look(root, verify=mode)
    added = {path.name for path in set(tree(root.parent)) - set(before)}
    ledger = os.path.basename(ledger_path("x", str(root)))
    assert added == (set() if mode == "none" else {"state", "store", ledger})
    assert tree(root) == {path: what for path, what in before.items() if root in path.parents}


def test_what_was_verified_is_remembered(root):
    first = look(root, verify="changed")
    assert (first["verification"]["read"], first["verification"]["remembered"]) == (4, 0)
    assert first["totals"]["verified_blobs"] == 4
    second = look(root, verify="changed")
    assert (second["verification"]["read"], second["verification"]["remembered"]) == (0, 4)
    third = look(root)
    assert third["totals"]["verified_blobs"] == 4
    assert all(row["verified"] and row["verified_at"] for row in third["models"])
    assert look(root, verify="full")["verification"]["read"] == 4


def test_a_corrupt_blob_is_found_and_stays_found(root):
    look(root, verify="changed")
    blob_path(root, WEIGHTS).write_bytes(b"x" * 5000)
    assert grave(look(root)) == set()  # nothing was read
    for _turn in range(2):
        result = look(root, verify="changed")
        assert result["verification"]["corrupt"] == [digest_of(WEIGHTS)]
        assert result["verification"]["read"] == 1
        assert grave(result) == {"store_blobs"}
        [row] = result["blobs"]
        assert (row["state"], row["models"], row["verified_at"]) == ("corrupt", ["one:1b"], "")
        assert [row["whole"] for row in result["models"]] == [False, True]
        assert "is corrupt: its content has the digest" in result["findings"][0]


def test_blobs_that_are_gone_are_forgotten(root):
    write_blob(root, b"orphan")
    look(root, verify="changed")
    path = ledger_path(str(root.parent / "state"), str(root))
    with open(path, encoding="utf-8") as stream:
        assert digest_of(b"orphan") in json.load(stream)["blobs"]
    blob_path(root, b"orphan").unlink()
    look(root, verify="changed")
    with open(path, encoding="utf-8") as stream:
        assert digest_of(b"orphan") not in json.load(stream)["blobs"]


def test_only_the_blobs_of_named_models_are_read(root):
    write_blob(root, b"orphan")
    found = look(root, verify="changed", models=["ONE:1b", "three:1b"])["verification"]
    assert (found["read"], found["bytes_read"] >= len(WEIGHTS)) == (3, True)
    result = look(root)
    verified = {row["name"]: row["verified"] for row in result["models"]}
    assert verified == {"one:1b": True, "two:1b": False}
    assert look(root, verify="changed")["verification"]["remembered"] == 3


def test_blobs_that_come_during_the_reading_stay_remembered(root, monkeypatch):
    """Another run has pulled and verified them."""
    real = _store_look.verify

    def slow(*args, **options):
        path = write_blob(root, b"new")
        other = _store_look.Ledger(ledger_path(str(root.parent / "state"), str(root)))
        other.note(digest_of(b"new"), os.stat(path), 1000.0)
        other.save()
        return real(*args, **options)

    monkeypatch.setattr(_store_look, "verify", slow)
    look(root, verify="changed")
    monkeypatch.setattr(_store_look, "verify", real)
    again = look(root, verify="changed")["verification"]
    assert (again["read"], again["remembered"]) == (0, 5)


def test_a_damaged_ledger_is_told_and_replaced(root):
    path = ledger_path(str(root.parent / "state"), str(root))
    os.makedirs(os.path.dirname(path))
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("{")
    assert look(root, verify="changed")["warnings"] == [
        f"{path} is damaged, so it counts for nothing."
    ]
    assert look(root, verify="changed")["warnings"] == []


def test_a_ledger_that_cannot_be_written_is_told(root):
    (root.parent / "state").write_text("a file")
    result = look(root, verify="changed")
    assert result["verification"]["read"] == 4
    assert any("can't be written" in text for text in result["warnings"])


def test_no_store(tmp_path):
    result = look(tmp_path / "none", verify="full")
    assert (result["exists"], result["models"], grave(result)) == (False, [], {"store_exists"})
    assert not (tmp_path / "state").exists()


def test_a_file_in_place_of_the_store(tmp_path):
    (tmp_path / "models").write_text("x")
    with pytest.raises(HostError, match="can't be read"):
        look(tmp_path / "models")


@pytest.mark.parametrize(("write", "hint"), [(True, "the next one goes on"), (False, "Raise")])
def test_a_deadline(root, monkeypatch, write, hint):
    gate, real = threading.Event(), os.readv
    monkeypatch.setattr(
        _store_verify.os, "readv", lambda *args: (gate.wait(), real(*args))[1]
    )  # nothing is read before the first word about the progress
    options = {"verify": "changed", "deadline_s": -1, "progress": lambda *_args: gate.set()}
    with pytest.raises(HostError, match=rf"has read 0 of 14,\d+ bytes within -1 s.*{hint}"):
        look(root, write=write, **options)


def test_a_verification_that_is_cut_off_keeps_what_it_read(root, monkeypatch):
    noted, real = [], _store_look.Ledger.note
    monkeypatch.setattr(
        _store_look.Ledger, "note", lambda *args: noted.append(args[1]) or real(*args)
    )
    monkeypatch.setattr(_store_verify, "TELL_S", 0.0)

    def interrupt(*_args):
        if len(noted) >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look(root, verify="changed", workers=1, progress=interrupt)
    assert noted[0] == digest_of(OTHER)  # the largest
    read = len(noted)
    again = look(root, verify="changed")["verification"]
    assert again["remembered"] == read >= 2
    assert again["read"] == 4 - again["remembered"]


def test_what_was_read_is_written_down_meanwhile(root, monkeypatch):
    """A verification of hours that is killed goes on from where it was."""
    saved = []
    monkeypatch.setattr(_store_look, "SAVE_S", -1.0)
    real = _store_look.Ledger.save
    monkeypatch.setattr(
        _store_look.Ledger, "save", lambda self, keep=None: saved.append(keep) or real(self, keep)
    )
    look(root, verify="full", workers=1)
    assert saved[:-1]
    assert set(saved[:-1]) == {None}


def test_what_a_run_is_working_on_is_no_finding(root):
    copy = root / ".hx" / "incoming" / f"sha256-{'b' * 64}.part"
    copy.parent.mkdir(parents=True)
    copy.write_text("x")
    assert grave(look(root)) == {"store_leftovers"}
    with StoreLock(str(root), "a test"):
        result = look(root)
    assert grave(result) == set()
    assert result["holder"].startswith("a test (pid ")
    assert len(result["incoming"]) == 1


def test_links_in_a_store(root, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (root / "blobs").rename(elsewhere)
    (root / "blobs").symlink_to(elsewhere)
    blob = blob_path(root, WEIGHTS)
    blob.rename(tmp_path / "weights")
    blob.symlink_to(tmp_path / "weights")
    (root / "blobs" / "gone").symlink_to(tmp_path / "nowhere")
    result = look(root, verify="full")
    rows = {row["path"]: (row["dangling"], row["odd"]) for row in result["links"]}
    assert rows == {
        "blobs": (False, False),
        f"blobs/{blob.name}": (False, True),
        "blobs/gone": (True, True),
    }
    assert all(row["whole"] and row["verified"] for row in result["models"])
    assert grave(result) == {"store_foreign"}


def test_a_store_that_is_a_link(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    look(root, verify="changed")
    assert look(tmp_path / "link", verify="changed")["verification"]["remembered"] == 4


def test_modes_and_owners(root):
    blob_path(root, WEIGHTS).chmod(0o666)
    (root / "manifests").chmod(0o750)
    result = look(root, dir_mode="0755")
    rows = {row["path"]: row["problem"] for row in result["access"]}
    assert rows[f"blobs/sha256-{digest_of(WEIGHTS)}"].endswith("everybody may write")
    assert rows["manifests"] == "the mode is 0750, wanted 0755"
    assert result["expected_access"]["dir_mode"] == "0755"
    assert grave(result) == {"store_access"}
    wrong = look(root, owner="54321")
    assert {row["owner"] for row in wrong["access"]} == {wrong["access"][0]["owner"]}
    assert wrong["expected_access"]["owner"] == "54321"
    assert "wanted 54321" in wrong["findings"][0]


@pytest.mark.parametrize("text", ["rw-r--r--", "9", "-1", "010000"])
def test_a_mode_that_is_none_is_told_before_anything_is_read(root, text):
    with pytest.raises(HostError, match="wanted an octal number"):
        look(root, file_mode=text, verify="full")
    assert not (root.parent / "state").exists()


def test_a_summary_is_short(root, monkeypatch):
    monkeypatch.setattr(_store_report, "LISTED", 3)
    monkeypatch.setattr(_store_report, "NAMED", 2)
    for number in range(5):
        write_blob(root, b"orphan %d" % number)
        write_model(root, f"copy:{number}", WEIGHTS)
    short = look(root)
    assert (len(short["blobs"]), short["omitted"]) == (3, {"blobs": 2})
    weights = next(row for row in short["shared"] if row["digest"] == digest_of(WEIGHTS))
    assert (weights["models"], weights["more_models"]) == (["copy:0", "copy:1"], 4)
    full = look(root, details="full")
    assert (len(full["blobs"]), full["omitted"]) == (9, {})
    weights = next(row for row in full["shared"] if row["digest"] == digest_of(WEIGHTS))
    assert len(weights["models"]) == 6
    assert all("layers" in row for row in full["models"])


def test_a_download_that_a_process_has_open(root):
    data, _part = write_partial(root, b"p" * 50, 7)
    assert look(root)["partials"][0]["going_on"] is False
    with open(data, "rb"):
        [row] = look(root)["partials"]
        assert (row["open"], row["going_on"]) == (True, True)
