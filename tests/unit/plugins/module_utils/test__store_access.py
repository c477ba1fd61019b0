# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Owners, modes and links that aren't as they must be."""

from __future__ import annotations

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._store_access import (
    Access,
    Entry,
    links,
    usual_access,
    wrong_access,
)


def file(name="blobs/a", mode=0o644, owner="ollama", group="ollama"):
    return Entry(name, "file", owner, group, mode)


def folder(mode, name="blobs"):
    return Entry(name, "directory", "ollama", "ollama", mode)


def test_the_account_of_most_blobs():
    entries = [
        Entry(".", "directory", "root", "root", 0o755),
        *(file(f"blobs/{name}") for name in "abc"),
        *(file(f"blobs/{name}", owner="root") for name in "de"),
        *(file(f"manifests/{name}", owner="root") for name in "fghi"),
    ]
    assert usual_access(entries) == Access("ollama", "ollama")
    assert usual_access(entries[:1]) == Access("root", "root")
    assert usual_access([]) == Access()


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (file(), ""),
        (file(mode=0o600), ""),
        (file(mode=0o664), ""),
        (file(owner="root"), "the owner is root, wanted ollama"),
        (file(group="root"), "the group is root, wanted ollama"),
        (
            file(owner="root", group="root"),
            "the owner is root, wanted ollama; the group is root, wanted ollama",
        ),
        (file(mode=0o666), "the mode is 0666, so that everybody may write"),
        (file(mode=0o044), "the mode is 0044, so that the owner can't read"),
        (folder(0o750), ""),
        (folder(0o640), "the mode is 0640, so that the owner can't read"),
        (folder(0o777), "the mode is 0777, so that everybody may write"),
        (Entry("blobs/x", "link", "root", "root", 0o777), ""),
        (Entry("blobs/x", "other", "root", "root", 0o777), ""),
    ],
)
def test_problems(entry, problem):
    rows = wrong_access([entry], Access("ollama", "ollama"))
    assert [row["problem"] for row in rows] == ([problem] if problem else [])


def test_exact_modes():
    entries = [file(mode=0o644), file("blobs/b", mode=0o640), folder(0o750), folder(0o755, "x")]
    rows = wrong_access(entries, Access(file_mode=0o640, dir_mode=0o750))
    assert [(row["path"], row["mode"], row["problem"]) for row in rows] == [
        ("blobs/a", "0644", "the mode is 0644, wanted 0640"),
        ("x", "0755", "the mode is 0755, wanted 0750"),
    ]


def test_which_links_are_odd():
    rows = links(
        [
            Entry("blobs", "link", target="/disk/blobs"),
            Entry("manifests", "link", target="/gone", dangling=True),
            Entry("blobs/a", "link", target="/disk/a"),
            file(),
        ]
    )
    assert [(row["path"], row["odd"]) for row in rows] == [
        ("blobs", False),
        ("manifests", True),
        ("blobs/a", True),
    ]
