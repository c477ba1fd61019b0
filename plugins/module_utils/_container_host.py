# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What stands on a host for containers with GPUs: toolkit, CDI specifications, device links."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._container_cdi import (
    SUFFIXES,
    Spec,
    effective,
    parse_spec,
    reasons_stale,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._container_engine import (
    Run,
    find_program,
    version_tuple,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

SPEC_DIRS = ("/var/run/cdi", "/etc/cdi")  # the first outranks the second, in every engine
_NVIDIA_PREFIX = "nvidia"


@dataclass(frozen=True)
class HostGpus:
    """The GPUs as the host itself sees them."""

    uuids: tuple[str, ...]
    driver: str


def host_gpus(facts: dict[str, Any], host: str) -> HostGpus:
    """Return the GPUs that the host can use.

    Raises:
        HostError: the driver does not answer, or there is no GPU: a container that starts all the
            same would compute on the CPU.
    """
    gpus = [gpu for gpu in facts.get("gpus", []) if gpu.get("uuid")]
    if facts.get("state") != "ok" or not gpus:
        said = "; ".join(error["message"] for error in facts.get("errors", []))
        raise HostError(
            f"{host}: the GPUs are {facts.get('state')}, {len(gpus)} of them named"
            f"{f' ({said})' if said else ''}, wanted: a driver that answers and a GPU. A container "
            "that starts without a GPU computes on the CPU.",
            "Repair the driver first: nvidia-smi has to work on the host.",
        )
    driver = str(facts.get("driver", {}).get("version") or "")
    return HostGpus(tuple(gpu["uuid"] for gpu in gpus), driver)


def toolkit(run: Run, timeout_s: float, program: str = "") -> tuple[str, str]:
    """Return path and version of nvidia-ctk; empty ones when it is not installed."""
    path = program or find_program("nvidia-ctk")
    if not path:
        return "", ""
    outcome = run([path, "--version"], timeout_s)
    if outcome.rc != 0:
        return "", ""
    numbers = version_tuple(outcome.out)
    return path, ".".join(str(part) for part in numbers)


def read_specs(directories: Sequence[str]) -> dict[str, list[Spec]]:
    """Read the CDI specifications, per directory.

    Raises:
        HostError: a file of that place and name is no specification.
    """
    found: dict[str, list[Spec]] = {}
    for directory in directories:
        try:
            names = sorted(os.listdir(directory))
        except FileNotFoundError:
            continue
        found[directory] = []
        for name in names:
            path = os.path.join(directory, name)
            if name.startswith(".") or not name.endswith(SUFFIXES) or not os.path.isfile(path):
                continue
            with open(path, encoding="utf-8") as file:
                text = file.read()
            if "nvidia" in text:  # other vendors' files are not ours to judge
                found[directory].append(parse_spec(path, text))
    return found


def find_spec(directories: Sequence[str], host: str) -> Spec | None:
    """Return the specification that engines use for the GPUs; None when there is none."""
    return effective(read_specs(directories), host)


def stale(spec: Spec | None, gpus: HostGpus) -> list[str]:
    """Say in sentences why a specification cannot be used; empty when it can."""
    if spec is None:
        return ["there is none"]
    return reasons_stale(spec, gpus.uuids, gpus.driver, os.path.exists)


def missing_char_links(dev: str = "/dev") -> list[str]:
    """Return the GPU's device nodes that have no link in /dev/char.

    systemd writes its list of allowed devices anew at every daemon-reload, from what it finds
    under /dev/char; what has no link there is taken from the containers that run.
    """
    missing = []
    try:
        names = sorted(os.listdir(dev))
    except FileNotFoundError:
        return []
    for name in names:
        path = os.path.join(dev, name)
        if not name.startswith(_NVIDIA_PREFIX):
            continue
        state = os.stat(path)
        if not stat.S_ISCHR(state.st_mode):
            continue
        number = f"{os.major(state.st_rdev)}:{os.minor(state.st_rdev)}"
        if not os.path.exists(os.path.join(dev, "char", number)):
            missing.append(path)
    return missing
