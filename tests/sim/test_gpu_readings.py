# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every reading of a GPU, given and not given, from NVML and from nvidia-smi."""

from __future__ import annotations

import re
import shutil

import pytest
import yaml
from gpu_machine import MHZ, MIB, NVML_ONLY, ROOT, SOURCES, THRESHOLDS, Simulated, build


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    if not shutil.which("gcc"):
        pytest.skip("gcc is needed to build the simulated NVML")
    return build(tmp_path_factory.mktemp("sim_gpu"))


@pytest.fixture
def simulated(libraries, monkeypatch, tmp_path):
    return Simulated(libraries, monkeypatch, tmp_path)


# A card that has everything, with another figure for each reading.
RICH = """
driver_version = 615.71.05
cuda_version = 13.4
[gpu]
name = Rich card
board = datacenter
architecture = blackwell
compute_capability = 12.0
vbios_version = 98.03.58.00.F1
serial = 1650000000777
memory_total_mib = 10000
memory_reserved_mib = 400
memory_used_mib = 100
bar1_total_mib = 512
bar1_used_mib = 7
utilization_idle_percent = 30
utilization_memory_idle_percent = 11
encoder_percent = 22
decoder_percent = 33
temperature_idle_c = 61
temperature_load_c = 61
temperature_shutdown_c = 98
temperature_slowdown_c = 91
temperature_gpu_max_c = 86
temperature_memory_c = 47
fan_idle_percent = 44
fan_load_percent = 44
power_idle_w = 201
power_load_w = 201
power_limit_w = 275
power_default_limit_w = 285
power_min_limit_w = 101
power_max_limit_w = 314
clock_graphics_load_mhz = 1501
clock_graphics_max_mhz = 1601
clock_memory_load_mhz = 1701
clock_memory_max_mhz = 1801
pstate_load = 3
pcie_gen_load = 2
pcie_gen_max = 4
pcie_gen_gpu_max = 5
pcie_width = 8
pcie_width_max = 16
pcie_replays = 9
clocks_event_reasons = 0x702
throttle_sw_power_cap_us = 15814235622
throttle_hw_power_brake_us = 4
throttle_hw_thermal_us = 5
throttle_sw_thermal_us = 6
recovery_action = 4
ecc_pending = no
ecc_corrected_volatile = 51
ecc_uncorrected_volatile = 3
sram_threshold_exceeded = yes
unrepairable_memory = yes
retired_single_bit = 2
retired_double_bit = 1
retired_pending = yes
remap_correctable = 6
remap_uncorrectable = 8
remap_pending = yes
remap_failure = yes
mig_pending = yes
compute_mode = 3
error.nvmlDeviceGetFanSpeed = success
error.nvmlDeviceGetRetiredPages = success
error.nvmlDeviceGetRetiredPagesPendingStatus = success
"""
EXPECTED = {
    "index": 0,
    "state": "ok",
    "errors": [],
    "name": "Rich card",
    "uuid": "GPU-51300000-0000-4000-8000-000000000000",
    "pci_bus_id": "00000000:01:00.0",
    "minor_number": 0,
    "serial": "1650000000777",
    "brand": "NVIDIA",
    "architecture": "Blackwell",
    "compute_capability": "12.0",
    "vbios_version": "98.03.58.00.F1",
    "memory_total_bytes": 10000 * MIB,
    "memory_used_bytes": 100 * MIB,
    "memory_free_bytes": 9500 * MIB,
    "memory_reserved_bytes": 400 * MIB,
    "bar1_total_bytes": 512 * MIB,
    "bar1_used_bytes": 7 * MIB,
    "utilization_gpu_ratio": 0.3,
    "utilization_memory_ratio": 0.11,
    "encoder_ratio": 0.22,
    "decoder_ratio": 0.33,
    "temperature_c": 61,
    "temperature_shutdown_c": 98,
    "temperature_slowdown_c": 91,
    "temperature_max_c": 86,
    "temperature_memory_c": 47,
    "temperature_memory_max_c": 91,
    "temperature_margin_c": 25,
    "temperature_shutdown_margin_c": -12,
    "temperature_slowdown_margin_c": -5,
    "temperature_max_margin_c": 0,
    "temperature_tlimit_supported": True,
    "power_draw_watts": 201.0,
    "power_limit_watts": 275.0,
    "power_management_limit_watts": 275.0,
    "power_default_limit_watts": 285.0,
    "power_min_limit_watts": 101.0,
    "power_max_limit_watts": 314.0,
    "power_violation_ns": 15814235622000,
    "clock_graphics_hz": 1501 * MHZ,
    "clock_sm_hz": 1501 * MHZ,
    "clock_memory_hz": 1701 * MHZ,
    "clock_graphics_max_hz": 1601 * MHZ,
    "clock_sm_max_hz": 1601 * MHZ,
    "clock_memory_max_hz": 1801 * MHZ,
    "clocks_event_reasons": [
        "applications_clocks_setting",
        "display_clock_setting",
        "board_limit",
        "reliability",
    ],
    "throttle_ns": {
        "sw_power_cap": 15814235622000,
        "hw_power_brake_slowdown": 4000,
        "hw_thermal_slowdown": 5000,
        "sw_thermal_slowdown": 6000,
    },
    "performance_state": 3,
    "fan_speed_ratio": 0.44,
    "pcie_link_width_current": 8,
    "pcie_link_width_max": 16,
    "pcie_link_gen_current": 2,
    "pcie_link_gen_max": 4,
    "pcie_link_gen_gpu_max": 5,
    "pcie_replay_count": 9,
    "persistence_mode": True,
    "compute_mode": "exclusive_process",
    "mig_mode": False,
    "mig_mode_pending": True,
    "recovery_action": 4,
    "ecc_mode": True,
    "ecc_mode_pending": False,
    "ecc_errors_corrected": 51,
    "ecc_errors_uncorrected": 3,
    "sram_threshold_exceeded": True,
    "unrepairable_memory": True,
    "retired_pages_single_bit": 2,
    "retired_pages_double_bit": 1,
    "retired_pages_pending": True,
    "remapped_rows_correctable": 6,
    "remapped_rows_uncorrectable": 8,
    "remapped_rows_pending": True,
    "remapped_rows_failure": True,
    "inforom_valid": True,
    "processes": [],
}
# What can be seen only as it moves on.
MOVING = {"energy_joules"}


