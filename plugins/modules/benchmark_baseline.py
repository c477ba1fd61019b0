#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark_baseline
short_description: Promote a named baseline of benchmarks over another one
version_added: 0.3.0
description:
  - Makes one named baseline hold what another one holds, such as V(production) what V(candidate)
    holds. What it held stays as C(<target>.previous).
  - Baselines are written by O(hx_infra.llm.inference_benchmark#module:baseline). Nothing but this
    module and an explicit C(replace) there ever replaces one.
  - C(<target>.previous) may be promoted too, which is the way back; what it replaces is then kept
    as C(<target>.withdrawn).
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description: The only one is V(promoted).
    type: str
    choices: [promoted]
    default: promoted
  directory:
    description: Where the named baselines are.
    type: path
    default: /opt/logs/services/ollama/perf/baselines
  source:
    description: Name of the baseline that is promoted; it stays.
    type: str
    required: true
  target:
    description: Name of the baseline that it becomes.
    type: str
    required: true
seealso:
  - module: hx_infra.llm.inference_benchmark
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: What was measured after the update is the new measure
  hx_infra.llm.benchmark_baseline:
    source: candidate
    target: production

- name: It was a mistake
  hx_infra.llm.benchmark_baseline:
    source: production.previous
    target: production
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in sentences.
  returned: always
  type: list
  elements: str
  sample: ["promote qwen3:1.7b from baseline candidate to production"]
plan:
  description: The same steps as data.
  returned: always
  type: list
  elements: dict
  contains:
    action:
      description: V(keep_baseline), V(promote_baseline) or V(drop_from_baseline).
      type: str
    target:
      description: The model; of V(keep_baseline) the baseline.
      type: str
    path:
      description: The file or directory that is written.
      type: str
    baseline:
      description: The baseline that changes.
      type: str
    source:
      description: The baseline that it gets its content from.
      type: str
"""

import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_promote import promote_baseline
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

ARGUMENT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["promoted"], "default": "promoted"},
    "directory": {"type": "path", "default": "/opt/logs/services/ollama/perf/baselines"},
    "source": {"type": "str", "required": True},
    "target": {"type": "str", "required": True},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    try:
        result = promote_baseline(
            params["directory"],
            params["source"],
            params["target"],
            check_mode=module.check_mode,
        )
    except HostError as error:
        module.fail_json(msg=f"{platform.node()}: {error}", actions=[], plan=[])
    if not module._diff:
        del result["diff"]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
