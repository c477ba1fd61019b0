# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter that shows what became of the updates of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.plugin_utils._model_update_outcomes import lines

DOCUMENTATION = r"""
name: model_update_outcomes
short_description: Show what became of the updates of models
version_added: 0.5.0
author: hx_infra.llm contributors
description:
  - Takes what became of each model, returns the lines of a table with the figures before and after,
    and a sentence for each model.
options:
  _input:
    description:
      - One entry per host and model with C(host), C(model), C(old) and C(new) (digests), C(verdict)
        (V(ACCEPTED), V(ROLLED BACK), V(UNCHANGED), V(UNKNOWN), V(FAILED) or V(PLANNED)), C(reason),
        and C(metrics) as P(hx_infra.llm.model_update_verdict#filter) returns them.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show it
  ansible.builtin.debug:
    msg: "{{ update_models_rows | hx_infra.llm.model_update_outcomes }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""


def model_update_outcomes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines."""
    return lines(rows)


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {"model_update_outcomes": model_update_outcomes}
