# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What plans do with set-aside blobs, copies, orphans, and how much space they foresee."""

from __future__ import annotations

from dataclasses import replace

import pytest
from catalog_samples import (
    NOW,
    aside,
    blob,
    declare,
    hexa,
    incoming,
    lacking,
    make_store,
    offer,
    offered,
    partial,
    peer,
    plan_of,
    remote,
    short,
)

from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog as catalog
from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_plan as words
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import Offer
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import Moment
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name

NOTHING = lacking("it doesn't have it (404)")


def with_aside(models, blobs=None, **values):
    store = make_store(models, blobs, **values)
    store.aside = {hexa("a"): aside("a")}
    return store


def done(plan):
    return [(step.action, step.target) for step in plan.changes]


ASIDE = f".hx/aside/sha256-{hexa('a')}"
BAD = {parse_name("x").manifest: "it is empty"}
ASIDES = {
    "its repair goes on": (
        declare("one"),
        with_aside({"one": "ac"}, "c"),
        offered("one", offer("ac")),
        [("repull", "one:latest"), ("discard", ASIDE)],
    ),
    "nothing can repair it": (
        declare("one"),
        with_aside({"one": "ac"}, "c"),
        offered("one", NOTHING),
        [("restore", ASIDE)],
    ),
    "an undeclared model has it": (
        declare("one"),
        with_aside({"one": "c", "x": "as"}, "cs"),
        {},
        [("restore", ASIDE)],
    ),
    "another model's pull brings it": (
        declare("one"),
        with_aside({"x": "as"}, "s"),
        offered("one", offer("ac")),
        [("pull", "one:latest"), ("discard", ASIDE)],
    ),
    "the good one is in place": (
        declare("one"),
        with_aside({"one": "ac"}),
        {},
        [("discard", ASIDE)],
    ),
    "no model has it": (declare("one"), with_aside({"one": "c"}), {}, [("discard", ASIDE)]),
    "its model goes": (
        declare(forbidden=["one"]),
        with_aside({"one": "ac"}, "c"),
        {},
        [("remove", "one:latest"), ("discard", ASIDE)],
    ),
    "its model gets another version": (
        declare({"name": "one", "update": True}),
        with_aside({"one": "as"}, "s"),
        offered("one", offer("bs")),
        [("repull", "one:latest"), ("discard", ASIDE)],
    ),
    "nobody knows whose it is": (
        declare("one"),
        with_aside({"one": "c"}, corrupt=BAD),
        {},
        [],
    ),
}


@pytest.mark.parametrize("case", ASIDES, ids=str)
def test_blobs_that_were_set_aside(case):
    declaration, store, offers, expected = ASIDES[case]
    plan = plan_of(declaration, store, offers)
    assert done(plan) == expected
    assert len(words.sentences(plan.changes)) == len(expected)
    moved = [step for step in plan.steps if step.action == words.RESTORE]
    assert all(step.freed == 0 for step in moved)


def test_a_bad_blob_in_place_keeps_the_one_that_was_set_aside():
    store = with_aside({"one": "ac"})
    store.blobs[hexa("a")] = blob("a", 10)
    assert done(plan_of(declare("one"), store, offered("one", NOTHING))) == []
    plan = plan_of(declare("one"), store, offered("one", offer("ac")))
    assert done(plan) == [("repull", "one:latest"), ("discard", ASIDE)]
    assert plan.changes[1].after == (hexa("a"),)
    assert (plan.space_needed, plan.bytes_to_free) == (1000, 1010)


COPY = incoming("a")
COPIES = {
    "a copy goes on": ([COPY], [], [peer("ac")], 910, [], []),
    "a pull doesn't go on from a copy": (
        [COPY],
        [],
        [offer("ac")],
        1010,
        [("prune_partial", COPY.path)],
        [],
    ),
    "a copy doesn't go on from a pull": (
        [],
        [partial("a", "-0", completed=400)],
        [peer("ac")],
        1010,
        [("prune_partial", partial("a", "-0").path)],
        [],
    ),
    "a copy that nobody needs": (
        [incoming("b")],
        [],
        [NOTHING],
        0,
        [("prune_partial", incoming("b").path)],
        [],
    ),
    "a copy that changed a moment ago": (
        [replace(COPY, mtime=NOW - 5)],
        [],
        [offer("ac")],
        1010,
        [],
        [COPY.path],
    ),
    "a damaged part stops a registry that comes second": (
        [],
        [partial("a", "-0", damaged=True)],
        [peer("ac"), offer("ac")],
        1010,
        [("prune_partial", partial("a", "-0").path)],
        [],
    ),
}


