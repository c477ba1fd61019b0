# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Prometheus textfile of a sample."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest

# Metric, field: names and units of nvidia_gpu_exporter, which the well-known dashboards read.
GAUGES: tuple[tuple[str, str], ...] = (
    ("nvidia_smi_temperature_gpu", "temperature_c"),
    ("nvidia_smi_utilization_gpu_ratio", "utilization_gpu_ratio"),
    ("nvidia_smi_utilization_memory_ratio", "utilization_memory_ratio"),
    ("nvidia_smi_memory_total_bytes", "memory_total_bytes"),
    ("nvidia_smi_memory_used_bytes", "memory_used_bytes"),
    ("nvidia_smi_memory_free_bytes", "memory_free_bytes"),
    ("nvidia_smi_memory_reserved_bytes", "memory_reserved_bytes"),
    ("nvidia_smi_power_draw_watts", "power_draw_watts"),
    ("nvidia_smi_enforced_power_limit_watts", "power_limit_watts"),
    ("nvidia_smi_power_default_limit_watts", "power_default_limit_watts"),
    ("nvidia_smi_clocks_current_graphics_clock_hz", "clock_graphics_hz"),
    ("nvidia_smi_clocks_current_sm_clock_hz", "clock_sm_hz"),
    ("nvidia_smi_clocks_current_memory_clock_hz", "clock_memory_hz"),
    ("nvidia_smi_fan_speed_ratio", "fan_speed_ratio"),
    ("nvidia_smi_pstate", "performance_state"),
    ("nvidia_smi_persistence_mode", "persistence_mode"),
    ("nvidia_smi_pcie_link_width_current", "pcie_link_width_current"),
    ("nvidia_smi_pcie_link_width_max", "pcie_link_width_max"),
    ("nvidia_smi_pcie_link_gen_current", "pcie_link_gen_current"),
    ("nvidia_smi_pcie_link_gen_max", "pcie_link_gen_max"),
    ("nvidia_smi_ecc_errors_corrected_volatile_total", "ecc_errors_corrected"),
    ("nvidia_smi_ecc_errors_uncorrected_volatile_total", "ecc_errors_uncorrected"),
    ("nvidia_smi_remapped_rows_uncorrectable", "remapped_rows_uncorrectable"),
)
EVENT_REASONS = (
    "gpu_idle",
    "sw_power_cap",
    "hw_slowdown",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
)
OWN = "hx_infra_gpu_"
LAST_SUCCESS = f"{OWN}last_success_timestamp_seconds"


def render_metrics(
    sample: dict[str, Any] | None, state: str, code: int | None, last_success: float, seconds: float
) -> bytes:
    """Render the textfile; series of a GPU that did not answer are absent, never 0.

    Args:
        sample: the readings; None when there are none.
        state: ``ok``, or the name of what went wrong.
        code: NVML's return code, where it gave one.
        last_success: when a collection last worked, in seconds since 1970; 0 for never.
        seconds: how long the collection took.
    """
    registry = CollectorRegistry()

    def own(name: str, text: str, value: float) -> None:
        Gauge(OWN + name, text, registry=registry).set(value)

    own("collect_success", "Whether the last collection worked.", state == "ok")
    own("collect_duration_seconds", "How long the last collection took.", seconds)
    if last_success:
        own("last_success_timestamp_seconds", "When a collection last worked.", last_success)
    if code is not None:
        own("nvml_return_code", "NVML's return code, 0 when it worked.", code)
    present = Gauge(f"{OWN}collect_state", "1 for the present state.", ["state"], registry=registry)
    present.labels(state).set(1)
    if sample is not None:
        _gpu_metrics(registry, sample)
    return generate_latest(registry)


def _gpu_metrics(registry: CollectorRegistry, sample: dict[str, Any]) -> None:
    gpus = sample["gpus"]
    Gauge(f"{OWN}count", "GPUs that the driver lists.", registry=registry).set(len(gpus))
    working = Gauge(f"{OWN}state_ok", "Whether the GPU answers.", ["index"], registry=registry)
    for gpu in gpus:
        working.labels(gpu["index"]).set(gpu["state"] == "ok")
    readable = [gpu for gpu in gpus if gpu["state"] == "ok" and gpu.get("uuid")]
    labels = ["uuid", "index", "name", "pci_bus_id", "driver_version", "cuda_version"]
    info = Gauge(
        "nvidia_smi_gpu_info", "1, labelled by what the GPU is.", labels, registry=registry
    )
    for gpu in readable:
        driver = sample["driver"]
        info.labels(
            label(gpu),
            gpu["index"],
            gpu.get("name", ""),
            gpu.get("pci_bus_id", ""),
            driver.get("version", ""),
            driver.get("cuda_version", ""),
        ).set(1)
    series: dict[str, dict[str, float]] = {}
    for gpu in readable:
        for metric, field in GAUGES:
            if gpu.get(field) is not None:
                series.setdefault(metric, {})[label(gpu)] = float(gpu[field])
        if "processes" in gpu:
            count = sum("C" in process["type"] for process in gpu["processes"])
            series.setdefault("nvidia_smi_compute_apps", {})[label(gpu)] = count
        for reason in EVENT_REASONS if "clocks_event_reasons" in gpu else ():
            metric = f"nvidia_smi_clocks_event_reasons_{reason}"
            series.setdefault(metric, {})[label(gpu)] = reason in gpu["clocks_event_reasons"]
    for metric, values in series.items():
        gauge = Gauge(metric, metric, ["uuid"], registry=registry)
        for uuid, value in values.items():
            gauge.labels(uuid).set(value)


def label(gpu: dict[str, Any]) -> str:
    """Return the UUID as the exporter has it: without the prefix."""
    return str(gpu["uuid"]).lower().removeprefix("gpu-")


def previous_success(path: Path) -> tuple[float, bool | None]:
    """Return when a collection last worked and whether the latest did, from the last textfile."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return 0.0, None
    stamp = re.search(rf"^{LAST_SUCCESS} (\S+)$", text, re.MULTILINE)
    success = re.search(rf"^{OWN}collect_success (\S+)$", text, re.MULTILINE)
    return float(stamp[1]) if stamp else 0.0, float(success[1]) == 1 if success else None
