# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verdicts of a run of the catalog."""

from __future__ import annotations

from dataclasses import replace

from catalog_samples import aside, blob, declare, hexa, make_store, partial, plan_of

from ansible_collections.hx_infra.llm.plugins.module_utils import _catalog_report as report
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_bring import Outcome
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_verdicts import verdicts


def judged(declaration, store, plan=None, outcomes=(), **options):
    entries = report.entries(store, declaration)
    plan = plan or plan_of(declaration, store)
    return verdicts(declaration, entries, plan, store, outcomes, evidence="test", **options)


def test_verdicts_name_what_is_wrong():
    declaration = declare("one", {"name": "two", "digest": "0" * 12}, "three", forbidden=["bad"])
    store = make_store({"one": "ac", "two": "b", "bad": "d", "more": "n"}, "bcd", [partial("x")])
    store.stray.append("manifests/x")
    plan = plan_of(declare(prune_partials=False), store)
    store.aside[hexa("q")] = replace(aside("a"), path=".hx/aside/x")
    found = judged(declaration, store, plan)
    assert [(entry["check"], entry["subject"], entry["status"]) for entry in found] == [
        ("catalog_exact", "models", "FAIL"),
        ("model_whole", "one:latest", "FAIL"),
        ("model_whole", "two:latest", "PASS"),
        ("model_pin", "two:latest", "FAIL"),
        ("model_whole", "three:latest", "FAIL"),
        ("model_whole", "more:latest", "WARN"),
        ("store_partials", "store", "WARN"),
        ("store_orphans", "store", "PASS"),
        ("store_aside", "store", "WARN"),
        ("store_foreign_files", "store", "PASS"),
        ("store_manifests", "store", "WARN"),
    ]


def test_what_a_run_has_not_done_does_not_count_as_done():
    declaration = declare("one", forbidden=["odd"], prune_orphans=True, prune_partials=True)
    store = make_store({"one": "ac"}, "acd", [partial("b")])
    store.aside[hexa("s")] = aside("s")
    store.corrupt["manifests/registry.ollama.ai/library/odd/latest"] = "no JSON"
    plan = plan_of(declaration, store)
    actions = {step.action for step in plan.changes}
    assert actions == {"prune_partial", "prune_orphan", "discard", "remove"}
    for planned, wanted in ((True, "PASS"), (False, "WARN")):
        found = judged(declaration, store, plan, planned=planned)
        status = {entry["check"]: entry["status"] for entry in found}
        checks = ("store_partials", "store_orphans", "store_aside", "store_manifests")
        assert [status[check] for check in checks] == [wanted] * 4


def test_the_flaw_of_a_blob_is_said():
    store = make_store({"one": "ac"})
    store.blobs[hexa("a")] = replace(blob("a"), flaw="its content has the digest ab")
    [verdict] = [
        found for found in judged(declare("one"), store) if found["check"] == "model_whole"
    ]
    assert verdict["status"] == "FAIL"
    assert verdict["value"] == (
        f"blob sha256-{hexa('a')[:12]} is corrupt (its content has the digest ab)"
    )


def test_versions_to_go_back_to_belong_to_the_catalog():
    store = make_store({"one": "ac", "one:latest-hx-previous": "b"})
    for options in ({}, {"exclusive": True}):
        [exact] = [
            found
            for found in judged(declare("one", **options), store)
            if found["check"] == "catalog_exact"
        ]
        assert (exact["status"], exact["value"]) == ("PASS", ["one:latest"])


def test_models_that_answered():
    outcome = Outcome("pull", "one:latest", True, proof_s=0.12345)
    [verdict] = [
        found
        for found in judged(declare("one"), make_store({"one": "ac"}), outcomes=[outcome])
        if found["check"] == "model_answers"
    ]
    assert (verdict["status"], verdict["subject"], verdict["value"]) == (
        "PASS",
        "one:latest",
        0.123,
    )
