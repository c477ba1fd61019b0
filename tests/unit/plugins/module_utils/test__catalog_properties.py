# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The planner: what holds for all plans, whatever is declared, stored and offered."""

from __future__ import annotations

import copy
import itertools

from catalog_samples import NOW, OLD, hexa
from catalog_world import World, blob_path
from hypothesis import event, given, settings
from hypothesis import strategies as st

from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog as catalog
from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_plan as words
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import Offer
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import (
    manifest_name,
    parse_name,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    Layer,
    StoredFile,
    StoredModel,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._registry import Remote

SOURCE = "r:5000/library/one"
NAMES = ("one", "two", "x", SOURCE)
STORED = (*NAMES, f"one:latest{words.PREVIOUS_SUFFIX}", f"x:latest{words.PREVIOUS_SUFFIX}")
LETTERS = "abcde"
SIZES = {"a": 1000, "b": 2000, "c": 10, "d": 500, "e": 30}
VERSIONS = 3
VERSIONED = list(itertools.product(STORED, range(VERSIONS)))
MAYBE = st.sampled_from((False, False, True))
STATES_OF_A_MODEL = (None, None, *range(VERSIONS), "unreadable")


def digest_of(name, version):
    return hexa(f"{parse_name(name).key} {version}")


SUBSETS = [
    tuple(Layer(hexa(letter), SIZES[letter]) for letter in chosen)
    for count in (1, 2, 3)
    for chosen in itertools.combinations(LETTERS, count)
]
# What the disk may hold of one blob: the blob, and whether something of it is set aside, is
# unfinished at the engine, is unfinished as a copy.
STATES = list(
    itertools.product(
        ("good", "good", "good", "bad", "short", None, None),
        (False, False, True),
        (None, None, None, "begun", "damaged"),
        (False, False, True),
    )
)
SOURCES = [
    chosen
    for count in (1, 2, 3)
    for chosen in itertools.permutations(
        ("registry r", "peer llm-02", "peer llm-03", "archive /srv/a.tar"), count
    )
]
TIMES = st.sampled_from((OLD, OLD, OLD, NOW - 60))


def stored_file(path, letter, size, mtime, **values):
    inode = (1, LETTERS.index(letter))
    return StoredFile(path, hexa(letter), size, size, mtime, inode, **values)


@st.composite
def worlds(draw, versions, taken):
    world = World(noprune=draw(st.booleans()))
    for name in STORED:
        there = name == SOURCE and taken
        version = draw(st.sampled_from(range(VERSIONS) if there else STATES_OF_A_MODEL))
        if version == "unreadable":
            world.unreadable.append(parse_name(name).manifest)
        elif version is not None:
            parsed = parse_name(name)
            world.models[parsed.key] = StoredModel(parsed, *versions[name, version])
    for letter in LETTERS:
        digest, size, when = hexa(letter), SIZES[letter], draw(TIMES)
        blob, aside, part, copied = draw(st.sampled_from(STATES))
        if blob:
            length = size // 2 if blob == "short" else size
            world.blobs[digest] = stored_file(blob_path(digest), letter, length, when)
        if blob == "good":
            world.good.add(digest)
        if aside:
            path = f".hx/aside/sha256-{digest}"
            world.aside[digest] = stored_file(path, letter, size, when)
        if part:
            path, done = f"blobs/sha256-{digest}-partial-0", size // 3 if part == "begun" else 0
            values = {"damaged": part == "damaged", "completed": done}
            world.partials[digest] = stored_file(path, letter, size // 3, when, **values)
        if copied:
            path, done = f".hx/incoming/sha256-{digest}.part", size // 4
            world.copies[digest] = stored_file(path, letter, done, when, completed=done)
    return world


@st.composite
def declarations(draw, versions, taken):
    declared = draw(st.lists(st.sampled_from(NAMES), unique=True))
    if taken:
        declared = ["one", *(name for name in declared if name not in ("one", SOURCE))]
    models = {}
    for name in declared:
        entry = {"name": draw(st.sampled_from((name, name.replace("one", "ONE"))))}
        if draw(MAYBE):
            entry["digest"] = versions[name, draw(st.integers(0, VERSIONS - 1))][0][:12]
        elif draw(st.booleans()):
            entry["update"] = True
        models[name] = entry
    if "digest" not in models.get(SOURCE, {}):  # nothing else is pulled by a pinned model's name
        for name in ("one", "x"):
            if name in models and (taken or draw(st.booleans())):
                models[name]["source"] = SOURCE
    left = [name for name in STORED if name not in declared]
    return words.read_declaration(
        {
            "models": list(models.values()),
            "forbidden": draw(st.lists(st.sampled_from(left), unique=True)) if left else [],
            "exclusive": draw(st.booleans()) and not taken,
            "reserve_bytes": 0,
            "prune_partials": draw(st.booleans()),
            "partial_min_age_s": 3600,
            "prune_orphans": draw(st.booleans()),
        }
    )


def offer(draw, item, source, versions, said):
    """Draw what a source says; a registry is asked for the name that a model is pulled by."""
    kind = source.split()[0]
    name = item.source if kind == "registry" else item.name
    if (source, name.key) not in said:  # it says the same when it is asked again
        said[source, name.key] = _answer(draw, source, kind, name, versions)
    return said[source, name.key]


def _answer(draw, source, kind, name, versions):
    version = draw(st.sampled_from((*range(VERSIONS), None)))
    if version is None:
        return Offer(source, kind, None, "it doesn't have it (404)", draw(st.booleans()))
    known = next(known for known in STORED if parse_name(known).key == name.key)
    digest, layers = versions[known, version]
    return Offer(source, kind, Remote("http://r", (digest,), layers))


@st.composite
def scenes(draw, *, taken=False):
    """Draw a world, a declaration, what the sources offer, and what is known at the moment.

    With ``taken``, there is a model of the name that a declared one is pulled by.
    """
    count = len(VERSIONED)
    drawn = draw(st.lists(st.sampled_from(SUBSETS), min_size=count, max_size=count))
    versions = {
        (name, version): (digest_of(name, version), layers)
        for (name, version), layers in zip(VERSIONED, drawn)
    }
    if draw(st.booleans()):  # peers have what the registry has
        versions.update(
            ((SOURCE, version), versions["one", version]) for version in range(VERSIONS)
        )
    world, declaration = draw(worlds(versions, taken)), draw(declarations(versions, taken))
    sources, said = draw(st.sampled_from(SOURCES)), {}
    offers = {
        item.name.key: tuple(offer(draw, item, source, versions, said) for source in sources)
        for item in declaration.wanted
    }
    busy = frozenset((1, number) for number in draw(st.sets(st.integers(0, 4), max_size=2)))
    return world, declaration, offers, catalog.Moment(NOW, busy, draw(st.booleans()))


def planned(scene):
    world, declaration, offers, moment = scene
    store = world.look(declaration, offers)
    return store, catalog.make_plan(declaration, store, offers, moment)


def spared_for_a_download(scene, plan):
    """The orphans that stay because somebody downloads, who may have ended when the plan has."""
    world, _declaration, _offers, moment = scene
    going_on = any(file.inode in moment.busy for file in world.partials.values())
    return {file.path for file in plan.orphans} if going_on else set()


def left_to_do(plan, spared):
    orphans = [step for step in plan.changes if step.action == words.PRUNE_ORPHAN]
    known = {step.target for step in orphans} & spared
    return words.sentences(step for step in plan.changes if step.target not in known)


@settings(deadline=None)
@given(scenes())
def test_a_carried_out_plan_leaves_nothing_to_do(scene):
    world, declaration, offers, _moment = scene
    store, plan = planned(scene)
    for step in plan.steps:
        event(step.action)
    if stuck(world, plan):
        return
    spared = spared_for_a_download(scene, plan)
    world.run(plan, declaration, store, offers)
    store, again = planned(scene)
    assert left_to_do(again, spared) == []
    if again.changes:
        world.run(again, declaration, store, offers)
        assert words.sentences(planned(scene)[1].changes) == []
    left = {step.target for step in again.unavailable}
    assert left <= {step.target for step in plan.unavailable}
    for item in declaration.wanted:
        if str(item.name) not in left:
            model = world.models[item.name.key]
            assert world.whole(model)
            assert model.digest.startswith(item.pin)


@settings(deadline=None)
@given(scenes())
def test_no_plan_takes_a_blob_that_a_kept_manifest_refers_to(scene):
    world, _declaration, _offers, _moment = scene
    store, plan = planned(scene)
    goes = {parse_name(step.target).key for step in plan.changes if step.action == words.REMOVE}
    replaced = {parse_name(step.target).key for step in plan.pulls}
    kept = [model for key, model in store.models.items() if key not in goes | replaced]
    brought = {layer.digest for step in plan.pulls for layer in step.layers}
    used = store.referenced(kept) | brought
    gone = {path for step in plan.changes if not step.downloads for path in step.frees}
    assert not gone & {blob_path(digest) for digest in used}
    for step in plan.pulls:  # a bad blob makes room for a good one
        bad = {blob_path(layer.digest) for layer in step.layers if not world.intact(layer.digest)}
        assert set(step.frees) <= bad


@settings(deadline=None)
@given(scenes(), st.data())
def test_nothing_is_lost_at_any_moment(scene, data):
    """Undeclared and adopted models keep what they have, whichever sources fail half-way."""
    world, declaration, offers, _moment = scene
    labels = sorted({offer.source for found in offers.values() for offer in found})
    world.failing = (
        frozenset(data.draw(st.sets(st.sampled_from(labels)))) if labels else frozenset()
    )
    store, plan = planned(scene)
    goes = {parse_name(step.target).key for step in plan.changes if step.action == words.REMOVE}
    kept = {key: model for key, model in world.models.items() if key not in goes}
    replaced = {parse_name(step.target).key for step in plan.pulls}
    before = world.copy()
    for _moment in world.carry_out(plan, declaration, store, offers):
        for key, model in kept.items():
            if key in replaced:
                continue
            assert world.models[key] == model
            for layer in model.layers:
                digest = layer.digest
                assert world.intact(digest) or not before.intact(digest)
                had = digest in before.blobs or digest in before.aside
                assert not had or digest in world.blobs or digest in world.aside
        touched = {parse_name(step.target).key for step in plan.changes if step.names_model}
        settled = set(before.unreadable) - set(world.unreadable)
        assert {manifest_name(path[len("manifests/") :]).key for path in settled} <= touched
    for key, model in kept.items():  # a failed download leaves what was there
        if key in replaced:
            assert key in world.models
            assert world.models[key] != model or before.held_of(model) <= world.held_of(model)


@settings(deadline=None)
@given(scenes(taken=True), st.data())
def test_nobody_loses_a_model_that_was_not_asked_away(scene, data):
    """An undeclared one goes only while a declared one that is pulled by its name has all of it."""
    world, declaration, offers, _moment = scene
    labels = sorted({offer.source for found in offers.values() for offer in found})
    world.failing = (
        frozenset(data.draw(st.sets(st.sampled_from(labels)))) if labels else frozenset()
    )
    store, plan = planned(scene)
    asked = declaration.keys | declaration.forbidden_keys
    watched, unreadable = dict(world.models), list(world.unreadable)
    comes = [{layer.digest for layer in step.layers} for step in plan.pulls]
    whole = [blobs_of(store.models[key]) for key in declaration.keys & set(store.models)]
    for step in plan.changes:
        key = parse_name(step.target).key if step.action == words.REMOVE else ""
        if key and key not in asked:
            assert blobs_of(world.models[key]) in (*comes, *whole)
    for _moment in world.carry_out(plan, declaration, store, offers):
        for key in sorted(set(watched) - asked):
            now, was = world.models.get(key), blobs_of(watched[key])
            if now and blobs_of(now) == was:
                continue
            del watched[key]
            event("a leftover goes")
            keepers = [
                world.models.get(item.name.key)
                for item in declaration.wanted
                if item.source.key == key
            ]
            assert now is None
            assert was in [blobs_of(keeper) for keeper in keepers if keeper and world.whole(keeper)]
        for path in unreadable:
            assert path in world.unreadable or manifest_name(path[len("manifests/") :]).key in asked


def blobs_of(model):
    return {layer.digest for layer in model.layers}


@settings(deadline=None)
@given(scenes())
def test_planning_changes_nothing_and_says_the_same_twice(scene):
    world, declaration, offers, moment = scene
    store = world.look(declaration, offers)
    before = copy.deepcopy(store)
    plan = catalog.make_plan(declaration, store, offers, moment)
    assert catalog.make_plan(declaration, copy.deepcopy(store), offers, moment) == plan
    assert store == before
    for step in plan.changes:
        assert step.size >= 0
        assert step.freed >= 0


@settings(deadline=None)
@given(scenes(), st.integers(0, 40))
def test_what_a_cut_off_run_leaves_is_a_start_for_the_next(scene, cut):
    world, declaration, offers, _moment = scene
    store, plan = planned(scene)
    if stuck(world, plan):
        return
    world.run(plan, declaration, store, offers, cut)
    store, plan = planned(scene)
    if stuck(world, plan):
        return
    spared = spared_for_a_download(scene, plan)
    world.run(plan, declaration, store, offers)
    assert left_to_do(planned(scene)[1], spared) == []


@settings(deadline=None)
@given(scenes())
def test_the_worst_moment_is_foreseen(scene):
    world, declaration, offers, _moment = scene
    store, plan = planned(scene)
    if not stuck(world, plan):
        assert world.run(plan, declaration, store, offers) <= plan.space_needed


def stuck(world, plan):
    """Whether a pull runs into a damaged part that stays because somebody may be writing it."""
    pruned = {step.target for step in plan.changes}
    kept = {
        file.digest for file in world.partials.values() if file.damaged and file.path not in pruned
    }
    return any(layer.digest in kept for step in plan.pulls for layer in step.layers)
