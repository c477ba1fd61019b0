#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: inference_benchmark
short_description: Measure how fast the models of an Ollama server answer
version_added: 0.1.0
description:
  - Sends requests to C(/api/generate) of an Ollama server, one model after the other, and measures
    time to the first token and tokens per second.
  - Records the first baseline of a model, compares later measurements with it, and judges service
    level objectives, errors and stability.
  - Time to the first token runs from sending the request on an open connection to the read that
    carried the first piece of content or reasoning, by the client's monotonic clock.
  - Tokens per second are the server's C(eval_count) over its C(eval_duration). Where the server
    leaves them out, chunks are counted, or the client's clock is used, and RV(benchmark) says so.
  - The first request to a model loads it. It belongs to the warm-up, whose load time is reported
    apart from the measured requests.
  - The module generates load on a server. Do not run it against a host that serves users unless it
    is drained.
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
    details:
      - Sends no request. Predicts which first baselines a real run records.
  diff_mode:
    support: full
  idempotent:
    support: full
    details:
      - Every run measures. It reports a change only when it records a first baseline; rows in
        O(results_file) are the record of the measurement, not a change of the host.
options:
  url:
    description: Base URL of the server.
    type: str
    default: http://127.0.0.1:11434
  host:
    description:
      - Name of the host in messages.
      - The inventory name by default.
    type: str
  models:
    description: The models to measure, in this order.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the model, with its tag.
        type: str
        required: true
      slo:
        description: Service level objectives. What is left out is not judged.
        type: dict
        suboptions:
          ttft_ms:
            description: Largest median of the time to the first token, in milliseconds.
            type: float
          tokens_per_s:
            description: Smallest median of tokens per second.
            type: float
  prompts:
    description:
      - Prompts, used in turn.
      - C({nonce}) stands for a text that is unique to the request. A prompt without it gets one at
        its beginning, because a server does not evaluate again a beginning that it has seen.
    type: list
    elements: str
    default:
      - "{nonce}: Explain in about one hundred words why a server's memory bandwidth limits how
        fast it can generate text."
  iterations:
    description: Measured requests per model.
    type: int
    default: 3
  warmup:
    description: Requests per model before them, not measured.
    type: int
    default: 1
  concurrency:
    description: Clients that each send their next request when the last one was answered.
    type: int
    default: 1
  num_predict:
    description: Number of tokens to generate at most.
    type: int
    default: 128
  think:
    description: Let models that can reason do so before they answer.
    type: bool
    default: false
  timeout:
    description: Seconds for one request, from sending it to the end of the answer.
    type: float
    default: 120.0
  max_duration:
    description: Seconds for all requests. No request starts later; the rest counts as C(not_sent).
    type: float
    default: 1800.0
  baseline_file:
    description:
      - CSV file with the columns C(timestamp,model,first_token_ms,tokens_per_s) on the target.
      - A model that has no row gets one with the medians of this run, unless requests failed or
        the figures vary by more than O(cv_limit). A model that has rows is compared with its last
        one.
      - Its directory must exist.
    type: path
  baseline_tolerance:
    description: Percentage by which a model may be worse than its baseline before it is a V(WARN).
    type: float
    default: 20.0
  results_file:
    description:
      - CSV file on the target to which each answered request adds a row with the columns
        C(timestamp,model,iter,total_duration_ms,prompt_tokens,prompt_eval_ms,gen_tokens,gen_eval_ms,tokens_per_s).
    type: path
  cv_limit:
    description:
      - Largest coefficient of variation of tokens per second over the iterations, in percent.
      - V(0) does not judge it.
    type: float
    default: 20.0
  fail_on:
    description:
      - The verdict from which the module fails.
      - The results are returned in any case.
    type: str
    choices: [never, WARN, FAIL]
    default: never
  run_from:
    description:
      - Where the requests are sent from. The files are on the target in both cases.
      - V(target) leaves the network out of the figures.
      - V(controller) puts it in; O(url) must then be reachable from the controller.
    type: str
    choices: [target, controller]
    default: target
  validate_certs:
    description: Check the server's certificate when O(url) is C(https).
    type: bool
    default: true
  ca_path:
    description: File with the certificates of the authorities to trust.
    type: path
  measurements:
    description:
      - RV(benchmark) of an earlier run, to be judged and recorded instead of sending requests.
      - O(run_from=controller) uses it.
    type: list
    elements: dict
  progress_file:
    description:
      - File in which the module says where it stands.
      - Set by the action plugin.
    type: path
