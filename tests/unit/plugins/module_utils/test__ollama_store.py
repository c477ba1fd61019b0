# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading a store from disk, healthy and damaged."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import replace

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
        (b'{"layers": [], "config": "x"}', "its configuration is no object"),
        (b'{"layers": ' + b"[" * 100_000, "it is nested too deeply"),
        (b'{"layers": []}' + b" " * (4 << 20), "it is longer than a manifest"),
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


def test_a_manifest_that_goes_while_the_store_is_read(tmp_path, monkeypatch):
    write_model(tmp_path, "one", b"c", b"w")
    write_model(tmp_path, "two", b"c", b"x")
    listed = list(stores._files(str(tmp_path), stores.MANIFESTS))
    (tmp_path / parse_name("one").manifest).unlink()
    monkeypatch.setattr(stores, "_files", lambda _root, _below: listed)
    store = stores.read_store(str(tmp_path))
    assert (list(store.models), store.corrupt) == ([parse_name("two").key], {})
    assert store.stray == []


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


def test_what_the_collection_keeps_in_a_store(tmp_path):
    write_model(tmp_path, "one", b"config", b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    for place, name in (
        (stores.ASIDE, f"sha256-{digest}"),
        (stores.INCOMING, f"sha256-{digest}.part"),
        (stores.ASIDE, "notes"),
        (stores.INCOMING, f"sha256-{digest}"),
    ):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / name).write_bytes(b"begun")
    (tmp_path / stores.INCOMING / f"sha256-{'b' * 64}.part").mkdir()
    store = stores.read_store(str(tmp_path))
    assert {found: file.path for found, file in store.aside.items()} == {
        digest: f".hx/aside/sha256-{digest}"
    }
    [part] = store.incoming
    assert (part.path, part.completed) == (f".hx/incoming/sha256-{digest}.part", 5)
    assert (store.resumable(digest), store.resumable(digest, copies=True)) == (0, 5)
    assert (store.partials, store.foreign) == ([], [])


def test_a_copy_that_has_come_further_than_a_download_counts(tmp_path):
    digest = "b" * 64
    (tmp_path / "blobs").mkdir()
    (tmp_path / stores.INCOMING).mkdir(parents=True)
    part = {"N": 0, "Offset": 0, "Size": 900, "Completed": 7}
    (tmp_path / "blobs" / f"sha256-{digest}-partial-0").write_text(json.dumps(part))
    (tmp_path / stores.INCOMING / f"sha256-{digest}.part").write_bytes(b"begun")
    store = stores.read_store(str(tmp_path))
    assert (store.resumable(digest), store.resumable(digest, copies=True)) == (7, 7)
    (tmp_path / "blobs" / f"sha256-{digest}-partial-0").write_text("")
    store = stores.read_store(str(tmp_path))
    assert (store.resumable(digest), store.resumable(digest, copies=True)) == (0, 5)


def test_names_of_very_old_servers(tmp_path):
    write_model(tmp_path, "one", b"config", b"weights")
    for content in (b"config", b"weights"):
        path = blob_of(tmp_path, content)
        path.rename(path.with_name(path.name.replace("-", ":")))
    write_blob(tmp_path, b"config")
    store = stores.read_store(str(tmp_path))
    assert len(store.old_names) == 2
    assert store.foreign == []
    assert store.defects(store.find(parse_name("one"))) == []
    places = sorted(file.path[:13] for file in store.blobs.values())
    assert places == ["blobs/sha256-", "blobs/sha256:"]


def test_owner_mode_and_time_of_a_blob(tmp_path):
    write_model(tmp_path, "one", b"config", b"weights")
    path = blob_of(tmp_path, b"weights")
    path.chmod(0o640)
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    store = stores.read_store(str(tmp_path))
    blob = store.blobs[hashlib.sha256(b"weights").hexdigest()]
    assert (blob.mode, blob.mtime_ns) == (0o640, 1_234_567_890_123_456_789)
    assert (blob.uid, blob.gid) == (path.stat().st_uid, path.stat().st_gid)
    assert not blob.bad
    assert replace(blob, flaw="its content is another").bad


def test_two_manifests_that_differ_in_case_only(tmp_path):
    write_model(tmp_path, "One", b"c1", b"first")
    write_model(tmp_path, "one", b"c2", b"second")
    store = stores.read_store(str(tmp_path))
    [twin] = store.twins
    found = store.find(parse_name("ONE"))
    assert {found.path, twin.path} == {parse_name(name).manifest for name in ("One", "one")}
    assert len(store.referenced()) == 4


def test_a_manifest_on_a_failing_disk(tmp_path, monkeypatch):
    write_model(tmp_path, "one", b"config", b"weights")
    bad = str(tmp_path / parse_name("one").manifest)

    def failing(path, *args, **kwargs):
        if path == bad:
            raise OSError(number, os.strerror(number), path)
        return open(path, *args, **kwargs)

    monkeypatch.setattr(stores, "open", failing, raising=False)
    number = errno.EIO
    store = stores.read_store(str(tmp_path))
    assert store.corrupt_reason(parse_name("ONE")) == "it can't be read: Input/output error"
    number = errno.EACCES
    with pytest.raises(HostError, match="Permission denied"):
        stores.read_store(str(tmp_path))


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
