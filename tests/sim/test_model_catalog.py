# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The model catalog against a simulated engine and registry: every action and every way to fail."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time

import pytest
from catalog_host import Catalog, wait_for
from harness import free_port, make_store, start_ollama, start_registry

ONE, TWO = "tiny:1b", "tiny-think:1b"


@pytest.fixture
def registry(tmp_path):
    with start_registry(tmp_path) as started:
        yield started


@pytest.fixture
def make(tmp_path, registry):
    """Start an engine whose store holds some models, and return the module for it."""
    started = []

    def start(models="", version="0.11.4", partials=0):
        env = {"OLLAMA_NOPRUNE": "1"}
        ollama = start_ollama(tmp_path, models, version, env=env, partials=partials)
        started.append(ollama)
        return Catalog(ollama, registry)

    yield start
    for ollama in started:
        ollama.stop()


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("version", ["0.11.4", "0.32.15"])
def test_pull_into_an_empty_store(make, version):
    catalog = make(version=version)
    before = catalog.tree(lock=True)
    predicted = catalog.good(ONE, TWO, check=True)
    assert catalog.tree(lock=True) == before
    assert not catalog.state.exists()
    assert "/api/pull" not in catalog.ollama.log()
    result = catalog.good(ONE, TWO)
    for key in ("changed", "actions", "plan", "totals", "catalog", "env", "downloaded_bytes"):
        assert result[key] == predicted[key], key
    assert result["diff"] == predicted["diff"]
    assert catalog.names() == [TWO, ONE]
    assert [outcome["ok"] for outcome in result["outcomes"]] == [True, True]
    assert all(outcome["proof_s"] > 0 for outcome in result["outcomes"])
    assert {verdict["status"] for verdict in result["verdicts"]} == {"PASS"}
    assert result["downloaded_bytes"] == sum(
        path.stat().st_size for path in (catalog.store / "blobs").iterdir()
    )
    assert not catalog.manifest(catalog.registry.name(ONE)).exists()
    catalog.converged(ONE, TWO)


def test_models_that_are_there_are_adopted(make):
    catalog = make("tiny")
    before = catalog.tree()
    digest = digest_of(catalog.manifest(ONE))
    result = catalog.good({"name": ONE, "digest": digest[:12]}, TWO)
    assert [step["action"] for step in result["plan"]] == ["adopt", "adopt"]
    assert (result["changed"], result["actions"]) == (False, [])
    assert result["catalog"]["after"][0] == {
        "name": ONE,
        "digest": digest,
        "size_bytes": result["env"][0]["size_bytes"],
        "declared": True,
        "pinned": True,
        "complete": True,
    }
    assert catalog.tree() == before


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda catalog: catalog.weights(ONE).unlink(), "is missing"),
        (lambda catalog: catalog.weights(ONE).write_bytes(b"GGUF"), "is 4B long, wanted 1.0MB"),
        (lambda catalog: catalog.manifest(ONE).write_bytes(b""), "it is empty"),
        (lambda catalog: catalog.manifest(ONE).unlink(), "it is not there"),
    ],
)
def test_repairs(make, damage, reason):
    catalog = make("tiny")
    damage(catalog)
    result = catalog.good(ONE, TWO)
    assert reason in " ".join(result["actions"])
    assert len(result["actions"]) == 1
    catalog.converged(ONE, TWO)


def test_forbidden_models_go_and_undeclared_ones_stay(make):
    catalog = make("tiny")
    make_store(catalog.store, "gemma2:2b")
    result = catalog.good(ONE, forbidden=["GEMMA2:2b"])
    assert result["actions"] == ["Remove gemma2:2b (16.8MB): it is forbidden"]
    assert result["undeclared"] == [TWO]
    assert catalog.names() == [TWO, ONE]
    assert result["reclaimed_bytes"] == result["totals"]["bytes_to_free"] > 16_000_000
    assert result["verdicts"][0]["status"] == "WARN"
    catalog.converged(ONE, forbidden=["GEMMA2:2b"])


def test_exclusive(make):
    catalog = make("tiny")
    result = catalog.good(ONE, exclusive=True)
    assert [step["action"] for step in result["plan"]] == ["remove", "adopt"]
    assert catalog.names() == [ONE]
    catalog.converged(ONE, exclusive=True)


def test_seventeen_partials(make):
    catalog = make("tiny", partials=17)
    catalog.age_partials()
    predicted = catalog.good(ONE, TWO, check=True)
    held = sum(
        path.stat().st_blocks * 512 for path in catalog.partials() if "-partial-" not in path.name
    )
    sizes = sum(path.stat().st_size for path in catalog.partials())
    result = catalog.good(ONE, TWO)
    assert result["plan"] == predicted["plan"]
    assert len(result["actions"]) == result["reclaimed_files"] == 17
    assert result["reclaimed_apparent_bytes"] == predicted["reclaimed_apparent_bytes"] == sizes
    assert result["reclaimed_bytes"] == predicted["reclaimed_bytes"]
    assert held <= result["reclaimed_bytes"] <= held + 17 * 100
    assert catalog.partials() == []
    catalog.converged(ONE, TWO)


