# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Reads the GPUs through NVML and prints them as JSON lines; a program that stands alone.

Whoever wants the facts runs it as a child (as a file, or its text after ``python -c``) with an
interpreter that has the package nvidia-ml-py, and kills it when it does not answer: a driver call
that hangs cannot be interrupted from within. Each line is printed as soon as it is known, so that
a killed child still tells which GPU it was reading.

Lines: ``{"driver": {...}, "count": N}``, then per GPU ``{"reading": i}`` and ``{"gpu": {...}}``,
at the end ``{"done": true}``; or ``{"error": {...}}`` when NVML as a whole does not work. Keys and
units of a GPU are those that the module ``gpu_info`` documents.

``--set sample`` reads what a collector wants again and again. The set ``full`` is there when the
text of ``_gpu_nvml_full`` was put before this one.

With ``--interval SECONDS`` it keeps one NVML session and prints such a block, begun by
``{"begin": n, "at": seconds since 1970}``, at the wall clock's multiples of the interval, until
its input ends (status 0) or a signal ends it. After a block in which a GPU was lost it prints an
error and ends with status 1, for only a new session can find that GPU again; likewise when NVML
itself fails.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import time
from typing import Any, Callable

# NVML return codes: nvml.h, enumeration nvmlReturn_t.
UNINITIALIZED, INVALID_ARGUMENT, NO_PERMISSION, NOT_FOUND = 1, 2, 4, 6
DRIVER_NOT_LOADED, TIMEOUT, LIBRARY_NOT_FOUND, FUNCTION_NOT_FOUND = 9, 10, 12, 13
GPU_IS_LOST, RESET_REQUIRED, VERSION_MISMATCH = 15, 16, 18
# not supported, no permission, not found, no such function, no data, other struct, deprecated
NOT_AVAILABLE = frozenset({3, NO_PERMISSION, NOT_FOUND, FUNCTION_NOT_FOUND, 21, 25, 26})
BROKEN = frozenset({UNINITIALIZED, DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, VERSION_MISMATCH})

STATES = {
    NO_PERMISSION: "no_permission",
    DRIVER_NOT_LOADED: "driver_not_loaded",
    TIMEOUT: "timeout",
    LIBRARY_NOT_FOUND: "library_missing",
    VERSION_MISMATCH: "version_mismatch",
}
GPU_STATES = {GPU_IS_LOST: "lost", RESET_REQUIRED: "reset_required"}
COMPUTE_MODES = {0: "default", 1: "exclusive_thread", 2: "prohibited", 3: "exclusive_process"}
CLOCK_EVENTS = (  # by bit
    "gpu_idle",
    "applications_clocks_setting",
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
    "display_clock_setting",
    "board_limit",  # this and the next since the 615 branch
    "reliability",
)
SHUTDOWN, SLOWDOWN, MEMORY_MAX, GPU_MAX = range(4)  # nvmlTemperatureThresholds_t
GRAPHICS, SM, MEMORY = range(3)  # nvmlClockType_t
CORRECTED, UNCORRECTED, VOLATILE = 0, 1, 0  # nvmlMemoryErrorType_t, nvmlEccCounterType_t
SENSOR_GPU = 0
# Field numbers of nvml.h: keys, where a dot makes a dictionary. Times are in nanoseconds.
FIELDS = {
    74: "throttle_ns.sw_power_cap",
    269: "throttle_ns.sw_thermal_slowdown",
    270: "throttle_ns.hw_thermal_slowdown",
    271: "throttle_ns.hw_power_brake_slowdown",
    82: "temperature_memory_c",
    230: "recovery_action",
}
TLIMIT_FIELDS = {
    193: "temperature_shutdown_margin_c",
    194: "temperature_slowdown_margin_c",
    196: "temperature_max_margin_c",
}
FIELD_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by valueType
NO_VALUE = (0xFFFFFFFF, 2**64 - 1, "", "N/A", None)
MHZ, MILLI, PERCENT = 1_000_000, 1000.0, 100.0

Fields = dict[str, Any]
Reader = Callable[[Any, Any], Fields]

# From NVML's units and structures to ours; None for a value that means there is none.
CONVERT: dict[str, Callable[[Any], Any]] = {
    "same": lambda value: value,
    "from milli": lambda value: value / MILLI,
    "hertz": lambda value: value * MHZ,
    "ratio": lambda value: value / PERCENT,
    "ratio of two": lambda value: value[0] / PERCENT,  # the second is the sampling period
    "positive": lambda value: value if value > 0 else None,
    "pstate": lambda value: value if 0 <= value <= 15 else None,
    "dotted": lambda value: ".".join(map(str, value)),
    "bus id": lambda value: value.busId,
    "mode": lambda value: COMPUTE_MODES.get(value, str(value)),
    "flag": bool,
}


