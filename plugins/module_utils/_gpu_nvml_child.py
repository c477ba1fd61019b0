# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Reads the GPUs through NVML and prints them as JSON lines; a program that stands alone.

Whoever wants the facts runs it as a child (``python _gpu_nvml_child.py``, or its text after
``python -c``) with an interpreter that has the package nvidia-ml-py, and kills it when it does
not answer: a driver call that hangs cannot be interrupted from within. Each line is printed as
soon as it is known, so that a killed child still tells which GPU it was reading.

Lines: ``{"driver": {...}, "count": N}``, then per GPU ``{"reading": i}`` and ``{"gpu": {...}}``,
at the end ``{"done": true}``; or ``{"error": {...}}`` when NVML as a whole does not work.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Callable

# NVML return codes: nvml.h, enumeration nvmlReturn_t.
NO_PERMISSION, NOT_FOUND, TIMEOUT = 4, 6, 10
DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, GPU_IS_LOST, RESET_REQUIRED = 9, 12, 15, 16
VERSION_MISMATCH = 18
# not supported, no permission, not found, no such function, no data, other struct, deprecated
NOT_AVAILABLE = frozenset({3, NO_PERMISSION, NOT_FOUND, 13, 21, 25, 26})

STATES = {
    NO_PERMISSION: "no_permission",
    DRIVER_NOT_LOADED: "driver_not_loaded",
    TIMEOUT: "timeout",
    LIBRARY_NOT_FOUND: "library_missing",
    VERSION_MISMATCH: "version_mismatch",
}
GPU_STATES = {GPU_IS_LOST: "lost", RESET_REQUIRED: "reset_required"}
CLOCK_EVENTS = (
    (0x1, "gpu_idle"),
    (0x2, "applications_clocks_setting"),
    (0x4, "sw_power_cap"),
    (0x8, "hw_slowdown"),
    (0x10, "sync_boost"),
    (0x20, "sw_thermal_slowdown"),
    (0x40, "hw_thermal_slowdown"),
    (0x80, "hw_power_brake_slowdown"),
    (0x100, "display_clock_setting"),
)
COMPUTE_MODES = {0: "default", 1: "exclusive_thread", 2: "prohibited", 3: "exclusive_process"}
FIELD_RECOVERY_ACTION, FIELD_SLOWDOWN_TLIMIT = 230, 194
RETIRED_SINGLE_BIT, RETIRED_DOUBLE_BIT = 0, 1
MHZ, MILLIWATT, PERCENT = 1_000_000, 1000.0, 100.0

Fields = dict[str, Any]


def _identity(nvml: Any, gpu: Any) -> Fields:
    return {"name": nvml.nvmlDeviceGetName(gpu)}


def _uuid(nvml: Any, gpu: Any) -> Fields:
    return {"uuid": nvml.nvmlDeviceGetUUID(gpu)}


def _pci(nvml: Any, gpu: Any) -> Fields:
    return {"pci_bus_id": nvml.nvmlDeviceGetPciInfo(gpu).busId}


def _minor(nvml: Any, gpu: Any) -> Fields:
    return {"minor_number": nvml.nvmlDeviceGetMinorNumber(gpu)}


def _vbios(nvml: Any, gpu: Any) -> Fields:
    return {"vbios_version": nvml.nvmlDeviceGetVbiosVersion(gpu)}


def _capability(nvml: Any, gpu: Any) -> Fields:
    return {"compute_capability": ".".join(map(str, nvml.nvmlDeviceGetCudaComputeCapability(gpu)))}


def _memory(nvml: Any, gpu: Any) -> Fields:
    try:  # version 2 leaves out what the driver keeps for itself
        info = nvml.nvmlDeviceGetMemoryInfo(gpu, version=nvml.nvmlMemory_v2)
        fields = {"memory_reserved_bytes": info.reserved}
    except nvml.NVMLError as error:
        if error.value not in NOT_AVAILABLE:
            raise
        info, fields = nvml.nvmlDeviceGetMemoryInfo(gpu), {}
    fields["memory_total_bytes"] = info.total
    fields["memory_used_bytes"] = info.used
    fields["memory_free_bytes"] = info.free
    return fields


def _utilization(nvml: Any, gpu: Any) -> Fields:
    rates = nvml.nvmlDeviceGetUtilizationRates(gpu)
    return {
        "utilization_gpu_ratio": rates.gpu / PERCENT,
        "utilization_memory_ratio": rates.memory / PERCENT,
    }


def _temperature(nvml: Any, gpu: Any) -> Fields:
    try:
        value = nvml.nvmlDeviceGetTemperatureV(gpu, nvml.NVML_TEMPERATURE_GPU)
    except nvml.NVMLError as error:  # drivers before the 560 branch
        if error.value not in NOT_AVAILABLE:
            raise
        value = nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)
    return {"temperature_c": value}


