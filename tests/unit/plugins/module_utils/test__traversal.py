# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who can walk a path."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._traversal import (
    Account,
    Element,
    describe_obstacle,
    elements,
    first_obstacle,
)

OLLAMA = Account("ollama", 999, frozenset({999, 44}))


def _directory(path: str, mode: int, uid: int = 0, gid: int = 0) -> Element:
    return Element(path, stat.S_IFDIR | mode, uid, gid)


@pytest.mark.parametrize(
    ("element", "account", "blocked"),
    [
        (_directory("/data", 0o755), OLLAMA, False),
        (_directory("/data", 0o750), OLLAMA, True),
        (_directory("/data", 0o751), OLLAMA, False),
        (_directory("/data", 0o754), OLLAMA, True),
        (_directory("/data", 0o750, gid=44), OLLAMA, False),
        (_directory("/data", 0o705, gid=44), OLLAMA, True),  # the group's bits count, not others'
        (_directory("/data", 0o700, uid=999), OLLAMA, False),
        (_directory("/data", 0o077, uid=999, gid=999), OLLAMA, True),  # the owner's bits count
        (_directory("/data", 0o000), Account("root", 0, frozenset()), False),
        (_directory("/data", 0o755), Account("unknown", None, frozenset()), False),
        (_directory("/data", 0o750), Account("unknown", None, frozenset()), True),
        (Element("/file", stat.S_IFREG | 0o600, 0, 0), OLLAMA, False),
    ],
)
def test_first_obstacle(element: Element, account: Account, blocked: bool) -> None:
    way = [_directory("/", 0o755), element]
    assert first_obstacle(way, account) == (element if blocked else None)


def test_first_of_several_is_named() -> None:
    way = [_directory("/", 0o755), _directory("/home", 0o750), _directory("/home/x", 0o700)]
    obstacle = first_obstacle(way, OLLAMA)
    assert obstacle is not None
    assert describe_obstacle(obstacle, OLLAMA, "/home/x/models", "root:root") == (
        "ollama cannot reach /home/x/models: /home is root:root with mode 0750, which does not let "
        "ollama through (x wanted)."
    )


def test_elements_follow_links(tmp_path: Path) -> None:
    (tmp_path / "real/inner").mkdir(parents=True)
    (tmp_path / "absolute").symlink_to(tmp_path / "real")
    (tmp_path / "relative").symlink_to("absolute/inner/../inner")
    paths = [element.path for element in elements(str(tmp_path / "relative"))]
    assert paths[0] == "/"
    assert paths[-1] == str(tmp_path / "real/inner")
    assert str(tmp_path / "real") in paths
    assert not any("absolute" in path for path in paths)


def test_elements_end_at_what_is_missing(tmp_path: Path) -> None:
    paths = [element.path for element in elements(str(tmp_path / "absent/deeper"))]
    assert paths[-1] == str(tmp_path)


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    assert elements(str(tmp_path / "one"))[-1].path == str(tmp_path)


def test_reads_the_real_root() -> None:
    assert elements("/")[0].mode == os.lstat("/").st_mode
