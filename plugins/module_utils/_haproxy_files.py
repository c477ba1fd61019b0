# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The gateway's files: who drained what, the servers' saved state, the routes, and a lock."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import write_atomic
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_stat import (
    AdminState,
    Key,
    parse_servers_state,
    with_ports,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._journal import Journal, RunLock
from ansible_collections.hx_infra.llm.plugins.module_utils._timestamp import utc

LOCK_WAIT_S = 60.0  # another run holds it for a few commands only, never while it waits
_PAUSE_S = 0.1


@dataclass(frozen=True)
class Routes:
    """The rendered routes.

    Attributes:
        backends: each model's backend.
        places: each server's address and port.
        owners: each server's host and engine.
        found: whether there is a file of them.
    """

    backends: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[Key, tuple[str, int]] = field(default_factory=dict)
    owners: Mapping[Key, tuple[str, str]] = field(default_factory=dict)
    found: bool = True


def read_routes(gateway: str, path: str) -> Routes:
    """Read the routes that the gateway's role has rendered; ``found`` is false without the file.

    Raises:
        HostError: the file can't be read.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
        backends = {str(route["model"]): str(route["backend"]) for route in content}
        servers = {
            (str(route["backend"]), str(server["name"])): server
            for route in content
            for server in route["servers"]
        }
        places = {key: (str(one["address"]), int(one["port"])) for key, one in servers.items()}
        owners = {
            key: (str(one["host"]), str(one["engine"]))
            for key, one in servers.items()
            if "host" in one and "engine" in one
        }
    except FileNotFoundError:
        return Routes(found=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HostError(
            f"{gateway}: the routes in {path} can't be read: {error!r}; wanted a list of model, "
            "backend and servers.",
            "Let the gateway role write the file anew.",
        ) from error
    return Routes(backends, places, owners)


class DrainNotes:
    """Who drained which server, and since when.

    Args:
        path: the file of notes.
    """

    def __init__(self, path: str) -> None:
        self._journal = Journal(path)

    def read(self) -> dict[str, dict[str, Any]]:
        """Return ``owner`` and ``since`` by ``backend/server``."""
        servers = self._journal.read().get("servers", {})
        return {str(target): dict(note) for target, note in servers.items()}

    def add(self, targets: Iterable[str], owner: str) -> None:
        """Note an owner for some servers, in place of any other."""
        since = utc(time.time())
        notes = {target: {"owner": owner, "since": since} for target in targets}
        self._journal.write({"servers": {**self.read(), **notes}})

    def remove(self, targets: Iterable[str]) -> None:
        """Forget some servers."""
        gone = set(targets)
        left = {target: note for target, note in self.read().items() if target not in gone}
        self._journal.write({"servers": left})


def read_state(path: str) -> dict[Key, AdminState]:
    """Return what a state file would bring back; nothing when HAProxy couldn't read it either."""
    if not path:
        return {}
    try:
        with open(path, encoding="utf-8") as stream:
            return parse_servers_state(stream.read())
    except (FileNotFoundError, ValueError):
        return {}


def check_state_directory(gateway: str, path: str) -> None:
    """Refuse a state file that can't be written, before anything is changed."""
    directory = os.path.dirname(path)
    if path and not os.path.isdir(directory):
        raise HostError(
            f"{gateway}: the directory {directory} of the state file {path} is missing; without "
            "it HAProxy forgets drains and weights at its next reload.",
            "Create it, or name the file of HAProxy's 'server-state-file'.",
        )


def write_state(path: str, text: str, places: Mapping[Key, tuple[str, int]]) -> None:
    """Replace the state file as a whole.

    HAProxy takes a server's port from this file, also when its configuration has another one by
    then. So the routes' port is written, not the one that the present worker still has.
    """
    write_atomic(path, with_ports(text, places).encode(), 0o644)


@contextlib.contextmanager
def locked(
    notes_file: str,
    gateway: str,
    *,
    create: bool,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the lock that keeps two runs from deciding at once about one gateway.

    Raises:
        HostError: another run held it for too long.
    """
    path = os.path.join(os.path.dirname(notes_file), "traffic.lock")
    end = clock() + LOCK_WAIT_S
    while True:
        lock = RunLock(path, f"the traffic of {gateway}", create=create)
        try:
            lock.__enter__()
            break
        except HostError:
            if clock() > end:
                raise
            sleep(_PAUSE_S)
    try:
        yield
    finally:
        lock.__exit__()
