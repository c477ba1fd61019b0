# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module host_files with its action plugin, run by ansible-playbook on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
NOT_TEXT = b"\x89PNG\r\n\x1a\n\x00\xff"


class Play:
    """A playbook of one task, beside a folder with the controller's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = folder / "host"
        self.host.mkdir()
        (folder / "files").mkdir()
        (folder / "files/picture.png").write_bytes(NOT_TEXT)

    def run(self, *arguments: str, each: list | None = None, **options: object) -> dict:
        """Run the task, for each item where some are given, and return its result."""
        mine = {"owner": str(os.getuid()), "group": str(os.getgid())}
        task = {"hx_infra.llm.host_files": {**mine, **options}, "register": "done"}
        keep = {
            "content": "{{ done | to_json }}",
            "dest": str(self.folder / "done.json"),
            "mode": "0600",
        }
        play = {
            "hosts": "localhost",
            "gather_facts": False,
            "tasks": [
                {**task, "ignore_errors": True, **({"loop": each} if each else {})},
                {"ansible.builtin.copy": keep, "check_mode": False, "diff": False},
            ],
        }
        (self.folder / "play.yml").write_text(json.dumps([play]))
        ended = subprocess.run(
            [
                *(PLAYBOOK, "--connection", "local", "--inventory", "localhost,", *arguments),
                *(self.folder / "play.yml", "-e", f"ansible_python_interpreter={sys.executable}"),
            ],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        self.said = ended.stdout
        return json.loads((self.folder / "done.json").read_text())

    def wanted(self) -> dict:
        """Return the options for a directory with a text and a picture."""
        lib = self.host / "lib"
        return {
            "directories": [{"path": str(lib)}],
            "files": [
                {"path": str(lib / "settings.json"), "content": '{"a": 1}\n', "mode": "0600"},
                {"path": str(lib / "picture.png"), "src": "picture.png"},
            ],
        }


@pytest.fixture
def play(tmp_path):
    return Play(tmp_path)


def test_everything_comes_in_one_run_and_only_once(play):
    first = play.run(**play.wanted())
    assert first["changed"]
    assert [step["action"] for step in first["plan"]] == ["make_directory", "create", "create"]
    settings, picture = play.host / "lib/settings.json", play.host / "lib/picture.png"
    assert settings.read_text() == '{"a": 1}\n'
    assert settings.stat().st_mode & 0o7777 == 0o600
    assert picture.read_bytes() == NOT_TEXT
    assert picture.stat().st_mode & 0o7777 == 0o644
    before = settings.stat().st_mtime_ns
    second = play.run(**play.wanted())
    assert (second["changed"], second["plan"]) == (False, [])
    assert settings.stat().st_mtime_ns == before


def test_a_dry_run_says_what_the_real_one_does_and_writes_nothing(play):
    dry = play.run("--check", "--diff", **play.wanted())
    assert list(play.host.iterdir()) == []
    assert '+{"a": 1}' in play.said
    assert "not shown: it is no text" in play.said
    real = play.run(**play.wanted())
    assert dry["changed"]
    assert dry["plan"] == real["plan"]
    assert "diff" not in real  # nobody asked for it


def test_a_file_that_is_refused_keeps_everything_as_it_was(play):
    play.run(**play.wanted())
    wanted = play.wanted()
    wanted["files"][0]["content"] = "{"
    wanted["files"].insert(0, {"path": str(play.host / "lib/good.json"), "content": "{}\n"})
    wanted["files"].pop()
    done = play.run(**wanted, validate="python3 -m json.tool %s /dev/null")
    assert done["failed"]
    assert f"{play.host}/lib/settings.json is refused by 'python3 -m json.tool" in done["msg"]
    assert not (play.host / "lib/good.json").exists()
    assert (play.host / "lib/settings.json").read_text() == '{"a": 1}\n'


def test_entries_that_cannot_be_packed_are_named(play):
    path = str(play.host / "one")
    refused = [
        ({}, "found neither src nor content, wanted one of the two"),
        ({"src": "picture.png", "content": ""}, "found src and content, wanted one of the two"),
        ({"content": {"a": 1}}, "found data as the content, wanted text"),
        ({"src": "nothing.png"}, "nothing.png"),
    ]
    each = [{"path": path, **entry} for entry, _said in refused]
    done = play.run(each=each, files=["{{ item }}"])
    assert len(done["results"]) == len(refused)
    for result, (_entry, said) in zip(done["results"], refused, strict=True):
        assert result["failed"]
        assert said in result["msg"]
    assert list(play.host.iterdir()) == []


def test_the_host_says_what_is_wrong_with_a_path(play):
    (play.host / "lib").write_text("a file")
    done = play.run(**play.wanted())
    assert done["failed"]
    assert f"{play.host}/lib is no directory, wanted one" in done["msg"]
    assert (play.host / "lib").read_text() == "a file"


def test_the_module_alone_says_that_its_action_packs(play, tmp_path):
    """As `ansible.legacy` or another action plugin would call it."""
    argv = [sys.executable, "-m", "ansible_collections.hx_infra.llm.plugins.modules.host_files"]
    given = {"ANSIBLE_MODULE_ARGS": {"files": [{"path": str(tmp_path / "one"), "content": "x"}]}}
    ended = subprocess.run(
        argv,
        input=json.dumps(given),
        env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "has no content that can be unpacked" in json.loads(ended.stdout)["msg"]