def test_partials_of_a_running_download_stay(make):
    catalog = make("tiny", partials=5)
    result = catalog.good(ONE, TWO)
    assert not result["changed"]
    assert len(catalog.partials()) == 5
    [verdict] = [item for item in result["verdicts"] if item["check"] == "store_partials"]
    assert verdict["status"] == "WARN"
    catalog.age_partials()
    with catalog.partials()[0].open("rb"):
        assert len(catalog.good(ONE, TWO)["actions"]) < 5
    catalog.good(ONE, TWO)
    assert catalog.partials() == []


def test_orphans(make):
    catalog = make("tiny")
    orphan = catalog.store / "blobs" / f"sha256-{hashlib.sha256(b'x').hexdigest()}"
    orphan.write_bytes(b"x")
    result = catalog.good(ONE, TWO)
    assert not result["changed"]
    assert orphan.exists()
    assert catalog.good(ONE, TWO, prune_orphans=True)["actions"] == []  # it may be one that comes
    os.utime(orphan, (1_700_000_000, 1_700_000_000))
    result = catalog.good(ONE, TWO, prune_orphans=True)
    assert len(result["actions"]) == 1
    assert not orphan.exists()
    catalog.converged(ONE, TWO, prune_orphans=True)


def test_the_reserve(make):
    catalog = make()
    before = catalog.tree()
    for check in (True, False):
        message = catalog.bad(ONE, reserve_bytes=10**18, check=check)
        assert "The pulls need 1.0MB on the disk of" in message
        assert "Nothing was pulled" in message
    assert catalog.tree() == before


def test_an_unreachable_registry(make):
    catalog = make("tiny")
    catalog.registry.stop()
    catalog.converged(ONE, TWO)  # nobody needs it
    catalog.weights(ONE).unlink()
    for check in (True, False):
        message = catalog.bad(ONE, TWO, check=check)
        assert f"{ONE}: blob sha256-" in message
        assert "is missing, and no source can give it" in message
        assert f"registry {catalog.registry.host}: it can't be reached" in message


def test_a_model_that_the_registry_does_not_have(make):
    catalog = make()
    result = catalog.run("nobody:7b", ONE)
    assert "nobody:7b: it is not there, and no source can give it" in result["msg"]
    assert f"registry {catalog.registry.host}: it doesn't have it (404)" in result["msg"]
    assert "it doesn't have it (404)" in result["unavailable"][0]["reason"]
    assert catalog.names() == [ONE]


def test_a_pin_that_the_registry_cannot_meet(make):
    catalog = make("tiny")
    before = catalog.tree()
    message = catalog.bad({"name": ONE, "digest": "0" * 12}, TWO)
    assert f"{ONE}: its digest is {digest_of(catalog.manifest(ONE))[:12]}, wanted 0000" in message
    assert catalog.tree() == before


def test_a_pin_that_is_met_by_pulling_again(make):
    catalog = make("tiny")
    pin = digest_of(catalog.manifest(ONE))
    data = json.loads(catalog.manifest(ONE).read_bytes())
    data["layers"].pop()
    catalog.manifest(ONE).write_text(json.dumps(data))
    result = catalog.good({"name": ONE, "digest": pin}, TWO)
    assert result["plan"][0]["action"] == "repull"
    assert result["catalog"]["after"][0]["digest"] == pin
    catalog.converged({"name": ONE, "digest": pin}, TWO)


def test_a_tag_that_moved(make):
    catalog = make("tiny")
    path = catalog.registry.store / catalog.manifest(ONE).relative_to(catalog.store)
    other = path.parent.parent / "tiny-think" / "1b"
    path.write_bytes(other.read_bytes())
    assert not catalog.good(ONE, TWO)["changed"]
    models = ({"name": ONE, "update": True}, TWO)
    result = catalog.good(*models, prune_orphans=True, partial_min_age_s=0)
    assert [step["action"] for step in result["plan"]][:2] == ["update", "adopt"]
    assert digest_of(catalog.manifest(ONE)) == digest_of(catalog.manifest(TWO))
    catalog.converged(*models, prune_orphans=True, partial_min_age_s=0)


def test_a_source_of_its_own(make):
    catalog = make()
    source = catalog.registry.name(TWO)
    model = {"name": "own-name:1", "source": source, "insecure": True}
    result = catalog.good(model, registry="")
    assert source in result["actions"][0]
    assert catalog.names() == ["own-name:1"]
    catalog.converged(model, registry="")


