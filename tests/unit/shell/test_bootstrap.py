# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The virtual environment of the locked tools, made with stand-ins for Python and pip."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "tools" / "bootstrap.sh"
# In place of an interpreter: makes a virtual environment of two stand-ins more.
PYTHON = f"""#!/usr/bin/env bash
set -eu
[ "$1" = -m ] || exit 0 # the version is right
mkdir -p "${{!#}}/bin"
printf '%s\\n' '#!/bin/sh' 'exec {sys.executable} "$@"' >"${{!#}}/bin/python"
printf '%s\\n' '#!/bin/sh' 'test ! -e "$BROUGHT" || cp -r "$BROUGHT" "${{0%/bin/pip}}/lib"' \\
  >"${{!#}}/bin/pip"
chmod +x "${{!#}}/bin/"*
"""
STANDS = {"python3.11": PYTHON, "git": "#!/bin/sh\n", "apt-get": "#!/bin/false\n"}


class Tree:
    """A checkout with nothing but the script."""

    def __init__(self, root):
        self.venv = root / "tree" / ".venv"
        self._brought = root / "brought"
        self._stands = root / "stands"
        self._stands.mkdir()
        for name, text in STANDS.items():
            (self._stands / name).write_text(text)
            (self._stands / name).chmod(0o755)
        tools = root / "tree" / "tools"
        tools.mkdir(parents=True)
        self._script = shutil.copy(SCRIPT, tools)
        (tools / "requirements-dev.txt").write_text("one==1\n")

    def make(self, **brought):
        """Make the environment; pip brings these files. Return what was said, and complained of."""
        for name, text in brought.items():
            self._brought.mkdir(exist_ok=True)
            (self._brought / f"{name}.py").write_text(text)
        done = subprocess.run(
            [str(self._script), "python"],
            env={"PATH": f"{self._stands}:/usr/bin:/bin", "BROUGHT": str(self._brought)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == "bootstrap: ready"
        return done.stdout.splitlines()[:-1], done.stderr.splitlines()

    def compiled(self):
        return sorted(path.name.partition(".")[0] for path in self.venv.glob("lib/**/*.pyc"))


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def test_packages_are_compiled_once_and_nothing_is_complained_of(tree):
    said, complaints = tree.make(good="good = 1\n")
    assert len(said) == 1
    assert complaints == []
    assert tree.compiled() == ["good"]
    assert tree.make(new="new = 1\n") == ([], [])
    assert tree.compiled() == ["good"]


def test_what_cannot_be_compiled_is_named_in_one_line(tree):
    _said, [complaint] = tree.make(bad="def\n", good="good = 1\n", worse="'")
    for name in ("bad", "worse"):
        assert f"'{tree.venv}/lib/{name}.py'" in complaint
    assert "good" not in complaint.replace(str(tree.venv), "")
    assert tree.compiled() == ["good"]
    assert tree.make() == ([], [])


def test_packages_that_cannot_be_listed_are_named_too(tree):
    _said, [complaint] = tree.make()
    assert f"Can't list '{tree.venv}/lib'" in complaint
