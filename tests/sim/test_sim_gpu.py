# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The simulated GPU under the real nvidia-ml-py, and its nvidia-smi.

Every check runs in a child process: the binding keeps a loaded library until its process ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

import pytest
from gpu_machine import MIB, SIM, Machine, build

PROFILES = SIM / "profiles"

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

# What nvidia-ml-py resolves for a collector.
SYMBOLS = """
nvmlInitWithFlags nvmlShutdown nvmlErrorString nvmlSystemGetDriverVersion nvmlSystemGetNVMLVersion
nvmlSystemGetCudaDriverVersion nvmlSystemGetCudaDriverVersion_v2 nvmlSystemGetProcessName
nvmlDeviceGetCount_v2 nvmlDeviceGetHandleByIndex_v2 nvmlDeviceGetHandleByPciBusId_v2
nvmlDeviceGetHandleByUUID nvmlDeviceGetIndex nvmlDeviceGetMinorNumber nvmlDeviceGetName
nvmlDeviceGetUUID nvmlDeviceGetSerial nvmlDeviceGetBrand nvmlDeviceGetArchitecture
nvmlDeviceGetCudaComputeCapability nvmlDeviceGetVbiosVersion nvmlDeviceGetPciInfo_v3
nvmlDeviceGetMemoryInfo nvmlDeviceGetMemoryInfo_v2 nvmlDeviceGetBAR1MemoryInfo
nvmlDeviceGetUtilizationRates nvmlDeviceGetEncoderUtilization nvmlDeviceGetDecoderUtilization
nvmlDeviceGetTemperature nvmlDeviceGetTemperatureV nvmlDeviceGetTemperatureThreshold
nvmlDeviceGetMarginTemperature nvmlDeviceGetFanSpeed nvmlDeviceGetPowerUsage
nvmlDeviceGetEnforcedPowerLimit nvmlDeviceGetPowerManagementLimit
nvmlDeviceGetPowerManagementDefaultLimit nvmlDeviceGetPowerManagementLimitConstraints
nvmlDeviceGetTotalEnergyConsumption nvmlDeviceGetClockInfo nvmlDeviceGetMaxClockInfo
nvmlDeviceGetPerformanceState nvmlDeviceGetCurrentClocksEventReasons
nvmlDeviceGetCurrentClocksThrottleReasons nvmlDeviceGetViolationStatus
nvmlDeviceGetCurrPcieLinkGeneration nvmlDeviceGetCurrPcieLinkWidth
nvmlDeviceGetMaxPcieLinkGeneration nvmlDeviceGetMaxPcieLinkWidth
nvmlDeviceGetGpuMaxPcieLinkGeneration nvmlDeviceGetPcieReplayCounter nvmlDeviceGetPcieThroughput
nvmlDeviceGetEccMode nvmlDeviceGetTotalEccErrors nvmlDeviceGetRetiredPages
nvmlDeviceGetRetiredPagesPendingStatus nvmlDeviceGetRemappedRows
nvmlDeviceGetUnrepairableMemoryFlag_v1 nvmlDeviceGetSramEccErrorStatus
nvmlDeviceValidateInforom nvmlDeviceGetFieldValues
nvmlDeviceGetPersistenceMode nvmlDeviceGetComputeMode nvmlDeviceGetMigMode
nvmlDeviceGetComputeRunningProcesses_v3 nvmlDeviceGetGraphicsRunningProcesses_v3
nvmlEventSetCreate nvmlDeviceRegisterEvents nvmlEventSetWait_v2 nvmlEventSetFree
"""


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
def start_worker():
    """Return a function that starts a process which can be said to use a GPU."""
    processes = []

    def start():
        processes.append(subprocess.Popen(["sleep", "300"]))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def worker(start_worker):
    return start_worker()


# ---------------------------------------------------------------- building


def test_every_symbol_of_a_collector_is_exported(built):
    library = ctypes.CDLL(str(built / "libnvidia-ml.so.1"))
    assert [name for name in SYMBOLS.split() if not hasattr(library, name)] == []


def test_nothing_but_nvml_is_exported(built):
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", built / "libnvidia-ml.so.1"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = [line.split()[-1] for line in listed.splitlines()]
    assert [name for name in names if not name.startswith(("nvml", "simNvml"))] == []


def test_soname(built):
    dump = subprocess.run(
        ["objdump", "-p", built / "libnvidia-ml.so.1"], capture_output=True, text=True, check=True
    ).stdout
    assert ["SONAME", "libnvidia-ml.so.1"] in [line.split() for line in dump.splitlines()]


def test_building_again_leaves_the_files_alone(built):
    before = {path.name: path.stat().st_mtime_ns for path in built.iterdir()}
    subprocess.run([SIM / "build.sh", built], check=True, timeout=60)
    assert {path.name: path.stat().st_mtime_ns for path in built.iterdir()} == before
    assert sorted(before) == ["libnvidia-ml.so.1", "nvidia-smi"]


