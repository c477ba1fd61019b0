# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

import pytest

LOGS = "/opt/hx-infrastructure/llm-02/logs/gpu"
CSV = f"{LOGS}/nvidia-smi-ping.csv"
EVENTS = f"{LOGS}/nvidia-smi-ping.events"
METRICS = "/var/lib/hxmon/textfile/gpu_telemetry.prom"
NIGHTLY = "/var/lib/hxmon/textfile/nightly_smoke.prom"
SMOKE = "/opt/scripts/tests/smoke/ollama/comprehensive-smoke.sh"
PROFILE = "/etc/sim-gpu/profile.conf"


@pytest.fixture
def sick(llm_02):
    """Take the driver away for one test."""
    llm_02.check_output(f"cp {PROFILE} {PROFILE}.kept")
    llm_02.check_output(f"cp /lab/sim_gpu/profiles/fault-driver-missing.conf {PROFILE}")
    yield llm_02
    llm_02.check_output(f"mv {PROFILE}.kept {PROFILE}")
    llm_02.check_output("systemctl start gpu-telemetry.service")


@pytest.fixture
def smoke(llm_02):
    """Put a smoke test with a given exit status in place."""

    def write(status):
        llm_02.check_output(f"mkdir -p $(dirname {SMOKE})")
        llm_02.check_output(f"printf '#!/bin/sh\\nid -un\\nexit {status}\\n' > {SMOKE}")
        llm_02.check_output(f"chmod 0755 {SMOKE}")

    yield write
    llm_02.run(f"rm -f {SMOKE}; systemctl reset-failed nightly-smoke.service")


def test_account_has_no_rights(llm_02):
    user = llm_02.user("hxmon")
    assert user.shell == "/usr/sbin/nologin"
    assert not llm_02.file(user.home).exists
    assert user.groups == ["hxmon"]


@pytest.mark.parametrize("timer", ["gpu-telemetry.timer", "nightly-smoke.timer"])
def test_timers_run(llm_02, timer):
    unit = llm_02.service(timer)
    assert unit.is_enabled
    assert unit.is_running


def test_timers_fire_when_they_should(llm_02):
    telemetry = llm_02.check_output("systemctl show -P TimersCalendar gpu-telemetry.timer")
    assert "OnCalendar=*-*-* *:00/5:00" in telemetry
    nightly = llm_02.check_output(
        "systemctl show -P TimersCalendar -P RandomizedDelayUSec -P Persistent nightly-smoke.timer"
    )
    assert "OnCalendar=*-*-* 00:00:00" in nightly
    assert "15min" in nightly
    assert "yes" in nightly.splitlines()


def test_first_sample_is_there(llm_02):
    lines = llm_02.file(CSV).content_string.splitlines()
    assert lines[0].startswith(
        "timestamp,index,name,uuid,pci.bus_id,temperature.gpu,utilization.gpu,memory.used,"
        "memory.total"
    )
    assert [line.split(",")[1] for line in lines[1:3]] == ["0", "1"]
    assert "RTX 5060 Ti" in lines[1]
    assert " start first sample, 2 GPUs" in llm_02.file(EVENTS).content_string
    assert llm_02.file(CSV).user == "hxmon"


def test_a_sample_adds_a_line_per_gpu(llm_02):
    before = len(llm_02.file(CSV).content_string.splitlines())
    llm_02.check_output("systemctl start gpu-telemetry.service")
    assert len(llm_02.file(CSV).content_string.splitlines()) == before + 2


def test_metrics(llm_02):
    metrics = llm_02.file(METRICS)
    assert metrics.mode == 0o644
    assert "hx_infra_gpu_collect_success 1.0" in metrics.content_string
    assert len(re.findall(r"^nvidia_smi_temperature_gpu\{", metrics.content_string, re.M)) == 2


def test_sandbox(llm_02):
    report = llm_02.check_output("systemd-analyze security --no-pager gpu-telemetry.service")
    exposure = float(re.search(r"exposure level for \S+: (\S+)", report)[1])
    assert exposure < 1.5
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes"):
        assert line in llm_02.file("/etc/systemd/system/gpu-telemetry.service").content_string


def test_units_are_valid(llm_02):
    said = llm_02.run("systemd-analyze verify /etc/systemd/system/gpu-telemetry.*")
    assert "gpu-telemetry" not in said.stderr


def test_a_missing_driver_is_seen(sick):
    before = sick.file(CSV).content_string
    assert sick.run("systemctl start gpu-telemetry.service").rc != 0
    assert sick.check_output("systemctl show -P Result gpu-telemetry.service") == "exit-code"
    assert "hx_infra_gpu_collect_success 0.0" in sick.file(METRICS).content_string
    assert "error driver_not_loaded" in sick.file(EVENTS).content_string.splitlines()[-1]
    assert sick.file(CSV).content_string == before


def test_the_nightly_test_tells_how_it_ended(llm_02, smoke):
    smoke(0)
    llm_02.check_output("systemctl start nightly-smoke.service")
    assert "hx_infra_nightly_smoke_success 1" in llm_02.file(NIGHTLY).content_string
    smoke(3)
    assert llm_02.run("systemctl start nightly-smoke.service").rc != 0
    metrics = llm_02.file(NIGHTLY).content_string
    assert "hx_infra_nightly_smoke_success 0" in metrics
    assert "hx_infra_nightly_smoke_exit_status 3" in metrics
    assert "hx_infra_nightly_smoke_last_success_timestamp_seconds" in metrics
    log = llm_02.file("/opt/logs/services/ollama/perf/nightly-smoke.log").content_string
    assert log.splitlines()[-2] == "hxmon"
    assert "nightly smoke test: exit-code, exit status 3" in log.splitlines()[-1]


def test_rotation_rules_are_valid(llm_02):
    said = llm_02.run("logrotate --debug /etc/logrotate.d/hx-telemetry")
    assert said.rc == 0
    assert "error" not in said.stderr


def test_a_dry_run_on_the_finished_host_predicts_nothing(playbook):
    ended = playbook("-i", "inventories/lab", "--check", "molecule/telemetry/converge.yml")
    assert ended.returncode == 0, ended.stdout
    assert "changed=0" in ended.stdout
