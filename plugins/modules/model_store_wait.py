#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model_store_wait
short_description: Waits until nobody fills a model store any more
version_added: 0.5.0
description:
  - Waits while a download is writing into a store, or while another run works on it, and fails when
    that doesn't end in time. Servers before 0.21 delete unfinished downloads when they start.
  - Meant for what comes before an engine is stopped or restarted. Requests can be kept away
    afterwards, so that the host serves while it waits.
  - Changes nothing.
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
    details: It doesn't wait, and says in RV(msg) that a real run would. It fails where that would.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  path:
    description: The store, or a link to it. One that isn't there is filled by nobody.
    type: path
    required: true
  wait_s:
    description: How many seconds to wait; with V(0) it fails at once.
    type: int
    default: 0
  purpose:
    description: What waits, for the messages.
    type: str
    default: the interruption of the engine
seealso:
  - module: hx_infra.llm.engine_service
  - module: hx_infra.llm.model_store_relocate
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: Let downloads end before the engine is restarted
  hx_infra.llm.model_store_wait:
    path: /mnt/active_llm_models
    wait_s: 600
    purpose: the restart of ollama.service
"""

RETURN = r"""
waits_for:
  description: What was filling the store at first, in sentence parts.
  returned: always
  type: list
  elements: str
  sample: ["a download is writing /mnt/active_llm_models/blobs/sha256-12-partial (1.2GB so far)"]
waited_s:
  description: How long that took to end, in seconds; V(0) in check mode.
  returned: always
  type: float
msg:
  description: What waits, or has waited, and for what.
  returned: when something was filling the store
  type: str
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils import _pull_guard as pulls
from ansible_collections.hx_infra.llm.plugins.module_utils._engine_service import waiting
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

ARGUMENT_SPEC: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "wait_s": {"type": "int", "default": 0},
    "purpose": {"type": "str", "default": "the interruption of the engine"},
}


def wait(params: dict[str, Any], check_mode: bool, result: dict[str, Any]) -> None:
    """Wait until nothing fills the store; in check mode say only that a real run would.

    Args:
        params: the module's options.
        check_mode: whether to say it only.
        result: gets ``waits_for``, ``waited_s`` and ``msg``.

    Raises:
        HostError: the time is up, or the store can't be looked at.
    """
    root, wait_s, purpose = params["path"], params["wait_s"], params["purpose"]
    going_on = pulls.pulls_going_on(root)
    if not going_on:
        return
    reason = pulls.several(going_on)
    result["waits_for"] = going_on
    if wait_s and check_mode:
        result["msg"] = f"{purpose} {waiting(reason, wait_s)}."
        return
    pulls.outwait(purpose, "begun", root, wait_s, result)
    result["msg"] = f"{purpose} waited {result['waited_s']:.0f} s because {reason}."


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result: dict[str, Any] = {"changed": False, "waits_for": [], "waited_s": 0.0}
    try:
        wait(module.params, module.check_mode, result)
    except HostError as error:
        result["msg"] = f"{os.uname().nodename}: {error}"
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
