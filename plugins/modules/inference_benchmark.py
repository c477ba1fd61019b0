#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: inference_benchmark
short_description: Measure how an inference server answers, with the measurement's own error
version_added: 0.1.0
description:
  - Sends requests to Ollama or to a server that speaks OpenAI's API, such as vLLM, one model after
    the other and under a declared load, and measures time to the first token (TTFT), the gaps
    between tokens (ITL), time per output token (TPOT), latency, throughput and goodput.
  - TTFT runs from sending the request on an open connection to the arrival of the first piece of
    content or reasoning. On Linux the arrival is the kernel's own time stamp of the packet, so that
    a busy client is not reported as a slow server. On a schedule it runs from the time at which the
    request was due.
  - Tokens are those that the server counts. Where it says nothing, pieces are counted, and
    RV(benchmark) says so.
  - Before a load the client measures its own error against a server of its own on loopback, at the
    same concurrency; afterwards the figures are compared with the server's own. RV(benchmark)
    states both, and a measurement that is limited by the client is V(INVALID).
  - Judges service level objectives, errors, stability and whether the measurement can be trusted;
    records first baselines and compares with them and with named ones.
  - Needs nothing on the target besides Python. C(docs/benchmark.md) has definitions and formulas.
  - The module generates load. It refuses to do so on a host that is declared to be in service.
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
    details:
      - Sends no request. RV(would_send) says what a real run sends, RV(actions) which baselines it
        records when what it measures is sound.
  diff_mode:
    support: full
  idempotent:
    support: full
    details:
      - Every run measures. It reports a change only when it records a baseline; rows in
        O(results_file) and files in O(json_dir) are the record of the measurement, not a change of
        the host.
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
  api:
    description:
      - How the server is asked, C(/api/generate), C(/api/chat), C(/v1/chat/completions) or
        C(/v1/completions).
    type: str
    choices: [ollama_generate, ollama_chat, openai_chat, openai_completions]
    default: ollama_generate
  stream:
    description: Whether answers come piece by piece. Without, there is no TTFT and no gap.
    type: bool
    default: true
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
            description: Largest time to the first token, in milliseconds.
            type: float
          tpot_ms:
            description: Largest time per output token after the first, in milliseconds.
            type: float
          itl_p99_ms:
            description: Largest 99th percentile of all gaps between tokens, in milliseconds.
            type: float
          latency_ms:
            description: Largest time to the end of the answer, in milliseconds.
            type: float
          tokens_per_s:
            description: Smallest rate of generation of a request, in tokens per second.
            type: float
          target_throughput_rps:
            description: Smallest number of answered requests per second.
            type: float
          goodput_rps:
            description: Smallest number per second of requests that meet all objectives.
            type: float
          slo_percentile:
            description:
              - The percentile for which the objectives of requests hold.
              - The median by default; V(p95) in a sweep.
            type: str
            choices: [p50, p90, p95, p99]
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
  prompt_file:
    description:
      - File with prompts instead, paragraphs between empty lines, where the requests are sent from.
    type: path
  prompt_tokens:
    description:
      - Length of synthetic prompts instead, in tokens. There is no tokenizer; the length is fitted
        to what the server counts while it is warmed up, so let O(warmup) be at least V(2).
    type: int
    default: 0
  unique_prompts:
    description: Whether no two prompts begin alike, so that no cache of prompts helps.
    type: bool
    default: true
  num_predict:
    description: Number of tokens to generate at most.
    type: int
    default: 128
  think:
    description: Let models that can reason do so before they answer.
    type: bool
    default: false
  extra_body:
    description:
      - Further fields of each request, such as C(ignore_eos) of vLLM. They win over ours.
    type: dict
    default: {}
  iterations:
    description:
      - Measured requests per model and load.
      - By default V(3), or as many as there is O(duration) for; at least two per place in a sweep.
    type: int
  warmup:
    description:
      - Requests per model before them, not measured. The first one loads the model, and is reported
        apart.
    type: int
    default: 1
  concurrency:
    description:
      - Without O(rate), clients that each send their next request when the last one was answered.
        V(1) by default.
      - With O(rate), the most requests in flight; one that has to wait for a place is late, and its
        latency counts from when it was due. V(256) by default.
    type: int
  rate:
    description: Requests per second on a schedule that does not wait for answers.
    type: float
  arrival:
    description: Whether such requests come at random (V(poisson)) or evenly.
    type: str
    choices: [poisson, constant]
    default: poisson
  seed:
    description: The same seed gives the same schedule.
    type: int
    default: 0
  duration:
    description:
      - Seconds after which no request of a load starts, at most O(max_duration).
      - V(0) leaves it to O(iterations).
    type: float
    default: 0.0
  sweep:
    description:
      - Raise the load step by step until an objective is missed or throughput stands still.
      - Each step is a load of O(iterations) requests or O(duration) seconds.
    type: dict
    suboptions:
      over:
        description: What is raised.
        type: str
        choices: [concurrency, rate]
        default: concurrency
      values:
        description: The steps. By default from O(sweep.start) to O(sweep.limit) by O(sweep.factor).
        type: list
        elements: float
      start:
        description: The first step.
        type: float
        default: 1.0
      limit:
        description: The last step.
        type: float
        default: 64.0
      factor:
        description: How much each step is larger than the one before.
        type: float
        default: 2.0
      refine:
        description: How often the range in which objectives break is halved afterwards.
        type: int
        default: 0
      stop:
        description: Whether to stop when an objective is missed.
        type: bool
        default: true
  timeout:
    description: Seconds for one request, from sending it to the end of the answer.
    type: float
    default: 120.0
  max_duration:
    description: Seconds for all requests. No request starts later; the rest counts as C(not_sent).
    type: float
    default: 1800.0
  stall_ms:
    description: A gap between tokens that is longer counts as a stall.
    type: float
    default: 500.0
  calibrate:
    description:
      - Whether the client measures its own error before the first load of each width, which takes
        about three seconds.
    type: bool
    default: true
  overhead_limit_ms:
    description:
      - How much the client may add to TTFT before the measurement is V(INVALID).
      - By default 2 ms or 5 % of the median TTFT, whichever is more.
    type: float
  loop_lag_limit_ms:
    description:
      - How long arrivals may wait for the client (99th percentile) before the measurement is
        V(INVALID), in milliseconds.
    type: float
    default: 25.0
  sample_resources:
    description:
      - Whether GPUs, processors, memory and the engine's own metrics are sampled meanwhile, by a
        process of their own. With O(run_from=controller) only the engine's metrics are.
    type: bool
    default: true
  sample_interval:
    description: Seconds between two samples.
    type: float
    default: 1.0
  gpu_python:
    description:
      - An interpreter that has nvidia-ml-py. Without one, C(nvidia-smi) is asked where it exists.
    type: path
  min_samples:
    description:
      - Answered requests below which a measurement is V(UNRELIABLE).
      - By default V(3), or one per place when there are more places.
    type: int
  error_limit:
    description: Percentage of failed requests above which a measurement is V(UNRELIABLE).
    type: float
    default: 1.0
  cv_limit:
    description:
      - Largest coefficient of variation of tokens per second over the requests, in percent.
      - V(0) does not judge it.
    type: float
    default: 20.0
  baseline_file:
    description:
      - CSV file with the columns C(timestamp,model,first_token_ms,tokens_per_s) on the target.
      - A model that has no row gets one with the medians of this run, unless requests failed, the
        figures vary by more than O(cv_limit) or can't be trusted. A model that has rows is compared
        with its last one.
      - Its directory must exist.
    type: path
  baseline_tolerance:
    description: Percentage by which a model may be worse than that before it is a V(WARN).
    type: float
    default: 20.0
  baseline:
    description: Named baselines, which hold the figures of every request.
    type: dict
    suboptions:
      directory:
        description: Where they are on the target.
        type: path
        required: true
      compare:
        description: Name of the one to compare with.
        type: str
      set:
        description: Name of the one to write this measurement into.
        type: str
      replace:
        description: Whether another measurement of the same model and load may be replaced.
        type: bool
        default: false
      accept_unreliable:
        description: Whether a measurement that is V(UNRELIABLE) may become a baseline.
        type: bool
        default: false
      may_differ:
        description:
          - Parts of what was measured whose change is the point of the comparison, such as
            C(engine_version) or C(model_digest); otherwise such a change makes it incomparable.
        type: list
        elements: str
        default: []
      warn_percent:
        description: A significant change for the worse beyond it is a V(WARN).
        type: float
        default: 5.0
      fail_percent:
        description: A significant change for the worse beyond it is a V(FAIL).
        type: float
        default: 20.0
  results_file:
    description:
      - CSV file on the target to which each answered request adds a row with the columns
        C(timestamp,model,iter,total_duration_ms,prompt_tokens,prompt_eval_ms,gen_tokens,gen_eval_ms,tokens_per_s).
    type: path
  json_dir:
    description:
      - Directory on the target for a JSON file with everything that was measured; it must exist.
    type: path
  report_dir:
    description:
      - Directory on the controller for the same file and a page with plots, below a directory of
        the host's name. C(benchmark.html) there leads to the newest page.
    type: path
  invalid:
    description:
      - The verdict on a measurement that its client has limited, which says nothing about the
        server. It never becomes a baseline.
    type: str
    choices: [WARN, FAIL]
    default: FAIL
  fail_on:
    description:
      - The verdict from which the module fails.
      - The results are returned in any case.
    type: str
    choices: [never, WARN, FAIL]
    default: never
  in_service:
    description: Whether clients send requests to the host meanwhile.
    type: bool
    default: false
  allow_in_service:
    description: Whether to measure although they do. Without, the module refuses.
    type: bool
    default: false
  key_file:
    description:
      - File with the API key, where the requests are sent from. Nobody but its owner and group may
        read it.
    type: path
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
  measured_run:
    description:
      - Name and times of the run that O(measurements) is of.
      - Set by the action plugin.
    type: dict
  progress:
    description:
      - Whether to show where the measurement stands, once a second. It then runs as a job of
        Ansible's, which costs the controller and the target about a second of processor time.
    type: bool
    default: true
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

