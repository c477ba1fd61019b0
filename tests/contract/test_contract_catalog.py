# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts that keeping the models of a host as a declared state relies on."""

from __future__ import annotations

import json
import shutil
import time

import pytest

ASIDE = ".hx/aside"
SUCCESS = {"status": "success"}


class Remote:
    """The registry's model in the server's store: its name, manifest and blobs."""

    def __init__(self, api, store, name):
        self.api = api
        self.store = store
        self.name = name
        host, namespace, rest = name.split("/")
        model, tag = rest.split(":")
        self.manifest = store / "manifests" / host / namespace / model / tag

    def pull(self):
        """Pull it and return the last line."""
        return self.api.post("/api/pull", {"model": self.name, "insecure": True}).lines()[-1]

    def blob(self, kind):
        """Return the path of the blob of a kind such as `model` or `template`."""
        layers = json.loads(self.manifest.read_bytes())["layers"]
        layer = next(x for x in layers if x["mediaType"].endswith(f".{kind}"))
        return self.store / "blobs" / layer["digest"].replace(":", "-")


def partials(blob):
    """Return the files of an unfinished download of a blob."""
    return list(blob.parent.glob(f"{blob.name}-partial*"))


@pytest.fixture
def pulled(api, store, remote):
    """The registry's model, pulled; it is removed again."""
    model = Remote(api, store, remote)
    assert model.pull() == SUCCESS
    yield model
    api.delete("/api/delete", {"model": remote})


@pytest.fixture
def own_blob(pulled):
    """A small blob of the pulled model, which may be another model's too; it is put back."""
    path = pulled.blob("template")
    good = path.read_bytes()
    yield path
    path.unlink(missing_ok=True)
    path.write_bytes(good)


def blobs(store):
    """Return name and size of all blobs."""
    return {path.name: path.stat().st_size for path in (store / "blobs").iterdir()}


def test_a_blob_that_is_set_aside_is_downloaded_again(pulled, own_blob, store):
    """A bad blob that is moved out of blobs/ while the server runs is downloaded by a pull."""
    good = own_blob.read_bytes()
    own_blob.write_bytes(bytes(byte ^ 1 for byte in good))
    aside = store / ASIDE / own_blob.name
    aside.parent.mkdir(parents=True, exist_ok=True)
    try:
        own_blob.rename(aside)
        assert pulled.pull() == SUCCESS
        assert own_blob.read_bytes() == good
        assert aside.read_bytes() != good
    finally:
        aside.unlink()


def test_a_blob_that_is_put_back_is_there_again(api, pulled, own_blob, store):
    """A blob that is moved away and back is used as before: the server keeps answering meanwhile.

    Whether the list shows the model in between depends on the version and on what it has cached.
    """
    away = store / "contract-away"
    own_blob.rename(away)
    assert api.get("/api/tags").status == 200
    away.rename(own_blob)
    assert api.listed(pulled.name) is not None
    assert pulled.pull() == SUCCESS
    assert api.post("/api/show", {"model": pulled.name}).status == 200


@pytest.mark.parametrize("content", [b"", b'{"schemaVersion": 2, "lay'], ids=["empty", "cut"])
def test_a_pull_repairs_a_manifest(api, pulled, content):
    """An empty or cut manifest vanishes from tags; a pull of the model repairs it."""
    good = pulled.manifest.read_bytes()
    pulled.manifest.write_bytes(content)
    assert api.listed(pulled.name) is None
    assert pulled.pull() == SUCCESS
    assert json.loads(pulled.manifest.read_bytes()) == json.loads(good)
    assert api.listed(pulled.name) is not None


def test_a_loose_file_below_manifests_is_not_seen(api, model, store):
    """Files that are not four levels deep below manifests/ are no models and do no harm."""
    loose = store / "manifests" / "contract-README"
    loose.write_text("not a manifest")
    try:
        assert api.listed(model) is not None
        assert not [x for x in api.get("/api/tags").json()["models"] if "README" in x["name"]]
    finally:
        loose.unlink()


def test_a_copy_of_a_manifest_is_a_model(api, pulled):
    """A copy of a manifest beside it, as editors and people make it, is a model of that tag."""
    copy = pulled.manifest.with_name(pulled.manifest.name + ".bak")
    shutil.copy(pulled.manifest, copy)
    try:
        entry = api.listed(pulled.name + ".bak")
        assert entry["digest"] == api.listed(pulled.name)["digest"]
    finally:
        copy.unlink()


def test_a_copy_takes_no_disk(api, model, own_name, store):
    """Copy writes a manifest and no blob."""
    before = blobs(store)
    api.post("/api/copy", {"source": model, "destination": own_name})
    assert blobs(store) == before


def test_a_version_that_is_kept_by_a_tag(api, model, store):
    """A tag with a suffix such as -hx-previous keeps a version under a name of its own."""
    kept = f"contract-{time.time_ns()}:x-hx-previous"
    assert api.post("/api/copy", {"source": model, "destination": kept}).status == 200
    before = blobs(store)
    assert api.listed(kept)["digest"] == api.listed(model)["digest"]
    assert api.delete("/api/delete", {"model": kept}).status == 200
    assert api.listed(kept) is None
    assert blobs(store) == before


def test_delete_keeps_what_another_model_uses(api, model, own_name, store):
    """Deleting a model removes its own blobs and keeps those that another one refers to."""
    before = blobs(store)
    api.post("/api/create", {"model": own_name, "from": model, "system": own_name})
    assert set(before) < set(blobs(store))
    api.delete("/api/delete", {"model": own_name})
    assert blobs(store) == before


def test_an_empty_part_record_fails_until_it_goes(pulled, own_blob):
    """An empty record of a part makes pulls of the blob fail with `EOF` until the file goes."""
    own_blob.unlink()
    record = own_blob.with_name(f"{own_blob.name}-partial-0")
    record.write_bytes(b"")
    try:
        for _time in range(2):
            assert pulled.pull()["error"] == "EOF"
    finally:
        for path in partials(own_blob):
            path.unlink()
    assert pulled.pull() == SUCCESS
    assert own_blob.exists()


def test_a_part_goes_on_where_its_record_says(pulled, own_blob):
    """A download goes on at `Completed` of the part's record; what is before is not read again."""
    good = own_blob.read_bytes()
    half = len(good) // 2
    own_blob.unlink()
    data = own_blob.with_name(f"{own_blob.name}-partial")
    record = {"N": 0, "Offset": 0, "Size": len(good), "Completed": half}
    data.write_bytes(good[:half] + bytes(len(good) - half))
    data.with_name(f"{data.name}-0").write_text(json.dumps(record))
    assert pulled.pull() == SUCCESS
    assert own_blob.read_bytes() == good
    assert partials(own_blob) == []
