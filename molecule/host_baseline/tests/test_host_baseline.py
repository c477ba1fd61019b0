# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

NODE = "/opt/hx-infrastructure/llm-01"


def test_the_account_keeps_its_uid_and_loses_its_shell(llm_01):
    user = llm_01.user("ollama")
    assert user.uid == 999
    assert user.shell == "/usr/sbin/nologin"
    assert "video" in user.groups


@pytest.mark.parametrize(
    "path",
    [
        *(f"{NODE}/{name}" for name in ("backups", "logs/perf/ollama", "services")),
        "/opt/scripts",
        "/opt/logs/services/ollama/perf",
    ],
)
def test_directories_exist_and_nobody_else_can_write(llm_01, path):
    directory = llm_01.file(path)
    assert directory.is_directory
    assert directory.mode & 0o002 == 0


def test_what_was_there_is_still_there(llm_01):
    assert llm_01.file(f"{NODE}/health/notes.txt").content_string == "restart ollama if slow\n"


def oldest_archive(host):
    return sorted(host.run(f"ls {NODE}/backups/*.tgz").stdout.split())[0]


def test_the_archive_holds_configuration_manifests_and_scripts(llm_01):
    index_file = oldest_archive(llm_01).replace(".tgz", ".json")
    index = json.loads(llm_01.file(index_file).content_string)
    paths = {member["path"] for member in index["members"]}
    assert f"{NODE}/config/ollama/ollama.env" in paths
    assert f"{NODE}/scripts/service/ollama/start.sh" in paths
    assert any("manifests" in path and path.endswith("/1.7b") for path in paths)


def test_a_restore_brings_a_lost_file_back(llm_01, tmp_path, playbook):
    archive = oldest_archive(llm_01)
    before = llm_01.file(f"{NODE}/config/ollama/ollama.env").content_string
    llm_01.run(f"rm {NODE}/config/ollama/ollama.env")
    restore = tmp_path / "restore.yml"
    restore.write_text(
        json.dumps(
            [
                {
                    "name": "Restore",
                    "hosts": "llm-01",
                    "gather_facts": False,
                    "tasks": [
                        {
                            "name": "Restore",
                            "hx_infra.llm.host_backup": {"state": "restored", "archive": archive},
                        }
                    ],
                }
            ]
        )
    )
    first = playbook(str(restore))
    assert "changed=1" in first.stdout, first.stdout + first.stderr
    assert llm_01.file(f"{NODE}/config/ollama/ollama.env").content_string == before
    assert "changed=0" in playbook(str(restore)).stdout
