# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Read from a host what a plan of vLLM services has to know about it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_LISTEN = "0A"


@dataclass(frozen=True)
class Listener:
    """A TCP socket that listens; ``pid`` is 0 when its process can't be seen."""

    address: str
    port: int
    pid: int = 0
    name: str = ""
    units: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Host:
    """What was observed; None is a value that isn't known."""

    listeners: tuple[Listener, ...] = ()
    memory_available: int | None = None
    unit_memory: dict[str, int] = field(default_factory=dict)  # bytes by unit
    unit_pids: dict[str, frozenset[int]] = field(default_factory=dict)
    addresses: dict[str, tuple[str, ...]] = field(default_factory=dict)  # resolved, by name
    local: frozenset[str] = frozenset()  # those of them that this host has


def observe(
    names: Iterable[str],
    units: Iterable[str],
    proc: str = "/proc",
    *,
    more_pids: Mapping[str, Iterable[int]] | None = None,
    run: str = "/run",
) -> Host:
    """Read listeners, memory, the processes of some units, and what some names resolve to.

    ``more_pids`` are processes that belong to a unit although their control group is another's.
    Those of a unit's own container are found without being told.
    """
    asked = frozenset(units)
    pids = unit_pids(asked, proc)
    for found in (container_pids(asked, proc, run), more_pids or {}):
        for unit, more in found.items():
            pids[unit] = pids.get(unit, frozenset()) | frozenset(more)
    addresses = {name: resolve(name) for name in sorted(set(names))}
    every = {address for found in addresses.values() for address in found}
    return Host(
        listeners=tuple(listeners(proc)),
        memory_available=memory_available(proc),
        unit_memory={unit: sum(_resident(proc, pid) for pid in pids[unit]) for unit in pids},
        unit_pids=pids,
        addresses=addresses,
        local=frozenset(address for address in every if is_local(address)),
    )


def listeners(proc: str = "/proc") -> list[Listener]:
    """List the TCP sockets that listen, with the process that holds each."""
    sockets: dict[str, tuple[str, int]] = {}
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"{proc}/net/{table}", encoding="ascii") as stream:
            for line in list(stream)[1:]:
                fields = line.split()
                if len(fields) > 9 and fields[3] == _LISTEN:
                    sockets[fields[9]] = _endpoint(fields[1])
    owners = _owners(frozenset(sockets), proc)
    result = []
    for inode, (address, port) in sorted(sockets.items(), key=lambda item: item[1][1]):
        pid = owners.get(inode, 0)
        name, units = (_comm(proc, pid), _units(proc, pid)) if pid else ("", frozenset())
        result.append(Listener(address, port, pid, name, units))
    return result


def _endpoint(text: str) -> tuple[str, int]:
    """Decode the kernel's ``0100007F:1F41``; words are in the machine's byte order."""
    raw, _colon, port = text.partition(":")
    words = [int(raw[start : start + 8], 16) for start in range(0, len(raw), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    address = socket.inet_ntop(family, packed)
    return address[7:] if address.startswith("::ffff:") else address, int(port, 16)


def _owners(inodes: frozenset[str], proc: str) -> dict[str, int]:
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    result: dict[str, int] = {}
    for pid in _pids(proc):
        with contextlib.suppress(OSError):
            for number in os.listdir(f"{proc}/{pid}/fd"):
                with contextlib.suppress(OSError):
                    inode = wanted.get(os.readlink(f"{proc}/{pid}/fd/{number}"))
                    if inode is not None:
                        result.setdefault(inode, pid)
    return result


def unit_pids(units: frozenset[str], proc: str = "/proc") -> dict[str, frozenset[int]]:
    """Return the processes of each unit."""
    found: dict[str, set[int]] = {unit: set() for unit in units}
    for pid in _pids(proc) if units else ():
        for unit in _units(proc, pid) & units:
            found[unit].add(pid)
    return {unit: frozenset(pids) for unit, pids in found.items()}


def container_pids(
    units: frozenset[str], proc: str = "/proc", run: str = "/run"
) -> dict[str, frozenset[int]]:
    """Return the processes of the containers that units have started, by unit.

    An engine puts a container, and its own process beside it, into control groups that are named
    after the container's id; the unit has that written to a file of its own name.
    """
    containers = {unit: found for unit in units if (found := _container_id(run, unit))}
    groups = {pid: _read(f"{proc}/{pid}/cgroup") for pid in (_pids(proc) if containers else ())}
    return {
        unit: frozenset(pid for pid, group in groups.items() if container in group)
        for unit, container in containers.items()
    }


def _container_id(run: str, unit: str) -> str:
    found = _read(f"{run}/{unit.rsplit('.', 1)[0]}.cid").strip()
    return found if re.fullmatch(r"[0-9a-f]{64}", found) else ""


def _read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as stream:
        return stream.read()
    return ""


def memory_available(proc: str = "/proc") -> int | None:
    """Return the memory that programs can have without swapping, in bytes."""
    with contextlib.suppress(OSError), open(f"{proc}/meminfo", encoding="ascii") as stream:
        for line in stream:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _resident(proc: str, pid: int) -> int:
    with contextlib.suppress(OSError), open(f"{proc}/{pid}/status", encoding="utf-8") as stream:
        for line in stream:
            if line.startswith("RssAnon:"):  # shared pages would be counted twice
                return int(line.split()[1]) * 1024
    return 0


def resolve(name: str) -> tuple[str, ...]:
    """Return the addresses of a name; empty when it has none."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(item[4][0]) for item in found))


def is_local(address: str) -> bool:
    """Tell whether this host has an address, by binding to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _pids(proc: str) -> list[int]:
    return sorted(int(name) for name in os.listdir(proc) if name.isdigit())


def _comm(proc: str, pid: int) -> str:
    with contextlib.suppress(OSError), open(f"{proc}/{pid}/comm", encoding="utf-8") as stream:
        return stream.read().strip()
    return "unknown"


def _units(proc: str, pid: int) -> frozenset[str]:
    with contextlib.suppress(OSError), open(f"{proc}/{pid}/cgroup", encoding="utf-8") as stream:
        parts = (part for line in stream for part in line.strip().split("/"))
        return frozenset(part for part in parts if part.endswith(".service"))
    return frozenset()
