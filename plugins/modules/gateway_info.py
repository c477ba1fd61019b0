#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_info
short_description: Shows a gateway's servers, open streams, workers and drains
version_added: 0.2.0
description:
  - Asks HAProxy over its runtime interface. Nothing is changed.
  - Streams are counted in all workers, also in the old ones that a reload has left behind.
options:
  since:
    description:
      - An earlier look at the same gateway. The errors since then are counted, also across a
        reload, which begins HAProxy's counters anew.
    type: dict
    suboptions:
      worker:
        description: RV(worker) of it.
        type: int
        required: true
      error_counts:
        description: RV(error_counts) of it.
        type: dict
        required: true
extends_documentation_fragment:
  - hx_infra.llm.attributes
  - hx_infra.llm.gateway_runtime
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: See who serves what
  hx_infra.llm.gateway_info:
  delegate_to: gw-01
  register: traffic

- name: See which errors there were since
  hx_infra.llm.gateway_info:
    since: "{{ {'worker': traffic.worker, 'error_counts': traffic.error_counts} }}"
  delegate_to: gw-01
"""

RETURN = r"""
servers:
  description: Every server of every backend.
  returned: always
  type: list
  elements: dict
  contains:
    backend:
      description: The backend.
      type: str
    model:
      description: The model that the backend serves; the backend's name without a route.
      type: str
    server:
      description: The server's name.
      type: str
    host:
      description:
        - The inference host, as the routes have it, else out of the name. Empty for a name of
          another form.
      type: str
    engine:
      description: The engine, likewise.
      type: str
    address:
      description: Where the routes say that it is reached. Empty without a route.
      type: str
    port:
      description: The port there. V(0) without a route.
      type: int
    url:
      description: Both as a URL; an address of IPv6 stands in brackets. Empty without a route.
      type: str
      sample: http://llm-01:11434
    state:
      description: V(ready), V(drained) or V(maint).
      type: str
    weight:
      description: The weight that is set.
      type: int
    serves:
      description: Whether it gets new requests, that is V(ready), alive and of a weight.
      type: bool
    open_streams:
      description: Open streams in all workers.
      type: int
    queued:
      description: Requests that wait for this server, in all workers.
      type: int
    errors:
      description:
        - Failed connections, failed responses, answers that the server broke off and answers of
          status 5xx, summed over the workers that there are now. A reload starts a new count.
      type: int
    new_errors:
      description:
        - Those since the look in O(since). What a worker counted between its last look and its end
          isn't known.
      returned: with O(since)
      type: int
    status:
      description: HAProxy's own word, such as V(UP), V(DOWN), V(DRAIN) or V(MAINT).
      type: str
models:
  description: Every routed model.
  returned: always
  type: list
  elements: dict
  contains:
    model:
      description: Its public name.
      type: str
    backend:
      description: Its backend.
      type: str
    serving:
      description: The servers that get its requests now.
      type: list
      elements: str
notes:
  description: Who drained what. A note of a server that is not drained is left out.
  returned: always
  type: list
  elements: dict
  contains:
    backend:
      description: The backend.
      type: str
    server:
      description: The server's name.
      type: str
    host:
      description: The inference host.
      type: str
    owner:
      description: Who drained it.
      type: str
    since:
      description: When, in UTC.
      type: str
worker:
  description: Process id of the worker that takes new connections.
  returned: always
  type: int
workers:
  description: Process ids of the present workers.
  returned: always
  type: list
  elements: int
old_workers:
  description: Workers that a reload left behind, until their last stream has ended.
  returned: always
  type: list
  elements: dict
  contains:
    pid:
      description: The process id.
      type: int
    open_streams:
      description: Streams that it still has, on all servers.
      type: int
error_counts:
  description: Each worker's own errors by V(backend/server), where there were any; for O(since).
  returned: always
  type: dict
recounted:
  description: Why errors don't count from the look in O(since) on, in sentences.
  returned: with O(since)
  type: list
  elements: str
version:
  description: HAProxy's version.
  returned: always
  type: str
  sample: 2.6.12-1+deb12u4
