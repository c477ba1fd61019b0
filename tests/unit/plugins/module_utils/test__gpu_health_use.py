# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from gpu_health_samples import (
    DATA_CENTRE,
    GIB,
    card,
    dead,
    facts,
    host,
    of_card,
    outcome,
    outcomes,
    report,
    tried,
)

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host import Wanted, observe
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import Host


@pytest.mark.parametrize(
    ("process", "reaction", "status"),
    [
        ({"name": "/usr/local/bin/ollama runner", "type": "C"}, "fail", "PASS"),
        ({"name": "/usr/local/lib/ollama/llama-server", "type": "C"}, "fail", "PASS"),
        ({"name": "/usr/bin/python3", "type": "C"}, "fail", "CRITICAL"),
        ({"name": "/usr/bin/python3", "type": "C"}, "warn", "WARN"),
        ({"name": "/usr/bin/python3", "type": "C"}, "ignore", "INFO"),
        ({"name": "/usr/bin/Xorg", "type": "G"}, "fail", "PASS"),
        ({"name": "/usr/bin/kwin_wayland", "type": "C+G"}, "fail", "CRITICAL"),
        ({"type": "C"}, "fail", "CRITICAL"),
        ({"name": "/opt/not-ollama", "type": "C"}, "fail", "CRITICAL"),
    ],
)
def test_programs_that_compute(process, reaction, status):
    found = report(facts(card(processes=[{"pid": 7, **process}])), foreign_processes=reaction)
    assert outcome(found, "gpu_foreign_processes").status == status


def test_allowed_programs_may_be_patterns():
    found = facts(card(processes=[{"pid": 7, "name": "VLLM::EngineCore", "type": "C"}]))
    allowed = report(found, allowed_processes=["VLLM::*"])
    assert outcome(allowed, "gpu_foreign_processes").status == "PASS"


def test_a_foreign_program_is_named():
    health = of_card("gpu_foreign_processes", processes=[{"pid": 7, "name": "miner", "type": "C"}])
    assert (health.value, health.action) == (["miner (pid 7)"], "restart_app")


UNITS = ["ollama.service", "citadel-llm@gen.service"]
ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("process", "status"),
    [
        ({"name": "ollama", "unit": "ollama.service"}, "PASS"),
        ({"name": "/usr/bin/python3", "unit": "citadel-llm@gen.service"}, "PASS"),
        ({"name": "VLLM::EngineCore", "unit": "citadel-llm@old.service"}, "CRITICAL"),
        ({"name": "/home/bob/bin/ollama", "unit": "session-3.scope"}, "CRITICAL"),
        ({"name": "ollama", "unit": "user@1000.service"}, "CRITICAL"),
        ({"name": "ollama", "unit": f"docker-{ID}.scope", "container": ID}, "CRITICAL"),
        ({"name": "ollama", "container": ID}, "CRITICAL"),
        # where no unit could be read the name decides, as it did without units
        ({"name": "ollama"}, "PASS"),
        ({"name": "miner"}, "CRITICAL"),
        # what operators allow beside the engines, they allow anywhere
        ({"name": "/opt/train/trainer", "unit": "train.service"}, "PASS"),
        ({"name": "/opt/train/trainer"}, "PASS"),
    ],
)
def test_an_engine_is_known_by_its_unit(process, status):
    found = facts(card(processes=[{"pid": 7, "type": "C", **process}]))
    judged = report(found, units=UNITS, more_processes=["train*"])
    assert outcome(judged, "gpu_foreign_processes").status == status


def test_a_unit_may_be_declared_without_its_type():
    process = {"pid": 7, "name": "x", "unit": "citadel-llm@v1.5.service"}
    found = report(facts(card(processes=[process])), units=["citadel-llm@v1.5"])
    assert outcome(found, "gpu_foreign_processes").status == "PASS"


def test_without_units_a_name_counts_in_any():
    process = {"pid": 7, "name": "ollama", "unit": "session-3.scope", "user": "bob"}
    found = report(facts(card(processes=[process])))
    assert outcome(found, "gpu_foreign_processes").status == "PASS"


