# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carrying out a plan: what is looked at once more, and failures that stop nothing."""

from __future__ import annotations

import json
import os
import threading

import pytest
from catalog_rig import Source, World
from store_samples import LONG_AGO, blob_path, digest_of, write_blob, write_model, write_partial

from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_plan as words
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name

ONE, TWO = b"weights one", b"weights two"


def both(root):
    return Source(root, {"one": [ONE], "two": [TWO]})


def shown(outcomes):
    return [(outcome.action, outcome.target, outcome.ok) for outcome in outcomes]


def set_aside(root, content, bad=b"bad"):
    path = root / ".hx" / "aside" / f"sha256-{digest_of(content)}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bad)
    return path


def test_a_failed_model_does_not_stop_the_others(tmp_path):
    source = both(tmp_path)

    def trouble(name, _count):
        if name == "one:latest":
            raise HostError("pulling one failed: no.")

    source.trouble = trouble
    world = World(tmp_path, "one", "two", "three", sources=[source])
    outcomes = world.apply()
    assert shown(outcomes) == [
        ("pull", "one:latest", False),
        ("pull", "two:latest", True),
        ("unavailable", "three:latest", False),
    ]
    assert outcomes[0].detail == "pulling one failed: no."
    assert "no source can give it: registry r: it doesn't have it (404)." in outcomes[2].detail


def test_several_at_once(tmp_path):
    source = both(tmp_path)
    met = threading.Barrier(2, timeout=20)
    source.trouble = lambda _name, count: count == 0 and met.wait()
    world = World(tmp_path, "one", "two", sources=[source], parallel=2)
    assert shown(world.apply()) == [("pull", "one:latest", True), ("pull", "two:latest", True)]
    assert world.good()
    assert world.left() == []
    assert any(state[0] == "2 models" for state in world.told.states)


def test_two_repairs_of_one_blob_at_once(tmp_path):
    for name in ("one", "two"):
        write_model(tmp_path, name, ONE)
    path = blob_path(tmp_path, ONE)
    path.write_bytes(b"Weights one")
    source = Source(tmp_path, {"one": [ONE], "two": [ONE]})
    met, begun = threading.Barrier(2, timeout=20), set()

    def trouble(name, _count):
        if name not in begun:  # the other one may have to begin again
            begun.add(name)
            met.wait()
        if name == "one:latest":
            raise HostError("no.")

    source.trouble = trouble
    world = World(tmp_path, "one", "two", sources=[source], parallel=2)
    assert [outcome.ok for outcome in world.apply()] == [False, True]
    assert world.good()
    assert world.left() == []


def test_nothing_is_begun_after_a_stop(tmp_path):
    source = both(tmp_path)
    world = World(tmp_path, "one", "two", sources=[source], prune_orphans=True)

    def stop(_name, _count):
        world.stop = "SIGINT"

    source.trouble = stop
    one, two = world.apply()
    assert "was stopped by SIGINT" in one.detail
    assert two.detail == "it was not begun: the run was stopped by SIGINT."
    world.stop = ""
    source.trouble = lambda _name, _count: None
    world.apply()
    assert world.left() == []


def test_a_download_that_goes_on_after_all(tmp_path):
    write_partial(tmp_path, ONE, 5)
    path = tmp_path / "blobs" / f"sha256-{digest_of(ONE)}-partial"
    world = World(tmp_path)
    data, record = world.apply(lambda: path.write_bytes(b"more"))
    assert (data.ok, record.ok) == (False, True)
    assert "was kept: its download has just gone on" in data.detail
    assert path.exists()


def test_a_file_that_went_by_itself(tmp_path):
    for path in write_partial(tmp_path, ONE, 5):
        keep = path
    world = World(tmp_path)
    assert all(outcome.ok for outcome in world.apply(keep.unlink))


def test_a_copy_is_kept_until_the_blob_came_from_elsewhere(tmp_path):
    part = tmp_path / ".hx" / "incoming" / f"sha256-{digest_of(ONE)}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(ONE[:5])
    os.utime(part, (LONG_AGO, LONG_AGO))
    source = both(tmp_path)

    def fail(_name, _count):
        raise HostError("no.")

    source.trouble = fail
    world = World(tmp_path, "one", sources=[source])
    pull, prune = world.apply()
    assert (pull.ok, prune.action, prune.ok) == (False, "prune_partial", False)
    assert f"was kept: no good blob sha256-{digest_of(ONE)[:12]} came" in prune.detail
    source.trouble = lambda _name, _count: None
    assert [outcome.ok for outcome in world.apply()] == [True, True]
    assert not part.exists()


