# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which models have moved at their registry, and what is to be done about each."""

from __future__ import annotations

import hashlib
import json

import pytest
from model_version_samples import AT, NAME, DiskStore

from ansible_collections.hx_infra.llm.plugins.module_utils import _model_updates as updates
from ansible_collections.hx_infra.llm.plugins.module_utils import _model_version_record as records
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import read_declaration
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import read_store
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import Answer
from ansible_collections.hx_infra.llm.plugins.modules import model_update_info as module

OLD, NEW = ("old", "template"), ("new version", "template")
KEPT = f"{NAME}-hx-previous"
MIME = "application/vnd.docker.distribution.manifest.v2+json"


def manifest(*texts, spaced=False):
    """Return a registry's manifest of a version."""
    layers = [
        {
            "mediaType": "x",
            "digest": f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
            "size": len(text),
        }
        for text in texts
    ]
    data = {"schemaVersion": 2, "mediaType": MIME, "config": layers[-1], "layers": layers[:-1]}
    return json.dumps(data, indent=1 if spaced else None).encode()


class Registries:
    """Registries by host: bytes of a manifest, a status, or an error."""

    def __init__(self, **answers):
        self.answers = answers
        self.asked = []

    def __call__(self, method, url, body, headers, timeout):
        host = url.split("/")[2]
        self.asked.append(url)
        answer = self.answers[host.split(".")[0]]
        if isinstance(answer, OSError):
            raise answer
        return Answer(answer) if isinstance(answer, int) else Answer(200, answer)


@pytest.fixture
def store(tmp_path):
    return DiskStore(tmp_path / "store")


def look(store, registry, *models, version="0.32.15", retry=False):
    """Return what is said about models, the present one by default."""
    entries = [{"name": item} if isinstance(item, str) else item for item in models or [NAME]]
    wanted = read_declaration({**module.NOT_DECLARED, "models": entries}).wanted
    answers = updates.ask_all(registry, wanted)
    found = read_store(str(store.root))
    state_dir = str(store.root.parent / "state")
    return [
        updates.describe_update(
            item, found, answers[item.name.key], version, state_dir, retry=retry
        )
        for item in wanted
    ]


def note(store, state, digest, rejected=None):
    record = records.Record(state, digest, AT, "", rejected)
    records.write_record(str(store.root.parent / "state"), parse_name(NAME), record)


def put(store, content, name=NAME):
    """Write a manifest as a server stores what it has pulled; return its digest."""
    store.put(name, *OLD)
    (store.root / parse_name(name).manifest).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def test_the_same_manifest_has_not_moved(store):
    digest = put(store, manifest(*OLD, spaced=True))
    [entry] = look(store, Registries(registry=manifest(*OLD, spaced=True)))
    assert (entry["moved"], entry["compared_by"], entry["todo"]) == (False, "digest", "none")
    assert entry["digest"] == entry["registry_digest"] == digest
    assert entry["reason"] == "the registry has the same version"


def test_what_an_old_server_has_written_anew_has_not_moved(store):
    written_anew = json.dumps(json.loads(manifest(*OLD)), separators=(",", ":")).encode()
    put(store, written_anew)
    [entry] = look(store, Registries(registry=manifest(*OLD, spaced=True)), version="0.11.4")
    assert (entry["moved"], entry["compared_by"]) == (False, "digest")
    assert entry["digest"] != entry["registry_digest"]


@pytest.mark.parametrize("version", ["0.11.4", "0.32.15", ""])
def test_other_manifests_of_the_same_layers_have_not_moved(store, version):
    put(store, manifest(*OLD) + b"\n")
    [entry] = look(store, Registries(registry=manifest(*OLD, spaced=True)), version=version)
    assert (entry["moved"], entry["compared_by"], entry["todo"]) == (False, "layers", "none")
    assert "every layer is the registry's" in entry["reason"]
    assert entry["bytes_to_download"] == 0


@pytest.mark.parametrize(
    ("version", "by"),
    [
        ("0.11.4", "layers"),
        ("0.18.9", "layers"),
        ("0.19.0", "digest"),
        ("1.0", "digest"),
        ("", "layers"),
    ],
)
def test_a_tag_that_has_moved(store, version, by):
    store.put(NAME, *OLD)
    [entry] = look(store, Registries(registry=manifest(*NEW)), version=version)
    assert (entry["moved"], entry["compared_by"], entry["todo"]) == (True, by, "update")
    assert entry["bytes_to_download"] == len("new version")  # the template is there
    assert entry["reason"] == f"the registry has {entry['registry_digest'][:12]}"
    assert updates.counts([entry])["to_update"] == [NAME]


def test_a_pinned_model_is_never_to_be_updated(store):
    digest = store.put(NAME, *OLD)
    [entry] = look(
        store, Registries(registry=manifest(*NEW)), {"name": NAME, "digest": digest[:12]}
    )
    assert (entry["moved"], entry["pinned"], entry["todo"]) == (True, True, "none")
    assert entry["reason"] == (
        f"it is pinned to {digest[:12]}; the registry has {entry['registry_digest'][:12]}"
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (OSError("Connection refused"), "can't be reached: Connection refused"),
        (404, "doesn't have it (404)"),
        (401, "asks for a login"),
        (500, "answers 500"),
        (b"<html>", "no manifest"),
    ],
)
def test_a_registry_that_can_not_tell(store, answer, words):
    store.put(NAME, *OLD)
    [entry] = look(store, Registries(registry=answer))
    assert (entry["moved"], entry["todo"]) == (None, "none")
    assert words in entry["reason"]
    assert updates.counts([entry])["unknown"] == [NAME]


