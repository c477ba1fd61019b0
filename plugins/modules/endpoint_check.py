#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: endpoint_check
short_description: Check that the models of an OpenAI-compatible endpoint answer
version_added: 0.2.0
description:
  - Looks for each model in C(/v1/models), asks it once in one piece and once streamed, and judges
    how the answers ended. An answer with status 200 that was cut off (finish reason V(abort)) is a
    failure, and so is a stream that ends before its C([DONE]).
  - Works with vLLM, with Ollama and with the gateway in front of both. Changes nothing.
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
    description: Base URL of the endpoint, without C(/v1).
    type: str
    default: http://127.0.0.1:8001
  host:
    description:
      - Name of the host in messages.
      - The system's node name by default.
    type: str
  models:
    description: Ids that C(/v1/models) has to hold and that have to answer.
    type: list
    elements: str
    required: true
  api:
    description:
      - Whether to ask C(/v1/completions) or C(/v1/chat/completions). A base model without a chat
        template answers only the former.
    type: str
    choices: [completions, chat]
    default: completions
  prompt:
    description: What to ask.
    type: str
    default: Say hello.
  max_tokens:
    description: Number of tokens to generate at most.
    type: int
    default: 8
  key_file:
    description:
      - File with the API key. Nobody but its owner and group may read it (V(0600), V(0640));
        another mode is refused. It holds the key alone or, like the file that the role
        P(hx_infra.llm.vllm#role) writes with V(0600), a line C(VLLM_API_KEY=...).
    type: path
  budget:
    description: Seconds for the whole check.
    type: float
    default: 60.0
  wait:
    description:
      - Seconds, within O(budget), that the models may take to be listed; V(0) looks once.
    type: float
    default: 0.0
  target_latency_ms:
    description:
      - Time for the answer in one piece. Above is a V(WARN), above twice a V(FAIL).
      - V(0) does not judge it.
    type: float
    default: 0.0
  metrics:
    description: Whether C(/metrics) has to parse and to show vLLM's figures.
    type: bool
    default: false
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
  - module: hx_infra.llm.inference_check
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: Ask a vLLM service for both of its names
  hx_infra.llm.endpoint_check:
    url: http://127.0.0.1:8001
    models: [mixtral, "mixtral:8x7b"]
    key_file: /opt/citadel/config/vllm/mixtral.key.env
    metrics: true
    fail_on: FAIL

- name: Ask through the gateway
  hx_infra.llm.endpoint_check:
    url: http://gw-01:8000
    models: ["llama3.2:3b"]
    target_latency_ms: 2000
    fail_on: WARN
  delegate_to: localhost
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
ready:
  description: Whether no verdict is a V(FAIL); V(false) in check mode.
  returned: always
  type: bool
verdicts:
  description:
    - C(endpoint_ready); per model C(model_listed), C(answer_non_stream), C(answer_stream) and with
      O(target_latency_ms) C(latency); with O(metrics) C(metrics).
  returned: always
  type: list
  elements: dict
models:
  description: What each model answered.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The model's id.
      type: str
    ok:
      description: Whether both answers came to a proper end.
      type: bool
    ttft_ms:
      description: Time to the first piece of text of the streamed answer.
      type: float
    total_ms:
      description: Time of the answer in one piece.
      type: float
    stream_ms:
      description: Time of the streamed answer.
      type: float
    finish_reason:
      description: How the streamed answer ended.
      type: str
    error:
      description: What went wrong; empty when nothing did.
      type: str
skipped_inference:
  description: Whether the requests were left out because of check mode.
  returned: always
  type: bool
"""

import platform
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import http_prepare
from ansible_collections.hx_infra.llm.plugins.module_utils._endpoint_check import (
    Wanted,
    check_endpoint,
    key_headers,
    read_key,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._endpoint_check_ask import Question
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    as_dicts,
    failure_message,
)

ARGUMENT_SPEC: dict[str, Any] = {
    "url": {"type": "str", "default": "http://127.0.0.1:8001"},
    "host": {"type": "str"},
    "models": {"type": "list", "elements": "str", "required": True},
    "api": {"type": "str", "choices": ["completions", "chat"], "default": "completions"},
    "prompt": {"type": "str", "default": "Say hello."},
    "max_tokens": {"type": "int", "default": 8, "no_log": False},
    "key_file": {"type": "path", "no_log": False},  # a path; the key itself is never a parameter
    "budget": {"type": "float", "default": 60.0},
    "wait": {"type": "float", "default": 0.0},
    "target_latency_ms": {"type": "float", "default": 0.0},
    "metrics": {"type": "bool", "default": False},
    "fail_on": {"type": "str", "choices": ["never", "WARN", "FAIL"], "default": "never"},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    host = params["host"] or platform.node()
    result: dict[str, Any] = {
        "changed": False,
        "actions": [],
        "plan": [],
        "verdicts": [],
        "models": [],
        "ready": False,
        "skipped_inference": module.check_mode,
    }
    if module.check_mode:
        module.exit_json(**result)
    wanted = Wanted(
        models=params["models"],
        question=Question(params["api"], params["prompt"], params["max_tokens"]),
        budget_s=params["budget"],
        wait_s=params["wait"],
        target_latency_ms=params["target_latency_ms"],
        metrics=params["metrics"],
    )
    try:
        key = read_key(params["key_file"])
        if key:
            module.no_log_values.add(key)
        prepare = http_prepare(
            params["url"],
            ca_path=params["ca_path"],
            validate_certs=params["validate_certs"],
            headers=key_headers(key),
        )
        found = check_endpoint(wanted, prepare, time.monotonic, time.sleep)
    except HostError as error:
        module.fail_json(msg=f"{host}: {error}", **result)
    result.update(found, verdicts=as_dicts(found["verdicts"]))
    message = failure_message(result["verdicts"], params["fail_on"], f"{host} ({params['url']})")
    if message:
        module.fail_json(msg=message, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
