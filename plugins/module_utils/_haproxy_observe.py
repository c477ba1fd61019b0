# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""See what a gateway does now: its servers, and the streams in every worker."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_socket import Runtime
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_stat import (
    AdminState,
    Counts,
    Key,
    Load,
    Processes,
    parse_info,
    parse_proc,
    parse_servers_state,
    parse_stat,
)

_EVERYTHING = "show info;show servers state;show stat"
_PAUSE_S = 0.1


@dataclass(frozen=True)
class Server:
    """One server of one backend, as the present worker has it.

    Attributes:
        streams: open streams in all workers.
        queued: requests that wait for this server, in all workers.
        errors: failed connections and answers since the workers' start.
    """

    backend: str
    name: str
    admin: AdminState
    status: str = "UP"
    streams: int = 0
    queued: int = 0
    errors: int = 0

    @property
    def key(self) -> Key:
        """Return backend and name."""
        return (self.backend, self.name)

    @property
    def target(self) -> str:
        """Return the form in which HAProxy's commands name it."""
        return f"{self.backend}/{self.name}"

    @property
    def serves(self) -> bool:
        """Tell whether new requests are given to it: in use, with a weight, and alive."""
        alive = self.status.startswith("UP") or self.status == "no check"
        return alive and self.admin.name == "ready" and self.admin.weight > 0


@dataclass(frozen=True)
class Worker:
    """A worker that a reload left behind, with its loads; it takes no orders any more."""

    pid: int
    loads: dict[Key, Load]

    def open_on(self, keys: Iterable[Key]) -> int:
        """Return how many streams it has open, or waiting, on some servers."""
        none = Load("", 0, 0)
        found = [self.loads.get(key, none) for key in keys]
        return sum(load.streams + load.queued for load in found)


@dataclass(frozen=True)
class Gateway:
    """HAProxy at one moment.

    Attributes:
        state_text: the answer to ``show servers state``, which is what its state file holds.
        errors: each worker's own count, by backend and server; where there were any.
    """

    version: str
    pid: int
    servers: tuple[Server, ...]
    workers: tuple[int, ...]
    old_workers: tuple[Worker, ...]
    state_text: str = ""
    errors: Counts = field(default_factory=dict)

    def these(self, keys: Iterable[Key]) -> tuple[Server, ...]:
        """Return the servers of some keys that there still are."""
        wanted = set(keys)
        return tuple(server for server in self.servers if server.key in wanted)


def observe(runtime: Runtime) -> Gateway:
    """Ask the present worker for everything, and the other workers for their streams.

    Raises:
        HostError: HAProxy doesn't answer, or answers something else.
    """
    end = runtime.clock() + runtime.patience_s
    while True:
        try:
            return _observe(runtime)
        except ValueError as error:  # a worker that ends in this moment answers in part, or not
            if runtime.clock() > end:
                raise HostError(
                    f"{runtime.gateway}: HAProxy's answer on {runtime.admin} or {runtime.master} "
                    f"can't be read: {error}.",
                    "See that these sockets belong to HAProxy 2.4 or newer.",
                ) from error
        runtime.sleep(_PAUSE_S)


def _observe(runtime: Runtime) -> Gateway:
    end = runtime.clock() + runtime.patience_s
    while True:
        text = runtime.ask(_EVERYTHING)
        info = parse_info(text.partition("\n\n")[0])
        pid = int(info.get("Pid", 0))
        processes = _processes(runtime, pid)
        if pid in processes.workers:
            break
        if runtime.clock() > end:  # for a moment of a reload, the old worker still has the socket
            raise HostError(
                f"{runtime.gateway}: the socket {runtime.admin} belongs to process {pid}, but the "
                f"master at {runtime.master} has the workers {list(processes.workers)}.",
                "Name the two sockets of one HAProxy.",
            )
        runtime.sleep(_PAUSE_S)
    others = {
        other: loads
        for other in (*processes.workers, *processes.old_workers)
        if other != pid
        for loads in [_loads(runtime, other)]
        if loads is not None
    }
    own = parse_stat(text)
    old = tuple(Worker(other, others[other]) for other in processes.old_workers if other in others)
    return Gateway(
        version=info.get("Version", ""),
        pid=pid,
        servers=_servers(own, parse_servers_state(text), list(others.values())),
        workers=processes.workers,
        old_workers=old,
        state_text=_state_text(text),
        errors={str(worker): _errors(loads) for worker, loads in [(pid, own), *others.items()]},
    )


def _processes(runtime: Runtime, pid: int) -> Processes:
    if not runtime.master:
        return Processes((pid,), ())
    return parse_proc(runtime.ask_master("show proc"))


def _loads(runtime: Runtime, pid: int) -> dict[Key, Load] | None:
    answer = runtime.ask_worker(pid, "show stat")
    return None if answer is None else parse_stat(answer)


def _errors(loads: dict[Key, Load]) -> dict[str, int]:
    return {"/".join(key): load.errors for key, load in loads.items() if load.errors}


def _servers(
    own: dict[Key, Load], admin: dict[Key, AdminState], others: list[dict[Key, Load]]
) -> tuple[Server, ...]:
    found = []
    for key, load in own.items():
        if key not in admin:
            raise ValueError(f"server {'/'.join(key)} is not in 'show servers state'")
        elsewhere = [loads[key] for loads in others if key in loads]
        found.append(
            Server(
                backend=key[0],
                name=key[1],
                admin=admin[key],
                status=load.status,
                streams=load.streams + sum(other.streams for other in elsewhere),
                queued=load.queued + sum(other.queued for other in elsewhere),
                errors=load.errors + sum(other.errors for other in elsewhere),
            )
        )
    return tuple(found)


def _state_text(text: str) -> str:
    """Return the part that a state file holds: its version, its columns, a line per server."""
    lines = text.splitlines()
    head = next(at for at, line in enumerate(lines) if line.startswith("# be_id"))
    end = next(at for at in range(head, len(lines) + 1) if at == len(lines) or not lines[at])
    return "\n".join(lines[head - 1 : end]) + "\n"


def as_dict(server: Server, model: str) -> dict[str, Any]:
    """Return the form in which results carry a server."""
    return {
        "backend": server.backend,
        "model": model,
        "server": server.name,
        "state": server.admin.name,
        "weight": server.admin.weight,
        "open_streams": server.streams,
        "queued": server.queued,
        "status": server.status,
    }
