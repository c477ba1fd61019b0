# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter that turns a host's declaration into the endpoints that a benchmark asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils._bench_series import endpoints

DOCUMENTATION = r"""
name: benchmark_endpoints
short_description: Find out where a host's models are to be measured
version_added: 0.3.0
author: hx_infra.llm contributors
description:
  - Takes what is declared for a host, returns the endpoints of one of its engines with their models
    and objectives.
  - A vLLM service is measured under its first served name, unless another one was asked for, where
    it is reached on its own host, and held against its C(performance.target_latency_ms) and
    C(performance.target_throughput_rps).
  - A model that is not declared fails with host, value found and value wanted.
positional: host, engine
options:
  _input:
    description:
      - The declaration with C(models) (as C(llm_models)), C(url) of Ollama, C(services) (as
        C(llm_vllm_services)), C(address) that services listen on unless they say otherwise, C(keys)
        (the directory with C(<service>.key.env)), C(api) and C(slo) in place of what is declared.
    type: dict
    required: true
  host:
    description: The host's inventory name.
    type: str
    required: true
  engine:
    description: V(ollama) or V(vllm).
    type: str
    required: true
  chosen:
    description: Names of the models to measure; all that are declared when empty.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Show where llm-01 would be measured
  ansible.builtin.debug:
    msg: >-
      {{ {'models': llm_models, 'url': 'http://127.0.0.1:11434'}
         | hx_infra.llm.benchmark_endpoints('llm-01', 'ollama') }}
"""

RETURN = r"""
_value:
  description:
    - Endpoints with C(name), C(url), C(api), C(key_file) and C(models), for the role
      P(hx_infra.llm.benchmark#role).
  type: list
  elements: dict
"""


def benchmark_endpoints(
    declared: Mapping[str, Any], host: str, engine: str, chosen: Sequence[str] = ()
) -> list[Any]:
    """Return the endpoints, or fail with what is not declared."""
    try:
        return endpoints(host, engine, declared, chosen)
    except HostError as exc:
        raise AnsibleFilterError(str(exc)) from exc


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {"benchmark_endpoints": benchmark_endpoints}
