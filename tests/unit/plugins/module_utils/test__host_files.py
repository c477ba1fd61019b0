# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _host_files as host_files
from ansible_collections.hx_infra.llm.plugins.module_utils._env_install import find_access
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

ME, OURS = str(os.getuid()), str(os.getgid())


def access(mode):
    return find_access(ME, OURS, mode, "llm-01")


def wanted(folder, *, mode="0644", text=b"new\n"):
    """Return a directory and two files in it."""
    return (
        [host_files.Directory(str(folder / "lib"), access("0755"))],
        [
            host_files.File(str(folder / "lib" / name), access(mode), text)
            for name in ("one.py", "two.py")
        ],
    )


def brought(folder, **how):
    """Bring them there and return the actions of the plan."""
    directories, files = wanted(folder, **how)
    found = host_files.plan(directories, files, "llm-01")
    host_files.apply(found, "llm-01")
    return [step["action"] for step in found.steps]


def test_everything_is_made_once(tmp_path):
    assert brought(tmp_path) == ["make_directory", "create", "create"]
    assert (tmp_path / "lib").stat().st_mode & 0o7777 == 0o755
    for name in ("one.py", "two.py"):
        assert (tmp_path / "lib" / name).read_bytes() == b"new\n"
        assert (tmp_path / "lib" / name).stat().st_mode & 0o7777 == 0o644
    assert brought(tmp_path) == []


def test_missing_parents_are_made_like_it(tmp_path):
    wanted_here = [host_files.Directory(str(tmp_path / "a" / "b" / "c"), access("0750"))]
    wanted_here.append(host_files.Directory(str(tmp_path / "a" / "d"), access("0700")))
    found = host_files.plan(wanted_here, [], "llm-01")
    made = [os.path.relpath(step["target"], tmp_path) for step in found.steps]
    assert made == ["a", "a/b", "a/b/c", "a/d"]
    host_files.apply(found, "llm-01")
    modes = {path.name: path.stat().st_mode & 0o7777 for path in tmp_path.rglob("*")}
    assert modes == {"a": 0o750, "b": 0o750, "c": 0o750, "d": 0o700}
    assert host_files.plan(wanted_here, [], "llm-01").steps == []


def test_only_what_differs_is_changed(tmp_path):
    brought(tmp_path)
    (tmp_path / "lib").chmod(0o700)
    (tmp_path / "lib" / "one.py").write_bytes(b"old\n")
    (tmp_path / "lib" / "two.py").chmod(0o600)
    before = (tmp_path / "lib" / "two.py").stat().st_ino
    directories, files = wanted(tmp_path)
    found = host_files.plan(directories, files, "llm-01")
    assert [(step["action"], os.path.basename(step["target"])) for step in found.steps] == [
        ("permissions", "lib"),
        ("update", "one.py"),
        ("permissions", "two.py"),
    ]
    assert found.steps[0]["found"].endswith("0700")
    assert [(entry["before"][-5:], entry["after"][-5:]) for entry in found.diff] == [
        ("0700\n", "0755\n"),
        ("old\n", "new\n"),
        ("0600\n", "0644\n"),
    ]
    assert brought(tmp_path) == ["permissions", "update", "permissions"]
    assert (tmp_path / "lib" / "two.py").stat().st_ino == before  # not written anew
    assert brought(tmp_path) == []


def test_a_plan_writes_nothing(tmp_path):
    found = host_files.plan(*wanted(tmp_path), "llm-01")
    assert len(found.steps) == len(found.diff) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_replaced_where_a_file_has_to_be_and_followed_to_a_directory(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "lib").symlink_to("elsewhere")
    (tmp_path / "elsewhere" / "one.py").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_bytes(b"new\n")
    (tmp_path / "elsewhere").chmod(0o711)
    assert brought(tmp_path) == ["permissions", "update", "create"]
    assert (tmp_path / "lib").is_symlink()
    assert not (tmp_path / "elsewhere" / "one.py").is_symlink()
    assert (tmp_path / "elsewhere").stat().st_mode & 0o7777 == 0o755


def test_nobody_reads_in_between_who_must_not(tmp_path, monkeypatch):
    brought(tmp_path)
    modes = []
    monkeypatch.setattr(os, "rename", lambda a, b: modes.append(os.stat(a).st_mode & 0o7777))
    brought(tmp_path, mode="0600", text=b"secret\n")
    assert modes == [0o600, 0o600]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda lib: lib.write_text(""), "lib is no directory, wanted one"),
        (lambda lib: lib.symlink_to("nowhere"), "lib is a link that leads nowhere"),
        (lambda lib: (lib / "one.py").mkdir(parents=True), "one.py is not a regular file"),
    ],
)
def test_what_stands_in_the_way_is_named_and_stays(tmp_path, make, said):
    make(tmp_path / "lib")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(HostError, match=f"llm-01: .*{said}"):
        brought(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_path_is_named_once_and_absolute(tmp_path):
    directories, files = wanted(tmp_path)
    with pytest.raises(HostError, match="named twice"):
        host_files.plan(directories, [*files, files[0]], "llm-01")
    with pytest.raises(HostError, match="wanted an absolute one"):
        host_files.plan([host_files.Directory("lib", access("0755"))], [], "llm-01")


def test_accounts_and_directories_have_to_be_there(tmp_path):
    _directories, files = wanted(tmp_path)
    found = host_files.plan([], files, "llm-01")
    with pytest.raises(HostError, match="lib doesn't exist"):
        host_files.apply(found, "llm-01")
    nobody = find_access("no-such-account", OURS, "0644", "llm-01")
    files = [host_files.File(str(tmp_path / "one"), nobody, b"")]
    found = host_files.plan([], files, "llm-01")  # a dry run may come before the account
    with pytest.raises(HostError, match="the user no-such-account, which doesn't exist"):
        host_files.apply(found, "llm-01")


def test_steps_in_words(tmp_path):
    _directories, files = wanted(tmp_path)
    found = host_files.plan(*wanted(tmp_path), "llm-01")
    told = [host_files.sentence(step, files) for step in found.steps]
    assert told[0].startswith(f"Make the directory {tmp_path}/lib for ")
    assert told[1].startswith(f"Write {tmp_path}/lib/one.py, 4 bytes, ")


def test_bytes_that_are_no_text_are_not_shown(tmp_path):
    found = host_files.plan(*wanted(tmp_path, text=b"\xff\x00"), "llm-01")
    assert found.diff[1]["after"] == host_files.NOT_TEXT
