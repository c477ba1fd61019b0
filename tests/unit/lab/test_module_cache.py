# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the lab's Python remembers: what sources compile to, what they import, what files say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ansible.executor import module_common

CACHE = Path(__file__).parents[2] / "lab/module_cache"
since_219 = pytest.mark.skipif(
    not hasattr(module_common, "_compile_module_ast"), reason="ansible-core before 2.19"
)


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


MODULE = """
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.told_{name} import NUMBER
if __name__ == "__main__":
    AnsibleModule({{}}).exit_json(number=NUMBER)
"""


@pytest.fixture
def module(tmp_path):
    """Run a module that imports the source of a name, and return the result.

    The sources ``one`` and ``two`` hold these numbers.
    """
    (tmp_path / "ansible.cfg").write_text("")
    for folder in ("library", "utils"):
        (tmp_path / folder).mkdir()
    for number, name in enumerate(("one", "two"), 1):
        (tmp_path / f"utils/told_{name}.py").write_text(f"NUMBER = {number}\n")

    def run(name):
        (tmp_path / "library/told.py").write_text(MODULE.format(name=name))
        done = subprocess.run(
            ["ansible", "localhost", "-c", "local", "-m", "told"],
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
                "ANSIBLE_LIBRARY": str(tmp_path / "library"),
                "ANSIBLE_MODULE_UTILS": str(tmp_path / "utils"),
                "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
                "PYTHONPATH": str(CACHE),
                "HX_MODULE_CACHE": str(tmp_path / "cache"),
            },
            check=False,
            capture_output=True,
            text=True,
        )
        return done.stdout + done.stderr

    return run


@since_219
def test_what_a_source_imports_is_found_once(module, tmp_path):
    assert '"number": 1' in module("one")
    assert '"number": 2' in module("two")  # a changed source is another one
    word = "told_two"
    [kept_imports] = [
        path for path in kept(tmp_path) if path.suffix == ".imports" and word in path.read_text()
    ]
    # What is kept is what is used: with no imports, the archive lacks one.
    whole = kept_imports.read_text()
    kept_imports.write_text(json.dumps([[], []]))
    assert "No module named 'ansible.module_utils.told_two'" in module("two")
    kept_imports.write_text(whole[:10])
    assert '"number": 2' in module("two")
    assert kept_imports.read_text() == whole


LOAD = """
import sys
from ansible.parsing.dataloader import DataLoader
loader = DataLoader()
first, again = (loader.load_from_file(sys.argv[1], "vaulted", unsafe=True) for _time in range(2))
copied = loader.load_from_file(sys.argv[1])
print(first is again, copied == first, *(copied[name] is first[name] for name in ("list", "text")))
"""


@since_219
def test_vars_files_are_parsed_once_and_copies_share_nothing_but_texts(tmp_path):
    (tmp_path / "vars.yml").write_text("list: [a, b]\ntext: '{{ c }}'\n")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "vars.yml")],
        env={**os.environ, "PYTHONPATH": str(CACHE), "HX_MODULE_CACHE": str(tmp_path / "cache")},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["True", "True", "False", "True"]
