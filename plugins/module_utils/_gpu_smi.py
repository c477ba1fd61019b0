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
# words in place of a value, with or without brackets
ABSENT = re.compile(
    r"(|n/a|none|not (supported|found|available)|err!|unknown error|gpu is lost|gpu requires reset"
    r"|insufficient permissions|requested functionality has been deprecated)$",
    re.IGNORECASE,
)
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
    facts["errors"] = []
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
    elif outcome.rc != 0 or not report:
        return _failed(facts, _state(outcome.rc, said), _first_line(said), outcome.rc)
    elif not facts["gpus"]:
        return _failed(facts, "no_gpu", "the driver sees no GPU")
    return facts


def parse_xml(text: str) -> dict[str, Any]:
    """Parse the report; a value that nvidia-smi does not know is absent from the result."""
    start = text.index("<nvidia_smi_log>")  # warnings may come first; no document type is needed
    try:
        root = ElementTree.fromstring(text[start:].rstrip("\n\0 "))  # noqa: S314 - local tool
    except ElementTree.ParseError as error:
        raise HostError(f"nvidia-smi printed XML that cannot be read: {error}") from error
    driver = {}
    for key, tag in (("version", "driver_version"), ("cuda_version", "cuda_version")):
        value = _text(root, tag)
        if value is not None:
            driver[key] = value
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


def _enabled(text: str | None) -> bool | None:
    return {"enabled": True, "disabled": False, "yes": True, "no": False}.get((text or "").lower())


def _pstate(text: str | None) -> int | None:
    return int(text[1:]) if text and re.fullmatch(r"P\d+", text) else None


def _mode(text: str | None) -> str | None:
    return text.lower().replace(" ", "_") if text else None


def _same(text: str | None) -> str | None:
    return text


# field, paths in the report (newest first), how to read it
FIELDS: tuple[tuple[str, tuple[str, ...], Callable[[str | None], Any]], ...] = (
    ("name", ("product_name",), _same),
    ("uuid", ("uuid",), _same),
    ("pci_bus_id", ("pci/pci_bus_id",), _same),
    ("minor_number", ("minor_number",), _whole),
    ("vbios_version", ("vbios_version",), _same),
    ("memory_total_bytes", ("fb_memory_usage/total",), _whole),
    ("memory_reserved_bytes", ("fb_memory_usage/reserved",), _whole),
    ("memory_used_bytes", ("fb_memory_usage/used",), _whole),
    ("memory_free_bytes", ("fb_memory_usage/free",), _whole),
    ("utilization_gpu_ratio", ("utilization/gpu_util",), number),
    ("utilization_memory_ratio", ("utilization/memory_util",), number),
    ("temperature_c", ("temperature/gpu_temp",), _whole),
    ("temperature_shutdown_c", ("temperature/gpu_temp_max_threshold",), _whole),
    ("temperature_slowdown_c", ("temperature/gpu_temp_slow_threshold",), _whole),
    ("temperature_max_c", ("temperature/gpu_temp_max_gpu_threshold",), _whole),
    ("temperature_margin_c", ("temperature/gpu_temp_tlimit",), _whole),
    (
        "temperature_slowdown_margin_c",
        ("temperature/gpu_temp_slow_tlimit_threshold",),
        _whole,
    ),
    (
        "power_draw_watts",
        (
            "gpu_power_readings/average_power_draw",
            "gpu_power_readings/power_draw",
            "power_readings/power_draw",
        ),
        number,
    ),
    (
        "power_limit_watts",
        ("gpu_power_readings/current_power_limit", "power_readings/enforced_power_limit"),
        number,
    ),
    (
        "power_default_limit_watts",
        ("gpu_power_readings/default_power_limit", "power_readings/default_power_limit"),
        number,
    ),
    ("clock_graphics_hz", ("clocks/graphics_clock",), _whole),
    ("clock_sm_hz", ("clocks/sm_clock",), _whole),
    ("clock_memory_hz", ("clocks/mem_clock",), _whole),
    ("performance_state", ("performance_state",), _pstate),
    ("fan_speed_ratio", ("fan_speed",), number),
    ("pcie_link_width_current", ("pci/pci_gpu_link_info/link_widths/current_link_width",), _whole),
    ("pcie_link_width_max", ("pci/pci_gpu_link_info/link_widths/max_link_width",), _whole),
    ("pcie_link_gen_current", ("pci/pci_gpu_link_info/pcie_gen/current_link_gen",), _whole),
    ("pcie_link_gen_max", ("pci/pci_gpu_link_info/pcie_gen/max_link_gen",), _whole),
    ("ecc_mode", ("ecc_mode/current_ecc",), _enabled),
    ("ecc_mode_pending", ("ecc_mode/pending_ecc",), _enabled),
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
    ("persistence_mode", ("persistence_mode",), _enabled),
    ("compute_mode", ("compute_mode",), _mode),
)
RECOVERY_ACTIONS = {"none": 0, "reset": 1, "reboot": 2, "drain p2p": 3, "drain and reset": 4}
ECC_SUMS = (
    ("ecc_errors_corrected", ("sram_correctable", "dram_correctable")),
    (
        "ecc_errors_uncorrected",
        ("sram_uncorrectable_parity", "sram_uncorrectable_secded", "dram_uncorrectable"),
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
        for path in paths:
            value = read(_text(node, path))
            if value is not None:
                gpu[field] = value
                break
    for field, tags in ECC_SUMS:
        counts = [_whole(_text(node, f"ecc_errors/volatile/{tag}")) for tag in tags]
        known = [count for count in counts if count is not None]
        if known:
            gpu[field] = sum(known)
    action = node.findtext("gpu_recovery_action", "").strip().lower()
    if action in RECOVERY_ACTIONS:
        gpu["recovery_action"] = RECOVERY_ACTIONS[action]
    reasons = _clock_events(node)
    if reasons is not None:
        gpu["clocks_event_reasons"] = reasons
    processes = node.find("processes")
    if processes is not None and (processes.text or "").strip().lower() != "n/a":
        gpu["processes"] = [_process(entry) for entry in processes.findall("process_info")]
    return gpu


def _clock_events(node: ElementTree.Element) -> list[str] | None:
    for word in ("event", "throttle"):  # renamed in the 535 branch
        parent = node.find(f"clocks_{word}_reasons")
        if parent is not None:
            prefix = f"clocks_{word}_reason_"
            return [
                child.tag[len(prefix) :]
                for child in parent
                if (child.text or "").strip().lower() == "active"
            ]
    return None


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
        lost["pci_bus_id"] = bus.upper().rjust(16, "0")  # domains have four digits in messages
    for gpu in gpus:
        if bus and gpu.get("pci_bus_id", "").upper() == lost["pci_bus_id"]:
            gpu.update(lost)
            return
    index = match.group("index")
    gpus.append({"index": int(index) if index else len(gpus), **lost})


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
