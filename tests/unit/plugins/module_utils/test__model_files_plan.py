# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The planner of model files, case by case."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Any

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._hub_download import partial_name
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files import (
    Declaration,
    Rules,
    Source,
    Wanted,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_plan import (
    Access,
    Found,
    Plan,
    Step,
    check_space,
    make_plan,
    plan_absence,
    sentences,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_tree import Entry, Tree

A, B, C = "a" * 64, "b" * 64, "c" * 64
HUB = Source("hub", "https://hub", "org/m", "1" * 40)
TAR = Source("archive", "/x.tar", pin=C)
WANTED = (Wanted("config.json", 10, A), Wanted("model.safetensors", 1000, B))
WHOLE = {"config.json": (10, A), "model.safetensors": (1000, B)}


def info(size: int, mode: int = stat.S_IFREG | 0o644, links: int = 1) -> os.stat_result:
    return os.stat_result((mode, 1, 1, links, 0, 0, size, 0, 0, 0))


def tree(root: str, files: dict[str, Any] | None, noted: str = "") -> Tree:
    if files is None:
        return Tree(root)
    entries = {path: Entry(path, info(size), sum_) for path, (size, sum_) in files.items()}
    note = {"files": {path: {} for path in noted.split()}} if noted else {}
    folder = info(0, stat.S_IFDIR | 0o755)
    return Tree(root, True, entries, {".": folder}, note)


def plan(
    dest: dict[str, Any] | None,
    staging: dict[str, Any] | None = None,
    *,
    wanted: Sequence[Wanted] | None = WANTED,
    noted: str = "",
    source: Source = HUB,
    access: Access = Access(),  # noqa: B008 - frozen
    found: dict[str, Any] | None = None,
    **options: Any,
) -> Plan:
    declaration = Declaration("m", "/srv/m", source, Rules(), **options)
    trees = (tree("/srv/m", dest, noted), tree("/srv/new", staging), Tree("/srv/old"))
    wanted = None if wanted is None else list(wanted)
    return make_plan(
        declaration, wanted, Found(*trees, **{"recorded": True, **(found or {})}), access
    )


def words(made: Plan) -> list[str]:
    return [step.action for step in made.steps]


HALF = {"config.json": (10, A), "model.safetensors": (1000, C)}
SHORT = {"config.json": (10, A), "model.safetensors": (999, "")}
PARTIAL = {partial_name(B, ""): (400, "")}


@pytest.mark.parametrize(
    ("dest", "options", "actions", "size"),
    [
        (None, {}, ["pull"], 1010),
        (WHOLE, {}, ["adopt"], 0),
        (WHOLE, {"found": {"recorded": False}}, ["adopt", "record"], 0),
        (HALF, {"found": {"same_source": True}}, ["repull"], 1000),
        (SHORT, {"found": {"same_source": True}}, ["repull"], 1000),
        (HALF, {"noted": "config.json"}, ["pull"], 1000),
        (HALF, {"staging": PARTIAL}, ["pull"], 600),
        (HALF, {"staging": {"model.safetensors": (1000, B)}}, ["pull"], 0),
        (HALF, {"staging": {"old.bin": (7, "")}}, ["prune_partial", "pull"], 1000),
        (WHOLE, {"staging": PARTIAL}, ["prune_partial", "adopt"], 0),
        (WHOLE, {"staging": PARTIAL, "prune_partials": False}, ["prune_partial", "adopt"], 0),
        ({**WHOLE, "x": (5, "")}, {}, ["adopt"], 0),
        ({**WHOLE, "x": (5, "")}, {"noted": "x"}, ["remove"], 0),
        ({**WHOLE, "x": (5, "")}, {"exclusive": True}, ["remove"], 0),
        (WHOLE, {"access": Access(uid=7)}, ["adopt", "set_access"], 0),
        (WHOLE, {"access": Access(mode=0o644)}, ["adopt"], 0),
        (WHOLE, {"source": TAR}, ["adopt"], 0),
        (HALF, {"source": TAR, "found": {"archive_size": 50}}, ["pull"], 50),
        (None, {"source": TAR, "wanted": None, "found": {"archive_size": 50}}, ["pull"], 50),
    ],
)
def test_plans(dest: Any, options: dict[str, Any], actions: list[str], size: int) -> None:
    made = plan(dest, **options)
    assert words(made) == actions
    assert made.size_of("pull", "repull") == size


def test_says_what_is_wrong_with_which_file() -> None:
    made = plan(HALF, found={"same_source": True})
    assert sentences(made.steps) == [
        f"Pull again m (1.0KB) from org/m@{'1' * 12}: model.safetensors: it has sha256 "
        f"{C[:16]}, wanted {B[:16]}"
    ]
    assert "it has 999 bytes, wanted 1000" in plan(SHORT).steps[0].reason
    assert plan(HALF, noted="config.json").steps[0].reason == (
        "the source is another (1 files differ)"
    )


def test_keeps_what_is_right_and_what_nobody_declared() -> None:
    made = plan({**HALF, "x": (5, ""), "y": (6, "")}, noted="y")
    assert sorted(made.keep) == ["config.json", "x"]
    assert (made.undeclared, made.drop) == (["x"], ["y"])
    assert [item.path for item in made.fetch] == ["model.safetensors"]


def test_nothing_goes_where_files_are_only_verified() -> None:
    source = Source("path", "/srv/m")
    made = plan({**WHOLE, "x": (5, "")}, source=source, noted="x", exclusive=True)
    assert words(made) == ["adopt"]
    assert made.undeclared == ["x"]


def test_space() -> None:
    made = plan(None, PARTIAL)
    assert made.space_needed == 610
    check_space(made, 400, 1010, "/srv/m")
    with pytest.raises(HostError, match="610B and 401B must stay free"):
        check_space(made, 401, 1010, "/srv/m")
    check_space(plan(WHOLE), 10**9, 0, "/srv/m")  # nothing is needed, so nothing is refused
    remote = {"archive_size": 100, "archive_remote": True}
    made = plan(None, source=TAR, wanted=None, found=remote)
    assert made.space_needed == 200
    pruned = Plan([Step("prune_partial", "/srv/new", "", 500)], space_needed=610)
    check_space(pruned, 0, 110, "/srv/m")


def test_directories_may_be_entered_by_who_may_read() -> None:
    assert Access(mode=0o640).directory_mode == 0o750
    assert Access(mode=0o444).directory_mode == 0o555


@pytest.mark.parametrize(("files", "noted", "ok"), [
    ({"thesis.txt": (1, "")}, "", False),
    ({"config.json": (1, "")}, "", True),
    ({"x": (1, "")}, "x", True),
])  # fmt: skip
def test_removes_only_models(files: dict[str, Any], noted: str, ok: bool) -> None:
    declaration = Declaration("m", "/srv/m", None, Rules())
    found = Found(tree("/srv/m", files, noted), Tree("/srv/new"), Tree("/srv/old"))
    if ok:
        assert words(plan_absence(declaration, found)) == ["remove"]
        return
    with pytest.raises(HostError, match="something else than a model"):
        plan_absence(declaration, found)
