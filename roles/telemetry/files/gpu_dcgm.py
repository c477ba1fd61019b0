# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A second textfile with the classic names of NVIDIA's dcgm-exporter, for its dashboard 12239.

Names, units and kinds are those of its ``default-counters.csv`` before DCGM 4.6 renamed the
fields. What only DCGM can measure (``DCGM_FI_PROF_...``) is absent, and so is what a card lacks.
"""

from __future__ import annotations

import os
from typing import Any

from gpu_metrics import Account, Text, readable
from gpu_reader import Sample

MIB = 1024 * 1024
# Name, kind, field of the reading, what one of DCGM's units is in the field's, about.
FIELDS: tuple[tuple[str, str, str, float, str], ...] = (
    ("SM_CLOCK", "gauge", "clock_sm_hz", 1e6, "SM clock frequency (in MHz)."),
    ("MEM_CLOCK", "gauge", "clock_memory_hz", 1e6, "Memory clock frequency (in MHz)."),
    ("MEMORY_TEMP", "gauge", "temperature_memory_c", 1, "Memory temperature (in C)."),
    ("GPU_TEMP", "gauge", "temperature_c", 1, "GPU temperature (in C)."),
    ("POWER_USAGE", "gauge", "power_draw_watts", 1, "Power draw (in W)."),
    (
        "TOTAL_ENERGY_CONSUMPTION",
        "counter",
        "energy_joules",
        1e-3,
        "Total energy consumption since boot (in mJ).",
    ),
    ("PCIE_REPLAY_COUNTER", "counter", "pcie_replay_count", 1, "Total number of PCIe retries."),
    ("GPU_UTIL", "gauge", "utilization_gpu_ratio", 0.01, "GPU utilization (in %)."),
    ("MEM_COPY_UTIL", "gauge", "utilization_memory_ratio", 0.01, "Memory utilization (in %)."),
    ("ENC_UTIL", "gauge", "encoder_ratio", 0.01, "Encoder utilization (in %)."),
    ("DEC_UTIL", "gauge", "decoder_ratio", 0.01, "Decoder utilization (in %)."),
    ("FB_FREE", "gauge", "memory_free_bytes", MIB, "Framebuffer memory free (in MiB)."),
    ("FB_USED", "gauge", "memory_used_bytes", MIB, "Framebuffer memory used (in MiB)."),
    (
        "UNCORRECTABLE_REMAPPED_ROWS",
        "counter",
        "remapped_rows_uncorrectable",
        1,
        "Number of remapped rows for uncorrectable errors",
    ),
    (
        "CORRECTABLE_REMAPPED_ROWS",
        "counter",
        "remapped_rows_correctable",
        1,
        "Number of remapped rows for correctable errors",
    ),
    (
        "ROW_REMAP_FAILURE",
        "gauge",
        "remapped_rows_failure",
        1,
        "Whether remapping of rows has failed",
    ),
)


def render_dcgm(sample: Sample | None, account: Account) -> bytes:
    """Return the textfile's text; empty without a sample."""
    text = Text()
    host = os.uname().nodename
    for gpu in readable(sample):
        labels: dict[str, Any] = {
            "gpu": gpu["index"],
            "UUID": gpu["uuid"],
            "pci_bus_id": gpu.get("pci_bus_id", ""),
            "device": f"nvidia{gpu.get('minor_number', gpu['index'])}",
            "modelName": gpu.get("name", ""),
            "Hostname": host,
        }
        for name, kind, field, unit, about in FIELDS:
            if gpu.get(field) is not None:
                # Rounded to what the driver tells; a division alone makes 87 % 87.00000000000001.
                value = round(gpu[field] / unit, 6)
                text.add(f"DCGM_FI_DEV_{name}", about, value, labels, kind)
        address = str(gpu.get("pci_bus_id", "")).upper()
        own = [xid for xid in account.xids if xid.pci_bus_id == address]
        if account.xids_read:
            last = max(own, key=lambda xid: xid.last).xid if own else 0
            about = "Value of the last XID error encountered."
            text.add("DCGM_FI_DEV_XID_ERRORS", about, last, labels)
    return text.render()
