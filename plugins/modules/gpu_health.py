#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_health
short_description: Judges a host's NVIDIA GPUs against their declaration and their own limits
version_added: 0.1.0
description:
  - Gives one verdict per check and GPU, with the value found, the limit, and where both come from.
  - Checks for which a card gives no reading, such as ECC on GeForce cards, have no verdict.
  - Nothing is changed on the host.
extends_documentation_fragment:
  - hx_infra.llm.attributes
  - hx_infra.llm.gpu_reader
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
  platform:
    platforms: linux
options:
  gpu_facts:
    description:
      - What M(hx_infra.llm.gpu_info) returned. Without it the module reads the GPUs itself.
    type: dict
  expected:
    description: What the host is declared to have; a field that is absent isn't checked.
    type: dict
    default: {}
    suboptions:
      count:
        description: Number of GPUs that work.
        type: int
      name:
        description: Name of the product, with or without C(NVIDIA) and C(GeForce).
        type: str
      driver_min:
        description: Oldest driver version that is accepted.
        type: str
      cuda_min:
        description: Oldest CUDA version that the driver has to support.
        type: str
      temperature_max_c:
        description:
          - Highest temperature in degrees Celsius. Without it the card's own thresholds decide.
        type: float
  allowed_processes:
    description:
      - Programs that may compute on the GPUs, as file names without directory or as patterns.
    type: list
    elements: str
    default: [ollama, ollama_llama_server, llama-server]
  foreign_processes:
    description: What a program that isn't in O(allowed_processes) means.
    type: str
    choices: [fail, warn, ignore]
    default: fail
  host:
    description: Name of the host in messages; the system's node name by default.
    type: str
  fail:
    description: Whether the task fails when a verdict is FAIL, with all of them in one message.
    type: bool
    default: false
author:
  - hx_infra.llm contributors (@hx-infra)
seealso:
  - module: hx_infra.llm.gpu_info
"""

EXAMPLES = r"""
- name: Stop when a GPU is missing, too hot or otherwise sick
  hx_infra.llm.gpu_health:
    python: /opt/hx-infrastructure/venv/bin/python
    expected:
      count: 2
      name: RTX 4070 Ti
      driver_min: 575.64.03
      cuda_min: "12.9"
    fail: true
"""

RETURN = r"""
verdicts:
  description: The verdicts, the driver's first.
  returned: always
  type: list
  elements: dict
  contains:
    check:
      description: Name of the check, such as V(gpu_temperature).
      returned: always
      type: str
    status:
      description: V(PASS), V(WARN) or V(FAIL).
      returned: always
      type: str
    subject:
      description: The GPU, with index, name and UUID, or the driver.
      returned: always
      type: str
    value:
      description: What was found.
      returned: always
      type: raw
    limit:
      description: What was wanted, or the threshold.
      returned: always
      type: raw
    unit:
      description: Unit of both.
      returned: always
      type: str
    evidence:
      description: Where value and limit come from.
      returned: always
      type: str
status:
  description: The gravest of the verdicts.
  returned: always
  type: str
  sample: PASS
source:
  description: What the readings come from, V(nvml), V(nvidia-smi) or V(none).
  returned: always
  type: str
actions:
  description: Always empty, nothing is changed.
  returned: always
  type: list
  elements: str
plan:
  description: Always empty, nothing is changed.
  returned: always
  type: list
  elements: dict
"""

import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_facts import (
    READER_SPEC,
    read_gpus,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import run_killable
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_verdicts import (
    OLLAMA_PROCESSES,
    failure,
    judge_gpus,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import as_dicts, worst

EXPECTED_SPEC: dict[str, dict[str, Any]] = {
    "count": {"type": "int"},
    "name": {"type": "str"},
    "driver_min": {"type": "str"},
    "cuda_min": {"type": "str"},
    "temperature_max_c": {"type": "float"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **READER_SPEC,
            "gpu_facts": {"type": "dict"},
            "expected": {"type": "dict", "default": {}, "options": EXPECTED_SPEC},
            "allowed_processes": {
                "type": "list",
                "elements": "str",
                "default": list(OLLAMA_PROCESSES),
            },
            "foreign_processes": {
                "type": "str",
                "choices": ["fail", "warn", "ignore"],
                "default": "fail",
            },
            "host": {"type": "str"},
            "fail": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    facts = params["gpu_facts"]
    if facts is None:
        facts = read_gpus(
            params["source"],
            params["python"],
            module.get_bin_path("nvidia-smi"),
            params["timeout_s"],
            run_killable,
        )
    elif "state" not in facts or "gpus" not in facts:
        found = ", ".join(sorted(facts)) or "none"
        module.fail_json(
            msg=f"gpu_facts has the keys {found}; wanted: the result of hx_infra.llm.gpu_info"
        )
    verdicts = judge_gpus(
        facts, params["expected"], params["allowed_processes"], params["foreign_processes"]
    )
    result = {
        "changed": False,
        "actions": [],
        "plan": [],
        "verdicts": as_dicts(verdicts),
        "status": worst(verdicts),
        "source": facts.get("source", "none"),
    }
    message = failure(verdicts, params["host"] or platform.node())
    if message and params["fail"]:
        module.fail_json(msg=message, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
