# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Whose the processes are that use a GPU: systemd's unit, the container, the user.

A name is chosen by whoever starts the program. A control group is given by systemd or by the
container engine, and a user can't leave the own one.
"""

from __future__ import annotations

import glob
import os
import pwd
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SETTLE_SECONDS = 2.0  # a process that is ending has let go of its GPU by then
_INITIAL_PIDS = "pid:[4026531836]"  # linux/proc_ns.h, PROC_PID_INIT_INO
_PID_MAX_LIMIT = 4_194_304  # linux/threads.h; NVML has larger numbers for what it doesn't know
_UNIT = re.compile(r".+\.(?:service|scope|socket|mount|swap)$")
# docker-<id>.scope, libpod-<id>.scope, cri-containerd-<id>.scope, docker/<id>
_CONTAINER = re.compile(r"^(?:[a-z]+-)*([0-9a-f]{64})(?:\.scope)?$")

Facts = dict[str, Any]


@dataclass(frozen=True)
class Places:
    """Where the host shows its processes, and the files in which units keep their containers."""

    proc: str = "/proc"
    run: str = "/run"


def with_owners(
    facts: Facts,
    read_again: Callable[[], Facts],
    places: Places | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> Facts:
    """Return readings whose processes say ``unit``, ``container``, ``user`` and ``gone``.

    What isn't known is absent. A process may have ended just after the driver listed it, so one
    that is gone counts only when the driver still lists it a moment later.

    Args:
        facts: what ``read_gpus`` returned.
        read_again: reads the GPUs once more.
        places: where to look.
        wait: waits for some seconds.
    """
    places = places or Places()
    gone = {process["pid"] for process in _processes(facts) if is_gone(process["pid"], places)}
    if gone:
        wait(SETTLE_SECONDS)
        facts = read_again()
    for process in _processes(facts):
        pid = process["pid"]
        if pid in gone and is_gone(pid, places):
            process["gone"] = True
        process.update(owner_of(pid, places))
    return facts


def owner_of(pid: int, places: Places) -> dict[str, str]:
    """Return ``unit``, ``container`` and ``user`` of a process, as far as they are known."""
    found = {}
    path = _group(pid, places)
    container = next((match[1] for match in map(_CONTAINER.match, path) if match), "")
    unit = _unit(path)
    if container:
        found["container"] = container
    if container and (not unit or container in unit):  # one of an engine, not of systemd
        unit = _unit_of_container(container, places) or unit
    if unit:
        found["unit"] = unit
    user = _user(pid, places)
    if user:
        found["user"] = user
    return found


def is_gone(pid: int, places: Places) -> bool:
    """Tell whether there is no such process any more.

    The driver has the numbers of the host. In a namespace of its own, such as a container's,
    other processes have them or none, which says nothing.
    """
    try:
        namespace = os.readlink(f"{places.proc}/self/ns/pid")
    except OSError:
        return False
    if namespace != _INITIAL_PIDS or not 0 < pid <= _PID_MAX_LIMIT:
        return False
    if os.path.exists(f"{places.proc}/{pid}"):
        return False
    try:
        os.kill(pid, 0)  # mounted with hidepid, /proc hides processes that live
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _processes(facts: Facts) -> Iterator[dict[str, Any]]:
    for gpu in facts["gpus"]:
        yield from gpu.get("processes") or ()


def _group(pid: int, places: Places) -> list[str]:
    """Return the parts of a process's control group below that of the system that runs here."""
    groups = _groups(pid, places)
    # Version 2 alone has the line without a name only; where systemd keeps version 1, it has one.
    hierarchy = "name=systemd" if "name=systemd" in groups else ""
    parts = groups.get(hierarchy, [])
    root = _groups(1, places).get(hierarchy, [])
    if root[-1:] == ["init.scope"]:
        root = root[:-1]
    if parts[: len(root)] == root:  # a system within a container sees the container's own part
        parts = parts[len(root) :]
    return [] if parts[:1] == [".."] else parts  # ".." is outside of what can be seen


def _groups(pid: int, places: Places) -> Mapping[str, list[str]]:
    try:
        with open(f"{places.proc}/{pid}/cgroup", encoding="utf-8", errors="replace") as stream:
            lines = [line.rstrip("\n").split(":", 2) for line in stream]
    except OSError:  # it ended, or may not be read
        return {}
    return {
        fields[1]: [part for part in fields[2].split("/") if part]
        for fields in lines
        if len(fields) == 3
    }


def _unit(parts: list[str]) -> str:
    """Return the system's unit: the first part below the slices, whatever it made within itself.

    A user's own ``ollama.service`` lies within ``user@1000.service``.
    """
    outer = next((part for part in parts if not part.endswith(".slice")), "")
    return outer if _UNIT.match(outer) else ""


def _unit_of_container(container: str, places: Places) -> str:
    """Return the unit that runs a container, by the file in which it has the container's number."""
    for path in sorted(glob.glob(f"{places.run}/*.cid")):
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                written = stream.read().strip()
        except OSError:  # the container was removed, or it may not be read
            continue
        if written == container:
            return f"{os.path.basename(path)[: -len('.cid')]}.service"
    return ""


def _user(pid: int, places: Places) -> str:
    try:
        with open(f"{places.proc}/{pid}/status", encoding="utf-8", errors="replace") as stream:
            line = next((line for line in stream if line.startswith("Uid:")), "")
    except OSError:  # it ended, or may not be seen
        return ""
    numbers = line.split()[1:]
    if len(numbers) < 2:
        return ""
    effective = numbers[1]
    try:
        return pwd.getpwuid(int(effective)).pw_name
    except KeyError:
        return effective
