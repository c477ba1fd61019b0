# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GPU discovery through NVML, placement of models, and the activity file that NVML reads."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from sim_ollama import log, settings

ACTIVITY_DIR = Path("/dev", "shm", "sim-gpu")
DISCOVERY_TIMEOUT_SECONDS = 30.0
UUID_LENGTH = 96
RESERVED_BYTES = 450 * 1024 * 1024


class Gpu(NamedTuple):
    """One GPU as found at start."""

    index: int
    uuid: str
    name: str
    compute: str
    total: int
    free: int


class Discovery(NamedTuple):
    """What was found at start; it stays as it is for the life of the process."""

    gpus: list[Gpu]
    driver: str
    problem: str


class _Memory(ctypes.Structure):
    _fields_ = [
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    ]


def query_nvml() -> Discovery:
    """Ask NVML in this process; problem says why there is no GPU."""
    library_name = os.environ.get("SIM_OLLAMA_NVML", "libnvidia-ml.so.1")
    try:
        nvml = ctypes.CDLL(library_name)
        rc = nvml.nvmlInit_v2()
    except (OSError, AttributeError) as exc:
        return Discovery([], "", str(exc))
    if rc != 0:
        return Discovery([], "", f"nvmlInit_v2 returned {rc}")
    driver = ctypes.create_string_buffer(80)
    nvml.nvmlSystemGetDriverVersion(driver, 80)
    count = ctypes.c_uint()
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return Discovery([], driver.value.decode(), "nvmlDeviceGetCount_v2 failed")
    gpus = [g for g in (_device(nvml, index) for index in range(count.value)) if g is not None]
    return Discovery(gpus, driver.value.decode(), "")


def _device(nvml: ctypes.CDLL, index: int) -> Gpu | None:
    handle = ctypes.c_void_p()
    memory = _Memory()
    if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)) != 0:
        return None
    if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) != 0:
        return None
    texts = []
    for function, length in (("nvmlDeviceGetUUID", 96), ("nvmlDeviceGetName", 96)):
        buffer = ctypes.create_string_buffer(length)
        if hasattr(nvml, function):
            getattr(nvml, function)(handle, buffer, length)
        texts.append(buffer.value.decode("utf-8", "replace"))
    major, minor = ctypes.c_int(0), ctypes.c_int(0)
    if hasattr(nvml, "nvmlDeviceGetCudaComputeCapability"):
        nvml.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor))
    compute = f"{major.value}.{minor.value}" if major.value else ""
    return Gpu(index, texts[0], texts[1], compute, memory.total, memory.free)


def discover(command: list[str], timeout: float = DISCOVERY_TIMEOUT_SECONDS) -> Discovery:
    """Ask NVML in a child process, so that a hanging driver costs a time limit and no more."""
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL
        )
        data = json.loads(done.stdout)
        return Discovery([Gpu(*g) for g in data["gpus"]], data["driver"], data["problem"])
    except subprocess.TimeoutExpired:
        return Discovery([], "", "GPU discovery timed out")
    except (OSError, ValueError, KeyError, TypeError) as exc:
        return Discovery([], "", f"GPU discovery failed: {exc}")


def discovery_child() -> int:
    """Print what NVML says as JSON: the body of the child process."""
    found = query_nvml()
    data = {"gpus": found.gpus, "driver": found.driver, "problem": found.problem}
    sys.stdout.write(json.dumps(data))
    sys.stdout.flush()
    os._exit(0)


def place(gpus: list[Gpu], held: dict[int, int], wanted: int, spread: bool) -> dict[int, int]:
    """Choose GPUs for so many bytes: one GPU if it fits, else all, as far as they reach."""
    free = {g.index: max(0, g.free - RESERVED_BYTES - held.get(g.index, 0)) for g in gpus}
    fitting = [index for index, size in free.items() if size >= wanted]
    if fitting and not spread:
        return {max(fitting, key=lambda index: (free[index], -index)): wanted}
    total = sum(free.values())
    usable = min(wanted, total)
    if usable <= 0:
        return {}
    shares = {index: usable * size // total for index, size in free.items() if size > 0}
    first = next(iter(shares))
    shares[first] += usable - sum(shares.values())
    return shares


class Activity:
    """The activity file of one runner process, read by the simulated NVML."""

    def __init__(self, pid: int, name: str, memory: dict[int, int]) -> None:
        self.pid = pid
        self.name = name
        self.memory = memory
        self.folder = Path(os.environ.get("SIM_OLLAMA_ACTIVITY_DIR") or ACTIVITY_DIR)

    def write(self, util: int = 0, busy_until: float = 0.0) -> None:
        """Publish what this process holds and until when it computes.

        With the fault ``idle_gpu`` the card learns nothing of it, or only of the memory.
        """
        idle = settings.from_environment().fault("idle_gpu")
        if idle == "work":
            util = 0
        elif idle:
            self.remove()
            return
        lines = [f"pid={self.pid}", f"name={self.name}"]
        for index, size in sorted(self.memory.items()):
            lines += [f"gpu.{index}.memory={size}", f"gpu.{index}.util={util}"]
        lines.append(f"busy_until={busy_until:.3f}")
        temporary = self.folder / f".{self.pid}"
        try:
            if not self.folder.is_dir():
                self.folder.mkdir(parents=True)
                self.folder.chmod(0o1777)
            temporary.write_text("\n".join(lines) + "\n", encoding="ascii", errors="replace")
            temporary.chmod(0o644)
            temporary.replace(self.folder / str(self.pid))
        except OSError as exc:
            log.warn("sim", "cannot write the GPU activity file", error=exc)

    def remove(self) -> None:
        """Take the file away: the process has gone."""
        try:
            (self.folder / str(self.pid)).unlink(missing_ok=True)
        except OSError as exc:
            log.warn("sim", "cannot remove the GPU activity file", error=exc)