def _ask(nvml: Any, function: str, *arguments: Any) -> Any:
    """Call a function; one that an older binding lacks answers as one that the driver lacks."""
    call = getattr(nvml, function, None)
    if call is None:
        raise nvml.NVMLError(FUNCTION_NOT_FOUND)
    return call(*arguments)


def _either(nvml: Any, newer: str, older: str, *arguments: Any) -> Any:
    try:
        return _ask(nvml, newer, *arguments)
    except nvml.NVMLError as error:
        if error.value not in NOT_AVAILABLE:
            raise
        return _ask(nvml, older, *arguments)


def _value(field: str, function: str, *arguments: int, to: str = "same") -> Reader:
    """Make a reader of a function that gives one value."""
    convert = CONVERT[to]

    def read(nvml: Any, gpu: Any) -> Fields:
        value = _ask(nvml, function, gpu, *arguments)
        value = None if value in NO_VALUE else convert(value)
        return {} if value is None else {field: value}

    read.__name__ = field
    return read


def _several(function: str, *fields: str, to: str) -> Reader:
    """Make a reader of a function that gives one value per field."""
    convert = CONVERT[to]

    def read(nvml: Any, gpu: Any) -> Fields:
        values = zip(fields, _ask(nvml, function, gpu))
        return {field: convert(value) for field, value in values if value not in NO_VALUE}

    read.__name__ = fields[0]
    return read


def _memory(nvml: Any, gpu: Any) -> Fields:
    try:  # version 2 leaves out what the driver keeps for itself
        version = getattr(nvml, "nvmlMemory_v2", None)
        if version is None:
            raise nvml.NVMLError(FUNCTION_NOT_FOUND)
        info = nvml.nvmlDeviceGetMemoryInfo(gpu, version)
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
    # the older one serves drivers before the 560 branch
    names = ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature")
    return {"temperature_c": _either(nvml, *names, gpu, SENSOR_GPU)}


def _clock_events(nvml: Any, gpu: Any) -> Fields:
    # the older one serves drivers before the 535 branch
    names = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
    mask = _either(nvml, *names, gpu)
    active = [name for bit, name in enumerate(CLOCK_EVENTS) if mask >> bit & 1]
    return {"clocks_event_reasons": active}


def _field_values(nvml: Any, gpu: Any, wanted: dict[int, str]) -> Fields:
    """Read numbered fields; each has an error of its own, and an odd one is passed on."""
    found: Fields = {"errors": []}
    for value in _ask(nvml, "nvmlDeviceGetFieldValues", gpu, list(wanted)):
        key, _dot, inner = wanted[value.fieldId].partition(".")
        code = value.nvmlReturn
        if code == 0 and value.valueType < len(FIELD_MEMBERS):
            number = getattr(value.value, FIELD_MEMBERS[value.valueType])
            if number not in NO_VALUE:
                target = found.setdefault(key, {}) if inner else found
                target[inner or key] = number
        elif code in BROKEN or code in GPU_STATES:
            raise nvml.NVMLError(code)
        elif code not in NOT_AVAILABLE | {0, INVALID_ARGUMENT}:  # invalid: this driver's too old
            found["errors"].append(_error(nvml.NVMLError(code), wanted[value.fieldId]))
    return found


def _fields(nvml: Any, gpu: Any) -> Fields:
    found = _field_values(nvml, gpu, FIELDS)
    if found.get("temperature_memory_c") == 0:  # no sensor
        del found["temperature_memory_c"]
    return found


def _tlimits(nvml: Any, gpu: Any) -> Fields:
    found = _field_values(nvml, gpu, TLIMIT_FIELDS)
    found["temperature_tlimit_supported"] = "temperature_slowdown_margin_c" in found
    return found


def _remapped_rows(nvml: Any, gpu: Any) -> Fields:
    corrected, uncorrected, pending, failed = _ask(nvml, "nvmlDeviceGetRemappedRows", gpu)
    return {
        "remapped_rows_correctable": corrected,
        "remapped_rows_uncorrectable": uncorrected,
        "remapped_rows_pending": bool(pending),
        "remapped_rows_failure": bool(failed),
    }


def _processes(nvml: Any, gpu: Any) -> Fields:
    """List processes; a GPU that cannot list them has no such key, as against an empty list."""
    found: dict[int, Fields] = {}
    kinds = (
        ("C", "nvmlDeviceGetComputeRunningProcesses"),
        ("G", "nvmlDeviceGetGraphicsRunningProcesses"),
    )
    for kind, function in kinds:
        for process in _ask(nvml, function, gpu):
            entry = found.setdefault(process.pid, {"pid": process.pid, "type": ""})
            entry["type"] = kind if entry["type"] in ("", kind) else "C+G"
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


