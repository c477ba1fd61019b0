# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter that says what became of the models that an update did nothing about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.plugin_utils._model_update_outcomes import rest

DOCUMENTATION = r"""
name: model_update_rows
short_description: Say what became of the models that an update did nothing about
version_added: 0.5.0
author: hx_infra.llm contributors
description:
  - Takes what M(hx_infra.llm.model_update_info) found, returns an entry for each model that has
    none yet, as P(hx_infra.llm.model_update_outcomes#filter) takes them.
positional: host, done, problem
options:
  _input:
    description: RV(hx_infra.llm.model_update_info#module:models).
    type: list
    elements: dict
    required: true
  host:
    description: The host's inventory name.
    type: str
    required: true
  done:
    description: The entries that there are.
    type: list
    elements: dict
    default: []
  problem:
    description:
      - Why the run ended before it came to all models. Those that it had to do with failed.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show which models have moved
  ansible.builtin.debug:
    msg: >-
      {{ updates.models | hx_infra.llm.model_update_rows('llm-01')
         | hx_infra.llm.model_update_outcomes }}
"""

RETURN = r"""
_value:
  description: The further entries.
  type: list
  elements: dict
"""


def model_update_rows(
    entries: Sequence[Mapping[str, Any]],
    host: str,
    done: Sequence[Mapping[str, Any]] = (),
    problem: str = "",
) -> list[dict[str, Any]]:
    """Return the further entries."""
    return rest(entries, host, done, problem)


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {"model_update_rows": model_update_rows}