def test_build_without_an_argument_says_how(built):
    done = subprocess.run([SIM / "build.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "OUTDIR" in done.stderr


def test_library_is_found_when_loaded_first_without_a_library_path(machine):
    env = {key: value for key, value in machine.env.items() if key != "LD_LIBRARY_PATH"}
    code = (
        "import ctypes, sys; ctypes.CDLL(sys.argv[1])\n"
        "from pynvml import *; nvmlInit(); print(nvmlDeviceGetCount())"
    )
    argv = [sys.executable, "-c", code, str(machine.built / "libnvidia-ml.so.1")]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2"


# ---------------------------------------------------------------- healthy machines


@pytest.mark.parametrize(
    ("profile", "count", "name", "total_mib", "driver", "cuda", "capability"),
    [
        ("rtx-4070-ti-x2", 2, "NVIDIA GeForce RTX 4070 Ti", 12282, "575.64.03", 12090, [8, 9]),
        ("rtx-5060-ti-x2", 2, "NVIDIA GeForce RTX 5060 Ti", 16311, "575.64.03", 12090, [12, 0]),
        ("rtx-5070-ti-x1", 1, "NVIDIA GeForce RTX 5070 Ti", 16303, "575.64.03", 12090, [12, 0]),
        ("h200-x1", 1, "NVIDIA H200", 143771, "580.173.02", 13000, [9, 0]),
    ],
)
def test_identity(machine, profile, count, name, total_mib, driver, cuda, capability):
    seen = machine.use(profile).python("""
        handles = [nvmlDeviceGetHandleByIndex(i) for i in range(nvmlDeviceGetCount())]
        show(driver=nvmlSystemGetDriverVersion(), nvml=nvmlSystemGetNVMLVersion(),
             cuda=nvmlSystemGetCudaDriverVersion_v2(),
             gpus=[[nvmlDeviceGetName(h), nvmlDeviceGetMemoryInfo(h).total, nvmlDeviceGetIndex(h),
                    nvmlDeviceGetCudaComputeCapability(h)] for h in handles],
             uuids=[nvmlDeviceGetUUID(h) for h in handles])
    """)
    assert seen["driver"] == driver
    assert seen["nvml"] == f"{cuda // 1000}.{driver}"
    assert seen["cuda"] == cuda
    assert seen["gpus"] == [[name, total_mib * MIB, i, capability] for i in range(count)]
    assert len(set(seen["uuids"])) == count
    assert all(uuid.startswith("GPU-") and len(uuid) == 40 for uuid in seen["uuids"])


def test_every_profile_in_the_folder_can_be_read(machine):
    expected = {"fault-driver-missing": 9, "fault-library-mismatch": 18}
    for path in sorted(PROFILES.glob("*.conf")):
        code, stderr = machine.use(path.stem).init_error()
        assert (path.stem, code, stderr) == (path.stem, expected.get(path.stem, 0), "")
        assert "SIMULATED" in path.read_text()


def test_handles_by_uuid_and_bus_address(machine):
    seen = machine.python("""
        first, second = (nvmlDeviceGetHandleByIndex(i) for i in range(2))
        pci = nvmlDeviceGetPciInfo(second)
        by_uuid = nvmlDeviceGetHandleByUUID(nvmlDeviceGetUUID(second).encode())
        show(bus=pci.busId, legacy=pci.busIdLegacy, device=pci.pciDeviceId,
             by_uuid=nvmlDeviceGetIndex(by_uuid),
             by_bus=[nvmlDeviceGetIndex(nvmlDeviceGetHandleByPciBusId(a))
                     for a in (b"00000000:02:00.0", b"0000:02:00.0")],
             no_index=answer(nvmlDeviceGetHandleByIndex, 2),
             no_uuid=answer(nvmlDeviceGetHandleByUUID, b"GPU-none"),
             no_bus=answer(nvmlDeviceGetHandleByPciBusId, b"0000:7f:00.0"))
    """)
    assert seen["bus"] == "00000000:02:00.0"
    assert seen["legacy"] == "0000:02:00.0"
    assert seen["device"] == 0x278210DE
    assert seen["by_uuid"] == 1
    assert seen["by_bus"] == [1, 1]
    assert seen["no_index"] == {"error": 2}
    assert seen["no_uuid"] == seen["no_bus"] == {"error": 6}


def test_memory_first_version_counts_the_drivers_share_as_used(machine):
    seen = machine.python("""
        h = nvmlDeviceGetHandleByIndex(0)
        v1, v2 = nvmlDeviceGetMemoryInfo(h), nvmlDeviceGetMemoryInfo(h, nvmlMemory_v2)
        bar1 = nvmlDeviceGetBAR1MemoryInfo(h)
        show(v1=[v1.total, v1.free, v1.used], v2=[v2.total, v2.reserved, v2.free, v2.used],
             bar1=[bar1.bar1Total, bar1.bar1Free, bar1.bar1Used],
             wrong=answer(nvmlDeviceGetMemoryInfo, h, 0x03000028))
    """)
    total, reserved, free, used = seen["v2"]
    assert (total, reserved, used) == (12282 * MIB, 344 * MIB, 1 * MIB)
    assert free == total - reserved - used
    assert seen["v1"] == [total, free, used + reserved]
    assert seen["bar1"][0] == sum(seen["bar1"][1:])
    assert seen["wrong"] == {"error": 25}


def test_idle_geforce(machine):
    seen = machine.python("""
        h = nvmlDeviceGetHandleByIndex(0)
        u = nvmlDeviceGetUtilizationRates(h)
        show(util=[u.gpu, u.memory], temperature=nvmlDeviceGetTemperatureV(h, 0),
             old_temperature=nvmlDeviceGetTemperature(h, 0),
             thresholds=[nvmlDeviceGetTemperatureThreshold(h, i) for i in (0, 1, 3)],
             fan=nvmlDeviceGetFanSpeed(h), power=nvmlDeviceGetPowerUsage(h),
             limit=nvmlDeviceGetEnforcedPowerLimit(h),
             limits=nvmlDeviceGetPowerManagementLimitConstraints(h),
             clocks=[nvmlDeviceGetClockInfo(h, i) for i in range(4)],
             max_clocks=[nvmlDeviceGetMaxClockInfo(h, i) for i in range(4)],
             pstate=nvmlDeviceGetPerformanceState(h),
             reasons=nvmlDeviceGetCurrentClocksEventReasons(h),
             old_reasons=nvmlDeviceGetCurrentClocksThrottleReasons(h),
             gen=[nvmlDeviceGetCurrPcieLinkGeneration(h), nvmlDeviceGetMaxPcieLinkGeneration(h),
                  nvmlDeviceGetGpuMaxPcieLinkGeneration(h)],
             width=[nvmlDeviceGetCurrPcieLinkWidth(h), nvmlDeviceGetMaxPcieLinkWidth(h)],
             throughput=nvmlDeviceGetPcieThroughput(h, 0),
             replays=nvmlDeviceGetPcieReplayCounter(h),
             energy=nvmlDeviceGetTotalEnergyConsumption(h),
             encoder=nvmlDeviceGetEncoderUtilization(h), decoder=nvmlDeviceGetDecoderUtilization(h),
             persistence=nvmlDeviceGetPersistenceMode(h), compute=nvmlDeviceGetComputeMode(h),
             inforom=nvmlDeviceValidateInforom(h), brand=nvmlDeviceGetBrand(h),
             architecture=nvmlDeviceGetArchitecture(h), vbios=nvmlDeviceGetVbiosVersion(h),
             minor=nvmlDeviceGetMinorNumber(h),
             power_violation=nvmlDeviceGetViolationStatus(h, 0).violationTime,
             thermal_violation=answer(nvmlDeviceGetViolationStatus, h, 1),
             compute_processes=nvmlDeviceGetComputeRunningProcesses(h),
             graphics_processes=nvmlDeviceGetGraphicsRunningProcesses(h))
    """)
    assert seen["util"] == [0, 0]
    assert seen["temperature"] == seen["old_temperature"] == 34
    assert seen["thresholds"] == [101, 96, 90]
    assert seen["fan"] == 0
    assert (seen["power"], seen["limit"], seen["limits"]) == (14000, 285000, [100000, 314000])
    assert seen["clocks"] == [210, 210, 405, 1185]
    assert seen["max_clocks"] == [3105, 3105, 10501, 2415]
    assert seen["pstate"] == 8
    assert seen["reasons"] == seen["old_reasons"] == 1
    assert seen["gen"] == [1, 4, 4]
    assert seen["width"] == [16, 16]
    assert seen["throughput"] > 0
    assert seen["replays"] == 0
    assert seen["energy"] > 0
    assert seen["encoder"] == seen["decoder"] == [0, 167000]
    assert seen["persistence"] == 1
    assert seen["compute"] == 0
    assert seen["inforom"] is None
    assert (seen["brand"], seen["architecture"], seen["minor"]) == (5, 8, 0)
    assert seen["vbios"]
    assert seen["power_violation"] == 0
    assert seen["thermal_violation"] == {"error": 3}
    assert seen["compute_processes"] == seen["graphics_processes"] == []


HEALTH = """
    h = nvmlDeviceGetHandleByIndex(0)
    calls = dict(
        serial=lambda: nvmlDeviceGetSerial(h), ecc=lambda: nvmlDeviceGetEccMode(h),
        ecc_errors=lambda: nvmlDeviceGetTotalEccErrors(h, 1, 0),
        retired=lambda: nvmlDeviceGetRetiredPages(h, 0),
        retired_pending=lambda: nvmlDeviceGetRetiredPagesPendingStatus(h),
        remapped=lambda: nvmlDeviceGetRemappedRows(h),
        unrepairable=lambda: nvmlDeviceGetUnrepairableMemoryFlag_v1(h),
        mig=lambda: nvmlDeviceGetMigMode(h), margin=lambda: nvmlDeviceGetMarginTemperature(h),
        fan=lambda: nvmlDeviceGetFanSpeed(h),
    )
    fields = nvmlDeviceGetFieldValues(h, [82, 193, 194, 196, 230, 74, 269, 270, 271, 186, 9999])
    show(calls={k: answer(f) for k, f in calls.items()},
         fields={f.fieldId: f.value.siVal if f.nvmlReturn == 0 else {"error": f.nvmlReturn}
                 for f in fields})
"""
NOT_SUPPORTED = {"error": 3}


def test_geforce_answers_not_supported_like_the_captured_boards(machine):
    seen = machine.python(HEALTH)
    supported = {key for key, value in seen["calls"].items() if value != NOT_SUPPORTED}
    assert supported == {"fan"}
    unsupported = {key for key, value in seen["fields"].items() if value == NOT_SUPPORTED}
    assert unsupported == {"82", "193", "194", "196", "9999"}


def test_datacenter_board_answers_health_calls(machine):
    seen = machine.use("h200-x1").python(HEALTH)
    assert seen["calls"] == {
        "serial": "1655000000042",
        "ecc": [1, 1],
        "ecc_errors": 0,
        "retired": NOT_SUPPORTED,
        "retired_pending": NOT_SUPPORTED,
        "remapped": [0, 0, 0, 0],
        "unrepairable": 0,
        "mig": [0, 0],
        "margin": 50,
        "fan": NOT_SUPPORTED,
    }
    expected = {"82": 38, "193": -8, "194": -2, "196": 0, "230": 0, "74": 0, "269": 0, "270": 0}
    assert {key: seen["fields"][key] for key in expected} == expected
    assert seen["fields"]["186"] == 85000


def test_error_strings_and_uninitialised_use(machine):
    done = machine.run_python("""
        before = answer(nvmlDeviceGetCount)
        nvmlInit(); nvmlInit(); nvmlShutdown()
        between = nvmlDeviceGetCount()
        nvmlShutdown()
        show(before=before, between=between, after=answer(nvmlDeviceGetCount),
             again=answer(nvmlShutdown), texts=[nvmlErrorString(i) for i in (15, 18, 26)])
    """)
    seen = json.loads(done.stdout)
    assert seen["before"] == seen["after"] == seen["again"] == {"error": 1}
    assert seen["between"] == 2
    assert seen["texts"][0] == "GPU is lost"
    assert "mismatch" in seen["texts"][1]
    assert "deprecated" in seen["texts"][2]


# ---------------------------------------------------------------- activity

LOAD = """
    result = []
    for i in range(nvmlDeviceGetCount()):
        h = nvmlDeviceGetHandleByIndex(i)
        result.append(dict(
            util=nvmlDeviceGetUtilizationRates(h).gpu,
            used=nvmlDeviceGetMemoryInfo(h, nvmlMemory_v2).used,
            temperature=nvmlDeviceGetTemperatureV(h, 0), power=nvmlDeviceGetPowerUsage(h),
            sm=nvmlDeviceGetClockInfo(h, 1), gen=nvmlDeviceGetCurrPcieLinkGeneration(h),
            pstate=nvmlDeviceGetPerformanceState(h),
            reasons=nvmlDeviceGetCurrentClocksEventReasons(h),
            processes=[[p.pid, p.usedGpuMemory, nvmlSystemGetProcessName(p.pid)]
                       for p in nvmlDeviceGetComputeRunningProcesses(h)]))
    show(gpus=result)
"""


def test_activity_becomes_memory_utilisation_heat_and_a_process(machine, worker):
    machine.announce(worker.pid, memory=[2 * 1024 * MIB], util=[90])
    busy, idle = machine.python(LOAD)["gpus"]
    assert busy["util"] == 90
    assert busy["used"] == (2048 + 1) * MIB
    assert busy["processes"] == [[worker.pid, 2048 * MIB, "/usr/local/bin/ollama runner"]]
    assert 34 < busy["temperature"] <= 62
    assert 14000 < busy["power"] <= 285000
    assert (busy["sm"], busy["gen"], busy["pstate"]) == (2610, 4, 2)
    assert busy["reasons"] & 1 == 0
    assert (idle["util"], idle["used"], idle["processes"]) == (0, MIB, [])
    assert (idle["gen"], idle["pstate"], idle["reasons"]) == (1, 8, 1)


def test_loaded_but_idle_process_holds_memory_only(machine, worker):
    machine.announce(worker.pid, memory=[512 * MIB, 256 * MIB], util=[90, 80], busy_for=-10)
    first, second = machine.python(LOAD)["gpus"]
    assert (first["util"], second["util"]) == (0, 0)
    assert (first["used"], second["used"]) == (513 * MIB, 257 * MIB)
    assert [len(gpu["processes"]) for gpu in (first, second)] == [1, 1]


def test_busy_lingers_for_half_a_second(machine, worker):
    machine.announce(worker.pid, memory=[MIB], util=[50], busy_for=0.6)
    seen = machine.python("""
        h = nvmlDeviceGetHandleByIndex(0)
        first = nvmlDeviceGetUtilizationRates(h).gpu
        time.sleep(1.3)
        show(first=first, later=nvmlDeviceGetUtilizationRates(h).gpu)
    """)
    assert seen == {"first": 50, "later": 0}


def test_activities_add_up_within_the_board(machine, start_worker):
    for _turn in range(2):
        machine.announce(start_worker().pid, memory=[9000 * MIB], util=[80])
    gpu = machine.python(LOAD)["gpus"][0]
    assert gpu["util"] == 100
    assert gpu["used"] == (12282 - 344) * MIB
    assert len(gpu["processes"]) == 2


def test_activity_of_a_process_that_is_gone_is_ignored(machine, worker):
    machine.announce(worker.pid, memory=[MIB], util=[50])
    assert machine.python(LOAD)["gpus"][0]["util"] == 50
    worker.kill()
    deadline = time.monotonic() + 10  # not waited for: a zombie holds no GPU memory
    while machine.python(LOAD)["gpus"][0]["util"] and time.monotonic() < deadline:
        time.sleep(0.05)
    zombie = machine.python(LOAD)["gpus"][0]
    worker.wait()
    gone = machine.python(LOAD)["gpus"][0]
    for gpu in (zombie, gone):
        assert (gpu["util"], gpu["used"], gpu["processes"]) == (0, MIB, [])


def test_odd_files_in_the_activity_folder_do_no_harm(machine, worker, tmp_path):
    machine.announce(worker.pid, memory=[MIB], util=[50])
    real = machine.activity_dir / str(worker.pid)
    (machine.activity_dir / ".half-written").write_text(real.read_text())
    (machine.activity_dir / "link").symlink_to(real)
    (machine.activity_dir / "folder").mkdir()
    (machine.activity_dir / "1").write_bytes(b"\0\xff no equals sign\n=\ngpu.99.util=5\n")
    (machine.activity_dir / "empty").write_text("")
    os.mkfifo(machine.activity_dir / "fifo")
    gpu = machine.python(LOAD)["gpus"][0]
    assert gpu["util"] == 50
    assert [process[0] for process in gpu["processes"]] == [worker.pid]


def test_missing_activity_folder_means_idle(machine):
    machine.activity_dir.rmdir()
    assert [gpu["util"] for gpu in machine.python(LOAD)["gpus"]] == [0, 0]


def test_process_names(machine, worker):
    seen = machine.python(f"""
        show(known=nvmlSystemGetProcessName({worker.pid}),
             unknown=answer(nvmlSystemGetProcessName, 2 ** 22 + 1))
    """)
    assert seen["known"].endswith("sleep") or "coreutils" in seen["known"]
    assert seen["unknown"] == {"error": 6}


# ---------------------------------------------------------------- faults


def test_driver_missing_and_library_mismatch(machine):
    assert machine.use("fault-driver-missing").init_error()[0] == 9
    assert machine.use("fault-library-mismatch").init_error()[0] == 18


def test_one_gpu_missing(machine):
    seen = machine.use("fault-one-gpu-missing").python("show(count=nvmlDeviceGetCount())")
    assert seen["count"] == 1


def test_gpu_is_lost_after_its_calls_and_stays_lost(machine):
    seen = machine.use("fault-gpu-lost").python("""
        good, bad = nvmlDeviceGetHandleByIndex(0), nvmlDeviceGetHandleByIndex(1)
        for call in range(100):
            nvmlDeviceGetTemperatureV(good, 0)
            rc = answer(nvmlDeviceGetTemperatureV, bad, 0)
            if isinstance(rc, dict):
                break
        nvmlShutdown(); nvmlInit()
        show(calls=call + 1, error=rc, name=answer(nvmlDeviceGetName, bad),
             handle=answer(lambda: bool(nvmlDeviceGetHandleByIndex(1))),
             good=nvmlDeviceGetName(good), count=nvmlDeviceGetCount())
    """)
    assert seen["calls"] == 25  # the handle was the first call
    assert seen["error"] == seen["name"] == seen["handle"] == {"error": 15}
    assert seen["good"] == "NVIDIA GeForce RTX 4070 Ti"
    assert seen["count"] == 2


def test_lost_calls_can_be_counted_over_processes(machine, tmp_path):
    counter = tmp_path / "calls"
    machine.write_profile(tmp_path, f"[gpu 0]\nlost_after = 3\nlost_counter_file = {counter}\n")
    code = "show(rc=answer(lambda: bool(nvmlDeviceGetHandleByIndex(0))))"
    assert [machine.python(code)["rc"] for _turn in range(5)] == [True] * 3 + [{"error": 15}] * 2
    assert counter.read_text() == "5\n"
    counter.unlink()  # the GPU is back
    assert machine.python(code)["rc"] is True


def test_xid_event_is_delivered_once_then_the_wait_times_out(machine):
    seen = machine.use("fault-gpu-lost").python("""
        events = nvmlEventSetCreate()
        for i in range(2):
            nvmlDeviceRegisterEvents(nvmlDeviceGetHandleByIndex(i), nvmlEventTypeXidCriticalError,
                                     events)
        event = nvmlEventSetWait_v2(events, 100)
        started = time.monotonic()
        second = answer(nvmlEventSetWait_v2, events, 200)
        show(type=event.eventType, xid=event.eventData, second=second,
             waited=time.monotonic() - started, freed=nvmlEventSetFree(events))
    """)
    assert (seen["type"], seen["xid"], seen["second"]) == (8, 79, {"error": 10})
    assert seen["waited"] >= 0.19
    assert seen["freed"] is None


def test_over_temperature(machine):
    seen = machine.use("fault-over-temperature").python("""
        h = nvmlDeviceGetHandleByIndex(1)
        fields = nvmlDeviceGetFieldValues(h, [269, 270])
        show(temperature=nvmlDeviceGetTemperatureV(h, 0),
             slowdown=nvmlDeviceGetTemperatureThreshold(h, 1),
             reasons=nvmlDeviceGetCurrentClocksEventReasons(h),
             throttled=[f.value.ullVal for f in fields],
             other=nvmlDeviceGetTemperatureV(nvmlDeviceGetHandleByIndex(0), 0))
    """)
    assert seen["temperature"] >= seen["slowdown"]
    assert seen["reasons"] & 0x68 == 0x68
    assert seen["throttled"] == [42_000_000_000] * 2
    assert seen["other"] < 50


def test_a_hanging_call_blocks_its_process_only(machine):
    machine.use("fault-hang")
    code = "nvmlInit(); h = nvmlDeviceGetHandleByIndex({}); print(nvmlDeviceGetTemperatureV(h, 0))"
    assert machine.run_python(code.format(0)).stdout.strip() == "34"
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        machine.run_python(code.format(1), timeout=2)
    assert time.monotonic() - started < 10  # killed at its deadline, not stuck for good
    rest = machine.python("show(power=nvmlDeviceGetPowerUsage(nvmlDeviceGetHandleByIndex(1)))")
    assert rest["power"] == 14000


def test_scripted_errors_delays_and_precedence(machine, tmp_path):
    machine.write_profile(
        tmp_path,
        """
        error.nvmlDeviceGetFanSpeed = not_supported
        error.nvmlDeviceGetCurrentClocksEventReasons = 13   # an older driver
        error.nvmlDeviceGetClock* = no_permission
        delay.nvmlDeviceGetName = 0.4
        [gpu]
        error.nvmlDeviceGetEccMode = success
        [gpu 0]
        [gpu 1]
        error.nvmlDeviceGetFanSpeed = success
        error.nvmlDeviceGetUUID = reset_required
        """,
    )
    seen = machine.python("""
        a, b = nvmlDeviceGetHandleByIndex(0), nvmlDeviceGetHandleByIndex(1)
        started = time.monotonic(); nvmlDeviceGetName(a); took = time.monotonic() - started
        show(fans=[answer(nvmlDeviceGetFanSpeed, h) for h in (a, b)], took=took,
             reasons=answer(nvmlDeviceGetCurrentClocksEventReasons, a),
             clock=answer(nvmlDeviceGetClockInfo, a, 0), ecc=nvmlDeviceGetEccMode(a),
             uuid=answer(nvmlDeviceGetUUID, b))
    """)
    assert seen["fans"] == [{"error": 3}, 0]
    assert 0.4 <= seen["took"] < 5
    assert seen["reasons"] == {"error": 13}
    assert seen["clock"] == {"error": 4}
    assert seen["ecc"] == [1, 1]
    assert seen["uuid"] == {"error": 16}


def test_health_faults_of_a_datacenter_board(machine, tmp_path):
    machine.write_profile(
        tmp_path,
        """
        [gpu 0]
        board = datacenter
        ecc_current = yes
        ecc_pending = no
        ecc_uncorrected_volatile = 3
        remap_uncorrectable = 1
        remap_pending = yes
        mig_pending = on
        recovery_action = 2
        inforom_valid = no
        pcie_width = 8
        """,
    )
    seen = machine.python("""
        h = nvmlDeviceGetHandleByIndex(0)
        show(ecc=nvmlDeviceGetEccMode(h), errors=nvmlDeviceGetTotalEccErrors(h, 1, 0),
             remapped=nvmlDeviceGetRemappedRows(h), mig=nvmlDeviceGetMigMode(h),
             recovery=nvmlDeviceGetFieldValues(h, [230])[0].value.uiVal,
             inforom=answer(nvmlDeviceValidateInforom, h),
             width=nvmlDeviceGetCurrPcieLinkWidth(h))
    """)
    assert seen == {
        "ecc": [1, 0],
        "errors": 3,
        "remapped": [0, 1, 1, 0],
        "mig": [0, 1],
        "recovery": 2,
        "inforom": {"error": 14},
        "width": 8,
    }


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        ("driver_version 575\n", 1, "key = value"),
        ("\nnonsense = 1\n", 2, "unknown key"),
        ("[gpu 0]\ncolour = green\n", 2, "unknown key of a GPU"),
        ("[gpu 0]\nmemory_total_mib = 12G\n", 2, "whole number"),
        ("[gpu 0]\nmemory_total_mib = -1\n", 2, "whole number"),
        ("[gpu 0]\npersistence_mode = maybe\n", 2, "yes or no"),
        ("[gpu 0]\nboard = quadro\n", 2, "geforce or datacenter"),
        ("[gpu 0]\narchitecture = fermi\n", 2, "architecture is"),
        ("[gpu 0]\ncompute_capability = 8\n", 2, "MAJOR.MINOR"),
        ("[gpu 0]\nlost_after = soon\n", 2, "number of calls"),
        ("[gpu 0]\n[gpu]\n", 2, "before"),
        ("[gpu 1]\n", 1, "numbered"),
        ("[cpu]\n", 1, "unknown section"),
        ("error.nvmlDeviceGetName = sad\n", 1, "NVML error"),
        ("error.DeviceGetName = timeout\n", 1, "name of an NVML function"),
        ("delay.nvmlDeviceGetName = long\n", 1, "seconds"),
        ("init_error = perhaps\n", 1, "NVML error"),
        ("[gpu 0]\nname = " + "x" * 96 + "\n", 2, "too long"),
        ("[gpu 0]\nname = " + "x" * 2000 + "\n", 2, "too long"),
    ],
)
def test_a_bad_profile_line_is_named(machine, tmp_path, text, line, complaint):
    code, stderr = machine.write_profile(tmp_path, text).init_error()
    assert code == 999
    assert f"profile.conf, line {line}: " in stderr
    assert complaint in stderr


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("driver_version = 575.64.03\n", "no [gpu 0] section"),
        ("[gpu 0]\npci_bus_id = 1\n", "pci_bus_id"),
        ("[gpu 0]\nuuid = 42\n", "uuid"),
        ("[gpu 0]\nmemory_total_mib = 100\n", "memory"),
    ],
)
def test_a_profile_that_makes_no_machine_is_refused(machine, tmp_path, text, complaint):
    code, stderr = machine.write_profile(tmp_path, text).init_error()
    assert code == 999
    assert complaint in stderr


