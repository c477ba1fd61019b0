# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter that turns endpoints and a preset into single measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils._bench_series import series

DOCUMENTATION = r"""
name: benchmark_series
short_description: List the measurements of a benchmark
version_added: 0.3.0
author: hx_infra.llm contributors
description:
  - Takes endpoints, returns each load of a preset on each of them.
  - Objectives for the throughput of all requests are left out where one request is sent at a time,
    and in a sweep, whose first steps are small.
positional: preset, presets, load
options:
  _input:
    description: Endpoints with C(name), C(url), C(api), C(key_file) and C(models).
    type: list
    elements: dict
    required: true
  preset:
    description: Name of one of O(presets).
    type: str
    required: true
  presets:
    description: By name a list of loads, each with options of M(hx_infra.llm.inference_benchmark).
    type: dict
    required: true
  load:
    description: Options that replace those of each load.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show what would be measured
  ansible.builtin.debug:
    msg: >-
      {{ [{'name': 'ollama', 'url': 'http://127.0.0.1:11434', 'models': [{'name': 'qwen3:1.7b'}]}]
         | hx_infra.llm.benchmark_series('quick', {'quick': [{'iterations': 5}]}) }}
"""

RETURN = r"""
_value:
  description:
    - Measurements with C(label), C(url), C(api), C(key_file), C(models), C(options), C(sequential)
      (one request at a time) and C(swept).
  type: list
  elements: dict
"""


def benchmark_series(
    ends: Sequence[Mapping[str, Any]],
    preset: str,
    presets: Mapping[str, Any],
    load: Mapping[str, Any] | None = None,
) -> list[Any]:
    """Return the measurements, or fail with what is none."""
    try:
        return series(ends, preset, presets, load or {})
    except HostError as exc:
        raise AnsibleFilterError(str(exc)) from exc


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {"benchmark_series": benchmark_series}