def test_a_failed_model_does_not_stop_the_others(make):
    catalog = make()
    blobs = [f"/v2/library/{ONE.partition(':')[0]}/blobs"]
    catalog.registry.set_faults(http_status={"paths": blobs, "status": 500})
    result = catalog.run(ONE, TWO)
    assert result["failed"]
    assert f"pulling {catalog.registry.name(ONE)} failed" in result["msg"]
    assert [outcome["ok"] for outcome in result["outcomes"]] == [False, True]
    assert [entry["name"] for entry in result["catalog"]["after"]] == [TWO]
    catalog.registry.set_faults()
    catalog.good(ONE, TWO)
    catalog.converged(ONE, TWO)


def test_bytes_that_never_match(make):
    catalog = make()
    catalog.registry.set_faults(wrong_bytes=True)
    assert "digest mismatch" in catalog.bad(ONE)
    assert catalog.damaged()  # the engine verified until the first mismatch
    catalog.registry.set_faults()
    catalog.good(ONE)
    catalog.converged(ONE)


def test_a_disk_that_fills_up(make):
    catalog = make()
    catalog.ollama.set_faults(disk_full_after_bytes=100_000)
    assert "no space left on device" in catalog.bad(ONE)
    catalog.ollama.set_faults()
    catalog.good(ONE)
    catalog.converged(ONE)


@pytest.mark.parametrize("records", ["whole", "empty"])
def test_killed_in_the_middle_of_a_pull(make, records):
    catalog = make()
    catalog.registry.set_faults(stall_after_bytes=200_000)
    process = catalog.start([ONE, TWO])
    wait_for(lambda: catalog.arrived() > 150_000 or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not catalog.downloading())
    catalog.registry.set_faults()
    assert catalog.partials()
    assert catalog.names() == []
    for path in catalog.partials():
        if records == "empty" and "-partial-" in path.name:
            path.write_bytes(b"")  # as a full disk or a power cut leaves it
    catalog.age_partials()  # where not every process can be seen, age tells what goes on
    result = catalog.good(ONE, TWO)
    actions = [step["action"] for step in result["plan"]]
    assert actions[-2:] == ["pull", "pull"]
    # The engine goes on from records that it can read, and would fail on the others.
    assert set(actions[:-2]) == ({"prune_partial"} if records == "empty" else set())
    blobs = sum(path.stat().st_size for path in (catalog.store / "blobs").iterdir())
    resumed = blobs - result["downloaded_bytes"]
    assert resumed == 0 if records == "empty" else resumed > 150_000
    assert catalog.partials() == []
    catalog.converged(ONE, TWO)


def test_killed_between_the_pull_and_the_copy(make):
    catalog = make()
    source = catalog.registry.name(ONE)
    catalog.ollama.post("/api/pull", {"model": source, "insecure": True})
    assert catalog.names() == [source]
    result = catalog.good(ONE)
    assert catalog.names() == [ONE]
    assert result["downloaded_bytes"] == 0
    catalog.converged(ONE)


def test_the_deadline(make):
    catalog = make()
    catalog.registry.set_faults(bytes_per_second=50_000)
    assert "stopped at the deadline" in catalog.bad(ONE, deadline_s=2)
    catalog.registry.set_faults()
    catalog.good(ONE)
    catalog.converged(ONE)


def test_a_model_that_does_not_answer(make):
    catalog = make()
    catalog.ollama.set_faults(out_of_memory=True)
    result = catalog.run(ONE)
    assert result["failed"]
    assert f"prompting {ONE} failed: HTTP 500" in result["msg"]
    assert catalog.names() == [ONE]


def test_an_engine_that_is_down(make):
    catalog = make("tiny", partials=3)
    catalog.age_partials()
    catalog.ollama.stop()
    assert catalog.good(ONE, TWO, check=True)["changed"]
    catalog.good(ONE, TWO)  # pruning needs no engine
    catalog.weights(ONE).unlink()
    assert "pull" in str(catalog.good(ONE, TWO, check=True)["plan"])
    message = catalog.bad(ONE, TWO)
    assert f"the Ollama API at {catalog.ollama.url} doesn't answer" in message


def test_an_engine_with_another_store(make, tmp_path):
    catalog = make("tiny")
    catalog.store = tmp_path / "other"
    make_store(catalog.store, "")
    message = catalog.bad(ONE)
    assert "doesn't serve the store" in message
    assert not list(catalog.store.rglob("sha256-*"))


def test_progress(make, tmp_path):
    catalog = make()
    catalog.registry.set_faults(bytes_per_second=1_000_000)
    path = tmp_path / "progress.json"
    process = catalog.start([ONE], progress_file=str(path))
    seen = []
    while process.poll() is None:
        if path.exists():
            seen.append(json.loads(path.read_text()))
        time.sleep(0.05)
    process.communicate()
    pulling = [state for state in seen if state["phase"] == "pulling" and state["total"]]
    assert pulling[0]["item"] == ONE
    assert pulling[-1]["done"] > pulling[0]["done"]


def test_nothing_listens_at_the_registry(make):
    message = make().bad(ONE, registry=f"127.0.0.1:{free_port()}")
    assert "Connection refused" in message