def test_a_missing_profile_means_no_driver(machine, tmp_path):
    machine.profile = tmp_path / "none.conf"
    code, stderr = machine.init_error()
    assert code == 9
    assert "none.conf" in stderr


# ---------------------------------------------------------------- nvidia-smi


def parse_xml(text):
    """Parse with the doctype left in, as readers of nvidia-smi do."""
    parser = ET.XMLPullParser()
    parser.feed(text)
    parser.close()
    return [element for _event, element in parser.read_events()][-1]


def test_smi_list(machine):
    done = machine.smi("-L")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "GPU 0: NVIDIA GeForce RTX 4070 Ti (UUID: GPU-4070a0a0-51a0-4000-8000-000000000000)",
        "GPU 1: NVIDIA GeForce RTX 4070 Ti (UUID: GPU-4070a0a0-51a0-4000-8000-000000000001)",
    ]


def test_smi_query_gpu(machine):
    fields = (
        "index,name,uuid,pci.bus_id,temperature.gpu,utilization.gpu,utilization.memory,memory.used,"
        "memory.total,memory.free,power.draw,power.limit,clocks.sm,clocks.mem,"
        "clocks_event_reasons.active,pcie.link.gen.current,pcie.link.width.current,driver_version,"
        "pstate,fan.speed,ecc.mode.current,ecc.errors.uncorrected.volatile.total,serial,"
        "temperature.memory,display_mode"
    )
    done = machine.smi(f"--query-gpu={fields}", "--format=csv", "-i", "1")
    header, row = done.stdout.splitlines()
    assert header.split(", ")[5:8] == [
        "utilization.gpu [%]",
        "utilization.memory [%]",
        "memory.used [MiB]",
    ]
    assert "clocks.current.sm [MHz]" in header
    assert row.split(", ") == [
        "1", "NVIDIA GeForce RTX 4070 Ti", "GPU-4070a0a0-51a0-4000-8000-000000000001",
        "00000000:02:00.0", "36", "0 %", "0 %", "1 MiB", "12282 MiB", "11937 MiB", "14.00 W",
        "285.00 W", "210 MHz", "405 MHz", "0x0000000000000001", "1", "16", "575.64.03", "P8", "0 %",
        "[N/A]", "[N/A]", "[N/A]", "N/A", "[Requested functionality has been deprecated]",
    ]  # fmt: skip


