# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The faults of the simulated registry: stalls, refusals, lies, and for one model only."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
import time

import pytest
from harness import FAST, call, start_ollama, start_registry

ONE, TWO = "tiny:1b", "tiny-think:1b"
MANIFEST = "/v2/library/tiny/manifests/1b"
SMALL_PARTS = {"min_part_bytes": 100_000, "retry_base_seconds": 0.001}
IMPATIENT = {"retry_base_seconds": 0.001, "stall_seconds": 0.2}


@pytest.fixture(scope="module")
def shared_registry(tmp_path_factory):
    with start_registry(tmp_path_factory.mktemp("registry")) as started:
        yield started


@pytest.fixture
def registry(shared_registry):
    """A registry with two models, without faults, that has counted nothing yet."""
    shared_registry.set_faults()
    shared_registry.forget()
    yield shared_registry
    shared_registry.set_faults()


@pytest.fixture(scope="module")
def shared_engine(tmp_path_factory):
    with start_ollama(tmp_path_factory.mktemp("engine"), models="") as started:
        yield started


@pytest.fixture
def engine(shared_engine):
    """An engine whose store is empty."""
    shared_engine.set_config({**FAST, "pull": {"retry_base_seconds": 0.001}})
    yield shared_engine
    for entry in shared_engine.get("/api/tags").json()["models"]:
        call("DELETE", f"{shared_engine.url}/api/delete", {"model": entry["name"]})
    for path in (shared_engine.store / "blobs").iterdir():
        path.unlink()


def pull(engine, name):
    return engine.post("/api/pull", {"model": name, "insecure": True}).lines()


class Pull:
    """A pull in the background that can be watched and left."""

    def __init__(self, engine, name):
        self._connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=30)
        body = json.dumps({"model": name, "insecure": True})
        self._connection.request("POST", "/api/pull", body)
        self._response = self._connection.getresponse()
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._response:
            self.lines.append(json.loads(line))

    def end(self):
        self._reader.join(timeout=30)
        self._connection.close()
        return self.lines[-1]


def test_a_stalled_answer_goes_on_when_the_fault_is_switched_off(engine, registry):
    registry.set_faults({ONE: {"stall_after_bytes": 300_000}})
    running = Pull(engine, registry.name(ONE))
    registry.wait_stalled()
    end = time.monotonic() + 10
    while running.lines[-1].get("completed") != 300_000 and time.monotonic() < end:
        time.sleep(0.02)
    assert running.lines[-1]["completed"] == 300_000
    registry.set_faults()
    assert running.end() == {"status": "success"}
    assert registry.counts()[f"GET {MANIFEST}"] == 1


def test_a_stalled_part_is_asked_for_again_and_is_no_failed_try(engine, registry):
    """A part without data for a while is restarted where it stands, as often as it takes."""
    engine.set_config({**FAST, "pull": IMPATIENT})
    registry.set_faults({ONE: {"stall_after_bytes": 140_000}})
    assert pull(engine, registry.name(ONE))[-1] == {"status": "success"}
    assert engine.log().count("stalled; retrying") > 6
    assert max(count for path, count in registry.counts().items() if "/direct/" in path) > 6


