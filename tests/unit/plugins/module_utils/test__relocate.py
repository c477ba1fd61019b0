# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans of a store's move: what is refused, and which steps follow from what was found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate import (
    Declared,
    Observed,
    Place,
    Tree,
    plan_relocation,
)

TARGET = "/data/llm_bulk_storage/ollama/models"
CANONICAL = "/mnt/active_llm_models"
OLD = "/opt/hx-infrastructure/llm-01/models/production"
STORE = Tree(OLD, OLD, files=31, entries=39, size=1000, is_store=True, blobs=11, manifests=3)
DECLARED = Declared(
    "llm-01",
    TARGET,
    CANONICAL,
    (OLD,),
    unit="ollama.service",
    url="http://127.0.0.1:11434",
    mount_path="/data/llm_bulk_storage",
    reserve_bytes=100,
)
DRIFTED = Observed(
    target=Place(TARGET),
    names=(Place(OLD, "directory", "", OLD), Place(CANONICAL)),
    trees={OLD: STORE},
    free_bytes=10_000,
    free_inodes=1000,
    unit_state="active",
    engine_path=OLD,
)
IN_PLACE = Observed(
    target=Place(TARGET, "directory", "", TARGET),
    names=(Place(OLD, "link", CANONICAL, TARGET), Place(CANONICAL, "link", TARGET, TARGET)),
    trees={TARGET: replace(STORE, path=TARGET, at=TARGET)},
    free_bytes=0,
    unit_state="active",
    engine_path=TARGET,
)


def _actions(found: Observed, declared: Declared = DECLARED) -> list[tuple[str, str]]:
    return [(step.action, step.target) for step in plan_relocation(declared, found).steps]


def test_drifted_host_is_copied() -> None:
    plan = plan_relocation(DECLARED, DRIFTED)
    assert (plan.mode, plan.source, plan.restart) == ("copy", OLD, True)
    assert [(step.action, step.target) for step in plan.steps] == [
        ("copy", TARGET),
        ("verify", TARGET),
        ("stop", "ollama.service"),
        ("switch", OLD),
        ("link", CANONICAL),
        ("link", OLD),
        ("start", "ollama.service"),
        ("retain", OLD),
    ]
    assert plan.steps[0].sentence == (
        f"Copy the store {OLD} to {TARGET} (31 files, 1000 bytes) while it is in use"
    )
    assert plan.steps[0].as_dict() == {"action": "copy", "target": TARGET, "source": OLD}


def test_in_place_means_nothing_to_do() -> None:
    plan = plan_relocation(DECLARED, IN_PLACE)
    assert (plan.mode, plan.steps) == ("none", ())


def test_one_file_system_is_renamed() -> None:
    assert _actions(replace(DRIFTED, same_filesystem=True, free_bytes=0)) == [
        ("stop", "ollama.service"),
        ("rename", TARGET),
        ("link", CANONICAL),
        ("link", OLD),
        ("start", "ollama.service"),
    ]


def test_stopped_engine_is_left_alone() -> None:
    actions = _actions(replace(DRIFTED, unit_state="inactive", engine_path=""))
    assert not {"stop", "start", "resume"} & {action for action, _target in actions}


def test_fresh_host_gets_an_empty_store() -> None:
    fresh = Observed(target=Place(TARGET), names=(Place(OLD), Place(CANONICAL)))
    assert _actions(fresh) == [("create", TARGET), ("link", CANONICAL), ("link", OLD)]


def test_empty_old_directory_becomes_a_link() -> None:
    found = replace(
        DRIFTED, trees={OLD: replace(STORE, files=0)}, target=Place(TARGET), engine_path=""
    )
    assert _actions(found) == [("create", TARGET), ("link", CANONICAL), ("link", OLD)]


def test_links_of_a_store_in_place_are_corrected_while_the_engine_runs() -> None:
    names = (Place(OLD, "link", TARGET, TARGET), Place(CANONICAL, "link", "/gone", ""))
    assert _actions(replace(IN_PLACE, names=names)) == [("link", CANONICAL), ("link", OLD)]


def test_only_differing_entries_are_given_away() -> None:
    tree = replace(IN_PLACE.trees[TARGET], differing=2)
    plan = plan_relocation(DECLARED, replace(IN_PLACE, trees={TARGET: tree}))
    assert [step.sentence for step in plan.steps] == [
        f"Give 2 of 39 entries of {TARGET} to ollama:ollama, writable by nobody else"
    ]


def test_old_path_that_is_the_target_by_another_name_is_left_alone() -> None:
    other = "/opt/hx-infrastructure/llm-01/data/llm_bulk_storage/ollama/models"
    names = (*IN_PLACE.names, Place(other, "directory", "", TARGET))
    declared = replace(DECLARED, old_paths=(OLD, other))
    assert plan_relocation(declared, replace(IN_PLACE, names=names)).steps == ()


def test_directory_behind_a_link_becomes_a_link_too() -> None:
    real = "/srv/models"
    found = replace(
        DRIFTED,
        names=(Place(OLD, "link", real, real), Place(CANONICAL)),
        trees={real: replace(STORE, path=real, at=real)},
        engine_path=real,
    )
    links = [target for action, target in _actions(found) if action == "link"]
    assert links == [CANONICAL, OLD, real]


