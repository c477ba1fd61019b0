# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading a store from disk, healthy and damaged."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _ollama_store as stores
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name


def write_blob(root, content):
    digest = hashlib.sha256(content).hexdigest()
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    (root / "blobs" / f"sha256-{digest}").write_bytes(content)
    return {"mediaType": "t", "digest": f"sha256:{digest}", "size": len(content)}


def write_model(root, name, *contents):
    config, *layers = [write_blob(root, content) for content in contents]
    manifest = json.dumps({"schemaVersion": 2, "config": config, "layers": layers}).encode()
    path = root / parse_name(name).manifest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(manifest)
    return hashlib.sha256(manifest).hexdigest()


def blob_of(root, content):
    return root / "blobs" / f"sha256-{hashlib.sha256(content).hexdigest()}"


def test_models_with_a_shared_blob(tmp_path):
    first = write_model(tmp_path, "one:1b", b"c1", b"weights", b"license")
    write_model(tmp_path, "jo/two", b"c2", b"other weights", b"license")
    store = stores.read_store(str(tmp_path))
    model = store.find(parse_name("one:1b"))
    assert (model.digest, model.size) == (first, len(b"c1weightslicense"))
    assert sorted(str(found.name) for found in store.models.values()) == ["jo/two:latest", "one:1b"]
    assert len(store.blobs) == 5
    assert store.defects(model) == []
    assert store.find(parse_name("ONE:1B")) is model


@pytest.mark.parametrize(
    ("damage", "state"),
    [
        (lambda path: path.unlink(), stores.MISSING),
        (lambda path: path.write_bytes(b"cut"), stores.WRONG_SIZE),
        (lambda path: os.truncate(path, 0), stores.WRONG_SIZE),
    ],
)
def test_defects(tmp_path, damage, state):
    write_model(tmp_path, "one", b"config", b"weights")
    damage(blob_of(tmp_path, b"weights"))
    store = stores.read_store(str(tmp_path))
    [(layer, found)] = store.defects(store.find(parse_name("one")))
    assert found == state
    assert layer.size == len(b"weights")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b'{"layers": [', "it is no JSON"),
        (b"[]", "it has no list of layers"),
        (b'{"layers": [{"size": 1}]}', "a layer has no digest"),
        (b'{"layers": ["x"]}', "a layer has no digest"),
        (
            b'{"layers": [{"digest": "sha256:%s", "size": -1}]}' % (b"a" * 64),
            "the size of the layer",
        ),
    ],
)
def test_corrupt_manifests(tmp_path, content, reason):
    write_model(tmp_path, "good", b"c", b"w")
    path = tmp_path / parse_name("bad").manifest
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    store = stores.read_store(str(tmp_path))
    assert list(store.models) == [parse_name("good").key]
    assert store.corrupt_reason(parse_name("bad")).startswith(reason)
    assert store.corrupt_reason(parse_name("good")) == ""


def test_stray_foreign_and_partial_files(tmp_path):
    write_model(tmp_path, "one", b"c", b"w")
    digest = "b" * 64
    (tmp_path / "manifests" / "notes.txt").write_text("x")
    (tmp_path / parse_name("one").manifest).with_suffix(".bak~").write_text("{}")
    blobs = tmp_path / "blobs"
    (blobs / "README").write_text("x")
    (blobs / "sha256-1234567").write_text("left by a create")
    with open(blobs / f"sha256-{digest}-partial", "wb") as stream:
        stream.truncate(50_000_000)
    part = {"N": 0, "Offset": 0, "Size": 50_000_000, "Completed": 1234}
    (blobs / f"sha256-{digest}-partial-0").write_text(json.dumps(part))
    (blobs / f"sha256-{'c' * 64}-partial-0").write_text("")
    (blobs / f"sha256-{'d' * 64}.tmp").write_text("x")
    store = stores.read_store(str(tmp_path))
    assert store.stray == [
        "manifests/notes.txt",
        "manifests/registry.ollama.ai/library/one/latest.bak~",
    ]
    assert sorted(file.path for file in store.foreign) == ["blobs/README", "blobs/sha256-1234567"]
    assert len(store.partials) == 4
    sparse = next(file for file in store.partials if file.path.endswith("-partial"))
    assert (sparse.size, sparse.held) == (50_000_000, 0)
    assert store.resumable(digest) == 1234
    assert [file.damaged for file in store.partials if file.digest[0] == "c"] == [True]
    assert store.resumable("c" * 64) == 0


def test_hashing(tmp_path):
    write_model(tmp_path, "one", b"config", b"weights")
    blob_of(tmp_path, b"weights").write_bytes(b"WEIGHTS")
    store = stores.read_store(str(tmp_path))
    assert store.defects(store.find(parse_name("one"))) == []
    stores.hash_blobs(store, list(store.blobs))
    [(layer, state)] = store.defects(store.find(parse_name("one")))
    assert (layer.size, state) == (7, stores.CORRUPT)
    blob_of(tmp_path, b"weights").unlink()
    with pytest.raises(HostError, match="can't be read"):
        stores.hash_blobs(store, list(store.blobs))


def test_no_store(tmp_path):
    store = stores.read_store(str(tmp_path / "none"))
    assert not store.exists
    assert not store.models


def test_empty_store(tmp_path):
    assert stores.read_store(str(tmp_path)).exists


def test_a_file_instead_of_a_store(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(HostError, match="can't be read"):
        stores.read_store(str(tmp_path / "file"))


def test_a_store_behind_a_link(tmp_path):
    write_model(tmp_path / "real", "one", b"c", b"w")
    (tmp_path / "link").symlink_to("real")
    assert len(stores.read_store(str(tmp_path / "link")).models) == 1
