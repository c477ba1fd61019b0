# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts about the store on disk, seen from outside while the server runs."""

from __future__ import annotations

import hashlib
import json
import time

import pytest


def manifest_path(store, name):
    """Return the manifest of a name without host and namespace."""
    model, tag = name.split(":")
    return store / "manifests" / "registry.ollama.ai" / "library" / model / tag


@pytest.fixture
def manifest(store, model):
    """The manifest of the model under test."""
    if "/" in model:
        pytest.skip("the model under test has no short name")
    return json.loads(manifest_path(store, model).read_bytes())


@pytest.fixture
def planted(store, model, manifest):
    """A function that writes a changed copy of the manifest under a name of its own."""
    written = []

    def plant(change):
        name = f"contract-planted-{time.time_ns()}:test"
        path = manifest_path(store, name)
        path.parent.mkdir(parents=True)
        copy = json.loads(json.dumps(manifest))
        path.write_text(change(copy) or json.dumps(copy))
        written.append(path)
        return name

    yield plant
    for path in written:
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            path.parent.rmdir()


def test_digest_is_sha256_of_the_manifest_file(api, store, model):
    """digest in /api/tags is the sha256 hex of the manifest file."""
    data = manifest_path(store, model).read_bytes()
    assert api.listed(model)["digest"] == hashlib.sha256(data).hexdigest()


def test_manifest_layout(manifest):
    """A manifest has schemaVersion 2, the docker media type, a config and layers."""
    assert manifest["schemaVersion"] == 2
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert set(manifest["config"]) >= {"mediaType", "digest", "size"}
    kinds = [layer["mediaType"] for layer in manifest["layers"]]
    assert "application/vnd.ollama.image.model" in kinds


def test_blobs_are_named_by_their_content(store, manifest):
    """Each layer is the file blobs/sha256-<hex> whose sha256 it is, with the written size."""
    for layer in [manifest["config"], *manifest["layers"]]:
        path = store / "blobs" / layer["digest"].replace(":", "-")
        if path.stat().st_size > 1 << 30:
            continue
        assert "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest() == layer["digest"]
        assert path.stat().st_size == layer["size"]


def test_size_is_the_sum_as_written(api, planted):
    """size in /api/tags is the sum of the sizes written in the manifest, not of the files."""

    def change(copy):
        copy["config"]["size"] = 1000
        copy["layers"] = copy["layers"][:1]
        copy["layers"][0]["size"] = 5000

    assert api.listed(planted(change))["size"] == 6000


def test_a_new_manifest_is_seen_at_once(api, planted):
    """The listing reads manifests at each request: no restart is needed."""
    assert api.listed(planted(lambda copy: None)) is not None


def test_missing_weights_are_still_listed(api, planted):
    """A model whose weights are gone is listed in full size; generate answers a misleading 400."""

    def change(copy):
        for layer in copy["layers"]:
            if layer["mediaType"].endswith(".model"):
                layer["digest"] = "sha256:" + "0" * 64

    name = planted(change)
    assert api.listed(name)["size"] > 0
    reply = api.post("/api/generate", {"model": name, "prompt": "x"})
    assert (reply.status, reply.error) == (400, f'"{name}" does not support generate')


def test_missing_config_drops_the_model_from_the_list(api, planted):
    """A model whose config blob is missing is not listed."""

    def change(copy):
        copy["config"]["digest"] = "sha256:" + "0" * 64

    assert api.listed(planted(change)) is None


@pytest.mark.parametrize("content", ["", "{", "not json"])
def test_a_corrupt_manifest_vanishes(api, planted, content):
    """A corrupt manifest vanishes from tags, and delete fails with 500."""
    name = planted(lambda copy: content or " ")
    assert api.listed(name) is None
    assert api.delete("/api/delete", {"model": name}).status == 500


def test_cut_weights_are_500(api, store, planted):
    """Weights that are cut off answer 500 at generate: nothing checks them before."""
    fake = store / "blobs" / ("sha256-" + hashlib.sha256(b"contract cut").hexdigest())

    def change(copy):
        for layer in copy["layers"]:
            if layer["mediaType"].endswith(".model"):
                source = store / "blobs" / layer["digest"].replace(":", "-")
                with source.open("rb") as file:
                    fake.write_bytes(file.read(layer["size"] // 2))
                layer["digest"] = fake.name.replace("-", ":")

    name = planted(change)
    try:
        reply = api.post("/api/generate", {"model": name, "prompt": "x"})
        assert reply.status == 500
        assert reply.error
    finally:
        fake.unlink()


def test_a_cache_hit_is_not_verified(api, store, remote):
    """A blob that exists is taken as it is: pull never repairs a corrupt one."""
    api.post("/api/pull", {"model": remote, "insecure": True, "stream": False})
    host, namespace, rest = remote.split("/")
    model, tag = rest.split(":")
    data = json.loads((store / "manifests" / host / namespace / model / tag).read_bytes())
    layer = next(x for x in data["layers"] if x["mediaType"].endswith(".template"))
    path = store / "blobs" / layer["digest"].replace(":", "-")
    good = path.read_bytes()
    try:
        path.write_bytes(b"spoilt")
        reply = api.post("/api/pull", {"model": remote, "insecure": True})
        assert reply.lines()[-1] == {"status": "success"}
        assert path.read_bytes() == b"spoilt"
    finally:
        path.write_bytes(good)
        api.delete("/api/delete", {"model": remote})


def test_modes(store, api, model, own_name):
    """New blobs are 0644; manifests are 0644 less the umask; the owner is the server's user."""
    api.post("/api/create", {"model": own_name, "from": model, "system": own_name})
    path = manifest_path(store, own_name)
    data = json.loads(path.read_bytes())
    layer = next(x for x in data["layers"] if x["mediaType"].endswith(".system"))
    blob = store / "blobs" / layer["digest"].replace(":", "-")
    assert blob.stat().st_mode & 0o777 == 0o644
    assert path.stat().st_mode & 0o777 in (0o644, 0o640, 0o600)
    assert blob.stat().st_uid == path.stat().st_uid


def test_show_reports_where_the_weights_are(api, store, model, manifest):
    """The modelfile in /api/show names the blob of the weights."""
    layer = next(x for x in manifest["layers"] if x["mediaType"].endswith(".model"))
    shown = api.post("/api/show", {"model": model}).json()["modelfile"]
    assert layer["digest"].replace(":", "-") in shown
