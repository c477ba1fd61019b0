# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bringing one model: sources in turn, bad blobs aside, verification, proof."""

from __future__ import annotations

import errno
import os

import pytest
from catalog_rig import Source, World
from store_samples import LONG_AGO, blob_path, digest_of, write_model

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import (
    HostError,
    UnreachableError,
)

WEIGHTS, LICENSE = b"the weights", b"the license"
FLIPPED = b"the weightS"
REGISTRY, PEER = "registry r", "peer llm-02"


def registry(root, *contents):
    return Source(root, {"one": contents or (WEIGHTS, LICENSE)})


def peer(root, *contents):
    return Source(root, {"one": contents or (WEIGHTS, LICENSE)}, PEER, "peer")


def flip(root):
    """Change one byte of the weights, as a failing disk does it: no time changes."""
    path = blob_path(root, WEIGHTS)
    path.write_bytes(FLIPPED)
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def never(_name, count):
    raise HostError(f"no byte came ({count}).")


def test_a_missing_model(tmp_path):
    world = World(tmp_path, "one", sources=[registry(tmp_path)])
    [outcome] = world.apply()
    assert (outcome.ok, outcome.detail, outcome.source) == (True, "", REGISTRY)
    assert outcome.attempts == ({"source": REGISTRY, "ok": True, "detail": ""},)
    assert outcome.bytes == len(WEIGHTS + LICENSE + b"config")
    assert outcome.proof_s == 0.5
    assert world.engine.asked == [("prove", "one:latest")]
    assert ("one:latest", "pulling", 2, 3, "") in world.told.states
    assert world.told.states[-1][1:] == ("proving", None, None, "waiting for its first answer")
    assert world.good()
    assert world.left() == []


def test_nobody_has_to_answer_when_no_proof_is_wanted(tmp_path):
    world = World(tmp_path, "one", sources=[registry(tmp_path)])
    world.prove = False
    [outcome] = world.apply()
    assert (outcome.ok, outcome.proof_s) == (True, None)
    assert world.engine.asked == []


def test_the_next_source_is_tried_when_one_fails(tmp_path):
    bad, good = peer(tmp_path), registry(tmp_path)
    bad.trouble = lambda _name, count: count and never(_name, count)
    world = World(tmp_path, "one", sources=[bad, good])
    [outcome] = world.apply()
    assert (outcome.ok, outcome.source) == (True, REGISTRY)
    assert outcome.attempts == (
        {"source": PEER, "ok": False, "detail": "no byte came (1)."},
        {"source": REGISTRY, "ok": True, "detail": ""},
    )
    assert world.left() == []


def test_a_bad_blob_is_aside_while_a_good_one_comes_and_then_gone(tmp_path):
    write_model(tmp_path, "one", WEIGHTS, LICENSE)
    flip(tmp_path)
    source = registry(tmp_path)
    world = World(tmp_path, "one", sources=[source])
    seen = []
    source.trouble = lambda _name, count: seen.append(world.blobs())
    aside = f".hx/aside/sha256-{digest_of(WEIGHTS)}"
    [outcome] = world.apply()
    assert (outcome.action, outcome.ok) == ("repull", True)
    assert seen[0][aside] == digest_of(FLIPPED)
    assert f"blobs/sha256-{digest_of(WEIGHTS)}" not in seen[0]
    assert seen[-1][aside] == digest_of(FLIPPED)  # until the good one was read
    assert outcome.bytes == len(WEIGHTS)
    assert world.good()
    assert world.left() == []


def test_a_bad_blob_is_put_back_when_no_source_can_help(tmp_path):
    write_model(tmp_path, "one", WEIGHTS, LICENSE)
    path = flip(tmp_path)
    before = path.stat()
    one, two = peer(tmp_path), registry(tmp_path)
    one.trouble = two.trouble = never
    world = World(tmp_path, "one", sources=[one, two])
    [outcome] = world.apply()
    assert not outcome.ok
    assert outcome.detail == "no byte came (0). no byte came (0)."
    assert [attempt["source"] for attempt in outcome.attempts] == [PEER, REGISTRY]
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert os.listdir(tmp_path / ".hx" / "aside") == []
    assert [action for action, _target in world.left()] == ["repull"]


