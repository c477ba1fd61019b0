# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which files are open."""

from __future__ import annotations

import os

from ansible_collections.hx_infra.llm.plugins.module_utils._open_files import open_inodes


def test_open_files_are_seen(tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    with path.open() as stream:
        status = os.fstat(stream.fileno())
        assert (status.st_dev, status.st_ino) in open_inodes()[0]
    assert (status.st_dev, status.st_ino) not in open_inodes()[0]


def test_processes_that_went_meanwhile_are_no_gap(tmp_path):
    (tmp_path / "1").mkdir()
    fds = tmp_path / "2" / "fd"
    fds.mkdir(parents=True)
    (fds / "0").symlink_to("nowhere")
    (fds / "1").symlink_to(tmp_path)
    status = tmp_path.stat()
    assert open_inodes(str(tmp_path)) == ({(status.st_dev, status.st_ino)}, True)


def test_processes_of_others_are_one(tmp_path, monkeypatch):
    (tmp_path / "1" / "fd").mkdir(parents=True)
    real = os.listdir

    def listdir(path):
        if str(path).endswith("/fd"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert open_inodes(str(tmp_path)) == (set(), False)
