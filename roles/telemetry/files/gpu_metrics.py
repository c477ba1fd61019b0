# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Prometheus textfile of a collection.

GPU series have the names, units and label of nvidia_gpu_exporter, so that its dashboards (14574,
25547) and its alerts work with them; what is our own begins with ``hx_infra_gpu_``. What a card
does not tell is absent, never 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gpu_reader import Sample

# Metric without its prefix, field of the reading, what nvidia-smi calls it.
GAUGES: tuple[tuple[str, str, str], ...] = (
    ("index", "index", "index"),
    ("temperature_gpu", "temperature_c", "temperature.gpu"),
    ("temperature_gpu_tlimit", "temperature_margin_c", "temperature.gpu.tlimit"),
    ("temperature_memory", "temperature_memory_c", "temperature.memory"),
    ("utilization_gpu_ratio", "utilization_gpu_ratio", "utilization.gpu [%]"),
    ("utilization_memory_ratio", "utilization_memory_ratio", "utilization.memory [%]"),
    ("utilization_encoder_ratio", "encoder_ratio", "utilization.encoder [%]"),
    ("utilization_decoder_ratio", "decoder_ratio", "utilization.decoder [%]"),
    ("memory_total_bytes", "memory_total_bytes", "memory.total [MiB]"),
    ("memory_used_bytes", "memory_used_bytes", "memory.used [MiB]"),
    ("memory_free_bytes", "memory_free_bytes", "memory.free [MiB]"),
    ("memory_reserved_bytes", "memory_reserved_bytes", "memory.reserved [MiB]"),
    ("power_draw_watts", "power_draw_watts", "power.draw [W]"),
    ("enforced_power_limit_watts", "power_limit_watts", "enforced.power.limit [W]"),
    ("power_limit_watts", "power_management_limit_watts", "power.limit [W]"),
    ("power_default_limit_watts", "power_default_limit_watts", "power.default_limit [W]"),
    ("power_min_limit_watts", "power_min_limit_watts", "power.min_limit [W]"),
    ("power_max_limit_watts", "power_max_limit_watts", "power.max_limit [W]"),
    ("clocks_current_graphics_clock_hz", "clock_graphics_hz", "clocks.current.graphics [MHz]"),
    ("clocks_current_sm_clock_hz", "clock_sm_hz", "clocks.current.sm [MHz]"),
    ("clocks_current_memory_clock_hz", "clock_memory_hz", "clocks.current.memory [MHz]"),
    ("clocks_max_graphics_clock_hz", "clock_graphics_max_hz", "clocks.max.graphics [MHz]"),
    ("clocks_max_sm_clock_hz", "clock_sm_max_hz", "clocks.max.sm [MHz]"),
    ("clocks_max_memory_clock_hz", "clock_memory_max_hz", "clocks.max.memory [MHz]"),
    ("fan_speed_ratio", "fan_speed_ratio", "fan.speed [%]"),
    ("pstate", "performance_state", "pstate"),
    ("persistence_mode", "persistence_mode", "persistence_mode"),
    ("pcie_link_width_current", "pcie_link_width_current", "pcie.link.width.current"),
    ("pcie_link_width_max", "pcie_link_width_max", "pcie.link.width.max"),
    ("pcie_link_gen_current", "pcie_link_gen_current", "pcie.link.gen.current"),
    ("pcie_link_gen_max", "pcie_link_gen_max", "pcie.link.gen.max"),
    ("pcie_link_gen_gpumax", "pcie_link_gen_gpu_max", "pcie.link.gen.gpumax"),
    ("ecc_mode_current", "ecc_mode", "ecc.mode.current"),
    ("ecc_mode_pending", "ecc_mode_pending", "ecc.mode.pending"),
    (
        "ecc_errors_corrected_volatile_total",
        "ecc_errors_corrected",
        "ecc.errors.corrected.volatile.total",
    ),
    (
        "ecc_errors_uncorrected_volatile_total",
        "ecc_errors_uncorrected",
        "ecc.errors.uncorrected.volatile.total",
    ),
    ("remapped_rows_correctable", "remapped_rows_correctable", "remapped_rows.correctable"),
    ("remapped_rows_uncorrectable", "remapped_rows_uncorrectable", "remapped_rows.uncorrectable"),
    ("remapped_rows_pending", "remapped_rows_pending", "remapped_rows.pending"),
    ("remapped_rows_failure", "remapped_rows_failure", "remapped_rows.failure"),
    ("gpu_recovery_action", "recovery_action", "gpu_recovery_action"),
)
# Time for which the clocks were held down since the driver was loaded, from nanoseconds.
HELD_DOWN = (
    "sw_power_cap",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
    "sw_thermal_slowdown",
)
# What holds the clocks down: the names and bits of nvmlClocksEventReason in nvml.h.
EVENT_REASONS: dict[str, int] = {
    "gpu_idle": 0x1,
    "applications_clocks_setting": 0x2,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
    "display_clock_setting": 0x100,
    "board_limit": 0x200,
    "reliability": 0x400,
}
# Those that nvidia_gpu_exporter has a series for.
EXPORTED_REASONS = tuple(EVENT_REASONS)[:8]
COMPUTE_MODES = {"default": 0, "exclusive_thread": 1, "prohibited": 2, "exclusive_process": 3}
SMI, OWN = "nvidia_smi_", "hx_infra_gpu_"
INFO_LABELS = (
    ("index", "index"),
    ("name", "name"),
    ("pci_bus_id", "pci_bus_id"),
    ("vbios_version", "vbios_version"),
    ("serial", "serial"),
    ("compute_cap", "compute_capability"),
)


