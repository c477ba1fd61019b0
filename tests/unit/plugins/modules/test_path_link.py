# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import socket

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _links
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.modules import path_link

MTIME = 1_755_195_444  # 2025-08-14 18:17:24 UTC


@pytest.fixture
def place(tmp_path):
    target = tmp_path / "shared.sh"
    target.write_text("shared\n")
    return tmp_path / "start.sh", target


def run(path, target, check_mode=False, **options):
    params = {
        "path": str(path),
        "target": str(target),
        "keep": True,
        "require_target": True,
        **options,
    }
    return path_link.run(params, "llm-01", check_mode)


def assert_predicted_then_done(path, target):
    before = snapshot(path.parent)
    predicted = run(path, target, check_mode=True)
    assert snapshot(path.parent) == before
    done = run(path, target)
    assert predicted == done
    again = run(path, target)
    assert (again["changed"], again["actions"], again["plan"]) == (False, [], [])
    assert os.readlink(path) == str(target)
    return done


def snapshot(directory):
    return {
        entry.name: os.readlink(entry) if entry.is_symlink() else entry.stat().st_ino
        for entry in os.scandir(directory)
    }


def test_nothing_there(place):
    done = assert_predicted_then_done(*place)
    assert done["actions"] == [f"Point {place[0]} to {place[1]}"]


def test_another_link_there(place):
    path, target = place
    path.symlink_to("/nowhere")
    done = assert_predicted_then_done(path, target)
    assert done["previous_target"] == "/nowhere"
    assert done["actions"] == [f"Point {path} to {target} instead of /nowhere"]


def test_a_file_there_is_kept(place):
    path, target = place
    path.write_text("local\n")
    os.utime(path, (MTIME, MTIME))
    path.chmod(0o777)
    done = assert_predicted_then_done(path, target)
    kept = path.with_name("start.sh.local-20250814T181724Z.bak")
    assert done["kept_file"] == str(kept)
    assert kept.read_text() == "local\n"
    assert kept.stat().st_mode & 0o777 == 0o755
    assert [step["action"] for step in done["plan"]] == ["keep_file", "replace_file"]


def test_a_second_file_of_the_same_time_gets_a_name_of_its_own(place):
    path, target = place
    for number, text in enumerate(("one", "two", "two")):
        path.unlink(missing_ok=True)
        path.write_text(text)
        os.utime(path, (MTIME, MTIME))
        kept = run(path, target)["kept_file"]
        suffix = "" if number == 0 else ".2"
        assert kept == f"{path}.local-20250814T181724Z{suffix}.bak"


def test_a_run_cut_off_after_keeping_the_file_is_completed(place):
    path, target = place
    path.write_text("local\n")
    os.utime(path, (MTIME, MTIME))
    plan = run(path, target, check_mode=True)["plan"]
    _links.apply_link(plan[:1], "llm-01")
    path.with_name(".start.sh.hx-new").symlink_to("left by the run that was cut off")
    done = run(path, target)
    assert done["plan"] == plan
    assert sorted(snapshot(path.parent)) == [
        "shared.sh",
        "start.sh",
        "start.sh.local-20250814T181724Z.bak",
    ]


def test_a_file_there_is_an_error_without_keep(place):
    path, target = place
    path.write_text("local\n")
    with pytest.raises(HostError, match="is a file, wanted a symbolic link"):
        run(path, target, keep=False)
    assert path.read_text() == "local\n"


def test_an_empty_directory_is_replaced(place):
    path, target = place
    path.mkdir()
    done = assert_predicted_then_done(path, target)
    assert [step["action"] for step in done["plan"]] == ["remove_empty_directory", "create_link"]


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_directory_with_content_is_never_touched(place, check_mode):
    path, target = place
    path.mkdir()
    (path / "file").touch()
    with pytest.raises(HostError, match=f"llm-01: {path} is a directory with content"):
        run(path, target, check_mode)
    assert (path / "file").exists()


def test_a_mount_point_is_never_touched(place, monkeypatch):
    path, target = place
    path.mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda name: name == str(path))
    with pytest.raises(HostError, match="is a mount point"):
        run(path, target)


def test_a_special_file_is_never_touched(place, monkeypatch):
    path, target = place
    monkeypatch.chdir(path.parent)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)
        with pytest.raises(HostError, match="is a special file"):
            run(path, target)


def test_missing_target(place):
    path, _target = place
    with pytest.raises(HostError, match="doesn't exist"):
        run(path, "/no/such/target")
    assert not path.is_symlink()
    assert run(path, "/no/such/target", check_mode=True)["changed"]
    assert run(path, "/no/such/target", require_target=False)["changed"]


def test_missing_parent_directory_is_fine_in_check_mode_only(place, tmp_path):
    path = tmp_path / "later" / "start.sh"
    assert run(path, place[1], check_mode=True)["changed"]
    with pytest.raises(HostError, match=r"the directory .* doesn't exist"):
        run(path, place[1])


def test_relative_target(place):
    path, _target = place
    assert run(path, "shared.sh")["changed"]
    assert path.read_text() == "shared\n"
    assert not run(path, "shared.sh")["changed"]


@pytest.mark.parametrize(
    ("path", "target"),
    [("relative", "/x"), ("/", "/x"), ("/x/y", ""), ("/x/y", "y"), ("/x/y", "/x/../x/y")],
)
def test_impossible_links(path, target):
    with pytest.raises(HostError):
        run(path, target, check_mode=True)
