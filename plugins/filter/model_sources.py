# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter that turns declared sources into those that a run has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils._model_sources import model_sources

DOCUMENTATION = r"""
name: model_sources
short_description: List the sources of models that a run has
version_added: 0.5.0
author: hx_infra.llm contributors
description:
  - Takes the declared sources, returns them as M(hx_infra.llm.model_catalog) wants them. The word
    V(peer) stands for all peers that serve their store for this run, in their order.
  - The registry comes last when neither it nor an archive is declared.
positional: served, token
options:
  _input:
    description:
      - The sources in their order, V(peer), V(registry), or dictionaries with a C(type), as the
        option C(sources) of M(hx_infra.llm.model_catalog) takes them.
    type: list
    elements: raw
    required: true
  served:
    description:
      - The results of M(hx_infra.llm.model_store_serve) in a loop over what the filter
        P(hx_infra.llm.model_peers#filter) offered.
    type: list
    elements: dict
    default: []
  token:
    description: The token that lets into the peers' stores.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show the sources of a host whose peers are not asked
  ansible.builtin.debug:
    msg: "{{ ['peer', 'registry'] | hx_infra.llm.model_sources }}"
"""

RETURN = r"""
_value:
  description: The sources.
  type: list
  elements: dict
"""


def sources(
    declared: Sequence[Any], served: Iterable[Mapping[str, Any]] = (), token: str = ""
) -> list[dict[str, Any]]:
    """Return the sources, or fail with what is wrong."""
    try:
        return model_sources(declared, served, token)
    except HostError as exc:
        raise AnsibleFilterError(str(exc)) from exc


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {"model_sources": sources}
