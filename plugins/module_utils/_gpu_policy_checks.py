# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The checks of a GPU host as data: limit, severity, source, next action.

An inventory overrides them. The rules themselves are in ``_gpu_health*.py``, what a policy may
change is in ``_gpu_policy.py``.

Shortened sources: DCGM is NVIDIA/DCGM 4.6 (``modules/health/DcgmHealthWatch.cpp`` for the watches,
``nvvs/src/Software.cpp`` for the first level of its diagnosis), HV is NVIDIA Health Validation
(docs.nvidia.com/health-validation), gpud is leptonai/gpud, gcm is facebookresearch/gcm, NVML is
NVIDIA's header nvml.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

Limit = Union[int, float, str, tuple[str, ...], None]

INFO, WARN, CRITICAL = "INFO", "WARN", "CRITICAL"
HOST, GPU = "host", "gpu"

# From harmless to grave: of several actions the last one is the host's next action.
ACTIONS = ("none", "restart_app", "fix_config", "reset_gpu", "reboot", "service")
NONE, RESTART_APP, FIX_CONFIG, RESET_GPU, REBOOT, SERVICE = ACTIONS

# Environment variables that change how CUDA programs run (DCGM, checkForBadEnvVaribles).
BAD_ENVIRONMENT = (
    "NSIGHT_CUDA_DEBUGGER",
    "CUDA_INJECTION32_PATH",
    "CUDA_INJECTION64_PATH",
    "CUDA_AUTO_BOOST",
    "CUDA_ENABLE_COREDUMP_ON_EXCEPTION",
    "CUDA_COREDUMP_FILE",
    "CUDA_DEVICE_WAITS_ON_EXCEPTION",
    "CUDA_PROFILE",
    "COMPUTE_PROFILE",
    "OPENCL_PROFILE",
)


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: as verdicts, policies and acceptances call it.
        words: what is looked at.
        severity: what a miss means, ``INFO``, ``WARN`` or ``CRITICAL``.
        source: where the limit comes from, or who says that a miss matters.
        action: what to do next after a miss, one of ``ACTIONS``.
        remedy: the same as a sentence.
        about: ``host`` for one verdict per host, ``gpu`` for one per GPU.
        lesser: what a lesser degree of a miss means; empty when there is only one degree.
        limit: the default limit; None when the card or the declaration names it.
        kind: which limits a policy may set, a key of ``_gpu_policy.KINDS``; empty for none.
        choices: the words of a limit of the kind ``word``.
        declared: the option that sets the limit, where no policy does.
        unit: unit of value and limit.
        geforce: whether GeForce cards answer, ``yes``, ``no`` or ``unknown``.
        fields: the readings of ``gpu_info``, or the parts of ``gpu_host_info``, that it is made of.
    """

    name: str
    words: str
    severity: str
    source: str
    action: str
    remedy: str
    about: str = GPU
    lesser: str = ""
    limit: Limit = None
    kind: str = ""
    choices: tuple[str, ...] = ()
    declared: str = ""
    unit: str = ""
    geforce: str = "yes"
    fields: tuple[str, ...] = ()


CHECKS: tuple[Check, ...] = (
    # The driver and the declaration.
    Check(
        "gpu_driver", "the driver answers", CRITICAL, "NVML, nvmlInitWithFlags",
        FIX_CONFIG, "make the driver answer", HOST,
    ),
    Check(
        "gpu_driver_version", "version of the driver, at least", CRITICAL, "the declaration",
        FIX_CONFIG, "install a driver that is new enough", HOST, declared="expected.driver_min",
    ),
    Check(
        "gpu_driver_pin", "version of the driver, exactly", WARN, "the declaration",
        FIX_CONFIG, "install the pinned driver and keep upgrades away from it", HOST,
        declared="expected.driver_pin",
    ),
    Check(
        "gpu_cuda_version", "newest CUDA version that the driver supports", CRITICAL,
        "the declaration", FIX_CONFIG, "install a driver that supports the engine's CUDA", HOST,
        declared="expected.cuda_min",
    ),
    Check(
        "gpu_count", "GPUs that work", CRITICAL, "the declaration; HV gpu_count",
        SERVICE, "look for the missing card with lspci -d 10de: and journalctl -k", HOST,
        declared="expected.count",
    ),
    Check(
        "gpu_names", "which products are there", CRITICAL, "the declaration",
        SERVICE, "compare the cards in the host with the declaration", HOST,
        declared="expected.names",
    ),
    Check(
        "gpu_uuids", "which cards are there", CRITICAL, "the declaration",
        SERVICE, "compare the cards in the host with the declaration", HOST,
        declared="expected.uuids",
    ),
    # What the host tells beside the driver.
    Check(
        "gpu_host", "the host's own readings could be had", WARN, "hx_infra.llm",
        FIX_CONFIG, "read them with hx_infra.llm.gpu_host_info and hand them in", HOST,
    ),
    Check(
        "gpu_pci_count", "GPUs on the PCI bus that the driver does not see", CRITICAL,
        "PCI class 03xx, vendor 10de; HV gpu_count",
        SERVICE, "see journalctl -k for why the driver did not take the card", HOST,
        fields=("pci",),
    ),
    Check(
        "gpu_device_nodes", "device nodes that the service's account can't open", CRITICAL,
        "DCGM diagnosis, level 1; NVIDIA/nvidia-modprobe#7",
        FIX_CONFIG, "load nvidia_uvm (modprobe nvidia_uvm) and let the account open /dev/nvidia*",
        HOST, lesser=WARN, fields=("nodes",),
    ),
    Check(
        "gpu_library", "library that the next process loads, against the loaded module", WARN,
        "NVML error 18, before it happens",
        REBOOT, "reboot; running programs still work, newly started ones won't", HOST,
        fields=("module", "library"),
    ),
    Check(
        "gpu_next_kernel", "the kernel that boots next has the driver's module", WARN,
        "modinfo -k of each installed kernel",
        FIX_CONFIG, "build the module for that kernel before the next reboot (dkms autoinstall)",
        HOST, fields=("kernels",),
    ),
    Check(
        "gpu_nouveau", "cards that the driver nouveau holds", CRITICAL, "DCGM diagnosis, level 1",
        FIX_CONFIG, "blacklist nouveau, rebuild the initramfs, reboot", HOST, fields=("pci",),
    ),
    Check(
        "gpu_secure_boot", "Secure Boot lets the module in", CRITICAL,
        "the kernel's message 'Key was rejected by service'",
        FIX_CONFIG, "enrol the key that signed the module (mokutil --import)", HOST,
        fields=("secure_boot",),
    ),
    Check(
        "gpu_cuda_environment", "variables in the services' environment that change CUDA", WARN,
        "DCGM diagnosis, level 1", FIX_CONFIG, "take the variable out of the unit, restart it",
        HOST, limit=BAD_ENVIRONMENT, kind="names", fields=("environment",),
    ),
    Check(
        "gpu_container_toolkit", "containers are given these GPUs", CRITICAL,
        "NVIDIA/gpu-operator, validator",
        FIX_CONFIG, "run playbooks/container_runtime.yml", HOST, lesser=WARN,
        fields=("toolkit",),
    ),
    Check(
        "gpu_dcgm", "NVIDIA's own diagnosis, where DCGM is installed", CRITICAL,
        "dcgmi diag -r 1", SERVICE, "run dcgmi diag -r 1 and see what it advises", HOST,
        lesser=WARN, fields=("dcgm",),
    ),
    Check(
        "gpu_cuda", "a program can compute with CUDA", CRITICAL,
        "a child makes a context, copies and compares memory",
        SERVICE, "see journalctl -k and the message; reboot if there is none",
        fields=("cuda",),
    ),
    Check(
        "gpu_xid", "faults in the kernel's log (Xid), a lesser one for this long", CRITICAL,
        "the table of Xid codes", SERVICE, "see the table of Xid codes", lesser=WARN,
        limit=7, kind="number", unit="days", fields=("xids",),
    ),
    Check(
        "gpu_xid_repeated", "boots in which the same grave Xid came up", CRITICAL,
        "gpud, threshold.go: two reboots did not cure it",
        SERVICE, "have the card, its power and its slot looked at", limit=2, kind="count",
        unit="boots", fields=("xids",),
    ),
    # The card as a whole.
    Check(
        "gpu_state", "the card answers", CRITICAL, "NVML errors 15 and 16",
        REBOOT, "see journalctl -k for Xid messages, then reboot",
    ),
    Check(
        "gpu_readings", "readings that should be there", WARN, "NVML: an error other than 3",
        SERVICE, "find out why the driver refuses the reading",
    ),
    Check(
        "gpu_name", "the product", CRITICAL, "the declaration",
        SERVICE, "compare the cards in the host with the declaration",
        declared="expected.name", fields=("name",),
    ),
    Check(
        "gpu_recovery_action", "what the driver asks for", CRITICAL, "NVML field 230",
        RESET_GPU, "do what the driver asks for", lesser=WARN, fields=("recovery_action",),
    ),
    Check(
        "gpu_inforom", "checksum of the card's own memory (InfoROM)", CRITICAL,
        "NVML error 14; DCGM diagnosis fails, its watch warns",
        SERVICE, "have the card replaced", fields=("inforom_valid",),
    ),
    # Heat and power.
    Check(
        "gpu_temperature", "temperature of the chip", CRITICAL,
        "the card's slowdown threshold, or expected.temperature_max_c",
        SERVICE, "look at fans, dust and airflow", lesser=WARN,
        declared="expected.temperature_max_c", unit="°C", fields=("temperature_c",),
    ),
    Check(
        "gpu_temperature_margin", "distance to the card's limit, on cards without thresholds",
        CRITICAL, "NVML fields 193 to 196; gpud on when to trust it",
        SERVICE, "look at fans, dust and airflow", lesser=WARN, unit="°C", geforce="no",
        fields=("temperature_margin_c",),
    ),
    Check(
        "gpu_memory_temperature", "temperature of the memory", WARN,
        "the card's threshold for its memory", SERVICE, "look at fans, dust and airflow",
        unit="°C", geforce="no", fields=("temperature_memory_c", "temperature_memory_max_c"),
    ),
    Check(
        "gpu_hw_slowdown", "the hardware holds the clocks down", WARN,
        "NVML clock event reasons 0x8, 0x40, 0x80; gpud hw-slowdown",
        SERVICE, "look at cooling, and at the power supply when it is the power brake",
        fields=("clocks_event_reasons",),
    ),
    Check(
        "gpu_sw_thermal", "the driver holds the clocks down because of heat, in two readings",
        WARN, "NVML clock event reason 0x20; 30 minutes in the exporters' alerts",
        SERVICE, "look at fans, dust and airflow", limit=30, kind="number", unit="minutes",
        fields=("clocks_event_reasons",),
    ),
    Check(
        "gpu_throttle_time", "share of the time slowed down by the hardware", WARN,
        "NVML fields 269 to 271; DCGM: any since the last reading",
        SERVICE, "look at cooling and power supply", limit=0, kind="ratio", unit="ratio",
        fields=("throttle_ns",),
    ),
    Check(
        "gpu_power_draw", "power draw can be read", WARN, "DCGM power watch",
        SERVICE, "find out why the driver refuses the reading", unit="W",
        fields=("power_draw_watts",),
    ),
    Check(
        "gpu_power_limit", "enforced power limit, against the policy's", WARN,
        "the policy; without one it is only told where it differs from the card's default",
        FIX_CONFIG, "set it with nvidia-smi -pl, or correct the policy", kind="number", unit="W",
        fields=("power_limit_watts",),
    ),
    # The PCI Express link.
    Check(
        "gpu_pcie_width", "lanes in use", CRITICAL,
        "lanes that card and slot could use; a quarter of them or less is grave",
        SERVICE, "reseat the card, look at riser and slot", lesser=WARN, kind="count",
        unit="lanes", fields=("pcie_link_width_current", "pcie_link_width_max"),
    ),
    Check(
        "gpu_pcie_generation", "generation of the link, under load only", WARN,
        "what card and slot could use; an idle link is slow on purpose",
        SERVICE, "reseat the card, look at riser, slot and BIOS settings", kind="count",
        unit="generation", fields=("pcie_link_gen_current", "pcie_link_gen_max"),
    ),
    Check(
        "gpu_pcie_slot", "generation that the slot allows, against the card's own", INFO,
        "NVML, nvmlDeviceGetGpuMaxPcieLinkGeneration",
        NONE, "a faster slot or a BIOS setting would be needed", unit="generation",
        fields=("pcie_link_gen_max", "pcie_link_gen_gpu_max"),
    ),
    Check(
        "gpu_pcie_replays", "packets sent again, per minute", WARN,
        "DCGM: lanes times 0.15, 0.3, 0.48, 0.96, 1.92, 3.84 for generation 1 to 6",
        SERVICE, "reseat the card, look at riser and slot", kind="number", unit="per minute",
        fields=("pcie_replay_count",),
    ),
    # Memory and its errors.
    Check(
        "gpu_memory", "share of the memory held while no process is listed", WARN, "hx_infra.llm",
        RESET_GPU, "stop the engine and reset the GPU (nvidia-smi -r), else reboot",
        limit=0.1, kind="ratio", unit="bytes", fields=("memory_total_bytes", "memory_used_bytes"),
    ),
    Check(
        "gpu_bar1", "share of BAR1 that is free; a BAR1 below half of the memory is told", WARN,
        "hx_infra.llm", RESTART_APP, "restart the program that maps it", limit=0.05, kind="ratio",
        unit="bytes", fields=("bar1_total_bytes", "bar1_used_bytes"),
    ),
    Check(
        "gpu_ecc", "memory errors that were not corrected, since the driver was loaded", CRITICAL,
        "DCGM diagnosis; gcm: 0", RESET_GPU, "reset the GPU; when they come back, replace it",
        limit=0, kind="count", geforce="no", fields=("ecc_errors_uncorrected",),
    ),
    Check(
        "gpu_ecc_corrected", "memory errors that were corrected, since the driver was loaded", WARN,
        "gcm: 50 million", SERVICE, "look at cooling and power, then have the card looked at",
        limit=50_000_000, kind="count", geforce="no", fields=("ecc_errors_corrected",),
    ),
    Check(
        "gpu_ecc_mode", "ECC now, after the next reboot, and in the policy", WARN,
        "NVML, nvmlDeviceGetEccMode", REBOOT, "reboot, or set it with nvidia-smi -e",
        kind="word", choices=("enabled", "disabled"), geforce="no", fields=("ecc_mode",),
    ),
    Check(
        "gpu_sram", "errors in the chip's own memory over the card's threshold", WARN,
        "DCGM diagnosis, level 1", SERVICE, "have the card replaced", geforce="no",
        fields=("sram_threshold_exceeded",),
    ),
    Check(
        "gpu_retired_pages", "memory pages retired (cards before Ampere)", CRITICAL,
        "DCGM: none pending, fewer than 63 in all, 15 after double-bit errors",
        RESET_GPU, "reset the GPU", lesser=WARN, limit=63, kind="count", unit="pages",
        geforce="no", fields=("retired_pages_single_bit", "retired_pages_double_bit"),
    ),
    Check(
        "gpu_remapped_rows", "memory rows remapped (Ampere and later)", CRITICAL,
        "DCGM: none failed, none pending, fewer than 512 after uncorrectable errors",
        RESET_GPU, "reset the GPU", lesser=WARN, limit=512, kind="count", unit="rows",
        geforce="no", fields=("remapped_rows_uncorrectable",),
    ),
    Check(
        "gpu_unrepairable_memory", "memory that can't be repaired", CRITICAL,
        "DCGM diagnosis; NVML, nvmlDeviceGetUnrepairableMemoryFlag_v1",
        SERVICE, "have the card replaced", geforce="unknown", fields=("unrepairable_memory",),
    ),
    # How it is set up, and who uses it.
    Check(
        "gpu_persistence", "the driver keeps the card awake", WARN,
        "DCGM diagnosis warns, gpud calls it unhealthy; published captures of GeForce cards: off",
        FIX_CONFIG, "enable nvidia-persistenced", lesser=INFO, fields=("persistence_mode",),
    ),
    Check(
        "gpu_mig", "division into instances (MIG) now, after the next reset, and in the policy",
        WARN, "NVML, nvmlDeviceGetMigMode",
        RESET_GPU, "reset the GPU, or set it with nvidia-smi -mig",
        kind="word", choices=("enabled", "disabled"), geforce="no", fields=("mig_mode",),
    ),
    Check(
        "gpu_compute_mode", "who may compute", CRITICAL, "NVML: 'prohibited' lets nobody",
        FIX_CONFIG, "set it with nvidia-smi -c, or correct the policy", lesser=WARN,
        limit="default", kind="word",
        choices=("default", "exclusive_process", "exclusive_thread"), fields=("compute_mode",),
    ),
    Check(
        "gpu_foreign_processes", "programs that compute and aren't allowed", CRITICAL,
        "allowed_processes; the severity comes from foreign_processes",
        RESTART_APP, "stop the program, or allow it", declared="allowed_processes",
        fields=("processes",),
    ),
    Check(
        "gpu_graphics_processes", "programs that draw and aren't allowed", WARN,
        "DCGM diagnosis, level 1", FIX_CONFIG, "run the host without a desktop, or allow them",
        limit=(), kind="names", fields=("processes",),
    ),
)  # fmt: skip
