# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_verdicts as verdicts
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import worst

GIB = 1024**3
NAME = "NVIDIA GeForce RTX 4070 Ti"


def gpu(index=0, **fields):
    found = {
        "index": index,
        "state": "ok",
        "errors": [],
        "name": NAME,
        "uuid": f"GPU-{index}",
        "memory_total_bytes": 12 * GIB,
        "memory_used_bytes": 0,
        "temperature_c": 40,
        "temperature_slowdown_c": 96,
        "temperature_max_c": 90,
        "clocks_event_reasons": ["gpu_idle"],
        "pcie_link_width_current": 16,
        "pcie_link_width_max": 16,
        "processes": [],
    }
    found.update(fields)
    return {key: value for key, value in found.items() if value is not None}


def facts(*gpus, **fields):
    found = {
        "state": "ok",
        "source": "nvml",
        "driver": {"version": "575.64.03", "cuda_version": "12.9"},
        "gpus": list(gpus),
        "errors": [],
    }
    found.update(fields)
    return found


def judged(found, expected=None, **options):
    return verdicts.judge_gpus(found, expected or {}, **options)


def status(found, check, expected=None, **options):
    hits = [v for v in judged(found, expected, **options) if v.check == check]
    return worst(hits) if hits else ""


def test_a_healthy_host():
    expected = {
        "count": 2,
        "name": "RTX 4070 Ti",
        "driver_min": "575.64.03",
        "cuda_min": "12.9",
        "temperature_max_c": 85,
    }
    found = judged(facts(gpu(0), gpu(1)), expected)
    assert {verdict.status for verdict in found} == {"PASS"}
    assert verdicts.failure(found, "llm-01") == ""


@pytest.mark.parametrize(
    ("found", "wanted", "same"),
    [
        (NAME, "RTX 4070 Ti", True),
        (NAME, "NVIDIA GeForce RTX 4070 Ti", True),
        (NAME, "rtx 4070 ti", True),
        (NAME, "RTX 4070", False),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "RTX 4070 Ti", False),
        ("NVIDIA GeForce RTX 4070 Laptop GPU", "RTX 4070", False),
        ("NVIDIA GeForce RTX 5060 Ti", "RTX 4070 Ti", False),
        ("NVIDIA H100 80GB HBM3", "H100", True),
        ("NVIDIA H200", "H200", True),
        ("NVIDIA H100", "H200", False),
        ("", "H200", False),
        ("NVIDIA H200", "NVIDIA", False),
    ],
)
def test_names(found, wanted, same):
    assert verdicts.name_matches(found, wanted) is same


@pytest.mark.parametrize(
    ("newer", "older"),
    [("575.64.03", "575.64.3"), ("580.1", "575.64.03"), ("12.10", "12.9"), ("575.64.03", "575")],
)
def test_versions(newer, older):
    assert verdicts.version_key(newer) >= verdicts.version_key(older)


@pytest.mark.parametrize(
    ("expected", "check", "outcome"),
    [
        ({"driver_min": "575.64.03"}, "gpu_driver_version", "PASS"),
        ({"driver_min": "580.0"}, "gpu_driver_version", "FAIL"),
        ({"cuda_min": "12.9"}, "gpu_cuda_version", "PASS"),
        ({"cuda_min": "13.0"}, "gpu_cuda_version", "FAIL"),
        ({"count": 1}, "gpu_count", "PASS"),
        ({"count": 2}, "gpu_count", "FAIL"),
        ({"name": "RTX 4070 Ti"}, "gpu_name", "PASS"),
        ({"name": "RTX 5060 Ti"}, "gpu_name", "FAIL"),
        ({}, "gpu_count", ""),
        ({}, "gpu_driver_version", ""),
    ],
)
def test_declaration(expected, check, outcome):
    assert status(facts(gpu()), check, expected) == outcome


def test_a_version_that_is_not_known_is_no_pass():
    assert status(facts(gpu(), driver={}), "gpu_driver_version", {"driver_min": "1"}) == "FAIL"


