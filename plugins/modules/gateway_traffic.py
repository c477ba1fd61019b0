#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_traffic
short_description: Drains a host at the gateway, gives it requests again, or changes its weight
version_added: 0.2.0
description:
  - Sets servers of HAProxy over its runtime interface, without a reload. A drained server gets no
    new requests; its open streams go on, and the module waits until the last one has ended.
  - Streams are counted in all workers, also in the old ones that a reload has left behind. They
    take no orders and still give requests to a drained host, so the module waits for their end
    before it drains and again afterwards.
  - Whoever drains is noted in O(notes_file) first. The servers' state is saved to O(state_file)
    after each change, so that neither a reload nor a restart of HAProxy forgets it. A run that was
    killed is completed by the next one.
  - C(changed) tells of states and weights only, never of streams, so a second run changes
    nothing while traffic goes on.
  - HAProxy looks the servers' names up only when it starts and when it is reloaded. A server whose
    name leads elsewhere by now is a warning. When the requests for another server would reach a
    drained one for that reason, the drain is refused.
  - A dead server that is drained shows the status V(DOWN) and counts as drained. One in
    maintenance gets no requests either and is left as it is by O(state=drained).
extends_documentation_fragment:
  - hx_infra.llm.attributes
  - hx_infra.llm.gateway_runtime
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  host:
    description:
      - Selects the servers of this inference host, in every backend, as O(routes_file) has them.
        Those that it doesn't have are taken by their names, C(<host>.<engine>) or
        C(<host>.<engine>.<service>).
      - One of O(host) and O(server) is required.
    type: str
  server:
    description: Selects the servers of exactly this name, in every backend.
    type: str
  engine:
    description: Takes only the servers of this engine.
    type: str
    choices: [ollama, vllm]
  model:
    description: Takes only the servers of this model, by its public name.
    type: str
  state:
    description:
      - V(drained) lets no new request through and waits for the open streams.
      - V(ready) gives requests again, also to a server in maintenance; its weight stays.
      - V(weighted) sets O(weight); a drained server stays drained.
    type: str
    choices: [drained, ready, weighted]
    required: true
  weight:
    description: The weight from 0 to 10, for O(state=weighted). A server of weight 0 gets nothing.
    type: int
  budget:
    description:
      - Seconds that open streams have to end. The longest answer that is allowed is a good value.
      - With V(0) nothing is waited for, and O(on_deadline) only matters for V(cut), which then
        cuts at once.
    type: int
    default: 900
  on_deadline:
    description:
      - What happens when streams are still open after O(budget).
      - V(fail) fails, V(leave) goes on with a warning, V(cut) ends them, and their clients see a
        broken answer. The host stays drained in each case.
      - Old workers that are left by then fail with V(fail) and are a warning otherwise.
    type: str
    choices: [fail, cut, leave]
    default: fail
  reload_wait:
    description:
      - Seconds to wait before a drain for old workers that a reload left behind. When they are
        still there after that, the host is drained, and they are named while their streams are
        awaited.
    type: int
    default: 60
  allow_last:
    description:
      - Whether the last serving host of a model may be drained, or get weight 0. It is refused
        otherwise. A host that is down, in maintenance, drained or of weight 0 doesn't serve.
    type: bool
    default: false
  owner:
    description: Who drains, a word for the note.
    type: str
    default: ""
  only_owner:
    description:
      - With O(state=ready), leaves servers as they are that O(owner) has not drained, and says so.
    type: bool
    default: false
  assume_drained:
    description:
      - In check mode with O(state=ready), the owner that an earlier step of the same dry run would
        have drained the servers for. The plan is then the one of a real run.
    type: str
    default: ""
  state_file:
    description:
      - HAProxy's C(server-state-file). Nothing is saved when empty; then a reload forgets drains
        and weights.
    type: str
    default: /var/lib/haproxy/server-state
  progress_file:
    description: Where the module tells how many streams are left; set by the action plugin.
    type: path
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: Take the host out of the traffic and wait for its streams
  hx_infra.llm.gateway_traffic:
    host: llm-01
    state: drained
    budget: 900
    owner: maintenance
  delegate_to: gw-01

- name: Bring it back, unless somebody else has drained it
  hx_infra.llm.gateway_traffic:
    host: llm-01
    state: ready
    owner: maintenance
    only_owner: true
  delegate_to: gw-01

- name: Give a tenth of the model's requests to vLLM
  hx_infra.llm.gateway_traffic:
    host: llm-03
    engine: vllm
    model: llama3.2:3b
    state: weighted
    weight: 1
  delegate_to: gw-01
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in sentences.
  returned: always
  type: list
  elements: str
  sample: ["Give m_llama3.2_3b_0a1b2c3d/llm-01.ollama no new requests"]
plan:
  description: The same steps as data.
  returned: always
  type: list
  elements: dict
  contains:
    action:
      description: V(note), V(drain), V(ready), V(weight), V(save_state) or V(forget).
      type: str
    target:
      description: The server, as V(backend/server), or the file.
      type: str
servers:
  description: The selected servers after the run; in check mode, with the state they would have.
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
    state:
      description: V(ready), V(drained) or V(maint).
      type: str
    weight:
      description: The weight that is set.
      type: int
    open_streams:
      description: Open streams in all workers.
      type: int
    queued:
      description: Requests that wait for this server, in all workers.
      type: int
    status:
      description: HAProxy's own word, such as V(UP), V(DOWN), V(DRAIN) or V(MAINT).
      type: str
