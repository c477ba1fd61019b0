# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Models that another host has: found, served for the run alone, named in the environment file."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import make_store, start_ollama

from ansible_collections.hx_infra.llm.plugins.module_utils import _env_file

ROOT = Path(__file__).resolve().parent.parent.parent
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
ONE, TWO = "tiny:1b", "tiny-think:1b"
# One unit at a time is all that these know.
SYSTEMD = {
    "systemd-run": 'while [ "$1" != -- ]; do shift; done\nshift\n'
    'setsid "$@" </dev/null >/dev/null 2>&1 &\necho $! >"$UNIT"\n',
    "systemctl": 'pid=$(cat "$UNIT" 2>/dev/null)\ncase $1 in\n'
    'is-active) if [ -d "/proc/${pid:-none}" ]; then echo active; else echo inactive; fi ;;\n'
    'stop) kill "$pid"; rm "$UNIT" ;;\nesac\n',
    "journalctl": "",
}


class Fleet:
    """llm-01, whose play it is; llm-02 with the models; llm-03, which gives no answer."""

    def __init__(self, folder, ollama, peer_store):
        self.folder = folder
        self.ollama = ollama
        self.env_file = folder / "ollama.env"
        self.unit = folder / "unit"
        self.programs = folder / "bin"
        self.programs.mkdir()
        for name, text in SYSTEMD.items():
            (self.programs / name).write_text(f"#!/bin/sh\n{text}")
            (self.programs / name).chmod(0o755)
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        silent = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_ssh_retries": 0}
        peer = {**local, "llm_address": "127.0.0.1", "llm_models_dir": str(peer_store)}
        hosts = {"llm-01": local, "llm-02": peer, "llm-03": silent}
        (folder / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
        self.variables = {
            "models_catalog": [{"name": ONE}, {"name": TWO}],
            "models_store": str(ollama.store),
            "models_url": ollama.url,
            "models_registry": "127.0.0.1:1",  # nobody there
            "models_registry_insecure": True,
            "models_reserve_bytes": 1024,
            "models_peers": ["llm-03", "llm-02"],
            "models_peer_store": "/nowhere",  # llm-02 declares its own
            "models_address": "127.0.0.1",
            "models_state_dir": str(folder / "state"),
        }

    def play(self, *arguments):
        """Reconcile and write the environment file; return exit status, output and the plan."""
        shown = self.folder / "result.json"
        shown.unlink(missing_ok=True)
        ollama = {"name": "hx_infra.llm.ollama"}
        file = {"ollama_env_file": str(self.env_file), "ollama_catalog": "{{ models_left }}"}
        role = "ansible.builtin.import_role"
        tasks = [
            {"name": "Models", role: {"name": "hx_infra.llm.models"}, "vars": self.variables},
            {"name": "File", role: {**ollama, "tasks_from": "environment"}, "vars": file},
            {"name": "Compare", role: {**ollama, "tasks_from": "compare"}, "vars": file},
            {
                "name": "Compare with what isn't there",
                "block": [
                    {
                        "name": "Compare",
                        role: {**ollama, "tasks_from": "compare"},
                        "vars": {**file, "ollama_catalog": [{"name": "phi3"}]},
                    }
                ],
                "rescue": [
                    {
                        "name": "Say what it said",
                        "ansible.builtin.debug": {"msg": "{{ ansible_failed_result.msg }}"},
                    }
                ],
            },
            {
                "name": "Show what was planned and what came of it",
                "ansible.builtin.copy": {
                    "content": "{{ __models_result_catalog | to_json }}",
                    "dest": str(shown),
                },
                "check_mode": False,
                "changed_when": False,
            },
        ]
        book = [
            {"hosts": "llm-01", "gather_facts": False, "any_errors_fatal": True, "tasks": tasks}
        ]
        (self.folder / "play.yml").write_text(json.dumps(book))
        done = subprocess.run(
            [str(PLAYBOOK), "-i", "hosts.json", "play.yml", *arguments],
            cwd=self.folder,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                "PATH": f"{self.programs}:{os.environ['PATH']}",
                "UNIT": str(self.unit),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        found = json.loads(shown.read_text()) if shown.exists() else {}
        return done.returncode, done.stdout + done.stderr, found


@pytest.fixture
def fleet(tmp_path):
    make_store(tmp_path / "peer", "tiny")
    ollama = start_ollama(tmp_path, "", env={"OLLAMA_NOPRUNE": "1"})
    found = Fleet(tmp_path, ollama, tmp_path / "peer")
    settings = _env_file.Settings(str(ollama.store), ollama.url, {"OLLAMA_KEEP_ALIVE": "5m"})
    found.env_file.write_text(_env_file.render([_env_file.Model("phi3:latest", 1)], settings))
    yield found
    ollama.stop()


def test_what_a_peer_has_comes_from_there_and_from_then_on_no_peer_is_asked(fleet):
    before = fleet.env_file.read_text()
    status, output, _plan = fleet.play("--check")
    assert status == 0, output
    assert "llm-03 could not be asked which models it has" in output
    assert f"llm-02 has {ONE}, {TWO}" in output
    assert fleet.env_file.read_text() == before
    assert not (fleet.folder / "state").exists()
    assert not fleet.unit.exists()
    assert "env_file_catalog" not in output, "what isn't written yet is compared"

    status, output, result = fleet.play()
    assert status == 0, output
    assert [item["source"] for item in result["outcomes"]] == ["peer llm-02", "peer llm-02"]
    assert not fleet.unit.exists(), "the peer serves on"
    text = fleet.env_file.read_text()
    assert f'OLLAMA_MODELS_AVAILABLE="{ONE},{TWO}"' in text
    assert "phi3" not in text
    assert 'OLLAMA_KEEP_ALIVE="5m"' in text

    orphan = fleet.ollama.store / "blobs" / f"sha256-{hashlib.sha256(b'orphan').hexdigest()}"
    orphan.write_bytes(b"orphan")
    status, output, result = fleet.play()
    assert status == 0, output
    assert "changed=0" in output
    assert result["actions"] == []
    [ledger] = (fleet.folder / "state" / "store").iterdir()
    remembered = json.loads(ledger.read_text())["blobs"]
    assert remembered
    assert orphan.name[len("sha256-") :] not in remembered, "blobs of no declared model are read"
    assert "llm-02" not in output
    assert "llm-03" not in output
    differs = f"llm-01: {fleet.env_file}: env_file_catalog is {ONE}, {TWO}, wanted phi3:latest"
    assert differs in " ".join(output.split())
