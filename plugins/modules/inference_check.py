#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: inference_check
short_description: Check that the models of an inference server answer, and on the GPU
version_added: 0.1.0
description:
  - Asks each model for a known text, streamed and in one piece, with temperature 0 and without
    reasoning, and checks the text and the metrics of the final object.
  - Reads from C(/api/ps) which part of the model lies in GPU memory while it is still loaded.
  - An engine can say so although the processors do the work. With O(gpu_seconds) each model that
    answers is made to talk on while the GPUs are watched. One of the engine's processes has to be
    on a GPU, half of the claimed memory has to be taken, and a GPU has to be more than 5 % busy.
    How busy it is in the first second doesn't count, as that may be another model's work.
    That takes a second and a half per model on a healthy host, and O(gpu_seconds) at most.
  - Checks that the server answers C(/api/version) and, if told so, that C(/api/tags) lists the
    expected models and no others.
  - Of vLLM, with O(api=openai), the models have to be listed and to answer; what they say isn't
    judged. It tells in C(/metrics) whether and how much of the GPUs it has reserved.
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
  api:
    description:
      - V(ollama) for Ollama's own API, V(openai) for vLLM.
    type: str
    choices: [ollama, openai]
    default: ollama
    version_added: 0.4.0
  key_file:
    description:
      - File on the host with the key that the server wants, alone on its line or as
        C(VLLM_API_KEY=key). Others must not be able to read it.
    type: path
    version_added: 0.4.0
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
    description: How to ask for the answer; with O(api=openai) always in both ways.
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
  gpu_seconds:
    description:
      - Seconds that a model is kept generating at most while the GPUs are watched. It is cut off
        as soon as the engine and the GPUs agree.
      - V(0) takes the engine at its word; otherwise V(2) is the least.
    type: float
    default: 0.0
    version_added: 0.4.0
  gpu_python:
    description:
      - Interpreter on the host that has the package C(nvidia-ml-py). It may be named before it
        exists; C(nvidia-smi) is asked instead, which is slower.
    type: path
    version_added: 0.4.0
  gpus_declared:
    description:
      - Whether the host is declared to have GPUs. If so, it is a failure that they can't be read
        with O(gpu_seconds), and a warning that a model generates too briefly for it; if not, the
        engine is taken at its word then.
    type: bool
    default: false
    version_added: 0.4.0
  expected_version:
    description:
      - Version that the server has to have.
      - Any version by default. Only with O(api=ollama).
    type: str
  expected_models:
    description:
      - The models that the server has to list.
      - Not judged by default. Only with O(api=ollama).
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
  - module: hx_infra.llm.endpoint_check
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

- name: The same, and hold what the engine says against the GPUs
  hx_infra.llm.inference_check:
    models: ["llama3.2:3b"]
    gpu_seconds: 10
    gpu_python: /opt/hx-infrastructure/venv/bin/python
    gpus_declared: true
    fail_on: FAIL

- name: Check that a vLLM service computes on the GPUs
  hx_infra.llm.inference_check:
    url: http://127.0.0.1:8001
    api: openai
    key_file: /opt/citadel/config/vllm/mixtral.key.env
    models: [mixtral]
    gpu_seconds: 10
    gpu_python: /opt/hx-infrastructure/venv/bin/python
    gpus_declared: true
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
      and C(gpu_used). With O(api=openai) C(endpoint_ready), and per model C(model_listed),
      C(answer_non_stream), C(answer_stream) and C(gpu_used).
    - The value of C(gpu_used) is the part of the model in GPU memory; V(0) also when the engine
      says otherwise but the GPUs show nothing of it, with both sides' figures as evidence.
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
      description: The model, or the server.
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
gpu_used:
  description: What was seen of the GPUs while each model generated, with O(gpu_seconds).
  returned: always
  type: list
  elements: dict
  version_added: 0.4.0
  contains:
    model:
      description: The model.
      type: str
    ratio:
      description: Part of it in GPU memory by the engine's word; null when it gives none.
      type: float
    samples:
      description: Readings between the first token and the last, but for the first second.
      type: int
    seconds:
      description: Time from the first token to the last of these readings.
      type: float
    why:
      description: Why there is no reading; empty when there is.
      type: str
    gpus:
      description: The GPUs, each with the most that it showed; null for what it doesn't tell.
      type: list
      elements: dict
      contains:
        index:
          description: Number of the GPU.
          type: int
        busy_percent:
          description: Time during which it computed, in percent.
          type: float
        memory_used_bytes:
          description: Memory taken, by whomever.
          type: int
        failed:
          description: Why the last reading failed; empty when it didn't.
          type: str
        processes:
          description:
            - What computes on it, with C(pid), C(name), C(memory_bytes) and C(engine), whether it
              is the engine's.
          type: list
          elements: dict