def test_an_orphan_that_a_model_refers_to_after_all(tmp_path):
    blob = write_blob(tmp_path, ONE)
    manifest = tmp_path / parse_name("new").manifest

    def pull_elsewhere():
        manifest.parent.mkdir(parents=True)
        layer = {"digest": f"sha256:{digest_of(ONE)}", "size": len(ONE)}
        manifest.write_text(json.dumps({"layers": [layer]}))

    outcomes = World(tmp_path, prune_orphans=True).apply(pull_elsewhere)
    assert shown(outcomes) == [(words.PRUNE_ORPHAN, f"blobs/{blob.name}", False)]
    assert "a model may refer to it" in outcomes[0].detail
    assert blob.exists()


@pytest.mark.parametrize("came", ["a part", "a blob"])
def test_no_orphan_goes_when_a_download_has_begun(tmp_path, came):
    orphan = write_blob(tmp_path, ONE)
    os.utime(orphan, (LONG_AGO, LONG_AGO))
    world = World(tmp_path, prune_orphans=True)

    def begin():
        if came == "a part":
            write_partial(tmp_path, TWO, 3)
        else:
            write_blob(tmp_path, TWO)

    [outcome] = world.apply(begin)
    assert (outcome.action, outcome.ok) == ("prune_orphan", False)
    assert "was kept: a download has begun" in outcome.detail
    assert orphan.exists()


def test_no_orphan_goes_while_a_manifest_stays_unreadable(tmp_path):
    """Nobody knows then whether the model that couldn't be repaired refers to it."""
    orphan = write_blob(tmp_path, TWO)
    write_model(tmp_path, "one", ONE).write_bytes(b"")
    source = Source(tmp_path, {"one": [ONE]})

    def fail(_name, _count):
        raise HostError("no.")

    source.trouble = fail
    world = World(tmp_path, "one", sources=[source], prune_orphans=True)
    repair, *prunes = world.apply()
    assert (repair.action, repair.ok) == ("repair", False)
    assert {step.action for step in prunes} == {words.PRUNE_ORPHAN}
    assert not any(step.ok for step in prunes)
    assert orphan.exists()
    source.trouble = lambda _name, _count: None
    assert all(outcome.ok for outcome in world.apply())
    assert not orphan.exists()


def test_an_orphan_waits_for_what_makes_a_model_whole_whose_source_is_silent(tmp_path):
    orphan = write_blob(tmp_path, b"weights three")
    write_model(tmp_path, "one", ONE)
    blob_path(tmp_path, ONE).unlink()
    source = Source(tmp_path, {"two": [ONE, TWO]})
    source.silent = {"one"}

    def fail(_name, _count):
        raise HostError("no.")

    source.trouble = fail
    world = World(tmp_path, "one", "two", sources=[source], prune_orphans=True)
    pull, prune = world.apply()
    assert (pull.ok, prune.action) == (False, "prune_orphan")
    assert f"was kept: no good blob sha256-{digest_of(ONE)[:12]} came" in prune.detail
    assert orphan.exists()
    source.trouble = lambda _name, _count: None
    assert [outcome.ok for outcome in world.apply()] == [True, True]
    assert not orphan.exists()
    assert shown(world.apply()) == []


def test_an_orphan_goes(tmp_path):
    blob = write_blob(tmp_path, ONE)
    world = World(tmp_path, prune_orphans=True)
    assert [outcome.ok for outcome in world.apply()] == [True]
    assert not blob.exists()


def test_a_blob_that_a_killed_repair_left_aside_is_put_back(tmp_path):
    write_model(tmp_path, "mine", ONE)
    blob_path(tmp_path, ONE).unlink()
    aside = set_aside(tmp_path, ONE)
    world = World(tmp_path)
    assert shown(world.apply()) == [("restore", f".hx/aside/{aside.name}", True)]
    assert blob_path(tmp_path, ONE).read_bytes() == b"bad"
    assert not aside.exists()