def test_smi_query_without_units_or_header(machine):
    done = machine.smi("--query-gpu=memory.total,power.draw", "--format=csv,noheader,nounits")
    assert done.stdout.splitlines() == ["12282, 14.00"] * 2


def test_smi_answers_every_field_it_lists(machine):
    listed = machine.smi("--help-query-gpu").stdout.replace(" or ", "\n").splitlines()
    names = [name.strip('"') for name in listed]
    assert len(names) > 100
    for profile in ("rtx-4070-ti-x2", "h200-x1"):
        row = machine.use(profile).query(",".join(names))[0]
        assert len(row) == len(names)
        assert all(row)


def test_smi_query_timestamp(machine):
    stamp = machine.query("timestamp")[0][0]
    assert time.strptime(stamp.split(".")[0], "%Y/%m/%d %H:%M:%S")
    assert len(stamp.split(".")[1]) == 3


@pytest.mark.parametrize(
    "selection",
    [
        "1",
        "GPU-4070a0a0-51a0-4000-8000-000000000001",
        "00000000:02:00.0",
        "0000:02:00.0",
        "02:00.0",
    ],
)
def test_smi_selects_a_gpu(machine, selection):
    assert machine.query("index", "-i", selection) == [["1"]]
    assert machine.query("index", f"--id={selection}") == [["1"]]