class Xid(NamedTuple):
    """How often a GPU has reported an Xid, and when last, in seconds since 1970."""

    pci_bus_id: str
    xid: int
    count: int
    last: float


class Account(NamedTuple):
    """What the collector tells of itself.

    Times are in seconds, points in time since 1970. ``xids_read`` is None where it doesn't look
    for Xids; ``uuids`` has the label of every GPU that was seen, by its address; ``cards`` has
    every GPU that answered once and wasn't forgotten since, by its label.
    """

    state: str
    code: int | None
    seconds: float
    interval_s: float
    last_run: float
    last_success: float
    failures: int
    restarts: dict[str, int]
    xids: list[Xid]
    xids_read: bool | None
    uuids: dict[str, str]
    cards: dict[str, dict[str, Any]]


class Text:
    """Families of series in Prometheus' text format 0.0.4, in the order of their making."""

    def __init__(self) -> None:
        self._families: dict[str, list[str]] = {}

    def add(
        self,
        name: str,
        about: str,
        value: float,
        labels: dict[str, Any] | None = None,
        kind: str = "gauge",
    ) -> None:
        """Add a series; the family's first one says what it is about."""
        about = about.replace("\\", r"\\").replace("\n", r"\n")
        lines = self._families.setdefault(name, [f"# HELP {name} {about}", f"# TYPE {name} {kind}"])
        pairs = ",".join(f'{key}="{_quoted(text)}"' for key, text in (labels or {}).items())
        lines.append(f"{name}{{{pairs}}} {float(value)!r}" if pairs else f"{name} {float(value)!r}")

    def render(self) -> bytes:
        """Return the text."""
        lines = (line for family in self._families.values() for line in family)
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _quoted(text: Any) -> str:
    return str(text).replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def label(gpu: dict[str, Any]) -> str:
    """Return the UUID as the exporter has it: without the prefix."""
    return label_of(str(gpu["uuid"]))


def label_of(uuid: str) -> str:
    """Return a UUID, with or without its prefix, as the exporter has it."""
    return uuid.lower().removeprefix("gpu-")


def readable(sample: Sample | None) -> list[dict[str, Any]]:
    """Return the GPUs that answered and can be told apart."""
    gpus = sample.gpus if sample else []
    return [gpu for gpu in gpus if gpu["state"] == "ok" and gpu.get("uuid")]


def render_metrics(sample: Sample | None, account: Account) -> bytes:
    """Return the textfile's text; without a sample it has no series of GPUs."""
    text = Text()
    _about_collection(text, sample, account)
    gpus = readable(sample)
    for gpu in gpus:
        uuid = {"uuid": label(gpu)}
        names = {name: gpu.get(field, "") for name, field in INFO_LABELS}
        versions = sample.driver if sample else {}
        names["driver_version"] = versions.get("version", "")
        names["cuda_version"] = versions.get("cuda_version", "")
        text.add(f"{SMI}gpu_info", "1, labelled by what the GPU is.", 1, {**uuid, **names})
    for gpu in gpus:
        _readings(text, gpu, {"uuid": label(gpu)})
    _about_xids(text, account)
    return text.render()


