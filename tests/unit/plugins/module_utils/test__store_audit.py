# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said about a store that isn't as it must be."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from store_samples import LONG_AGO, blob_path, digest_of, write_blob, write_model, write_partial

from ansible_collections.hx_infra.llm.plugins.module_utils import _ollama_store as stores
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._store_access import Access, Entry
from ansible_collections.hx_infra.llm.plugins.module_utils._store_audit import SHOWN, Audit
from ansible_collections.hx_infra.llm.plugins.module_utils._store_info import Inventory, Seen

WEIGHTS = b"weights" * 1000
CONFIG = b"config"
SHORT = f"sha256-{digest_of(WEIGHTS)[:12]}"


@pytest.fixture
def root(tmp_path):
    write_model(tmp_path, "one:1b", WEIGHTS, config=CONFIG)
    return tmp_path


def audit(root, *, access=None, checked=False, change=None, **seen):
    store = stores.read_store(str(root))
    if change:
        change(store)
    inventory = Inventory(Seen(store, now=LONG_AGO + 7200.0, **seen))
    return Audit(inventory, access or Access(), checked=checked)


def grave(found):
    return {item.check: item.status for item in found.verdicts() if item.status != "PASS"}


def test_a_good_store(root):
    found = audit(root)
    assert found.findings() == []
    assert grave(found) == {}
    assert {item.subject for item in found.verdicts()} == {str(root)}


def test_no_store(tmp_path):
    found = audit(tmp_path / "none")
    assert found.findings() == [f"{tmp_path / 'none'} isn't there."]
    assert grave(found) == {"store_exists": "FAIL"}


def test_an_unreadable_manifest(root):
    path = root / parse_name("two:1b").manifest
    path.parent.mkdir(parents=True)
    path.write_text("")
    write_blob(root, b"perhaps of two")
    found = audit(root)
    first, second = found.findings()
    assert first.startswith(
        "manifests/registry.ollama.ai/library/two/1b can't be used: it is empty."
    )
    assert "unless to one whose manifest can't be used" in second
    assert grave(found) == {"store_manifests": "FAIL", "store_orphans": "WARN"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            WEIGHTS,
            f"Blob {SHORT} (7.0KB) of one:1b is missing. The engine lists the model as if it",
        ),
        (CONFIG, "is missing. Without it the engine doesn't list the model."),
    ],
)
def test_a_missing_blob(root, content, said):
    blob_path(root, content).unlink()
    found = audit(root)
    [text] = found.findings()
    assert said in text
    assert grave(found) == {"store_blobs": "FAIL"}


def test_a_missing_blob_that_is_half_there(root):
    blob_path(root, WEIGHTS).unlink()
    write_partial(root, WEIGHTS, 3500)
    missing, download = audit(root).findings()
    assert "is missing: 3.5KB of its 7.0KB are downloaded." in missing
    assert download == f"The download of {SHORT} for one:1b stopped 2 hours ago at 3.5KB of 7.0KB."


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (WEIGHTS[:10], "is cut: it has 10 bytes, wanted 7,000."),
        (WEIGHTS * 2, "is of a wrong size: it has 14,000 bytes, wanted 7,000."),
    ],
)
def test_a_wrong_size(root, content, said):
    blob_path(root, WEIGHTS).write_bytes(content)
    found = audit(root)
    [text] = found.findings()
    assert said in text
    assert f"blobs/sha256-{digest_of(WEIGHTS)} of one:1b" in text
    assert grave(found) == {"store_blobs": "FAIL"}


def test_a_corrupt_blob(root):
    digest = digest_of(WEIGHTS)

    def spoil(store):
        flaw = "its content has the digest abc…"
        store.blobs[digest] = replace(store.blobs[digest], flaw=flaw)

    found = audit(root, change=spoil)
    [text] = found.findings()
    assert "of one:1b is corrupt: its content has the digest abc…." in text
    assert "a pull doesn't replace it" in text
    assert grave(found) == {"store_blobs": "FAIL"}


def test_orphans(root):
    paths = [write_blob(root, b"x" * size) for size in (10, 50, 40, 30, 20)]
    found = audit(root)
    [text] = found.findings()
    assert text == (
        "5 blobs (150B) in all belong to no model:"
        f" blobs/{paths[1].name}, blobs/{paths[2].name}, blobs/{paths[3].name} and 2 more."
    )
    assert grave(found) == {"store_orphans": "WARN"}


def test_an_orphan_that_a_download_may_be_about_to_use(root):
    write_blob(root, b"fresh")
    assert audit(root, min_age_s=10_000).findings() == []