_power = _value("power_draw_watts", "nvmlDeviceGetPowerUsage", to="from milli")

_THRESHOLD, _LIMIT = "nvmlDeviceGetTemperatureThreshold", "nvmlDeviceGetPowerManagementLimit"
_DEFAULT_LIMIT = "nvmlDeviceGetPowerManagementDefaultLimit"
_LIMITS = "nvmlDeviceGetPowerManagementLimitConstraints"
_CLOCK, _MAX_CLOCK = "nvmlDeviceGetClockInfo", "nvmlDeviceGetMaxClockInfo"
_ECC_ERRORS = "nvmlDeviceGetTotalEccErrors"
# What doesn't change as long as a session lives: read once in it.
CONSTANT: tuple[Reader, ...] = (
    _value("name", "nvmlDeviceGetName"),
    _value("uuid", "nvmlDeviceGetUUID"),
    _value("pci_bus_id", "nvmlDeviceGetPciInfo", to="bus id"),
    _value("minor_number", "nvmlDeviceGetMinorNumber"),
    _value("serial", "nvmlDeviceGetSerial"),
    _value("vbios_version", "nvmlDeviceGetVbiosVersion"),
    _value("compute_capability", "nvmlDeviceGetCudaComputeCapability", to="dotted"),
    _value("temperature_shutdown_c", _THRESHOLD, SHUTDOWN, to="positive"),
    _value("temperature_slowdown_c", _THRESHOLD, SLOWDOWN, to="positive"),
    _value("temperature_max_c", _THRESHOLD, GPU_MAX, to="positive"),
    _value("temperature_memory_max_c", _THRESHOLD, MEMORY_MAX, to="positive"),
    _tlimits,
    _value("power_default_limit_watts", _DEFAULT_LIMIT, to="from milli"),
    _several(_LIMITS, "power_min_limit_watts", "power_max_limit_watts", to="from milli"),
    _value("clock_graphics_max_hz", _MAX_CLOCK, GRAPHICS, to="hertz"),
    _value("clock_sm_max_hz", _MAX_CLOCK, SM, to="hertz"),
    _value("clock_memory_max_hz", _MAX_CLOCK, MEMORY, to="hertz"),
    _value("pcie_link_width_max", "nvmlDeviceGetMaxPcieLinkWidth"),
    _value("pcie_link_gen_max", "nvmlDeviceGetMaxPcieLinkGeneration"),
    _value("pcie_link_gen_gpu_max", "nvmlDeviceGetGpuMaxPcieLinkGeneration"),
)
# What a collector wants again and again, each of them cheap.
SAMPLE: tuple[Reader, ...] = (
    _memory,
    _utilization,
    _value("encoder_ratio", "nvmlDeviceGetEncoderUtilization", to="ratio of two"),
    _value("decoder_ratio", "nvmlDeviceGetDecoderUtilization", to="ratio of two"),
    _temperature,
    _value("temperature_margin_c", "nvmlDeviceGetMarginTemperature"),
    _fields,
    _power,
    _value("power_limit_watts", "nvmlDeviceGetEnforcedPowerLimit", to="from milli"),
    _value("power_management_limit_watts", _LIMIT, to="from milli"),
    _value("energy_joules", "nvmlDeviceGetTotalEnergyConsumption", to="from milli"),
    _value("clock_graphics_hz", _CLOCK, GRAPHICS, to="hertz"),
    _value("clock_sm_hz", _CLOCK, SM, to="hertz"),
    _value("clock_memory_hz", _CLOCK, MEMORY, to="hertz"),
    _clock_events,
    _value("performance_state", "nvmlDeviceGetPerformanceState", to="pstate"),
    _value("fan_speed_ratio", "nvmlDeviceGetFanSpeed", to="ratio"),
    _value("pcie_link_width_current", "nvmlDeviceGetCurrPcieLinkWidth"),
    _value("pcie_link_gen_current", "nvmlDeviceGetCurrPcieLinkGeneration"),
    _value("pcie_replay_count", "nvmlDeviceGetPcieReplayCounter"),
    _several("nvmlDeviceGetEccMode", "ecc_mode", "ecc_mode_pending", to="flag"),
    _value("ecc_errors_corrected", _ECC_ERRORS, CORRECTED, VOLATILE),
    _value("ecc_errors_uncorrected", _ECC_ERRORS, UNCORRECTED, VOLATILE),
    _remapped_rows,
    _value("persistence_mode", "nvmlDeviceGetPersistenceMode", to="flag"),
    _value("compute_mode", "nvmlDeviceGetComputeMode", to="mode"),
)
SETS: dict[str, tuple[Reader, ...]] = {"sample": SAMPLE}
if "FULL" in globals():  # the text before this one defines it
    SETS["full"] = (*SAMPLE, *globals()["FULL"], _processes)


