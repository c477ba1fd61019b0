# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts about listing, showing, copying and deleting models, and about blobs."""

from __future__ import annotations

import hashlib
import os

import pytest

DETAILS = {
    "parent_model",
    "format",
    "family",
    "families",
    "parameter_size",
    "quantization_level",
}


def test_tags_entry(api, model):
    """An entry of /api/tags has name, model, modified_at, size, digest (hex) and details."""
    entry = api.listed(model)
    assert entry is not None
    assert set(entry) >= {"name", "model", "modified_at", "size", "digest", "details"}
    assert set(entry["details"]) >= DETAILS
    assert len(entry["digest"]) == 64
    assert int(entry["digest"], 16) >= 0


def test_tags_capabilities_from_0_30(api, model, version):
    """From 0.30 an entry of /api/tags has capabilities; older ones have none."""
    assert ("capabilities" in api.listed(model)) == (version >= (0, 30, 0))


def test_tags_always_show_the_tag(api):
    """The listing always shows model:tag and drops the default host and namespace."""
    for entry in api.get("/api/tags").json()["models"]:
        assert ":" in entry["name"].rsplit("/", 1)[-1]
        assert not entry["name"].startswith("registry.ollama.ai/")
        assert not entry["name"].startswith("library/")


def test_show(api, model):
    """POST /api/show answers details, model_info, capabilities, template and modified_at."""
    answer = api.post("/api/show", {"model": model}).json()
    assert set(answer) >= {"details", "model_info", "capabilities", "template", "modified_at"}
    assert "completion" in answer["capabilities"]
    assert answer["model_info"]["general.architecture"]


def test_show_without_a_model(api):
    """Show without a model answers 400 `model is required`."""
    reply = api.post("/api/show", {})
    assert (reply.status, reply.error) == (400, "model is required")


def test_show_unknown_model(api):
    """Show of an unknown model answers 404 `model 'x' not found`."""
    reply = api.post("/api/show", {"model": "contract-none:x"})
    assert (reply.status, reply.error) == (404, "model 'contract-none:x' not found")


def test_copy_has_the_same_digest(api, model, own_name):
    """Copy answers 200 with an empty body; it duplicates the manifest only: same digest."""
    reply = api.post("/api/copy", {"source": model, "destination": own_name})
    assert (reply.status, reply.body) == (200, b"")
    assert api.listed(own_name)["digest"] == api.listed(model)["digest"]


def test_copy_failures(api, model):
    """Copy answers 404 `model "x" not found` and 400 `source/destination "x" is invalid`."""
    reply = api.post("/api/copy", {"source": "contract-none:x", "destination": "contract-y:x"})
    assert (reply.status, reply.error) == (404, 'model "contract-none:x" not found')
    reply = api.post("/api/copy", {"source": "no such", "destination": "contract-y:x"})
    assert (reply.status, reply.error) == (400, 'source "no such" is invalid')
    reply = api.post("/api/copy", {"source": model, "destination": "no such"})
    assert (reply.status, reply.error) == (400, 'destination "no such" is invalid')


def test_delete(api, model, own_name):
    """DELETE /api/delete answers 200 with an empty body, then 404."""
    api.post("/api/copy", {"source": model, "destination": own_name})
    reply = api.delete("/api/delete", {"model": own_name})
    assert (reply.status, reply.body) == (200, b"")
    assert api.listed(own_name) is None
    reply = api.delete("/api/delete", {"model": own_name})
    assert (reply.status, reply.error) == (404, f"model '{own_name}' not found")


def test_delete_of_a_copy_keeps_shared_blobs(api, model, own_name):
    """Blobs that another model refers to stay when a model is deleted."""
    api.post("/api/copy", {"source": model, "destination": own_name})
    api.delete("/api/delete", {"model": own_name})
    reply = api.post("/api/generate", {"model": model, "keep_alive": 5})
    assert reply.status == 200


def test_delete_of_an_invalid_name(api):
    """Delete of an invalid name answers 400 `name "x" is invalid`."""
    reply = api.delete("/api/delete", {"model": "no such"})
    assert (reply.status, reply.error) == (400, 'name "no such" is invalid')


def test_names_match_whatever_the_case(api, model):
    """Names match existing ones case-insensitively."""
    assert api.post("/api/show", {"model": model.upper()}).status == 200


def test_default_host_and_namespace_may_be_written(api, model):
    """`x` and `registry.ollama.ai/library/x` are the same model."""
    if "/" in model:
        pytest.skip("the model under test has no short name")
    assert api.post("/api/show", {"model": f"registry.ollama.ai/library/{model}"}).status == 200


def test_blob_upload(api):
    """POST blob answers 201 when created and 200 when it exists; HEAD answers 200 and 404."""
    data = b"contract " + os.urandom(16)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    assert api.head(f"/api/blobs/{digest}").status == 404
    assert api.post(f"/api/blobs/{digest}", data).status == 201
    assert api.head(f"/api/blobs/{digest}").status == 200
    assert api.head(f"/api/blobs/{digest.replace(':', '-')}").status == 200
    assert api.post(f"/api/blobs/{digest}", b"not read again").status == 200


def test_blob_with_a_wrong_digest(api):
    """A wrong digest answers 400; the upload stays stored under its true digest as an orphan."""
    data = b"contract " + os.urandom(16)
    true = "sha256:" + hashlib.sha256(data).hexdigest()
    wrong = "sha256:" + "0" * 64
    reply = api.post(f"/api/blobs/{wrong}", data)
    assert reply.status == 400
    assert reply.error == f'digest mismatch, expected "{wrong}", got "{true}"'
    assert api.head(f"/api/blobs/{true}").status == 200
    assert api.head(f"/api/blobs/{wrong}").status == 404


def test_blob_digest_format(api):
    """Anything but sha256 and 64 hex digits answers 400 `invalid digest format`."""
    reply = api.post("/api/blobs/sha256:12", b"x")
    assert (reply.status, reply.error) == (400, "invalid digest format")
    assert api.head("/api/blobs/nonsense").status == 400