def test_what_came_is_read_before_the_bad_blob_goes(tmp_path):
    """A source that gives wrong bytes has failed, and doesn't replace what was there."""
    write_model(tmp_path, "one", WEIGHTS, LICENSE)
    path = flip(tmp_path)
    source = registry(tmp_path)
    source.change = lambda _content: b"THE WEIGHTS"
    world = World(tmp_path, "one", sources=[source])
    [outcome] = world.apply()
    assert not outcome.ok
    assert f"one:latest came from {REGISTRY}, but blob sha256-{digest_of(WEIGHTS)[:12]}" in (
        outcome.detail
    )
    assert f"its content has the digest {digest_of(b'THE WEIGHTS')[:12]}" in outcome.detail
    assert path.read_bytes() == FLIPPED


def test_a_wrong_blob_of_one_source_does_not_stop_the_next(tmp_path):
    one, two = peer(tmp_path), registry(tmp_path)
    one.change = lambda content: content.upper()
    world = World(tmp_path, "one", sources=[one, two])
    [outcome] = world.apply()
    assert (outcome.ok, outcome.source) == (True, REGISTRY)
    assert world.good()
    assert world.left() == []


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: os.truncate(path, 4)])
def test_missing_and_cut_blobs(tmp_path, damage):
    write_model(tmp_path, "one", WEIGHTS, LICENSE)
    damage(blob_path(tmp_path, WEIGHTS))
    world = World(tmp_path, "one", sources=[registry(tmp_path)])
    [outcome] = world.apply()
    assert outcome.ok
    assert world.good()
    assert world.left() == []


def test_a_manifest_that_is_empty(tmp_path):
    write_model(tmp_path, "one", WEIGHTS, LICENSE).write_text("")
    world = World(tmp_path, "one", sources=[registry(tmp_path)])
    [outcome] = world.apply()
    assert (outcome.action, outcome.ok, outcome.bytes) == ("repair", True, 0)
    assert world.left() == []


def test_a_bad_blob_that_another_download_left(tmp_path):
    """The engine would take it as it is."""
    path = blob_path(tmp_path, WEIGHTS)
    path.parent.mkdir()
    path.write_bytes(FLIPPED)
    world = World(tmp_path, "one", sources=[registry(tmp_path)])
    [outcome] = world.apply()
    assert outcome.ok
    assert world.good()


def test_a_loaded_model_is_unloaded_before_it_is_proven(tmp_path):
    write_model(tmp_path, "one", WEIGHTS, LICENSE)
    flip(tmp_path)
    world = World(tmp_path, "one", sources=[registry(tmp_path)])
    world.engine.in_memory = {"registry.ollama.ai/library/one:latest": ""}
    [outcome] = world.apply()
    assert (outcome.ok, outcome.detail) == (True, "")
    assert [call[0] for call in world.engine.asked] == ["unload", "prove"]


def test_a_model_that_stays_loaded_is_said_to(tmp_path):
    world = World(tmp_path, "one", sources=[registry(tmp_path)])
    world.engine.in_memory = {"registry.ollama.ai/library/one:latest": ""}
    world.engine.unload = lambda _name: False
    [outcome] = world.apply()
    assert outcome.ok
    assert "in use until the requests that run have ended" in outcome.detail


def test_a_model_that_does_not_answer_keeps_its_good_blobs(tmp_path):
    write_model(tmp_path, "one", WEIGHTS, LICENSE)
    flip(tmp_path)
    world = World(tmp_path, "one", sources=[registry(tmp_path)])
    world.engine.failing = {"one:latest"}
    [outcome] = world.apply()
    assert (outcome.ok, outcome.detail) == (False, "prompting one:latest failed: no.")
    assert (outcome.source, outcome.proof_s, outcome.refuted) == (REGISTRY, None, True)
    assert world.good()


@pytest.mark.parametrize(
    ("stop", "error"),
    [("SIGTERM", HostError("prompting one was stopped.")), ("", UnreachableError("it is down."))],
)
def test_a_proof_that_was_cut_off_says_nothing_against_a_model(tmp_path, stop, error):
    world = World(tmp_path, "one", sources=[registry(tmp_path)])

    def prove(_name):
        world.stop = stop
        raise error

    world.engine.prove = prove
    [outcome] = world.apply()
    assert (outcome.ok, outcome.source, outcome.refuted) == (False, REGISTRY, False)
    assert outcome.detail == str(error)


def test_a_bad_blob_that_is_a_link_is_repaired(tmp_path):
    """Engines follow links, and so does whoever reads the store."""
    write_model(tmp_path, "one", WEIGHTS, LICENSE)
    path, other = blob_path(tmp_path, WEIGHTS), tmp_path / "elsewhere"
    other.write_bytes(FLIPPED)
    path.unlink()
    path.symlink_to(other)
    world = World(tmp_path, "one", sources=[registry(tmp_path)])
    [outcome] = world.apply()
    assert (outcome.ok, outcome.detail) == (True, "")
    assert (path.is_symlink(), path.read_bytes()) == (False, WEIGHTS)
    assert other.read_bytes() == FLIPPED
    assert world.left() == []


