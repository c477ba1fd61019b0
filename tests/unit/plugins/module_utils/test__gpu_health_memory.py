# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from gpu_health_samples import DATA_CENTRE, GIB, of_card


@pytest.mark.parametrize(
    ("check", "fields", "status", "action"),
    [
        ("gpu_memory", {}, "PASS", "none"),
        ("gpu_memory", {"memory_used_bytes": 2 * GIB}, "WARN", "reset_gpu"),
        ("gpu_memory", {"memory_used_bytes": 2 * GIB, "processes": None}, "PASS", "none"),
        ("gpu_memory", {"memory_used_bytes": 2 * GIB, "processes": [{"pid": 7}]}, "PASS", "none"),
        ("gpu_memory", {"memory_total_bytes": 0}, "UNKNOWN", "fix_config"),
        ("gpu_memory", {"memory_total_bytes": None}, "N/A", "none"),
        ("gpu_bar1", {}, "PASS", "none"),
        ("gpu_bar1", {"bar1_used_bytes": 16 * GIB - 1}, "WARN", "restart_app"),
        ("gpu_bar1", {"bar1_total_bytes": GIB // 4}, "INFO", "none"),
        ("gpu_bar1", {"bar1_total_bytes": None}, "N/A", "none"),
        ("gpu_inforom", {}, "PASS", "none"),
        ("gpu_inforom", {"inforom_valid": False}, "CRITICAL", "service"),
        ("gpu_inforom", {"inforom_valid": None}, "N/A", "none"),
        ("gpu_recovery_action", {}, "PASS", "none"),
        ("gpu_recovery_action", {"recovery_action": 1}, "CRITICAL", "reset_gpu"),
        ("gpu_recovery_action", {"recovery_action": 2}, "CRITICAL", "reboot"),
        ("gpu_recovery_action", {"recovery_action": 3}, "WARN", "reset_gpu"),
        ("gpu_recovery_action", {"recovery_action": 4}, "CRITICAL", "reset_gpu"),
        ("gpu_recovery_action", {"recovery_action": 5}, "CRITICAL", "service"),
        ("gpu_recovery_action", {"recovery_action": 7}, "CRITICAL", "reboot"),
        ("gpu_recovery_action", {"recovery_action": 99}, "CRITICAL", "service"),
        ("gpu_recovery_action", {"recovery_action": None}, "N/A", "none"),
        ("gpu_ecc", {}, "N/A", "none"),
        ("gpu_ecc_corrected", {}, "N/A", "none"),
        ("gpu_ecc_mode", {}, "N/A", "none"),
        ("gpu_sram", {}, "N/A", "none"),
        ("gpu_retired_pages", {}, "N/A", "none"),
        ("gpu_remapped_rows", {}, "N/A", "none"),
        ("gpu_unrepairable_memory", {}, "N/A", "none"),
    ],
)
def test_any_card(check, fields, status, action):
    health = of_card(check, **fields)
    assert (health.status, health.action) == (status, action)


@pytest.mark.parametrize(
    ("check", "fields", "status", "action"),
    [
        ("gpu_ecc", {}, "PASS", "none"),
        ("gpu_ecc", {"ecc_errors_uncorrected": 1}, "CRITICAL", "reset_gpu"),
        ("gpu_ecc_corrected", {"ecc_errors_corrected": 50_000_000}, "PASS", "none"),
        ("gpu_ecc_corrected", {"ecc_errors_corrected": 50_000_001}, "WARN", "service"),
        ("gpu_ecc_mode", {}, "PASS", "none"),
        ("gpu_ecc_mode", {"ecc_mode_pending": False}, "WARN", "reboot"),
        ("gpu_ecc_mode", {"ecc_mode": False, "ecc_mode_pending": False}, "INFO", "none"),
        ("gpu_sram", {}, "PASS", "none"),
        ("gpu_sram", {"sram_threshold_exceeded": True}, "WARN", "service"),
        ("gpu_retired_pages", {"retired_pages_double_bit": 2}, "PASS", "none"),
        ("gpu_retired_pages", {"retired_pages_single_bit": 63}, "CRITICAL", "service"),
        ("gpu_retired_pages", {"retired_pages_pending": True}, "CRITICAL", "reset_gpu"),
        ("gpu_retired_pages", {"retired_pages_double_bit": 15}, "PASS", "none"),
        ("gpu_retired_pages", {"retired_pages_double_bit": 16}, "WARN", "service"),
        ("gpu_remapped_rows", {"remapped_rows_uncorrectable": 511}, "PASS", "none"),
        ("gpu_remapped_rows", {"remapped_rows_uncorrectable": 512}, "WARN", "service"),
        ("gpu_remapped_rows", {"remapped_rows_pending": True}, "CRITICAL", "reset_gpu"),
        ("gpu_remapped_rows", {"remapped_rows_failure": True}, "CRITICAL", "service"),
        ("gpu_unrepairable_memory", {}, "PASS", "none"),
        ("gpu_unrepairable_memory", {"unrepairable_memory": True}, "CRITICAL", "service"),
    ],
)
def test_a_data_centre_card(check, fields, status, action):
    health = of_card(check, base=DATA_CENTRE, **fields)
    assert (health.status, health.action) == (status, action)


@pytest.mark.parametrize(
    ("limit", "fields", "status", "action"),
    [
        ("enabled", {}, "PASS", "none"),
        ("disabled", {}, "WARN", "fix_config"),
        ("disabled", {"ecc_mode_pending": False}, "WARN", "reboot"),
        ("disabled", {"ecc_mode": False, "ecc_mode_pending": False}, "PASS", "none"),
    ],
)
def test_the_ecc_mode_of_a_policy(limit, fields, status, action):
    policy = {"gpu_ecc_mode": {"limit": limit}}
    health = of_card("gpu_ecc_mode", base=DATA_CENTRE, policy=policy, **fields)
    assert (health.status, health.action) == (status, action)


@pytest.mark.parametrize(
    ("check", "limit", "fields"),
    [
        ("gpu_ecc", 3, {"ecc_errors_uncorrected": 3}),
        ("gpu_retired_pages", 100, {"retired_pages_single_bit": 63}),
        ("gpu_remapped_rows", 600, {"remapped_rows_uncorrectable": 512}),
        ("gpu_memory", 0.5, {"memory_used_bytes": 5 * GIB}),
        ("gpu_bar1", 0, {"bar1_used_bytes": 16 * GIB}),
    ],
)
def test_limits_of_a_policy(check, limit, fields):
    policy = {check: {"limit": limit}}
    assert of_card(check, base=DATA_CENTRE, **fields).status in ("WARN", "CRITICAL")
    assert of_card(check, base=DATA_CENTRE, policy=policy, **fields).status == "PASS"