def read_gpu(nvml: Any, index: int, readers: tuple[Reader, ...], constants: Fields) -> Fields:
    """Read a GPU; what it does not support stays absent.

    Args:
        nvml: the binding.
        index: number of the GPU.
        readers: what to read beside what is constant.
        constants: what is constant, as found before; filled when it is empty.
    """
    gpu: Fields = {**constants, "index": index, "state": "ok", "errors": []}
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        if not constants:
            _collect(nvml, handle, CONSTANT, gpu)
            if not gpu["errors"]:
                constants.update(gpu)
        _collect(nvml, handle, readers, gpu)
    except nvml.NVMLError as error:
        if error.value in BROKEN:
            raise
        gpu["state"] = GPU_STATES.get(error.value, "error")
        gpu["errors"].append(_error(error, "gpu"))
    return gpu


def _collect(nvml: Any, handle: Any, readers: tuple[Reader, ...], gpu: Fields) -> None:
    for reader in readers:
        try:
            fields = reader(nvml, handle)
            gpu["errors"] += fields.pop("errors", ())
            gpu.update(fields)
        except nvml.NVMLError as error:
            if error.value in BROKEN or error.value in GPU_STATES:
                raise
            if error.value not in NOT_AVAILABLE:
                gpu["errors"].append(_error(error, reader.__name__.strip("_")))


def _error(error: Any, what: str) -> Fields:
    return {"what": what, "code": error.value, "message": str(error)}


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


def read_all(
    nvml: Any, head: Fields, readers: tuple[Reader, ...], constants: list[Fields]
) -> Fields | None:
    """Print the lines of one block; return the first GPU that is lost or sick, if any."""
    say(head)
    sick = None
    for index in range(head["count"]):
        say({"reading": index})
        gpu = read_gpu(nvml, index, readers, constants[index])
        say({"gpu": gpu})
        if gpu["state"] != "ok" and sick is None:
            sick = gpu
    say({"done": True})
    return sick


def keep_reading(nvml: Any, head: Fields, readers: tuple[Reader, ...], interval_s: float) -> int:
    """Print a block at each multiple of the interval; return the exit status."""
    constants: list[Fields] = [{} for _index in range(head["count"])]
    number = 0
    while True:
        at = next_multiple(interval_s)
        if at is None:
            return 0
        number += 1
        say({"begin": number, "at": at})
        sick = read_all(nvml, head, readers, constants)
        if sick is not None:
            last = sick["errors"][-1]
            message = f"GPU {sick['index']}: {last['message']}"
            state = f"gpu_{sick['state']}"
            say({"error": {"state": state, "code": last["code"], "message": message}})
            return 1


def next_multiple(interval_s: float) -> float | None:
    """Wait for the wall clock's next multiple; None when the input has ended before."""
    due = 0.0
    while True:
        now = time.time()
        if due and now >= due:
            return max(due, now // interval_s * interval_s)
        if not 0 <= due - now <= interval_s:  # the first time, or the clock was set
            due = (now // interval_s + 1) * interval_s
        ready, _writable, _odd = select.select([0], [], [], max(0.0, due - now))
        if ready and not os.read(0, 4096):
            return None


def main(arguments: list[str] | None = None) -> int:
    """Read everything; 0 when NVML answered, 1 when it did not, 3 without its Python binding."""
    parser = argparse.ArgumentParser(description="Print the GPUs' readings as JSON lines.")
    most = "full" if "full" in SETS else "sample"
    parser.add_argument("--set", choices=sorted(SETS), default=most, help="what to read")
    parser.add_argument("--interval", type=float, help="seconds between blocks, without end")
    options = parser.parse_args(arguments)
    if options.interval is not None and options.interval <= 0:
        parser.error("--interval: wanted more than 0 seconds")
    try:
        import pynvml as nvml  # noqa: PLC0415 - its absence is an answer, not a crash
    except ImportError as error:
        say({"error": {"state": "no_binding", "message": f"{sys.executable}: {error}"}})
        return 3
    readers = SETS[options.set]
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
        about = globals().get("about_binding", dict)  # from the text before this one
        head = {"driver": read_driver(nvml), "count": count, **about()}
        if options.interval is not None:
            return keep_reading(nvml, head, readers, options.interval)
        read_all(nvml, head, readers, [{} for _index in range(count)])
    except nvml.NVMLError as error:
        state = STATES.get(error.value, "error")
        say({"error": {"state": state, "code": error.value, "message": str(error)}})
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # nothing is left to do, and a sick driver may hang in its exit handlers
