# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts about every endpoint: errors, routes, bodies, keep_alive, the Host header."""

from __future__ import annotations

import pytest
from contract_http import call


def test_root_says_that_it_runs(api):
    """GET and HEAD / answer 200 with the text `Ollama is running`."""
    reply = api.get("/")
    assert (reply.status, reply.text) == (200, "Ollama is running")
    assert api.head("/").status == 200


def test_version(api):
    """GET /api/version answers 200 with one field, the version without a prefix."""
    reply = api.get("/api/version")
    assert reply.status == 200
    assert list(reply.json()) == ["version"]
    assert reply.json()["version"][0].isdigit()
    assert api.head("/api/version").status == 200


def test_status_exists_from_0_16_2(api, version):
    """GET /api/status answers the cloud setting from 0.16.2; 404 on older versions."""
    reply = api.get("/api/status")
    if version < (0, 16, 2):
        assert reply.status == 404
    else:
        assert set(reply.json()["cloud"]) >= {"disabled", "source"}


def test_unknown_route_is_plain_404(api):
    """An unknown route answers 404 as plain text, not as JSON."""
    reply = api.get("/api/no-such-route")
    assert reply.status == 404
    assert reply.headers["Content-Type"].startswith("text/plain")


def test_wrong_method_is_405(api):
    """A known path with a wrong method answers 405."""
    assert api.get("/api/generate").status == 405
    assert api.post("/api/tags", {}).status == 405


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat", "/api/show", "/api/pull"])
def test_empty_body_is_400(api, path):
    """An empty request body answers 400 `missing request body`."""
    reply = api.post(path)
    assert (reply.status, reply.error) == (400, "missing request body")


def test_empty_body_of_delete_is_400(api):
    """DELETE without a body answers 400 `missing request body`."""
    reply = api.delete("/api/delete")
    assert (reply.status, reply.error) == (400, "missing request body")


def test_bad_json_is_400(api):
    """A body that is no JSON answers 400 with the parser's text."""
    reply = api.post("/api/generate", b"model")
    assert reply.status == 400
    assert "invalid character" in reply.error


def test_wrong_type_is_400(api, model):
    """A field of a wrong type answers 400 `json: cannot unmarshal ..`."""
    reply = api.post("/api/generate", {"model": model, "stream": "no"})
    assert reply.status == 400
    assert reply.error.startswith("json: cannot unmarshal string")


@pytest.mark.parametrize("value", ["300", "-1", "soon"])
def test_keep_alive_string_needs_a_unit(api, model, value):
    """A keep_alive string must be a Go duration with a unit: "300" and "-1" fail with 400."""
    reply = api.post("/api/generate", {"model": model, "keep_alive": value})
    assert reply.status == 400
    assert "duration" in reply.error


@pytest.mark.parametrize("value", [60, 0.5, "1m30s", -1, "-1m"])
def test_keep_alive_forms(api, model, value):
    """keep_alive takes numbers of seconds (fractions too) and durations; negative is for ever."""
    reply = api.post("/api/generate", {"model": model, "keep_alive": value})
    assert reply.status == 200
    entry = api.running(model)
    if value in (-1, "-1m"):
        assert entry is not None
        assert int(entry["expires_at"][:4]) > 2300
    api.post("/api/generate", {"model": model, "keep_alive": 0})


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:11434", 200),
        ("10.1.2.3", 200),
        ("anything.local", 200),
        ("anything.internal:80", 200),
        ("example.com", 403),
        ("8.8.8.8", 403),
    ],
)
def test_host_header_on_loopback(api, host, status):
    """Bound to loopback, a Host that is not local or private answers 403 with an empty body."""
    if "127.0.0.1" not in api.url and "localhost" not in api.url:
        pytest.skip("the server under test is not reached over loopback")
    reply = call("GET", f"{api.url}/api/version", headers={"Host": host})
    if status == 403 and reply.status == 200:
        pytest.skip("the server is bound to an address other than loopback")
    assert reply.status == status
    if status == 403:
        assert reply.body == b""


def test_older_field_name(api, model):
    """The older field `name` is still accepted by show."""
    assert api.post("/api/show", {"name": model}).status == 200
