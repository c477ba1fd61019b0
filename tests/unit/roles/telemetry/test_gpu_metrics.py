# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The textfiles, read with the parser of Prometheus' own client."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from gpu_dcgm import render_dcgm
from gpu_metrics import Account, Xid, render_metrics
from gpu_reader import Sample
from prometheus_client.parser import text_string_to_metric_families
from telemetry_parts import DRIVER, GPU, LOST, OTHER

FIXTURES = Path(__file__).parent / "fixtures"
ACCOUNT = Account(
    state="ok",
    code=0,
    seconds=0.25,
    interval_s=300.0,
    last_run=1000.5,
    last_success=1000.5,
    failures=3,
    restarts={},
    xids=[],
    xids_read=None,
    uuids={},
    cards={},
)
# A card that tells everything, as none does.
EVERYTHING = {
    **GPU,
    "serial": "123",
    "vbios_version": "95.04",
    "compute_capability": "8.9",
    "temperature_margin_c": 40,
    "temperature_memory_c": 60,
    "utilization_memory_ratio": 0.5,
    "encoder_ratio": 0.1,
    "decoder_ratio": 0.2,
    "memory_free_bytes": 5,
    "memory_reserved_bytes": 6,
    "power_management_limit_watts": 280.0,
    "power_default_limit_watts": 285.0,
    "power_min_limit_watts": 100.0,
    "power_max_limit_watts": 320.0,
    "energy_joules": 1234.5,
    "clock_graphics_hz": 1,
    "clock_graphics_max_hz": 2,
    "clock_sm_max_hz": 3,
    "clock_memory_max_hz": 4,
    "performance_state": 0,
    "persistence_mode": True,
    "pcie_link_gen_max": 4,
    "pcie_link_gen_gpu_max": 4,
    "pcie_link_width_max": 16,
    "pcie_replay_count": 7,
    "throttle_ns": {
        "sw_power_cap": 1_500_000_000,
        "hw_thermal_slowdown": 0,
        "hw_power_brake_slowdown": 0,
        "sw_thermal_slowdown": 0,
    },
    "ecc_mode": True,
    "ecc_mode_pending": True,
    "ecc_errors_corrected": 1,
    "ecc_errors_uncorrected": 0,
    "remapped_rows_correctable": 0,
    "remapped_rows_uncorrectable": 0,
    "remapped_rows_pending": False,
    "remapped_rows_failure": False,
    "recovery_action": 0,
    "compute_mode": "prohibited",
}
XIDS = [Xid("00000000:01:00.0", 79, 2, 900.0), Xid("00000000:01:00.0", 13, 5, 950.0)]
WITH_XIDS = ACCOUNT._replace(xids=XIDS, xids_read=True, uuids={"00000000:01:00.0": "0a"})


def sample(*gpus):
    return Sample(DRIVER, list(gpus), 1000.5, 0.25)


def parsed(data):
    """Return {series name: {labels as sorted pairs: value}}."""
    found = {}
    for family in text_string_to_metric_families(data.decode()):
        for one in family.samples:
            series = found.setdefault(one.name, {})
            labels = tuple(sorted(one.labels.items()))
            assert labels not in series, one
            series[labels] = one.value
    return found


def only(found, name):
    (value,) = found[name].values()
    return value