def test_every_reading_through_nvml(simulated):
    facts = simulated(RICH + "[gpu 0]\n", "nvml")
    assert (facts["state"], facts["errors"]) == ("ok", [])
    (gpu,) = facts["gpus"]
    assert gpu.pop("energy_joules") > 0
    assert gpu == EXPECTED


def test_every_reading_through_nvidia_smi(simulated):
    facts = simulated(RICH + "[gpu 0]\n", "nvidia-smi")
    assert (facts["state"], facts["errors"]) == ("ok", [])
    (gpu,) = facts["gpus"]
    untold = NVML_ONLY | THRESHOLDS
    assert gpu == {key: value for key, value in EXPECTED.items() if key not in untold}


def test_every_reading_is_documented():
    text = (ROOT / "plugins" / "modules" / "gpu_info.py").read_text()
    returned = yaml.safe_load(re.search(r'RETURN = r"""\n(.*?)"""', text, re.DOTALL).group(1))
    assert set(returned["gpus"]["contains"]) == set(EXPECTED) | MOVING


# A call that isn't supported (or a value that it gives), and what is absent then.
ABSENT = [
    ("nvmlDeviceGetName", {"name"}),
    ("nvmlDeviceGetUUID", {"uuid"}),
    ("nvmlDeviceGetPciInfo_v3", {"pci_bus_id"}),
    ("nvmlDeviceGetMinorNumber", {"minor_number"}),
    ("nvmlDeviceGetSerial", {"serial"}),
    ("nvmlDeviceGetBrand", {"brand"}),
    ("nvmlDeviceGetArchitecture", {"architecture"}),
    ("nvmlDeviceGetCudaComputeCapability", {"compute_capability"}),
    ("nvmlDeviceGetVbiosVersion", {"vbios_version"}),
    (
        "nvmlDeviceGetMemoryInfo*",
        {f"memory_{kind}_bytes" for kind in ("total", "used", "free", "reserved")},
    ),
    ("nvmlDeviceGetMemoryInfo_v2", {"memory_reserved_bytes"}),
    ("nvmlDeviceGetBAR1MemoryInfo", {"bar1_total_bytes", "bar1_used_bytes"}),
    ("nvmlDeviceGetUtilizationRates", {"utilization_gpu_ratio", "utilization_memory_ratio"}),
    ("nvmlDeviceGetEncoderUtilization", {"encoder_ratio"}),
    ("nvmlDeviceGetDecoderUtilization", {"decoder_ratio"}),
    ("nvmlDeviceGetTemperatureV", set()),
    ("nvmlDeviceGetTemperature*", {"temperature_c", *THRESHOLDS}),
    ("nvmlDeviceGetTemperatureThreshold/0", {"temperature_shutdown_c"}),
    ("nvmlDeviceGetTemperatureThreshold/1", {"temperature_slowdown_c"}),
    ("nvmlDeviceGetTemperatureThreshold/2", {"temperature_memory_max_c"}),
    ("nvmlDeviceGetTemperatureThreshold/3", {"temperature_max_c"}),
    ("nvmlDeviceGetMarginTemperature", {"temperature_margin_c"}),
    ("nvmlDeviceGetFieldValues/193", {"temperature_shutdown_margin_c"}),
    ("nvmlDeviceGetFieldValues/194", {"temperature_slowdown_margin_c"}),
    ("nvmlDeviceGetFieldValues/196", {"temperature_max_margin_c"}),
    ("nvmlDeviceGetFieldValues/82", {"temperature_memory_c"}),
    ("nvmlDeviceGetFieldValues/230", {"recovery_action"}),
    (
        "nvmlDeviceGetFieldValues",
        {
            "throttle_ns",
            "temperature_memory_c",
            "recovery_action",
            "temperature_shutdown_margin_c",
            "temperature_slowdown_margin_c",
            "temperature_max_margin_c",
            "temperature_tlimit_supported",
        },
    ),
    ("nvmlDeviceGetPowerUsage", {"power_draw_watts"}),
    ("nvmlDeviceGetEnforcedPowerLimit", {"power_limit_watts"}),
    ("nvmlDeviceGetPowerManagementLimit", {"power_management_limit_watts"}),
    ("nvmlDeviceGetPowerManagementDefaultLimit", {"power_default_limit_watts"}),
    (
        "nvmlDeviceGetPowerManagementLimitConstraints",
        {"power_min_limit_watts", "power_max_limit_watts"},
    ),
    ("nvmlDeviceGetViolationStatus", {"power_violation_ns"}),
    ("nvmlDeviceGetTotalEnergyConsumption", {"energy_joules"}),
    ("nvmlDeviceGetClockInfo", {f"clock_{kind}_hz" for kind in ("graphics", "sm", "memory")}),
    (
        "nvmlDeviceGetMaxClockInfo",
        {f"clock_{kind}_max_hz" for kind in ("graphics", "sm", "memory")},
    ),
    ("nvmlDeviceGetCurrentClocksEventReasons", set()),
    ("nvmlDeviceGetCurrentClocks*", {"clocks_event_reasons"}),
    ("nvmlDeviceGetPerformanceState", {"performance_state"}),
    ("nvmlDeviceGetFanSpeed", {"fan_speed_ratio"}),
    ("nvmlDeviceGetCurrPcieLinkWidth", {"pcie_link_width_current"}),
    ("nvmlDeviceGetMaxPcieLinkWidth", {"pcie_link_width_max"}),
    ("nvmlDeviceGetCurrPcieLinkGeneration", {"pcie_link_gen_current"}),
    ("nvmlDeviceGetMaxPcieLinkGeneration", {"pcie_link_gen_max"}),
    ("nvmlDeviceGetGpuMaxPcieLinkGeneration", {"pcie_link_gen_gpu_max"}),
    ("nvmlDeviceGetPcieReplayCounter", {"pcie_replay_count"}),
    ("nvmlDeviceGetPersistenceMode", {"persistence_mode"}),
    ("nvmlDeviceGetComputeMode", {"compute_mode"}),
    ("nvmlDeviceGetMigMode", {"mig_mode", "mig_mode_pending"}),
    ("nvmlDeviceGetEccMode", {"ecc_mode", "ecc_mode_pending"}),
    ("nvmlDeviceGetTotalEccErrors", {"ecc_errors_corrected", "ecc_errors_uncorrected"}),
    ("nvmlDeviceGetSramEccErrorStatus", {"sram_threshold_exceeded"}),
    ("nvmlDeviceGetUnrepairableMemoryFlag_v1", {"unrepairable_memory"}),
    (
        "nvmlDeviceGetRetiredPages",
        {f"retired_pages_{kind}" for kind in ("single_bit", "double_bit", "pending")},
    ),
    (
        "nvmlDeviceGetRemappedRows",
        {
            f"remapped_rows_{kind}"
            for kind in ("correctable", "uncorrectable", "pending", "failure")
        },
    ),
    ("nvmlDeviceValidateInforom", {"inforom_valid"}),
    ("nvmlDeviceGetComputeRunningProcesses_v3", {"processes"}),
]
BOARDS = 8  # that a simulated machine may have