@pytest.mark.parametrize("case", COPIES, ids=str)
def test_copies(case):
    copies, partials, offers, size, pruned, kept = COPIES[case]
    store = make_store({}, partials=partials)
    store.incoming = copies
    plan = plan_of(declare("one"), store, offered("one", *offers))
    assert plan.bytes_to_download == size
    assert [found for found in done(plan) if found[0] != words.PULL] == pruned
    assert [file.path for file in plan.kept_partials] == kept


def test_what_another_source_makes_useless_goes_when_the_blob_is_there():
    store = make_store({}, partials=[partial("a", "-0", completed=400)])
    plan = plan_of(declare("one"), store, offered("one", peer("ac")))
    assert [step.action for step in plan.changes] == [words.PULL, words.PRUNE_PARTIAL]
    assert plan.changes[1].after == (hexa("a"),)
    store.partials = [partial("a", "-0", damaged=True)]
    plan = plan_of(declare("one"), store, offered("one", peer("ac"), offer("ac")))
    assert [step.action for step in plan.changes] == [words.PRUNE_PARTIAL, words.PULL]
    assert plan.changes[0].after == ()


@pytest.mark.parametrize(
    ("offers", "pruned"),
    [
        ((NOTHING,), True),
        ((lacking("it can't be reached: timed out", reachable=False),), False),
        ((Offer("registry r", "registry"),), False),
        ((), False),
    ],
)
def test_downloads_wait_for_sources_that_give_no_answer(offers, pruned):
    """What has come of a large model isn't thrown away because its registry is down."""
    store = make_store({}, partials=[partial("a", "-0", completed=400)])
    store.incoming = [incoming("a")]
    plan = plan_of(declare("one"), store, offered("one", *offers))
    prunes = [step for step in plan.steps if step.action == words.PRUNE_PARTIAL]
    assert (len(prunes), len(plan.kept_partials)) == ((2, 0) if pruned else (0, 2))
    store.partials = [partial("a", "-0", damaged=True)]  # a pull would fail on it
    plan = plan_of(declare("one"), store, offered("one", *offers))
    assert plan.changes[0].target == store.partials[0].path


@pytest.mark.parametrize(
    ("age_s", "busy", "pruned"), [(7200, False, True), (60, False, False), (7200, True, False)]
)
def test_orphans_in_use_stay(age_s, busy, pruned):
    store = make_store({"one": "ac"}, "acb")
    store.blobs[hexa("b")] = replace(blob("b"), mtime=NOW - age_s, inode=(1, 7))
    moment = Moment(NOW, {(1, 7)} if busy else frozenset(), True)
    plan = plan_of(declare("one", prune_orphans=True), store, moment=moment)
    assert done(plan) == ([("prune_orphan", short("b"))] if pruned else [])
    assert [file.path for file in plan.orphans] == ([] if pruned else [short("b")])


@pytest.mark.parametrize(
    ("offers", "pruned"),
    [
        ((NOTHING,), True),
        ((lacking("it can't be reached: timed out", reachable=False),), False),
        ((Offer("registry r", "registry"),), False),
    ],
)
def test_orphans_wait_for_sources_that_give_no_answer(offers, pruned):
    """They may be the finished blobs of a model that is wanted."""
    plan = plan_of(declare("one", prune_orphans=True), make_store({}, "b"), offered("one", *offers))
    prunes = [step.target for step in plan.steps if step.action == words.PRUNE_ORPHAN]
    assert prunes == ([short("b")] if pruned else [])
    assert [file.path for file in plan.orphans] == ([] if pruned else [short("b")])


SILENT = lacking("it can't be reached: timed out", reachable=False)


@pytest.mark.parametrize(
    ("brought", "pruned"), [("as", True), ("ac", True), ("bs", False), ("s", False)]
)
def test_a_model_that_anothers_download_makes_whole_wants_nothing_of_a_silent_source(
    brought, pruned
):
    """What is left over goes in the same run then, and after what had to come."""
    store = make_store({"one": "ac"}, "cn", partials=[partial("t", "-0")])
    offers = {**offered("one", SILENT), **remote("two", brought)}
    plan = plan_of(declare("one", "two", prune_orphans=True), store, offers)
    assert [step.target for step in plan.unavailable] == ([] if pruned else ["one:latest"])
    left = [step for step in plan.changes if not step.downloads]
    gone = [(step.action, step.target) for step in left]
    partials, orphan = ("prune_partial", store.partials[0].path), ("prune_orphan", short("n"))
    assert gone == ([partials, orphan] if pruned else [])
    assert all(step.after == (hexa("a"),) for step in left)
    assert plan.steps[len(plan.steps) - len(left) :] == left


