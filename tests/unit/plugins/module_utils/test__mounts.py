# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parsers of mountinfo, fstab, blkid and unit files."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._mounts import (
    comment_out,
    mount_of,
    names_device,
    parse_blkid,
    parse_fstab,
    parse_mountinfo,
    parse_unit,
    unescape,
    unit_name,
)

MOUNTINFO = r"""22 1 0:20 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b
30 22 7:1 / /opt/hx/llm-01/data/llm_bulk_storage rw,relatime shared:7 - ext4 /dev/sda1 rw
31 22 7:1 /ollama /srv/with\040blank\134and\011tab rw master:2 propagate_from:3 - ext4 /dev/sda1 rw
32 22 0:40 / /srv/modèles rw - tmpfs tmpfs rw
33 22 0:41 / /short
34 32 0:42 / /srv/modèles rw - tmpfs second rw
"""


def test_mountinfo() -> None:
    mounts = parse_mountinfo(MOUNTINFO)
    assert [mount.point for mount in mounts] == [
        "/",
        "/opt/hx/llm-01/data/llm_bulk_storage",
        "/srv/with blank\\and\ttab",
        "/srv/modèles",
        "/srv/modèles",
    ]
    assert (mounts[1].device, mounts[1].root, mounts[1].source) == ("7:1", "/", "/dev/sda1")
    assert mounts[2].root == "/ollama"
    assert (mounts[2].fstype, mounts[2].options) == ("ext4", "rw")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("/", "overlay"),
        ("/optional", "overlay"),
        ("/opt/hx/llm-01/data/llm_bulk_storage", "/dev/sda1"),
        ("/opt/hx/llm-01/data/llm_bulk_storage/ollama", "/dev/sda1"),
        ("/opt/hx/llm-01/data/llm_bulk_storage2", "overlay"),
        ("/srv/modèles/x", "second"),
    ],
)
def test_mount_of(path: str, source: str) -> None:
    mount = mount_of(path, parse_mountinfo(MOUNTINFO))
    assert mount is not None
    assert mount.source == source


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a\\040b", "/a b"),
        ("/a\\134b", "/a\\b"),
        ("/é\\011x", "/é\tx"),
        ("/a\\8", "/a\\8"),
        ("", ""),
    ],
)
def test_unescape(text: str, expected: str) -> None:
    assert unescape(text) == expected


FSTAB = r"""# /etc/fstab
UUID=1de79725 / ext4 errors=remount-ro 0 1

  # /dev/sda1 /commented ext4 defaults 0 2
/dev/sda1	/data/with\040blank	ext4	defaults	0	2
/dev/sdb1 /four ext4 defaults
malformed
LABEL=bulk /label/ ext4 defaults 0 2 # trailing
"""


def test_fstab() -> None:
    entries = parse_fstab(FSTAB)
    assert [(entry.line, entry.spec, entry.point) for entry in entries] == [
        (1, "UUID=1de79725", "/"),
        (4, "/dev/sda1", "/data/with blank"),
        (5, "/dev/sdb1", "/four"),
        (7, "LABEL=bulk", "/label/"),
    ]


def test_commented_lines_can_be_undone_and_are_no_entries() -> None:
    text = comment_out(FSTAB, [4, 7], "data.mount")
    assert [entry.line for entry in parse_fstab(text)] == [1, 5]
    assert text.replace("# kept by hx_infra.llm, replaced by data.mount: ", "") == FSTAB


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DEVNAME=/dev/sda1\nUUID=1-2\nTYPE=ext4\n", {"UUID": "1-2", "TYPE": "ext4"}),
        ("LABEL=my\\ disk\nTYPE=swap\n", {"LABEL": "my disk", "TYPE": "swap"}),
        ("", {}),
    ],
)
def test_blkid(text: str, expected: dict[str, str]) -> None:
    values = parse_blkid(text)
    assert {key: values[key] for key in expected} == expected


def test_unit_file() -> None:
    text = "[Unit]\nWhat=no\n[Mount]\nWhat = /dev/sda1\nWhere=/data/x/\n[Install]\nWhere=/y\n"
    unit = parse_unit("/etc/systemd/system/data-x.mount", text)
    assert (unit.what, unit.where) == ("/dev/sda1", "/data/x")


NAMES = {
    "/": "-.mount",
    "/data/llm_bulk_storage": "data-llm_bulk_storage.mount",
    "/opt/hx-infrastructure/llm-01/data": r"opt-hx\x2dinfrastructure-llm\x2d01-data.mount",
    "//a//b/": "a-b.mount",
    "/.hidden/x.y": r"\x2ehidden-x.y.mount",
    "/modèle": r"mod\xc3\xa8le.mount",
}


@pytest.mark.parametrize("path", NAMES)
def test_unit_name(path: str) -> None:
    assert unit_name(path) == NAMES[path]


@pytest.mark.skipif(not shutil.which("systemd-escape"), reason="systemd-escape is not installed")
@pytest.mark.parametrize("path", NAMES)
def test_unit_name_is_systemds(path: str) -> None:
    done = subprocess.run(
        ["systemd-escape", "--path", "--suffix=mount", path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert unit_name(path) == done.stdout.strip()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("/dev/sda1", True),
        ("UUID=1-2", True),
        ('UUID="1-2"', True),
        ("LABEL=bulk", True),
        ("/dev/disk/by-uuid/1-2", True),
        ("/dev/disk/by-label/bulk", True),
        ("/dev/sda10", False),
        ("UUID=", False),
        ("UUID=1-3", False),
        ("PARTUUID=1-2", False),
        ("tmpfs", False),
    ],
)
def test_names_device(spec: str, expected: bool) -> None:
    assert names_device(spec, "/dev/sda1", "1-2", "bulk") is expected


def test_no_uuid_matches_no_empty_spec() -> None:
    assert not names_device("UUID=", "/dev/sda1", "", "")
    assert not names_device("LABEL=", "/dev/sda1", "", "")