def test_the_table_of_absent_readings_is_complete():
    covered = set().union(*(keys for _symbol, keys in ABSENT))
    assert covered == set(EXPECTED) - {"index", "state", "errors"} | MOVING


@pytest.mark.parametrize("first", range(0, len(ABSENT), BOARDS))
def test_what_is_not_supported_is_absent_and_nothing_else(simulated, first):
    chosen = ABSENT[first : first + BOARDS]
    sections = [
        f"[gpu {index}]\nerror.{symbol} = not_supported\n"
        for index, (symbol, _keys) in enumerate(chosen)
    ]
    facts = simulated(RICH + "".join(sections), "nvml")
    assert facts["state"] == "ok"
    everything = set(EXPECTED) | MOVING
    for (symbol, absent), gpu in zip(chosen, facts["gpus"]):
        assert (symbol, gpu["state"], gpu["errors"]) == (symbol, "ok", [])
        assert (symbol, everything - set(gpu)) == (symbol, absent)


def test_a_field_of_its_own_that_is_not_supported(simulated):
    sections = [
        f"[gpu {index}]\nerror.nvmlDeviceGetFieldValues/{field} = not_supported\n"
        for index, field in enumerate((74, 269, 270, 271, 194))
    ]
    gpus = simulated(RICH + "".join(sections), "nvml")["gpus"]
    missing = [set(EXPECTED["throttle_ns"]) - set(gpu["throttle_ns"]) for gpu in gpus[:4]]
    assert missing == [
        {"sw_power_cap"},
        {"sw_thermal_slowdown"},
        {"hw_thermal_slowdown"},
        {"hw_power_brake_slowdown"},
    ]
    assert [gpu["temperature_tlimit_supported"] for gpu in gpus] == [True] * 4 + [False]


