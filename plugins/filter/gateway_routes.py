# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter that turns the hosts' declarations into the gateway's routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils._gateway_routes import routes

DOCUMENTATION = r"""
name: gateway_routes
short_description: Make the gateway's routes from the hosts' declarations
version_added: 0.2.0
author: hx_infra.llm contributors
description:
  - Takes the hosts that serve models and their variables, returns for each model its servers.
  - Reads C(llm_address), C(llm_gateway), C(llm_gateway_weights), C(llm_engine),
    C(llm_engine_listen), C(llm_models) and C(llm_vllm_services).
  - Hosts whose C(llm_gateway) is false are left out.
  - A declaration that cannot be routed fails with host, field, value found and value wanted.
options:
  _input:
    description: The hosts' inventory names.
    type: list
    elements: str
    required: true
  declarations:
    description: The variables of each host, normally C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what the gateway routes
  ansible.builtin.debug:
    msg: "{{ groups['llm_hosts'] | hx_infra.llm.gateway_routes(hostvars) }}"
"""

RETURN = r"""
_value:
  description:
    - One entry per model, sorted by name, with C(model), C(backend) and C(servers).
    - A server has C(name) (host, engine and, for vLLM, service), C(host), C(engine),
      C(address), C(port) and C(weight).
  type: list
  elements: dict
"""


def gateway_routes(hosts: Sequence[str], declarations: Mapping[str, Any]) -> list[Any]:
    """Return the routes, or fail with what cannot be routed."""
    try:
        return routes(hosts, declarations)
    except HostError as exc:
        raise AnsibleFilterError(str(exc)) from exc


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {"gateway_routes": gateway_routes}