def test_downloads(root):
    write_partial(root, b"x" * 100, 50)
    write_partial(root, b"y" * 100, 50, record="")
    found = audit(root)
    assert sorted(found.findings()) == sorted(
        [
            f"The download of sha256-{digest_of(b'x' * 100)[:12]} stopped 2 hours ago at 50B of"
            " 100B.",
            f"The download of sha256-{digest_of(b'y' * 100)[:12]} has a damaged record: pulls fail"
            " with EOF until its files go.",
        ]
    )
    assert grave(found) == {"store_partials": "WARN"}
    assert audit(root, min_age_s=10_000).findings() == []


def test_strays_and_foreign_files(root):
    (root / "manifests" / "notes.txt").write_text("x")
    (root / parse_name("one:1b").manifest).with_name("1b~").write_text("x")
    (root / "blobs" / "README").write_text("x")
    found = audit(root)
    deep, shallow, foreign = (
        next(text for text in found.findings() if name in text)
        for name in ("1b~", "notes.txt", "README")
    )
    assert "keeps the engine from cleaning up" in deep
    assert shallow == "manifests/notes.txt is no manifest."
    assert "unless OLLAMA_NOPRUNE" in foreign
    assert grave(found) == {"store_foreign": "WARN"}
    assert next(v.value for v in found.verdicts() if v.check == "store_foreign") == 3


def test_names(root):
    upper = root / "manifests/registry.ollama.ai/library/ONE/1b"
    upper.parent.mkdir(parents=True)
    upper.write_bytes((root / parse_name("one:1b").manifest).read_bytes())
    blob = blob_path(root, WEIGHTS)
    blob.rename(blob.with_name(blob.name.replace("-", ":")))
    found = audit(root)
    twins, old = found.findings()
    assert "upper and lower case only" in twins
    assert "named as by old servers" in old
    assert grave(found) == {"store_names": "WARN"}


def test_leftovers_of_the_collections_own_work(root):
    for folder, name in (("aside", f"sha256-{'a' * 64}"), ("incoming", f"sha256-{'b' * 64}.part")):
        path = root / ".hx" / folder / name
        path.parent.mkdir(parents=True)
        path.write_text("x")
    found = audit(root)
    aside, copy = found.findings()
    assert aside.startswith(f".hx/aside/sha256-{'a' * 64}: set aside by a repair")
    assert copy.startswith(f".hx/incoming/sha256-{'b' * 64}.part: an unfinished copy")
    assert grave(found) == {"store_leftovers": "WARN"}
    at_work = audit(root, holder="the run with pid 1")
    assert (at_work.findings(), grave(at_work)) == ([], {})


def test_access_is_told_by_problem(root):
    entries = [Entry(f"blobs/{name}", "file", "root", "root", 0o644) for name in "abcde"]
    found = audit(root, access=Access("ollama", "root"), entries=entries)
    assert found.findings() == [
        "Of blobs/a, blobs/b, blobs/c and 2 more the owner is root, wanted ollama."
    ]
    assert grave(found) == {"store_access": "WARN"}


def test_links(root):
    entries = [
        Entry("blobs", "link", target="/disk/blobs"),
        Entry("blobs/a", "link", target="/disk/a"),
        Entry("blobs/b", "link", target="/gone", dangling=True),
    ]
    found = audit(root, entries=entries)
    assert found.findings() == [
        "blobs/a is a link to /disk/a.",
        "blobs/b is a link to /gone, which isn't there.",
    ]
    assert grave(found) == {"store_foreign": "WARN"}


def test_blobs_that_were_not_read(root):
    assert audit(root).findings() == []
    found = audit(root, checked=True, verified={digest_of(CONFIG): 1.0})
    assert found.findings() == [f"blobs/sha256-{digest_of(WEIGHTS)}: not read in full yet."]
    assert grave(found) == {"store_verified": "WARN"}
    verified = {digest_of(CONFIG): 1.0, digest_of(WEIGHTS): 1.0}
    assert grave(audit(root, checked=True, verified=verified)) == {}


def test_many_findings_of_a_kind_are_not_all_told(root):
    for number in range(SHOWN + 5):
        path = root / parse_name(f"bad:{number}").manifest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    texts = audit(root).findings()
    assert len(texts) == SHOWN + 1
    assert texts[-1] == "There are 5 more of this kind."


def test_findings_and_verdicts_can_be_written_as_json(root):
    write_partial(root, b"x" * 100, 50)
    found = audit(root)
    assert json.dumps([found.findings(), [item.as_dict() for item in found.verdicts()]])