@pytest.mark.parametrize("source", SOURCES)
def test_a_card_that_supports_next_to_nothing(simulated, source):
    facts = simulated("fault-not-supported", source)
    assert (facts["state"], facts["errors"]) == ("ok", [])
    for gpu in facts["gpus"]:
        assert (gpu["state"], gpu["errors"]) == ("ok", [])
        known = {"index", "state", "errors", "name", "uuid", "pci_bus_id"}
        known |= {f"memory_{kind}_bytes" for kind in ("total", "used", "free", "reserved")}
        assert set(gpu) == known


def test_versions_before_the_second_count_the_drivers_share(simulated):
    profile = RICH + "[gpu 0]\nerror.nvmlDeviceGetMemoryInfo_v2 = function_not_found\n"
    (gpu,) = simulated(profile, "nvml")["gpus"]
    assert gpu["memory_used_bytes"] == 500 * MIB


def test_a_sensor_that_says_zero_is_none(simulated):
    for source in SOURCES:
        (gpu,) = simulated(RICH + "[gpu 0]\ntemperature_memory_c = 0\n", source)["gpus"]
        assert "temperature_memory_c" not in gpu


def test_a_reading_that_should_be_there_is_an_error(simulated):
    profile = RICH + (
        "[gpu 0]\nerror.nvmlDeviceGetFanSpeed = timeout\n"
        "error.nvmlDeviceGetFieldValues/230 = unknown\n"
    )
    (gpu,) = simulated(profile, "nvml")["gpus"]
    assert [(error["what"], error["code"]) for error in gpu["errors"]] == [
        ("recovery_action", 999),
        ("fan_speed_ratio", 10),
    ]
    assert gpu["state"] == "ok"
    assert set(EXPECTED) - set(gpu) == {"recovery_action", "fan_speed_ratio"}
    (gpu,) = simulated(RICH + "[gpu 0]\nerror.nvmlDeviceGetFanSpeed = unknown\n", "nvidia-smi")[
        "gpus"
    ]
    assert gpu["errors"] == [
        {"what": "fan_speed_ratio", "message": "nvidia-smi says: Unknown Error"}
    ]


@pytest.mark.parametrize("source", SOURCES)
def test_a_corrupted_inforom(simulated, source):
    facts = simulated("fault-inforom-corrupt", source)
    assert facts["state"] == "ok"
    assert facts["gpus"][1]["inforom_valid"] is False
    assert facts["gpus"][0].get("inforom_valid", True) is True
