# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run of the catalog reports."""

from __future__ import annotations

from catalog_samples import blob, declare, hexa, make_store, partial, plan_of

from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_report as report


def test_verdicts_name_what_is_wrong():
    declaration = declare("one", {"name": "two", "digest": "0" * 12}, "three", forbidden=["bad"])
    store = make_store({"one": "ac", "two": "b", "bad": "d", "more": "n"}, "bcd", [partial("x")])
    store.stray.append("manifests/x")
    plan = plan_of(declare(prune_partials=False), store)
    found = report.verdicts(
        declaration, report.entries(store, declaration), plan, store, evidence="test"
    )
    assert [(entry["check"], entry["subject"], entry["status"]) for entry in found] == [
        ("catalog_exact", "models", "FAIL"),
        ("model_whole", "one:latest", "FAIL"),
        ("model_whole", "two:latest", "PASS"),
        ("model_pin", "two:latest", "FAIL"),
        ("model_whole", "three:latest", "FAIL"),
        ("model_whole", "more:latest", "WARN"),
        ("store_partials", "store", "WARN"),
        ("store_orphans", "store", "PASS"),
        ("store_foreign_files", "store", "PASS"),
        ("store_manifests", "store", "WARN"),
    ]


def test_freed_and_downloaded():
    before = make_store(
        {"one": "ac"}, "acd", [partial("x", size=4000), partial("b", "-0", completed=300)]
    )
    before.blobs[hexa("a")] = blob("a", 10)
    after = make_store({"one": "ac"}, "acb")
    assert report.freed(before, after) == {
        "reclaimed_bytes": 20 + 10 + 100,
        "reclaimed_apparent_bytes": 20 + 10 + 4000,
        "reclaimed_files": 3,
    }
    assert report.downloaded(before, after) == 1000 + 2000 - 300


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


def test_the_diff_compares_well():
    store = make_store({"two": "ac", "one": "b"}, "ac", [partial("x")])
    text = report.diff_text(report.entries(store, declare("two")), store.partials)
    assert text == (
        f"one:latest {hexa('one')[:12]} 2.0KB incomplete\n"
        f"two:latest {hexa('two')[:12]} 1.0KB\n"
        "1 files of partial downloads, 100B\n"
    )
