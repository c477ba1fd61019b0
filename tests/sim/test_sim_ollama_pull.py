# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pulling through the simulated registry: parts, ranges, redirects, resuming, failures."""

from __future__ import annotations

import http.client
import json
import threading
import time

import pytest
from harness import FAST, call, start_ollama, start_registry

PARTS = {"min_part_bytes": 100_000, "retry_base_seconds": 0.01}


@pytest.fixture
def empty(tmp_path):
    """A server without models that downloads in parts of 100 kB."""
    with start_ollama(tmp_path, models="", config={**FAST, "pull": PARTS}) as ollama:
        yield ollama


def pull(ollama, name, **more):
    """Return the lines of a pull."""
    return ollama.post("/api/pull", {"model": name, "insecure": True, **more}).lines()


def stored_digest(ollama, name):
    """Return the digest of a listed model."""
    models = ollama.get("/api/tags").json()["models"]
    return next((m["digest"] for m in models if m["name"] == name), None)


def test_parts_are_fetched_by_range(empty, registry):
    assert pull(empty, registry.name("tiny:1b"))[-1] == {"status": "success"}
    log = registry.process.log()
    assert log.count("/direct/") >= 10
    assert '" 206' in log
    assert not any("partial" in name for name in empty.blobs())


def test_the_digest_is_the_same_everywhere(empty, registry):
    name = registry.name("tiny:1b")
    pull(empty, name)
    with start_ollama(empty.folder / "other") as other:
        assert stored_digest(other, "tiny:1b") == stored_digest(empty, name)


def test_ignored_ranges_spoil_blobs_of_many_parts(empty, registry):
    """The status of a range request is not checked: many parts then give a wrong digest."""
    registry.set_faults(no_range=True)
    error = pull(empty, registry.name("tiny:1b"))[-1]["error"]
    assert error.startswith("digest mismatch, file must be downloaded again: want sha256:")


def test_ignored_ranges_do_not_matter_for_one_part(old, registry):
    registry.set_faults(no_range=True)
    assert pull(old, registry.name("tiny:1b"))[-1] == {"status": "success"}


def test_wrong_bytes_are_noticed_and_removed(empty, registry):
    registry.set_faults(wrong_bytes=True)
    assert "digest mismatch" in pull(empty, registry.name("tiny:1b"))[-1]["error"]
    registry.set_faults()
    ends = [pull(empty, registry.name("tiny:1b"))[-1] for _time in range(2)]
    assert ends[-1] == {"status": "success"}


def test_a_cut_connection_resumes(empty, registry):
    registry.set_faults(cut_after_bytes=40_000)
    assert pull(empty, registry.name("tiny:1b"))[-1] == {"status": "success"}


def test_a_missing_location_header_fails(empty, registry):
    registry.set_faults(no_location=True)
    error = pull(empty, registry.name("tiny:1b"))[-1]["error"]
    assert error == "http: no Location header in response"


def test_a_missing_content_length_fails(empty, registry):
    registry.set_faults(no_content_length=True)
    assert "digest mismatch" in pull(empty, registry.name("tiny:1b"))[-1]["error"]


def test_a_failing_registry(empty, registry):
    registry.set_faults(http_status={"status": 500, "message": "out of order"})
    error = pull(empty, registry.name("tiny:1b"))[-1]["error"]
    assert error == "pull model manifest: 500: out of order"
    registry.set_faults(http_status={"status": 503, "count": 1, "message": "later"})
    assert "503: later" in pull(empty, registry.name("tiny:1b"))[-1]["error"]
    assert pull(empty, registry.name("tiny:1b"))[-1] == {"status": "success"}


def test_a_full_disk_fails_at_once_and_keeps_the_parts(empty, registry):
    config = {**FAST, "pull": PARTS}
    empty.set_config({**config, "faults": {"disk_full_after_bytes": 300_000}})
    error = pull(empty, registry.name("tiny:1b"))[-1]["error"]
    assert error.startswith("write /")
    assert error.endswith("no space left on device")
    left = {name for name in empty.blobs() if "partial" in name}
    assert any(name.endswith("-partial") for name in left)
    assert any(name.endswith("-partial-0") for name in left)
    empty.set_config(config)
    assert pull(empty, registry.name("tiny:1b"))[-1] == {"status": "success"}
    assert not any("partial" in name for name in empty.blobs())