def test_a_program_that_poses_as_an_engine_is_named_with_unit_and_user():
    posing = {"pid": 7, "name": "ollama", "unit": "session-3.scope", "user": "bob"}
    boxed = {"pid": 8, "name": "miner", "unit": f"docker-{ID}.scope", "container": ID}
    found = report(facts(card(processes=[posing, boxed])), units=UNITS, more_processes=["train*"])
    health = outcome(found, "gpu_foreign_processes")
    assert health.value == [
        "ollama (pid 7, session-3.scope, user bob)",
        "miner (pid 8, docker-0123456789ab.scope)",
    ]
    assert health.limit[:2] == UNITS
    assert health.limit[-1] == "train*"
    assert "outside of ollama.service, citadel-llm@gen.service an engine's name does not count" in (
        health.evidence
    )
    assert (health.action, health.remedy.partition(",")[0]) == ("restart_app", "stop the program")
    assert "more_processes" in health.remedy


@pytest.mark.parametrize("name", [None, "ollama", "[Not Found]"])
def test_a_context_that_outlives_its_process_asks_for_a_reset(name):
    process = {"pid": 7, "type": "C", "gone": True, **({"name": name} if name else {})}
    health = of_card("gpu_foreign_processes", processes=[process])
    assert (health.status, health.action) == ("CRITICAL", "reset_gpu")
    assert health.value == ["a process that is gone (pid 7)"]
    assert "else reboot" in health.remedy


def test_a_leaked_context_hides_no_foreign_program():
    gone, miner = {"pid": 7, "gone": True}, {"pid": 8, "name": "miner"}
    found = outcomes(report(facts(card(processes=[gone, miner]))), "gpu_foreign_processes")
    assert [(one.action, one.value) for one in found] == [
        ("reset_gpu", ["a process that is gone (pid 7)"]),
        ("restart_app", ["miner (pid 8)"]),
    ]


@pytest.mark.parametrize(
    ("processes", "limit", "status"),
    [
        ([], [], "PASS"),
        ([{"pid": 7, "name": "/usr/lib/xorg/Xorg", "type": "G"}], [], "WARN"),
        ([{"pid": 7, "name": "/usr/lib/xorg/Xorg", "type": "G"}], ["Xorg"], "PASS"),
        ([{"pid": 7, "name": "/usr/bin/python3", "type": "C"}], [], "PASS"),
        (None, [], "N/A"),
    ],
)
def test_programs_that_draw(processes, limit, status):
    policy = {"gpu_graphics_processes": {"limit": limit}}
    health = of_card("gpu_graphics_processes", policy=policy, processes=processes)
    assert health.status == status


def test_no_list_of_processes_is_not_an_empty_list():
    assert of_card("gpu_foreign_processes", processes=None).status == "N/A"


@pytest.mark.parametrize(
    ("check", "base", "fields", "status"),
    [
        ("gpu_persistence", {}, {}, "PASS"),
        ("gpu_persistence", {}, {"persistence_mode": False}, "INFO"),
        ("gpu_persistence", DATA_CENTRE, {"persistence_mode": False}, "WARN"),
        ("gpu_persistence", {}, {"persistence_mode": None}, "N/A"),
        ("gpu_mig", {}, {}, "N/A"),
        ("gpu_mig", DATA_CENTRE, {}, "PASS"),
        ("gpu_mig", DATA_CENTRE, {"mig_mode_pending": True}, "WARN"),
        ("gpu_mig", DATA_CENTRE, {"mig_mode": True, "mig_mode_pending": True}, "PASS"),
        ("gpu_compute_mode", {}, {}, "PASS"),
        ("gpu_compute_mode", {}, {"compute_mode": "exclusive_process"}, "WARN"),
        ("gpu_compute_mode", {}, {"compute_mode": "prohibited"}, "CRITICAL"),
        ("gpu_compute_mode", {}, {"compute_mode": None}, "N/A"),
    ],
)
def test_modes(check, base, fields, status):
    given = {"base": base} if base else {}
    assert of_card(check, **given, **fields).status == status


@pytest.mark.parametrize(
    ("check", "limit", "fields", "status"),
    [
        ("gpu_mig", "enabled", {}, "WARN"),
        ("gpu_mig", "disabled", {}, "PASS"),
        ("gpu_compute_mode", "exclusive_process", {}, "WARN"),
        (
            "gpu_compute_mode",
            "exclusive_process",
            {"compute_mode": "exclusive_process"},
            "PASS",
        ),
        ("gpu_compute_mode", "exclusive_process", {"compute_mode": "prohibited"}, "CRITICAL"),
    ],
)
def test_modes_of_a_policy(check, limit, fields, status):
    policy = {check: {"limit": limit}}
    assert of_card(check, base=DATA_CENTRE, policy=policy, **fields).status == status


