# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import io
import os
import tarfile

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _release
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("ollama version is 0.11.4\n", "0.11.4"),
        ("ollama version is 0.11.4\nWarning: client version is 0.32.15\n", "0.32.15"),
        (
            "Warning: could not connect to a running Ollama instance\n"
            "Warning: client version is 0.11.4\n",
            "0.11.4",
        ),
        ("ollama version is 0.33.0-rc2\n", "0.33.0-rc2"),
        ("command not understood\n", ""),
        ("", ""),
    ],
)
def test_parse_version(output, version):
    assert _release.parse_version(output) == version


def test_installed_version_of_a_missing_or_failing_binary_is_empty(tmp_path):
    assert _release.installed_version(str(tmp_path / "none"), lambda _argv: (0, "", "")) == ""
    binary = tmp_path / "ollama"
    binary.write_text("")
    binary.chmod(0o755)
    assert _release.installed_version(str(binary), lambda _argv: (1, "version is 1.2.3", "")) == ""


@pytest.mark.parametrize("text", ["", "md5:0", "sha256:xyz", "a" * 63])
def test_parse_checksum_refuses(text):
    with pytest.raises(HostError, match="wanted sha256:<64 hex digits>"):
        _release.parse_checksum(text)


@pytest.mark.parametrize(
    ("found", "unfinished", "actions"),
    [
        ("0.11.4", False, []),
        ("0.11.4", True, ["download", "install"]),
        ("0.9.0", False, ["download", "install"]),
        ("", False, ["download", "install"]),
    ],
)
def test_plan(found, unfinished, actions):
    plan = _release.plan(found, "0.11.4", unfinished, "http://x/a.tgz", "/usr/local")
    assert [item["action"] for item in plan] == actions
    assert len(_release.sentences(plan)) == len(actions)


def make_archive(path, names):
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(name)
            info.mode = 0o755
            tar.addfile(info, io.BytesIO(name.encode()))
    return str(path)


def no_run(argv):
    raise AssertionError(f"nothing should be run, but {argv}")


def test_unpack_and_put_in_place_replace_the_whole_library_folder(tmp_path):
    prefix = tmp_path / "usr"
    (prefix / "lib" / "ollama").mkdir(parents=True)
    (prefix / "lib" / "ollama" / "stale.so").write_text("old")
    archive = make_archive(tmp_path / "r.tgz", ["bin/ollama", "lib/ollama/new.so"])
    staging = str(tmp_path / "staging")
    _release.unpack(archive, staging, no_run)
    _release.put_in_place(staging, str(prefix))
    assert os.listdir(prefix / "lib" / "ollama") == ["new.so"]
    assert (prefix / "bin" / "ollama").exists()
    assert not os.path.exists(staging)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["bin/ollama", "../../etc/passwd"], "leads outside"),
        (["bin/ollama"], "holds no lib/ollama"),
        (["readme"], "holds no bin/ollama"),
    ],
)
def test_unpack_refuses_what_is_no_release(tmp_path, names, message):
    archive = make_archive(tmp_path / "r.tgz", names)
    with pytest.raises(HostError, match=message):
        _release.unpack(archive, str(tmp_path / "staging"), no_run)


def test_unpack_names_an_unreadable_archive(tmp_path):
    path = tmp_path / "r.tgz"
    path.write_text("this is a proxy's error page")
    with pytest.raises(HostError, match="no readable archive"):
        _release.unpack(str(path), str(tmp_path / "staging"), no_run)


def test_a_wrong_checksum_removes_the_download(tmp_path):
    path = tmp_path / "r.tgz"
    path.write_text("x")
    with pytest.raises(HostError, match=r"wanted 0{64}"):
        _release.verify_archive(str(path), "0" * 64)
    assert not path.exists()


@pytest.mark.parametrize("line", ["{0}  ./a.tgz", "{0}  a.tgz", "{0} *a.tgz"])
def test_checksum_from_list_knows_the_spellings(line):
    text = "f" * 64 + "  ./b.tgz\n" + line.format("a" * 64) + "\n"
    assert _release.checksum_from_list(text, "a.tgz", "http://x/list") == "a" * 64


def test_checksum_from_list_names_the_file_that_is_missing():
    with pytest.raises(HostError, match=r"http://x/list has no line for a\.tgz"):
        _release.checksum_from_list("f" * 64 + "  ./b.tgz\n", "a.tgz", "http://x/list")


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.SYMTYPE, "../../../etc"),
        (tarfile.LNKTYPE, "../etc/passwd"),
        (tarfile.CHRTYPE, ""),
    ],
)
def test_unpack_refuses_what_leads_outside(tmp_path, kind, target):
    path = tmp_path / "r.tgz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("lib/ollama/way")
        info.type, info.linkname = kind, target
        tar.addfile(info)
    with pytest.raises(HostError, match=r"leads outside|no file, folder or link"):
        _release.unpack(str(path), str(tmp_path / "staging"), no_run)


def test_unpack_keeps_links_inside_and_takes_no_foreign_owner_or_mode(tmp_path):
    path = tmp_path / "r.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, mode in (("bin/ollama", 0o6777), ("lib/ollama/a.so.1.2", 0o666)):
            info = tarfile.TarInfo(name)
            info.mode, info.uid, info.gid, info.uname = mode, 12345, 12345, "builder"
            tar.addfile(info)
        link = tarfile.TarInfo("lib/ollama/a.so")
        link.type, link.linkname = tarfile.SYMTYPE, "a.so.1.2"
        tar.addfile(link)
    staging = tmp_path / "staging"
    _release.unpack(str(path), str(staging), no_run)
    status = (staging / "bin" / "ollama").stat()
    assert (status.st_mode & 0o7777, status.st_uid) == (0o755, os.getuid())
    assert (staging / "lib/ollama/a.so.1.2").stat().st_mode & 0o777 == 0o644
    assert os.readlink(staging / "lib/ollama/a.so") == "a.so.1.2"
