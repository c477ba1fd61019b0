# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module model_store_info on a damaged store, beside a serving engine, and as a task."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from catalog_host import Catalog
from harness import make_store, start_ollama
from module_process import ROOT, run_module

PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
SAID = "{{ found.totals.verified_blobs }} of {{ found.verification.read }} blobs"
VOLATILE = ("read_at", "verification", "sees_all_processes")


def run(**args):
    """Run the module and return its result, failed or not."""
    return run_module("model_store_info", args, timeout_s=60)


def steady(result):
    """Leave out what differs between two looks at the same store."""
    rows = [{**row, "age_s": 0} for row in result["partials"]]
    kept = {key: value for key, value in result.items() if key not in VOLATILE}
    return {**kept, "partials": rows}


@pytest.mark.parametrize("version", ["0.11.4", "0.32.15"])
def test_a_damaged_store_beside_a_serving_engine(tmp_path, version):
    server = {"version": version, "env": {"OLLAMA_NOPRUNE": "1"}, "partials": 1}
    with start_ollama(tmp_path, "tiny", **server) as ollama:
        catalog = Catalog(ollama, None)
        catalog.age_partials()
        weights = catalog.weights("tiny:1b")
        data = bytearray(weights.read_bytes())
        data[len(data) // 2] ^= 1
        weights.write_bytes(data)
        (catalog.store / "manifests" / "notes.txt").write_text("x")
        options = {"store": str(catalog.store), "state_dir": str(tmp_path / "state")}
        before = catalog.tree()
        serving = run(**options, verify="full", idle_io=True, fail_on="FAIL")
        assert catalog.tree() == before
        assert serving["failed"] is True
        assert "store_blobs" in serving["msg"]
        assert catalog.names() == ["tiny-think:1b", "tiny:1b"]  # the engine hasn't noticed
    rows = {row["name"]: row for row in serving["models"]}
    assert (rows["tiny:1b"]["whole"], rows["tiny:1b"]["verified"]) == (False, False)
    assert (rows["tiny-think:1b"]["whole"], rows["tiny-think:1b"]["verified"]) == (True, True)
    assert serving["verification"]["corrupt"] == [weights.name[len("sha256-") :]]
    assert serving["partials"]
    assert serving["stray"] == ["manifests/notes.txt"]
    stopped = run(**options, verify="changed")
    assert not stopped.get("failed")
    assert stopped["verification"]["read"] == 1  # the corrupt one; the others are remembered
    for result in (serving, stopped):
        for key in ("failed", "msg", "invocation"):
            result.pop(key, None)
    assert steady(stopped) == steady(serving)


def test_as_a_task_whose_job_reads_the_blobs(tmp_path):
    store = tmp_path / "models"
    make_store(store)
    options = {"store": str(store), "state_dir": str(tmp_path / "state"), "verify": "full"}
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [
            {"hx_infra.llm.model_store_info": options, "register": "found"},
            {"ansible.builtin.debug": {"msg": SAID}},
        ],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    ended = subprocess.run(
        [
            *(PLAYBOOK, "--connection", "local", "--inventory", "localhost,"),
            *(tmp_path / "play.yml", "-e", f"ansible_python_interpreter={sys.executable}"),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    blobs = len(list((store / "blobs").iterdir()))
    assert f"{blobs} of {blobs} blobs" in ended.stdout