def test_a_login_that_leads_to_another_version_names_both_digests(tmp_path):
    source = registry(tmp_path)
    real = source.offer
    world = World(tmp_path, {"name": "one", "digest": "0" * 12}, sources=[source])
    known = {}

    def unseen(item):
        known["offer"] = real(item)
        return known["offer"].__class__(REGISTRY, "registry")

    source.offer = unseen
    fetch = source.fetch
    source.fetch = lambda item, _offer, tell: fetch(item, known["offer"], tell)
    [outcome] = world.apply()
    digest = known["offer"].remote.digests[0][:12]
    assert not outcome.ok
    assert f"its digest is {digest}, wanted {'0' * 12}" in outcome.detail


def test_a_stop_tries_no_further_source_and_puts_the_bad_blob_back(tmp_path):
    write_model(tmp_path, "one", WEIGHTS, LICENSE)
    path = flip(tmp_path)
    one, two = peer(tmp_path), registry(tmp_path)
    world = World(tmp_path, "one", sources=[one, two])

    def stop(_name, _count):
        world.stop = "SIGTERM"

    one.trouble = stop
    [outcome] = world.apply()
    assert not outcome.ok
    assert "was stopped by SIGTERM" in outcome.detail
    assert [attempt["source"] for attempt in outcome.attempts] == [PEER]
    assert path.read_bytes() == FLIPPED


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        HostError("pulling one failed: write x: no space left on device."),
    ],
)
def test_a_full_disk_is_said_with_both_figures(tmp_path, error):
    source = registry(tmp_path)

    def fill(_name, count):
        if count == 2:
            raise error

    source.trouble = fill
    world = World(tmp_path, "one", sources=[source])
    world.free = 2_000_000
    [outcome] = world.apply()
    assert not outcome.ok
    assert "2.0MB are free on the store's disk, and 11B have still to come" in outcome.detail
    source.trouble = lambda _name, _count: None
    assert [outcome.ok for outcome in world.apply()] == [True]


@pytest.mark.parametrize(("free", "tried"), [(1028, True), (1027, False)])
def test_a_further_source_is_tried_when_there_is_space_for_it(tmp_path, free, tried):
    """It doesn't go on from what the first one left."""
    one, two = peer(tmp_path), registry(tmp_path)
    part = tmp_path / ".hx" / "incoming" / f"sha256-{digest_of(WEIGHTS)}.part"

    def fail(_name, _count):
        part.parent.mkdir(parents=True)
        part.write_bytes(WEIGHTS[:5])
        raise HostError("no.")

    one.trouble = fail
    world = World(tmp_path, "one", sources=[one, two], reserve_bytes=1000)
    world.free = free
    [outcome] = world.apply()
    assert outcome.ok == tried
    assert [attempt["ok"] for attempt in outcome.attempts] == [False, tried]
    if not tried:
        assert outcome.detail == (
            f"no. {REGISTRY} wasn't tried: 28B would have to come, 1.0KB are free on the store's "
            "disk and 1.0KB must stay free."
        )


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_repair_that_is_cut_off_is_completed_by_the_next_run(tmp_path, count):
    """As after kill -9: nothing is tidied up."""
    write_model(tmp_path, "one", WEIGHTS, LICENSE)
    flip(tmp_path)
    source = registry(tmp_path)
    world = World(tmp_path, "one", sources=[source])

    class Killed(BaseException):
        pass

    def kill(_name, at):
        if at == count:
            world.blobs_then = world.blobs()
            raise Killed

    source.trouble = kill
    with pytest.raises(Killed):
        world.apply()
    restore(tmp_path, world.blobs_then)
    source.trouble = lambda _name, _count: None
    assert all(outcome.ok for outcome in world.apply())
    assert world.good()
    assert world.left() == []


def restore(root, names):
    """Bring the store into the state that the killed process left: its clean-up didn't happen."""
    contents = {digest_of(text): text for text in (WEIGHTS, LICENSE, FLIPPED, b"config")}
    for folder in (root / "blobs", root / ".hx" / "aside"):
        for path in folder.iterdir():
            path.unlink()
    for name, digest in names.items():
        (root / name).write_bytes(contents[digest])
