# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

import pytest
from gpu_health_samples import card, dead, facts, host, outcome, outcomes, report

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_accept import acceptances

HOT = facts(card(0), card(1, temperature_c=97))
REASON = "the fan is ordered"


def accepting(found=None, **entry):
    given = {"check": "gpu_temperature", "reason": REASON, **entry}
    return report(found or HOT, accept=[given])


def of_run(found, check):
    return {v.status for v in found.verdicts if v.check == check} - {"PASS"}


@pytest.mark.parametrize("gpu", [None, "", "*", 1, "1", "GPU-1-0000"])
def test_what_is_accepted_keeps_its_status_and_stops_nothing(gpu):
    found = accepting(gpu=gpu)
    hot = outcomes(found, "gpu_temperature")[1]
    assert (hot.status, hot.accepted, hot.action) == ("CRITICAL", REASON, "service")
    assert of_run(found, "gpu_temperature") == {"WARN"}
    assert found.message("llm-01") == ""
    (verdict,) = [v for v in found.verdicts if v.status == "WARN"]
    assert verdict.evidence.endswith(f"accepted: {REASON}")
    assert (found.status, found.action) == ("WARN", "none")
    assert hot.as_dict()["accepted"] == REASON


@pytest.mark.parametrize("gpu", [0, "0", "GPU-0-0000", 7, "GPU-7"])
def test_another_card_is_not_accepted(gpu):
    found = accepting(gpu=gpu)
    assert of_run(found, "gpu_temperature") == {"FAIL"}
    assert found.status == "CRITICAL"


def test_another_check_is_not_accepted():
    assert of_run(accepting(check="gpu_hw_slowdown"), "gpu_temperature") == {"FAIL"}


def test_a_healthy_outcome_needs_no_acceptance():
    found = accepting(facts(card()))
    assert outcome(found, "gpu_temperature").accepted == ""
    assert of_run(found, "gpu_temperature") == set()
    assert found.notes == []


def test_an_unknown_can_be_accepted():
    found = report(None, host(xids=None), accept=[{"check": "gpu_xid", "reason": "no journal"}])
    assert outcome(found, "gpu_xid").status == "UNKNOWN"
    assert of_run(found, "gpu_xid") == {"WARN"}


def test_a_warning_stays_a_warning():
    lanes = facts(card(pcie_link_width_current=8))
    found = accepting(lanes, check="gpu_pcie_width")
    assert of_run(found, "gpu_pcie_width") == {"WARN"}


def test_a_dead_driver_that_is_accepted_takes_what_hangs_on_it_along():
    found = report(dead("timeout"), accept=[{"check": "gpu_driver", "reason": "a spare host"}])
    assert found.message("llm-01") == ""
    assert found.status == "WARN"


@pytest.mark.parametrize(
    ("until", "holds"),
    [
        ("2026-11-18", True),  # the day of the reading
        ("2026-11-19", True),
        ("2026-11-17", False),
        ("2026-11-18T00:00:00", True),
        ("", True),
        (None, True),
    ],
)
def test_an_acceptance_holds_until_the_end_of_its_last_day(until, holds):
    found = accepting(until=until)
    assert of_run(found, "gpu_temperature") == {"WARN" if holds else "FAIL"}


def test_an_acceptance_that_has_ended_is_said():
    found = accepting(until="2026-11-17")
    hot = outcomes(found, "gpu_temperature")[1]
    assert hot.evidence.endswith(f"its acceptance ended on 2026-11-17: {REASON}")
    assert hot.accepted == ""
    assert found.notes == [f"the acceptance of gpu_temperature ended on 2026-11-17: {REASON}"]
    assert "its acceptance ended on 2026-11-17" in found.message("llm-01")


def test_one_that_holds_outranks_one_that_has_ended():
    entries = [
        {"check": "gpu_temperature", "gpu": 1, "reason": "old", "until": "2026-01-01"},
        {"check": "gpu_temperature", "reason": "new"},
    ]
    hot = outcomes(report(HOT, accept=entries), "gpu_temperature")[1]
    assert hot.accepted == "new"
    assert "ended" not in hot.evidence


def test_an_acceptance_for_a_card_that_is_not_there_is_said():
    assert accepting(gpu=7).notes == [
        "the acceptance of gpu_temperature of GPU 7 is for a GPU that this host does not show"
    ]
    assert accepting(gpu=0).notes == []


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"reason": "x"}, "accept[0].check: found None, wanted one of the checks gpu_driver,"),
        ({"check": "gpu_temp", "reason": "x"}, "accept[0].check: found 'gpu_temp', wanted one of"),
        ({"check": "gpu_ecc"}, "accept[0].reason: found nothing, wanted a reason that the report"),
        ({"check": "gpu_ecc", "reason": "  "}, "accept[0].reason: found nothing"),
        (
            {"check": "gpu_ecc", "reason": "x", "until": "soon"},
            "accept[0].until: found 'soon', wanted a date such as 2027-01-31",
        ),
        (
            {"check": "gpu_ecc", "reason": "x", "gpu": "first"},
            "accept[0].gpu: found 'first', wanted an index, a UUID, or *",
        ),
        (
            {"check": "gpu_ecc", "reason": "x", "unitl": "2027-01-31"},
            "accept[0].unitl: found '2027-01-31', wanted one of check, gpu, reason, until",
        ),
        ("gpu_ecc", "accept[0]: found 'gpu_ecc', wanted a mapping with check, gpu, reason, until"),
    ],
)
def test_an_acceptance_that_means_nothing_is_refused(entry, said):
    with pytest.raises(HostError, match=re.escape(said)):
        acceptances([entry])


def test_acceptances_are_a_list():
    with pytest.raises(HostError, match=re.escape("accept: found 'gpu_ecc', wanted a list of")):
        acceptances("gpu_ecc")
    assert acceptances(None) == []
