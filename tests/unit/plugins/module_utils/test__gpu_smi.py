# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.hx_infra.llm.plugins.module_utils import _gpu_smi as smi
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome

FIXTURES = Path(__file__).parents[2] / "fixtures" / "nvidia-smi"
MIB = 1024 * 1024


def report(name):
    return smi.parse_xml((FIXTURES / name).read_text())


def facts(name, rc):
    return smi.facts_from_outcome(Outcome(rc, (FIXTURES / name).read_text(), ""), 5)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12282 MiB", 12282 * MIB),
        ("87 %", 0.87),
        ("0 %", 0.0),
        ("61 C", 61),
        ("-2 C", -2),
        ("25.92 W", 25.92),
        ("2745 MHz", 2_745_000_000),
        ("16x", 16),
        ("4", 4),
        ("N/A", None),
        ("", None),
        (None, None),
        ("12 parsecs", None),
    ],
)
def test_number(text, value):
    assert smi.number(text) == value


def test_two_geforce_cards():
    parsed = report("575.64.03_rtx-4070-ti-x2.xml")
    assert parsed["driver"] == {"version": "575.64.03", "cuda_version": "12.9"}
    busy, idle = parsed["gpus"]
    assert (busy["index"], idle["index"]) == (0, 1)
    assert busy["name"] == "NVIDIA GeForce RTX 4070 Ti"
    assert busy["uuid"] == "GPU-11111111-2222-4333-8444-555555555550"
    assert busy["pci_bus_id"] == "00000000:01:00.0"
    assert busy["memory_total_bytes"] == 12282 * MIB
    assert busy["memory_used_bytes"] == 3411 * MIB
    assert busy["utilization_gpu_ratio"] == 0.87
    assert busy["temperature_c"] == 61
    assert busy["temperature_slowdown_c"] == 96
    assert busy["temperature_max_c"] == 90
    assert busy["power_draw_watts"] == 201.54
    assert busy["clock_sm_hz"] == 2_745_000_000
    assert busy["clocks_event_reasons"] == []
    assert idle["clocks_event_reasons"] == ["gpu_idle"]
    assert busy["processes"] == [
        {
            "pid": 1432,
            "type": "C",
            "name": "/usr/local/bin/ollama",
            "memory_bytes": 3406 * MIB,
        },
        {"pid": 901, "type": "G", "name": "/usr/lib/xorg/Xorg", "memory_bytes": 4 * MIB},
    ]
    assert idle["processes"] == []


@pytest.mark.parametrize("name", ["575.64.03_rtx-4070-ti-x2.xml", "595.71.05_rtx-4080-super.xml"])
def test_what_geforce_does_not_tell_is_absent(name):
    for gpu in report(name)["gpus"]:
        absent = [key for key in gpu if key.startswith(("ecc_", "retired_", "remapped_"))]
        assert absent == []
        assert "temperature_margin_c" not in gpu


def test_fan_that_stands_still_is_zero_not_absent():
    assert report("595.71.05_rtx-4080-super.xml")["gpus"][0]["fan_speed_ratio"] == 0.0


def test_data_centre_card():
    gpu = report("580.173.02_h200.xml")["gpus"][0]
    assert gpu["ecc_mode"] is True
    assert gpu["ecc_errors_uncorrected"] == 0
    assert gpu["remapped_rows_pending"] is False
    assert gpu["temperature_margin_c"] == 50
    assert gpu["temperature_slowdown_margin_c"] == -2
    assert gpu["recovery_action"] == 0
    assert "fan_speed_ratio" not in gpu
    assert "temperature_slowdown_c" not in gpu


def test_older_element_names():
    gpu = report("470.57.02_rtx-3080.xml")["gpus"][0]
    assert gpu["clocks_event_reasons"] == ["sw_power_cap"]
    assert gpu["power_draw_watts"] == 318.2
    assert gpu["power_limit_watts"] == gpu["power_management_limit_watts"] == 320.0
    assert "throttle_ns" not in gpu


