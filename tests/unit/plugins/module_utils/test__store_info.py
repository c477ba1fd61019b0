# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each model and blob of a store is, occupies and shares."""

from __future__ import annotations

import sys

import pytest
from store_samples import LONG_AGO, blob_path, digest_of, write_blob, write_model, write_partial

from ansible_collections.hx_infra.llm.plugins.module_utils import _ollama_store as stores
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._store_info import Inventory, Seen
from ansible_collections.hx_infra.llm.plugins.module_utils._timestamp import utc

WEIGHTS, OTHER, LICENSE = b"w" * 5000, b"o" * 9000, b"license" * 100


def inventory(root, **seen):
    return Inventory(Seen(stores.read_store(str(root)), now=LONG_AGO + 7200.0, **seen))


@pytest.fixture
def root(tmp_path):
    write_model(tmp_path, "one:1b", WEIGHTS, LICENSE, config=b"c1")
    write_model(tmp_path, "two:1b", OTHER, LICENSE, config=b"c2")
    return tmp_path


def test_what_a_model_occupies(root):
    one, two = inventory(root).models()
    assert (one["name"], two["name"]) == ("one:1b", "two:1b")
    assert one["size_bytes"] == 2 + len(WEIGHTS) + len(LICENSE)
    assert one["shared_bytes"] == len(LICENSE)
    assert one["own_bytes"] == 2 + len(WEIGHTS)
    assert one["held_bytes"] == one["own_bytes"] + one["shared_bytes"]
    assert two["own_bytes"] == 2 + len(OTHER)
    assert (one["blobs"], one["whole"], one["defects"]) == (3, True, [])
    assert one["manifest"] == parse_name("one:1b").manifest
    assert "layers" not in one
    assert len(inventory(root).models(full=True)[0]["layers"]) == 3


def test_two_names_of_one_model_own_nothing(root):
    write_model(root, "three:1b", WEIGHTS, LICENSE, config=b"c1")
    rows = {row["name"]: row["own_bytes"] for row in inventory(root).models()}
    assert rows == {"one:1b": 0, "three:1b": 0, "two:1b": 2 + len(OTHER)}


def test_a_blob_that_a_model_names_twice_counts_once(tmp_path):
    write_model(tmp_path, "one:1b", WEIGHTS, WEIGHTS, config=b"c1")
    [row] = inventory(tmp_path).models()
    assert row["blobs"] == 2
    assert row["size_bytes"] == 2 + 2 * len(WEIGHTS)  # as the engine says
    assert row["held_bytes"] == row["own_bytes"] == 2 + len(WEIGHTS)


def test_a_sparse_blob_occupies_less(tmp_path):
    path = write_model(tmp_path, "one:1b", b"\0" * 1_000_000)
    blob = blob_path(tmp_path, b"\0" * 1_000_000)
    with open(blob, "r+b") as stream:
        stream.truncate(0)
        stream.truncate(1_000_000)
    [row] = inventory(tmp_path).models()
    assert row["held_bytes"] == len(b"config")
    assert row["size_bytes"] > 1_000_000
    assert path.exists()


def test_shared_blobs(root):
    write_model(root, "three:1b", OTHER, config=b"c3")
    assert inventory(root).shared() == [
        {
            "digest": digest_of(OTHER),
            "size_bytes": len(OTHER),
            "models": ["three:1b", "two:1b"],
        },
        {
            "digest": digest_of(LICENSE),
            "size_bytes": len(LICENSE),
            "models": ["one:1b", "two:1b"],
        },
    ]


def test_missing_blobs_and_what_can_be_resumed(root):
    blob_path(root, OTHER).unlink()
    write_partial(root, OTHER, 4000)
    found = inventory(root)
    assert found.missing_blobs() == [
        {
            "digest": digest_of(OTHER),
            "size_bytes": 9000,
            "media_type": "weights",
            "resumable_bytes": 4000,
            "models": ["two:1b"],
        }
    ]
    two = found.models()[1]
    assert (two["whole"], two["held_bytes"]) == (False, 2 + len(LICENSE))
    assert two["defects"] == [
        {
            "digest": digest_of(OTHER),
            "media_type": "weights",
            "state": "missing",
            "detail": "4.0KB of its 9.0KB are downloaded",
        }
    ]


def test_a_copy_that_came_further_than_the_download(root):
    blob_path(root, OTHER).unlink()
    write_partial(root, OTHER, 4000)
    copy = root / ".hx" / "incoming" / f"sha256-{digest_of(OTHER)}.part"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(OTHER[:6000])
    assert inventory(root).missing_blobs()[0]["resumable_bytes"] == 6000


def test_a_damaged_download_resumes_nothing(root):
    blob_path(root, OTHER).unlink()
    write_partial(root, OTHER, 4000, record="")
    found = inventory(root)
    assert found.missing_blobs()[0]["resumable_bytes"] == 0
    assert found.partials()[0]["damaged"] is True


def test_wrong_sizes(root):
    blob_path(root, WEIGHTS).write_bytes(WEIGHTS[:4000])
    found = inventory(root)
    [row] = found.blobs()
    assert row["state"] == stores.WRONG_SIZE
    assert row["detail"] == "it has 4,000 bytes, wanted 5,000"
    assert row["models"] == ["one:1b"]
    assert found.models()[0]["defects"][0]["state"] == stores.WRONG_SIZE


