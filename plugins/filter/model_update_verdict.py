# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter that decides whether a new version of a model is accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils._model_update_outcomes import (
    JUDGED,
    judge,
)

DOCUMENTATION = r"""
name: model_update_verdict
short_description: Decide whether a new version of a model is accepted
version_added: 0.5.0
author: hx_infra.llm contributors
description:
  - Takes what was measured of a new version, compared with the version before it, returns whether
    it is accepted, and why.
  - It is not when a request failed, when a judged figure is worse by more than the limit of the
    comparison, or when the measurement is no verdict, because it can't be relied on or compared.
options:
  _input:
    description:
      - The entry of the model in C(benchmark_outcomes), which the role
        P(hx_infra.llm.benchmark#role) sets; empty when the new version could not be measured.
    type: dict
    required: true
  problem:
    description: Why it could not be measured.
    type: str
    default: ""
  fail_percent:
    description: The limit that the comparison was made with.
    type: float
    default: 20.0
  metrics:
    description:
      - The figures that count, of V(ttft_ms), V(tpot_ms), V(latency_ms), V(tokens_per_s) and
        V(gap_p99_ms). The last one is never worse than a warning.
    type: list
    elements: str
    default: [ttft_ms, tpot_ms, tokens_per_s]
  accept_unreliable:
    description: Whether a version is accepted of which no verdict is possible.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Is the new version as fast as the old one?
  ansible.builtin.set_fact:
    verdict: "{{ benchmark_outcomes | first | hx_infra.llm.model_update_verdict }}"
"""

RETURN = r"""
_value:
  description:
    - C(accepted), C(worse) (whether the version itself is worse or broken; not so when the
      measurement is no verdict), C(reason) in a sentence, and C(metrics), the figures before and
      after.
  type: dict
"""


def model_update_verdict(
    outcome: Mapping[str, Any],
    problem: str = "",
    fail_percent: float = 20.0,
    metrics: Sequence[str] = JUDGED,
    accept_unreliable: bool = False,
) -> dict[str, Any]:
    """Return whether the version is accepted, or fail with a figure or limit that is none."""
    try:
        return judge(
            outcome or None,
            problem=problem,
            fail_percent=_number(fail_percent),
            metrics=[metrics] if isinstance(metrics, str) else list(metrics),
            accept_unreliable=accept_unreliable,
        )
    except HostError as exc:
        raise AnsibleFilterError(str(exc)) from exc


def _number(limit: Any) -> float:
    try:
        return float(limit)
    except (TypeError, ValueError) as exc:
        raise HostError(f"the limit is {limit}, wanted a number of percent.") from exc


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {"model_update_verdict": model_update_verdict}
