# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an operator may rely on after ``remediate.yml`` on the drifted llm-01."""

from __future__ import annotations

import json
import re

import pytest

NODE = "/opt/hx-infrastructure/llm-01"
BULK = "/data/llm_bulk_storage"
STORE = f"{BULK}/ollama/models"
MODELS = {"llama3.2:3b", "qwen3:1.7b", "mistral-small3.2:latest"}
OTHERS = {"phi3:latest", "gemma2:2b", "cogito:32b", "deepcoder:14b", "dolphin3:8b"}


def output(host, command):
    result = host.run(command)
    assert result.rc == 0, result
    return result.stdout.strip()


def test_the_disk_is_at_its_canonical_mount(llm_01):
    mount = llm_01.mount_point(BULK)
    assert mount.exists
    assert mount.device == "/dev/sda1"
    link = llm_01.file(f"{NODE}/data/llm_bulk_storage")
    assert link.is_symlink
    assert link.linked_to == BULK
    units = output(llm_01, "systemctl list-unit-files --type=mount --state=enabled --no-legend")
    assert r"data-llm_bulk_storage.mount" in units
    assert "opt-hx" not in units


def test_only_root_may_write_to_the_top_of_the_disk(llm_01):
    top = llm_01.file(BULK)
    assert (top.user, top.group, top.mode) == ("root", "root", 0o755)


def test_the_disks_own_files_are_still_there(llm_01):
    readme = llm_01.file(f"{BULK}/archive/README")
    assert readme.content_string == "moved from the old workstation, keep\n"
    assert readme.user == "agent0"
    assert llm_01.file(f"{BULK}/archive/2025-07-prompts.jsonl").size == 300000


@pytest.mark.parametrize("path", ["/mnt/active_llm_models", f"{NODE}/models/production"])
def test_every_path_of_the_store_leads_to_the_bulk_disk(llm_01, path):
    assert llm_01.file(path).is_symlink
    assert output(llm_01, f"realpath {path}") == STORE
    assert output(llm_01, f"stat -c %d {path}/blobs/.") == output(llm_01, f"stat -c %d {BULK}/.")


def test_the_models_are_the_declared_ones_with_unchanged_digests(llm_01, api):
    served = {model["name"]: model["digest"] for model in api(llm_01, "/api/tags")["models"]}
    assert set(served) == MODELS
    seeded = json.loads(output(llm_01, "cat /lab/models/llm-01.json"))
    assert served == {entry["name"]: served[entry["name"]] for entry in seeded}
    for entry in seeded:
        assert served[entry["name"]].startswith(entry["digest"])


def test_every_blob_has_the_bytes_that_its_name_says(llm_01):
    check = (
        f"cd {STORE}/blobs && for f in sha256-*; do "
        'echo "${f#sha256-}  $f"; done | sha256sum --check --quiet'
    )
    assert output(llm_01, check) == ""


def test_partial_downloads_are_gone_and_none_of_llm_02s_models_came(llm_01):
    assert output(llm_01, f"find {STORE}/blobs -name '*-partial*' | wc -l") == "0"
    manifests = output(llm_01, f"find {STORE}/manifests -type f -printf '%P\n'").split()
    assert len(manifests) == len(MODELS)
    assert not [name for name in OTHERS if any(name.split(":")[0] in path for path in manifests)]


def test_the_store_belongs_to_the_service_alone(llm_01):
    assert output(llm_01, f"find {STORE} ! -user ollama -o ! -group ollama") == ""
    assert output(llm_01, f"find {STORE} -perm /022 ! -type l") == ""


