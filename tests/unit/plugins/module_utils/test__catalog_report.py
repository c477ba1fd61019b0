# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run of the catalog reports."""

from __future__ import annotations

from dataclasses import replace

from catalog_samples import (
    aside,
    blob,
    declare,
    hexa,
    incoming,
    lacking,
    make_store,
    offered,
    partial,
    plan_of,
    remote,
)

from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_report as report
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_bytes import new_bytes


def test_freed_and_downloaded():
    before = make_store(
        {"one": "ac"},
        "acd",
        [partial("x", size=4000), partial("b", "-0", completed=300, inode=(1, 7))],
    )
    before.blobs[hexa("a")] = blob("a", 10)
    after = make_store({"one": "ac"}, "acb")
    after.blobs[hexa("b")] = replace(blob("b"), inode=(1, 7))  # the download became the blob
    assert report.freed(before, after) == {
        "reclaimed_bytes": 20 + 10 + 100,
        "reclaimed_apparent_bytes": 20 + 10 + 4000,
        "reclaimed_files": 3,
    }
    assert report.downloaded(before, after) == 1000 + 2000 - 300


def test_a_pull_beside_an_unfinished_copy_downloads_everything():
    before, after = make_store({}), make_store({"one": "a"})
    before.incoming = [incoming("a", inode=(1, 7))]
    layers = after.models["registry.ollama.ai/library/one:latest"].layers
    for inode, came in (((1, 8), 1000), ((1, 7), 900)):  # only a copy becomes the blob itself
        after.blobs[hexa("a")] = replace(blob("a"), inode=inode)
        assert report.downloaded(before, after) == came
        assert new_bytes(before, after, layers) == came


def test_a_download_makes_other_models_whole_too():
    store = make_store({"x": "ac", "y": "as"}, "c")
    declaration = declare("one")
    plan = plan_of(declaration, store, remote("one", "ac"))
    found = report.predicted(plan, store, declaration)
    assert {entry["name"]: entry["complete"] for entry in found} == {
        "one:latest": True,
        "x:latest": True,
        "y:latest": False,
    }


def test_what_a_plan_frees_is_what_is_freed():
    before = make_store({"one": "ac", "bad": "bs"}, "acbsd", [partial("x", size=4000)])
    declaration = declare("one", forbidden=["bad"], prune_orphans=True)
    planned = report.to_be_freed(plan_of(declaration, before), before)
    assert planned == report.freed(before, make_store({"one": "ac"}, "ac"))
    assert planned["reclaimed_files"] == 4


def test_the_environment_file_takes_what_it_is_given():
    store = make_store({"two": "ac", "one": "b"})
    assert report.environment(report.entries(store, declare("two"))) == [
        {"name": "two:latest", "digest": hexa("two"), "size_bytes": 1010},
        {"name": "one:latest", "digest": hexa("one"), "size_bytes": 2000},
    ]


def test_the_environment_file_doesnt_name_versions_that_are_kept_for_going_back():
    store = make_store({"two": "ac", "one": "b"})
    entries = report.entries(store, declare("two"))
    kept = [model for model in store.models.values() if model.name.model == "one"]
    assert [entry["name"] for entry in report.environment(entries, kept)] == ["two:latest"]


def test_the_diff_compares_well():
    store = make_store({"two": "ac", "one": "b"}, "ac", [partial("x")])
    text = report.diff_text(report.entries(store, declare("two")), store.partials)
    assert text == (
        f"one:latest {hexa('one')[:12]} 2.0KB incomplete\n"
        f"two:latest {hexa('two')[:12]} 1.0KB\n"
        "1 files of partial downloads, 100B\n"
    )


def test_a_blob_that_was_put_back_is_neither_freed_nor_downloaded():
    before = make_store({"one": "ac"}, "c")
    before.aside[hexa("a")] = replace(aside("a"), inode=(1, 7))
    after = make_store({"one": "ac"}, "c")
    after.blobs[hexa("a")] = replace(blob("a"), inode=(1, 7))
    assert report.freed(before, after)["reclaimed_files"] == 0
    assert report.downloaded(before, after) == 0
    planned = report.to_be_freed(plan_of(declare("x"), before), before)
    assert planned["reclaimed_files"] == 0


def test_a_bad_blob_that_was_replaced_is_freed_and_downloaded():
    before = make_store({"one": "ac"}, "ac")
    before.blobs[hexa("a")] = replace(blob("a"), flaw="wrong", inode=(1, 7))
    after = make_store({"one": "ac"}, "ac")
    after.blobs[hexa("a")] = replace(blob("a"), inode=(1, 8))
    assert report.freed(before, after)["reclaimed_bytes"] == 1000
    assert report.downloaded(before, after) == 1000


def test_a_set_aside_blob_that_goes_though_its_good_one_is_new():
    before = make_store({"one": "ac"}, "c", [], None)
    before.aside[hexa("a")] = replace(aside("a"), inode=(1, 7))
    before.incoming = [incoming("b"), incoming("d")]
    after = make_store({"one": "ac"}, "ac")
    after.blobs[hexa("a")] = replace(blob("a"), inode=(1, 8))
    assert report.freed(before, after)["reclaimed_files"] == 3


def test_what_a_plan_says_about_itself():
    declaration = declare("one", "two", {"name": "three", "update": True}, parallel=2)
    store = make_store({"one": "ac", "three": "b", "one:latest-hx-previous": "d"}, "cbd")
    store.aside[hexa("a")] = aside("a")
    store.aside[hexa("n")] = aside("n")
    offers = {
        **remote("one", "ac"),
        **offered("two", lacking("it doesn't have it (404)")),
        **offered("three", lacking("it can't be reached", reachable=False)),
    }
    plan = plan_of(declaration, store, offers)
    found = report.planned(
        plan,
        store,
        report.entries(store, declaration),
        report.predicted(plan, store, declaration),
    )
    assert found["changed"]
    assert found["kept_versions"] == ["one:latest-hx-previous"]
    assert found["unasked"] == ["three:latest"]
    assert found["unavailable"] == [
        {
            "name": "two:latest",
            "reason": "it is not there, and no source can give it: registry r: it doesn't have it "
            "(404)",
        }
    ]
    assert found["aside"] == []
    assert [entry["complete"] for entry in found["catalog"]["before"]] == [False, True, True]
    assert [entry["complete"] for entry in found["catalog"]["after"]] == [True, True, True]
    assert found["diff"]["before"].endswith(
        f".hx/aside/sha256-{hexa('a')}, 1.0KB\n.hx/aside/sha256-{hexa('n')}, 3.0KB\n"
    )
    assert ".hx/aside" not in found["diff"]["after"]


def test_a_manifest_that_nobody_saw_has_no_size():
    declaration = declare("one")
    store = make_store({})
    offers = offered("one", lacking(""))
    plan = plan_of(declaration, store, offers)
    [entry] = report.predicted(plan, store, declaration)
    assert (entry["size_bytes"], entry["digest"]) == (None, "")
    assert report.diff_text([entry], []) == "one:latest  ?\n"