moved:
  description:
    - Which servers' requests go elsewhere than O(routes_file) has it, in sentences. HAProxy looks
      names up only when it starts and when it is reloaded.
  returned: always
  type: list
  elements: str
routes_found:
  description: Whether O(routes_file) is there.
  returned: always
  type: bool
"""

import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_files import (
    DrainNotes,
    read_routes,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_observe import (
    Gateway,
    Server,
    as_dict,
    observe,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_options import (
    RUNTIME_OPTIONS,
    runtime_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_places import (
    addresses_of,
    endpoint,
    moved,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_plan import (
    Owners,
    model_of,
    owner_of,
    owner_parts,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_stat import new_errors

ARGUMENTS: dict[str, dict[str, Any]] = {
    **RUNTIME_OPTIONS,
    "since": {
        "type": "dict",
        "options": {
            "worker": {"type": "int", "required": True},
            "error_counts": {"type": "dict", "required": True},
        },
    },
}


def run(params: dict[str, Any]) -> dict[str, Any]:
    """Return what the gateway does now.

    Raises:
        HostError: HAProxy doesn't answer, or a file of ours can't be read.
    """
    name = params["gateway"] or platform.node()
    routes = read_routes(name, params["routes_file"])
    notes = DrainNotes(params["notes_file"]).read()
    gateway = observe(runtime_of(params, name))
    servers = gateway.servers
    fresh, recounted = _since(name, gateway, params["since"])
    return {
        "changed": False,
        "servers": [
            {
                **as_dict(server, model_of(server.backend, routes.backends)),
                **dict(zip(("host", "engine"), owner_parts(server, routes.owners))),
                **_place(routes.places.get(server.key)),
                "serves": server.serves,
                "errors": server.errors,
                **({} if fresh is None else {"new_errors": fresh.get(server.target, 0)}),
            }
            for server in servers
        ],
        "models": [
            {
                "model": model,
                "backend": backend,
                "serving": [s.name for s in servers if s.backend == backend and s.serves],
            }
            for model, backend in sorted(routes.backends.items())
        ],
        "notes": [
            _note(server, notes[server.target], routes.owners)
            for server in servers
            if owner_of(server, notes) is not None
        ],
        "worker": gateway.pid,
        "workers": list(gateway.workers),
        "old_workers": [
            {"pid": worker.pid, "open_streams": worker.open_on(worker.loads)}
            for worker in gateway.old_workers
        ],
        "error_counts": gateway.errors,
        **({} if fresh is None else {"recounted": recounted}),
        "version": gateway.version,
        "routes_found": routes.found,
        "moved": list(moved(name, gateway, servers, routes.places, addresses_of)),
    }


def _place(place: tuple[str, int] | None) -> dict[str, Any]:
    if place is None:
        return {"address": "", "port": 0, "url": ""}
    return {"address": place[0], "port": place[1], "url": f"http://{endpoint(*place)}"}


def _since(
    name: str, gateway: Gateway, since: dict[str, Any] | None
) -> tuple[dict[str, int] | None, list[str]]:
    """Return the errors since an earlier look, None without one, and what to say about them."""
    if since is None:
        return None, []
    before = {
        str(worker): {str(target): int(count) for target, count in counts.items()}
        for worker, counts in since["error_counts"].items()
    }
    fresh, cleared = new_errors(gateway.errors, before)
    told = [
        f"{name}: the counters of HAProxy's worker {worker} were cleared since the earlier look; "
        "errors count from then on."
        for worker in cleared
    ]
    if gateway.pid != since["worker"]:
        told.append(
            f"{name}: HAProxy was reloaded since the earlier look (worker {since['worker']} then, "
            f"{gateway.pid} now); errors count from the new worker's start on, and what the one "
            "before it counts until its end is lost with it."
        )
    return fresh, told


def _note(server: Server, note: dict[str, Any], owners: Owners) -> dict[str, Any]:
    return {
        "backend": server.backend,
        "server": server.name,
        "host": owner_parts(server, owners)[0],
        "owner": str(note.get("owner", "")),
        "since": str(note.get("since", "")),
    }


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = run(module.params)
    except HostError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
