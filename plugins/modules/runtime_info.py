#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: runtime_info
short_description: Finds out how the services of inference engines stand on their host
version_added: 0.4.0
description:
  - Reads for each service its unit's state, its processes and their memory, the sockets that they
    listen on, the version and the models that its API tells, and the GPUs that it sees. Judges
    each against what is declared.
  - Asks no model anything, so that none is loaded, and changes nothing.
  - What other hosts got when they asked the services is judged too when it is handed in (O(peers)).
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
  platform:
    platforms: linux
options:
  services:
    description: The services to look at.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Its name in the result.
        type: str
        required: true
      kind:
        description: Whether it is Ollama, or an engine that speaks OpenAI's API, such as vLLM.
        type: str
        choices: [ollama, openai]
        required: true
      unit:
        description: Its systemd unit.
        type: str
        required: true
      url:
        description: Base address under which the host itself reaches its API, without C(/v1).
        type: str
        required: true
      listen:
        description:
          - Address and port that it has to listen on, such as V(0.0.0.0:11434) or V(llm-01:8001).
          - When it is empty, the port is that of O(services[].url), and a socket that is open on
            every address of the host is a V(WARN).
        type: str
        default: ""
      version:
        description: Version that it has to have; any when empty.
        type: str
        default: ""
      models:
        description:
          - Models that it has to list, each with C(name) and maybe the beginning of its C(digest).
          - Not judged by default.
        type: list
        elements: dict
      exclusive:
        description: Whether a model that is not among O(services[].models) is a failure.
        type: bool
        default: false
      key_file:
        description: File with its API key, as for M(hx_infra.llm.endpoint_check).
        type: str
        default: ""
      own_process:
        description:
          - Whether the process that listens belongs to the unit; V(false) where an engine of
            containers forwards the port.
        type: bool
        default: true
      gpus:
        description:
          - Number of GPUs that it has to see; V(0) for a service that computes on the CPU.
          - By default all that the host has for Ollama, and at least one for another engine.
        type: int
      min_gpu_ratio:
        description:
          - Least part of each loaded model of Ollama that has to lie in GPU memory, from V(0) to
            V(1). V(0) does not judge it.
        type: float
        default: 1.0
      reach:
        description:
          - Address that the peers have asked. A service without it is not judged by O(peers).
        type: str
        default: ""
  gpu_facts:
    description:
      - What M(hx_infra.llm.gpu_info) returned. Without it the GPUs are judged as far as the engine
        tells.
    type: dict
    default: {}
  peers:
    description:
      - What other hosts got when they asked the services. Each has C(peer), its name, and what a
        loop of M(ansible.builtin.uri) over the services has registered, C(results), or C(msg) alone
        where the peer could not be reached.
    type: list
    elements: dict
    default: []
  timeout:
    description: Seconds for each program and each request.
    type: float
    default: 10.0
  host:
    description:
      - Name of the host in messages.
      - The system's node name by default.
    type: str
  fail_on:
    description:
      - The verdict from which the module fails, with all problems in its message.
      - The results are returned in any case.
    type: str
    choices: [never, WARN, FAIL]
    default: never
seealso:
  - module: hx_infra.llm.gpu_info
  - module: hx_infra.llm.inference_check
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: See how Ollama stands
  hx_infra.llm.runtime_info:
    services:
      - name: ollama
        kind: ollama
        unit: ollama.service
        url: http://127.0.0.1:11434
        listen: 0.0.0.0:11434
        version: 0.11.4
        models: [{name: "phi3:latest", digest: 74d169ca294c}]
    fail_on: FAIL
"""

RETURN = r"""
actions:
  description: Always empty; nothing is changed.
  returned: always
  type: list
  elements: str
plan:
  description: Always empty.
  returned: always
  type: list
  elements: dict
verdicts:
  description:
    - One verdict per check. The checks are C(unit_active), C(unit_enabled), C(unit_current),
      C(unit_restarts), C(main_pid), C(memory), C(bound_port), C(bound_address), C(further_ports),
      C(api_version), C(models), C(host_gpus), C(gpus_visible), per loaded model C(gpu_placement),
      and per peer C(reachable).
    - Of a service that isn't active only the unit and its port are judged.
  returned: always
  type: list
  elements: dict
services:
  description: What was found of each service, in their order; what isn't known is absent.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The service.
      type: str
    status:
      description: The gravest of its verdicts.
      type: str
    unit:
      description: Its unit.
      type: str
    active_state:
      description: The unit's state as systemd has it.
      type: str
    main_pid:
      description: Its main process.
      type: int
    restarts:
      description: How often systemd restarted it.
      type: int
    memory_bytes:
      description: Memory that the unit uses, in bytes.
      type: int
    memory_limit_bytes:
      description: Memory that it may use, in bytes.
      type: int
    bound:
      description: Where its port is open, such as V(0.0.0.0:11434).
      type: list
      elements: str
    wildcard:
      description: Whether every address of the host is a way in.
      type: bool
    version:
      description: The engine's version.
      type: str
    models:
      description: The names of the models that it lists.
      type: list
      elements: str
    loaded:
      description: The names of Ollama's loaded models.
      type: list
      elements: str
    gpus_logged:
      description: How many GPUs Ollama wrote to its log when it started.
      type: int
    gpus_held:
      description: On how many GPUs its processes hold memory.
      type: int