def test_who_leaves_a_stalled_pull_ends_it_at_once(engine, registry):
    registry.set_faults({ONE: {"stall_after_bytes": 300_000}})
    body = json.dumps({"model": registry.name(ONE), "insecure": True})
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=30)
    connection.request("POST", "/api/pull", body)
    response = connection.getresponse()
    registry.wait_stalled()
    response.close()
    connection.close()
    registry.wait_stalled(0)  # the engine has hung up, the fault is still on
    registry.set_faults()
    lines = pull(engine, registry.name(ONE))
    assert lines[-1] == {"status": "success"}
    assert next(line for line in lines if "total" in line)["completed"] >= 300_000


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        ({"http_status": {"status": 404}}, "pull model manifest: file does not exist"),
        ({"http_status": {"status": 500, "message": "x"}}, "pull model manifest: 500: x"),
        ({"http_status": {"status": 500, "paths": ["/v2/library/tiny/blobs/"]}}, "500: "),
        ({"drop": True}, 'pull model manifest: Get "{url}": EOF'),
        ({"drop": {"paths": ["/direct/"]}}, 'Get "{registry}/direct/sha256-'),
        ({"cut_after_bytes": 1000}, "max retries exceeded: unexpected EOF"),
        ({"wrong_bytes": True}, "digest mismatch, file must be downloaded again: want sha256:"),
    ],
    ids=["404", "500", "500-of-a-blob", "drop", "drop-of-a-blob", "cut", "wrong-bytes"],
)
def test_one_model_fails_and_the_other_one_does_not(engine, registry, faults, error):
    wanted = error.format(registry=registry.url, url=registry.url + MANIFEST)
    registry.set_faults({ONE: faults})
    reply = engine.post("/api/pull", {"model": registry.name(ONE), "insecure": True})
    assert reply.status == 200
    assert reply.lines()[-1]["error"].startswith(wanted)
    assert pull(engine, registry.name(TWO))[-1] == {"status": "success"}
    registry.set_faults()
    assert pull(engine, registry.name(ONE))[-1] == {"status": "success"}


@pytest.mark.parametrize("kind", ["http_status", "drop"])
def test_a_fault_that_strikes_so_many_times(registry, kind):
    registry.set_faults({ONE: {kind: {"count": 2, "status": 503}}})
    answers = []
    for _turn in range(3):
        try:
            answers.append(call("GET", registry.url + MANIFEST).status)
        except http.client.RemoteDisconnected:
            answers.append("dropped")
    assert answers == [*(["dropped"] * 2 if kind == "drop" else [503] * 2), 200]
    assert registry.counts() == {f"GET {MANIFEST}": 3}


def test_a_manifest_that_is_never_the_same(engine, registry):
    registry.set_faults({ONE: {"moving_manifest": True}})
    stored = next(registry.store.glob("manifests/*/library/tiny/1b")).read_bytes()
    bodies = [call("GET", registry.url + MANIFEST).body for _turn in range(5)]
    assert stored not in bodies
    assert all(one != other for one, other in zip(bodies, bodies[1:]))
    assert pull(engine, registry.name(ONE))[-1] == {"status": "success"}
    [entry] = engine.get("/api/tags").json()["models"]
    assert entry["digest"] != hashlib.sha256(stored).hexdigest()


def test_the_largest_blob_alone_is_touched(registry):
    registry.set_faults({ONE: {"wrong_bytes": True}})
    manifest = json.loads(call("GET", registry.url + MANIFEST).body)
    same = {}
    for layer in manifest["layers"]:
        name = layer["digest"].replace(":", "-")
        body = call("GET", f"{registry.url}/direct/{name}").body
        same[layer["size"]] = body == (registry.store / "blobs" / name).read_bytes()
    assert [good for _size, good in sorted(same.items())] == [True] * (len(same) - 1) + [False]


def test_it_answers_as_a_peer_does(registry):
    manifest = call("GET", f"{registry.url}/v1/manifests/registry.ollama.ai/library/tiny/1b")
    layers = json.loads(manifest.body)["layers"]
    weights = max(layers, key=lambda layer: layer["size"])["digest"].replace(":", "-")
    blob = f"{registry.url}/v1/blobs/{weights}"
    part = call("GET", blob, headers={"Range": "bytes=4-"})
    assert part.status == 206
    assert part.body == (registry.store / "blobs" / weights).read_bytes()[4:]
    registry.set_faults({ONE: {"http_status": {"status": 500}}})
    assert call("GET", blob).status == 500
    assert call("GET", f"{registry.url}/v1/manifests/x/library/tiny/1b").status == 500
    assert call("GET", f"{registry.url}/v1/manifests/x/library/tiny-think/1b").status == 404