def test_a_model_of_another_version_than_its_pin_stays_in_want_of_its_source():
    store = make_store({"one": "ac"}, "cn")
    offers = {**offered("one", SILENT), **remote("two", "as")}
    declared = declare({"name": "one", "digest": hexa("else")}, "two", prune_orphans=True)
    plan = plan_of(declared, store, offers)
    assert [step.action for step in plan.changes] == [words.PULL]


@pytest.mark.parametrize(("inode", "pruned"), [((1, 1), False), ((1, 2), True)])
def test_orphans_stay_while_somebody_downloads(inode, pruned):
    store = make_store({"one": "ac"}, "acb", partials=[partial("n", "-0")])
    moment = Moment(NOW, {inode}, True)
    plan = plan_of(declare("one", prune_orphans=True, prune_partials=False), store, moment=moment)
    assert done(plan) == ([("prune_orphan", short("b"))] if pruned else [])


def test_orphans_stay_while_an_unreadable_manifest_cannot_be_repaired():
    path = parse_name("one").manifest
    store = make_store({"two": "ac"}, "acb", corrupt={path: "it is empty"})
    declaration = declare("one", prune_orphans=True)
    plan = plan_of(declaration, store, offered("one", NOTHING))
    assert done(plan) == []
    assert [step.target for step in plan.unavailable] == ["one:latest"]


def test_a_manifest_whose_path_differs_in_case_keeps_its_blobs():
    store = make_store({"one": "ac"}, "acb")
    twin = make_store({"ONE": "bc"}).models[parse_name("one").key]
    store.twins = [twin]
    assert done(plan_of(declare("one", prune_orphans=True), store)) == []
    forbidden = plan_of(declare(forbidden=["one"]), store)
    assert [step.frees for step in forbidden.changes] == [tuple(sorted(map(short, "abc")))]


def test_kept_versions_are_told():
    store = make_store({"one": "ac", "ONE:latest-HX-previous": "bc", "y:1-hx-previous": "s"})
    plan = plan_of(declare("one"), store)
    assert [str(model.name) for model in plan.kept_versions] == ["ONE:latest-HX-previous"]
    assert [str(model.name) for model in plan.undeclared] == ["y:1-hx-previous"]


def test_removals_free_a_shared_blob_once():
    store = make_store({"one": "as", "two": "bs", "three": "ns"})
    plan = plan_of(declare(forbidden=["one", "two", "three"]), store)
    assert [step.freed for step in plan.changes] == [1000, 3000, 2500]


def test_a_removal_after_a_download_frees_what_that_one_replaced():
    store = make_store({"one": "bs", "two": "bc"})
    declaration = declare({"name": "one", "update": True}, forbidden=["two"])
    early, _update = plan_of(declaration, store, remote("one", "as")).changes
    assert (early.action, early.freed) == (words.REMOVE, 10)
    store = make_store({"one": "bs", "two": "bc"})
    update, late = plan_of(declaration, store, remote("one", "ac")).changes
    assert (update.action, late.frees, late.freed) == (words.UPDATE, (short("b"),), 2000)


@pytest.mark.parametrize(("parallel", "needed"), [(1, 2000 + 3000 - 900), (2, 2000 + 3000)])
def test_bad_blobs_count_until_the_good_ones_are_there(parallel, needed):
    store = make_store({"one": "b", "two": "n"})
    store.blobs = {hexa("b"): blob("b", 900), hexa("n"): blob("n", 100)}
    offers = {**remote("one", "b"), **remote("two", "n")}
    plan = plan_of(declare("one", "two", parallel=parallel), store, offers)
    assert plan.space_needed == needed
    catalog.check_space(plan, 10, needed + 10, "/store")
    with pytest.raises(HostError, match="are missing"):
        catalog.check_space(plan, 10, needed + 9, "/store")


def test_space_of_late_steps_comes_too_late():
    store = make_store({"two": "bs"})
    plan = plan_of(declare("one", forbidden=["two"], parallel=2), store, remote("one", "ns"))
    assert [step.action for step in plan.changes] == [words.PULL, words.REMOVE]
    assert plan.space_needed == 3000
