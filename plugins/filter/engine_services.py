# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter that turns a host's declaration into its engines' services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils._engine_services import (
    RUNTIME,
    engine_services,
)

DOCUMENTATION = r"""
name: engine_services
short_description: List the services of a host's engines from its declaration
version_added: 0.4.0
author: hx_infra.llm contributors
description:
  - Takes what is declared for a host, returns the services of Ollama and of vLLM with their units,
    addresses, models and GPUs.
  - Ollama is among them where models are declared for it, or where there is no vLLM.
  - Of a group of hosts that serve a vLLM model together, the first one has the service.
  - For the nightly test the services of vLLM's build for GPUs get C(min_gpu_ratio) 1, unless the
    declaration says that the host has no GPU, those of the build for processors get none.
positional: host, purpose
options:
  _input:
    description:
      - The declaration with C(models) (as C(llm_models)), C(exclusive), C(gpus) (as C(llm_gpus)),
        C(unit), C(url), C(listen) and C(version) of Ollama, C(address) under which others reach
        this host, C(services) (as C(llm_vllm_services)), C(vllm_unit), C(vllm_version),
        C(vllm_build), C(vllm_runtime), and C(keys), the directory with C(<service>.key.env), empty
        without keys.
    type: dict
    required: true
  host:
    description: The host's inventory name.
    type: str
    required: true
  purpose:
    description:
      - V(runtime) for the role P(hx_infra.llm.runtime_validation#role), V(nightly) for the role
        P(hx_infra.llm.nightly_smoke#role).
    type: str
    choices: [runtime, nightly]
    default: runtime
"""

EXAMPLES = r"""
- name: Show the services of llm-01
  ansible.builtin.debug:
    msg: >-
      {{ {'models': llm_models, 'unit': 'ollama.service', 'url': 'http://127.0.0.1:11434',
          'address': 'llm-01'}
         | hx_infra.llm.engine_services('llm-01') }}
"""

RETURN = r"""
_value:
  description:
    - The services, as C(runtime_validation_services) or C(nightly_smoke_engines) take them.
  type: list
  elements: dict
"""


def services(declared: Mapping[str, Any], host: str, purpose: str = RUNTIME) -> list[Any]:
    """Return the services, or fail with what is missing."""
    try:
        return engine_services(declared, host, purpose)
    except HostError as exc:
        raise AnsibleFilterError(str(exc)) from exc


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {"engine_services": services}
