# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

import pytest
from gpu_health_samples import (
    DRIVER,
    NAME,
    card,
    dead,
    facts,
    host,
    of_card,
    outcome,
    outcomes,
    report,
)

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_health_driver as driver
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError


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
    assert driver.name_matches(found, wanted) is same


@pytest.mark.parametrize(
    ("newer", "older"),
    [("575.64.03", "575.64.3"), ("580.1", "575.64.03"), ("12.10", "12.9"), ("575.64.03", "575")],
)
def test_versions(newer, older):
    assert driver.version_key(newer) >= driver.version_key(older)


@pytest.mark.parametrize(
    ("expected", "check", "status"),
    [
        ({"driver_min": DRIVER}, "gpu_driver_version", "PASS"),
        ({"driver_min": "580.0"}, "gpu_driver_version", "CRITICAL"),
        ({}, "gpu_driver_version", "N/A"),
        ({"driver_pin": "575.64.3"}, "gpu_driver_pin", "PASS"),
        ({"driver_pin": "575.64"}, "gpu_driver_pin", "WARN"),
        ({"driver_pin": "570.1"}, "gpu_driver_pin", "WARN"),
        ({}, "gpu_driver_pin", "N/A"),
        ({"cuda_min": "12.9"}, "gpu_cuda_version", "PASS"),
        ({"cuda_min": "12.9.0"}, "gpu_cuda_version", "PASS"),
        ({"cuda_min": "12.9.1"}, "gpu_cuda_version", "CRITICAL"),
        ({"cuda_min": "13.0"}, "gpu_cuda_version", "CRITICAL"),
        ({}, "gpu_cuda_version", "N/A"),
        ({"count": 1}, "gpu_count", "PASS"),
        ({"count": 2}, "gpu_count", "CRITICAL"),
        ({"count": 0}, "gpu_count", "CRITICAL"),
        ({}, "gpu_count", "N/A"),
        ({"name": "RTX 4070 Ti"}, "gpu_name", "PASS"),
        ({"name": "RTX 5060 Ti"}, "gpu_name", "CRITICAL"),
        ({}, "gpu_name", "N/A"),
        ({"names": ["RTX 4070 Ti"]}, "gpu_names", "PASS"),
        ({"names": ["RTX 4070 Ti", "RTX 4070 Ti"]}, "gpu_names", "CRITICAL"),
        ({"names": ["RTX 5060 Ti"]}, "gpu_names", "CRITICAL"),
        ({}, "gpu_names", "N/A"),
        ({"uuids": ["GPU-0-0000"]}, "gpu_uuids", "PASS"),
        ({"uuids": ["GPU-9"]}, "gpu_uuids", "CRITICAL"),
        ({"uuids": ["GPU-0-0000", "GPU-9"]}, "gpu_uuids", "CRITICAL"),
        ({}, "gpu_uuids", "N/A"),
    ],
)
def test_declaration(expected, check, status):
    assert of_card(check, expected=expected).status == status


@pytest.mark.parametrize("key", ["driver_min", "driver_pin", "cuda_min"])
@pytest.mark.parametrize("value", ["newest", "v575", "12.", "575.64.03, 580"])
def test_a_version_that_is_none_is_refused(key, value):
    said = f"expected.{key}: found '{value}', wanted a version such as"
    with pytest.raises(HostError, match=re.escape(said)):
        report(expected={key: value})


def test_too_many_gpus_are_no_reason_to_look_for_one():
    few, many = (of_card("gpu_count", expected={"count": count}) for count in (2, 0))
    assert (few.action, many.action) == ("service", "fix_config")
    assert "missing card" in few.remedy
    assert "declare the GPUs" in many.remedy


def test_different_products_in_any_order():
    mixed = facts(card(0), card(1, name="NVIDIA GeForce RTX 5060 Ti"))
    found = report(mixed, expected={"names": ["RTX 5060 Ti", "RTX 4070 Ti"]})
    assert outcome(found, "gpu_names").status == "PASS"
    found = report(mixed, expected={"names": ["RTX 5060 Ti", "RTX 5060 Ti"]})
    health = outcome(found, "gpu_names")
    assert health.evidence == f"missing: RTX 5060 Ti; not declared: {NAME}"


