# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which sources are used for a declared model, and what happens when none is."""

from __future__ import annotations

import pytest
from catalog_samples import declare, hexa, lacking, make_store, offer, offered, peer, plan_of

from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_plan as words
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_offer import Offer
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._registry import Remote

LOGIN = Offer("registry r", "registry")
GONE = lacking("it can't be reached: timed out", reachable=False)
NO_MODEL = "it doesn't have it (404)"
THIRD = "peer llm-03"

USED = {
    "in the declared order": (
        "",
        [peer("ac"), offer("ac")],
        ["peer llm-02", "registry r"],
    ),
    "a registry says which version a tag is": (
        "",
        [peer("ac", "old"), offer("bc"), peer("bc", source=THIRD)],
        ["registry r", THIRD],
    ),
    "without a registry the first that has the model does": (
        "",
        [
            lacking(NO_MODEL, "peer", "peer llm-01"),
            peer("ac"),
            peer("bc", "x", THIRD),
        ],
        ["peer llm-02"],
    ),
    "so it does when the registry gives no answer": (
        "",
        [GONE, peer("ac"), peer("ac", source=THIRD)],
        ["peer llm-02", THIRD],
    ),
    "so it does when the registry has no such model": (
        "",
        [lacking(NO_MODEL), peer("ac")],
        ["peer llm-02"],
    ),
    "a registry behind a login is tried": ("", [LOGIN, peer("ac")], ["registry r", "peer llm-02"]),
    "the pin says which version": (
        hexa("old"),
        [offer("bc"), peer("ac", "old"), peer("bc", source=THIRD)],
        ["peer llm-02"],
    ),
    "a registry behind a login may meet the pin": (
        hexa("old"),
        [peer("bc"), LOGIN, peer("ac", "old", THIRD)],
        ["registry r", THIRD],
    ),
}


@pytest.mark.parametrize("case", USED, ids=str)
def test_used_sources(case):
    pin, offers, used = USED[case]
    declaration = declare({"name": "one", "digest": pin[:12]})
    [step] = plan_of(declaration, make_store({}), offered("one", *offers)).changes
    assert step.action == words.PULL
    assert list(step.sources) == used
    assert step.as_dict()["sources"] == used


def test_a_copied_manifest_stays_as_it_is():
    """An old engine writes what it pulls anew; a peer gives what it has."""
    remote = Remote("http://r", (hexa("as served"), hexa("written anew")), ())
    anew = declare({"name": "one", "digest": hexa("written anew")})
    from_registry = offered("one", Offer("registry r", "registry", remote))
    [step] = plan_of(anew, make_store({}), from_registry).steps
    assert (step.action, step.digest) == (words.PULL, hexa("written anew"))
    from_peer = offered("one", Offer("peer llm-02", "peer", remote))
    [step] = plan_of(anew, make_store({}), from_peer).steps
    assert step.action == words.UNAVAILABLE


def test_a_peer_with_an_older_engine_has_the_same_version():
    truth = Remote("http://r", (hexa("as served"), hexa("written anew")), ())
    offers = offered(
        "one",
        Offer("registry r", "registry", truth),
        Offer("peer llm-02", "peer", Remote("http://p", (hexa("written anew"),), ())),
    )
    [step] = plan_of(declare("one"), make_store({}), offers).changes
    assert step.sources == ("registry r", "peer llm-02")


def test_a_pin_that_no_source_meets_leaves_the_model():
    declaration = declare({"name": "one", "digest": "0" * 12}, "two", prune_orphans=True)
    store = make_store({"one": "ac"})
    offers = {
        **offered("one", offer("bc"), lacking(NO_MODEL, "peer", "peer llm-02")),
        **offered("two", offer("bs")),
    }
    plan = plan_of(declaration, store, offers)
    [left] = plan.unavailable
    assert (left.target, left.digest, left.frees, left.sources) == (
        "one:latest",
        hexa("one"),
        (),
        (),
    )
    assert left.reason == (
        f"its digest is {hexa('one')[:12]}, wanted 000000000000, and no source can give it: "
        f"registry r has {hexa('remote')[:12]}, wanted 000000000000; "
        "peer llm-02: it doesn't have it (404)"
    )
    assert [step.action for step in plan.changes] == [words.PULL]
    assert words.sentences([left]) == [f"Leave one:latest as it is: {left.reason}"]


@pytest.mark.parametrize(
    ("offers", "why"),
    [
        ((), "none was asked"),
        ((GONE,), "registry r: it can't be reached: timed out"),
    ],
)
def test_a_model_that_no_source_has(offers, why):
    plan = plan_of(declare("one"), make_store({}), offered("one", *offers))
    [step] = plan.unavailable
    assert step.reason == f"it is not there, and no source can give it: {why}"
    assert plan.changes == []
    assert plan.space_needed == 0


FOLLOWED = {
    "the registry has another version": ([offer("bc")], words.UPDATE, False),
    "the registry has the same": ([offer("ca")], words.ADOPT, False),
    "the registry has the same, a peer another": ([peer("bc"), offer("ac")], words.ADOPT, False),
    "the registry gives no answer, a peer has another": ([GONE, peer("bc")], words.ADOPT, True),
    "the registry lost it": ([lacking(NO_MODEL)], words.ADOPT, True),
    "the registry wants a login": ([LOGIN], words.ADOPT, True),
    "no registry, and a peer has another version": ([peer("bc")], words.UPDATE, False),
    "no source at all": ([], words.ADOPT, True),
}


@pytest.mark.parametrize("case", FOLLOWED, ids=str)
def test_a_tag_is_followed(case):
    offers, action, unasked = FOLLOWED[case]
    declaration = declare({"name": "one", "update": True})
    plan = plan_of(declaration, make_store({"one": "ac"}), offered("one", *offers))
    [step] = plan.steps
    assert step.action == action
    assert plan.unasked == (["one:latest"] if unasked else [])
    assert ("whether its tag moved isn't known" in step.reason) == unasked
    assert plan.unavailable == []


def test_a_whole_model_needs_no_source():
    plan = plan_of(declare("one"), make_store({"one": "ac"}), offered("one", GONE))
    assert [(step.action, step.reason) for step in plan.steps] == [("adopt", "as declared")]
    assert plan.unasked == []


def test_a_download_knows_what_it_leads_to():
    store = make_store({"one": "ac"}, "c")
    [step] = plan_of(declare("one"), store, offered("one", offer("bc"))).changes
    assert [layer.digest for layer in step.layers] == [hexa("b"), hexa("c")]
    assert (step.model_size, step.size, step.files) == (2010, 2000, 1)
    [step] = plan_of(declare("one"), store, offered("one", LOGIN)).changes
    assert (step.model_size, step.digest) == (None, "")
    assert [layer.digest for layer in step.layers] == [hexa("a"), hexa("c")]


def test_names_differ_in_case_only():
    store = make_store({"One": "ac"})
    plan = plan_of(declare("oNE"), store, {parse_name("one").key: (offer("bc"),)})
    assert [step.action for step in plan.steps] == [words.ADOPT]