def test_smi_compute_apps(machine, worker):
    query = ["--query-compute-apps=pid,process_name,used_memory", "--format=csv"]
    header = "pid, process_name, used_gpu_memory [MiB]\n"
    assert machine.smi(*query).stdout == header
    machine.announce(worker.pid, memory=[2048 * MIB, 100 * MIB])
    row = f"{worker.pid}, /usr/local/bin/ollama runner"
    assert machine.smi(*query).stdout == f"{header}{row}, 2048 MiB\n{row}, 100 MiB\n"


def test_smi_xml(machine, worker):
    machine.announce(worker.pid, memory=[2048 * MIB], util=[90], name="/opt/<a&b>")
    done = machine.smi("-q", "-x")
    assert done.returncode == 0
    root = parse_xml(done.stdout)
    assert root.tag == "nvidia_smi_log"
    assert root.findtext("driver_version") == "575.64.03"
    assert root.findtext("cuda_version") == "12.9"
    assert root.findtext("attached_gpus") == "2"
    busy, idle = root.findall("gpu")
    assert busy.get("id") == busy.findtext("pci/pci_bus_id") == "00000000:01:00.0"
    expected = {
        "product_name": "NVIDIA GeForce RTX 4070 Ti",
        "product_brand": "GeForce",
        "product_architecture": "Ada Lovelace",
        "persistence_mode": "Enabled",
        "mig_mode/current_mig": "N/A",
        "serial": "N/A",
        "uuid": "GPU-4070a0a0-51a0-4000-8000-000000000000",
        "gpu_recovery_action": "None",
        "pci/pci_device_id": "278210DE",
        "pci/pci_gpu_link_info/pcie_gen/current_link_gen": "4",
        "pci/pci_gpu_link_info/link_widths/current_link_width": "16x",
        "pci/replay_counter": "0",
        "performance_state": "P2",
        "clocks_event_reasons/clocks_event_reason_gpu_idle": "Not Active",
        "clocks_event_reasons/clocks_event_reason_hw_thermal_slowdown": "Not Active",
        "fb_memory_usage/total": "12282 MiB",
        "fb_memory_usage/reserved": "344 MiB",
        "fb_memory_usage/used": "2049 MiB",
        "compute_mode": "Default",
        "utilization/gpu_util": "90 %",
        "ecc_mode/current_ecc": "N/A",
        "ecc_errors/volatile/dram_uncorrectable": "N/A",
        "remapped_rows": "N/A",
        "temperature/gpu_temp_tlimit": "N/A",
        "temperature/gpu_temp_max_threshold": "101 C",
        "temperature/gpu_temp_slow_threshold": "96 C",
        "temperature/gpu_temp_max_gpu_threshold": "90 C",
        "gpu_power_readings/current_power_limit": "285.00 W",
        "clocks/sm_clock": "2610 MHz",
        "max_clocks/mem_clock": "10501 MHz",
        "processes/process_info/pid": str(worker.pid),
        "processes/process_info/type": "C",
        "processes/process_info/process_name": "/opt/<a&b>",
        "processes/process_info/used_memory": "2048 MiB",
    }
    assert {path: busy.findtext(path) for path in expected} == expected
    assert busy.findtext("temperature/gpu_temp").endswith(" C")
    assert busy.findtext("gpu_power_readings/instant_power_draw").endswith(" W")
    assert idle.find("processes") is not None
    assert idle.find("processes/process_info") is None


