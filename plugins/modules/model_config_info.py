#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read an environment file and check that it agrees with itself."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_config_info
short_description: Read an environment file that names models and cross-check it
version_added: 0.1.0
description:
  - Reads the C(MODEL_*) and C(OLLAMA_MODEL_*) variables and E(OLLAMA_MODELS_AVAILABLE) of
    an environment file, whatever state it is in, and judges whether both name the same models.
  - Lines that can't be read are reported with their number and the rest of the file still counts.
    Nothing is changed.
options:
  path:
    description: The environment file.
    type: path
    required: true
  expected:
    description:
      - Names of the models that the variables must name.
      - Without it the file is only compared with itself.
    type: list
    elements: str
  models_dir:
    description: The directory that E(OLLAMA_MODELS) must hold. Without it that is not judged.
    type: path
author:
  - hx_infra.llm contributors (@hx-infra)
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
    details: Does the same in check mode, because it changes nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
seealso:
  - module: hx_infra.llm.ollama_env
"""

EXAMPLES = r"""
- name: Check the environment file against the declared models
  hx_infra.llm.model_config_info:
    path: /opt/hx-infrastructure/llm-01/config/ollama/ollama.env
    expected: "{{ llm_models | map(attribute='name') | list }}"
    models_dir: /mnt/active_llm_models
  register: __config

- name: Stop when it doesn't agree
  ansible.builtin.assert:
    that: __config.ok
    fail_msg: >-
      {{ __config.verdicts | selectattr('status', 'eq', 'FAIL') | map(attribute='evidence') }}
"""

RETURN = r"""
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
exists:
  description: Whether the file exists.
  returned: always
  type: bool
readable:
  description: Whether the file could be read.
  returned: always
  type: bool
ok:
  description: Whether no verdict is V(FAIL).
  returned: always
  type: bool
variables:
  description: The variables that name a model.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the variable.
      type: str
    value:
      description: Value as written, without quotes and comment.
      type: str
    model:
      description: Name of the model with its tag, without pin.
      type: str
    pin:
      description: First digits of the digest that the value is pinned to. Empty without pin.
      type: str
    line:
      description: Number of the line.
      type: int
available:
  description: Entries of E(OLLAMA_MODELS_AVAILABLE).
  returned: always
  type: list
  elements: str
only_in_variables:
  description: Models with a variable that the list lacks.
  returned: always
  type: list
  elements: str
only_in_available:
  description: Models of the list that have no variable.
  returned: always
  type: list
  elements: str
duplicates:
  description: Variables that are assigned more than once. The last one counts.
  returned: always
  type: list
  elements: str
malformed:
  description: Lines that could not be read, or only in part.
  returned: always
  type: list
  elements: dict
  contains:
    line:
      description: Number of the line.
      type: int
    text:
      description: The line, shortened.
      type: str
    reason:
      description: What is wrong with it.
      type: str
settings:
  description: All variables with their values; those of secrets are hidden.
  returned: always
  type: dict
verdicts:
  description: What was checked, with value and limit.
  returned: always
  type: list
  elements: dict
  contains:
    check:
      description: Name of the check.
      type: str
    status:
      description: V(PASS), V(WARN) or V(FAIL).
      type: str
    subject:
      description: The file.
      type: str
    value:
      description: What was found.
      type: raw
    limit:
      description: What was wanted.
      type: raw
    unit:
      description: Unit of value and limit.
      type: str
    evidence:
      description: Where the value comes from.
      type: str
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils import _model_config
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    Verdict,
    as_dicts,
    judge,
    worst,
)

MAX_BYTES = 1024 * 1024
ARGUMENT_SPEC: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "expected": {"type": "list", "elements": "str"},
    "models_dir": {"type": "path"},
}


def run(params: dict[str, Any]) -> dict[str, Any]:
    """Read the file and judge it."""
    path = params["path"]
    content, reason = _read(path)
    verdicts = [
        judge(
            "env_file_readable",
            not reason,
            subject=path,
            value=not reason,
            limit=True,
            evidence=reason or "the file was read",
        )
    ]
    config = _model_config.parse(content)
    if not reason:
        verdicts += _cross_check(config, params)
    return {
        "changed": False,
        "actions": [],
        "plan": [],
        "exists": os.path.lexists(path),
        "readable": not reason,
        "verdicts": as_dicts(verdicts),
        "ok": worst(verdicts) != FAIL,
        **_model_config.describe(config),
    }


def _cross_check(config: _model_config.ModelConfig, params: dict[str, Any]) -> list[Verdict]:
    return _model_config.cross_check(
        config,
        subject=params["path"],
        expected=params["expected"],
        models_dir=params["models_dir"] or "",
    )


def _read(path: str) -> tuple[bytes, str]:
    if os.path.lexists(path) and not os.path.isfile(path):
        return b"", "there is something that is not a file"
    try:
        with open(path, "rb") as handle:
            content = handle.read(MAX_BYTES + 1)
    except OSError as error:
        return b"", f"{path} does not exist or is not readable: {error.strerror}"
    if len(content) > MAX_BYTES:
        return b"", f"the file is larger than {MAX_BYTES} bytes, which no environment file is"
    return content, ""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**run(module.params))


if __name__ == "__main__":
    main()
