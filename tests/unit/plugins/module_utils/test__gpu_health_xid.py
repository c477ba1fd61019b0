# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from gpu_health_samples import NOW, card, dead, facts, host, outcome, outcomes, report

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_xid import seconds_of
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_xids import XIDS

AN_HOUR_AGO = "2026-11-18T10:06:40.000000Z"
TEN_DAYS_AGO = "2026-11-08T11:06:40.000000Z"


def entry(xid, count=1, boots=1, this_boot=1, last=AN_HOUR_AGO, **fields):
    found = {
        "pci_bus_id": "00000000:01:00.0",
        "xid": xid,
        "count": count,
        "boots": boots,
        "this_boot": this_boot,
        "first": last,
        "last": last,
        **fields,
    }
    return {key: value for key, value in found.items() if value is not None}


def judged(*entries, errors=(), policy=None, xids=None, found=None):
    around = host(xids={"since": "2026-10-19", "entries": list(entries)}, errors=list(errors))
    return report(found, around, policy=policy, xids=xids)


def status(*entries, check="gpu_xid", **options):
    return outcome(judged(*entries, **options), check).status


@pytest.mark.parametrize("row", XIDS, ids=lambda row: str(row.code))
def test_every_row_of_the_table(row):
    health = outcome(judged(entry(row.code)), "gpu_xid")
    assert (health.status, health.value) == (row.severity, [row.code])
    assert health.action == row.action
    assert row.words in health.evidence


def test_no_xid_is_a_pass():
    health = outcome(judged(), "gpu_xid")
    assert (health.status, health.value, health.evidence) == ("PASS", [], "none since 2026-10-19")
    assert status(check="gpu_xid_repeated") == "PASS"


def test_a_code_without_a_row():
    health = outcome(judged(entry(999)), "gpu_xid")
    assert (health.status, health.action) == ("WARN", "service")
    assert "Xid 999 not in the table, once" in health.evidence


@pytest.mark.parametrize(
    ("what", "outcome_"),
    [
        (entry(79), "CRITICAL"),
        (entry(79, this_boot=0), "INFO"),  # a reboot has settled it
        (entry(79, last=TEN_DAYS_AGO), "CRITICAL"),  # no reboot since
        (entry(79, this_boot=None), "CRITICAL"),
        (entry(79, last=None), "CRITICAL"),
        (entry(31), "WARN"),
        (entry(31, this_boot=0), "INFO"),
        (entry(31, last=TEN_DAYS_AGO), "INFO"),
        (entry(64, this_boot=0), "CRITICAL"),  # no reboot cures it
        (entry(64, this_boot=0, last=TEN_DAYS_AGO), "INFO"),
        (entry(64, last=TEN_DAYS_AGO), "CRITICAL"),
        (entry(92, this_boot=0), "WARN"),
        (entry(92, last=TEN_DAYS_AGO), "INFO"),
        (entry(109), "WARN"),
        (entry(109, count=2, this_boot=2), "CRITICAL"),
        (entry(109, count=2, boots=2), "WARN"),
        (entry(109, count=2, this_boot=None), "CRITICAL"),
        (entry(45), "INFO"),
    ],
)
def test_when_it_came_up_decides_what_it_still_means(what, outcome_):
    assert status(what) == outcome_


@pytest.mark.parametrize("xid", [row.code for row in XIDS if row.action == "reset_gpu"])
def test_a_reset_that_nobody_can_see_settles_nothing_and_the_operator_is_told(xid):
    # The driver asks for nothing any more, as after a reset, or after a single timeout of the GSP.
    health = outcome(judged(entry(xid), found=facts(card(recovery_action=0))), "gpu_xid")
    grave = health.status == "CRITICAL"
    assert ("only a reboot settles this" in health.remedy) == grave
    assert ("llm_gpu_accept" in health.remedy) == grave
    assert status(entry(xid, this_boot=0)) == "INFO"


def test_a_reset_card_can_be_accepted_until_the_reboot():
    around = host(xids={"since": "2026-10-19", "entries": [entry(119)]})
    until = {"check": "gpu_xid", "gpu": 0, "reason": "reset", "until": "2026-11-20"}
    found = report(None, around, accept=[until])
    (verdict,) = [said for said in found.verdicts if said.check == "gpu_xid"]
    assert verdict.status == "WARN"
    assert found.message("llm-01") == ""


def test_the_days_that_a_lesser_one_counts_are_a_limit():
    old = entry(31, last=TEN_DAYS_AGO)
    assert status(old, policy={"gpu_xid": {"limit": 14}}) == "WARN"