def _threshold(field: str, constant: str) -> Callable[[Any, Any], Fields]:
    def read(nvml: Any, gpu: Any) -> Fields:
        value = nvml.nvmlDeviceGetTemperatureThreshold(gpu, getattr(nvml, constant))
        return {field: value} if value > 0 else {}

    read.__name__ = field
    return read


def _margin(nvml: Any, gpu: Any) -> Fields:
    return {"temperature_margin_c": nvml.nvmlDeviceGetMarginTemperature(gpu)}


def _field_values(nvml: Any, gpu: Any) -> Fields:
    wanted = {
        FIELD_RECOVERY_ACTION: "recovery_action",
        FIELD_SLOWDOWN_TLIMIT: "temperature_slowdown_margin_c",
    }
    found = {}
    for value in nvml.nvmlDeviceGetFieldValues(gpu, list(wanted)):
        if value.nvmlReturn == 0 and value.fieldId in wanted:
            member = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
            found[wanted[value.fieldId]] = getattr(value.value, member[value.valueType])
    return found


def _power(nvml: Any, gpu: Any) -> Fields:
    return {"power_draw_watts": nvml.nvmlDeviceGetPowerUsage(gpu) / MILLIWATT}


def _power_limit(nvml: Any, gpu: Any) -> Fields:
    return {"power_limit_watts": nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / MILLIWATT}


def _power_default(nvml: Any, gpu: Any) -> Fields:
    limit = nvml.nvmlDeviceGetPowerManagementDefaultLimit(gpu)
    return {"power_default_limit_watts": limit / MILLIWATT}


def _clock(field: str, constant: str) -> Callable[[Any, Any], Fields]:
    def read(nvml: Any, gpu: Any) -> Fields:
        return {field: nvml.nvmlDeviceGetClockInfo(gpu, getattr(nvml, constant)) * MHZ}

    read.__name__ = field
    return read


def _clock_events(nvml: Any, gpu: Any) -> Fields:
    try:
        mask = nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu)
    except nvml.NVMLError as error:  # drivers before the 535 branch
        if error.value not in NOT_AVAILABLE:
            raise
        mask = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
    return {"clocks_event_reasons": [name for bit, name in CLOCK_EVENTS if mask & bit]}


def _pstate(nvml: Any, gpu: Any) -> Fields:
    state = nvml.nvmlDeviceGetPerformanceState(gpu)
    return {"performance_state": state} if 0 <= state <= 15 else {}


def _fan(nvml: Any, gpu: Any) -> Fields:
    return {"fan_speed_ratio": nvml.nvmlDeviceGetFanSpeed(gpu) / PERCENT}


def _pcie(field: str, function: str) -> Callable[[Any, Any], Fields]:
    def read(nvml: Any, gpu: Any) -> Fields:
        return {field: getattr(nvml, function)(gpu)}

    read.__name__ = field
    return read


def _ecc_mode(nvml: Any, gpu: Any) -> Fields:
    current, pending = nvml.nvmlDeviceGetEccMode(gpu)
    return {"ecc_mode": bool(current), "ecc_mode_pending": bool(pending)}


def _ecc_errors(field: str, kind: str) -> Callable[[Any, Any], Fields]:
    def read(nvml: Any, gpu: Any) -> Fields:
        count = nvml.nvmlDeviceGetTotalEccErrors(gpu, getattr(nvml, kind), nvml.NVML_VOLATILE_ECC)
        return {field: count}

    read.__name__ = field
    return read


def _retired_pages(nvml: Any, gpu: Any) -> Fields:
    single = nvml.nvmlDeviceGetRetiredPages(gpu, RETIRED_SINGLE_BIT)
    double = nvml.nvmlDeviceGetRetiredPages(gpu, RETIRED_DOUBLE_BIT)
    pending = nvml.nvmlDeviceGetRetiredPagesPendingStatus(gpu)
    return {
        "retired_pages_single_bit": len(single),
        "retired_pages_double_bit": len(double),
        "retired_pages_pending": bool(pending),
    }


def _remapped_rows(nvml: Any, gpu: Any) -> Fields:
    corrected, uncorrected, pending, failed = nvml.nvmlDeviceGetRemappedRows(gpu)
    return {
        "remapped_rows_correctable": corrected,
        "remapped_rows_uncorrectable": uncorrected,
        "remapped_rows_pending": bool(pending),
        "remapped_rows_failure": bool(failed),
    }


def _persistence(nvml: Any, gpu: Any) -> Fields:
    return {"persistence_mode": bool(nvml.nvmlDeviceGetPersistenceMode(gpu))}


def _compute_mode(nvml: Any, gpu: Any) -> Fields:
    mode = nvml.nvmlDeviceGetComputeMode(gpu)
    return {"compute_mode": COMPUTE_MODES.get(mode, str(mode))}


