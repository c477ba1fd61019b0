# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a profile of the simulated GPU can script, under the real nvidia-ml-py and in nvidia-smi."""

from __future__ import annotations

import shutil
import subprocess
import xml.etree.ElementTree as ET

import pytest
from gpu_machine import MIB, Machine, build

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Return the folder with the built library and nvidia-smi."""
    return build(tmp_path_factory.mktemp("sim-gpu"))


@pytest.fixture
def machine(built, tmp_path):
    activity_dir = tmp_path / "activity"
    activity_dir.mkdir()
    return Machine(built, activity_dir)


@pytest.fixture
def worker():
    process = subprocess.Popen(["sleep", "300"])
    yield process
    process.kill()
    process.wait()


def report(machine):
    done = machine.smi("-q", "-x")
    assert done.returncode == 0, done.stdout
    return ET.fromstring(done.stdout.split("?>", 1)[1])  # noqa: S314 - our own simulator


# ---------------------------------------------------------------- library


def test_an_error_after_some_calls(machine, tmp_path):
    machine.write_profile(
        tmp_path,
        """
        error.nvmlDeviceGetPowerUsage = timeout after 3
        [gpu 0]
        error.nvmlDeviceGetFanSpeed = unknown after 2
        [gpu 1]
        """,
    )
    seen = machine.python("""
        a, b = nvmlDeviceGetHandleByIndex(0), nvmlDeviceGetHandleByIndex(1)
        show(fan=[answer(nvmlDeviceGetFanSpeed, a) for _ in range(4)],
             other=[answer(nvmlDeviceGetFanSpeed, b) for _ in range(4)],
             power=[answer(nvmlDeviceGetPowerUsage, h) for h in (a, b, a, b, a)])
    """)
    assert seen["fan"] == [0, 0, {"error": 999}, {"error": 999}]
    assert seen["other"] == [0] * 4
    assert seen["power"] == [14000] * 3 + [{"error": 10}] * 2  # a line for all counts for all


def test_a_hang_after_some_calls(machine, tmp_path):
    machine.write_profile(tmp_path, "[gpu 0]\ndelay.nvmlDeviceGetPowerUsage = forever after 2\n")
    code = "nvmlInit(); h = nvmlDeviceGetHandleByIndex(0)\nfor _ in range({}): power = "
    code += "nvmlDeviceGetPowerUsage(h)\nprint(power)"
    assert machine.run_python(code.format(2)).stdout.strip() == "14000"
    with pytest.raises(subprocess.TimeoutExpired):
        machine.run_python(code.format(3), timeout=2)


def test_single_fields_and_thresholds(machine, tmp_path):
    machine.write_profile(
        tmp_path,
        """
        [gpu 0]
        error.nvmlDeviceGetFieldValues/230 = unknown
        error.nvmlDeviceGetFieldValues/19* = success
        error.nvmlDeviceGetTemperatureThreshold/1 = not_supported
        error.nvmlDeviceGetTemperatureThreshold/2 = success
        """,
    )
    seen = machine.python("""
        h = nvmlDeviceGetHandleByIndex(0)
        fields = nvmlDeviceGetFieldValues(h, [230, 194, 82, 74])
        show(fields=[[f.fieldId, f.nvmlReturn, f.value.siVal] for f in fields],
             thresholds=[answer(nvmlDeviceGetTemperatureThreshold, h, i) for i in range(4)])
    """)
    assert seen["fields"] == [[230, 999, 0], [194, 0, -6], [82, 3, 0], [74, 0, 0]]
    assert seen["thresholds"] == [101, {"error": 3}, 96, 90]


def test_the_struct_of_the_caches_errors_has_its_version(machine, tmp_path):
    machine.write_profile(tmp_path, "[gpu 0]\nboard = datacenter\nsram_threshold_exceeded = yes\n")
    seen = machine.python("""
        h = nvmlDeviceGetHandleByIndex(0)
        def ask(version):
            status = c_nvmlEccSramErrorStatus_v1_t()
            status.version = version
            code = answer(nvmlDeviceGetSramEccErrorStatus, h, byref(status))
            return [code, status.bThresholdExceeded]
        show(right=ask(nvmlEccSramErrorStatus_v1), wrong=ask(0x02000068), old=ask(0x01000060),
             size=sizeof(c_nvmlEccSramErrorStatus_v1_t))
    """)
    assert seen["size"] == 104
    assert seen["right"] == [0, 1]
    assert seen["wrong"] == seen["old"] == [{"error": 25}, 0]
    machine.write_profile(tmp_path, "[gpu 0]\nboard = datacenter\necc_current = no\n")
    off = machine.python("""
        h = nvmlDeviceGetHandleByIndex(0)
        show(rc=answer(nvmlDeviceGetSramEccErrorStatus, h, byref(c_nvmlEccSramErrorStatus_v1_t())))
    """)
    assert off["rc"] == {"error": 3}


def test_retired_pages(machine):
    seen = machine.use("fault-retired-pages-pending").python("""
        h = nvmlDeviceGetHandleByIndex(0)
        count = c_uint(1)
        room = (c_ulonglong * 1)()
        function = CDLL("libnvidia-ml.so.1").nvmlDeviceGetRetiredPages
        small = function(h, c_uint(0), byref(count), room)
        show(single=nvmlDeviceGetRetiredPages(h, 0), double=nvmlDeviceGetRetiredPages(h, 1),
             pending=nvmlDeviceGetRetiredPagesPendingStatus(h), small=[small, count.value],
             remapped=answer(nvmlDeviceGetRemappedRows, h))
    """)
    assert len(seen["single"]) == len(set(seen["single"])) == 2
    assert len(seen["double"]) == 1
    assert seen["pending"] == 1
    assert seen["small"] == [7, 2]  # insufficient size, and how much would do
    assert seen["remapped"] == {"error": 3}


def test_counters_may_be_large(machine):
    seen = machine.use("rtx-2080-super-x1").python("""
        h = nvmlDeviceGetHandleByIndex(0)
        show(field=nvmlDeviceGetFieldValues(h, [74])[0].value.ullVal,
             violation=nvmlDeviceGetViolationStatus(h, 0).violationTime)
    """)
    assert seen == {"field": 15814235622000, "violation": 15814235622000}


def test_average_power_is_unknown_before_ampere(machine):
    code = """
        h = nvmlDeviceGetHandleByIndex(0)
        show(codes=[f.nvmlReturn for f in nvmlDeviceGetFieldValues(h, [185, 186])],
             power=nvmlDeviceGetPowerUsage(h))
    """
    assert machine.use("rtx-2080-super-x1").python(code) == {"codes": [3, 0], "power": 39000}
    assert machine.use("rtx-4080-super-x1").python(code) == {"codes": [0, 0], "power": 26000}


def test_a_gpu_that_seems_used_while_idle(machine):
    seen = machine.use("l40s-x1").python("""
        h = nvmlDeviceGetHandleByIndex(0)
        rates = nvmlDeviceGetUtilizationRates(h)
        show(rates=[rates.gpu, rates.memory], processes=nvmlDeviceGetComputeRunningProcesses(h),
             reasons=nvmlDeviceGetCurrentClocksEventReasons(h),
             margin=nvmlDeviceGetMarginTemperature(h))
    """)
    assert seen == {"rates": [100, 9], "processes": [], "reasons": 0, "margin": 24}


def test_processes_that_draw(machine, worker):
    code = """
        h = nvmlDeviceGetHandleByIndex(0)
        show(compute=[[p.pid, p.usedGpuMemory] for p in nvmlDeviceGetComputeRunningProcesses(h)],
             graphics=[[p.pid, p.usedGpuMemory] for p in nvmlDeviceGetGraphicsRunningProcesses(h)])
    """
    file = machine.activity_dir / str(worker.pid)
    entry = [worker.pid, 4 * MIB]
    for kind, compute, graphics in (("C", True, False), ("G", False, True), ("C+G", True, True)):
        file.write_text(f"pid={worker.pid}\nname=/usr/bin/X\ntype={kind}\ngpu.0.memory={4 * MIB}\n")
        seen = machine.python(code)
        assert (kind, seen["compute"]) == (kind, [entry] if compute else [])
        assert (kind, seen["graphics"]) == (kind, [entry] if graphics else [])
        (process,) = report(machine).findall("gpu/processes/process_info")
        assert process.findtext("type") == kind
        assert f" {kind}   /usr/bin/X" in machine.smi().stdout


def test_calls_are_logged(machine, tmp_path):
    log = tmp_path / "calls"
    machine.write_profile(tmp_path, f"call_log = {log}\n[gpu 0]\n[gpu 1]\n")
    machine.python("show(name=nvmlDeviceGetName(nvmlDeviceGetHandleByIndex(1)))")
    assert log.read_text().splitlines() == [
        "nvmlInitWithFlags",
        "nvmlDeviceGetHandleByIndex_v2 1",
        "nvmlDeviceGetName 1",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("error.nvmlDeviceGetName = timeout after soon\n", "number of calls"),
        ("error.nvmlDeviceGetName = after 3\n", "NVML error"),
        ("error.nvmlDeviceGetName = timeout after -1\n", "number of calls"),
        ("[gpu 0]\nthrottle_sw_power_cap_us = -1\n", "whole number"),
        ("[gpu 0]\nthrottle_sw_power_cap_us = 12 s\n", "whole number"),
        ("[gpu 0]\nretired_single_bit = 65\n", "whole number"),
        ("error.nvmlDeviceGetName = " + "x" * 80 + "\n", "too long"),
    ],
)
def test_a_bad_line_is_named(machine, tmp_path, text, complaint):
    code, stderr = machine.write_profile(tmp_path, text).init_error()
    assert code == 999
    assert complaint in stderr


def test_a_gpu_that_knows_next_to_nothing(machine):
    seen = machine.use("fault-not-supported").python("""
        h = nvmlDeviceGetHandleByIndex(1)
        show(name=nvmlDeviceGetName(h), total=nvmlDeviceGetMemoryInfo(h).total,
             rest=[answer(f, h) for f in (
                nvmlDeviceGetUtilizationRates, nvmlDeviceGetPowerUsage, nvmlDeviceGetFanSpeed,
                nvmlDeviceGetPerformanceState, nvmlDeviceValidateInforom,
                nvmlDeviceGetComputeRunningProcesses, nvmlDeviceGetPersistenceMode)])
    """)
    assert (seen["name"], seen["total"]) == ("NVIDIA GeForce RTX 4070 Ti", 12282 * MIB)
    assert seen["rest"] == [{"error": 3}] * 7


# ---------------------------------------------------------------- nvidia-smi


def test_smi_warns_of_a_corrupted_inforom_behind_its_report(machine):
    machine.use("fault-inforom-corrupt")
    warning = "WARNING: infoROM is corrupted at gpu 0000:02:00.0\n"
    for args in (["-q", "-x"], ["--query-gpu=index", "--format=csv"], []):
        done = machine.smi(*args)
        assert done.returncode == 14
        assert done.stdout.endswith(warning)
    assert machine.smi("-L").returncode == 0
    assert machine.smi("-q", "-x", "-i", "0").returncode == 0


def test_smi_names_what_later_branches_renamed(machine):
    root = report(machine.use("rtx-2080-super-x1"))
    assert root.findtext("kmd_version") == root.findtext("driver_version") == "610.57.04"
    assert root.findtext("cuda_umd_version") == root.findtext("cuda_version") == "13.3"
    power = root.find("gpu/gpu_power_readings")
    assert power.findtext("average_power_draw") == "N/A"
    assert power.findtext("instant_power_draw") == "39.00 W"
    assert power.findtext("gpu_ceiling_power_limit/current_power_limit") == "250.00 W"
    older = report(machine.use("rtx-4080-super-x1"))
    assert older.find("kmd_version") is None
    assert older.find("gpu/gpu_power_readings/gpu_ceiling_power_limit") is None


def test_smi_of_the_turing_generation(machine):
    gpu = report(machine.use("t4-x1")).find("gpu")
    expected = {
        "ecc_errors/volatile/sram_uncorrectable": "0",
        "ecc_errors/aggregate/dram_correctable": "1",
        "retired_pages/double_bit_retirement/retired_count": "0",
        "retired_pages/pending_retirement": "No",
        "remapped_rows": "N/A",
        "temperature/gpu_temp_tlimit": "N/A",
        "temperature/gpu_temp_slow_threshold": "93 C",
        "temperature/memory_temp": "N/A",
        "pci/pci_gpu_link_info/link_widths/current_link_width": "8x",
        "mig_mode/current_mig": "N/A",
    }
    assert {path: gpu.findtext(path) for path in expected} == expected
    assert gpu.find("ecc_errors/volatile/sram_uncorrectable_parity") is None
    assert gpu.find("ecc_errors/aggregate/sram_threshold_exceeded") is None
    worn = report(machine.use("fault-retired-pages-pending")).find("gpu")
    assert worn.findtext("retired_pages/multiple_single_bit_retirement/retired_count") == "2"
    assert worn.findtext("retired_pages/pending_retirement") == "Yes"


def test_smi_of_a_broken_memory(machine):
    gpu = report(machine.use("fault-row-remap-failed")).find("gpu")
    assert gpu.findtext("remapped_rows/remapped_row_failure") == "Yes"
    assert gpu.findtext("ecc_errors/unrepairable_memory") == "Yes"
    assert gpu.findtext("ecc_errors/aggregate/sram_threshold_exceeded") == "No"
    hot = report(machine.use("fault-ecc-uncorrected")).find("gpu")
    assert hot.findtext("ecc_errors/aggregate/sram_threshold_exceeded") == "Yes"
    assert hot.findtext("ecc_errors/volatile/dram_uncorrectable") == "3"
    assert hot.findtext("gpu_recovery_action") == "Reset"
