# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""GPU facts from ``nvidia-smi -q -x``, in the units and names that the NVML reader uses."""

from __future__ import annotations

import re
from typing import Any, Callable
from xml.etree import ElementTree  # nothing but the local driver tool writes what is parsed

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_nvml_child import CLOCK_EVENTS
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import Outcome

SOURCE = "nvidia-smi"

# nvidia-smi ends with the code that NVML gave it; the texts serve where a wrapper hides it.
STATES = {9: "driver_not_loaded", 12: "library_missing", 18: "version_mismatch", 6: "no_gpu"}
TEXTS = (
    ("version mismatch", "version_mismatch"),
    ("couldn't communicate with the nvidia driver", "driver_not_loaded"),
    ("driver not loaded", "driver_not_loaded"),
    ("couldn't find libnvidia-ml", "library_missing"),
    ("nvml shared library not found", "library_missing"),
    ("no devices were found", "no_gpu"),
    ("insufficient permissions", "no_permission"),
)
# "... for GPU0: 0000:02:00.0: GPU is lost", before the 520 branch without the index
LOST = re.compile(
    r"device handle for GPU\s*(?:(?P<index>\d{1,3})(?=:\s):\s*)?"
    r"(?P<bus>[0-9A-F]{4,8}:[0-9A-F]{2}:[0-9A-F]{2}\.[0-7])?.{0,10}?GPU is lost",
    re.IGNORECASE | re.DOTALL,
)
LOST_TEXT = "gpu is lost"
INFOROM = re.compile(r"infoROM is corrupted at gpu\s+([0-9A-F:.]+)", re.IGNORECASE)
INFOROM_CORRUPT = 14  # exit status of a report that is whole all the same
# words in place of a value, with or without brackets
ABSENT = re.compile(
    r"(|n/a|none|not (supported|found|available)|err!|unknown error|gpu is lost|gpu requires reset"
    r"|insufficient permissions|requested functionality has been deprecated)$",
    re.IGNORECASE,
)
# such a word in place of a value that the card should give
UNREADABLE = re.compile(r"(err!|unknown error)$", re.IGNORECASE)
RESET_TEXT = "gpu requires reset"
UNITS = {
    "MiB": 1024 * 1024,
    "KiB": 1024,
    "GiB": 1024**3,
    "B": 1,
    "MHz": 1_000_000,
    "W": 1,
    "C": 1,
    "%": 0.01,
    "us": 1e-6,
    "x": 1,
    "": 1,
}
NUMBER = re.compile(r"^(-?\d+(?:\.\d+)?)\s*([A-Za-z%]*)$")

Run = Callable[[list[str], float], Outcome]
Gpu = dict[str, Any]


def read_smi(program: str, timeout_s: float, run: Run) -> dict[str, Any]:
    """Run nvidia-smi and return the facts."""
    return facts_from_outcome(run([program, "-q", "-x"], timeout_s), timeout_s)


def facts_from_outcome(outcome: Outcome, timeout_s: float) -> dict[str, Any]:
    """Turn an ended (or killed) run of ``nvidia-smi -q -x`` into facts."""
    facts: dict[str, Any] = {"state": "ok", "source": SOURCE, "driver": {}, "gpus": []}
    facts["errors"], facts["notes"] = [], []
    said = f"{outcome.out}\n{outcome.err}"
    report = "<nvidia_smi_log>" in outcome.out
    if outcome.timed_out:
        return _failed(facts, "timeout", f"nvidia-smi did not answer within {timeout_s:g} s")
    if report:
        try:
            facts.update(parse_xml(outcome.out))
        except HostError as error:
            return _failed(facts, "error", str(error), outcome.rc)
    lost = LOST.search(said)
    if lost:
        _mark_lost(facts["gpus"], lost)
    elif outcome.rc not in (0, INFOROM_CORRUPT) or not report:
        return _failed(facts, _state(outcome.rc, said), _first_line(said), outcome.rc)
    elif not facts["gpus"]:
        return _failed(facts, "no_gpu", "the driver sees no GPU")
    for bus in INFOROM.findall(said):
        for gpu in facts["gpus"]:
            if _same_bus(gpu.get("pci_bus_id", ""), bus):
                gpu["inforom_valid"] = False
    return facts


