# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What a host has for containers with GPUs: toolkit, CDI specification, links in /dev/char."""

from __future__ import annotations

import os
import stat
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import _container_host
from ansible_collections.hx_infra.llm.plugins.module_utils._container_cdi import Spec, effective
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import (
    NOT_FOUND,
    Host,
    said,
)

PROGRAM = "nvidia-ctk"


def toolkit(host: Host, notes: list[str]) -> dict[str, Any]:
    """Return what of the toolkit is there.

    ``installed`` always; ``version``; ``cdi_file``, ``cdi_gpus`` and ``driver_version`` of the
    specification that engines use; ``char_links`` where there are device nodes.
    """
    found: dict[str, Any] = {"installed": True}
    outcome = host.call(PROGRAM, "--version")
    if outcome.rc == NOT_FOUND:
        found["installed"] = False
    else:
        version = _container_host.toolkit(lambda _argv, _s: outcome, host.timeout_s, PROGRAM)[1]
        if version:
            found["version"] = version
        else:
            notes.append(said(outcome, f"{PROGRAM} --version", host.timeout_s))
    spec = _specification(host, notes)
    if spec is not None:
        found["cdi_file"] = _on_host(host, spec.path)
        found["cdi_gpus"] = list(spec.devices)
        if len(spec.drivers) == 1:
            found["driver_version"] = spec.drivers[0]
        else:
            names = ", ".join(spec.drivers) or "no driver"
            notes.append(f"{found['cdi_file']} names the libraries of {names}")
    links = char_links(host)
    if links is not None:
        found["char_links"] = links
    return found


def _specification(host: Host, notes: list[str]) -> Spec | None:
    directories = [host.path(name) for name in _container_host.SPEC_DIRS]
    try:
        return effective(_container_host.read_specs(directories), "this host")
    except HostError as error:
        notes.append(error.message)
    except (OSError, ValueError) as error:
        notes.append(f"a CDI specification can't be read: {error}")
    return None


def _on_host(host: Host, path: str) -> str:
    return "/" + path[len(host.path("/")) :].lstrip("/")


def char_links(host: Host) -> bool | None:
    """Tell whether each node has its link in /dev/char; None when there are no nodes."""
    dev = host.path("/dev")
    names = [name for name in host.names("/dev") or [] if name.startswith("nvidia")]
    if not any(stat.S_ISCHR(os.stat(os.path.join(dev, name)).st_mode) for name in names):
        return None
    return not _container_host.missing_char_links(dev)