def test_a_set_aside_blob_goes_from_a_store_that_has_nothing_else(tmp_path):
    aside = set_aside(tmp_path, ONE)
    assert shown(World(tmp_path).apply()) == [("discard", f".hx/aside/{aside.name}", True)]
    assert not aside.exists()


def test_a_set_aside_blob_goes_when_a_good_one_is_there(tmp_path):
    write_model(tmp_path, "one", ONE)
    aside = set_aside(tmp_path, ONE)
    world = World(tmp_path, "one", sources=[both(tmp_path)])
    assert shown(world.apply()) == [("discard", f".hx/aside/{aside.name}", True)]
    assert not aside.exists()


def test_a_set_aside_blob_stays_when_the_good_one_is_not_there_after_all(tmp_path):
    write_model(tmp_path, "one", ONE)
    aside = set_aside(tmp_path, ONE)
    world = World(tmp_path, "one", sources=[both(tmp_path)])
    [outcome] = world.apply(lambda: blob_path(tmp_path, ONE).write_bytes(b"weights Two"))
    assert (outcome.action, outcome.ok) == ("discard", False)
    assert "no good blob is in its place" in outcome.detail
    assert aside.exists()


def test_a_set_aside_blob_of_a_killed_run_is_put_back_when_no_source_can_help(tmp_path):
    write_model(tmp_path, "one", ONE)
    blob_path(tmp_path, ONE).unlink()
    aside = set_aside(tmp_path, ONE)
    source = both(tmp_path)

    def fail(_name, _count):
        raise HostError("no.")

    source.trouble = fail
    world = World(tmp_path, "one", sources=[source])
    repull, discard = world.apply()
    assert (repull.ok, discard.action, discard.ok) == (False, "discard", False)
    assert "was put back: no good blob came" in discard.detail
    assert blob_path(tmp_path, ONE).read_bytes() == b"bad"
    assert not aside.exists()
    source.trouble = lambda _name, _count: None
    assert all(outcome.ok for outcome in world.apply())
    assert world.good()


def test_a_set_aside_blob_goes_with_the_repair_that_another_run_began(tmp_path):
    write_model(tmp_path, "one", ONE)
    blob_path(tmp_path, ONE).unlink()
    aside = set_aside(tmp_path, ONE)
    world = World(tmp_path, "one", sources=[both(tmp_path)])
    assert all(outcome.ok for outcome in world.apply())
    assert not aside.exists()
    assert world.good()


def test_a_forbidden_model(tmp_path):
    write_model(tmp_path, "bad", ONE)
    world = World(tmp_path, forbidden=["BAD"])
    assert shown(world.apply()) == [("remove", "bad:latest", True)]
    assert world.engine.asked == [("delete", "bad:latest")]


def test_a_forbidden_model_whose_manifest_cannot_be_read(tmp_path):
    manifest = write_model(tmp_path, "bad", ONE)
    manifest.write_text("")
    world = World(tmp_path, forbidden=["bad"])
    assert all(outcome.ok for outcome in world.apply())
    assert world.engine.asked == []
    assert not manifest.exists()


def test_all_manifests_of_a_forbidden_model_go_at_once(tmp_path):
    """Their paths differ in upper and lower case only."""
    write_model(tmp_path, "bad", ONE)
    write_model(tmp_path, "BAD", TWO)
    broken = write_model(tmp_path, "Bad", b"more")
    broken.write_text("")
    kept = write_model(tmp_path, "good", TWO)
    world = World(tmp_path, forbidden=["bad"])
    assert [outcome.ok for outcome in world.apply()] == [True]
    assert list((tmp_path / "manifests").rglob("latest")) == [kept]
    assert sorted(world.engine.asked) == [("delete", "BAD:latest"), ("delete", "bad:latest")]
    assert world.left() == []


def test_what_the_system_refuses_is_an_outcome(tmp_path, monkeypatch):
    write_blob(tmp_path, ONE)
    world = World(tmp_path, prune_orphans=True)

    def refuse(path, **_options):
        raise PermissionError(13, "Permission denied", path)

    [outcome] = world.apply(lambda: monkeypatch.setattr(os, "unlink", refuse))
    assert not outcome.ok
    assert outcome.detail.endswith(": Permission denied.")