table:
  description: The same for people, as lines of text.
  returned: always
  type: list
  elements: str
problems:
  description: All problems, in sentences that begin with V(WARN) or V(FAIL).
  returned: always
  type: list
  elements: str
"""

import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Prepare, http_prepare
from ansible_collections.hx_infra.llm.plugins.module_utils._endpoint_check import (
    key_headers,
    read_key,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import run_killable
from ansible_collections.hx_infra.llm.plugins.module_utils._runtime_judge import service_verdicts
from ansible_collections.hx_infra.llm.plugins.module_utils._runtime_model import (
    KINDS,
    Seen,
    Service,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._runtime_observe import look
from ansible_collections.hx_infra.llm.plugins.module_utils._runtime_reach import reach_verdicts
from ansible_collections.hx_infra.llm.plugins.module_utils._runtime_tell import row, table
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    WARN,
    as_dicts,
    failure_message,
    sentence,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_observe import resolve

SERVICE: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "kind": {"type": "str", "choices": list(KINDS), "required": True},
    "unit": {"type": "str", "required": True},
    "url": {"type": "str", "required": True},
    "listen": {"type": "str", "default": ""},
    "version": {"type": "str", "default": ""},
    "models": {"type": "list", "elements": "dict"},
    "exclusive": {"type": "bool", "default": False},
    "key_file": {"type": "str", "default": "", "no_log": False},  # a path, never the key itself
    "own_process": {"type": "bool", "default": True},
    "gpus": {"type": "int"},
    "min_gpu_ratio": {"type": "float", "default": 1.0},
    "reach": {"type": "str", "default": ""},
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "services": {"type": "list", "elements": "dict", "required": True, "options": SERVICE},
    "gpu_facts": {"type": "dict", "default": {}},
    "peers": {"type": "list", "elements": "dict", "default": []},
    "timeout": {"type": "float", "default": 10.0},
    "host": {"type": "str"},
    "fail_on": {"type": "str", "choices": ["never", "WARN", "FAIL"], "default": "never"},
}


def service_of(entry: dict[str, Any], module: AnsibleModule) -> Service:
    """Return a declared service with its key.

    Raises:
        HostError: the declaration or the key can't be used.
    """
    fields = {name: value for name, value in entry.items() if name != "key_file"}
    models = fields.pop("models")
    for model in models or []:
        if not model.get("name"):
            raise HostError(f"{entry['name']}: a model is {model!r}, wanted a mapping with name.")
    if not 0 <= entry["min_gpu_ratio"] <= 1:
        raise HostError(
            f"{entry['name']}: min_gpu_ratio is {entry['min_gpu_ratio']:g}, wanted 0 to 1."
        )
    key = read_key(entry["key_file"] or None)
    if key:
        module.no_log_values.add(key)
    return Service(**fields, models=None if models is None else tuple(models), key=key)


def transport(service: Service) -> Prepare:
    return http_prepare(service.url, headers=key_headers(service.key))


def run(
    params: dict[str, Any], services: list[Service], seen: list[Seen], host: str
) -> dict[str, Any]:
    """Judge what was found and return the module's result."""
    verdicts, rows = [], []
    for service, found in zip(services, seen):
        judged = service_verdicts(service, found, params["gpu_facts"], resolve)
        judged += reach_verdicts(service, found, params["peers"])
        verdicts += as_dicts(judged)
        rows.append(row(service, found, params["gpu_facts"], judged))
    grave = [verdict for verdict in verdicts if verdict["status"] in (WARN, FAIL)]
    problems = [f"{verdict['status']}: {sentence(verdict, host)}" for verdict in grave]
    return {
        "changed": False,
        "actions": [],
        "plan": [],
        "verdicts": verdicts,
        "services": rows,
        "table": table(rows, problems),
        "problems": problems,
    }


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    host = params["host"] or platform.node()
    try:
        services = [service_of(entry, module) for entry in params["services"]]
        for service in services:
            transport(service)  # refuses an address that can't be one
        if params["timeout"] <= 0:
            raise HostError(f"timeout is {params['timeout']:g}, wanted seconds above 0.")
    except HostError as error:
        module.fail_json(msg=f"{host}: {error}")
    seen = look(services, run_killable, transport, params["timeout"])
    result = run(params, services, seen, host)
    message = failure_message(result["verdicts"], params["fail_on"], host)
    if message:
        module.fail_json(msg=message, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