seealso:
  - module: hx_infra.llm.inference_check
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: Measure two models, record their first baselines
  hx_infra.llm.inference_benchmark:
    models:
      - name: qwen3:1.7b
        slo:
          ttft_ms: 500
          tokens_per_s: 60
      - name: llama3.2:3b
    baseline_file: /opt/logs/services/ollama/perf/baseline.csv
    results_file: /opt/logs/services/ollama/perf/results.csv

- name: Four clients at once, as users see the server from outside
  hx_infra.llm.inference_benchmark:
    url: http://llm-01.example.com:11434
    run_from: controller
    models:
      - name: qwen3:1.7b
    concurrency: 4
    iterations: 16
    cv_limit: 0
    fail_on: FAIL
"""

RETURN = r"""
actions:
  description: What was changed, or would be in check mode, in plain sentences.
  returned: always
  type: list
  elements: str
  sample: ["record the first baseline of qwen3:1.7b"]
plan:
  description: The same for programs.
  returned: always
  type: list
  elements: dict
  contains:
    action:
      description: Kind of the action.
      type: str
      sample: record_baseline
    target:
      description: The model.
      type: str
      sample: qwen3:1.7b
    path:
      description: The file written.
      type: str
      sample: /opt/logs/services/ollama/perf/baseline.csv
benchmark:
  description: The measurement of each model. Empty in check mode.
  returned: always
  type: list
  elements: dict
  contains:
    model:
      description: Name of the model.
      type: str
    metrics:
      description:
        - The figures. C(ttft_ms), C(latency_ms), C(tokens_per_s) and C(prompt_tokens_per_s) hold
          count, median, mean, stdev, cv_percent, min, max, p90, p95, p99 and a bootstrap confidence
          interval of the median (median_low, median_high).
        - C(load_ms) and C(cold_ttft_ms) are those of the first warm-up request,
          C(total_tokens_per_s) and C(requests_per_s) are over all clients, C(gpu_ratio) is the part
          of the model in GPU memory, C(tokens_from) and C(rate_from) say who counted and timed.
      type: dict
    samples:
      description: Every measured request, durations in milliseconds.
      type: list
      elements: dict
    warmup:
      description: Every request before them.
      type: list
      elements: dict
    wall_s:
      description: Seconds from the first measured request to the last answer.
      type: float
    not_sent:
      description: Requests that were due but not sent.
      type: int
    errors:
      description: Number of errors by kind.
      type: dict
      sample: {http_5xx: 1}
    verdicts:
      description: The verdicts about this model.
      type: list
      elements: dict
    baseline_recorded:
      description: Whether this measurement became the model's first baseline.
      type: bool
verdicts:
  description: The verdicts about all models. Empty in check mode.
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
      description: The model.
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
baseline_recorded:
  description: The models whose first baseline was recorded, or would be in check mode.
  returned: always
  type: list
  elements: str
"""

import platform

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_options import (
    ARGUMENT_SPEC,
    option_errors,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_run import result_of, run
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import failure_message


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    host = params["host"] or platform.node()
    empty = result_of([], {}, params)
    empty.pop("diff")
    wrong = option_errors(params)
    if wrong:
        module.fail_json(msg=f"{host}: {'; '.join(wrong)}.", **empty)
    try:
        result = run(params, module.check_mode)
    except HostError as error:
        module.fail_json(msg=f"{host}: {error}", **empty)
    if not module._diff:
        result.pop("diff")
    message = failure_message(result["verdicts"], params["fail_on"], host)
    if message:
        module.fail_json(msg=message, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
