# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Whether a host is stable after a service was rolled back: a definition that can be checked.

Stable is when, some seconds after the proving request, the service is active with the process that
answered and was not restarted, the host's other vLLM services that were active still are, the
kernel has killed nothing for want of memory, and there is memory left.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_observe import memory_available

# Below that, the next larger request or login makes the kernel choose what to kill.
MEMORY_FLOOR = 256 * 1024**2
_MIB = 1024**2

Runner = Callable[[Sequence[str]], "tuple[int, str, str]"]


@dataclass(frozen=True)
class Sight:
    """What is looked at before and after; None is a value that isn't known.

    Attributes:
        active: the active units of the service's template, itself included.
        oom_kills: what the kernel has killed for want of memory since it booted.
        memory: bytes that programs can have.
    """

    active: frozenset[str] = frozenset()
    oom_kills: int | None = None
    memory: int | None = None


def look(unit: str, run: Runner, proc: str = "/proc") -> Sight:
    """Look at the host that a unit runs on."""
    return Sight(active_units(unit, run), oom_kills(proc), memory_available(proc))


def active_units(unit: str, run: Runner) -> frozenset[str]:
    """Return the active units of the template that a unit is an instance of."""
    pattern = f"{unit.partition('@')[0]}@*.service"
    argv = ["systemctl", "list-units", "--type=service", "--state=active", "--plain"]
    _rc, out, _err = run([*argv, "--no-legend", "--no-pager", pattern])
    return frozenset(line.split()[0] for line in out.splitlines() if line.split())


def oom_kills(proc: str = "/proc") -> int | None:
    """Return how often the kernel has killed for want of memory, a limit's or the host's."""
    with contextlib.suppress(OSError), open(f"{proc}/vmstat", encoding="ascii") as stream:
        for line in stream:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None


def unchanged(unit: str, begun: Mapping[str, str], ended: Mapping[str, str]) -> str:
    """Return what is not as it was when a unit had started, empty when all is."""
    if ended.get("ActiveState") != "active":
        return f"{unit} is {ended.get('ActiveState', 'unknown')}, wanted active"
    for name in ("MainPID", "NRestarts"):
        if ended.get(name) != begun.get(name):
            return (
                f"{unit} has {name}={ended.get(name, 'none')}, wanted"
                f" {begun.get(name, 'none')} as after its start"
            )
    return ""


def unstable(unit: str, before: Sight, after: Sight) -> str:
    """Return what on the host isn't stable, empty when all is."""
    lost = sorted(before.active - after.active - {unit})
    if lost:
        return f"{', '.join(lost)} was active before and isn't any more, wanted untouched"
    killed = killed_between(before, after)
    if killed:
        return f"the kernel has killed {killed} times for want of memory, wanted none"
    if after.memory is not None and after.memory < MEMORY_FLOOR:
        return (
            f"{after.memory // _MIB} MiB of memory are available, wanted at least"
            f" {MEMORY_FLOOR // _MIB} MiB"
        )
    return ""


def killed_between(before: Sight, after: Sight) -> int | None:
    """Return how often the kernel has killed for want of memory; None where it doesn't count."""
    if before.oom_kills is None or after.oom_kills is None:
        return None
    return after.oom_kills - before.oom_kills


def sentence(unit: str, proof: Mapping[str, Any]) -> str:
    """Say in one line what a rollback has proven."""
    parts = []
    if proof.get("port_free"):
        parts.append(f"port {proof['port']} was free after its stop")
    if proof.get("ttft_ms") is not None:
        parts.append(f"a request was answered (first token after {proof['ttft_ms']:.0f} ms)")
    parts.append(
        f"for {proof['stable_seconds']:g} s it stayed active with process {proof['main_pid']}"
        f" and {proof['restarts']} restarts"
    )
    others = proof["active_units"]
    parts.append(f"other vLLM services active as before: {', '.join(others) or 'none there'}")
    if proof.get("oom_kills") is not None:
        parts.append("nothing killed for want of memory")
    if proof.get("memory_available_bytes") is not None:
        parts.append(f"{proof['memory_available_bytes'] // _MIB} MiB available")
    where = f" on {proof['release']}" if proof.get("release") else ""
    return f"{unit} serves again{where}: {'; '.join(parts)}."