def _readings(text: Text, gpu: dict[str, Any], uuid: dict[str, Any]) -> None:
    for metric, field, about in GAUGES:
        if gpu.get(field) is not None:
            text.add(SMI + metric, about, gpu[field], uuid)
    if gpu.get("energy_joules") is not None:
        about = "Energy since the driver was loaded."
        text.add(f"{SMI}energy_joules_total", about, gpu["energy_joules"], uuid, "counter")
    if gpu.get("pcie_replay_count") is not None:
        about = "Packets that had to be sent again over PCI Express."
        text.add(f"{OWN}pcie_replays_total", about, gpu["pcie_replay_count"], uuid, "counter")
    if gpu.get("compute_mode") in COMPUTE_MODES:
        mode = COMPUTE_MODES[gpu["compute_mode"]]
        text.add(f"{SMI}compute_mode", "compute_mode", mode, uuid)
    if "processes" in gpu:
        count = sum("C" in process["type"] for process in gpu["processes"])
        text.add(f"{SMI}compute_apps", "Processes that compute on the GPU.", count, uuid)
    for reason in EXPORTED_REASONS if "clocks_event_reasons" in gpu else ():
        active = reason in gpu["clocks_event_reasons"]
        about = f"clocks_event_reasons.{reason}"
        text.add(f"{SMI}clocks_event_reasons_{reason}", about, active, uuid)
    if "clocks_event_reasons" in gpu:
        about, bits = "clocks_event_reasons.active", reason_bits(gpu)
        text.add(f"{SMI}clocks_event_reasons_active", about, bits, uuid)
    held_down = gpu.get("throttle_ns") or {}
    for reason in HELD_DOWN:
        if held_down.get(reason) is not None:
            name = f"{SMI}clocks_event_reasons_counters_{reason}_seconds"
            about = f"clocks_event_reasons_counters.{reason} [us]"
            text.add(name, about, held_down[reason] / 1e9, uuid)


def reason_bits(gpu: dict[str, Any]) -> int:
    """Return what holds the clocks down as the number that NVML gives."""
    return sum(EVENT_REASONS.get(reason, 0) for reason in gpu["clocks_event_reasons"])


def _about_collection(text: Text, sample: Sample | None, account: Account) -> None:
    def own(name: str, about: str, value: float, **more: Any) -> None:
        text.add(OWN + name, about, value, **more)

    worked = account.state == "ok"
    own("collect_success", "Whether the last collection worked.", worked)
    own("collect_state", "1 for the present state.", 1, labels={"state": account.state})
    own("collect_duration_seconds", "How long the last collection took.", account.seconds)
    own("collect_interval_seconds", "How often GPUs are read.", account.interval_s)
    if account.last_run:
        about = "When GPUs were last read, or tried to."
        own("last_collect_timestamp_seconds", about, account.last_run)
    about = "Collections that failed since the state file was made."
    own("collect_failures_total", about, account.failures, kind="counter")
    about = "Whether the most recent collection succeeded (1) or not (0)."
    text.add(f"{SMI}last_collect_success", about, worked)
    if account.last_success:
        about = "When a collection last worked."
        own("last_success_timestamp_seconds", about, account.last_success)
        name = f"{SMI}last_collect_success_timestamp_seconds"
        text.add(name, about, account.last_success)
    if account.code is not None:
        own("nvml_return_code", "NVML's return code, 0 when it worked.", account.code)
    for reason, count in account.restarts.items():
        about = "How often the reader was started anew since the service started."
        own("reader_restarts_total", about, count, labels={"reason": reason}, kind="counter")
    if sample is not None:
        own("count", "GPUs that the driver lists.", len(sample.gpus))
        for gpu in sample.gpus:
            answers = gpu["state"] == "ok"
            own("state_ok", "Whether the GPU answers.", answers, labels={"index": gpu["index"]})
        for card in account.cards.values():
            # Not by the index: the driver may list a lost GPU no more, and number the others anew.
            labels = {"gpu_uuid": card["uuid"], "pci_bus_id": card["pci_bus_id"]}
            about = "Whether a GPU that answered once answers now."
            own("present", about, card["present"], labels=labels)


def _about_xids(text: Text, account: Account) -> None:
    if account.xids_read is None:
        return
    about = "Whether the kernel's journal could be searched for Xid messages."
    text.add(f"{OWN}xid_read_success", about, account.xids_read)
    for xid in account.xids:
        # By the address, for a card that an Xid has killed tells its UUID no more.
        labels: dict[str, Any] = {"pci_bus_id": xid.pci_bus_id, "xid": xid.xid}
        about = "Xid messages of the driver, as far back as the history goes."
        text.add(f"{OWN}xid_total", about, xid.count, labels, "counter")
        about = "When the driver last reported the Xid."
        text.add(f"{OWN}xid_last_timestamp_seconds", about, xid.last, labels)
        if xid.pci_bus_id in account.uuids:
            labels = {"uuid": account.uuids[xid.pci_bus_id], "xid": xid.xid}
            about = "Xid messages of the driver."
            text.add(f"{SMI}xid_errors_total", about, xid.count, labels, "counter")
            about = "When the driver last reported the Xid."
            text.add(f"{SMI}xid_last_timestamp_seconds", about, xid.last, labels)