def test_the_environment_file_is_rendered_from_the_catalog(llm_01):
    env = llm_01.file(f"{NODE}/config/ollama/ollama.env")
    assert (env.user, env.group, env.mode) == ("root", "ollama", 0o640)
    text = env.content_string
    assert 'OLLAMA_MODELS="/mnt/active_llm_models"' in text
    assert 'MODEL_MISTRAL_SMALL3_2="mistral-small3.2:latest"' in text
    assert "OLLAMA_MODELS_COUNT=3" in text
    assert "phi3" not in text
    backups = output(llm_01, f"ls {NODE}/config/ollama").split()
    assert [name for name in backups if re.fullmatch(r"ollama\.env\.bak\.\d{8}-\d{6}", name)]


def test_the_running_service_uses_it(llm_01):
    pid = output(llm_01, "systemctl show ollama -p MainPID --value")
    environment = output(llm_01, f"tr '\\0' '\\n' </proc/{pid}/environ").split("\n")
    assert "OLLAMA_MODELS=/mnt/active_llm_models" in environment


@pytest.mark.parametrize("name", ["start", "stop", "restart", "status"])
def test_scripts_are_shared_and_the_nodes_own_are_links(llm_01, name):
    shared = llm_01.file(f"/opt/scripts/service/ollama/{name}.sh")
    assert (shared.user, shared.group, shared.mode) == ("root", "root", 0o755)
    assert llm_01.file(f"{NODE}/scripts/service/ollama/{name}.sh").linked_to == shared.path


@pytest.mark.parametrize("script", ["smoke.sh", "comprehensive-smoke.sh"])
def test_smoke_tests_pass_by_hand(llm_01, script):
    result = llm_01.run(f"/opt/scripts/tests/smoke/ollama/{script}")
    assert result.rc == 0, result


@pytest.mark.parametrize("timer", ["gpu-telemetry", "nightly-smoke"])
def test_timers_are_active(llm_01, timer):
    assert output(llm_01, f"systemctl is-active {timer}.timer") == "active"
    assert output(llm_01, f"systemctl is-enabled {timer}.timer") == "enabled"


def test_telemetry_has_a_sample_of_both_gpus(llm_01):
    lines = llm_01.file(f"{NODE}/logs/gpu/nvidia-smi-ping.csv").content_string.splitlines()
    assert lines[0].startswith(
        "timestamp,index,name,uuid,pci.bus_id,temperature.gpu,utilization.gpu,"
        "memory.used,memory.total"
    )
    assert {line.split(",")[1] for line in lines[1:]} == {"0", "1"}


def test_the_stable_name_leads_to_a_file_of_the_day(llm_01):
    stable = llm_01.file(f"{NODE}/logs/gpu/nvidia-smi-ping.csv")
    assert re.fullmatch(
        rf"{NODE}/logs/gpu/nvidia-smi-ping-\d{{4}}-\d\d-\d\d\.csv", stable.linked_to
    )


@pytest.mark.parametrize("command", ["g-mon status", "Run G-Mon", "g-mon compact", "g-mon data"])
def test_the_operators_command_finds_everything_in_order(llm_01, command):
    result = llm_01.run(command)
    assert result.rc == 0, result


def test_the_first_baseline_has_one_row_a_model(llm_01):
    path = "/opt/logs/services/ollama/perf/baseline.csv"
    lines = llm_01.file(path).content_string.splitlines()
    assert lines[0] == "timestamp,model,first_token_ms,tokens_per_s"
    assert sorted(line.split(",")[1] for line in lines[1:]) == sorted(MODELS)


def test_nothing_of_the_node_is_writable_for_everybody(llm_01):
    for top in (NODE, "/opt/scripts", "/opt/logs"):
        found = output(llm_01, f"find {top} -xdev ! -type l -perm -0002 ! -path '*hx-retained*'")
        assert found == "", top


def test_no_unit_failed(llm_01):
    assert output(llm_01, "systemctl --failed --no-legend") == ""


def test_the_old_store_is_kept_and_cannot_be_written(llm_01):
    kept = output(llm_01, f"find {NODE}/models -maxdepth 1 -name 'production.hx-retained-*'")
    assert kept
    assert output(llm_01, f"find {kept} -type f -perm /222 | head -n 1") == ""