def test_readings_in_the_exporters_units():
    found = parsed(render_metrics(sample(EVERYTHING), ACCOUNT))
    uuid = (("uuid", "0a"),)
    assert found["nvidia_smi_temperature_gpu"] == {uuid: 40}
    assert found["nvidia_smi_utilization_gpu_ratio"] == {uuid: 0.87}
    assert found["nvidia_smi_power_draw_watts"] == {uuid: 201.54}
    assert found["nvidia_smi_enforced_power_limit_watts"] == {uuid: 285}
    assert found["nvidia_smi_power_limit_watts"] == {uuid: 280}
    assert found["nvidia_smi_clocks_current_sm_clock_hz"] == {uuid: 2.745e9}
    assert found["nvidia_smi_compute_apps"] == {uuid: 1}
    assert found["nvidia_smi_compute_mode"] == {uuid: 2}
    assert found["nvidia_smi_energy_joules_total"] == {uuid: 1234.5}
    assert found["nvidia_smi_clocks_event_reasons_hw_slowdown"] == {uuid: 1}
    assert found["nvidia_smi_clocks_event_reasons_gpu_idle"] == {uuid: 0}
    assert found["nvidia_smi_clocks_event_reasons_active"] == {uuid: 0xC}
    name = "nvidia_smi_clocks_event_reasons_counters_sw_power_cap_seconds"
    assert found[name] == {uuid: 1.5}
    assert found["hx_infra_gpu_pcie_replays_total"] == {uuid: 7}
    ((labels, value),) = found["nvidia_smi_gpu_info"].items()
    assert value == 1
    assert dict(labels) == {
        "uuid": "0a",
        "index": "0",
        "name": "GeForce",
        "pci_bus_id": "00000000:01:00.0",
        "vbios_version": "95.04",
        "serial": "123",
        "compute_cap": "8.9",
        "driver_version": "575.64.03",
        "cuda_version": "12.9",
    }


def test_no_name_is_ours_that_looks_like_the_exporters():
    known = set((FIXTURES / "nvidia_gpu_exporter.txt").read_text().split())
    found = set(parsed(render_metrics(sample(EVERYTHING), WITH_XIDS)))
    assert {name for name in found if name.startswith("nvidia_smi_")} <= known
    assert all(name.startswith(("nvidia_smi_", "hx_infra_gpu_")) for name in found)
    # what this card could have told and the exporter has a name for
    missing = known - found
    assert missing == {
        "nvidia_smi_clocks_current_video_clock_hz",
        "nvidia_smi_clocks_event_reasons_counters_sync_boost_seconds",
        "nvidia_smi_mig_mode_current",
        "nvidia_smi_mig_mode_pending",
    }


def test_what_a_card_does_not_tell_is_absent():
    bare = {"index": 0, "state": "ok", "uuid": "GPU-0A"}
    found = parsed(render_metrics(sample(bare), ACCOUNT))
    per_gpu = {name for name in found if name.startswith("nvidia_smi_")}
    assert per_gpu == {
        "nvidia_smi_gpu_info",
        "nvidia_smi_index",
        "nvidia_smi_last_collect_success",
        "nvidia_smi_last_collect_success_timestamp_seconds",
    }
    assert parsed(render_dcgm(sample(bare), ACCOUNT)) == {}


def test_a_card_at_rest_has_zeros():
    rest = {**GPU, "utilization_gpu_ratio": 0.0, "clocks_event_reasons": []}
    found = parsed(render_metrics(sample(rest), ACCOUNT))
    assert only(found, "nvidia_smi_utilization_gpu_ratio") == 0
    assert only(found, "nvidia_smi_clocks_event_reasons_active") == 0


def test_a_lost_card_is_counted_and_has_no_readings():
    found = parsed(render_metrics(sample(GPU, LOST), ACCOUNT))
    assert found["hx_infra_gpu_state_ok"] == {(("index", "0"),): 1, (("index", "1"),): 0}
    assert only(found, "hx_infra_gpu_count") == 2
    assert list(found["nvidia_smi_temperature_gpu"]) == [(("uuid", "0a"),)]


def test_a_failed_collection_has_no_series_of_cards():
    account = ACCOUNT._replace(state="timeout", code=None, restarts={"late": 2, "ended": 0})
    found = parsed(render_metrics(None, account))
    assert only(found, "hx_infra_gpu_collect_success") == 0
    assert only(found, "nvidia_smi_last_collect_success") == 0
    assert found["hx_infra_gpu_collect_state"] == {(("state", "timeout"),): 1}
    assert only(found, "hx_infra_gpu_last_success_timestamp_seconds") == 1000.5
    assert only(found, "hx_infra_gpu_collect_failures_total") == 3
    assert found["hx_infra_gpu_reader_restarts_total"] == {
        (("reason", "ended"),): 0,
        (("reason", "late"),): 2,
    }
    assert not any("temperature" in name or "count" in name.split("_") for name in found)
    assert "hx_infra_gpu_nvml_return_code" not in found


