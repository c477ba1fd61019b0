#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: inference_check
short_description: Check that the models of an Ollama server answer, and on the GPU
version_added: 0.1.0
description:
  - Asks each model for a known text, streamed and in one piece, with temperature 0 and without
    reasoning, and checks the text and the metrics of the final object.
  - Reads from C(/api/ps) which part of the model lies in GPU memory while it is still loaded.
  - Checks that the server answers C(/api/version) and, if told so, that C(/api/tags) lists the
    expected models and no others.
  - Asking a model loads it. Nothing on the host is changed.
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
    details:
      - Sends no request, so that no model is loaded, and returns no verdicts.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  url:
    description: Base URL of the server.
    type: str
    default: http://127.0.0.1:11434
  host:
    description:
      - Name of the host in messages.
      - The system's node name by default.
    type: str
  models:
    description: The models to ask.
    type: list
    elements: str
    required: true
  modes:
    description: How to ask for the answer.
    type: list
    elements: str
    choices: [stream, non_stream]
    default: [stream, non_stream]
  prompt:
    description: What to ask.
    type: str
    default: "Return exactly the text: HX-OK"
  answer:
    description: What the answer has to contain.
    type: str
    default: HX-OK
  num_predict:
    description: Number of tokens to generate at most.
    type: int
    default: 32
  timeout:
    description: Seconds for one request, loading the model included.
    type: float
    default: 120.0
  min_gpu_ratio:
    description:
      - Least part of a model that has to lie in GPU memory, from V(0) to V(1).
      - V(0) does not judge it.
    type: float
    default: 1.0
  expected_version:
    description:
      - Version that the server has to have.
      - Any version by default.
    type: str
  expected_models:
    description:
      - The models that the server has to list.
      - Not judged by default.
    type: list
    elements: str
  exclusive:
    description: Whether a model that is not among O(expected_models) is a failure.
    type: bool
    default: true
  fail_on:
    description:
      - The verdict from which the module fails.
      - The results are returned in any case.
    type: str
    choices: [never, WARN, FAIL]
    default: never
  validate_certs:
    description: Check the server's certificate when O(url) is C(https).
    type: bool
    default: true
  ca_path:
    description: File with the certificates of the authorities to trust.
    type: path
seealso:
  - module: hx_infra.llm.inference_benchmark
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: Check that both models answer on the GPU, and that no other model is there
  hx_infra.llm.inference_check:
    models:
      - llama3.2:3b
      - qwen3:1.7b
    expected_models:
      - llama3.2:3b
      - qwen3:1.7b
    expected_version: 0.11.4
    fail_on: FAIL
"""

RETURN = r"""
actions:
  description: Always empty; nothing is changed.
  returned: always
  type: list
  elements: str
plan:
  description: Always empty.
  returned: always
  type: list
  elements: dict
verdicts:
  description:
    - One verdict per check; the checks are C(api_version), C(catalog), and per model
      C(answer_stream), C(final_metrics_stream), C(answer_non_stream), C(final_metrics_non_stream)
      and C(gpu_used).
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
      description: The model, or C(ollama) for the server.
      type: str
    value:
      description: What was found.
      type: raw
    limit:
      description: What was wanted.
      type: raw
    unit:
      description: Unit of both.
      type: str
    evidence:
      description: Where the value comes from.
      type: str
answers:
  description: What was answered, per model and mode.
  returned: always
  type: list
  elements: dict
  contains:
    model:
      description: The model.
      type: str
    mode:
      description: V(stream) or V(non_stream).
      type: str
    text:
      description: Beginning of the answer.
      type: str
    latency_ms:
      description: Time to the end of the answer.
      type: float
    ttft_ms:
      description: Time to the first token.
      type: float
    load_ms:
      description: The server's account of loading the model.
      type: float
    gen_tokens:
      description: Tokens generated.
      type: int
    error_kind:
      description: Kind of the error, empty when there is none.
      type: str
    error:
      description: The error.
      type: str
skipped_inference:
  description: Whether the requests were left out because of check mode.
  returned: always
  type: bool
"""

import platform
import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import http_prepare
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._inference_check import (
    NON_STREAM,
    STREAM,
    Wanted,
    check_all,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    as_dicts,
    failure_message,
)

ARGUMENT_SPEC = {
    "url": {"type": "str", "default": "http://127.0.0.1:11434"},
    "host": {"type": "str"},
    "models": {"type": "list", "elements": "str", "required": True},
    "modes": {
        "type": "list",
        "elements": "str",
        "choices": [STREAM, NON_STREAM],
        "default": [STREAM, NON_STREAM],
    },
    "prompt": {"type": "str", "default": "Return exactly the text: HX-OK"},
    "answer": {"type": "str", "default": "HX-OK"},
    "num_predict": {"type": "int", "default": 32},
    "timeout": {"type": "float", "default": 120.0},
    "min_gpu_ratio": {"type": "float", "default": 1.0},
    "expected_version": {"type": "str"},
    "expected_models": {"type": "list", "elements": "str"},
    "exclusive": {"type": "bool", "default": True},
    "fail_on": {"type": "str", "choices": ["never", "WARN", "FAIL"], "default": "never"},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    host = params["host"] or platform.node()
    result = {
        "changed": False,
        "actions": [],
        "plan": [],
        "verdicts": [],
        "answers": [],
        "skipped_inference": module.check_mode,
    }
    if not 0 <= params["min_gpu_ratio"] <= 1:
        module.fail_json(
            msg=f"{host}: min_gpu_ratio is {params['min_gpu_ratio']:g}, wanted 0 to 1.", **result
        )
    if module.check_mode:
        module.exit_json(**result)
    wanted = Wanted(
        models=params["models"],
        modes=params["modes"],
        prompt=params["prompt"],
        answer=params["answer"],
        num_predict=params["num_predict"],
        timeout_s=params["timeout"],
        gpu_ratio=params["min_gpu_ratio"],
        version=params["expected_version"] or "",
        catalog=params["expected_models"],
        exclusive=params["exclusive"],
    )
    try:
        prepare = http_prepare(
            params["url"], ca_path=params["ca_path"], validate_certs=params["validate_certs"]
        )
        verdicts, result["answers"] = check_all(wanted, prepare, time.perf_counter)
    except HostError as error:
        module.fail_json(msg=f"{host}: {error}", **result)
    result["verdicts"] = as_dicts(verdicts)
    message = failure_message(result["verdicts"], params["fail_on"], host)
    if message:
        module.fail_json(msg=message, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
