#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prove that a container sees the host's GPUs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_gpu_check
short_description: Prove that a container sees exactly the host's GPUs
version_added: 0.2.0
description:
  - Starts one container with all GPUs, has it list them, and compares their UUIDs with the host's.
    The container has no network and no capabilities, and is removed when it ends.
  - Gives a verdict on the engine, the toolkit, the CDI specification or Docker's runtime, and on
    the GPUs in the container. A container that starts without the GPUs is a FAIL, not a success.
  - What engine and driver tool say when it does not work is told as a cause with a remedy.
  - The image has to be on the host, see M(hx_infra.llm.container_image). Nothing is pulled.
  - The host is left as it was. In check mode no container is started.
options:
  engine:
    description: The container engine.
    type: str
    choices: [podman, docker]
    required: true
  mode:
    description:
      - How GPUs are handed to containers. V(auto) is V(cdi) for Podman and V(runtime) for Docker.
    type: str
    choices: [auto, cdi, runtime]
    default: auto
  image:
    description: Image for the proof, by digest or id. It needs nothing but a C library.
    type: str
    required: true
  expected:
    description: Number of GPUs that the host is declared to have; not judged when 0.
    type: int
    default: 0
  arguments:
    description: Further arguments for C(run), for a host whose engine needs them.
    type: list
    elements: str
    default: []
  spec_dirs:
    description: Directories of CDI specifications, the one that outranks the others first.
    type: list
    elements: path
    default: [/var/run/cdi, /etc/cdi]
  program:
    description: Path of C(nvidia-ctk); looked for in /usr/bin and /usr/local/bin when not given.
    type: path
  fail_on:
    description: The least grave verdict that fails the task.
    type: str
    choices: [FAIL, WARN, never]
    default: FAIL
  host:
    description: Name of the host in messages. The host's own name when not given.
    type: str
author:
  - hx_infra.llm contributors (@hx-infra)
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
seealso:
  - module: hx_infra.llm.container_toolkit
  - module: hx_infra.llm.container_image
"""

EXAMPLES = r"""
- name: Prove that a container sees both GPUs
  hx_infra.llm.container_gpu_check:
    engine: podman
    image: docker.io/nvidia/cuda@sha256:{{ cuda_image_digest }}
    expected: 2
"""

RETURN = r"""
verdicts:
  description: >-
    V(container_engine), V(container_toolkit), V(container_cdi_spec), V(container_host_gpus) and
    V(container_gpus), as far as they apply.
  returned: always
  type: list
  elements: dict
status:
  description: The gravest of the verdicts.
  returned: always
  type: str
  sample: PASS
host_gpus:
  description: UUIDs of the GPUs on the host.
  returned: always
  type: list
  elements: str
container_gpus:
  description: UUIDs of the GPUs in the container; empty in check mode.
  returned: always
  type: list
  elements: str
said:
  description: The last of what the container or its engine said when it did not work.
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

from ansible_collections.hx_infra.llm.plugins.module_utils._container_engine import Engine
from ansible_collections.hx_infra.llm.plugins.module_utils._container_host import (
    SPEC_DIRS,
    toolkit,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._container_proof import Proof, prove
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_facts import (
    READER_SPEC,
    read_gpus,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import run_killable
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    as_dicts,
    failure_message,
    worst,
)

ARGUMENTS: dict[str, dict[str, Any]] = {
    **READER_SPEC,
    "engine": {"type": "str", "choices": ["podman", "docker"], "required": True},
    "mode": {"type": "str", "choices": ["auto", "cdi", "runtime"], "default": "auto"},
    "image": {"type": "str", "required": True},
    "expected": {"type": "int", "default": 0},
    "arguments": {"type": "list", "elements": "str", "default": []},
    "spec_dirs": {"type": "list", "elements": "path", "default": list(SPEC_DIRS)},
    "program": {"type": "path"},
    "fail_on": {"type": "str", "choices": ["FAIL", "WARN", "never"], "default": "FAIL"},
    "host": {"type": "str"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    host = params["host"] or platform.node()
    mode = params["mode"]
    if mode == "auto":
        mode = "cdi" if params["engine"] == "podman" else "runtime"
    timeout = params["timeout_s"]
    smi = module.get_bin_path("nvidia-smi")
    try:
        proof = Proof(
            engine=Engine(params["engine"], host, run_killable, timeout),
            mode=mode,
            image=params["image"],
            expected=params["expected"],
            arguments=tuple(params["arguments"]),
            spec_dirs=tuple(params["spec_dirs"]),
            toolkit_version=toolkit(run_killable, timeout, params["program"] or "")[1],
        )
        facts = read_gpus(params["source"], params["python"], smi, timeout, run_killable)
        outcome = prove(proof, facts, start=not module.check_mode)
    except (HostError, OSError) as error:
        module.fail_json(msg=f"{host}: {error}" if isinstance(error, OSError) else str(error))
    verdicts = as_dicts(outcome.verdicts)
    result = {
        "changed": False,
        "actions": [],
        "plan": [],
        "verdicts": verdicts,
        "status": worst(verdicts),
        "host_gpus": outcome.host_gpus,
        "container_gpus": outcome.container_gpus,
        "said": outcome.said,
    }
    message = failure_message(verdicts, params["fail_on"], host)
    if message:
        module.fail_json(msg=f"{message} {outcome.remedy}".strip(), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
