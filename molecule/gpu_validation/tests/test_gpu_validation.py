# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path

import pytest

CONVERGE = str(Path(__file__).resolve().parents[1] / "converge.yml")
PROFILE = "/etc/sim-gpu/profile.conf"


@pytest.fixture
def profile(llm_02):
    """Give the host another simulated GPU for one test."""
    llm_02.check_output(f"cp {PROFILE} {PROFILE}.kept")

    def use(name):
        llm_02.check_output(f"cp /lab/sim_gpu/profiles/{name}.conf {PROFILE}")

    yield use
    llm_02.check_output(f"mv {PROFILE}.kept {PROFILE}")


def validate(playbook, declared=None, **settings):
    arguments = ["-i", "inventories/lab", CONVERGE]
    if declared is not None:
        settings["declared"] = declared
    if settings:
        arguments += ["-e", json.dumps(settings)]
    return playbook(*arguments)


def said(ended):
    return " ".join((ended.stdout + ended.stderr).split())


def test_a_healthy_host_passes_and_nothing_is_yellow(playbook):
    ended = validate(playbook)
    assert ended.returncode == 0, ended.stdout
    assert "changed=0" in ended.stdout
    assert "host status INFO, verdict PASS, warned of nothing" in said(ended)


def test_an_account_that_is_not_there_yet_stops_nothing(playbook):
    ended = validate(playbook, service_user="not-yet-there")
    assert ended.returncode == 0, ended.stdout


def test_too_few_gpus_stop_the_run(playbook):
    ended = validate(playbook, {"count": 3})
    assert ended.returncode != 0
    assert "1 GPU check failed. llm-02 GPUs: gpu_count is 2, wanted 3" in said(ended)


def test_an_old_driver_stops_the_run(playbook):
    ended = validate(playbook, {"driver_min": "999.1"})
    assert "gpu_driver_version is" in said(ended)
    assert "wanted 999.1" in said(ended)
    assert "next action: fix_config" in said(ended)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fault-driver-missing", "gpu_driver is driver_not_loaded, wanted ok"),
        ("fault-library-mismatch", "gpu_driver is version_mismatch, wanted ok"),
        ("fault-hang", "gpu_driver is timeout, wanted ok"),
        ("fault-gpu-lost", "gpu_state is lost, wanted ok"),
        ("fault-over-temperature", "gpu_temperature is 97 °C, wanted 96 °C"),
        ("fault-pcie-x4", "gpu_pcie_width is 4 lanes, wanted 16 lanes"),
        ("fault-ecc-uncorrected", "gpu_ecc is"),
        ("fault-inforom-corrupt", "gpu_inforom is False, wanted True"),
        ("fault-row-remap-failed", "gpu_remapped_rows is"),
        ("fault-retired-pages-pending", "gpu_retired_pages is"),
        ("fault-recovery-reset", "gpu_recovery_action is GPU reset, wanted none"),
    ],
)
def test_a_sick_host_stops_the_run(playbook, profile, name, words):
    profile(name)
    ended = validate(playbook, {})
    assert ended.returncode != 0
    assert words in said(ended), ended.stdout
    assert "next action:" in said(ended)


@pytest.mark.parametrize(
    ("name", "check"),
    [("fault-hw-slowdown", "gpu_hw_slowdown"), ("fault-mig-pending", "gpu_mig")],
)
def test_a_lesser_fault_is_told_and_stops_nothing(playbook, profile, name, check):
    profile(name)
    ended = validate(playbook, {})
    assert ended.returncode == 0, ended.stdout
    assert f"verdict WARN, warned of {check}" in said(ended)


def test_a_severity_of_the_site_stops_the_run(playbook, profile):
    profile("fault-hw-slowdown")
    policy = {"gpu_hw_slowdown": {"severity": "CRITICAL"}}
    ended = validate(playbook, {}, policy=policy)
    assert ended.returncode != 0
    assert "gpu_hw_slowdown is" in said(ended)


def test_a_limit_of_the_site_is_judged(playbook, profile):
    profile("fault-power-cap")
    policy = {"gpu_power_limit": {"limit": 285, "severity": "CRITICAL"}}
    ended = validate(playbook, {}, policy=policy)
    assert ended.returncode != 0
    assert "gpu_power_limit is 150 W, wanted 285 W" in said(ended)


def test_a_policy_that_means_nothing_is_refused(playbook):
    ended = validate(playbook, policy={"gpu_temprature": {"limit": 80}})
    assert ended.returncode != 0
    assert "policy.gpu_temprature: found 'gpu_temprature', wanted one of the checks" in said(ended)


def test_what_is_accepted_stops_nothing_until_its_last_day(playbook, profile):
    profile("fault-over-temperature")
    hot = {"check": "gpu_temperature", "gpu": 1, "reason": "fan is ordered"}
    ended = validate(playbook, {}, accept=[{**hot, "until": "2999-12-31"}])
    assert ended.returncode == 0, ended.stdout
    assert "verdict WARN" in said(ended)

    ended = validate(playbook, {}, accept=[{**hot, "until": "2020-01-31"}])
    assert ended.returncode != 0
    assert "its acceptance ended on 2020-01-31: fan is ordered" in said(ended)

    ended = validate(playbook, {}, accept=[{**hot, "gpu": 0}])
    assert ended.returncode != 0


@pytest.fixture
def history(llm_02):
    """Give the host a history of Xid messages for one test."""
    path = "/run/xid-history.jsonl"

    def write(*xids):
        stamp = llm_02.check_output("date -u +%Y-%m-%dT%H:%M:%S.000000Z")
        for number, xid in enumerate(xids):
            event = {
                "boot": f"{number:032x}",
                "monotonic_us": number + 1,
                "pci_bus_id": "00000000:01:00.0",
                "time": stamp,
                "xid": xid,
            }
            llm_02.check_output(f"echo '{json.dumps(event)}' >> {path}")
        return path

    yield write
    llm_02.check_output(f"rm -f {path}")


def test_a_fault_that_reboots_did_not_cure_stops_the_run(playbook, history):
    path = history(79, 79)
    ended = validate(playbook, history=path)
    assert ended.returncode != 0
    assert "gpu_xid_repeated is 2 boots, wanted 2 boots" in said(ended)
    assert "GPU has fallen off the bus" in said(ended)


def test_a_fault_that_a_reboot_has_settled_is_only_told(playbook, history):
    ended = validate(playbook, history=history(79))
    assert ended.returncode == 0, ended.stdout
