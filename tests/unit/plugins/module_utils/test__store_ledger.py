# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is remembered of verified blobs, and when it isn't believed."""

from __future__ import annotations

import errno
import json
import os

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _ollama_store as stores
from ansible_collections.hx_infra.llm.plugins.module_utils import _store_ledger
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._store_ledger import (
    Ledger,
    ledger_path,
)

DIGEST, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def root(tmp_path):
    blobs = tmp_path / "models" / "blobs"
    blobs.mkdir(parents=True)
    for digest in (DIGEST, OTHER):
        (blobs / f"sha256-{digest}").write_bytes(b"weights")
    return tmp_path / "models"


def blob(root, digest=DIGEST):
    return root / "blobs" / f"sha256-{digest}"


def seen(root, digest=DIGEST):
    return stores.read_store(str(root)).blobs[digest]


def noted(tmp_path, root, *digests):
    ledger = Ledger(str(tmp_path / "state" / "store" / "x.json"))
    for digest in digests or (DIGEST,):
        ledger.note(digest, blob(root, digest).stat(), 1000.5)
    return ledger


def test_it_remembers_over_runs(tmp_path, root):
    ledger = noted(tmp_path, root)
    assert ledger.verified_at(seen(root)) == 1000.5
    ledger.save()
    again = Ledger(ledger.path)
    assert again.verified_at(seen(root)) == 1000.5
    assert again.verified_at(seen(root, OTHER)) is None
    assert again.problem == ""


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"longer weights"),
        lambda path: os.utime(path, (5, 5)),
        lambda path: os.utime(path, ns=(0, path.stat().st_mtime_ns + 1)),
        lambda path: (path.rename(path.with_suffix(".old")), copy_of(path)),
    ],
    ids=["size", "time", "nanosecond", "inode"],
)
def test_a_changed_file_is_not_believed(tmp_path, root, change):
    ledger = noted(tmp_path, root)
    change(blob(root))
    assert ledger.verified_at(seen(root)) is None


def copy_of(path):
    old = path.with_suffix(".old")
    path.write_bytes(old.read_bytes())
    os.utime(path, ns=(0, old.stat().st_mtime_ns))


def test_forgetting(tmp_path, root):
    ledger = noted(tmp_path, root)
    ledger.forget(DIGEST)
    ledger.forget(OTHER)
    assert ledger.verified_at(seen(root)) is None


def test_saving_drops_what_is_not_kept(tmp_path, root):
    ledger = noted(tmp_path, root, DIGEST, OTHER)
    ledger.save(keep=[OTHER])
    again = Ledger(ledger.path)
    assert again.verified_at(seen(root)) is None
    assert again.verified_at(seen(root, OTHER)) == 1000.5


def test_modes(tmp_path, root):
    ledger = noted(tmp_path, root)
    ledger.save()
    state = tmp_path / "state"
    modes = [
        path.stat().st_mode & 0o777 for path in (state, state / "store", state / "store/x.json")
    ]
    assert modes == [0o750, 0o700, 0o600]
    assert [path.name for path in (state / "store").iterdir()] == ["x.json"]


def test_nothing_is_written_without_a_change(tmp_path, root):
    Ledger(str(tmp_path / "state" / "x.json")).save(keep=[])
    assert not (tmp_path / "state").exists()
    ledger = noted(tmp_path, root)
    ledger.save()
    before = os.stat(ledger.path)
    ledger.save(keep=[DIGEST])
    Ledger(ledger.path).save(keep=[DIGEST])
    assert os.stat(ledger.path) == before


def test_two_runs_at_once(tmp_path, root):
    """What one has found bad isn't called good again by the other, which hasn't read it."""
    noted(tmp_path, root, DIGEST).save()
    path = noted(tmp_path, root).path
    one, two = Ledger(path), Ledger(path)
    one.forget(DIGEST)
    one.save(keep=[DIGEST, OTHER])
    two.note(OTHER, blob(root, OTHER).stat(), 2000.0)
    two.save(keep=[DIGEST, OTHER])
    assert two.verified_at(seen(root)) is None
    assert Ledger(path).verified_at(seen(root)) is None
    one.note(DIGEST, blob(root).stat(), 3000.0)
    one.save()
    assert Ledger(path).verified_at(seen(root)) == 3000.0
    assert Ledger(path).verified_at(seen(root, OTHER)) == 2000.0