def test_smi_xml_of_a_datacenter_board(machine):
    gpu = parse_xml(machine.use("h200-x1").smi("-q", "-x").stdout).find("gpu")
    expected = {
        "product_brand": "NVIDIA",
        "mig_mode/current_mig": "Disabled",
        "serial": "1655000000042",
        "fan_speed": "N/A",
        "ecc_mode/current_ecc": "Enabled",
        "ecc_errors/volatile/dram_uncorrectable": "0",
        "remapped_rows/remapped_row_pending": "No",
        "temperature/gpu_temp_tlimit": "50 C",
        "temperature/gpu_temp_max_tlimit_threshold": "-8 C",
        "temperature/gpu_temp_slow_tlimit_threshold": "-2 C",
        "temperature/memory_temp": "38 C",
        "retired_pages/double_bit_retirement/retired_count": "N/A",
    }
    assert {path: gpu.findtext(path) for path in expected} == expected


def test_smi_table_lines_have_one_width(machine, worker):
    machine.announce(worker.pid, memory=[2048 * MIB], name="/a/very/long/path" * 5)
    for profile in ("rtx-4070-ti-x2", "h200-x1"):
        done = machine.use(profile).smi()
        assert done.returncode == 0
        lines = [line for line in done.stdout.splitlines()[1:] if line]
        assert {len(line) for line in lines} == {91}
        assert "2048MiB" in done.stdout
    assert "No running processes found" not in done.stdout


