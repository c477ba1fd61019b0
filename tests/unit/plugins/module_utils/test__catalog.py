# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The planner: declared and observed models become a plan."""

from __future__ import annotations

from dataclasses import replace

import pytest
from catalog_samples import (
    MOMENT,
    NOW,
    blob,
    declare,
    hexa,
    lacking,
    make_store,
    offered,
    partial,
    plan_of,
    remote,
    short,
    steps,
)
from catalog_world import world_of

from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog as catalog
from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_plan as words
from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_report as report
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import Offer
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name

LOGIN = Offer("registry r", "registry")

CASES = {
    "nothing to do": (declare("one"), make_store({"one": "ac"}), {}, []),
    "a missing model": (
        declare("one", "two"),
        make_store({"one": "as"}),
        remote("two", "bs"),
        [("pull", "two:latest", 2000)],
    ),
    "a blob that two pulls share is downloaded once": (
        declare("one", "two"),
        make_store({}),
        {**remote("one", "as"), **remote("two", "bs")},
        [("pull", "one:latest", 1500), ("pull", "two:latest", 2000)],
    ),
    "a pin that isn't met": (
        declare({"name": "one", "digest": hexa("remote one")[:12]}),
        make_store({"one": "ac"}),
        remote("one", "bc"),
        [("repull", "one:latest", 2000)],
    ),
    "a pin that is met": (
        declare({"name": "one", "digest": hexa("one")[:12]}),
        make_store({"one": "ac"}),
        {},
        [],
    ),
    "a missing blob": (
        declare("one"),
        make_store({"one": "ac"}, blobs="c"),
        remote("one", "ac"),
        [("repull", "one:latest", 1000)],
    ),
    "a manifest that can't be read": (
        declare("one"),
        make_store({}, blobs="ac", corrupt={parse_name("one").manifest: "it is empty"}),
        remote("one", "ac"),
        [("repair", "one:latest", 0)],
    ),
    "a tag that moved": (
        declare({"name": "one", "update": True}),
        make_store({"one": "ac"}),
        remote("one", "bc"),
        [("update", "one:latest", 2000)],
    ),
    "a tag that did not move": (
        declare({"name": "one", "update": True}),
        make_store({"one": "ac"}),
        remote("one", "ac"),
        [],
    ),
    "a forbidden model that shares a blob": (
        declare("one", forbidden=["TWO"]),
        make_store({"one": "as", "two": "bs"}),
        {},
        [("remove", "two:latest", 2000)],
    ),
    "two forbidden models that share a blob": (
        declare(forbidden=["one", "two"]),
        make_store({"one": "as", "two": "bs"}),
        {},
        [("remove", "one:latest", 1000), ("remove", "two:latest", 2500)],
    ),
    "a forbidden model whose manifest can't be read": (
        declare(forbidden=["one"]),
        make_store({}, corrupt={parse_name("one").manifest: "it is empty"}),
        {},
        [("remove", "one:latest", 0)],
    ),
    "an undeclared model is kept": (declare("one"), make_store({"one": "ac", "x": "b"}), {}, []),
    "an undeclared model goes when exclusive": (
        declare("one", exclusive=True),
        make_store({"one": "ac", "x": "b"}),
        {},
        [("remove", "x:latest", 2000)],
    ),
    "what an interrupted pull left": (
        declare({"name": "one", "source": "r:5000/library/one"}),
        make_store({"one": "ac", "r:5000/library/one": "ac"}),
        {},
        [("remove", "r:5000/library/one:latest", 0)],
    ),
    "a removal waits for a pull that needs its blobs": (
        declare("one", forbidden=["two"]),
        make_store({"two": "bs"}),
        remote("one", "as"),
        [("pull", "one:latest", 1000), ("remove", "two:latest", 2000)],
    ),
    "orphans are only reported": (declare("one"), make_store({"one": "ac"}, "acb"), {}, []),
    "orphans go on request": (
        declare("one", prune_orphans=True),
        make_store({"one": "ac"}, "acb"),
        {},
        [("prune_orphan", short("b"), 2000)],
    ),
    "no orphans while a manifest can't be read": (
        declare("one", prune_orphans=True),
        make_store({"one": "ac"}, "acb", corrupt={parse_name("x").manifest: "it is empty"}),
        {},
        [],
    ),
    "a replaced blob goes after its replacement came": (
        declare({"name": "one", "update": True}, prune_orphans=True),
        make_store({"one": "ac"}),
        remote("one", "bc"),
        [("update", "one:latest", 2000), ("prune_orphan", short("a"), 1000)],
    ),
    "a registry that asks for a login": (
        declare("one"),
        make_store({}),
        offered("one", LOGIN),
        [("pull", "one:latest", 0)],
    ),
    "what an interrupted pull left of a model that can't be had": (
        declare({"name": "one", "source": "r:5000/library/one"}),
        make_store({"r:5000/library/one": "ac"}),
        offered("one", lacking("it can't be reached: timed out", reachable=False)),
        [],
    ),
    "the version before an update is kept": (
        declare("one", exclusive=True, prune_orphans=True),
        make_store({"one": "ac", "one:latest-hx-previous": "bc"}),
        {},
        [],
    ),
    "the version before an update goes when it is forbidden": (
        declare("one", forbidden=["one:latest-hx-previous"]),
        make_store({"one": "ac", "one:latest-hx-previous": "bc"}),
        {},
        [("remove", "one:latest-hx-previous", 2000)],
    ),
    "an earlier version of a model that isn't declared": (
        declare("one", exclusive=True),
        make_store({"one": "ac", "two:latest-hx-previous": "bc"}),
        {},
        [("remove", "two:latest-hx-previous", 2000)],
    ),
    "orphans wait for a repair that may need them": (
        declare("one", prune_orphans=True),
        make_store({}, blobs="acb", corrupt={parse_name("one").manifest: "it is empty"}),
        remote("one", "ac"),
        [("repair", "one:latest", 0), ("prune_orphan", short("b"), 2000)],
    ),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_plans(case):
    declaration, store, remotes, expected = CASES[case]
    plan = plan_of(declaration, store, remotes)
    assert steps(plan) == expected
    still = {words.ADOPT, words.UNAVAILABLE}
    left = [step.target for step in plan.steps if step.action in still or step.downloads]
    assert left == [str(item.name) for item in declaration.wanted]
    assert len(words.sentences(plan.changes)) == len(expected)


def test_what_is_kept_is_reported():
    plan = plan_of(declare("one"), make_store({"one": "ac", "x": "b"}, "acbd"))
    assert [str(model.name) for model in plan.undeclared] == ["x:latest"]
    assert [file.path for file in plan.orphans] == [short("d")]


def test_a_blob_of_wrong_size_is_replaced():
    store = make_store({"one": "ac"})
    store.blobs[hexa("a")] = blob("a", 10)
    plan = plan_of(declare("one"), store, remote("one", "ac"))
    [step] = plan.changes
    assert (step.size, step.frees, step.freed) == (1000, (short("a"),), 10)
    assert plan.space_needed == 1000  # the bad one is set aside until the good one is there
    assert step.reason == f"blob sha256-{hexa('a')[:12]} is 10B long, wanted 1.0KB"


def test_a_leftover_blob_of_wrong_size_is_replaced():
    """The engine would take it for the whole blob."""
    store = make_store({}, "a")
    store.blobs[hexa("a")] = blob("a", 10)
    [step] = plan_of(declare("one"), store, remote("one", "ac")).changes
    assert step.frees == (short("a"),)


def test_blobs_in_place_are_hashed_before_a_pull_takes_them():
    store = make_store({"one": "ac", "whole": "bs"}, "acbs")
    store.blobs.pop(hexa("c"))
    remotes = remote("one", "asc")
    declaration = declare("one", "whole")
    assert catalog.to_hash(declaration, store, remotes) == sorted([hexa("a"), hexa("s")])
    assert catalog.to_hash(declaration, store, {}) == []
    store.blobs[hexa("a")] = replace(store.blobs[hexa("a")], flaw="its content is another")
    [step] = plan_of(declaration, store, remotes).changes
    assert (step.size, step.frees) == (1010, (short("a"),))


def test_a_corrupt_blob_is_named_with_its_flaw():
    store = make_store({"one": "ac"})
    store.blobs[hexa("a")] = replace(blob("a"), flaw="it can't be read: Input/output error")
    [step] = plan_of(declare("one"), store, remote("one", "ac")).changes
    assert (step.action, step.size) == ("repull", 1000)
    assert step.reason.endswith("is corrupt (it can't be read: Input/output error)")


PARTIALS = {
    "a download that nobody finishes": ([partial("x"), partial("x", "-0")], MOMENT, 2, 0),
    "one that changed a moment ago": ([partial("x", mtime=NOW - 60)], MOMENT, 0, 1),
    "its parts are as young as its data": (
        [partial("x", mtime=NOW - 60), partial("x", "-0")],
        MOMENT,
        0,
        2,
    ),
    "one that the engine has open": ([partial("x")], catalog.Moment(NOW, {(1, 1)}, True), 0, 1),
    "one from the future": ([partial("x", mtime=NOW + 60)], MOMENT, 0, 1),
    "nobody can tell what is open": ([partial("x")], catalog.Moment(NOW), 1, 0),
    "one that a pull resumes": ([partial("a"), partial("a", "-0", completed=400)], MOMENT, 0, 0),
    "one that a pull would fail on": (
        [partial("a", mtime=NOW - 5), partial("a", "-0", mtime=NOW - 5, damaged=True)],
        MOMENT,
        2,
        0,
    ),
    "one that a pull would fail on, but it may be going on": (
        [partial("a", mtime=NOW - 5), partial("a", "-0", mtime=NOW - 5, damaged=True)],
        catalog.Moment(NOW),
        0,
        2,
    ),
}


@pytest.mark.parametrize("case", PARTIALS, ids=str)
def test_partials(case):
    partials, moment, pruned, kept = PARTIALS[case]
    store = make_store({}, partials=partials)
    plan = plan_of(declare("one"), store, remote("one", "ac"), moment)
    prunes = [step for step in plan.steps if step.action == words.PRUNE_PARTIAL]
    assert (len(prunes), len(plan.kept_partials)) == (pruned, kept)
    assert plan.bytes_to_free == 100 * pruned


def test_a_resumed_download_is_smaller():
    store = make_store({}, partials=[partial("a"), partial("a", "-0", completed=400)])
    assert plan_of(declare("one"), store, remote("one", "ac")).bytes_to_download == 610


def test_partials_can_be_left_alone():
    store = make_store({}, partials=[partial("x")])
    plan = plan_of(declare(prune_partials=False), store)
    assert not plan.changes
    assert len(plan.kept_partials) == 1


@pytest.mark.parametrize(("free", "refused"), [(3510, False), (3509, True)])
def test_the_reserve(free, refused):
    store = make_store({"x": "b"}, "bd")
    declaration = declare("one", forbidden=["x"], prune_orphans=True, reserve_bytes=2520)
    plan = plan_of(declaration, store, remote("one", "nc"))
    assert (plan.bytes_to_download, plan.bytes_to_free, plan.space_needed) == (3010, 2020, 990)
    if not refused:
        catalog.check_space(plan, 2520, free, "/store")
        return
    with pytest.raises(HostError, match=r"need 990B on the disk of /store, where 3\.5KB are free"):
        catalog.check_space(plan, 2520, free, "/store")


def test_a_full_disk_is_no_problem_without_pulls():
    catalog.check_space(plan_of(declare("one"), make_store({"one": "a"})), 10**12, 0, "/store")


def test_registries_are_asked_only_when_needed():
    store = make_store({"one": "ac", "two": "b", "pinned": "b"})
    declaration = declare(
        "one",
        "three",
        {"name": "two", "update": True},
        {"name": "pinned", "update": True, "digest": hexa("pinned")},
    )
    assert [str(item.name) for item in catalog.to_look_up(declaration, store)] == [
        "three:latest",
        "two:latest",
    ]


@pytest.mark.parametrize(
    ("entry", "options", "source", "insecure"),
    [
        ({"name": "x"}, {}, "x:latest", False),
        ({"name": "x"}, {"registry": "r:5000"}, "r:5000/library/x:latest", False),
        (
            {"name": "x"},
            {"registry": "r:5", "registry_insecure": True},
            "r:5/library/x:latest",
            True,
        ),
        ({"name": "h/n/x"}, {"registry": "r:5", "registry_insecure": True}, "h/n/x:latest", False),
        ({"name": "x", "source": "q/l/y:1", "insecure": True}, {"registry": "r"}, "q/l/y:1", True),
    ],
)
def test_sources(entry, options, source, insecure):
    [item] = declare(entry, **options).wanted
    assert (str(item.source), item.insecure) == (source, insecure)


@pytest.mark.parametrize(
    ("models", "options", "text"),
    [
        (["phi3", "phi3:latest"], {}, "phi3:latest is declared more than once"),
        (["phi3"], {"forbidden": ["phi3:latest"]}, "phi3:latest is both declared and forbidden"),
        ([{"name": "x", "digest": "abc"}], {}, "'abc' is no digest"),
        (["a b"], {}, "'a b' is no model name"),
    ],
)
def test_refused_declarations(models, options, text):
    with pytest.raises(HostError, match=text):
        declare(*models, **options)


KNOWN = [case for case, parts in CASES.items() if (LOGIN,) not in parts[2].values()]


@pytest.mark.parametrize("case", KNOWN, ids=str)
def test_a_carried_out_plan_leads_where_it_says(case):
    declaration, store, remotes, _expected = CASES[case]
    plan = plan_of(declaration, store, remotes)
    world = world_of(store)
    world.run(plan, declaration, store, remotes)
    after = world.look(declaration, remotes)
    assert steps(plan_of(declaration, after, remotes)) == []
    entries = report.predicted(plan, store, declaration)
    shown = [{**entry, "digest": ""} for entry in entries]
    assert shown == [{**entry, "digest": ""} for entry in report.entries(after, declaration)]
