# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the lab's Python remembers of archives of sources."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[2] / "lab/module_cache"


@pytest.fixture
def answer(tmp_path):
    """Make an archive of one module that holds a number, import it, and return the number."""

    def run(number):
        with zipfile.ZipFile(tmp_path / "modules.zip", "w") as archive:
            archive.writestr("told.py", f"NUMBER = {number}\n")
        done = subprocess.run(
            [sys.executable, "-c", "import told; print(told.__file__, told.NUMBER)"],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(CACHE), str(tmp_path / "modules.zip")]),
                "HX_MODULE_CACHE": str(tmp_path / "cache"),
            },
            check=True,
            capture_output=True,
            text=True,
        )
        path, said = done.stdout.split()
        assert path == f"{tmp_path}/modules.zip/told.py"
        return int(said)

    return run


def kept(tmp_path):
    return sorted((tmp_path / "cache").iterdir())


def test_a_source_is_compiled_once(answer, tmp_path):
    assert answer(1) == 1
    [first] = kept(tmp_path)
    # What is kept is what is used: the code of another number under the first one's hash.
    assert answer(2) == 2
    [other] = set(kept(tmp_path)) - {first}
    first.write_bytes(other.read_bytes())
    assert answer(1) == 2


def test_what_is_cut_off_is_compiled_again(answer, tmp_path):
    assert answer(1) == 1
    [path] = kept(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:10])
    assert answer(1) == 1
    assert path.read_bytes() == whole


def test_a_folder_that_others_can_write_to_is_not_believed(answer, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    assert answer(1) == 1
    assert kept(tmp_path) == []