def test_newer_element_names():
    parsed = report("610.57.04_rtx-2080-super.xml")
    assert parsed["driver"] == {"version": "610.57.04", "cuda_version": "13.3"}
    (gpu,) = parsed["gpus"]
    assert (gpu["brand"], gpu["architecture"]) == ("GeForce", "Turing")
    assert gpu["power_draw_watts"] == 38.89  # no average before the Ampere generation
    assert gpu["power_limit_watts"] == gpu["power_default_limit_watts"] == 250.0
    assert (gpu["power_min_limit_watts"], gpu["power_max_limit_watts"]) == (105.0, 350.0)
    assert gpu["throttle_ns"]["sw_power_cap"] == 15_814_235_622_000
    assert gpu["bar1_total_bytes"] == 256 * MIB
    assert gpu["temperature_tlimit_supported"] is False
    assert gpu["processes"][0]["type"] == "G"
    assert gpu["errors"] == []


def test_versions_may_have_a_remark():
    text = (
        "<nvidia_smi_log><driver_version>610.57.04 [Deprecated; use KMD version]</driver_version>"
        "<gpu/></nvidia_smi_log>"
    )
    assert smi.parse_xml(text)["driver"] == {"version": "610.57.04"}


def test_a_card_that_retires_pages():
    (gpu,) = report("595.91.07_tesla-t4.xml")["gpus"]
    assert gpu["retired_pages_single_bit"] == gpu["retired_pages_double_bit"] == 0
    assert gpu["retired_pages_pending"] is False
    assert gpu["ecc_errors_uncorrected"] == gpu["ecc_errors_corrected"] == 0
    assert not [key for key in gpu if key.startswith(("remapped_", "mig_", "sram_"))]
    assert (gpu["pcie_link_width_current"], gpu["pcie_link_width_max"]) == (8, 16)
    assert gpu["processes"] == []


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("<sram_uncorrectable>0<", "<sram_uncorrectable>2<", {"ecc_errors_uncorrected": 2}),
        ("<pending_retirement>No<", "<pending_retirement>Yes<", {"retired_pages_pending": True}),
        ("<gpu_recovery_action>None<", "<gpu_recovery_action>Reset<", {"recovery_action": 1}),
        (
            "<gpu_recovery_action>None<",
            "<gpu_recovery_action>Drain and Reset<",
            {"recovery_action": 4},
        ),
        ("<remapped_rows>N/A</remapped_rows>", "", {"remapped_rows_pending": None}),
        ("<gpu_temp>33 C<", "<gpu_temp>N/A<", {"temperature_c": None}),
        ("<memory_temp>N/A<", "<memory_temp>0 C<", {"temperature_memory_c": None}),
        ("<memory_temp>N/A<", "<memory_temp>51 C<", {"temperature_memory_c": 51}),
        ("<processes>", "<processes>N/A", {"processes": None}),
        ("<current_mig>N/A<", "<current_mig>Enabled<", {"mig_mode": True}),
    ],
)
def test_single_elements(old, new, wanted):
    text = (FIXTURES / "595.91.07_tesla-t4.xml").read_text()
    assert old in text
    (gpu,) = smi.parse_xml(text.replace(old, new))["gpus"]
    assert {key: gpu.get(key) for key in wanted} == wanted
    assert gpu["errors"] == []


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("<gpu_recovery_action>None<", "<gpu_recovery_action>Pray<", "recovery_action"),
        ("<gpu_temp>33 C<", "<gpu_temp>Unknown Error<", "temperature_c"),
        ("<gpu_util>0 %<", "<gpu_util>[Unknown Error]<", "utilization_gpu_ratio"),
        ("<fan_speed>N/A<", "<fan_speed>ERR!<", "fan_speed_ratio"),
    ],
)
def test_a_word_that_should_be_a_reading_is_an_error(old, new, what):
    text = (FIXTURES / "595.91.07_tesla-t4.xml").read_text()
    (gpu,) = smi.parse_xml(text.replace(old, new))["gpus"]
    assert what not in gpu
    assert [error["what"] for error in gpu["errors"]] == [what]
    assert gpu["state"] == "ok"


@pytest.mark.parametrize("bus", ["0000:0C:00.0", "00000000:0C:00.0"])
def test_a_warning_of_the_inforom_behind_the_report(bus):
    text = (FIXTURES / "610.57.04_rtx-2080-super.xml").read_text()
    said = f"{text}WARNING: infoROM is corrupted at gpu {bus}\n"
    found = smi.facts_from_outcome(Outcome(14, said, ""), 5)
    assert (found["state"], found["errors"]) == ("ok", [])
    assert found["gpus"][0]["inforom_valid"] is False
    assert "inforom_valid" not in smi.facts_from_outcome(Outcome(0, text, ""), 5)["gpus"][0]