@pytest.mark.parametrize(
    ("check", "expected", "found"),
    [
        ("gpu_driver_version", {"driver_min": "1"}, facts(driver={})),
        ("gpu_cuda_version", {"cuda_min": "1"}, facts(driver={})),
        ("gpu_name", {"name": "RTX 4070 Ti"}, facts(card(name=None))),
    ],
)
def test_what_is_declared_and_cannot_be_read_is_no_pass(check, expected, found):
    health = outcome(report(found, expected=expected), check)
    assert (health.status, health.because) == ("UNKNOWN", "")


@pytest.mark.parametrize(
    ("state", "status", "action"),
    [
        ("driver_not_loaded", "CRITICAL", "fix_config"),
        ("library_missing", "CRITICAL", "fix_config"),
        ("version_mismatch", "CRITICAL", "reboot"),
        ("timeout", "CRITICAL", "reboot"),
        ("no_gpu", "CRITICAL", "service"),
        ("error", "CRITICAL", "service"),
        ("no_permission", "UNKNOWN", "fix_config"),
        ("no_reader", "UNKNOWN", "fix_config"),
        ("no_binding", "UNKNOWN", "fix_config"),
    ],
)
def test_a_driver_that_does_not_work(state, status, action):
    found = report(dead(state))
    health = outcome(found, "gpu_driver")
    assert (health.status, health.value, health.action) == (status, state, action)
    assert "the reason" in health.evidence
    assert f"gpu_driver is {state}, wanted ok" in found.message("llm-01")


def test_a_driver_that_works():
    health = outcome(report(), "gpu_driver")
    assert (health.status, health.value, health.evidence) == ("PASS", DRIVER, "read by nvml")


def test_no_gpu_is_also_a_wrong_count():
    found = report(dead("no_gpu"), expected={"count": 2})
    assert outcome(found, "gpu_count").value == 0
    assert "gpu_count is 0, wanted 2" in found.message("llm-01")


def test_what_a_dead_driver_still_tells_is_judged():
    found = report(dead("no_gpu", driver={"version": DRIVER}), expected={"driver_min": "580"})
    assert outcome(found, "gpu_driver_version").status == "CRITICAL"


@pytest.mark.parametrize(
    ("state", "action"), [("lost", "reboot"), ("reset_required", "reset_gpu"), ("error", "reboot")]
)
def test_a_card_that_does_not_answer(state, action):
    sick = {"index": 0, "state": state, "errors": [{"message": "it said so"}]}
    health = outcome(report(facts(sick)), "gpu_state")
    assert (health.status, health.value, health.action) == ("CRITICAL", state, action)
    assert health.subject == "GPU 0 (name and UUID cannot be read)"
    assert health.evidence == "it said so"


def test_a_card_that_answers():
    assert [health.status for health in outcomes(report(), "gpu_state")] == ["PASS"]


@pytest.mark.parametrize("state", ["no_reader", "library_missing", "driver_not_loaded", "no_gpu"])
def test_a_host_that_shall_have_no_gpu_is_well_without(state):
    found = report(dead(state), host(0), expected={"count": 0})
    assert found.status == "PASS"
    assert outcome(found, "gpu_count").evidence == driver.NONE_DECLARED
    assert {health.status for health in found.checks} == {"PASS", "N/A"}


def test_a_card_that_nobody_declared_is_said():
    found = report(dead("driver_not_loaded"), host(1), expected={"count": 0})
    assert found.status == "INFO"
    assert "0000:01:00.0" in outcome(found, "gpu_pci_count").evidence


@pytest.mark.parametrize("state", ["timeout", "version_mismatch", "no_binding", "no_permission"])
def test_a_driver_that_fails_is_no_missing_gpu(state):
    found = report(dead(state), host(0), expected={"count": 0})
    assert outcome(found, "gpu_driver").status in ("CRITICAL", "UNKNOWN")
