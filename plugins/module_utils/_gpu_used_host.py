# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Which processes of this host are an engine's: the one that listens, and all below it."""

from __future__ import annotations

import os

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import parse_url
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used import Owners, has_name
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used_engines import Engine
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_observe import (
    is_local,
    listeners,
    resolve,
)


def elsewhere(url: str) -> str:
    """Say why the GPUs of this host are not those of an engine; empty when they are."""
    host = parse_url(url).host
    if any(is_local(address) for address in resolve(host)):
        return ""
    return f"the engine at {host} is not on this host"


def owners_of(url: str, engine: Engine, proc: str = "/proc") -> Owners:
    """Return the processes of the engine that listens at a local address.

    Who listens can be seen by root, and by the user of the engine; others have the names only.
    """
    port = parse_url(url).port
    pids: set[int] = set()
    known = False
    for listener in listeners(proc):
        if listener.port == port and listener.pid > 1:  # systemd may hold a socket for a service
            pids.add(listener.pid)
            known = known or has_name(listener.name, engine.listeners)
    return Owners(frozenset(with_children(pids, proc)), known, engine.names)


def with_children(pids: set[int], proc: str = "/proc") -> set[int]:
    """Return processes with all that they have started, at whatever depth, and that still live."""
    children: dict[int, list[int]] = {}
    for name in os.listdir(proc) if pids else ():
        if name.isdigit():
            children.setdefault(_parent(proc, name), []).append(int(name))
    found, waiting = set(pids), list(pids)
    while waiting:
        more = [pid for pid in children.get(waiting.pop(), ()) if pid not in found]
        found.update(more)
        waiting += more
    return found


def _parent(proc: str, pid: str) -> int:
    """Return the parent's number; 0 when the process is gone (proc(5), the fourth field)."""
    try:
        with open(f"{proc}/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return int(stream.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0