@pytest.mark.parametrize(
    ("fields", "expected", "outcome"),
    [
        ({"temperature_c": 89}, {}, "PASS"),
        ({"temperature_c": 90}, {}, "PASS"),
        ({"temperature_c": 91}, {}, "WARN"),
        ({"temperature_c": 96}, {}, "FAIL"),
        ({"temperature_c": 70}, {"temperature_max_c": 65}, "FAIL"),
        ({"temperature_c": 65}, {"temperature_max_c": 65}, "PASS"),
        ({"temperature_c": None}, {}, "WARN"),
        ({"temperature_slowdown_c": None, "temperature_max_c": None}, {}, "PASS"),
    ],
)
def test_temperature(fields, expected, outcome):
    assert status(facts(gpu(**fields)), "gpu_temperature", expected) == outcome


@pytest.mark.parametrize(
    ("margin", "outcome"), [(50, "PASS"), (1, "PASS"), (0, "WARN"), (-2, "FAIL"), (-5, "FAIL")]
)
def test_margin_of_cards_without_thresholds(margin, outcome):
    card = gpu(
        temperature_slowdown_c=None,
        temperature_max_c=None,
        temperature_margin_c=margin,
        temperature_slowdown_margin_c=-2,
    )
    assert status(facts(card), "gpu_temperature") == outcome


def test_a_margin_without_its_threshold_is_not_trusted():
    card = gpu(temperature_margin_c=-3)
    assert status(facts(card), "gpu_temperature") == "PASS"


@pytest.mark.parametrize(
    ("check", "fields", "outcome"),
    [
        ("gpu_memory", {}, "PASS"),
        ("gpu_memory", {"memory_total_bytes": None}, "FAIL"),
        ("gpu_memory", {"memory_total_bytes": 0}, "FAIL"),
        ("gpu_memory", {"memory_used_bytes": 2 * GIB}, "WARN"),
        ("gpu_memory", {"memory_used_bytes": 2 * GIB, "processes": None}, "PASS"),
        ("gpu_hw_slowdown", {"clocks_event_reasons": ["sw_power_cap"]}, "PASS"),
        ("gpu_hw_slowdown", {"clocks_event_reasons": ["hw_thermal_slowdown"]}, "WARN"),
        ("gpu_hw_slowdown", {"clocks_event_reasons": None}, ""),
        ("gpu_pcie_width", {"pcie_link_width_current": 8}, "WARN"),
        ("gpu_pcie_width", {"pcie_link_width_current": None}, ""),
        ("gpu_ecc", {}, ""),
        ("gpu_ecc", {"ecc_errors_uncorrected": 0}, "PASS"),
        ("gpu_ecc", {"ecc_errors_uncorrected": 1}, "FAIL"),
        (
            "gpu_ecc",
            {"ecc_errors_uncorrected": 0, "ecc_mode": False, "ecc_mode_pending": True},
            "WARN",
        ),
        ("gpu_retired_pages", {}, ""),
        ("gpu_retired_pages", {"retired_pages_double_bit": 2}, "PASS"),
        ("gpu_retired_pages", {"retired_pages_double_bit": 63}, "FAIL"),
        (
            "gpu_retired_pages",
            {"retired_pages_double_bit": 1, "retired_pages_pending": True},
            "FAIL",
        ),
        ("gpu_remapped_rows", {}, ""),
        ("gpu_remapped_rows", {"remapped_rows_uncorrectable": 1}, "PASS"),
        ("gpu_remapped_rows", {"remapped_rows_uncorrectable": 512}, "WARN"),
        (
            "gpu_remapped_rows",
            {"remapped_rows_uncorrectable": 1, "remapped_rows_pending": True},
            "FAIL",
        ),
        (
            "gpu_remapped_rows",
            {"remapped_rows_uncorrectable": 1, "remapped_rows_failure": True},
            "FAIL",
        ),
        ("gpu_recovery_action", {}, ""),
        ("gpu_recovery_action", {"recovery_action": 0}, "PASS"),
        ("gpu_recovery_action", {"recovery_action": 2}, "FAIL"),
        ("gpu_recovery_action", {"recovery_action": 3}, "WARN"),
    ],
)
def test_card_checks(check, fields, outcome):
    assert status(facts(gpu(**fields)), check) == outcome