def test_a_client_that_leaves_cancels_and_a_later_pull_resumes(empty, registry):
    registry.set_faults(bytes_per_second=50_000)
    connection = http.client.HTTPConnection("127.0.0.1", empty.port, timeout=10)
    body = {"model": registry.name("tiny:1b"), "insecure": True}
    connection.request("POST", "/api/pull", json.dumps(body))
    response = connection.getresponse()
    for line in response:
        if json.loads(line).get("completed", 0) > 100_000:
            break
    response.close()
    connection.close()
    end = time.monotonic() + 10
    while kept_bytes(empty) <= 50_000 and time.monotonic() < end:
        time.sleep(0.05)
    assert kept_bytes(empty) > 50_000
    assert stored_digest(empty, registry.name("tiny:1b")) is None
    registry.set_faults()
    lines = pull(empty, registry.name("tiny:1b"))
    assert lines[-1] == {"status": "success"}
    assert next(line for line in lines if "total" in line)["completed"] > 50_000


def kept_bytes(ollama):
    """Return how many bytes the part files say are there."""
    parts = [p for p in (ollama.store / "blobs").iterdir() if "-partial-" in p.name]
    texts = [p.read_text() for p in parts]
    return sum(json.loads(text)["Completed"] for text in texts if text)


def test_an_empty_part_file_makes_pulls_fail(empty, registry):
    """A damaged part file makes later pulls fail with `EOF` until the files go."""
    pull(empty, registry.name("tiny:1b"))
    blob = max((empty.store / "blobs").iterdir(), key=lambda p: p.stat().st_size)
    blob.unlink()
    part = blob.with_name(f"{blob.name}-partial-0")
    part.write_text("")
    assert pull(empty, registry.name("tiny:1b"))[-1] == {"error": "EOF"}
    part.unlink()
    assert pull(empty, registry.name("tiny:1b"))[-1] == {"status": "success"}


def test_two_pulls_share_one_download(empty, registry):
    registry.set_faults(bytes_per_second=500_000)
    ends = []
    name = registry.name("tiny:1b")
    threads = [
        threading.Thread(target=lambda: ends.append(pull(empty, name)[-1])) for _turn in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == [{"status": "success"}] * 2
    log = registry.process.log()
    big = max((empty.store / "blobs").iterdir(), key=lambda p: p.stat().st_size)
    assert log.count(f'"GET /v2/library/tiny/blobs/{big.name.replace("-", ":", 1)}') == 1


@pytest.mark.parametrize(("noprune", "stays"), [("0", False), ("1", True)])
def test_an_updated_tag_removes_old_layers(tmp_path, registry, noprune, stays):
    with start_ollama(tmp_path, models="", env={"OLLAMA_NOPRUNE": noprune}) as ollama:
        pull(ollama, registry.name("tiny:1b"))
        before = ollama.blobs()
        folder = registry.store / "manifests/registry.ollama.ai/library"
        (folder / "tiny/1b").write_bytes((folder / "tiny-think/1b").read_bytes())
        lines = pull(ollama, registry.name("tiny:1b"))
    assert ({"status": "removing unused layers"} in lines) is not stays
    assert (before <= ollama.blobs()) is stays


def test_another_direct_host(tmp_path, registry):
    """A redirect to another host name is the direct address; same host names are followed."""
    reply = call("GET", f"{registry.url}/v2/library/tiny/blobs/sha256:{'0' * 64}")
    assert reply.status == 404
    blob = max((registry.store / "blobs").iterdir(), key=lambda p: p.stat().st_size)
    digest = blob.name.replace("-", ":", 1)
    reply = call("GET", f"{registry.url}/v2/library/tiny/blobs/{digest}")
    assert reply.status == 307
    assert reply.headers["Location"] == f"{registry.url}/direct/{blob.name}"
    direct = call("GET", reply.headers["Location"], headers={"Range": "bytes=0-3"})
    assert (direct.status, direct.body) == (206, b"GGUF")
    assert direct.headers["Content-Range"] == f"bytes 0-3/{blob.stat().st_size}"
    head = call("HEAD", f"{registry.url}/v2/library/tiny/blobs/{digest}")
    assert head.headers["Content-Length"] == str(blob.stat().st_size)


def test_resolving_a_registry_elsewhere(tmp_path, registry):
    """The setting pull.resolve stands for a DNS entry: short names pull from the lab."""
    config = {**FAST, "pull": {"resolve": {"registry.ollama.ai": registry.url}}}
    with start_ollama(tmp_path, models="", config=config) as ollama:
        assert pull(ollama, "tiny:1b", insecure=False)[-1] == {"status": "success"}
        assert stored_digest(ollama, "tiny:1b")


def test_releases_are_served(tmp_path):
    releases = tmp_path / "releases"
    (releases / "v0.11.4").mkdir(parents=True)
    (releases / "v0.11.4" / "sha256sum.txt").write_text("abc\n")
    with start_registry(tmp_path, releases=releases) as registry:
        base = registry.releases_url
        assert call("GET", f"{base}/v0.11.4/sha256sum.txt").text == "abc\n"
        assert call("GET", f"{base}/v0.11.4/none").status == 404
        assert call("GET", f"{base}/../registry.json").status == 404
