# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""CDI specifications for GPUs: reading them, and telling whether one still fits its host.

The Container Device Interface names the devices that an engine may hand to a container and lists
the files that come with them. Such a file is written once and describes the driver of that day:
after a driver upgrade or a change of cards it names files that are gone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

KIND = "nvidia.com/gpu"
SUFFIXES = (".yaml", ".yml", ".json")
_DRIVER_FILE = re.compile(r"/lib[^/]+\.so\.(\d{3,4}\.\d+(?:\.\d+)?)$")
_TOP_LEVEL = re.compile(r"^([A-Za-z]+):\s*(.*)$")
_NAME = re.compile(r"^(\s*)(- )?name:\s*(.+)$")
_PATHS = re.compile(r"^\s*(?:- )?(hostPath|containerPath|path):\s*(.+)$")


@dataclass(frozen=True)
class Spec:
    """What a CDI specification says, as far as it matters here.

    Attributes:
        path: the file.
        version: the version of the format.
        kind: vendor and class of the devices.
        devices: their names: UUIDs, indexes, ``all``.
        host_paths: files and devices of the host that it hands in, hooks included.
        drivers: driver versions in the names of those files.
    """

    path: str
    version: str
    kind: str
    devices: tuple[str, ...]
    host_paths: tuple[str, ...]
    drivers: tuple[str, ...]


def parse_spec(path: str, text: str) -> Spec:
    """Read a specification, JSON or the block form of YAML that its generators write.

    Raises:
        HostError: the file is no CDI specification.
    """
    if path.endswith(".json"):
        return _from_json(path, text)
    return _from_yaml(path, text)


def reasons_stale(
    spec: Spec, uuids: Iterable[str], driver: str, exists: Callable[[str], bool]
) -> list[str]:
    """Say in sentences what a specification gets wrong about the host; empty when nothing is.

    Args:
        spec: the specification.
        uuids: UUIDs of the host's GPUs.
        driver: version of the driver that is loaded.
        exists: tells whether a path is there on the host.
    """
    reasons = []
    named = set(spec.devices)
    wanted = set(uuids)
    missing = sorted(wanted - named)
    if missing:
        reasons.append(f"it does not name {', '.join(missing)}")
    gone = sorted(name for name in named - wanted if name.startswith("GPU-"))
    if gone:
        reasons.append(f"it names {', '.join(gone)}, which the host does not have")
    if "all" not in named:
        reasons.append("it has no device 'all'")
    if not spec.drivers:
        reasons.append(f"it names no library of the driver {driver}")
    elif list(spec.drivers) != [driver]:
        reasons.append(f"it is for driver {', '.join(spec.drivers)}, the host runs {driver}")
    lost = [path for path in spec.host_paths if not exists(path)]
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        reasons.append(f"it names {lost[0]}{more}, which is not there")
    return reasons


def effective(specs: Mapping[str, Sequence[Spec]], host: str) -> Spec | None:
    """Return the specification that engines use: the one in the directory of the highest rank.

    Args:
        specs: the specifications per directory, the highest rank first.
        host: name of the host in messages.

    Raises:
        HostError: two in one directory; engines then resolve no device at all.
    """
    for directory, found in specs.items():
        ours = [spec for spec in found if spec.kind == KIND]
        if len(ours) > 1:
            names = ", ".join(spec.path for spec in ours)
            raise HostError(
                f"{host}: {directory} holds {len(ours)} CDI specifications for {KIND} ({names}), "
                "wanted: one. Engines resolve no device that two files define.",
                "Remove all but one, or all: the next run writes a new one.",
            )
        if ours:
            return ours[0]
    return None


def _drivers(paths: Iterable[str]) -> tuple[str, ...]:
    found = {match.group(1) for path in paths if (match := _DRIVER_FILE.search(path))}
    return tuple(sorted(found))


def _spec(
    path: str, head: tuple[str, str], devices: list[str], host: list[str], inside: list[str]
) -> Spec:
    version, kind = head
    if not kind or not version:
        raise HostError(
            f"{path}: no CDI specification: it has "
            f"{'no kind' if not kind else 'no cdiVersion'}, wanted: cdiVersion, kind and devices.",
            "Remove it; nvidia-ctk cdi generate writes a new one.",
        )
    unique = tuple(dict.fromkeys(host))
    return Spec(path, version, kind, tuple(devices), unique, _drivers([*host, *inside]))


def _from_json(path: str, text: str) -> Spec:
    try:
        content = json.loads(text)
        edits = [content.get("containerEdits") or {}]
        edits += [device.get("containerEdits") or {} for device in content.get("devices") or []]
        host, inside = [], []
        for edit in edits:
            for mount in edit.get("mounts") or []:
                host.append(mount["hostPath"])
                inside.append(mount["containerPath"])
            for node in edit.get("deviceNodes") or []:
                host.append(node.get("hostPath") or node["path"])
            host += [hook["path"] for hook in edit.get("hooks") or []]
        names = [str(device["name"]) for device in content.get("devices") or []]
        version, kind = str(content.get("cdiVersion", "")), str(content.get("kind", ""))
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise HostError(
            f"{path}: no CDI specification: {error!r}.",
            "Remove it; nvidia-ctk cdi generate writes a new one.",
        ) from error
    return _spec(path, (version, kind), names, host, inside)


def _plain(value: str) -> str:
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value


def _from_yaml(path: str, text: str) -> Spec:
    top: dict[str, str] = {}
    section, indent = "", -1
    devices: list[str] = []
    host: list[str] = []
    inside: list[str] = []
    for line in text.splitlines():
        if match := _TOP_LEVEL.match(line):
            section, indent = match.group(1), -1
            top[section] = _plain(match.group(2))
            continue
        if section == "devices":
            if indent < 0 and line.lstrip().startswith("- "):
                indent = len(line) - len(line.lstrip()) + 2
            if (match := _NAME.match(line)) and len(match[1] + (match[2] or "")) == indent:
                devices.append(_plain(match[3]))
        if match := _PATHS.match(line):
            value = _plain(match.group(2))
            if match.group(1) == "containerPath":
                inside.append(value)
            elif value.startswith("/"):
                host.append(value)
    head = (top.get("cdiVersion", ""), top.get("kind", ""))
    return _spec(path, head, devices, host, inside)
