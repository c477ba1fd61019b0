#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_plan
short_description: Judges declared vLLM services and plans what each is started with
version_added: 0.2.0
description:
  - Judges each service by a JSON schema on the controller, then all of them by each other and by
    what the host has, and refuses with every problem at once, each with field, value and what is
    allowed.
  - Returns for each service the content of the file for vLLM's C(--config), its environment, limits
    and start order, and the arithmetic of its memory.
  - Reads only. Nothing is written in check mode or for real, and both return the same.
notes:
  - The controller needs the Python package C(jsonschema), the host nothing.
extends_documentation_fragment:
  - hx_infra.llm.attributes
  - hx_infra.llm.gpu_reader
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
    description:
      - The services of the host, each with C(name) and the sections C(service),
        C(model), C(performance), C(monitoring) and C(extra_args). The collection's documentation
        of vLLM's configuration lists every field.
    type: list
    elements: dict
    required: true
  host:
    description: Name of the host in messages and in groups; the inventory's name by default.
    type: str
  address:
    description: Address that services bind to which declare none; O(host) by default.
    type: str
  build:
    description: The build of vLLM that is installed.
    type: str
    choices: [cuda, cpu]
    required: true
  version:
    description: The version of vLLM, which decides what flags there are.
    type: str
    default: 0.32.0
  unit_format:
    description: Name of a service's unit, with C({name}) for the service's name.
    type: str
    default: citadel-llm@{name}.service
  api_key:
    description: Whether the services get an API key from a credential file.
    type: bool
    default: false
  models_dir:
    description: Directory for models that a source is declared for.
    type: path
    default: /opt/citadel/models
  cache_dir:
    description: Directory for caches, one below it for each service.
    type: path
    default: /var/cache/citadel-llm
  hub_url:
    description:
      - Where the size and configuration of a model of a hub are asked for when its files aren't on
        the host. Nothing is asked when it is empty.
      - Becomes the C(endpoint) of each service's C(source), so that the model comes from there too.
    type: str
    default: https://huggingface.co
  overhead_bytes:
    description: Memory per GPU that neither weights nor KV cache take.
    type: int
    default: 1610612736
  pids:
    description:
      - Processes that belong to a service although they don't run in its unit's control group, by
        the service's name. What they hold of ports, memory and GPUs is the service's own.
      - Those of a container whose id the unit writes to C(/run/<unit without .service>.cid) are
        found without being told.
    type: dict
    default: {}
  group_hosts:
    description: What is known of the hosts that serve a model together.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: Name in the inventory.
        type: str
        required: true
      address:
        description: Address at which the other hosts reach it; its name by default.
        type: str
      gpus:
        description: How many GPUs it has; not judged when it isn't told.
        type: int
  batch:
    description:
      - The hosts that are worked on together, as C(ansible_play_batch) says. A service that doesn't
        run is refused when other hosts of its group aren't among them, because a group starts as a
        whole. Not judged when empty.
    type: list
    elements: str
    default: []
author:
  - hx_infra.llm contributors (@hx-infra)
seealso:
  - module: hx_infra.llm.gpu_info
"""

EXAMPLES = r"""
- name: Plan the services of a host with one GPU
  hx_infra.llm.vllm_plan:
    build: cuda
    python: /opt/hx-infrastructure/venv/bin/python
    services:
      - name: qwen3
        service:
          port: 8001
        model:
          path: /opt/citadel/models/qwen3-8b-awq
          served_names: [qwen3-8b, "qwen3:8b"]
          max_model_len: 8192
        performance:
          memory_limit_gb: 32
          cpu_cores: 4
  register: vllm

- name: Show how the memory is divided
  ansible.builtin.debug:
    msg: "{{ item.fit.sentence }}"
  loop: "{{ vllm.services }}"
  loop_control:
    label: "{{ item.name }}"
