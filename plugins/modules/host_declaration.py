#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_declaration
short_description: Checks what was declared for a host before anything is done with it
version_added: 0.1.0
description:
  - Fails with all problems of a declaration, one a line, each with host, field, value found and
    value wanted. Changes nothing.
  - Reads only its options, so that it can run on the controller as well as on the host.
options:
  host:
    description: The host's name, for the messages.
    type: str
    required: true
  engine:
    description: The engine, C(llm_engine).
    type: raw
  models:
    description: The declared models, C(llm_models).
    type: raw
  models_forbidden:
    description: Names of models that must not be there, C(llm_models_forbidden).
    type: raw
  gpus:
    description: What the host's GPUs have to be, C(llm_gpus).
    type: raw
  base_dir:
    description: The base directory, C(llm_base_dir).
    type: raw
  models_dir:
    description: The canonical path of the models, C(llm_models_dir).
    type: raw
  store_dir:
    description: The directory of the model store, C(llm_store_dir).
    type: raw
  bulk_device:
    description: The device with the bulk file system, C(llm_bulk_device).
    type: raw
  bulk_mount:
    description: Where the bulk file system is mounted, C(llm_bulk_mount).
    type: raw
author:
  - hx_infra.llm contributors (@hx-infra)
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
  platform:
    platforms: posix
"""

EXAMPLES = r"""
- name: Check the declaration
  hx_infra.llm.host_declaration:
    host: "{{ inventory_hostname }}"
    engine: ollama
    models:
      - {name: "llama3.2:3b", digest: a80c4f17acd5}
    models_forbidden: ["phi3:latest"]
    bulk_device: /dev/sda1
"""

RETURN = r"""
problems:
  description: What is wrong.
  returned: always
  type: list
  elements: dict
  contains:
    host:
      description: The host.
      type: str
    field:
      description: The variable and the place in it, such as V(llm_models[1].name).
      type: str
    found:
      description: What it is.
      type: str
    wanted:
      description: What it has to be.
      type: str
actions:
  description: Always empty.
  returned: always
  type: list
  elements: str
plan:
  description: Always empty.
  returned: always
  type: list
  elements: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._declaration import validate

FIELDS = (
    "engine",
    "models",
    "models_forbidden",
    "gpus",
    "base_dir",
    "models_dir",
    "store_dir",
    "bulk_device",
    "bulk_mount",
)
ARGUMENT_SPEC: dict[str, Any] = {
    "host": {"type": "str", "required": True},
    **{field: {"type": "raw"} for field in FIELDS},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    declaration = {field: module.params[field] for field in FIELDS}
    problems = validate(module.params["host"], declaration)
    result: dict[str, Any] = {
        "changed": False,
        "actions": [],
        "plan": [],
        "problems": [problem._asdict() for problem in problems],
    }
    if problems:
        module.fail_json(msg="\n".join(str(problem) for problem in problems), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