def test_a_file_that_was_removed_to_have_everything_read_again_stays_so(tmp_path, root):
    ledger = noted(tmp_path, root)
    ledger.save()
    os.unlink(ledger.path)
    ledger.note(OTHER, blob(root, OTHER).stat(), 2000.0)
    ledger.save()
    assert Ledger(ledger.path).verified_at(seen(root)) is None
    assert Ledger(ledger.path).verified_at(seen(root, OTHER)) == 2000.0


def test_memory_only(root):
    ledger = Ledger(None)
    ledger.note(DIGEST, blob(root).stat(), 7.0)
    ledger.save()
    assert ledger.verified_at(seen(root)) == 7.0


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "is damaged"),
        ('{"format": 1, "blobs"', "is damaged"),
        ("[]", "has not the format 1"),
        ('{"format": 0, "blobs": {}}', "has not the format 1"),
        ('{"format": 1, "blobs": []}', "is damaged"),
    ],
)
def test_a_file_that_is_no_ledger_counts_for_nothing(tmp_path, root, content, problem):
    path = tmp_path / "x.json"
    path.write_text(content)
    ledger = Ledger(str(path))
    assert ledger.verified_at(seen(root)) is None
    assert ledger.problem == f"{path} {problem}"
    ledger.note(DIGEST, blob(root).stat(), 1.0)
    ledger.save()
    assert json.loads(path.read_text())["format"] == 1


@pytest.mark.parametrize(
    "entry",
    [
        "null",
        "[]",
        "[SEEN]",
        '[SEEN, "x"]',
        "[SEEN, -1]",
        "[SEEN, NaN]",
        "[SEEN, 4, 5]",
        '{"a": 1}',
    ],
)
def test_an_entry_that_is_none_counts_for_nothing(tmp_path, root, entry):
    file = seen(root)
    device, inode = file.inode
    known = json.dumps([file.size, file.mtime_ns, inode, device])[1:-1]
    text = entry.replace("SEEN", known)
    path = tmp_path / "x.json"
    path.write_text(f'{{"format": 1, "blobs": {{"{DIGEST}": {text}}}}}')
    assert Ledger(str(path)).verified_at(file) is None
    path.write_text(f'{{"format": 1, "blobs": {{"{DIGEST}": [{known}, 4]}}}}')
    assert Ledger(str(path)).verified_at(file) == 4.0


def test_a_folder_in_its_place(tmp_path, root):
    path = tmp_path / "x.json"
    path.mkdir()
    ledger = Ledger(str(path))
    assert "can't be read" in ledger.problem
    ledger.note(DIGEST, blob(root).stat(), 1.0)
    with pytest.raises(HostError, match="can't be written"):
        ledger.save()


def test_a_ledger_that_cannot_be_written_vouches_for_nothing(tmp_path, root, monkeypatch):
    """What was just found bad would be taken for good by the next run."""
    ledger = noted(tmp_path, root)
    ledger.save()
    ledger.forget(DIGEST)

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_store_ledger, "write_atomic", full)
    with pytest.raises(HostError, match="can't be written: No space left on device"):
        ledger.save()
    again = Ledger(ledger.path)
    assert (again.verified_at(seen(root)), again.problem) == (None, "")


def test_one_ledger_for_all_paths_to_a_store(tmp_path, root):
    (tmp_path / "link").symlink_to(root)
    path = ledger_path("/var/lib/x", str(root))
    assert path == ledger_path("/var/lib/x", str(tmp_path / "link"))
    assert path != ledger_path("/var/lib/x", str(tmp_path))
    assert path.startswith("/var/lib/x/store/")
    assert len(os.path.basename(path)) == 16 + len(".json")