"""

RETURN = r"""
services:
  description: What each service is started with, in the order of the declaration.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the service.
      returned: always
      type: str
      sample: qwen3
    unit:
      description: Its systemd unit.
      returned: always
      type: str
      sample: citadel-llm@qwen3.service
    host:
      description: The address that it binds to.
      returned: always
      type: str
    port:
      description: Its TCP port.
      returned: always
      type: int
      sample: 8001
    serves:
      description: Whether it answers requests; V(false) on all hosts of a group but the first.
      returned: always
      type: bool
    served_names:
      description: Names under which clients ask for the model.
      returned: always
      type: list
      elements: str
    api_key:
      description: Whether it gets an API key.
      returned: always
      type: bool
    model_path:
      description: The directory with the model.
      returned: always
      type: str
    source:
      description: Where the model comes from; empty for a path.
      returned: always
      type: dict
    args:
      description: Content of the YAML file for C(--config).
      returned: always
      type: dict
    environment:
      description: Variables of the process. None of them is a secret.
      returned: always
      type: dict
    limits:
      description: systemd's C(memory_max), C(cpu_quota), C(start_timeout_s), C(stop_timeout_s).
      returned: always
      type: dict
    ready_timeout:
      description: Seconds until it has to be ready.
      returned: always
      type: int
    drain_seconds:
      description: Seconds that running answers get at a stop.
      returned: always
      type: int
    order:
      description: Its turn at the start, from 0. Services that share a GPU have different turns.
      returned: always
      type: int
    after:
      description: Units that have to be ready before it starts.
      returned: always
      type: list
      elements: str
    gpus:
      description: Its GPUs, each with C(index) and C(uuid).
      returned: always
      type: list
      elements: dict
    group:
      description:
        - Empty, or C(hosts), C(rank), C(nnodes), C(master_addr), C(master_port) and C(host_ip);
          C(apart), the hosts of it that aren't in O(batch), and C(together), the options of
          C(ansible-playbook) that bring all of them into one batch.
      returned: always
      type: dict
    config:
      description: The declared sections with their defaults, for the file that is kept on the host.
      returned: always
      type: dict
    fit:
      description:
        - The arithmetic per worker, C(weights_bytes), C(kv_bytes_per_token), C(kv_bytes),
          C(overhead_bytes), C(total_bytes), C(budget_bytes), C(max_model_len),
          C(max_len_that_fits), C(known), C(fits) and C(sentence). A value that isn't known is null.
      returned: always
      type: dict
problems:
  description: Every refusal, each with C(service), C(field), C(found) and C(allowed).
  returned: failure
  type: list
  elements: dict
verdicts:
  description:
    - Whether each model fits. V(WARN) says that it isn't known. Models that can't fit are problems.
    - C(vllm_hub) for what O(hub_url) didn't tell, with the address and its answer; C(vllm_group)
      for a group that splits layers over hosts; C(vllm_ignored_field).
  returned: success
  type: list
  elements: dict
