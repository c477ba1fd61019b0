# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every way to fail: each model is whole or named with its reason, and the next run converges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

STORE = "/mnt/active_llm_models"
DISK = "/data/llm_bulk_storage"
BALLAST = f"{DISK}/ballast"
LOCK = f"{STORE}/.hx/lock"
MEGABYTE = 1_000_000
STALL_S = 15  # longer than a busy machine pauses; after 30 s the engine asks for the part anew
DECLARED = yaml.safe_load(
    (Path(__file__).resolve().parents[1] / "vars" / "declared.yml").read_text()
)["models_catalog"]
ALL = sorted([*(model["name"] for model in DECLARED), "cogito:32b"])


@pytest.fixture
def undeclared(store):
    """Make sure that the undeclared model is not touched."""

    def state():
        return store.run(
            "m=manifests/registry.ollama.ai/library/cogito/32b; stat -c '%i %Y %s' $m "
            "$(grep -oE 'sha256:[0-9a-f]{64}' $m | sed 's|^sha256:|blobs/sha256-|')"
        )

    before = state()
    yield
    assert state() == before


@pytest.fixture
def ballast(llm_02):
    """Return a function that takes the disk's free space but for so many bytes."""

    def fill(left, free):
        llm_02.check_output(f"fallocate -l {free - left} {BALLAST}")

    yield fill
    llm_02.check_output(f"rm -f {BALLAST}")


def listed(llm_02, api):
    return sorted(model["name"] for model in api(llm_02, "/api/tags")["models"])


@pytest.mark.usefixtures("undeclared")
def test_each_source_fails_in_its_own_way(catalog, store, registry, llm_02, api, converges):
    """A stall, 404, 500, bytes of another digest, lost connections, and a pin that nobody meets."""
    never = {"name": "mistral-small3.2:latest", "digest": "000000000000"}
    expected = {
        "qwen3:1.7b": ({"stall_after_bytes": MEGABYTE}, "stalled"),
        "gemma2:2b": ({"http_status": {"status": 404}}, "404"),
        "dolphin3:8b": (
            {"http_status": {"status": 500, "paths": ["/v2/library/dolphin3/blobs/"]}},
            "500",
        ),
        "llama3.2:3b": ({"wrong_bytes": True}, "digest mismatch"),
        "phi3:latest": ({"drop": {"paths": ["/v2/library/phi3/blobs/", "/direct/"]}}, "EOF"),
    }
    store.damage("remove", *(set(expected) - {"phi3:latest"}), "deepcoder:14b")
    store.damage("flip", "phi3:latest")
    registry.fail({name: faults for name, (faults, _word) in expected.items()})

    run = catalog.run(models_stall=STALL_S, models_catalog=[*DECLARED, never])
    assert not run.end(), run.output
    for name, (_faults, word) in {**expected, never["name"]: ({}, "000000000000")}.items():
        succeeded, why = run.outcomes[name]
        assert not succeeded, name
        assert word in why, why
        assert name in run.output
    assert run.outcomes["deepcoder:14b"][0], run.outcomes
    assert listed(llm_02, api) == ["cogito:32b", "deepcoder:14b", "phi3:latest"]
    # What could not be repaired is where it was.
    assert store.damaged() == [f"blobs/sha256-{store.weights('phi3:latest')}"]
    assert store.files(".hx/aside/*") == {}

    registry.fail()
    converges(ALL)


@pytest.mark.usefixtures("undeclared")
def test_a_disk_that_fills_up_in_the_middle(
    catalog, store, registry, llm_02, api, ballast, avail, converges
):
    gone = ["deepcoder:14b", "dolphin3:8b"]
    store.damage("remove", *gone)
    registry.fail({"deepcoder:14b": {"stall_after_bytes": 8 * MEGABYTE}})
    run = catalog.start_and_stall()
    ballast(4 * MEGABYTE, avail(DISK))
    registry.fail()
    assert not run.end(), run.output
    for name in gone:
        succeeded, why = run.outcomes[name]
        assert not succeeded, name
        assert "space" in why, why
    assert "no space left on device" in run.outcomes["deepcoder:14b"][1]
    assert listed(llm_02, api) == [name for name in ALL if name not in gone]

    llm_02.check_output(f"rm {BALLAST}")
    converges(ALL)


@pytest.mark.usefixtures("undeclared")
def test_two_runs_at_once(catalog, store, registry, converges):
    store.damage("remove", "gemma2:2b")
    registry.fail({"gemma2:2b": {"stall_after_bytes": 8 * MEGABYTE}})
    first = catalog.start_and_stall()
    second = catalog.run()
    assert not second.end(), second.output
    pid = json.loads(store.run("cat .hx/lock"))["pid"]
    assert f"another run works on the model store {STORE}" in second.output
    assert f"(pid {pid} on llm-02" in second.output
    assert first.process.poll() is None
    registry.fail()
    assert first.end(), first.output
    assert first.outcomes["gemma2:2b"][0]
    converges(ALL, first=first)


@pytest.mark.usefixtures("undeclared")
def test_killed_in_the_middle_of_a_pull(catalog, store, registry, llm_02, api, converges):
    """The bad blob is set aside at that moment: the next run brings the good one and drops it."""
    weights = store.weights("gemma2:2b")
    store.damage("flip", "gemma2:2b")
    registry.fail({"gemma2:2b": {"stall_after_bytes": 8 * MEGABYTE}})
    run = catalog.start_and_stall()
    llm_02.check_output(f"fuser --kill -KILL {LOCK} 2>/dev/null")
    assert not run.end(), run.output
    assert list(store.files(".hx/aside/*")) == [f".hx/aside/sha256-{weights}"]
    assert set(store.files("blobs/*-partial*")) == {
        f"blobs/sha256-{weights}-partial",
        f"blobs/sha256-{weights}-partial-0",
    }
    assert listed(llm_02, api) == ALL
    registry.fail()
    converges(ALL)


@pytest.mark.usefixtures("undeclared")
def test_killed_in_the_middle_of_a_copy_from_a_peer(catalog, store, registry, llm_02, converges):
    sources = [
        {"type": "peer", "name": "svc-01", "url": "http://svc-01:5001", "token": "of-the-lab"},
        {"type": "registry"},
    ]
    weights = store.weights("gemma2:2b")
    part = f".hx/incoming/sha256-{weights}.part"
    store.damage("remove", "gemma2:2b")
    registry.fail({"gemma2:2b": {"stall_after_bytes": 8 * MEGABYTE}})
    run = catalog.start_and_stall(models_sources=sources)
    llm_02.check_output(f"fuser --kill -KILL {LOCK} 2>/dev/null")
    assert not run.end(), run.output
    come = store.files(".hx/incoming/*")
    assert 0 < come[part] <= 8 * MEGABYTE, come
    registry.fail()
    registry.forget()
    converges(ALL, models_sources=sources)
    asked = registry.counts()["requests"]
    assert asked[f"GET /v1/blobs/sha256-{weights}"] == 1
    assert f"GET /direct/sha256-{weights}" not in asked
    served = registry.host.check_output(
        "journalctl --no-pager -o cat -n 200 -u catalog-registry.service"
    )
    assert f'"GET /v1/blobs/sha256-{weights} HTTP/1.1" 206' in served  # it was resumed