def test_persistence_of_a_geforce_is_told_and_asks_for_nothing():
    health = of_card("gpu_persistence", persistence_mode=False)
    assert (health.action, health.value, health.limit) == ("none", "disabled", "enabled")
    assert "start it with persistence mode" in health.remedy


def test_persistence_that_a_site_insists_on():
    policy = {"gpu_persistence": {"severity": "WARN"}}
    assert of_card("gpu_persistence", policy=policy, persistence_mode=False).status == "WARN"


def cuda(state="ok", *gpus, message=""):
    return host(cuda={"state": state, "message": message, "gpus": list(gpus)})


def test_cuda_that_works():
    health = outcome(report(None, cuda("ok", tried())), "gpu_cuda")
    assert (health.status, health.value, health.gpu) == ("PASS", "ok", 0)
    assert "120 ms" in health.evidence


@pytest.mark.parametrize(
    ("around", "status", "action", "words"),
    [
        (
            cuda("no_library", message="no libcuda.so.1"),
            "CRITICAL",
            "fix_config",
            "no libcuda.so.1",
        ),
        (cuda("failed", message="CUDA sees no GPU"), "CRITICAL", "service", "CUDA sees no GPU"),
        (cuda("timeout", message="cuInit did not return"), "CRITICAL", "reboot", "did not return"),
        (cuda("not_tried", message="it was not asked for"), "INFO", "none", "not asked for"),
        (cuda("not_tried", message="no user ollama"), "UNKNOWN", "fix_config", "no user ollama"),
        (host(cuda=None), "UNKNOWN", "fix_config", "have no cuda"),
        (cuda("ok", tried(1)), "CRITICAL", "service", "CUDA does not list this GPU"),
        (cuda("failed", tried(0, False, message="boom")), "CRITICAL", "service", "boom"),
        (
            cuda("timeout", {"index": 0, "ok": False, "message": "cuMemAlloc did not return"}),
            "CRITICAL",
            "service",
            "cuMemAlloc did not return",
        ),
    ],
)
def test_cuda_that_does_not_work(around, status, action, words):
    health = outcome(report(None, around), "gpu_cuda")
    assert (health.status, health.action) == (status, action)
    assert words in health.evidence


def test_the_reader_says_that_it_was_not_asked_in_the_words_that_are_judged(tmp_path):
    wanted = Wanted(python="python3", cuda=False, journalctl="/nowhere/journalctl")
    found = observe(Host(root=str(tmp_path), timeout_s=5), wanted)
    assert outcome(report(None, host(cuda=found["cuda"])), "gpu_cuda").status == "INFO"


def test_cuda_that_hangs_on_one_card_leaves_the_others_unknown():
    stuck = {"index": 0, "ok": False, "message": "GPU 0: cuCtxCreate did not return"}
    around = host(2, cuda={"state": "timeout", "message": stuck["message"], "gpus": [stuck]})
    found = report(facts(card(0), card(1)), around)
    assert [health.status for health in outcomes(found, "gpu_cuda")] == ["CRITICAL", "UNKNOWN"]


@pytest.mark.parametrize(
    ("fields", "entry", "status"),
    [
        ({"memory_used_bytes": 11.8 * GIB}, {"code": 2}, "INFO"),
        ({"memory_used_bytes": 2 * GIB}, {"code": 2}, "CRITICAL"),
        ({"memory_total_bytes": None}, {"code": 2}, "CRITICAL"),
        ({"memory_used_bytes": 11.8 * GIB}, {"code": 999}, "CRITICAL"),
        ({"compute_mode": "exclusive_process"}, {"code": 46}, "CRITICAL"),
        (
            {"compute_mode": "exclusive_process", "processes": [{"pid": 7, "name": "ollama"}]},
            {"code": 46},
            "INFO",
        ),
    ],
)
def test_a_card_at_work_cannot_be_tried(fields, entry, status):
    around = cuda("failed", tried(0, False, message="out of memory", **entry))
    found = report(facts(card(**fields)), around)
    assert outcome(found, "gpu_cuda").status == status


def test_a_divided_card_is_listed_by_its_instances():
    divided = card(base=DATA_CENTRE, mig_mode=True, mig_mode_pending=True)
    around = cuda("ok", tried(0, uuid="MIG-1234"))
    assert outcome(report(facts(divided), around), "gpu_cuda").status == "INFO"


def test_cuda_without_a_driver_is_the_drivers_fault():
    found = report(dead("driver_not_loaded"), cuda("failed", message="no device"))
    assert outcome(found, "gpu_cuda").because == "gpu_driver"