gpu_state:
  description: What the driver answered, see RV(hx_infra.llm.gpu_info#module:state).
  returned: always
  type: str
actions:
  description: Always empty, nothing is changed.
  returned: always
  type: list
  elements: str
plan:
  description: Always empty, nothing is changed.
  returned: always
  type: list
  elements: dict
"""

import http.client
import os
import urllib.error
from collections.abc import Mapping
from typing import Any

from ansible.module_utils import urls
from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils import (
    _vllm_files,
    _vllm_group,
    _vllm_observe,
)
from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_plan as planner
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_facts import (
    READER_SPEC,
    read_gpus,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import run_killable
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import as_dicts
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_declaration import (
    Service,
    Settings,
    services,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_files import FetchError
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_problem import message

HUB_TIMEOUT_S = 10
HUB_BYTES = 32 * 1024**2  # an index of the largest models has a few MiB


def fetch(method: str, url: str) -> tuple[bytes, Mapping[str, str]]:
    """Ask the hub.

    Raises:
        FetchError: it doesn't answer, or not with what was asked for.
    """
    try:
        response = urls.open_url(
            url, method=method, timeout=HUB_TIMEOUT_S, http_agent="hx_infra.llm"
        )
        headers = {str(name).lower(): str(value) for name, value in response.headers.items()}
        return response.read(HUB_BYTES), headers
    except urllib.error.HTTPError as error:
        token = ", asked without a token" if error.code in (401, 403) else ""
        raise FetchError(f"answered {error.code} {error.reason}{token}", error.code) from error
    except urllib.error.URLError as error:
        raise FetchError(f"no answer ({error.reason})") from error
    except (OSError, ValueError, http.client.HTTPException, urls.ConnectionError) as error:
        raise FetchError(f"no answer ({str(error) or type(error).__name__})") from error


def argument_spec() -> dict[str, Any]:
    return {
        "services": {"type": "list", "elements": "dict", "required": True},
        "host": {"type": "str"},
        "address": {"type": "str"},
        "build": {"type": "str", "choices": ["cuda", "cpu"], "required": True},
        "version": {"type": "str", "default": "0.32.0"},
        "unit_format": {"type": "str", "default": "citadel-llm@{name}.service"},
        "api_key": {"type": "bool", "default": False, "no_log": False},
        "models_dir": {"type": "path", "default": "/opt/citadel/models"},
        "cache_dir": {"type": "path", "default": "/var/cache/citadel-llm"},
        "hub_url": {"type": "str", "default": "https://huggingface.co"},
        "overhead_bytes": {"type": "int", "default": 1610612736},
        "pids": {"type": "dict", "default": {}},
        "group_hosts": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "host": {"type": "str", "required": True},
                "address": {"type": "str"},
                "gpus": {"type": "int"},
            },
        },
        "batch": {"type": "list", "elements": "str", "default": []},
        **READER_SPEC,
    }


def settings_of(params: dict[str, Any]) -> Settings:
    host = params["host"] or os.uname().nodename
    return Settings(
        host=host,
        address=params["address"] or host,
        build=params["build"],
        version=params["version"],
        unit_format=params["unit_format"],
        api_key=params["api_key"],
        models_dir=params["models_dir"],
        cache_dir=params["cache_dir"],
        overhead_bytes=params["overhead_bytes"],
        group_hosts=tuple(params["group_hosts"]),
        hub_url=params["hub_url"],
        batch=tuple(params["batch"]),
    )


def names_of(declared: list[Service]) -> set[str]:
    """Return the names that have to be resolved on the host."""
    result = {service.host for service in declared if service.serves}
    for service in declared:
        result |= {_vllm_group.address(service, name) for name in service.group_hosts}
    return result


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    params = module.params
    settings = settings_of(params)
    declared = services(params["services"], settings)
    gpu_facts: dict[str, Any] = {"state": "not asked", "gpus": [], "errors": []}
    if not settings.cpu and declared:
        gpu_facts = read_gpus(
            params["source"],
            params["python"],
            module.get_bin_path("nvidia-smi"),
            params["timeout_s"],
            run_killable,
        )
    observed = _vllm_observe.observe(
        names_of(declared),
        [item.unit for item in declared],
        more_pids={
            item.unit: [int(pid) for pid in params["pids"].get(item.name, [])] for item in declared
        },
    )
    files = {item.name: _vllm_files.look(item, params["hub_url"], fetch) for item in declared}
    plan = planner.plan(declared, settings, observed, gpu_facts, files)
    for item in declared:
        for note in files[item.name].notes:
            module.warn(
                f"{settings.host}: services[{item.name}]: {note}; whether the model fits is judged"
                " without it"
            )
    result: dict[str, Any] = {
        "changed": False,
        "actions": [],
        "plan": [],
        "gpu_state": gpu_facts["state"],
    }
    if plan.problems:
        module.fail_json(
            msg=message(plan.problems, settings.host), problems=plan.problems, **result
        )
    module.exit_json(services=plan.services, verdicts=as_dicts(plan.verdicts), **result)


if __name__ == "__main__":
    main()
