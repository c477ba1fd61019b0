# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Readings of a GPU that are slow, or wanted only by one who looks into a host once.

Its text goes before that of ``_gpu_nvml_child``, which finds ``FULL`` and ``about_binding`` then;
alone it does nothing. PCI Express throughput is not among them: the driver measures it for 20 ms
per direction while the caller waits.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from typing import Any, Callable

_CORRUPTED_INFOROM, _NO_SUCH_FUNCTION = 14, 13  # nvml.h, nvmlReturn_t
_SINGLE_BIT, _DOUBLE_BIT = 0, 1  # nvmlPageRetirementCause_t
_POLICY_POWER = 0  # nvmlPerfPolicyType_t
# nvmlBrandType_t and nvmlDeviceArchitecture_t, in the words of nvidia-smi.
_BRANDS = {
    1: "Quadro",
    2: "Tesla",
    3: "NVS",
    4: "Grid",
    5: "GeForce",
    6: "Titan",
    7: "NVIDIA Virtual Applications",
    8: "NVIDIA Virtual PC",
    9: "NVIDIA Virtual Compute Server",
    10: "NVIDIA RTX Virtual Workstation",
    11: "NVIDIA Cloud Gaming",
    12: "Quadro RTX",
    13: "NVIDIA RTX",
    14: "NVIDIA",
    15: "GeForce RTX",
    16: "Titan RTX",
}
_ARCHITECTURES = {
    2: "Kepler",
    3: "Maxwell",
    4: "Pascal",
    5: "Volta",
    6: "Turing",
    7: "Ampere",
    8: "Ada Lovelace",
    9: "Hopper",
    10: "Blackwell",
    13: "Rubin",
}
# A folder that an installer leaves beside a package, with the package's version in its name.
_INSTALLED = re.compile(r"(nvidia[-_.]ml[-_.]py|pynvml)-([^-]+)\.(?:dist|egg)-info$", re.IGNORECASE)


def _call(nvml: Any, function: str, *arguments: Any) -> Any:
    """Call a function; one that an older binding lacks answers as one that the driver lacks."""
    found = getattr(nvml, function, None)
    if found is None:
        raise nvml.NVMLError(_NO_SUCH_FUNCTION)
    return found(*arguments)


def _word(field: str, function: str, words: dict[int, str]) -> Callable[[Any, Any], Any]:
    """Make a reader of a number that stands for a word; one without a word is absent."""

    def read(nvml: Any, gpu: Any) -> dict[str, Any]:
        word = words.get(_call(nvml, function, gpu))
        return {field: word} if word else {}

    read.__name__ = field
    return read


def _bar1(nvml: Any, gpu: Any) -> dict[str, Any]:
    info = _call(nvml, "nvmlDeviceGetBAR1MemoryInfo", gpu)
    return {"bar1_total_bytes": info.bar1Total, "bar1_used_bytes": info.bar1Used}


def _mig_mode(nvml: Any, gpu: Any) -> dict[str, Any]:
    current, pending = _call(nvml, "nvmlDeviceGetMigMode", gpu)
    return {"mig_mode": bool(current), "mig_mode_pending": bool(pending)}


def _power_violation(nvml: Any, gpu: Any) -> dict[str, Any]:
    status = _call(nvml, "nvmlDeviceGetViolationStatus", gpu, _POLICY_POWER)
    return {"power_violation_ns": status.violationTime}


def _retired_pages(nvml: Any, gpu: Any) -> dict[str, Any]:
    # not the second version: the binding gives it an argument too few
    single = _call(nvml, "nvmlDeviceGetRetiredPages", gpu, _SINGLE_BIT)
    double = _call(nvml, "nvmlDeviceGetRetiredPages", gpu, _DOUBLE_BIT)
    pending = _call(nvml, "nvmlDeviceGetRetiredPagesPendingStatus", gpu)
    return {
        "retired_pages_single_bit": len(single),
        "retired_pages_double_bit": len(double),
        "retired_pages_pending": bool(pending),
    }


def _sram(nvml: Any, gpu: Any) -> dict[str, Any]:
    layout = getattr(nvml, "c_nvmlEccSramErrorStatus_v1_t", None)
    if layout is None:
        raise nvml.NVMLError(_NO_SUCH_FUNCTION)
    status = layout()  # the binding hands it on as it is, and the driver wants a pointer
    _call(nvml, "nvmlDeviceGetSramEccErrorStatus", gpu, ctypes.byref(status))
    return {"sram_threshold_exceeded": bool(status.bThresholdExceeded)}


def _unrepairable_memory(nvml: Any, gpu: Any) -> dict[str, Any]:
    flag = _call(nvml, "nvmlDeviceGetUnrepairableMemoryFlag_v1", gpu)
    return {"unrepairable_memory": bool(flag)}


def _inforom(nvml: Any, gpu: Any) -> dict[str, Any]:
    try:
        _call(nvml, "nvmlDeviceValidateInforom", gpu)
    except nvml.NVMLError as error:
        if error.value != _CORRUPTED_INFOROM:
            raise
        return {"inforom_valid": False}
    return {"inforom_valid": True}


FULL = (
    _word("brand", "nvmlDeviceGetBrand", _BRANDS),
    _word("architecture", "nvmlDeviceGetArchitecture", _ARCHITECTURES),
    _bar1,
    _mig_mode,
    _power_violation,
    _retired_pages,
    _sram,
    _unrepairable_memory,
    _inforom,
)


def about_binding() -> dict[str, Any]:
    """Tell which package the Python binding is of, and what is odd about it.

    The official package is nvidia-ml-py. Of two packages that bring the module pynvml, pip leaves
    whichever it installed last; pynvml itself is deprecated.
    """
    found = installed_packages(sys.path)
    about: dict[str, Any] = {}
    for name in ("nvidia-ml-py", "pynvml"):
        if name in found:
            about["package"] = {"name": name, "version": found[name]}
            break
    if "pynvml" in found:
        message = (
            f"the deprecated package pynvml {found['pynvml']} is installed for {sys.executable}: "
            "remove it and keep nvidia-ml-py alone"
        )
        about["notes"] = [{"what": "package", "message": message}]
    return about


def installed_packages(folders: list[str]) -> dict[str, str]:
    """Find the versions of the packages that bring NVML's binding, without importing anything."""
    found: dict[str, str] = {}
    for folder in folders:
        try:
            names = os.listdir(folder or ".")
        except OSError:  # an archive, or not there
            continue
        for name in names:
            match = _INSTALLED.match(name)
            if match:
                package = re.sub("[_.]", "-", match.group(1).lower())
                found.setdefault(package, match.group(2))
    return found