def parse_xml(text: str) -> dict[str, Any]:
    """Parse the report; a value that nvidia-smi does not know is absent from the result."""
    # warnings may come before and after it; the document type is not needed
    start, end = text.index("<nvidia_smi_log>"), text.rfind("</nvidia_smi_log>")
    report = text[start:] if end < 0 else text[start : end + len("</nvidia_smi_log>")]
    try:
        root = ElementTree.fromstring(report)  # noqa: S314 - what a program of this host printed
    except ElementTree.ParseError as error:
        raise HostError(f"nvidia-smi printed XML that cannot be read: {error}") from error
    driver = {}
    for key, tags in (
        ("version", ("driver_version", "kmd_version")),  # renamed in the 610 branch
        ("cuda_version", ("cuda_version", "cuda_umd_version")),
    ):
        known = [value for value in (_text(root, tag) for tag in tags) if value is not None]
        if known:
            driver[key] = known[0].split()[0]  # a remark may follow
    gpus = [_gpu(node, index) for index, node in enumerate(root.findall("gpu"))]
    return {"driver": driver, "gpus": gpus}


def number(text: str | None) -> float | None:
    """Read a value with its unit into base units: bytes, hertz, watts, ratios, degrees."""
    match = NUMBER.match((text or "").strip())
    if match is None or match.group(2) not in UNITS:
        return None
    value, scale = float(match.group(1)), UNITS[match.group(2)]
    return round(value * scale, 6)


def _whole(text: str | None) -> int | None:
    value = number(text)
    return None if value is None else int(value)


def _positive(text: str | None) -> int | None:
    return _whole(text) or None


def _nanoseconds(text: str | None) -> int | None:
    value = number(text)
    return None if value is None else round(value * 1e6) * 1000  # microseconds are all it tells


def _enabled(text: str | None) -> bool | None:
    return {"enabled": True, "disabled": False, "yes": True, "no": False}.get((text or "").lower())


def _pstate(text: str | None) -> int | None:
    return int(text[1:]) if text and re.fullmatch(r"P\d+", text) else None


def _mode(text: str | None) -> str | None:
    return text.lower().replace(" ", "_") if text else None


def _same(text: str | None) -> str | None:
    return text


_LINK = "pci/pci_gpu_link_info"
_TIMES = "clocks_event_reasons_counters/clocks_event_reasons_counters"
# As today, in old branches, and where the 610 branch nests the limits.
_POWER = ("gpu_power_readings", "power_readings", "gpu_power_readings/gpu_ceiling_power_limit")


def _power(*tags: str) -> tuple[str, ...]:
    return tuple(f"{group}/{tag}" for tag in tags for group in _POWER)