@pytest.mark.parametrize("state", ["inactive", "failed"])
def test_interrupted_after_the_stop_starts_the_engine_first(state: str) -> None:
    journal = {"target": TARGET, "source": OLD, "unit_was_running": True}
    found = replace(DRIFTED, unit_state=state, engine_path="", journal=journal)
    actions = [action for action, _target in _actions(found)]
    assert actions[0] == "resume"
    assert actions.index("stop") > actions.index("verify")
    assert actions[-2:] == ["start", "retain"]


def test_interrupted_after_the_switch_only_finishes() -> None:
    journal = {"target": TARGET, "source": OLD, "unit_was_running": True}
    found = replace(
        IN_PLACE,
        unit_state="inactive",
        engine_path="",
        journal=journal,
        retained=f"{OLD}.hx-retained-20261121T031149Z",
    )
    assert _actions(found) == [("start", "ollama.service"), ("retain", OLD)]


def test_own_unfinished_copy_at_the_target_is_gone_on_with() -> None:
    journal = {"target": TARGET, "source": OLD}
    trees = {OLD: STORE, TARGET: replace(STORE, path=TARGET, files=3)}
    found = replace(
        DRIFTED,
        target=Place(TARGET, "directory", "", TARGET),
        trees=trees,
        journal=journal,
        same_filesystem=True,
    )
    assert plan_relocation(DECLARED, found).mode == "copy"


def _occupied(**changes: Any) -> Observed:
    trees = {OLD: STORE, TARGET: replace(STORE, path=TARGET, files=3)}
    place = Place(TARGET, "directory", "", TARGET, changes.pop("is_mount", False))
    return replace(DRIFTED, target=place, trees=trees, **changes)


REFUSED: list[tuple[str, Declared, Observed, str]] = [
    ("equal", replace(DECLARED, canonical=TARGET), DRIFTED, "target and canonical are both"),
    (
        "nested",
        replace(DECLARED, target="/data/llm_bulk_storage", mount_path="", old_paths=(TARGET,)),
        DRIFTED,
        "lie inside each other",
    ),
    ("below mount", replace(DECLARED, mount_path="/elsewhere"), DRIFTED, "not below the mount"),
    ("absent mount", DECLARED, replace(DRIFTED, mounted=False), "nothing is mounted at /data"),
    ("foreign target", DECLARED, _occupied(), "holds 3 files that are no copy of"),
    ("other's journal", DECLARED, _occupied(journal={"target": "/x"}), "that are no copy of"),
    (
        "target is a mount",
        DECLARED,
        _occupied(is_mount=True, identical=True),
        "is a mount point; wanted a directory below it",
    ),
    (
        "no store",
        DECLARED,
        replace(DRIFTED, trees={OLD: replace(STORE, is_store=False)}),
        "holds 31 files but no model store",
    ),
    (
        "a file",
        DECLARED,
        replace(DRIFTED, names=(Place(OLD, "other"), Place(CANONICAL))),
        "neither a directory nor a link",
    ),
    (
        "mount point",
        DECLARED,
        replace(DRIFTED, names=(Place(OLD, "directory", "", OLD, True), Place(CANONICAL))),
        "is a mount point and cannot become a link",
    ),
    (
        "store inside",
        replace(DECLARED, old_paths=("/data/link",)),
        replace(
            DRIFTED,
            names=(Place("/data/link", "link", "/x", f"{TARGET}/old"), Place(CANONICAL)),
            trees={f"{TARGET}/old": replace(STORE, path=f"{TARGET}/old")},
            engine_path="",
        ),
        "lie inside each other",
    ),
    (
        "engine elsewhere",
        DECLARED,
        replace(
            DRIFTED,
            engine_path="/usr/share/ollama/.ollama/models",
            trees={
                OLD: STORE,
                "/usr/share/ollama/.ollama/models": replace(STORE, path="/usr/share/x"),
            },
        ),
        "ollama.service reads its models from /usr/share/ollama/.ollama/models",
    ),
    (
        "download",
        DECLARED,
        replace(DRIFTED, trees={OLD: replace(STORE, partials=("sha256-ab-partial",))}),
        r"a download into .* is in progress \(sha256-ab-partial\)",
    ),
    (
        "damaged",
        DECLARED,
        replace(DRIFTED, trees={OLD: replace(STORE, problems=("a", "b", "c", "d"))}),
        "is damaged: a; b; c and 1 more",
    ),
    (
        "space",
        DECLARED,
        replace(DRIFTED, free_bytes=1149),
        "1149 bytes free; wanted 1150 .1000 still to copy, 5 % more and a reserve of 100",
    ),
    ("inodes", DECLARED, replace(DRIFTED, free_inodes=38), "38 inodes free; wanted 39"),
    ("way", DECLARED, replace(DRIFTED, obstacle="ollama cannot reach /x"), "cannot reach /x"),
]


@pytest.mark.parametrize(
    ("declared", "found", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_refused(declared: Declared, found: Observed, message: str) -> None:
    with pytest.raises(HostError, match=message) as caught:
        plan_relocation(declared, found)
    assert str(caught.value).startswith("llm-01: ")


def test_what_is_in_staging_needs_no_space() -> None:
    found = replace(DRIFTED, free_bytes=625, free_inodes=10, staged_bytes=500, staged_entries=30)
    assert plan_relocation(DECLARED, found).mode == "copy"


def test_damaged_store_moves_when_allowed() -> None:
    found = replace(DRIFTED, trees={OLD: replace(STORE, problems=("a",))})
    assert plan_relocation(replace(DECLARED, allow_damaged=True), found).mode == "copy"


def test_verified_copy_at_the_target_is_taken() -> None:
    assert plan_relocation(DECLARED, _occupied(identical=True)).mode == "copy"