@pytest.mark.parametrize(
    ("process", "reaction", "outcome"),
    [
        ({"name": "/usr/local/bin/ollama runner", "type": "C"}, "fail", "PASS"),
        ({"name": "/usr/local/lib/ollama/llama-server", "type": "C"}, "fail", "PASS"),
        ({"name": "/usr/bin/python3", "type": "C"}, "fail", "FAIL"),
        ({"name": "/usr/bin/python3", "type": "C"}, "warn", "WARN"),
        ({"name": "/usr/bin/python3", "type": "C"}, "ignore", "PASS"),
        ({"name": "/usr/bin/Xorg", "type": "G"}, "fail", "PASS"),
        ({"name": "/usr/bin/kwin_wayland", "type": "C+G"}, "fail", "FAIL"),
        ({"type": "C"}, "fail", "FAIL"),
        ({"name": "/opt/not-ollama", "type": "C"}, "fail", "FAIL"),
    ],
)
def test_processes(process, reaction, outcome):
    card = gpu(processes=[{"pid": 7, **process}])
    found = status(facts(card), "gpu_foreign_processes", foreign_processes=reaction)
    assert found == outcome


def test_allowed_processes_may_be_patterns():
    card = gpu(processes=[{"pid": 7, "name": "VLLM::EngineCore", "type": "C"}])
    allowed = {"allowed_processes": ["VLLM::*"]}
    assert status(facts(card), "gpu_foreign_processes", **allowed) == "PASS"


def test_no_list_of_processes_is_not_an_empty_list():
    assert status(facts(gpu(processes=None)), "gpu_foreign_processes") == ""


@pytest.mark.parametrize("state", sorted(verdicts.REMEDIES))
def test_a_driver_that_does_not_work_is_one_verdict(state):
    found = facts(state=state, errors=[{"message": "the reason"}])
    (verdict,) = judged(found, {"name": "RTX 4070 Ti", "driver_min": "575"})
    assert (verdict.check, verdict.status, verdict.value) == ("gpu_driver", "FAIL", state)
    assert "the reason" in verdict.evidence


def test_no_gpu_is_also_a_wrong_count():
    found = judged(facts(state="no_gpu"), {"count": 2})
    assert [verdict.check for verdict in found] == ["gpu_driver", "gpu_count"]


def test_a_lost_gpu_has_no_other_verdicts():
    lost = {
        "index": 1,
        "state": "lost",
        "errors": [{"what": "gpu", "message": "GPU is lost"}],
        "uuid": "GPU-1",
        "name": NAME,
    }
    found = judged(facts(gpu(0), lost), {"count": 2})
    about = [verdict for verdict in found if verdict.subject.startswith("GPU 1")]
    assert [(verdict.check, verdict.status) for verdict in about] == [("gpu_state", "FAIL")]
    message = verdicts.failure(found, "llm-01")
    assert "llm-01 GPUs: gpu_count is 1, wanted 2" in message
    assert f"llm-01 GPU 1 ({NAME}, GPU-1): gpu_state is lost, wanted ok" in message


def test_one_message_names_host_gpu_reading_and_limit():
    found = judged(facts(gpu(0), gpu(1, temperature_c=97)))
    assert verdicts.failure(found, "llm-01") == (
        "1 GPU check failed. llm-01 GPU 1 (NVIDIA GeForce RTX 4070 Ti, GPU-1): gpu_temperature is"
        " 97 °C, wanted 96 °C (at or over the card's slowdown threshold)."
    )


def test_facts_are_left_as_they_are():
    found = facts(gpu(0), gpu(1, state="lost"))
    before = copy.deepcopy(found)
    judged(found, {"count": 2})
    assert found == before