def test_smi_version(machine):
    assert "DRIVER version      : 575.64.03" in machine.smi("--version").stdout


@pytest.mark.parametrize("args", [["-L"], ["-q", "-x"], []])
def test_smi_without_a_driver(machine, args):
    done = machine.use("fault-driver-missing").smi(*args)
    assert done.returncode == 9
    assert done.stdout.startswith(
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    )


def test_smi_with_a_library_mismatch(machine):
    done = machine.use("fault-library-mismatch").smi("-L")
    assert done.returncode == 18
    assert done.stdout.splitlines() == [
        "Failed to initialize NVML: Driver/library version mismatch",
        "NVML library version: 575.64",
    ]


def test_smi_without_the_library(machine, tmp_path):
    env = {**machine.env, "LD_LIBRARY_PATH": str(tmp_path)}
    argv = [machine.built / "nvidia-smi", "-L"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 12
    assert "couldn't find libnvidia-ml.so" in done.stdout


def test_smi_with_a_lost_gpu(machine, tmp_path):
    machine.write_profile(tmp_path, "[gpu 0]\n[gpu 1]\nlost_after = 0\n")
    message = (
        "Unable to determine the device handle for GPU1: 0000:02:00.0: GPU is lost.  "
        "Reboot the system to recover this GPU\n"
    )
    for args in (["-q", "-x"], ["--query-gpu=index", "--format=csv"], []):
        done = machine.smi(*args)
        assert (done.returncode, done.stdout) == (15, message)
    listed = machine.smi("-L")
    assert listed.returncode == 15
    assert listed.stdout.startswith("GPU 0: ")
    assert listed.stdout.endswith(message)
    assert machine.query("index", "-i", "0") == [["0"]]


def test_smi_with_a_gpu_lost_half_way(machine, tmp_path):
    machine.write_profile(tmp_path, "[gpu 0]\nlost_after = 2\n")
    assert machine.query("index,pstate,fan.speed") == [["0", "[GPU is lost]", "[GPU is lost]"]]


def test_smi_hangs_with_the_driver(machine):
    with pytest.raises(subprocess.TimeoutExpired):
        machine.use("fault-hang").smi("-q", "-x", timeout=1)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--nonsense"], 2, "Invalid combination"),
        (["--query-gpu=colour", "--format=csv"], 2, 'Field "colour" is not a valid field'),
        (["--query-gpu=name"], 2, "--format="),
        (["--query-gpu=name", "--format=json"], 2, "Invalid combination"),
        (["--query-compute-apps=colour", "--format=csv"], 2, 'Field "colour" is not'),
        (["-i", "7", "-L"], 6, "No devices were found"),
    ],
)
def test_smi_bad_arguments(machine, args, code, message):
    done = machine.smi(*args)
    assert done.returncode == code
    assert message in done.stdout
