# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter that puts together what was found in the stores of several hosts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils._store_summary import store_summary

DOCUMENTATION = r"""
name: store_summary
short_description: Put what was found in the stores of several hosts together
version_added: 0.5.0
author: hx_infra.llm contributors
description:
  - Takes what M(hx_infra.llm.model_store_info) said on several hosts, returns a table with the
    findings below it, and for which hosts something declared isn't there as declared.
  - What fails a host is a store that could not be looked at, and a declared model that is missing,
    that isn't whole, or that has another digest than its pin.
options:
  _input:
    description:
      - For each host C(host), C(store) (the module's result, failed or not), and C(models) (the
        declared models, as C(llm_models)).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Say how the store stands
  ansible.builtin.debug:
    msg: "{{ ([{'host': inventory_hostname, 'store': store, 'models': llm_models}]
              | hx_infra.llm.store_summary).text }}"
"""

RETURN = r"""
_value:
  description:
    - A dictionary with C(text), and with C(failed), the sentences for which each host fails.
  type: dict
"""


def summary(stores: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the summary, or fail with what is wrong with the declaration."""
    try:
        return store_summary(stores)
    except HostError as exc:
        raise AnsibleFilterError(str(exc)) from exc


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file."""
        return {"store_summary": summary}
