# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Processes that hold something below a directory, read from /proc."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

_ACCESS_MASK = 0o3  # O_RDONLY is 0


@dataclass(frozen=True)
class Holder:
    """A process and one thing that it holds below a directory."""

    pid: int
    name: str
    path: str
    writes: bool
    units: frozenset[str]

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid}) holds {self.path}"


def holders(directory: str, proc: str = "/proc", *, files_only: bool = False) -> list[Holder]:
    """List the processes with an open file, mapping, working or root directory in a directory.

    One entry per process: the first thing found, a file open for writing before others.

    Args:
        directory: absolute path without links.
        proc: where the kernel shows its processes.
        files_only: look at open files alone, which is much faster on a busy host.
    """
    found = []
    for pid in _pids(proc):
        if pid == os.getpid():
            continue
        base = f"{proc}/{pid}"
        held = list(_held(base, directory.rstrip("/"), files_only))
        if held:
            path, writes = max(held, key=lambda item: item[1])
            found.append(Holder(pid, _comm(base), path, writes, _units(base)))
    return found


def environment(pid: int, proc: str = "/proc") -> dict[str, str]:
    """Return a running process's environment; empty when it cannot be read."""
    try:
        with open(f"{proc}/{pid}/environ", "rb") as stream:
            pairs = stream.read().split(b"\0")
    except OSError:
        return {}
    split = (os.fsdecode(pair).partition("=") for pair in pairs if b"=" in pair)
    return {key: value for key, _mark, value in split}


def _pids(proc: str) -> Iterable[int]:
    return sorted(int(name) for name in os.listdir(proc) if name.isdigit())


def _below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")


def _held(base: str, directory: str, files_only: bool) -> Iterable[tuple[str, bool]]:
    for name in () if files_only else ("cwd", "root", "exe"):
        with contextlib.suppress(OSError):
            path = os.readlink(f"{base}/{name}")
            if _below(path, directory):
                yield path, False
    with contextlib.suppress(OSError):
        for number in os.listdir(f"{base}/fd"):
            with contextlib.suppress(OSError):
                path = os.readlink(f"{base}/fd/{number}")
                if _below(path, directory):
                    yield path, _open_for_writing(base, number)
    if files_only:
        return
    maps = f"{base}/maps"
    with contextlib.suppress(OSError), open(maps, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            fields = line.rstrip("\n").split(None, 5)
            if len(fields) == 6 and _below(fields[5], directory):
                yield fields[5], False


def _open_for_writing(base: str, number: str) -> bool:
    with contextlib.suppress(OSError), open(f"{base}/fdinfo/{number}", encoding="ascii") as stream:
        for line in stream:
            if line.startswith("flags:"):
                return bool(int(line.split()[1], 8) & _ACCESS_MASK)
    return False


def _comm(base: str) -> str:
    with contextlib.suppress(OSError), open(f"{base}/comm", encoding="utf-8") as stream:
        return stream.read().strip()
    return "unknown"


def _units(base: str) -> frozenset[str]:
    with contextlib.suppress(OSError), open(f"{base}/cgroup", encoding="utf-8") as stream:
        parts = (part for line in stream for part in line.strip().split("/"))
        return frozenset(part for part in parts if part.endswith(".service"))
    return frozenset()