def test_reasons_stand_in_the_order_of_their_bits():
    text = (FIXTURES / "610.57.04_rtx-2080-super.xml").read_text()
    for name in ("hw_thermal_slowdown", "sw_thermal_slowdown", "display_clocks_setting"):
        tag = f"clocks_event_reason_{name}"
        text = text.replace(f"<{tag}>Not Active<", f"<{tag}>Active<")
    assert smi.parse_xml(text)["gpus"][0]["clocks_event_reasons"] == [
        "gpu_idle",
        "sw_thermal_slowdown",
        "hw_thermal_slowdown",
        "display_clock_setting",
    ]


def test_warnings_before_the_report_do_not_matter():
    text = (
        "WARNING: infoROM is corrupted\n"
        + (FIXTURES / "580.173.02_h200.xml").read_text().split("?>", 1)[1]
    )
    assert smi.parse_xml(text)["gpus"][0]["name"] == "NVIDIA H200"


def test_cut_report_is_an_error_not_a_crash():
    text = (FIXTURES / "580.173.02_h200.xml").read_text()[:2000]
    with pytest.raises(HostError, match="cannot be read"):
        smi.parse_xml(text)
    assert smi.facts_from_outcome(Outcome(0, text, ""), 5)["state"] == "error"


@pytest.mark.parametrize(
    ("name", "rc", "state"),
    [
        ("575.64.03_driver-not-loaded.txt", 9, "driver_not_loaded"),
        ("575.64.03_driver-not-loaded.txt", 255, "driver_not_loaded"),
        ("575.64.03_version-mismatch.txt", 18, "version_mismatch"),
        ("575.64.03_version-mismatch.txt", 255, "version_mismatch"),
        ("575.64.03_library-missing.txt", 12, "library_missing"),
        ("575.64.03_no-devices.txt", 6, "no_gpu"),
        ("575.64.03_no-devices.txt", 0, "no_gpu"),
    ],
)
def test_states(name, rc, state):
    found = facts(name, rc)
    assert found["state"] == state
    assert found["gpus"] == []
    assert found["errors"][0]["state"] == state


@pytest.mark.parametrize(
    ("name", "index"), [("575.64.03_gpu-lost.txt", 1), ("470.57.02_gpu-lost.txt", 0)]
)
def test_lost_gpu_in_a_message(name, index):
    (gpu,) = facts(name, 15)["gpus"]
    assert gpu["state"] == "lost"
    assert gpu["index"] == index
    assert gpu["pci_bus_id"] == "00000000:02:00.0"


def test_lost_gpu_in_the_report():
    text = (FIXTURES / "575.64.03_rtx-4070-ti-x2.xml").read_text()
    text = text.replace("<gpu_temp>36 C<", "<gpu_temp>GPU is lost<")
    message = (FIXTURES / "575.64.03_gpu-lost.txt").read_text()
    for outcome in (Outcome(0, text, ""), Outcome(15, text, message)):
        good, lost = smi.facts_from_outcome(outcome, 5)["gpus"]
        assert (good["state"], lost["state"]) == ("ok", "lost")
        assert "temperature_c" not in lost
        assert lost["uuid"].endswith("551")


def test_killed_at_the_deadline():
    found = smi.facts_from_outcome(Outcome(None, "", ""), 5)
    assert found["state"] == "timeout"
    assert "within 5 s" in found["errors"][0]["message"]


def test_program_that_is_not_there():
    found = smi.facts_from_outcome(Outcome(127, "", "nvidia-smi: No such file"), 5)
    assert found["state"] == "no_reader"


def test_runs_the_query():
    asked = []

    def run(argv, timeout):
        asked.append((argv, timeout))
        return Outcome(0, (FIXTURES / "580.173.02_h200.xml").read_text(), "")

    assert smi.read_smi("/usr/bin/nvidia-smi", 7, run)["state"] == "ok"
    assert asked == [(["/usr/bin/nvidia-smi", "-q", "-x"], 7)]
