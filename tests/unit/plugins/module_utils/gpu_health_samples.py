# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Readings of healthy GPUs and their hosts, to be made sick by the tests of the GPU checks."""

from __future__ import annotations

import copy

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health import Inventory, judge

GIB = 1024**3
NOW = 1_795_000_000.0  # 2026-11-18T11:06:40Z
NAME = "NVIDIA GeForce RTX 4070 Ti"
DRIVER = "575.64.03"

GEFORCE = {
    "state": "ok",
    "errors": [],
    "name": NAME,
    "memory_total_bytes": 12 * GIB,
    "memory_used_bytes": 0,
    "bar1_total_bytes": 16 * GIB,
    "bar1_used_bytes": GIB // 1024,
    "utilization_gpu_ratio": 0.0,
    "performance_state": 8,
    "temperature_c": 40,
    "temperature_shutdown_c": 101,
    "temperature_slowdown_c": 96,
    "temperature_max_c": 90,
    "temperature_tlimit_supported": False,
    "power_draw_watts": 12.0,
    "power_limit_watts": 285.0,
    "power_default_limit_watts": 285.0,
    "clocks_event_reasons": ["gpu_idle"],
    "throttle_ns": {
        "sw_power_cap": 5_000_000_000,
        "hw_thermal_slowdown": 0,
        "hw_power_brake_slowdown": 0,
        "sw_thermal_slowdown": 0,
    },
    "pcie_link_width_current": 16,
    "pcie_link_width_max": 16,
    "pcie_link_gen_current": 1,
    "pcie_link_gen_max": 4,
    "pcie_link_gen_gpu_max": 4,
    "pcie_replay_count": 0,
    "recovery_action": 0,
    "inforom_valid": True,
    "persistence_mode": True,
    "compute_mode": "default",
    "processes": [],
}
DATA_CENTRE = {
    **GEFORCE,
    "name": "NVIDIA H200",
    "temperature_margin_c": 50,
    "temperature_slowdown_margin_c": -2,
    "temperature_tlimit_supported": True,
    "temperature_memory_c": 38,
    "temperature_memory_max_c": 95,
    "performance_state": 0,
    "pcie_link_gen_current": 5,
    "pcie_link_gen_max": 5,
    "pcie_link_gen_gpu_max": 5,
    "ecc_mode": True,
    "ecc_mode_pending": True,
    "ecc_errors_corrected": 0,
    "ecc_errors_uncorrected": 0,
    "sram_threshold_exceeded": False,
    "retired_pages_single_bit": 0,
    "retired_pages_double_bit": 0,
    "retired_pages_pending": False,
    "remapped_rows_correctable": 0,
    "remapped_rows_uncorrectable": 0,
    "remapped_rows_pending": False,
    "remapped_rows_failure": False,
    "unrepairable_memory": False,
    "mig_mode": False,
    "mig_mode_pending": False,
}


def card(index=0, base=None, **fields):
    """Return a healthy card with some readings changed; one that is None is absent."""
    found = {
        **copy.deepcopy(base or GEFORCE),
        "index": index,
        "minor_number": index,
        "uuid": f"GPU-{index}-0000",
        "pci_bus_id": f"00000000:{index + 1:02X}:00.0",
        **fields,
    }
    return {key: value for key, value in found.items() if value is not None}


def facts(*gpus, **fields):
    """Return what gpu_info says of a host with these cards, one healthy card by default."""
    return {
        "state": "ok",
        "source": "nvml",
        "driver": {"version": DRIVER, "cuda_version": "12.9"},
        "gpus": list(gpus or [card()]),
        "errors": [],
        **fields,
    }


def dead(state, **fields):
    """Return what gpu_info says of a driver that does not work."""
    errors = [{"message": "the reason"}]
    return facts(**{"state": state, "driver": {}, "gpus": [], "errors": errors, **fields})


def node(name, **fields):
    found = {"path": f"/dev/{name}", "mode": "0666", "owner": "root", "group": "root"}
    return {**found, "openable": True, **fields}


def nodes(count=1):
    names = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", *(f"nvidia{n}" for n in range(count))]
    return [node(name) for name in names]


def tried(index=0, ok=True, **fields):
    entry = {"index": index, "uuid": f"GPU-{index}-0000", "ok": ok, "milliseconds": 120.4}
    return {"message": "", **entry, **fields}


def host(count=1, **parts):
    """Return what gpu_host_info says of a healthy host; a part that is None is absent."""
    addresses = [f"0000:{index + 1:02x}:00.0" for index in range(count)]
    found = {
        "module": {"loaded": True, "loaded_version": DRIVER, "flavour": "open"},
        "library": {"version": DRIVER, "path": f"/usr/lib/libnvidia-ml.so.{DRIVER}"},
        "kernels": [
            {
                "release": "6.1.0-40-amd64",
                "running": True,
                "default": True,
                "has_module": True,
                "module_version": DRIVER,
            }
        ],
        "pci": [{"address": a, "device_id": "2782", "driver": "nvidia"} for a in addresses],
        "nodes": nodes(count),
        "secure_boot": {"enabled": False, "refused": False},
        "persistence_daemon": "active",
        "toolkit": {
            "installed": True,
            "version": "1.18.0",
            "cdi_file": "/etc/cdi/nvidia.yaml",
            "cdi_gpus": ["all", *(f"GPU-{index}-0000" for index in range(count))],
            "driver_version": DRIVER,
            "char_links": True,
        },
        "dcgm": {"installed": True, "running": True, "passed": 9, "problems": []},
        "environment": [],
        "cuda": {"state": "ok", "message": "", "gpus": [tried(n) for n in range(count)]},
        "xids": {"since": "2026-10-19T00:00:00.000000Z", "entries": [], "message": ""},
        "errors": [],
        **parts,
    }
    return {key: value for key, value in found.items() if value is not None}


def report(
    found=None, around=None, *, expected=None, earlier=None, lacking="", now=NOW, **inventory
):
    """Judge a host, a healthy one by default; ``around=False`` means that nobody read the host."""
    found = found or facts()
    if around is None:
        around = host(len(found["gpus"]) or 1)
    given = Inventory(expected=expected or {}, **inventory)
    return judge(found, around or None, given, now, earlier, lacking=lacking)


def outcomes(found, check):
    """Return the outcomes of a check."""
    return [health for health in found.checks if health.check == check]


def outcome(found, check):
    """Return the only outcome of a check."""
    (health,) = outcomes(found, check)
    return health


def of_card(check, *, expected=None, base=None, earlier=None, policy=None, **readings):
    """Return the outcome of a check for one card with some readings changed."""
    found = facts(card(base=base, **readings))
    return outcome(report(found, expected=expected, earlier=earlier, policy=policy), check)


def of_host(check, **parts):
    """Return the outcome of a check for a host with some parts changed."""
    return outcome(report(None, host(**parts)), check)
