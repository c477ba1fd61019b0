# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The NVIDIA driver of a host: the loaded module, the library on disk, the PCI devices."""

from __future__ import annotations

import os
import re
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import Host, UnknownError

NVIDIA, DISPLAY_CLASS = "0x10de", "0x03"
MANAGEMENT_LIBRARY = "libnvidia-ml.so.1"

_VERSION = re.compile(r"\b(\d{3,4}\.\d+(?:\.\d+)*)\b")
_VERSIONED = re.compile(r"\.so\.(\d{3,4}\.\d+(?:\.\d+)*)$")
_CACHED = re.compile(r"^\s*(\S+) \(([^)]*)\) => (\S+)$")
_PCI_FIELDS = ("vendor", "class", "device")
_CACHE_WORDS = {"x86_64": "x86-64", "aarch64": "AArch64", "ppc64le": "64bit"}


def loaded_module(host: Host) -> dict[str, Any]:
    """Return ``loaded`` and, when it is, ``loaded_version`` and ``flavour`` of the module.

    The kernel keeps the version of what it has loaded, whatever has been installed since. The
    flavour is in the driver's own line: "NVIDIA UNIX Open Kernel Module for x86_64  565.57.01".

    Raises:
        UnknownError: this system has no /sys/module.
    """
    if host.names("/sys/module") is None:
        raise UnknownError("/sys/module is not there")
    line = (host.text("/proc/driver/nvidia/version") or "").partition("\n")[0]
    version = (host.text("/sys/module/nvidia/version") or "").strip()
    if not version:
        found = _VERSION.search(line)
        version = found.group(1) if found else ""
    if not version and host.names("/sys/module/nvidia") is None:
        return {"loaded": False}
    module: dict[str, Any] = {"loaded": True}
    if version:
        module["loaded_version"] = version
    if line:
        module["flavour"] = "open" if "Open Kernel Module" in line else "proprietary"
    return module


def library(host: Host, notes: list[str]) -> dict[str, Any]:
    """Return ``path`` and ``version`` of the management library that the next process loads.

    The loader's cache comes first, then the directories that it searches by itself. The version is
    in the name of the file to which the links lead; the file itself isn't loaded for it.
    """
    outcome = host.call("ldconfig", "-p")
    cached = _from_cache(outcome.out, host.machine) if outcome.rc == 0 else []
    for path in cached + [f"{folder}/{MANAGEMENT_LIBRARY}" for folder in _folders(host.machine)]:
        real = host.resolve(path)
        if not os.path.exists(host.path(real)):
            continue
        found = {"path": real}
        version = _VERSIONED.search(real)
        if version:
            found["version"] = version.group(1)
        else:
            notes.append(f"the name of {real} has no version")
        return found
    return {}


def _from_cache(text: str, machine: str) -> list[str]:
    word = _CACHE_WORDS.get(machine, "")
    matches = (_CACHED.match(line) for line in text.splitlines())
    return [
        match[3]
        for match in matches
        if match and match[1] == MANAGEMENT_LIBRARY and word in match[2]
    ]


def _folders(machine: str) -> list[str]:
    multiarch = f"{machine}-linux-gnu"
    return [f"/usr/lib/{multiarch}", f"/lib/{multiarch}", "/usr/lib64", "/lib64", "/usr/lib"]


def pci_devices(host: Host) -> list[dict[str, Any]]:
    """List NVIDIA's display controllers with ``address``, ``device_id`` and ``driver``.

    A device that no driver has taken has no key ``driver``.

    Raises:
        UnknownError: this system shows no PCI devices.
    """
    base = "/sys/bus/pci/devices"
    addresses = host.names(base)
    if addresses is None:
        raise UnknownError(f"{base} is not there")
    devices = []
    for address in addresses:
        folder = f"{base}/{address}"
        fields = {name: (host.text(f"{folder}/{name}") or "").strip() for name in _PCI_FIELDS}
        if fields["vendor"] != NVIDIA or not fields["class"].startswith(DISPLAY_CLASS):
            continue
        device = {"address": address, "device_id": fields["device"][len("0x") :]}
        driver = host.path(f"{folder}/driver")
        if os.path.islink(driver):
            device["driver"] = os.path.basename(os.readlink(driver))
        devices.append(device)
    return devices