def test_two_manifests_that_disagree_about_a_size(root):
    path = write_model(root, "three:1b", WEIGHTS, config=b"c3")
    path.write_text(path.read_text().replace("5000", "5001"))
    found = inventory(root)
    assert found.state(digest_of(WEIGHTS)) == stores.WRONG_SIZE
    assert found.detail(digest_of(WEIGHTS)) == "it has 5,000 bytes, wanted 5,000 and 5,001"


def test_verified_means_all_blobs_of_a_model(root):
    digests = [digest_of(content) for content in (WEIGHTS, LICENSE, b"c1")]
    times = dict(zip(digests, (LONG_AGO + 30.0, LONG_AGO + 10.0, LONG_AGO + 20.0)))
    one, two = inventory(root, verified=times).models()
    assert (one["verified"], one["verified_at"]) == (True, utc(LONG_AGO + 10))
    assert (two["verified"], two["verified_at"]) == (False, "")
    assert inventory(root, verified=times).totals()["verified_blobs"] == 3


def test_orphans_and_their_age(root):
    path = write_blob(root, b"nobody's")
    found = inventory(root)
    [row] = found.blobs()
    assert (row["path"], row["orphan"], row["in_use"]) == (f"blobs/{path.name}", True, False)
    assert [blob.digest for blob in found.orphans] == [digest_of(b"nobody's")]
    assert inventory(root, min_age_s=10_000).blobs()[0]["in_use"] is True
    status = path.stat()
    busy = {(status.st_dev, status.st_ino)}
    assert inventory(root, busy=busy).blobs()[0]["in_use"] is True


def test_a_download(root):
    blob_path(root, OTHER).unlink()
    data, part = write_partial(root, OTHER, 2250)
    [row] = inventory(root, sees_all=True).partials()
    assert row == {
        "digest": digest_of(OTHER),
        "files": [f"blobs/{data.name}", f"blobs/{part.name}"],
        "size_bytes": 9000,
        "completed_bytes": 2250,
        "percent": 25.0,
        "held_bytes": row["held_bytes"],
        "age_s": 7200,
        "damaged": False,
        "open": False,
        "going_on": False,
        "models": ["two:1b"],
    }
    assert row["held_bytes"] > 9000
    assert inventory(root).partials()[0]["open"] is None
    status = data.stat()
    [row] = inventory(root, busy={(status.st_dev, status.st_ino)}).partials()
    assert (row["open"], row["going_on"]) == (True, True)
    assert inventory(root, min_age_s=10_000).partials()[0]["going_on"] is True


def test_a_damaged_record_is_no_download_in_progress_unless_it_is_being_written(root):
    data, _part = write_partial(root, OTHER, 0, record="{")
    young = {"min_age_s": 10_000}
    assert inventory(root, **young, sees_all=True).partials()[0]["going_on"] is False
    assert inventory(root, **young).partials()[0]["going_on"] is True
    status = data.stat()
    busy = {(status.st_dev, status.st_ino)}
    assert inventory(root, busy=busy, sees_all=True).partials()[0]["going_on"] is True


def test_a_safetensors_download_has_no_known_length(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / f"sha256-{'a' * 64}.tmp").write_bytes(b"x" * 70)
    [row] = inventory(tmp_path).partials()
    assert (row["size_bytes"], row["completed_bytes"], row["percent"]) == (0, 70, None)


def test_totals(root):
    write_blob(root, b"nobody's")
    blob_path(root, WEIGHTS).unlink()
    write_partial(root, WEIGHTS, 100)
    blob_path(root, OTHER).write_bytes(b"short")
    totals = inventory(root).totals()
    kept = (LICENSE, b"c1", b"c2", b"nobody's", b"short")
    assert totals["blob_bytes"] == totals["held_bytes"] == sum(map(len, kept))
    expected = {
        "models": 2,
        "whole_models": 0,
        "declared_bytes": 4 + len(WEIGHTS) + len(OTHER) + 2 * len(LICENSE),
        "blobs": 5,
        "verified_blobs": 0,
        "missing_blobs": 1,
        "missing_bytes": len(WEIGHTS),
        "bad_blobs": 1,
        "bad_bytes": 5,
        "orphans": 1,
        "orphan_bytes": len(b"nobody's"),
        "partial_files": 2,
    }
    assert {key: totals[key] for key in expected} == expected


def test_the_work_grows_with_the_store_only_linearly():
    """Counted in calls, not in seconds."""

    def calls(count):
        store = stores.Store("/store")
        for number in range(count):
            layers = [stores.Layer("f" * 64, 5)]
            for part in range(5):
                digest = f"{number * 5 + part:064x}"
                layers.append(stores.Layer(digest, 5))
                if part:
                    store.blobs[digest] = stores.StoredFile(f"blobs/{digest}", digest, 5, 5, 0.0)
                else:
                    path = f"blobs/sha256-{digest}-partial"
                    store.partials.append(stores.StoredFile(path, digest, 5, 5, 0.0))
            name = parse_name(f"model-{number}")
            store.models[name.key] = stores.StoredModel(name, "d", tuple(layers), name.manifest)
        seen = []
        sys.setprofile(lambda _frame, event, _arg: seen.append(1) if event == "call" else None)
        try:
            found = Inventory(Seen(store))
            for part in (found.models, found.blobs, found.missing_blobs, found.shared):
                part()
            found.partials()
            found.totals()
        finally:
            sys.setprofile(None)
        return len(seen)

    assert calls(80) < 2.2 * calls(40)