def test_a_registry_without_an_answer_is_asked_once(store):
    registry = Registries(registry=OSError("timed out"), other=manifest(*OLD))
    put(store, manifest(*OLD), "b")
    models = ["a", "c", "d", {"name": "b", "source": "other.example.com/library/b"}]
    entries = look(store, registry, *models)
    assert len(registry.asked) == 2
    assert [entry["moved"] for entry in entries] == [None, None, None, False]


def test_a_model_that_is_not_there(store):
    [entry] = look(store, Registries(registry=manifest(*NEW)))
    assert (entry["present"], entry["moved"], entry["todo"]) == (False, None, "none")
    assert entry["reason"] == "it is not there"


def test_an_update_that_was_not_judged_comes_first(store):
    old = store.put(KEPT, *OLD)
    store.put(NAME, *NEW)
    note(store, records.PENDING, old)
    [entry] = look(store, Registries(registry=OSError("off")))
    assert entry["todo"] == "judge"
    assert entry["version"]["state"] == "pending"
    assert entry["reason"] == f"it was updated from {old[:12]}, and that was not judged"
    assert updates.counts([entry])["pending"] == [NAME]


def test_a_way_back_that_was_broken_off_comes_first(store):
    old = store.put(KEPT, *OLD)
    store.put(NAME, *OLD)
    note(store, records.RESTORING, old, records.Rejected("a" * 64, AT, "slower"))
    [entry] = look(store, Registries(registry=manifest(*NEW)))
    assert entry["todo"] == "go_back"
    (store.root / parse_name(NAME).manifest).unlink()
    note(store, records.PENDING, old)
    [entry] = look(store, Registries(registry=manifest(*NEW)))
    assert (entry["todo"], entry["present"]) == ("go_back", False)
    assert f"{KEPT} keeps {old[:12]}" in entry["reason"]


def test_an_update_that_was_broken_off_before_its_pull(store):
    content = manifest(*OLD)
    old = put(store, content)
    put(store, content, KEPT)
    note(store, records.PENDING, old)
    [entry] = look(store, Registries(registry=content))
    assert entry["todo"] == "drop"
    assert "broken off before its pull" in entry["reason"]
    [entry] = look(store, Registries(registry=manifest(*NEW)))
    assert entry["todo"] == "update"


def test_what_was_gone_back_from_is_not_tried_again_unless_told(store):
    store.put(NAME, *OLD)
    new = hashlib.sha256(manifest(*NEW)).hexdigest()
    note(store, records.NONE, "", records.Rejected(new, AT, "tokens_per_s 31 % worse"))
    registry = Registries(registry=manifest(*NEW))
    [entry] = look(store, registry)
    assert (entry["moved"], entry["todo"]) == (True, "none")
    assert "gone back from at 2026-11-22T04:00:00Z: tokens_per_s 31 % worse" in entry["reason"]
    assert look(store, registry, retry=True)[0]["todo"] == "update"
    assert look(store, Registries(registry=manifest("newest")))[0]["todo"] == "update"


def test_a_version_that_is_kept_beside_an_accepted_one(store):
    old = store.put(KEPT, *OLD)
    put(store, manifest(*NEW))
    note(store, records.ACCEPTED, old)
    [entry] = look(store, Registries(registry=manifest(*NEW)))
    assert entry["todo"] == "drop"
    assert entry["reason"] == f"the registry has the same version; {KEPT} keeps {old[:12]}"


def params(place, **changes):
    """Return options of the module with an engine that doesn't answer."""
    return {
        "models": [{"name": "tiny:1b", "digest": "", "source": "", "insecure": False}],
        "store": str(place.root),
        "url": "http://127.0.0.1:1",
        "registry": "127.0.0.1:1",
        "registry_insecure": True,
        "state_dir": str(place.root.parent / "state"),
        "ask": True,
        "retry": False,
        **changes,
    }


def test_with_nobody_to_ask_the_store_is_told_all_the_same(store):
    digest = store.put(NAME, *OLD)
    found = module.look(params(store))
    [entry] = found["models"]
    assert (entry["declared"], entry["digest"], entry["moved"]) == (NAME, digest, None)
    assert "127.0.0.1:1: it can't be reached" in entry["reason"]
    assert (found["engine_version"], found["unknown"], found["moved"]) == ("", [NAME], [])


def test_registries_are_left_alone_on_request(store):
    store.put(NAME, *OLD)
    [entry] = module.look(params(store, ask=False))["models"]
    assert entry["reason"] == "its registry can't tell: it was not asked"


def test_a_store_that_is_not_there_is_refused(store):
    with pytest.raises(HostError, match="the model store /nowhere is not there"):
        module.look(params(store, store="/nowhere"))