- name: Find out how many requests at once a vLLM service keeps its objectives for
  hx_infra.llm.inference_benchmark:
    url: http://127.0.0.1:8001
    api: openai_chat
    key_file: /opt/citadel/config/vllm/mixtral.key.env
    models:
      - name: mixtral
        slo:
          ttft_ms: 1500
          tpot_ms: 50
    prompt_tokens: 1000
    warmup: 2
    sweep:
      over: concurrency
      limit: 64
      refine: 2
    report_dir: "{{ playbook_dir }}/runs"

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

- name: Requests that come at random, compared with what was measured before the update
  hx_infra.llm.inference_benchmark:
    models:
      - name: qwen3:1.7b
    rate: 2
    duration: 120
    baseline:
      directory: /opt/logs/services/ollama/perf/baselines
      compare: production
      may_differ: [engine_version]
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
      description: V(record_baseline), V(set_baseline) or V(replace_baseline).
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
would_send:
  description: What a real run sends, one sentence per model. Empty in a real run.
  returned: always
  type: list
  elements: str
  sample: ["send 3 requests, 1 at once, at most 128 tokens each, to qwen3:1.7b after 1 to warm up"]
benchmark:
  description: The measurement of each model under each load. Empty in check mode.
  returned: always
  type: list
  elements: dict
  contains:
    model:
      description: Name of the model.
      type: str
    stage:
      description: The load, with its C(label) in words.
      type: dict
    begun_at:
      description: When it began, RFC 3339.
      type: str
    asked:
      description: The engine that answered, and what kind of prompt it was asked with.
      type: dict
    metrics:
      description:
        - The figures. C(ttft_ms), C(latency_ms), C(tpot_ms), C(gap_ms), C(tokens_per_s),
          C(prompt_tokens_per_s) and C(dispatch_lag_ms) hold count, median, mean, stdev, cv_percent,
          min, max, p90, p95, p99, p999 and a confidence interval of the median (median_low,
          median_high); C(gap_ms) also stalls and a histogram.
        - C(load_ms) and C(cold_ttft_ms) are those of the first warm-up request,
          C(total_tokens_per_s), C(requests_per_s), C(goodput_per_s) and C(slo_attainment) are over
          all requests, C(gpu_ratio) is the part of the model in GPU memory, C(tokens_from) and
          C(rate_from) say who counted and timed.
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
    in_flight:
      description: Most requests in flight at once.
      type: int
    errors:
      description: Number of errors by kind.
      type: dict
      sample: {http_5xx: 1}
    client:
      description:
        - The measurement's own error. C(overhead_ms) and C(itl_overhead_ms) of the calibration,
          C(loop_lag_p99_ms) and C(dispatch_lag_p99_ms) of the run itself, C(limit_ms).
      type: dict
    server_truth:
      description: The server's own account of the same requests, and what the difference holds.
      type: dict
    timeline:
      description: GPUs, processors, memory, engine and client on one time axis.
      type: dict
    validity:
      description: C(state) is V(VALID), V(UNRELIABLE) or V(INVALID), C(reasons) say why.
      type: dict
    comparison:
      description: How it differs from the named baseline.
      type: dict
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
run:
  description: What the JSON file of the run holds besides RV(benchmark). Empty in check mode.
  returned: always
  type: dict
  contains:
    engine:
      description: Name and version of the engine.
      type: dict
    sweeps:
      description: Per model the points of its sweep, the knee, and why it ended.
      type: list
      elements: dict
json_file:
  description: The file written to O(json_dir).
  returned: always
  type: str
report_file:
  description: The page written to O(report_dir).
  returned: with O(report_dir), except in check mode
  type: str
problems:
  description: What could not be written. The module fails with it, and returns the figures.
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
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_run import empty_result, run
from ansible_collections.hx_infra.llm.plugins.module_utils._endpoint_check import read_key
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import failure_message


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    host = params["host"] or platform.node()
    empty = empty_result(params)
    empty.pop("diff")
    wrong = option_errors(params)
    if wrong:
        module.fail_json(msg=f"{host}: {'; '.join(wrong)}.", **empty)
    try:
        if params["measurements"] is None and not module.check_mode:
            key = read_key(params["key_file"])
            if key:
                module.no_log_values.add(key)
        result = run({**params, "host": host}, module.check_mode)
    except HostError as error:
        module.fail_json(msg=f"{host}: {error}", **empty)
    if not module._diff:
        result.pop("diff")
    message = failure_message(result["verdicts"], params["fail_on"], host)
    if result["problems"]:
        message = f"{host}: {' '.join(result['problems'])} {message}".strip()
    if message:
        module.fail_json(msg=message, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
