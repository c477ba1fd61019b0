# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
from gpu_health_samples import (
    DATA_CENTRE,
    NOW,
    card,
    dead,
    facts,
    host,
    outcome,
    outcomes,
    report,
    tried,
)

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_check import (
    STATUSES,
    Health,
    reads,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_checks import ACTIONS, CHECKS
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_xids import XIDS

DECLARED = {
    "count": 2,
    "name": "RTX 4070 Ti",
    "uuids": ["GPU-1-0000", "GPU-0-0000"],
    "driver_min": "575.64.03",
    "driver_pin": "575.64.3",
    "cuda_min": "12.9",
    "temperature_max_c": 85,
}
ALL = {check.name for check in CHECKS}


def grave(found):
    return {(health.check, health.status) for health in found.checks} - {
        (check, status) for check in ALL for status in ("N/A", "PASS", "INFO")
    }


def test_a_healthy_geforce_host_has_nothing_to_be_warned_of():
    found = report(facts(card(0), card(1)), expected=DECLARED, containers=True)
    assert grave(found) == set()
    assert (found.status, found.action, found.notes, found.disabled) == ("INFO", "none", [], ())
    assert {verdict.status for verdict in found.verdicts} == {"PASS"}
    assert found.message("llm-01") == ""


def test_a_healthy_data_centre_host_has_nothing_to_be_warned_of():
    found = report(facts(card(base=DATA_CENTRE)), expected={"count": 1, "name": "H200"})
    assert grave(found) == set()
    never = {health.check for health in found.checks if health.status == "N/A"}
    undeclared = {"gpu_driver_version", "gpu_driver_pin", "gpu_cuda_version", "gpu_names"}
    assert never == undeclared | {"gpu_uuids", "gpu_container_toolkit"}


def test_what_a_geforce_has_not_is_not_applicable():
    found = report()
    never = {health.check for health in found.checks if health.status == "N/A"}
    assert {check.name for check in CHECKS if check.geforce == "no"} <= never
    assert {verdict.check for verdict in found.verdicts}.isdisjoint(never)


@pytest.mark.parametrize(
    "found",
    [
        facts(card(0), card(1)),
        facts(card(0), {"index": 1, "state": "lost", "errors": [{"message": "GPU is lost"}]}),
        facts({"index": 0, "state": "ok", "errors": []}),
        dead("driver_not_loaded"),
        dead("no_gpu"),
        dead("timeout", gpus=[card(0)]),
    ],
    ids=["healthy", "one-lost", "nothing-read", "no-driver", "no-gpu", "hung-in-the-middle"],
)
@pytest.mark.parametrize("around", [None, False, {"errors": []}], ids=["host", "unread", "empty"])
def test_every_check_has_an_outcome_whatever_could_be_read(found, around):
    judged = report(found, around, containers=True)
    assert {health.check for health in judged.checks} == ALL
    for health in judged.checks:
        assert health.status in STATUSES
        assert health.action in ACTIONS
        assert bool(health.remedy) or health.status not in ("WARN", "UNKNOWN", "CRITICAL")
        assert (health.action == "none") == (health.status in ("N/A", "PASS", "INFO"))
        assert health.subject
        assert health.source
    keys = [(health.check, health.gpu, health.subject) for health in judged.checks]
    assert len(keys) == len(set(keys))
    if found["gpus"]:
        for check in CHECKS:
            known = {health.gpu for health in outcomes(judged, check.name)}
            everyone = {gpu["index"] for gpu in found["gpus"]}
            assert known in ({None}, everyone), check.name


def test_the_hosts_outcomes_come_first_then_card_by_card():
    found = report(facts(card(0), card(1)))
    order = [-1 if health.gpu is None else health.gpu for health in found.checks]
    assert order == sorted(order)
    assert found.checks[0].check == "gpu_driver"


def test_a_dead_driver_is_one_verdict_and_what_hangs_on_it_is_unknown():
    found = report(dead("driver_not_loaded"), expected={"count": 2, "driver_min": "575"})
    assert [v.check for v in found.verdicts if v.status != "PASS"] == ["gpu_driver"]
    temperature = outcome(found, "gpu_temperature")
    assert (temperature.status, temperature.because) == ("UNKNOWN", "gpu_driver")
    assert (temperature.subject, outcome(found, "gpu_library").subject) == ("GPUs", "host")
    assert (found.status, found.action) == ("CRITICAL", "fix_config")


def test_a_host_that_nobody_read_is_one_verdict():
    found = report(None, False)
    assert [(v.check, v.status) for v in found.verdicts if v.status != "PASS"] == [
        ("gpu_host", "WARN")
    ]
    for check in ("gpu_cuda", "gpu_xid", "gpu_next_kernel", "gpu_device_nodes", "gpu_nouveau"):
        assert outcome(found, check).because == "gpu_host"
    assert found.status == "UNKNOWN"


def test_a_lost_gpu_has_no_other_verdicts():
    lost = {
        "index": 1,
        "state": "lost",
        "errors": [{"what": "gpu", "message": "GPU is lost"}],
        "uuid": "GPU-1-0000",
        "name": "NVIDIA GeForce RTX 4070 Ti",
    }
    around = host(2, cuda={"state": "ok", "gpus": [tried(0)]})
    found = report(facts(card(0), lost), around, expected={"count": 2})
    about = [v for v in found.verdicts if v.subject.startswith("GPU 1") and v.status != "PASS"]
    assert [(verdict.check, verdict.status) for verdict in about] == [("gpu_state", "FAIL")]
    message = found.message("llm-01")
    assert "llm-01 GPUs: gpu_count is 1, wanted 2" in message
    assert "GPU 1 (NVIDIA GeForce RTX 4070 Ti, GPU-1-0000): gpu_state is lost, wanted ok" in message
    assert "next action: reboot" in message


def test_one_message_names_host_gpu_reading_limit_and_next_action():
    found = report(facts(card(0), card(1, temperature_c=97)))
    assert found.message("llm-01") == (
        "1 GPU check failed. llm-01 GPU 1 (NVIDIA GeForce RTX 4070 Ti, GPU-1-0000):"
        " gpu_temperature is 97 °C, wanted 96 °C (at or over the card's slowdown threshold; next"
        " action: service, look at fans, dust and airflow)."
    )


def test_the_worst_decides_and_so_does_its_gravest_action():
    found = report(facts(card(0, recovery_action=2), card(1, temperature_c=97)))
    assert (found.status, found.action) == ("CRITICAL", "service")
    found = report(facts(card(recovery_action=2, persistence_mode=False, name="NVIDIA L40S")))
    assert (found.status, found.action) == ("CRITICAL", "reboot")
    found = report(facts(card(0, temperature_c=97), card(1, recovery_action=2)))
    assert (found.status, found.action) == ("CRITICAL", "service")


def test_a_read_that_failed_is_unknown_and_not_absent():
    broken = card(
        temperature_c=None, errors=[{"what": "temperature", "code": 999, "message": "Unknown"}]
    )
    found = report(facts(broken))
    health = outcome(found, "gpu_temperature")
    assert (health.status, health.evidence) == ("UNKNOWN", "Unknown")
    assert outcome(found, "gpu_ecc").status == "N/A"
    assert outcome(found, "gpu_readings").status == "PASS"
    failed = [verdict for verdict in found.verdicts if verdict.status == "FAIL"]
    assert [verdict.check for verdict in failed] == ["gpu_temperature"]
    assert "gpu_temperature is not known" in found.message("llm-01")


def test_a_part_of_a_reading_that_failed_is_unknown_too():
    errors = [{"what": "throttle_ns.hw_thermal_slowdown", "message": "Unknown Error"}]
    broken = card(throttle_ns={"sw_power_cap": 5}, errors=errors)
    health = outcome(report(facts(broken)), "gpu_throttle_time")
    assert (health.status, health.evidence) == ("UNKNOWN", "Unknown Error")
    broken = card(throttle_ns={"sw_power_cap": 5, "hw_thermal_slowdown": 0}, errors=errors)
    assert outcome(report(facts(broken)), "gpu_throttle_time").status == "INFO"


def test_an_unknown_of_lesser_severity_is_a_warning_to_a_run():
    broken = card(
        power_draw_watts=None, errors=[{"what": "power_draw_watts", "message": "Unknown"}]
    )
    found = report(facts(broken))
    assert [(v.check, v.status) for v in found.verdicts if v.status != "PASS"] == [
        ("gpu_power_draw", "WARN")
    ]


def test_a_failed_read_that_no_check_needs_is_told_too():
    found = report(facts(card(errors=[{"what": "encoder_ratio", "message": "Unknown Error"}])))
    health = outcome(found, "gpu_readings")
    assert (health.status, health.value) == ("UNKNOWN", ["encoder_ratio: Unknown Error"])


@pytest.mark.parametrize(
    ("what", "field", "yes"),
    [
        ("ecc_errors_corrected", "ecc_errors_corrected", True),
        ("ecc_errors_corrected", "ecc_errors_uncorrected", False),
        ("bar1", "bar1_total_bytes", True),
        ("mig_mode", "mig_mode", True),
        ("temperature", "temperature_c", True),
        ("temperature", "temperature_margin_c", False),
        ("throttle_ns.hw_thermal_slowdown", "throttle_ns", True),
        ("fields", "recovery_action", True),
        ("pci", "pcie_replay_count", False),
        ("sram", "sram_threshold_exceeded", True),
        ("inforom", "inforom_valid", True),
        ("", "name", False),
    ],
)
def test_which_read_yields_which_reading(what, field, yes):
    assert reads(what, field) is yes


def test_facts_are_left_as_they_are():
    found, around = facts(card(0), card(1, state="lost")), host(2)
    before = copy.deepcopy((found, around))
    report(found, around, expected={"count": 2})
    assert (found, around) == before


def test_a_check_that_is_switched_off_says_nothing_and_is_named():
    found = report(facts(card(temperature_c=97)), policy={"gpu_temperature": {"enabled": False}})
    assert outcomes(found, "gpu_temperature") == []
    assert found.disabled == ("gpu_temperature",)
    assert found.message("llm-01") == ""


@pytest.mark.parametrize(
    ("earlier", "words"),
    [
        ({"gpus": []}, "wanted: a result of hx_infra.llm.gpu_info with its time"),
        ({"time": "2026-11-18T11:00:00Z"}, "wanted: a result of hx_infra.llm.gpu_info"),
        ({"time": "yesterday", "gpus": []}, "wanted: a result of hx_infra.llm.gpu_info"),
        ({"time": NOW - 60, "gpus": ["GPU 0"]}, "wanted: a result of hx_infra.llm.gpu_info"),
        ({"time": NOW, "gpus": []}, "is not before the present reading"),
        ({"time": "2027-01-01T00:00:00+00:00", "gpus": []}, "is not before the present reading"),
    ],
)
def test_an_earlier_reading_that_is_none_is_refused(earlier, words):
    with pytest.raises(HostError, match=re.escape(words)):
        report(earlier=earlier)


def test_an_outcome_refuses_a_status_that_nobody_counts():
    with pytest.raises(ValueError, match="status 'FAIL' is not one of"):
        Health("gpu_ecc", "FAIL")


def test_the_form_of_results():
    found = report(facts(card(0), card(1, temperature_c=97))).as_dict()
    (hot,) = [c for c in found["checks"] if c["check"] == "gpu_temperature" and c["gpu"] == 1]
    assert hot == {
        "check": "gpu_temperature",
        "status": "CRITICAL",
        "subject": "GPU 1 (NVIDIA GeForce RTX 4070 Ti, GPU-1-0000)",
        "value": 97,
        "limit": 96,
        "unit": "°C",
        "evidence": "at or over the card's slowdown threshold",
        "source": "the card: slowdown threshold",
        "action": "service",
        "remedy": "look at fans, dust and airflow",
        "gpu": 1,
        "uuid": "GPU-1-0000",
    }
    assert (found["status"], found["verdict"], found["action"]) == ("CRITICAL", "FAIL", "service")
    assert set(found["verdicts"][0]) == {
        "check", "status", "subject", "value", "limit", "unit", "evidence",
    }  # fmt: skip


PAGE = Path(__file__).resolve().parents[4] / "docs" / "gpu.md"


def rows_of_the_page(beginning):
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [line.split("|")[1:-1] for line in lines if re.match(rf"\| {beginning}", line)]
    return {row[0].strip(" `"): [cell.strip() for cell in row] for row in rows}


def test_the_page_lists_every_check_with_its_severity():
    rows = rows_of_the_page("`gpu_")
    assert set(rows) == ALL
    for check in CHECKS:
        row = rows[check.name]
        severities = {check.severity, check.lesser} - {""}
        assert set(re.findall("INFO|WARN|CRITICAL", row[3])) == severities, check.name
        assert row[4] == (f"`{check.action}`" if check.action != "none" else "-"), check.name
        assert row[5] == check.geforce, check.name
        assert row[6] == check.source, check.name


def test_the_page_lists_every_xid():
    rows = rows_of_the_page("[0-9]")
    assert set(rows) == {str(row.code) for row in XIDS}
    for row in XIDS:
        severity = f"{row.severity}, {row.repeated} when repeated in a boot" if row.repeated else ""
        action = f"`{row.action}`" if row.action != "none" else "-"
        told = [str(row.code), row.words, severity or row.severity, action]
        assert rows[str(row.code)] == [*told, row.dcgm, row.nvsentinel, row.others]