@pytest.mark.parametrize(
    ("what", "outcome_"),
    [
        (entry(79, count=2, boots=2), "CRITICAL"),
        (entry(79, count=2, boots=2, this_boot=0), "CRITICAL"),
        (entry(79, count=9, boots=1), "PASS"),
        (entry(79, count=2, boots=2, this_boot=0, last=TEN_DAYS_AGO), "PASS"),
        (entry(48, count=2, boots=2), "CRITICAL"),
        (entry(94, count=9, boots=9), "PASS"),
        (entry(31, count=9, boots=9), "PASS"),
        (entry(64, count=2, boots=2), "PASS"),  # asks for service at once
    ],
)
def test_a_fault_that_reboots_do_not_cure_is_the_hardwares(what, outcome_):
    health = outcome(judged(what), "gpu_xid_repeated")
    assert health.status == outcome_
    assert health.action == ("service" if outcome_ == "CRITICAL" else "none")


def test_94_never_escalates_whatever_a_site_makes_of_it():
    xids = {94: {"severity": "CRITICAL", "action": "reboot"}}
    what = entry(94, count=5, boots=5)
    assert status(what, check="gpu_xid_repeated", xids=xids) == "PASS"
    assert status(what, xids=xids) == "CRITICAL"


def test_the_boots_are_a_limit():
    what = entry(79, count=2, boots=2)
    policy = {"gpu_xid_repeated": {"limit": 3}}
    assert status(what, check="gpu_xid_repeated", policy=policy) == "PASS"


def test_the_gravest_decides_and_all_are_told():
    found = judged(entry(31, process="python3"), entry(79, this_boot=0), entry(48, count=3))
    health = outcome(found, "gpu_xid")
    assert (health.status, health.action, health.value[0]) == ("CRITICAL", "reset_gpu", 48)
    for words in ("Xid 48 double-bit ECC error, 3 times", "by python3", "Xid 79"):
        assert words in health.evidence


def test_xids_of_a_site():
    assert status(entry(31), xids={"31": {"severity": "INFO", "action": "none"}}) == "INFO"
    assert status(entry(31), xids={31: {"severity": "CRITICAL"}}) == "CRITICAL"


def test_a_severity_of_the_check_holds_for_every_code():
    assert status(entry(79), policy={"gpu_xid": {"severity": "WARN"}}) == "WARN"


def test_each_card_has_its_own():
    found = judged(entry(79, pci_bus_id="00000000:02:00.0"), found=facts(card(0), card(1)))
    assert [health.status for health in outcomes(found, "gpu_xid")] == ["PASS", "CRITICAL"]


def test_a_card_that_is_gone_is_told_by_its_address():
    found = judged(entry(79, pci_bus_id="00000000:05:00.0"))
    gone = next(health for health in outcomes(found, "gpu_xid") if health.gpu is None)
    assert (gone.status, gone.subject) == ("CRITICAL", "PCI 0000:05:00.0")
    assert "PCI 0000:05:00.0: gpu_xid is 79" in found.message("llm-01")


def test_a_dead_driver_leaves_its_words():
    found = judged(entry(79), found=dead("timeout"))
    assert outcome(found, "gpu_xid").subject == "PCI 0000:01:00.0"


def test_a_log_that_cannot_be_read_is_no_clean_log():
    errors = [{"what": "xids", "message": "journalctl did not answer"}]
    found = report(None, host(xids=None, errors=errors))
    assert outcome(found, "gpu_xid").evidence == "journalctl did not answer"
    assert outcome(found, "gpu_xid").status == "UNKNOWN"
    assert outcome(found, "gpu_xid_repeated").status == "UNKNOWN"
    assert status(errors=errors) == "UNKNOWN"
    assert status(entry(79), errors=errors) == "CRITICAL"


def test_a_log_of_another_kernel_leaves_no_gap():
    errors = [{"what": "xids", "message": "the journal has no message of the kernel"}]

    def told(*entries):
        xids = {"since": "2026-10-19", "entries": list(entries)}
        around = host(module={"loaded": False}, xids=xids, errors=errors)
        return outcome(report(None, around), "gpu_xid").status

    assert told() == "PASS"
    assert told(entry(79, this_boot=0)) == "INFO"
    assert told(entry(79)) == "CRITICAL"


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [
        (NOW, NOW),
        (f"{NOW:.0f}", NOW),  # as ansible_date_time.epoch writes it
        (f" {NOW:.0f}.5 ", NOW + 0.5),
        ("-5", None),
        ("nan", None),
        ("2026-11-18T11:06:40Z", NOW),
        ("2026-11-18T11:06:40.000000Z", NOW),
        ("2026-11-18T12:06:40+01:00", NOW),
        ("2026-11-18T11:06:40", NOW),
        ("today", None),
        (None, None),
        (True, None),
    ],
)
def test_times(moment, seconds):
    assert seconds_of(moment) == seconds