open_streams:
  description: Sum over the selected servers.
  returned: always
  type: int
queued:
  description: Sum over the selected servers.
  returned: always
  type: int
waited_seconds:
  description: How long old workers and open streams were waited for.
  returned: always
  type: float
last_for:
  description: Models that no server but the selected ones serves. Empty with O(state=ready).
  returned: always
  type: list
  elements: str
drained_before:
  description: Whether none of the selected servers took requests before, by drain or maintenance.
  returned: always
  type: bool
drained_by:
  description: The owner noted for the selected servers after the run. Empty when there is none.
  returned: always
  type: str
noted_since:
  description: When that was noted, in UTC. Empty when there is no note, and in a dry run.
  returned: always
  type: str
  sample: "2026-10-01T12:00:00Z"
cut_streams:
  description: Streams that were cut at the deadline.
  returned: always
  type: int
left_alone:
  description: Servers that O(only_owner) has left as they are, with the owner noted for them.
  returned: always
  type: list
  elements: dict
verdicts:
  description: Whether the last stream has ended, when it was waited for; empty in check mode.
  returned: always
  type: list
  elements: dict
"""

import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_drain import steer
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_options import (
    RUNTIME_OPTIONS,
    runtime_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_plan import Wish
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_traffic import (
    Settings,
    Traffic,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._progress import ProgressWriter

ARGUMENTS: dict[str, dict[str, Any]] = {
    **RUNTIME_OPTIONS,
    "host": {"type": "str"},
    "server": {"type": "str"},
    "engine": {"type": "str", "choices": ["ollama", "vllm"]},
    "model": {"type": "str"},
    "state": {"type": "str", "choices": ["drained", "ready", "weighted"], "required": True},
    "weight": {"type": "int"},
    "budget": {"type": "int", "default": 900},
    "on_deadline": {"type": "str", "choices": ["fail", "cut", "leave"], "default": "fail"},
    "reload_wait": {"type": "int", "default": 60},
    "allow_last": {"type": "bool", "default": False},
    "owner": {"type": "str", "default": ""},
    "only_owner": {"type": "bool", "default": False},
    "assume_drained": {"type": "str", "default": ""},
    "state_file": {"type": "str", "default": "/var/lib/haproxy/server-state"},
    "progress_file": {"type": "path"},
}
MAX_WEIGHT = 10


def check(params: dict[str, Any], gateway: str) -> None:
    """Refuse options that contradict each other."""
    weight = params["weight"]
    if weight is not None and not 0 <= weight <= MAX_WEIGHT:
        raise HostError(f"{gateway}: weight is {weight}; wanted 0 to {MAX_WEIGHT}.")
    if weight is not None and params["state"] != "weighted":
        raise HostError(
            f"{gateway}: weight is {weight} with state={params['state']}; wanted state=weighted.",
            "Change the weight in a task of its own; it never drains or undrains.",
        )
    if params["only_owner"] and not params["owner"]:
        raise HostError(
            f"{gateway}: only_owner is true and owner is empty; wanted an owner.",
            "Name the owner that the drain was noted with.",
        )
    for name in ("budget", "reload_wait"):
        if params[name] < 0:
            raise HostError(f"{gateway}: {name} is {params[name]}; wanted 0 or more seconds.")


def run(params: dict[str, Any], check_mode: bool, **hooks: Any) -> dict[str, Any]:
    """Plan and, outside of check mode, set, save and wait.

    Raises:
        HostError: the wish is refused, or HAProxy doesn't do it.
    """
    gateway = params["gateway"] or platform.node()
    check(params, gateway)
    wish = Wish(
        gateway=gateway,
        host=params["host"] or "",
        server=params["server"] or "",
        engine=params["engine"] or "",
        model=params["model"] or "",
        state=params["state"],
        weight=params["weight"],
        owner=params["owner"],
        only_owner=params["only_owner"],
        allow_last=params["allow_last"],
    )
    settings = Settings(
        state_file=params["state_file"],
        notes_file=params["notes_file"],
        routes_file=params["routes_file"],
        budget_s=params["budget"],
        reload_wait_s=params["reload_wait"],
        on_deadline=params["on_deadline"],
        assume_drained=params["assume_drained"],
    )
    traffic = Traffic(runtime_of(params, gateway), wish, settings, **hooks)
    return steer(traffic, check_mode, ProgressWriter(params["progress_file"]))


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_one_of=[("host", "server")],
        mutually_exclusive=[("host", "server")],
        required_if=[("state", "weighted", ("weight",))],
        supports_check_mode=True,
    )
    try:
        result = run(module.params, module.check_mode)
    except HostError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        gateway = module.params["gateway"] or platform.node()
        module.fail_json(
            msg=f"{gateway}: {error.filename or 'a file of the gateway'}: "
            f"{error.strerror or error}. Correct the cause and run again; "
            "the next run goes on from here."
        )
    if not module._diff:
        del result["diff"]
    for warning in result.pop("warnings"):
        module.warn(warning)
    failure = result.pop("failure")
    if failure:
        module.fail_json(msg=failure, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
