# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Where the gateway really sends a server's requests, against where the server's name leads now.

HAProxy looks names up when it starts and when it is reloaded. A host that has moved since then may
have left its address to another one, which would get the requests that it is thought to be spared.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_observe import (
    Gateway,
    Server,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_stat import (
    Key,
    parse_places,
)

REMEDY = "Reload HAProxy, so that it looks the names up again: systemctl reload haproxy."
Resolve = Callable[[str], set[str]]


def endpoint(address: str, port: int) -> str:
    """Return an address with its port; one of IPv6 stands in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@functools.cache
def addresses_of(name: str) -> set[str]:
    """Return the addresses that a name leads to; none when it can't be resolved."""
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(name, None)}
    except OSError:
        return set()


def moved(
    name: str,
    gateway: Gateway,
    selected: Iterable[Server],
    places: Mapping[Key, tuple[str, int]],
    resolve: Resolve,
) -> Iterator[str]:
    """Say which of the selected servers' requests go elsewhere than the routes have it by now."""
    now = parse_places(gateway.state_text)
    for server in selected:
        declared, used = places.get(server.key), now.get(server.key)
        if declared is None or used is None:
            continue
        there = resolve(declared[0])  # where that fails, HAProxy couldn't do better
        if (there and used[0] not in there) or used[1] != declared[1]:
            address = "nowhere" if used[0] == "-" else f"to {endpoint(*used)}"
            yield (
                f"{name}: {server.target} goes {address}; wanted {endpoint(*declared)}, "
                f"which is {' or '.join(sorted(there)) or 'unknown'} now. {REMEDY}"
            )


def misled(
    name: str,
    gateway: Gateway,
    selected: Iterable[Server],
    places: Mapping[Key, tuple[str, int]],
    resolve: Resolve,
) -> HostError | None:
    """Return the error for another server whose requests would reach a drained one's engine."""
    now = parse_places(gateway.state_text)
    chosen = list(selected)
    keys = {server.key for server in chosen}
    for server in chosen:
        declared = places.get(server.key)
        there = resolve(declared[0]) if declared is not None else set()
        for other in gateway.servers:
            address, port = now.get(other.key, ("-", 0))
            if other.backend != server.backend or other.key in keys or not declared:
                continue
            if address in there and port == declared[1] and other.admin.name == "ready":
                return HostError(
                    f"{name}: {server.target} can't be drained: the requests for {other.target} "
                    f"go to {endpoint(address, port)}, which is where {declared[0]} is now.",
                    REMEDY,
                )
    return None
