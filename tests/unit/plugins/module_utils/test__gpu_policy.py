# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy import KINDS, merge
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_checks import (
    ACTIONS,
    BAD_ENVIRONMENT,
    CHECKS,
    HOST,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_xids import XIDS

SEVERITIES = {"INFO", "WARN", "CRITICAL"}


def test_the_tables_are_sound():
    names = [check.name for check in CHECKS]
    assert len(names) == len(set(names))
    for check in CHECKS:
        assert check.severity in SEVERITIES
        assert check.lesser in SEVERITIES | {""}
        assert check.action in ACTIONS
        assert check.kind in {"", *KINDS}
        assert not (check.kind and check.declared), check.name
        assert bool(check.choices) == (check.kind == "word"), check.name
        assert check.words
        assert check.source
        assert check.remedy
        assert check.geforce in ("yes", "no", "unknown")
        assert not (check.about == HOST and check.geforce != "yes"), check.name
    codes = [row.code for row in XIDS]
    assert codes == sorted(set(codes))
    for row in XIDS:
        assert row.severity in SEVERITIES
        assert row.action in ACTIONS
        assert (row.action == "none") == (row.severity == "INFO")


def test_every_default_limit_is_one_that_a_policy_could_set():
    for check in CHECKS:
        if check.limit is not None:
            assert KINDS[check.kind][0](check.limit), check.name


def test_the_list_of_variables_is_dcgms():
    assert len(BAD_ENVIRONMENT) == len(set(BAD_ENVIRONMENT)) == 10


def test_without_overrides_the_tables_stay():
    policy = merge()
    assert list(policy.checks.values()) == list(CHECKS)
    assert list(policy.xids.values()) == list(XIDS)
    assert (policy.disabled, policy.declared) == ((), frozenset())


def test_a_severity_holds_for_every_degree():
    checks = merge(
        {"gpu_temperature": {"severity": "INFO"}, "gpu_ecc": {"severity": "WARN"}}
    ).checks
    assert (checks["gpu_temperature"].severity, checks["gpu_temperature"].lesser) == (
        "INFO",
        "INFO",
    )
    assert (checks["gpu_ecc"].severity, checks["gpu_ecc"].lesser) == ("WARN", "")


def test_a_limit_names_its_source():
    policy = merge({"gpu_power_limit": {"limit": 250}, "gpu_ecc": {"limit": None}})
    check = policy.checks["gpu_power_limit"]
    assert (check.limit, check.source) == (250, "policy: gpu_power_limit.limit")
    assert policy.declared == {"gpu_power_limit"}


def test_limits_at_their_bounds():
    for name, limit in (("gpu_memory", 0), ("gpu_memory", 1), ("gpu_ecc", 0)):
        assert merge({name: {"limit": limit}}).checks[name].limit == limit


def test_names_become_a_tuple():
    policy = merge({"gpu_graphics_processes": {"limit": ["Xorg"]}})
    assert policy.checks["gpu_graphics_processes"].limit == ("Xorg",)


def test_checks_are_switched_off_and_named():
    policy = merge({"gpu_bar1": {"enabled": False}, "gpu_mig": {"enabled": True}})
    assert policy.disabled == ("gpu_bar1",)
    assert "gpu_bar1" not in policy.checks
    assert "gpu_mig" in policy.checks


@pytest.mark.parametrize(
    ("reaction", "override", "severity"),
    [
        ("fail", {}, "CRITICAL"),
        ("warn", {}, "WARN"),
        ("ignore", {}, "INFO"),
        ("fail", {"severity": "WARN"}, "WARN"),
    ],
)
def test_what_a_foreign_program_means(reaction, override, severity):
    policy = merge({"gpu_foreign_processes": override}, None, reaction)
    assert policy.checks["gpu_foreign_processes"].severity == severity


def test_xids_are_overridden_and_added():
    policy = merge(
        None,
        {"31": {"severity": "INFO"}, 109: {"severity": "WARN"}, 400: {"action": "reboot"}},
    )
    assert (policy.xid(31).severity, policy.xid(31).action) == ("INFO", "restart_app")
    assert (policy.xid(109).repeated, merge().xid(109).repeated) == ("", "CRITICAL")
    assert (policy.xid(400).severity, policy.xid(400).action) == ("WARN", "reboot")
    assert (policy.xid(401).severity, policy.xid(401).action) == ("WARN", "service")


NUMBER, WHOLE = "a number of 0 or more", "a whole number of 0 or more"


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (
            {"gpu_temp": {}},
            "policy.gpu_temp: found 'gpu_temp', wanted one of the checks gpu_driver,",
        ),
        ({"gpu_ecc": 5}, "policy.gpu_ecc: found 5, wanted a mapping with limit, severity, enabled"),
        (
            {"gpu_ecc": {"level": 1}},
            "policy.gpu_ecc.level: found 1, wanted one of the fields limit,",
        ),
        (
            {"gpu_ecc": {"severity": "FAIL"}},
            "policy.gpu_ecc.severity: found 'FAIL', wanted one of INFO, WARN, CRITICAL",
        ),
        (
            {"gpu_ecc": {"enabled": "no"}},
            "policy.gpu_ecc.enabled: found 'no', wanted true or false",
        ),
        ({"gpu_ecc": {"limit": 1.5}}, f"policy.gpu_ecc.limit: found 1.5, wanted {WHOLE}"),
        ({"gpu_ecc": {"limit": True}}, f"policy.gpu_ecc.limit: found True, wanted {WHOLE}"),
        ({"gpu_power_limit": {"limit": -1}}, f"found -1, wanted {NUMBER}"),
        ({"gpu_power_limit": {"limit": "250 W"}}, f"found '250 W', wanted {NUMBER}"),
        ({"gpu_bar1": {"limit": 1.1}}, "found 1.1, wanted a number between 0 and 1"),
        (
            {"gpu_mig": {"limit": "on"}},
            "policy.gpu_mig.limit: found 'on', wanted one of enabled, disabled",
        ),
        (
            {"gpu_compute_mode": {"limit": "prohibited"}},
            "wanted one of default, exclusive_process, exclusive_thread",
        ),
        (
            {"gpu_graphics_processes": {"limit": "Xorg"}},
            "found 'Xorg', wanted a list of names or patterns",
        ),
        (
            {"gpu_temperature": {"limit": 80}},
            "policy.gpu_temperature.limit: found 80, wanted no limit, set"
            " expected.temperature_max_c instead",
        ),
        ({"gpu_nouveau": {"limit": 1}}, "found 1, wanted no limit, this check has none"),
        (["gpu_ecc"], "policy: found ['gpu_ecc'], wanted a mapping {check: {limit, severity"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(policy, said):
    with pytest.raises(HostError, match=re.escape(said)) as refused:
        merge(policy)
    assert "docs/gpu.md" in str(refused.value)


@pytest.mark.parametrize(
    ("xids", "said"),
    [
        (
            {"seventy": {"severity": "WARN"}},
            "xids.seventy: found 'seventy', wanted the number of an",
        ),
        ({0: {"severity": "WARN"}}, "xids.0: found 0, wanted the number of an Xid"),
        ({True: {"severity": "WARN"}}, "found True, wanted the number of an Xid"),
        ({79: {}}, "xids.79: found {}, wanted a mapping with severity, action"),
        ({79: {"limit": 1}}, "xids.79.limit: found 1, wanted one of the fields severity, action"),
        (
            {79: {"severity": "warn"}},
            "xids.79.severity: found 'warn', wanted one of INFO, WARN, CRI",
        ),
        (
            {79: {"action": "pray"}},
            "xids.79.action: found 'pray', wanted one of none, restart_app,",
        ),
        ([79], "xids: found [79], wanted a mapping {code: {severity, action}}"),
    ],
)
def test_xids_that_mean_nothing_are_refused(xids, said):
    with pytest.raises(HostError, match=re.escape(said)):
        merge(None, xids)


def test_all_problems_are_said_at_once():
    with pytest.raises(HostError) as refused:
        merge({"gpu_a": {}, "gpu_ecc": {"severity": "?"}}, {79: {"action": "?"}})
    for field in ("policy.gpu_a", "policy.gpu_ecc.severity", "xids.79.action"):
        assert f"{field}: found" in str(refused.value)