def _processes(nvml: Any, gpu: Any) -> Fields:
    """List processes; a GPU that cannot list them has no such key, as against an empty list."""
    found: dict[int, Fields] = {}
    kinds = (
        ("C", nvml.nvmlDeviceGetComputeRunningProcesses),
        ("G", nvml.nvmlDeviceGetGraphicsRunningProcesses),
    )
    for kind, function in kinds:
        for process in function(gpu):
            entry = found.setdefault(process.pid, {"pid": process.pid, "type": ""})
            entry["type"] = "C+G" if entry["type"] else kind
            if process.usedGpuMemory is not None:
                entry["memory_bytes"] = process.usedGpuMemory
            name = _process_name(nvml, process.pid)
            if name:
                entry["name"] = name
    return {"processes": [found[pid] for pid in sorted(found)]}


def _process_name(nvml: Any, pid: int) -> str:
    try:
        return nvml.nvmlSystemGetProcessName(pid)
    except nvml.NVMLError:
        pass
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0", 1)[0].decode("utf-8", "replace")
    except OSError:
        return ""


READERS: tuple[Callable[[Any, Any], Fields], ...] = (
    _identity,
    _uuid,
    _pci,
    _minor,
    _vbios,
    _capability,
    _memory,
    _utilization,
    _temperature,
    _threshold("temperature_shutdown_c", "NVML_TEMPERATURE_THRESHOLD_SHUTDOWN"),
    _threshold("temperature_slowdown_c", "NVML_TEMPERATURE_THRESHOLD_SLOWDOWN"),
    _threshold("temperature_max_c", "NVML_TEMPERATURE_THRESHOLD_GPU_MAX"),
    _margin,
    _field_values,
    _power,
    _power_limit,
    _power_default,
    _clock("clock_graphics_hz", "NVML_CLOCK_GRAPHICS"),
    _clock("clock_sm_hz", "NVML_CLOCK_SM"),
    _clock("clock_memory_hz", "NVML_CLOCK_MEM"),
    _clock_events,
    _pstate,
    _fan,
    _pcie("pcie_link_width_current", "nvmlDeviceGetCurrPcieLinkWidth"),
    _pcie("pcie_link_width_max", "nvmlDeviceGetMaxPcieLinkWidth"),
    _pcie("pcie_link_gen_current", "nvmlDeviceGetCurrPcieLinkGeneration"),
    _pcie("pcie_link_gen_max", "nvmlDeviceGetMaxPcieLinkGeneration"),
    _ecc_mode,
    _ecc_errors("ecc_errors_corrected", "NVML_MEMORY_ERROR_TYPE_CORRECTED"),
    _ecc_errors("ecc_errors_uncorrected", "NVML_MEMORY_ERROR_TYPE_UNCORRECTED"),
    _retired_pages,
    _remapped_rows,
    _persistence,
    _compute_mode,
    _processes,
)


def read_gpu(nvml: Any, index: int) -> Fields:
    """Read all that a GPU tells; what it does not support stays absent."""
    gpu: Fields = {"index": index, "state": "ok", "errors": []}
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        for reader in READERS:
            try:
                gpu.update(reader(nvml, handle))
            except nvml.NVMLError as error:
                if error.value in GPU_STATES:
                    raise
                if error.value not in NOT_AVAILABLE:
                    what = reader.__name__.strip("_")
                    gpu["errors"].append({"what": what, "code": error.value, "message": str(error)})
    except nvml.NVMLError as error:
        gpu["state"] = GPU_STATES.get(error.value, "error")
        gpu["errors"].append({"what": "gpu", "code": error.value, "message": str(error)})
    return gpu


def read_driver(nvml: Any) -> Fields:
    """Read the versions of the driver, of CUDA and of NVML."""
    driver: Fields = {}
    for key, read in (
        ("version", nvml.nvmlSystemGetDriverVersion),
        ("nvml_version", nvml.nvmlSystemGetNVMLVersion),
        ("cuda_version", lambda: cuda_text(nvml.nvmlSystemGetCudaDriverVersion_v2())),
    ):
        try:
            driver[key] = read()
        except nvml.NVMLError:
            continue
    return driver


def cuda_text(number: int) -> str:
    """Turn NVML's 1000 * major + 10 * minor into the usual spelling."""
    return f"{number // 1000}.{number % 1000 // 10}"


def say(line: Fields) -> None:
    """Print one line at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Read everything; 0 when NVML answered, 1 when it did not, 3 without its Python binding."""
    try:
        import pynvml as nvml  # noqa: PLC0415 - its absence is an answer, not a crash
    except ImportError as error:
        say({"error": {"state": "no_binding", "message": f"{sys.executable}: {error}"}})
        return 3
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
        say({"driver": read_driver(nvml), "count": count})
    except nvml.NVMLError as error:
        state = STATES.get(error.value, "error")
        say({"error": {"state": state, "code": error.value, "message": str(error)}})
        return 1
    for index in range(count):
        say({"reading": index})
        say({"gpu": read_gpu(nvml, index)})
    say({"done": True})
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # nothing is left to do, and a sick driver may hang in its exit handlers
