# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter that tells which peers can give what a host misses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils._model_sources import model_peers

DOCUMENTATION = r"""
name: model_peers
short_description: Tell which peers have the models that a plan has to bring
version_added: 0.5.0
author: hx_infra.llm contributors
description:
  - Takes what M(hx_infra.llm.model_store_info) said in a loop over peers, returns which of them can
    give which of the models that a plan of M(hx_infra.llm.model_catalog) has to bring.
  - A peer can give a model that it has whole and, where it is pinned, in that version.
positional: plan, declared
options:
  _input:
    description: The loop's results, each with the peer's name as C(item).
    type: list
    elements: dict
    required: true
  plan:
    description: The plan.
    type: list
    elements: dict
    required: true
  declared:
    description: The declared models, as C(llm_models).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: See who has what is missing
  ansible.builtin.set_fact:
    peers: "{{ looks.results | hx_infra.llm.model_peers(catalog.plan, llm_models) }}"
"""

RETURN = r"""
_value:
  description:
    - A dictionary. Its C(offers) each have C(peer) and C(models), the names as they are declared.
      Its C(problems) are sentences about peers that could not be asked, or have no
        store where it was looked for.
  type: dict
"""


def peers(
    looks: Iterable[Mapping[str, Any]],
    plan: Iterable[Mapping[str, Any]],
    declared: Iterable[Mapping[str, Any]],
) -> dict[str, list[Any]]:
    """Return who can give what, or fail with what is wrong."""
    try:
        return model_peers(looks, plan, declared)
    except HostError as exc:
        raise AnsibleFilterError(str(exc)) from exc


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {"model_peers": peers}
