# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The drifted llm-01 after the role: disk, store, links, what is kept, and a reboot."""

from __future__ import annotations

import json
import time

NODE = "/opt/hx-infrastructure/llm-01"
MOUNT = "/data/llm_bulk_storage"
STORE = f"{MOUNT}/ollama/models"
OLD = f"{NODE}/models/production"
MODELS = ["llama3.2:3b", "mistral-small3.2:latest", "qwen3:1.7b"]


def _served(llm_01, api):
    return sorted(model["name"] for model in api(llm_01, "/api/tags")["models"])


def test_disk_is_mounted_at_its_place_alone(llm_01):
    lines = llm_01.check_output("grep /dev/sda1 /proc/self/mountinfo").splitlines()
    assert [line.split()[4] for line in lines] == [MOUNT]
    assert llm_01.service("data-llm_bulk_storage.mount").is_enabled


def test_nothing_contradicts_the_mount(llm_01):
    active = llm_01.run("grep -v '^#' /etc/fstab").stdout
    assert "sda1" not in active
    kept = llm_01.check_output("ls /var/lib/hx-llm/kept")
    assert "fstab." in kept
    assert "llm_bulk_storage.mount." in kept
    units = llm_01.check_output("ls /etc/systemd/system").split()
    assert [unit for unit in units if unit.endswith(".mount")] == ["data-llm_bulk_storage.mount"]


def test_no_file_of_the_disk_is_lost(llm_01):
    assert llm_01.check_output(f"find {MOUNT}/archive -type f | wc -l") != "0"
    assert llm_01.file(f"{NODE}/data/llm_bulk_storage").linked_to == MOUNT


def test_marker_names_the_disk(llm_01):
    marker = json.loads(llm_01.file(f"{MOUNT}/.hx-llm-store.json").content_string)
    assert marker["store_id"] == "llm-01"
    assert marker["uuid"] == llm_01.check_output("blkid -p -o value -s UUID /dev/sda1")


def test_paths_lead_to_the_store(llm_01):
    assert llm_01.check_output("readlink /mnt/active_llm_models") == STORE
    assert llm_01.check_output(f"readlink {OLD}") == "/mnt/active_llm_models"
    for path in ("/mnt/active_llm_models", OLD, f"{NODE}/data/llm_bulk_storage/ollama/models"):
        assert llm_01.check_output(f"readlink -f {path}") == STORE


def test_every_blob_has_the_digest_of_its_name(llm_01):
    lines = llm_01.check_output(
        f"cd {STORE}/blobs && sha256sum $(ls | grep -E '^sha256-[0-9a-f]{{64}}$')"
    ).splitlines()
    assert len(lines) >= 10
    for line in lines:
        digest, name = line.split()
        assert name == f"sha256-{digest}"


def test_store_belongs_to_the_engine(llm_01):
    others = llm_01.check_output(f"find {STORE} ! -user ollama -o ! -group ollama -o -perm /022")
    assert others == ""


def test_old_tree_is_kept_untouched_and_read_only(llm_01):
    kept = llm_01.check_output(f"ls -d {OLD}.hx-retained-*")
    assert llm_01.check_output(f"find {kept} ! -type l -perm /222") == ""
    assert llm_01.run(f"diff -r {kept} {STORE}").rc == 0
    assert llm_01.check_output(f"find {kept} -user agent0 | wc -l") != "0"


def test_nothing_is_left_behind(llm_01):
    assert llm_01.check_output(f"find {MOUNT} -name '*.hx-*' ! -name '.hx-llm-store.json'") == ""
    assert llm_01.check_output("find /var/lib/hx-llm -name '*models.json'") == ""


def test_engine_serves_the_same_models(llm_01, api):
    assert _served(llm_01, api) == MODELS


def test_everything_is_there_after_a_reboot(llm_01, api, reboot):
    reboot("llm-01")
    lines = llm_01.check_output("grep /dev/sda1 /proc/self/mountinfo").splitlines()
    assert [line.split()[4] for line in lines] == [MOUNT]
    deadline = time.monotonic() + 30
    while llm_01.run("curl -sf http://127.0.0.1:11434/api/version").rc:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert _served(llm_01, api) == MODELS
