# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

NODE = "/opt/hx-infrastructure/llm-01"


def test_the_server_runs_the_declared_release(llm_01, api):
    assert api(llm_01, "/api/version") == {"version": "0.32.15"}


def test_no_library_of_the_old_release_is_left(llm_01):
    assert llm_01.file("/usr/local/lib/ollama/VERSION").content_string.strip() == "0.32.15"
    assert not llm_01.file("/usr/local/lib/ollama.hx-old").exists
    assert not llm_01.file("/usr/local/lib/.ollama.hx-staging").exists


def test_the_unit_is_active_enabled_and_not_waiting_for_a_reload(llm_01):
    service = llm_01.service("ollama")
    assert service.is_running
    assert service.is_enabled
    shown = llm_01.run("systemctl show ollama -p NeedDaemonReload -p NRestarts").stdout
    assert "NeedDaemonReload=no" in shown
    assert "NRestarts=0" in shown


def test_the_sandbox_is_in_force(llm_01):
    score = llm_01.run("systemd-analyze security ollama.service --no-pager").stdout
    overall = float(re.search(r"Overall exposure level for ollama\.service: ([\d.]+)", score)[1])
    assert overall < 2.0, score
    pid = llm_01.run("systemctl show ollama -p MainPID --value").stdout.strip()
    status = llm_01.file(f"/proc/{pid}/status").content_string
    assert re.search(r"NoNewPrivs:\s+1", status)
    assert re.search(r"CapEff:\s+0+$", status, re.M)
    assert re.search(r"Seccomp:\s+2", status)


def test_the_engine_still_sees_its_gpus_in_the_sandbox(llm_01, api):
    api(llm_01, "/api/generate", {"model": "qwen3:1.7b", "prompt": "hi", "stream": False})
    [model] = [m for m in api(llm_01, "/api/ps")["models"] if m["name"] == "qwen3:1.7b"]
    assert model["size_vram"] == model["size"] > 0


def test_the_environment_file_is_what_the_service_uses(llm_01):
    env = llm_01.file(f"{NODE}/config/ollama/ollama.env")
    assert (env.user, env.group, env.mode) == ("root", "ollama", 0o640)
    assert "MODEL_QWEN3_1_7B" in env.content_string
    pid = llm_01.run("systemctl show ollama -p MainPID --value").stdout.strip()
    environment = llm_01.run(f"tr '\\0' '\\n' </proc/{pid}/environ").stdout
    assert f"OLLAMA_MODELS={NODE}/models/production" in environment
    assert "OLLAMA_NOPRUNE=1" in environment


def test_a_service_older_than_its_files_is_restarted_by_the_next_run(llm_01, playbook):
    # As if a run had been killed between writing the file and restarting.
    before = llm_01.run("systemctl show ollama -p MainPID --value").stdout
    llm_01.run("touch /etc/systemd/system/ollama.service.d/20-hx-sandbox.conf")
    run = playbook("molecule/ollama/converge.yml")
    assert run.returncode == 0, run.stdout + run.stderr
    assert llm_01.run("systemctl show ollama -p MainPID --value").stdout != before
    assert "changed=0" in playbook("molecule/ollama/converge.yml").stdout