def test_nothing_has_worked_yet():
    found = parsed(render_metrics(None, ACCOUNT._replace(last_success=0.0, last_run=0.0)))
    assert not any("timestamp" in name for name in found)


def test_xids_by_address_and_by_uuid_where_one_is_known():
    other = Xid("00000000:02:00.0", 79, 1, 800.0)
    found = parsed(render_metrics(None, WITH_XIDS._replace(xids=[*XIDS, other])))
    assert found["hx_infra_gpu_xid_total"] == {
        (("pci_bus_id", "00000000:01:00.0"), ("xid", "79")): 2,
        (("pci_bus_id", "00000000:01:00.0"), ("xid", "13")): 5,
        (("pci_bus_id", "00000000:02:00.0"), ("xid", "79")): 1,
    }
    assert found["nvidia_smi_xid_errors_total"] == {
        (("uuid", "0a"), ("xid", "79")): 2,
        (("uuid", "0a"), ("xid", "13")): 5,
    }
    assert only(found, "hx_infra_gpu_xid_read_success") == 1
    assert "xid" not in render_metrics(None, ACCOUNT).decode()


def test_odd_names_are_quoted():
    odd = {**GPU, "name": 'a"b\\c\nd'}
    found = parsed(render_metrics(sample(odd), ACCOUNT))
    ((labels, _value),) = found["nvidia_smi_gpu_info"].items()
    assert dict(labels)["name"] == 'a"b\\c\nd'


@pytest.mark.parametrize("render", [render_metrics, render_dcgm])
def test_each_family_stands_together_with_one_head(render):
    data = render(sample(EVERYTHING, {**EVERYTHING, **OTHER}), WITH_XIDS).decode()
    heads = re.findall(r"^# TYPE (\S+)", data, re.M)
    assert len(heads) == len(set(heads))
    order = [line.split("{")[0].split()[0] for line in data.splitlines() if line[0] != "#"]
    assert len(set(order)) == sum(a != b for a, b in zip(order, ["", *order]))
    assert data.endswith("\n")


def test_dcgm_names_units_and_labels():
    found = parsed(render_dcgm(sample(EVERYTHING, LOST), WITH_XIDS))
    values = {name: only(found, name) for name in found}
    assert values["DCGM_FI_DEV_GPU_TEMP"] == 40
    assert values["DCGM_FI_DEV_GPU_UTIL"] == 87
    assert values["DCGM_FI_DEV_POWER_USAGE"] == 201.54
    assert values["DCGM_FI_DEV_SM_CLOCK"] == 2745
    assert values["DCGM_FI_DEV_FB_USED"] == 3411
    # the client's parser ends every counter's name like this
    assert values["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION_total"] == 1234500
    assert values["DCGM_FI_DEV_XID_ERRORS"] == 13  # the younger one
    (labels,) = found["DCGM_FI_DEV_GPU_TEMP"]
    assert dict(labels) == {
        "gpu": "0",
        "UUID": "GPU-0A",
        "pci_bus_id": "00000000:01:00.0",
        "device": "nvidia0",
        "modelName": "GeForce",
        "Hostname": os.uname().nodename,
    }


def test_dcgm_kinds_are_those_of_its_exporter():
    known = dict(line.split() for line in (FIXTURES / "dcgm_exporter.txt").read_text().splitlines())
    data = render_dcgm(sample(EVERYTHING), WITH_XIDS).decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)", data, re.M))
    assert kinds.items() <= known.items()


def test_dcgm_without_xids_of_the_card():
    found = parsed(render_dcgm(sample(OTHER), WITH_XIDS))
    assert only(found, "DCGM_FI_DEV_XID_ERRORS") == 0
    assert "DCGM_FI_DEV_XID_ERRORS" not in parsed(render_dcgm(sample(OTHER), ACCOUNT))
    assert render_dcgm(None, ACCOUNT) == b""
