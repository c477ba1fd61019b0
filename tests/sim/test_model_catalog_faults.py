# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The model catalog when blobs rot, registries fail, and runs are cut off or meet each other.

After each of these every declared model is whole or named with a reason, and the next run
converges.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from catalog_host import Catalog, wait_for
from harness import make_store, start_ollama, start_registry

ONE, TWO = "tiny:1b", "tiny-think:1b"


@pytest.fixture
def catalog(tmp_path):
    """Start a registry, and an engine that has its two models already."""
    env = {"OLLAMA_NOPRUNE": "1"}
    registry, ollama = start_registry(tmp_path), start_ollama(tmp_path, "tiny", "0.32.15", env=env)
    with registry, ollama:
        yield Catalog(ollama, registry)


def finish(process: subprocess.Popen) -> dict:
    """Wait for a run and return its result."""
    return json.loads(process.communicate(timeout=60)[0])


def limit_weights(catalog, name, **faults):
    """Let faults concern one model at the registry."""
    temporary = catalog.registry.config_path.with_suffix(".new")
    temporary.write_text(json.dumps({"faults": {}, "models": {name: faults}}))
    temporary.replace(catalog.registry.config_path)


def test_a_flipped_byte_is_repaired_while_the_engine_serves(catalog):
    catalog.good(ONE, TWO)
    before = catalog.calls()
    catalog.converged(ONE, TWO)
    assert 0 < catalog.calls() - before <= 2
    path = catalog.flip(ONE)
    stray = catalog.manifest(ONE).with_name("backup of a manifest")
    stray.write_text("{}")
    assert not catalog.good(ONE, TWO)["changed"]  # nothing shows it but its content
    seen = catalog.tree(lock=True)
    predicted = catalog.good(ONE, TWO, check=True, verify="full")
    assert catalog.tree(lock=True) == seen
    assert [bad["path"] for bad in predicted["verified"]["corrupt"]] == [f"blobs/{path.name}"]
    catalog.ollama.post("/api/generate", {"model": ONE, "prompt": "x", "stream": False})
    bad = path.stat().st_ino
    limit_weights(catalog, ONE, stall_after_bytes=100_000)
    process = catalog.start([ONE, TWO], verify="full")
    wait_for(lambda: catalog.partials() or process.poll() is not None)
    assert [file.stat().st_ino for file in catalog.aside()] == [bad]
    answer = catalog.ollama.post("/api/generate", {"model": TWO, "prompt": "x", "stream": False})
    assert answer.status == 200
    catalog.registry.set_faults()
    result = finish(process)
    assert not result.get("failed"), result["msg"]
    for key in ("plan", "totals", "catalog", "env", "diff", "downloaded_bytes"):
        assert result[key] == predicted[key], key
    [outcome] = result["outcomes"]
    assert (outcome["action"], outcome["source"]) == (
        "repull",
        f"registry {catalog.registry.host}",
    )
    assert outcome["bytes"] == path.stat().st_size
    assert catalog.aside() == []
    assert catalog.damaged() == []
    stray.unlink()
    catalog.converged(ONE, TWO)


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"http_status": {"status": 500, "paths": ["/v2/library/tiny/blobs"]}}, "500"),
        ({"wrong_bytes": True}, "digest mismatch"),  # an error line inside a 200 stream
    ],
)
def test_a_repair_that_fails_puts_the_old_blob_back(catalog, faults, reason):
    before = catalog.flip(ONE).stat()
    catalog.registry.set_faults(**faults)
    result = catalog.run(ONE, TWO)
    assert f"{ONE}: pulling {catalog.registry.name(ONE)} failed" in result["msg"]
    assert reason in result["msg"]
    after = catalog.weights(ONE).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert catalog.aside() == []
    assert catalog.names() == [TWO, ONE]
    catalog.registry.set_faults()
    catalog.good(ONE, TWO)
    catalog.converged(ONE, TWO)


def test_a_stalled_registry_and_two_models_at_once(catalog):
    make_store(catalog.registry.store, "gemma2:2b")
    limit_weights(catalog, "gemma2:2b", stall_after_bytes=1_000_000)
    catalog.weights(ONE).unlink()
    result = catalog.run("gemma2:2b", ONE, stall_s=5, parallel=2)
    assert "gemma2:2b stalled at 1.0MB of 16." in result["msg"]
    assert [outcome["ok"] for outcome in result["outcomes"]] == [False, True]
    assert catalog.partials()
    catalog.registry.set_faults()
    catalog.good("gemma2:2b", ONE, parallel=2)
    catalog.converged("gemma2:2b", ONE, TWO)


def test_killed_in_the_middle_of_a_repair(catalog):
    bad = catalog.flip(ONE).stat().st_ino
    limit_weights(catalog, ONE, stall_after_bytes=100_000)
    process = catalog.start([ONE, TWO])
    wait_for(lambda: catalog.partials() or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [file.stat().st_ino for file in catalog.aside()] == [bad]
    catalog.registry.stop()
    message = catalog.bad(TWO, ONE)  # nobody can give it: then the bad one is better than none
    assert f"{ONE}: blob sha256-" in message
    assert catalog.weights(ONE).stat().st_ino == bad
    assert catalog.aside() == []


def test_two_runs_at_once_and_one_that_is_asked_to_stop(catalog):
    bad = catalog.flip(ONE).stat().st_ino
    limit_weights(catalog, ONE, stall_after_bytes=100_000)
    first = catalog.start([ONE, TWO], prune_partials=False)
    catalog.registry.wait_stalled()  # it is in its pull
    holder = f"model_catalog (pid {first.pid} on {os.uname().nodename}, since "
    for check in (True, False):
        message = catalog.bad(ONE, TWO, check=check)
        assert "another run works on the model store" in message
        assert holder in message
    first.send_signal(signal.SIGTERM)
    result = finish(first)
    assert "was stopped by SIGTERM" in result["msg"]
    assert result["outcomes"][0]["ok"] is False
    assert catalog.weights(ONE).stat().st_ino == bad
    assert catalog.aside() == []
    assert catalog.partials()
    catalog.registry.set_faults()
    resumed = catalog.good(ONE, TWO)
    assert resumed["downloaded_bytes"] < catalog.weights(ONE).stat().st_size
    catalog.converged(ONE, TWO)


def test_killed_in_the_middle_of_a_copy_from_a_peer(catalog):
    """The simulated registry answers as a peer too."""
    peer = {"type": "peer", "name": "llm-02", "url": catalog.registry.url, "token": "x"}
    options = {"sources": [peer, {"type": "registry"}]}
    catalog.flip(ONE)
    catalog.registry.set_faults(stall_after_bytes=300_000)
    process = catalog.start([ONE, TWO], **options)
    incoming = catalog.store / ".hx" / "incoming"
    wait_for(lambda: process.poll() is not None or sum_of(incoming) >= 300_000)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(catalog.aside()) == 1
    catalog.registry.set_faults()
    result = catalog.good(ONE, TWO, **options)
    assert [outcome["source"] for outcome in result["outcomes"] if outcome["source"]] == [
        "peer llm-02"
    ]
    assert result["downloaded_bytes"] == catalog.weights(ONE).stat().st_size - 300_000
    assert "/api/pull" not in catalog.ollama.log()
    assert (catalog.aside(), sum_of(incoming)) == ([], 0)
    catalog.converged(ONE, TWO, **options)


def sum_of(folder):
    """Return the bytes in the files of a directory that may not be there."""
    return sum(path.stat().st_size for path in folder.glob("*"))