# field, paths in the report (what stands first is preferred), how to read it
FIELDS: tuple[tuple[str, tuple[str, ...], Callable[[str | None], Any]], ...] = (
    ("name", ("product_name",), _same),
    ("uuid", ("uuid",), _same),
    ("pci_bus_id", ("pci/pci_bus_id",), _same),
    ("minor_number", ("minor_number",), _whole),
    ("serial", ("serial",), _same),
    ("brand", ("product_brand",), _same),
    ("architecture", ("product_architecture",), _same),
    ("vbios_version", ("vbios_version",), _same),
    ("memory_total_bytes", ("fb_memory_usage/total",), _whole),
    ("memory_reserved_bytes", ("fb_memory_usage/reserved",), _whole),
    ("memory_used_bytes", ("fb_memory_usage/used",), _whole),
    ("memory_free_bytes", ("fb_memory_usage/free",), _whole),
    ("bar1_total_bytes", ("bar1_memory_usage/total",), _whole),
    ("bar1_used_bytes", ("bar1_memory_usage/used",), _whole),
    ("utilization_gpu_ratio", ("utilization/gpu_util",), number),
    ("utilization_memory_ratio", ("utilization/memory_util",), number),
    ("encoder_ratio", ("utilization/encoder_util",), number),
    ("decoder_ratio", ("utilization/decoder_util",), number),
    ("temperature_c", ("temperature/gpu_temp",), _whole),
    ("temperature_shutdown_c", ("temperature/gpu_temp_max_threshold",), _positive),
    ("temperature_slowdown_c", ("temperature/gpu_temp_slow_threshold",), _positive),
    ("temperature_max_c", ("temperature/gpu_temp_max_gpu_threshold",), _positive),
    ("temperature_memory_c", ("temperature/memory_temp",), _positive),
    ("temperature_memory_max_c", ("temperature/gpu_temp_max_mem_threshold",), _positive),
    ("temperature_margin_c", ("temperature/gpu_temp_tlimit",), _whole),
    ("temperature_shutdown_margin_c", ("temperature/gpu_temp_max_tlimit_threshold",), _whole),
    ("temperature_slowdown_margin_c", ("temperature/gpu_temp_slow_tlimit_threshold",), _whole),
    ("temperature_max_margin_c", ("temperature/gpu_temp_max_gpu_tlimit_threshold",), _whole),
    # cards before the Ampere generation have no average
    ("power_draw_watts", _power("average_power_draw", "instant_power_draw", "power_draw"), number),
    ("power_limit_watts", _power("current_power_limit", "enforced_power_limit"), number),
    ("power_management_limit_watts", _power("requested_power_limit", "power_limit"), number),
    ("power_default_limit_watts", _power("default_power_limit"), number),
    ("power_min_limit_watts", _power("min_power_limit"), number),
    ("power_max_limit_watts", _power("max_power_limit"), number),
    ("clock_graphics_hz", ("clocks/graphics_clock",), _whole),
    ("clock_sm_hz", ("clocks/sm_clock",), _whole),
    ("clock_memory_hz", ("clocks/mem_clock",), _whole),
    ("clock_graphics_max_hz", ("max_clocks/graphics_clock",), _whole),
    ("clock_sm_max_hz", ("max_clocks/sm_clock",), _whole),
    ("clock_memory_max_hz", ("max_clocks/mem_clock",), _whole),
    ("performance_state", ("performance_state",), _pstate),
    ("fan_speed_ratio", ("fan_speed",), number),
    ("pcie_link_width_current", (f"{_LINK}/link_widths/current_link_width",), _whole),
    ("pcie_link_width_max", (f"{_LINK}/link_widths/max_link_width",), _whole),
    ("pcie_link_gen_current", (f"{_LINK}/pcie_gen/current_link_gen",), _whole),
    ("pcie_link_gen_max", (f"{_LINK}/pcie_gen/max_link_gen",), _whole),
    ("pcie_link_gen_gpu_max", (f"{_LINK}/pcie_gen/max_device_link_gen",), _whole),
    ("pcie_replay_count", ("pci/replay_counter",), _whole),
    ("throttle_ns.sw_power_cap", (f"{_TIMES}_sw_power_cap",), _nanoseconds),
    ("throttle_ns.sw_thermal_slowdown", (f"{_TIMES}_sw_therm_slowdown",), _nanoseconds),
    ("throttle_ns.hw_thermal_slowdown", (f"{_TIMES}_hw_therm_slowdown",), _nanoseconds),
    ("throttle_ns.hw_power_brake_slowdown", (f"{_TIMES}_hw_power_brake",), _nanoseconds),
    ("ecc_mode", ("ecc_mode/current_ecc",), _enabled),
    ("ecc_mode_pending", ("ecc_mode/pending_ecc",), _enabled),
    ("sram_threshold_exceeded", ("ecc_errors/aggregate/sram_threshold_exceeded",), _enabled),
    ("unrepairable_memory", ("ecc_errors/unrepairable_memory",), _enabled),
    (
        "retired_pages_single_bit",
        ("retired_pages/multiple_single_bit_retirement/retired_count",),
        _whole,
    ),
    ("retired_pages_double_bit", ("retired_pages/double_bit_retirement/retired_count",), _whole),
    (
        "retired_pages_pending",
        ("retired_pages/pending_retirement", "retired_pages/pending_blacklist"),
        _enabled,
    ),
    ("remapped_rows_correctable", ("remapped_rows/remapped_row_corr",), _whole),
    ("remapped_rows_uncorrectable", ("remapped_rows/remapped_row_unc",), _whole),
    ("remapped_rows_pending", ("remapped_rows/remapped_row_pending",), _enabled),
    ("remapped_rows_failure", ("remapped_rows/remapped_row_failure",), _enabled),
    ("mig_mode", ("mig_mode/current_mig",), _enabled),
    ("mig_mode_pending", ("mig_mode/pending_mig",), _enabled),
    ("persistence_mode", ("persistence_mode",), _enabled),
    ("compute_mode", ("compute_mode",), _mode),
)
REASONS = {"display_clocks_setting": "display_clock_setting"}  # where NVML's word differs
# nvmlDeviceGpuRecoveryAction_t; how nvidia-smi spells those after 4 is not recorded anywhere.
RECOVERY_ACTIONS = {
    "none": 0,
    "reset": 1,
    "reboot": 2,
    "drain p2p": 3,
    "drain and reset": 4,
    "recover imex domain": 5,
    "bus reset": 6,
    "system reboot": 7,
}
ECC_SUMS = (
    ("ecc_errors_corrected", ("sram_correctable", "dram_correctable")),
    (
        "ecc_errors_uncorrected",
        (
            "sram_uncorrectable",  # of the Turing generation, which doesn't tell the two kinds
            "sram_uncorrectable_parity",
            "sram_uncorrectable_secded",
            "dram_uncorrectable",
        ),
    ),
)


