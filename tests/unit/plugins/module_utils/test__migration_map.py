# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The migration map, judged on the states of the sample records."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _migration_map as migration_map

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "run_record"
RECORD = json.loads((FIXTURES / "remediated.json").read_text(encoding="utf-8"))
NODE = "/opt/hx-infrastructure/llm-01"
STORE = "/data/llm_bulk_storage/ollama/models"
DECLARED = migration_map.Declaration(
    models=RECORD["declaration"]["models"],
    forbidden=["phi3:latest"],
    models_dir="/mnt/active_llm_models",
    store_dir=STORE,
    bulk_mount="/data/llm_bulk_storage",
    bulk_device="/dev/sda1",
    node_data_link=f"{NODE}/data/llm_bulk_storage",
    old_paths=[{"path": f"{NODE}/models/production", "target": STORE}],
)
PARTS = [
    "service_scripts",
    "smoke_tests",
    "perf_logs",
    "data_path",
    "environment_file",
    "models",
    "old_paths",
    "permissions",
    "units",
]


def state(name="after"):
    return copy.deepcopy(RECORD["state"][name])


def judged(found):
    return {item.check: item for item in migration_map.judge_map(found, DECLARED)}


def test_remediated_host_stands_as_the_standard_says():
    verdicts = judged(state())
    assert list(verdicts) == PARTS
    assert {item.status for item in verdicts.values()} == {"PASS"}


def test_drifted_host_stands_nowhere():
    assert {item.status for item in judged(state("before")).values()} == {"FAIL"}


def break_script(found):
    found["scripts"][0]["shared"]["mode"] = "0777"


def break_link(found):
    found["scripts"][5]["local"]["kind"] = "file"


def break_mount(found):
    found["mounts"][0]["target"] = "/srv"


def break_second_mount(found):
    found["mounts"].append({**found["mounts"][0], "target": "/srv"})


def break_data_link(found):
    found["links"][0]["target"] = "/srv"


def break_env_mode(found):
    found["env_file"]["mode"] = "0644"


def break_env_models(found):
    found["env_file"]["models"] = ["llama3.2:3b", "phi3:latest"]


def break_model(found):
    found["stores"][0]["models"].pop()


def break_digest(found):
    found["stores"][0]["models"][0]["digest"] = "0" * 64


def break_forbidden(found):
    found["stores"][0]["models"].append({"name": "phi3:latest", "digest": "1", "size_bytes": 1})


def break_partials(found):
    found["stores"][0]["partial_files"] = 3


def break_old_path(found):
    found["links"][3]["realpath"] = ""


def break_permissions(found):
    found["world_writable"] = {"count": 1, "paths": ["/opt/scripts/x"]}


def break_timer(found):
    found["timers"][1]["enabled"] = "disabled"


@pytest.mark.parametrize(
    ("damage", "part", "evidence"),
    [
        (break_script, "service_scripts", "start.sh is root:root 0777, wanted root:root 0755"),
        (break_link, "smoke_tests", "comprehensive-smoke.sh is no link to"),
        (break_mount, "data_path", "/dev/sda1 is mounted at /srv, wanted /data/llm_bulk_storage"),
        (break_second_mount, "data_path", "mounted at /data/llm_bulk_storage, /srv"),
        (break_data_link, "data_path", "a link to /srv, wanted a link to"),
        (break_env_mode, "environment_file", "root:ollama 0644, wanted root:ollama 0640"),
        (break_env_models, "environment_file", "phi3:latest is not declared"),
        (break_model, "models", "qwen3:1.7b is missing"),
        (break_digest, "models", "llama3.2:3b is 000000000000, wanted a80c4f17acd5"),
        (break_forbidden, "models", "phi3:latest is there but forbidden"),
        (break_partials, "models", "3 partial downloads"),
        (break_old_path, "old_paths", "models/production leads to nowhere"),
        (break_permissions, "permissions", "everybody may write /opt/scripts/x"),
        (break_timer, "units", "nightly-smoke.timer is disabled, wanted enabled"),
    ],
)
def test_one_thing_wrong_fails_one_part(damage, part, evidence):
    found = state()
    damage(found)
    verdicts = judged(found)
    assert [item.check for item in verdicts.values() if item.status != "PASS"] == [part]
    assert verdicts[part].status == "FAIL"
    assert evidence in verdicts[part].evidence


def test_missing_baseline_of_a_model_warns():
    found = state()
    found["baseline"]["models"].remove("qwen3:1.7b")
    verdict = judged(found)["perf_logs"]
    assert (verdict.status, verdict.evidence) == ("WARN", "no baseline of qwen3:1.7b")


def test_many_problems_are_counted():
    found = state()
    found["world_writable"] = {"count": 9, "paths": [f"/{number}" for number in range(9)]}
    verdict = judged(found)["permissions"]
    assert verdict.value == "9 not"
    assert verdict.evidence.endswith("and 3 more")