skipped_inference:
  description: Whether the requests were left out because of check mode.
  returned: always
  type: bool
"""

import contextlib
import platform
import shutil
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import http_prepare
from ansible_collections.hx_infra.llm.plugins.module_utils._endpoint_check import (
    key_headers,
    read_key,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used import Limits
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used_engines import OLLAMA, VLLM
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_used_look import (
    LEAST_S,
    Looking,
    Lookout,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._inference_check import (
    NON_STREAM,
    STREAM,
    Wanted,
    check_all,
    check_openai,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    as_dicts,
    failure_message,
)

ENGINES = {"ollama": OLLAMA, "openai": VLLM}

ARGUMENT_SPEC: dict[str, Any] = {
    "url": {"type": "str", "default": "http://127.0.0.1:11434"},
    "api": {"type": "str", "choices": list(ENGINES), "default": "ollama"},
    "key_file": {"type": "path", "no_log": False},  # a path; the key itself is never a parameter
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
    "gpu_seconds": {"type": "float", "default": 0.0},
    "gpu_python": {"type": "path"},
    "gpus_declared": {"type": "bool", "default": False},
    "expected_version": {"type": "str"},
    "expected_models": {"type": "list", "elements": "str"},
    "exclusive": {"type": "bool", "default": True},
    "fail_on": {"type": "str", "choices": ["never", "WARN", "FAIL"], "default": "never"},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
}


def refusal(params: dict[str, Any]) -> str:
    """Say what is wrong with the options; empty when nothing is."""
    if not 0 <= params["min_gpu_ratio"] <= 1:
        return f"min_gpu_ratio is {params['min_gpu_ratio']:g}, wanted 0 to 1."
    if params["gpu_seconds"] < 0:
        return f"gpu_seconds is {params['gpu_seconds']:g}, wanted 0 or more."
    if 0 < params["gpu_seconds"] < LEAST_S:
        return (
            f"gpu_seconds is {params['gpu_seconds']:g}, wanted 0, or {LEAST_S:g} or more:"
            " the first second doesn't count."
        )
    options = ("expected_version", "expected_models")
    only = [name for name in options if params[name] not in (None, "")]
    if params["api"] != "ollama" and only:
        return f"{' and '.join(only)} can't be judged with api {params['api']}, wanted ollama."
    return ""


def check(
    params: dict[str, Any], wanted: Wanted, key: str
) -> tuple[list[Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Return verdicts, answers, and what was seen of the GPUs."""
    prepare = http_prepare(
        params["url"],
        ca_path=params["ca_path"],
        validate_certs=params["validate_certs"],
        headers=key_headers(key),
    )
    with contextlib.ExitStack() as stack:
        lookout = None
        if params["gpu_seconds"] > 0 and wanted.gpu_ratio > 0:
            looking = Looking(
                url=params["url"],
                seconds=params["gpu_seconds"],
                limits=Limits(wanted.gpu_ratio, params["gpus_declared"]),
                python=params["gpu_python"] or "",
                smi=shutil.which("nvidia-smi") or "",
            )
            lookout = stack.enter_context(Lookout(looking, ENGINES[params["api"]], prepare))
        if params["api"] == "ollama":
            verdicts, answers = check_all(wanted, prepare, time.perf_counter, lookout)
        else:
            verdicts, answers = check_openai(wanted, prepare, lookout)
    return verdicts, answers, lookout.figures if lookout is not None else []


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
        "gpu_used": [],
        "skipped_inference": module.check_mode,
    }
    refused = refusal(params)
    if refused:
        module.fail_json(msg=f"{host}: {refused}", **result)
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
        key = read_key(params["key_file"])
        if key:
            module.no_log_values.add(key)
        verdicts, result["answers"], result["gpu_used"] = check(params, wanted, key)
    except HostError as error:
        module.fail_json(msg=f"{host}: {error}", **result)
    result["verdicts"] = as_dicts(verdicts)
    message = failure_message(result["verdicts"], params["fail_on"], host)
    if message:
        module.fail_json(msg=message, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
