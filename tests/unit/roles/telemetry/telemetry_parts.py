# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of the collector share: a card, a stand-in for its reader, and how to run it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

FILES = Path(__file__).resolve().parents[4] / "roles" / "telemetry" / "files"
sys.path.insert(0, str(FILES))

MIB = 1024 * 1024
DRIVER = {"version": "575.64.03", "cuda_version": "12.9"}
GPU = {
    "index": 0,
    "state": "ok",
    "name": "GeForce",
    "uuid": "GPU-0A",
    "pci_bus_id": "00000000:01:00.0",
    "minor_number": 0,
    "temperature_c": 40,
    "utilization_gpu_ratio": 0.87,
    "memory_used_bytes": 3411 * MIB,
    "memory_total_bytes": 12282 * MIB,
    "power_draw_watts": 201.54,
    "power_limit_watts": 285.0,
    "clock_sm_hz": 2_745_000_000,
    "clock_memory_hz": 10_501_000_000,
    "clocks_event_reasons": ["sw_power_cap", "hw_slowdown"],
    "pcie_link_gen_current": 4,
    "pcie_link_width_current": 16,
    "fan_speed_ratio": 0.3,
    "processes": [{"pid": 1, "type": "C"}, {"pid": 2, "type": "G"}],
}
OTHER = {**GPU, "index": 1, "uuid": "GPU-1B", "pci_bus_id": "00000000:02:00.0", "minor_number": 1}
LOST = {"index": 1, "state": "lost", "uuid": "GPU-1B", "errors": []}
# What GPU's line is after its time.
FIELDS = (
    "0,GeForce,GPU-0A,00000000:01:00.0,40,87,3411,12282,201.54,285.00,2745,10501,"
    "0x000000000000000c,4,16,30"
)
SAMPLE = [{"driver": DRIVER, "count": 1}, {"gpu": GPU}, {"done": True}]

PRELUDE = f"""
import json, os, sys, time
GPU = {GPU!r}
OTHER = {OTHER!r}
LOST = {LOST!r}
INTERVAL = float(sys.argv[sys.argv.index("--interval") + 1]) if "--interval" in sys.argv else None
assert "sample" in sys.argv
log = open(__file__ + ".starts", "a+")
log.write("start\\n")
log.flush()
log.seek(0)
START = len(log.readlines())  # 1 for the first one

def say(entry):
    print(json.dumps(entry), flush=True)

def block(number, *gpus):
    say({{"begin": number}})
    say({{"driver": {DRIVER!r}, "count": len(gpus)}})
    for gpu in gpus:
        say({{"reading": gpu["index"]}})
        say({{"gpu": gpu}})
    say({{"done": True}})

def rest():
    import select
    if select.select([sys.stdin], [], [], INTERVAL)[0]:
        sys.exit(0)
"""


def reader(folder, body):
    """Write a stand-in for gpu_nvml.py."""
    path = folder / "reader.py"
    path.write_text(PRELUDE + body)
    return path


def printing(*lines, tail=""):
    """Return the body of a reader that prints lines and ends."""
    return "".join(f"print({json.dumps(line)!r}, flush=True)\n" for line in lines) + tail


def starts(path):
    """Return how often a reader was started."""
    log = Path(f"{path}.starts")
    return len(log.read_text().splitlines()) if log.exists() else 0


def options(folder, reader_path, **more):
    """Return the collector's command line, with everything in one folder."""
    given = {
        "csv": folder / "nvidia-smi-ping.csv",
        "textfile": folder / "gpu.prom",
        "reader": reader_path,
        "timeout": 5,
        **more,
    }
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]


def events(folder):
    """Return the events without their times."""
    path = folder / "nvidia-smi-ping.events"
    return [line.split(" ", 1)[1] for line in path.read_text().splitlines()]


def csv_lines(folder):
    """Return the lines behind the stable name."""
    return (folder / "nvidia-smi-ping.csv").read_text().splitlines()


def wait_for(condition, seconds=20):
    """Wait until something holds; fail when it never does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{condition} never held")