def _gpu(node: ElementTree.Element, index: int) -> Gpu:
    gpu: Gpu = {"index": index, "state": "ok", "errors": []}
    texts = {(element.text or "").strip(" []\n\t").lower() for element in node.iter()}
    for text, state in ((LOST_TEXT, "lost"), (RESET_TEXT, "reset_required")):
        if any(text in found for found in texts):
            gpu["state"] = state
            gpu["errors"].append({"what": "gpu", "message": f"nvidia-smi says: {text}"})
    for field, paths, read in FIELDS:
        key, _dot, inner = field.partition(".")
        for path in paths:
            value = read(_text(node, path))
            if value is not None:
                target = gpu.setdefault(key, {}) if inner else gpu
                target[inner or key] = value
                break
        else:
            gpu["errors"] += _unreadable(node, field, paths)
    for field, tags in ECC_SUMS:
        counts = [_whole(_text(node, f"ecc_errors/volatile/{tag}")) for tag in tags]
        known = [count for count in counts if count is not None]
        if known:
            gpu[field] = sum(known)
    if "temperature_slowdown_margin_c" in gpu or "temperature_slowdown_c" in gpu:
        gpu["temperature_tlimit_supported"] = "temperature_slowdown_margin_c" in gpu
    _read_recovery_action(node, gpu)
    reasons = _clock_events(node)
    if reasons is not None:
        gpu["clocks_event_reasons"] = reasons
    processes = node.find("processes")
    if processes is not None and not (processes.text or "").strip():  # else a word in its place
        gpu["processes"] = [_process(entry) for entry in processes.findall("process_info")]
    return gpu


def _read_recovery_action(node: ElementTree.Element, gpu: Gpu) -> None:
    action = node.findtext("gpu_recovery_action", "").strip(" []").lower()
    if action in RECOVERY_ACTIONS:
        gpu["recovery_action"] = RECOVERY_ACTIONS[action]
    elif not ABSENT.match(action):
        message = f"nvidia-smi says {action!r}, which is not known"
        gpu["errors"].append({"what": "recovery_action", "message": message})


def _unreadable(
    node: ElementTree.Element, field: str, paths: tuple[str, ...]
) -> list[dict[str, Any]]:
    for path in paths:
        text = (node.findtext(path) or "").strip(" []\n\t")
        if UNREADABLE.match(text):
            return [{"what": field, "message": f"nvidia-smi says: {text}"}]
    return []


def _clock_events(node: ElementTree.Element) -> list[str] | None:
    for word in ("event", "throttle"):  # renamed in the 535 branch
        prefix = f"clocks_{word}_reason_"
        said = {
            child.tag[len(prefix) :]: (child.text or "").strip().lower()
            for child in node.findall(f"clocks_{word}_reasons/*")
        }
        if {"active", "not active"} & set(said.values()):
            active = [REASONS.get(name, name) for name, text in said.items() if text == "active"]
            return sorted(active, key=_bit)
    return None


def _bit(reason: str) -> int:
    return CLOCK_EVENTS.index(reason) if reason in CLOCK_EVENTS else len(CLOCK_EVENTS)


def _process(entry: ElementTree.Element) -> dict[str, Any]:
    process: dict[str, Any] = {"pid": _whole(_text(entry, "pid")) or 0}
    for field, tag, read in (
        ("type", "type", _same),
        ("name", "process_name", _same),
        ("memory_bytes", "used_memory", _whole),
    ):
        value = read(_text(entry, tag))
        if value is not None:
            process[field] = value
    return process


def _text(node: ElementTree.Element, path: str) -> str | None:
    found = node.find(path)
    text = "" if found is None else (found.text or "").strip()
    return None if ABSENT.match(text.strip("[]")) else text


def _mark_lost(gpus: list[Gpu], match: re.Match[str]) -> None:
    message = " ".join(match.group(0).split())
    lost: Gpu = {"state": "lost", "errors": [{"what": "gpu", "message": message}]}
    bus = match.group("bus")
    if bus:
        lost["pci_bus_id"] = _long_bus(bus)
    for gpu in gpus:
        if bus and _same_bus(gpu.get("pci_bus_id", ""), bus):
            gpu.update(lost)
            return
    index = match.group("index")
    gpus.append({"index": int(index) if index else len(gpus), **lost})


def _long_bus(bus: str) -> str:
    return bus.upper().rjust(16, "0")  # domains have four digits in messages


def _same_bus(one: str, other: str) -> bool:
    return _long_bus(one) == _long_bus(other)


def _state(rc: int | None, said: str) -> str:
    for text, state in TEXTS:
        if text in said.lower():
            return state
    return "no_reader" if rc == 127 else STATES.get(rc or 0, "error")


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else "it printed nothing"


def _failed(
    facts: dict[str, Any], state: str, message: str, rc: int | None = None
) -> dict[str, Any]:
    facts["state"] = state
    error = {"source": SOURCE, "state": state, "message": message}
    if rc is not None:
        error["code"] = rc
    facts["errors"].append(error)
    return facts
