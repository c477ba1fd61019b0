# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts about pull and create."""

from __future__ import annotations

import hashlib

import pytest


@pytest.fixture
def pulled(api, remote):
    """The remote model's name; it is removed before and after."""
    api.delete("/api/delete", {"model": remote})
    yield remote
    api.delete("/api/delete", {"model": remote})


def test_status_sequence(api, pulled):
    """A pull streams: pulling manifest, pulling <12 hex>.., verifying, writing, success."""
    reply = api.post("/api/pull", {"model": pulled, "insecure": True})
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("application/x-ndjson")
    statuses = [line["status"] for line in reply.lines()]
    assert statuses[0] == "pulling manifest"
    assert statuses[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    for line in reply.lines()[1:-3]:
        assert line["status"] == f"pulling {line['digest'][7:19]}"
        assert line["total"] > 0
    assert api.listed(pulled) is not None


def test_a_second_pull_succeeds(api, pulled):
    """Pulling what is there is a cache hit and ends with success again."""
    for _time in range(2):
        reply = api.post("/api/pull", {"model": pulled, "insecure": True})
        assert reply.lines()[-1] == {"status": "success"}


def test_pull_without_a_stream(api, pulled):
    """With stream=false the answer is the last progress object alone."""
    reply = api.post("/api/pull", {"model": pulled, "insecure": True, "stream": False})
    assert (reply.status, reply.json()) == (200, {"status": "success"})


def test_listing_prints_a_foreign_host_in_full(api, pulled):
    """A model of another host is listed with host and namespace in full."""
    api.post("/api/pull", {"model": pulled, "insecure": True, "stream": False})
    assert api.listed(pulled)["name"] == pulled


def test_failures_are_inside_a_200_stream(api, registry):
    """`pulling manifest` comes first, so an unknown model is HTTP 200 with an error line."""
    name = f"{registry}/library/contract-none:x"
    reply = api.post("/api/pull", {"model": name, "insecure": True})
    assert reply.status == 200
    assert reply.lines()[0] == {"status": "pulling manifest"}
    assert reply.lines()[-1]["error"] == "pull model manifest: file does not exist"


def test_failures_without_a_stream_are_500(api, registry):
    """With stream=false the same failure is 500 with the text."""
    name = f"{registry}/library/contract-none:x"
    reply = api.post("/api/pull", {"model": name, "insecure": True, "stream": False})
    assert (reply.status, reply.error) == (500, "pull model manifest: file does not exist")


def test_unreachable_registry_is_inside_a_200_stream(api):
    """A registry that refuses connections is HTTP 200 with an error line."""
    reply = api.post("/api/pull", {"model": "127.0.0.1:9/library/x:y", "insecure": True})
    assert reply.status == 200
    assert "connection refused" in reply.lines()[-1]["error"]


@pytest.mark.parametrize("name", ["no such", "x@sha256:12", "localhost:5000/x", "a/b/c/d:e:f"])
def test_invalid_names(api, name):
    """Names with a digest or a host without a namespace are invalid: 400."""
    reply = api.post("/api/pull", {"model": name})
    assert (reply.status, reply.error) == (400, "invalid model name")


def test_digest_is_that_of_the_manifest_on_the_registry(api, pulled, registry, version):
    """From 0.19.0 the digest in tags is the sha256 of the registry's manifest body."""
    if version < (0, 19, 0):
        pytest.skip("older versions write the manifest anew")
    api.post("/api/pull", {"model": pulled, "insecure": True, "stream": False})
    _host, namespace, rest = pulled.split("/")
    model, tag = rest.split(":")
    manifest = type(api)(f"http://{registry}").get(f"/v2/{namespace}/{model}/manifests/{tag}")
    assert api.listed(pulled)["digest"] == hashlib.sha256(manifest.body).hexdigest()


def test_create_needs_a_source(api):
    """Create without from and files answers 400."""
    reply = api.post("/api/create", {"model": "contract-x:test"})
    assert (reply.status, reply.error) == (400, "neither 'from' or 'files' was specified")


def test_create_from_a_model(api, model, own_name):
    """Create streams progress and ends with success; template and system replace."""
    request = {"model": own_name, "from": model, "system": "Be brief.", "parameters": {"seed": 3}}
    reply = api.post("/api/create", request)
    assert reply.lines()[-1] == {"status": "success"}
    shown = api.post("/api/show", {"model": own_name}).json()
    assert shown["system"] == "Be brief."
    assert "seed" in shown["parameters"]


def test_parameters_are_merged(api, model, own_name):
    """A parameter that is left out survives from the base: parameters are merged."""
    first = {"model": own_name, "from": model, "parameters": {"seed": 3, "top_k": 9}}
    api.post("/api/create", first)
    api.post("/api/create", {"model": own_name, "from": own_name, "parameters": {"seed": 4}})
    shown = api.post("/api/show", {"model": own_name}).json()["parameters"].split("\n")
    values = [line.split() for line in shown]
    assert ["top_k", "9"] in values
    assert ["seed", "4"] in values


def test_the_same_input_gives_the_same_digest(api, model, own_name):
    """The same inputs on the same version give the same manifest digest."""
    request = {"model": own_name, "from": model, "system": "Be brief."}
    digests = []
    for _time in range(2):
        api.post("/api/create", request)
        digests.append(api.listed(own_name)["digest"])
    assert digests[0] == digests[1]


def test_create_with_a_missing_blob_fails_inside_the_stream(api, own_name):
    """A missing blob surfaces after progress was sent: 200 and an error line."""
    digest = "sha256:" + "0" * 64
    reply = api.post("/api/create", {"model": own_name, "files": {"x.gguf": digest}})
    assert reply.status == 200
    assert "no such file or directory" in reply.lines()[-1]["error"]
