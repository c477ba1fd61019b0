# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Permissions: what is found, what is planned, what is judged."""

from __future__ import annotations

import os

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _permissions as permissions
from ansible_collections.hx_infra.llm.plugins.module_utils._permissions import Expectation, Found


@pytest.fixture
def tree(tmp_path):
    for name, mode in (
        ("open", 0o777),
        ("open/file", 0o666),
        ("open/closed", 0o644),
        ("sticky", 0o1777),
        ("sticky/file", 0o646),
        ("models", 0o777),
        ("models/file", 0o666),
    ):
        path = tmp_path / name
        if "." in name or name.endswith(("file", "closed")):
            path.touch()
        else:
            path.mkdir()
        path.chmod(mode)
    (tmp_path / "link").symlink_to(tmp_path / "open" / "file")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "fifo").chmod(0o666)
    tmp_path.chmod(0o755)
    return tmp_path


def found_in(tree, exclude=()):
    found = permissions.world_writable([str(tree)], [str(tree / name) for name in exclude])
    return [(os.path.relpath(item.path, tree), item.mode, item.kind) for item in found]


def test_search_leaves_out_links_sticky_directories_and_special_files(tree):
    assert found_in(tree, ["models"]) == [
        ("open", 0o777, "directory"),
        ("open/file", 0o666, "file"),
        ("sticky/file", 0o646, "file"),
    ]


def test_search_finds_excluded_trees_by_their_links_too(tree):
    (tree / "alias").symlink_to(tree / "models")
    assert not [path for path, _m, _k in found_in(tree, ["alias"]) if path.startswith("models")]


def test_search_resolves_links_and_reports_each_path_once(tree):
    (tree / "alias").symlink_to(tree / "open")
    paths = [str(tree / "alias"), str(tree / "open"), str(tree / "missing")]
    found = permissions.world_writable(paths)
    assert [item.path for item in found] == [str(tree / "open"), str(tree / "open" / "file")]


def plan(found=(), observed=None, expectations=(), allowed=()):
    return permissions.plan(found, observed or {}, expectations, allowed)


def test_plan_takes_one_permission_away():
    change = plan([Found("/a", 0o2777)])[0]
    assert change.mode == 0o2775
    assert change.sentence() == ("Take the write permission for everybody from /a (2777 -> 2775).")
    assert change.as_dict() == {
        "action": "remove_world_write",
        "target": "/a",
        "mode": "2775",
        "old_mode": "2777",
    }


def test_plan_leaves_allowed_paths():
    assert plan([Found("/a", 0o777)], allowed=["/a"]) == []


def test_plan_changes_only_what_differs():
    wanted = Expectation("/e", owner="root", group="ollama", mode="0640")
    right = Found("/e", 0o640, "root", "ollama")
    assert plan(observed={"/e": right}, expectations=[wanted]) == []
    wrong = Found("/e", 0o666, "agent0", "ollama")
    assert [item.sentence() for item in plan(observed={"/e": wrong}, expectations=[wanted])] == [
        "Give /e to root:ollama (was agent0:ollama).",
        "Set the mode of /e to 0640 (was 0666).",
    ]


def test_plan_names_a_path_once_when_it_is_found_and_expected():
    wanted = Expectation("/e", mode="0640")
    present = Found("/e", 0o666, "root", "root")
    assert [item.action for item in plan([present], {"/e": present}, [wanted])] == ["chmod"]


@pytest.mark.parametrize("present", [None, Found("/e", 0o600, "x", "x")])
def test_plan_leaves_what_is_missing_and_what_others_put_right(present):
    expectations = [Expectation("/e", mode="0640", fix=present is None)]
    assert plan(observed={"/e": present}, expectations=expectations) == []


@pytest.mark.parametrize(
    ("present", "status"),
    [
        (Found("/e", 0o640, "root", "ollama"), "PASS"),
        (Found("/e", 0o644, "root", "ollama"), "FAIL"),
        (Found("/e", 0o640, "root", "root"), "FAIL"),
        (None, "WARN"),
    ],
)
def test_verdict_on_a_path(present, status):
    wanted = Expectation("/e", owner="root", group="ollama", mode="0640")
    verdicts = permissions.verdicts([], {"/e": present}, [wanted])
    assert [(item.check, item.status) for item in verdicts] == [
        ("world_writable", "PASS"),
        ("permissions", status),
    ]


def test_verdict_names_what_is_open():
    verdict = permissions.verdicts([Found("/a", 0o777), Found("/b", 0o777)], {}, [], ["/b"])[0]
    assert (verdict.status, verdict.value, verdict.evidence) == ("FAIL", 1, "/a")


def test_diff():
    wanted = Expectation("/e", owner="root", mode="0640")
    present = Found("/e", 0o600, "x", "x")
    changes = plan([Found("/a", 0o666)], {"/e": present}, [wanted])
    assert permissions.diff(changes) == {
        "before": "/a 0666\n/e x:x\n/e 0600\n",
        "after": "/a 0664\n/e root:x\n/e 0640\n",
    }
