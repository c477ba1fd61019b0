# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils._model_sources import (
    model_peers,
    model_sources,
)

PHI, QWEN, HEX = "phi3:latest", "qwen3:1.7b", "0123456789abcdef" * 4


def look(peer, *models, whole=True):
    return {
        "item": peer,
        "models": [{"name": name, "digest": digest, "whole": whole} for name, digest in models],
    }


def step(action, target, digest=""):
    return {"action": action, "target": target, "digest": digest}


def test_only_what_has_to_come_is_looked_for():
    looks = [look("llm-02", (PHI, HEX), (QWEN, HEX))]
    plan = [
        step("adopt", PHI),
        step("repull", QWEN),
        step("prune_partial", "blobs/sha256-a-partial"),
        step("remove", PHI),
    ]
    found = model_peers(looks, plan, [{"name": PHI}, {"name": QWEN}])
    assert found == {"offers": [{"peer": "llm-02", "models": [QWEN]}], "problems": []}
    assert model_peers(looks, [step("adopt", PHI)], [{"name": PHI}])["offers"] == []


@pytest.mark.parametrize("action", ["pull", "update", "repull", "repair", "unavailable"])
def test_every_download_and_what_nobody_else_has(action):
    found = model_peers([look("llm-02", (PHI, HEX))], [step(action, PHI)], [{"name": "phi3"}])
    assert found["offers"] == [{"peer": "llm-02", "models": [PHI]}]


def test_a_pinned_model_is_taken_in_that_version_alone():
    looks = [look("llm-02", (PHI, "f" * 64)), look("llm-03", ("library/Phi3", HEX))]
    declared = [{"name": PHI, "digest": HEX[:12]}]
    found = model_peers(looks, [step("pull", PHI)], declared)
    assert found["offers"] == [{"peer": "llm-03", "models": [PHI]}]


def test_a_damaged_model_is_given_by_nobody():
    looks = [look("llm-02", (PHI, HEX), whole=False)]
    assert model_peers(looks, [step("pull", PHI)], [{"name": PHI}])["offers"] == []


def test_a_peer_that_cannot_be_asked_is_named():
    looks = [
        {"item": "llm-02", "unreachable": True, "msg": "Failed to connect.\nssh: no route"},
        {"item": "llm-03", "failed": True},
    ]
    assert model_peers(looks, [], [])["problems"] == [
        "llm-02 could not be asked which models it has: Failed to connect",
        "llm-03 could not be asked which models it has: no message",
    ]


def test_a_peer_without_a_store_is_named_with_the_path():
    looks = [{**look("llm-02"), "exists": False, "store": "/srv/models"}, look("llm-03")]
    assert model_peers(looks, [step("pull", PHI)], [{"name": PHI}]) == {
        "offers": [],
        "problems": ["llm-02 has no model store at /srv/models"],
    }


SERVED = [
    {"item": {"peer": "llm-02", "models": [PHI]}, "url": "http://llm-02:1"},
    {"item": {"peer": "llm-03", "models": [PHI]}, "failed": True, "msg": "no port"},
    {"item": {"peer": "llm-04", "models": [PHI]}, "url": "http://llm-04:1"},
]
FIXED = {"type": "peer", "name": "store", "url": "http://s:1", "token": "t"}
ARCHIVE = {"type": "archive", "path": "/srv/m.tar", "checksum": f"sha256:{HEX}"}


@pytest.mark.parametrize(
    ("declared", "served", "wanted"),
    [
        (["peer", "registry"], [], ["registry"]),
        (["peer", "registry"], SERVED, ["llm-02", "llm-04", "registry"]),
        (["registry", "peer"], SERVED, ["registry", "llm-02", "llm-04"]),
        ([ARCHIVE, {"type": "peer"}], SERVED, ["/srv/m.tar", "llm-02", "llm-04"]),
        (["peer"], SERVED, ["llm-02", "llm-04", "registry"]),
        ([], SERVED, ["registry"]),
        ([FIXED], [], ["store", "registry"]),
    ],
)
def test_the_declared_order(declared, served, wanted):
    found = model_sources(declared, served, "secret")
    assert [item.get("name") or item.get("path") or item["type"] for item in found] == wanted
    peers = [item for item in found if item.get("name", "").startswith("llm-")]
    assert all(item["token"] == "secret" and item["url"].startswith("http") for item in peers)


@pytest.mark.parametrize("entry", ["peers", 5, {"path": "/srv/m.tar"}])
def test_what_is_no_source_is_refused(entry):
    with pytest.raises(HostError, match="llm_model_sources has"):
        model_sources([entry])
