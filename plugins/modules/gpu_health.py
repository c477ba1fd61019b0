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
  - Gives one outcome per check, for the host and for each GPU, in six statuses, with the value
    found, the limit, where the limit comes from, and what to do next.
  - Checks for which a card has no reading, such as ECC on GeForce cards, are V(N/A). A reading that
    should be there and isn't is V(UNKNOWN), never silence.
  - Limits and severities are data that O(policy) and O(xids) override. C(docs/gpu.md) lists them.
  - Nothing is changed on the host, apart from the counters that O(earlier_file) keeps for the next
    run.
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
  host_facts:
    description:
      - What M(hx_infra.llm.gpu_host_info) returned. Without it the checks of the host beside the
        driver (PCI bus, device nodes, kernels, CUDA, Xid messages and so on) can't be made; the
        check C(gpu_host) says so.
    type: dict
    version_added: 0.4.0
  earlier:
    description:
      - An earlier result of M(hx_infra.llm.gpu_info), with the key C(time) added (RFC 3339, or
        seconds since 1970). Counters, such as those of PCI Express replays and slowdowns, are
        judged by how much they grew since then; without it they are only told.
    type: dict
    version_added: 0.4.0
  earlier_file:
    description:
      - File on the host in which the module keeps the cards' counters (PCI Express replays, times
        of slowdown) with time, boot and driver version, and against which it rates those of a later
        run, unless O(earlier) is given.
      - They are used when they are of the same boot, driver version and card, at least a minute old
        (limits are per minute), and at most 30 days. They are replaced once they are as old as the
        limit of C(gpu_sw_thermal), 30 minutes by default, or can't be used any more.
      - Its directory isn't made; while there is none, nothing is kept. Where the file can't be
        written otherwise, the task warns.
      - Writing it is no change. In check mode it is only read.
    type: path
    version_added: 0.4.0
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
      names:
        description:
          - Names of the products of a host with different ones, one for each card, in any order.
        type: list
        elements: str
        version_added: 0.4.0
      uuids:
        description: UUIDs of the cards, in any order.
        type: list
        elements: str
        version_added: 0.4.0
      driver_min:
        description: Oldest driver version that is accepted.
        type: str
      driver_pin:
        description: The only driver version that is accepted.
        type: str
        version_added: 0.4.0
      cuda_min:
        description: Oldest CUDA version that the driver has to support.
        type: str
      temperature_max_c:
        description:
          - Highest temperature in degrees Celsius. Without it the card's own thresholds decide.
        type: float
  policy:
    description:
      - Overrides by name of the check, each a mapping with C(limit), C(severity) and C(enabled),
        all optional. A severity is V(INFO), V(WARN) or V(CRITICAL) and holds for every degree of a
        miss.
      - Unknown checks, fields and values are refused.
    type: dict
    default: {}
    version_added: 0.4.0
  xids:
    description:
      - Overrides of the table of Xid codes, by code, each a mapping with C(severity) and C(action).
        An action is V(none), V(restart_app), V(fix_config), V(reset_gpu), V(reboot) or V(service).
    type: dict
    default: {}
    version_added: 0.4.0
  accept:
    description:
      - Outcomes that are accepted, each a mapping with C(check), C(gpu), C(reason) and C(until).
        C(gpu) is an index, a UUID, or V(*), the default, for all GPUs and the host. C(reason) is
        required. C(until) is the last day on which it holds, such as V(2027-01-31).
      - What is accepted keeps its status in RV(checks) and is V(WARN) at most in RV(verdicts).
    type: list
    elements: dict
    default: []
    version_added: 0.4.0
  containers:
    description: Whether containers use the GPUs, so that the container toolkit is judged.
    type: bool
    default: false
    version_added: 0.4.0
  allowed_processes:
    description:
      - The engines' programs, which may compute on the GPUs, as file names without directory or as
        patterns.
      - With O(units) a name counts only for a process whose unit can't be read.
    type: list
    elements: str
    default: [ollama, ollama_llama_server, llama-server]
  more_processes:
    description: Other programs that may do so, written the same way, whatever unit they run in.
    type: list
    elements: str
    default: []
    version_added: 0.4.0
  units:
    description:
      - The engines' units, instances of templates by their full names. What runs in one of them may
        compute, whatever its name; that goes for a container too whose identifier the unit keeps in
        C(/run/<unit>.cid) (C(--cidfile=%t/%N.cid)).
      - Without any the names alone decide.
    type: list
    elements: str
    default: []
    version_added: 0.4.0
  foreign_processes:
    description:
      - What a program that isn't allowed means, and a context whose process is gone, V(fail) for
        V(CRITICAL), V(warn) for V(WARN), V(ignore) for V(INFO).
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
  - module: hx_infra.llm.gpu_host_info
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

- name: Judge all that can be read, with a policy of the site's own
  hx_infra.llm.gpu_health:
    gpu_facts: "{{ gpus }}"
    host_facts: "{{ gpu_host }}"
    policy:
      gpu_power_limit: {limit: 250}
      gpu_graphics_processes: {limit: [Xorg, gnome-shell]}
      gpu_persistence: {severity: INFO}
    xids:
      31: {severity: INFO, action: none}
    accept:
      - {check: gpu_pcie_width, gpu: 1, reason: "the second slot has 4 lanes", until: "2027-06-30"}
"""

RETURN = r"""
checks:
  description: Every outcome, the host's first, then those of each GPU.
  returned: always
  type: list
  elements: dict
  contains:
    check:
      description: Name of the check, such as V(gpu_temperature).
      returned: always
      type: str
    status:
      description: V(N/A), V(PASS), V(INFO), V(WARN), V(UNKNOWN) or V(CRITICAL).
      returned: always
      type: str
    subject:
      description: The GPU, with index, name and UUID, or the part of the host.
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
      description: What the value is, and what it was held against.
      returned: always
      type: str
    source:
      description: Where the limit comes from.
      returned: always
      type: str
    action:
      description: What to do next, V(none), V(restart_app), V(fix_config), V(reset_gpu), V(reboot)
        or V(service).
      returned: always
      type: str
    remedy:
      description: The same in words; empty when nothing is to be done.
      returned: always
      type: str
    gpu:
      description: Index of the GPU.
      returned: for a GPU
      type: int
    uuid:
      description: UUID of the GPU.
      returned: for a GPU that tells it
      type: str
    because:
      description: The check that tells why this one couldn't be judged.
      returned: when there is one
      type: str
    accepted:
      description: Why the outcome is accepted.
      returned: when it is
      type: str
verdicts:
  description:
    - The same in the words of a run, with C(check), C(status) (V(PASS), V(WARN) or V(FAIL)),
      C(subject), C(value), C(limit), C(unit) and C(evidence). V(CRITICAL) is V(FAIL), and so is
      V(UNKNOWN) of a check whose severity is V(CRITICAL). V(N/A) is left out, and so is what could
      not be judged because of another check that says so.
  returned: always
  type: list
  elements: dict
status:
  description: The gravest status of RV(checks); what is accepted counts as V(WARN) at most.
  returned: always
  type: str
  sample: INFO
verdict:
  description: The gravest status of RV(verdicts).
  returned: always
  type: str
  sample: PASS
action:
  description: What to do next on this host, the gravest of the actions that belong to RV(status).
  returned: always
  type: str
  sample: none
notes:
  description: Acceptances that have ended, or that name a GPU that the host doesn't show.
  returned: always
  type: list
  elements: str
earlier:
  description: The earlier reading of O(earlier_file).
  returned: when O(earlier_file) is given
  type: dict
  contains:
    used:
      description: Whether counters were rated against it.
      returned: always
      type: bool
    kept:
      description: Whether the present counters took its place.
      returned: always
      type: bool
    message:
      description: Why it could not be used; empty otherwise.
      returned: always
      type: str
disabled:
  description: Checks that the policy switched off.
  returned: always
  type: list
  elements: str
source:
  description: What the readings come from, V(nvml), V(nvidia-smi) or V(none).
  returned: always
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

import platform
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_facts import (
    READER_SPEC,
    read_gpus,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health import (
    OLLAMA_PROCESSES,
    Inventory,
    judge,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_earlier import (
    Recalled,
    keep,
    recall,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import Host
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy import REACTIONS, merge
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import run_killable
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process_owner import with_owners
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_xid import this_boot

EXPECTED_SPEC: dict[str, dict[str, Any]] = {
    "count": {"type": "int"},
    "name": {"type": "str"},
    "names": {"type": "list", "elements": "str"},
    "uuids": {"type": "list", "elements": "str"},
    "driver_min": {"type": "str"},
    "driver_pin": {"type": "str"},
    "cuda_min": {"type": "str"},
    "temperature_max_c": {"type": "float"},
}


def name_of(module: AnsibleModule) -> str:
    """Return the host's name in messages."""
    return module.params["host"] or platform.node()


def read(module: AnsibleModule) -> dict[str, Any]:
    """Return the readings that were handed in, or read the GPUs."""
    params = module.params
    facts = params["gpu_facts"]
    if facts is None:
        smi = module.get_bin_path("nvidia-smi")

        def read_once() -> dict[str, Any]:
            return read_gpus(
                params["source"], params["python"], smi, params["timeout_s"], run_killable
            )

        return with_owners(read_once(), read_once)
    refuse_other(module, "gpu_facts", facts, ("state", "gpus"), "gpu_info")
    return facts


def refuse_other(
    module: AnsibleModule, option: str, facts: dict[str, Any], keys: tuple[str, ...], source: str
) -> None:
    """Fail when an option is not the result of the module that it has to come from."""
    if not all(key in facts for key in keys):
        found = ", ".join(sorted(facts)) or "none"
        module.fail_json(
            msg=f"{name_of(module)}: {option} has the keys {found}; wanted: the result of "
            f"hx_infra.llm.{source}"
        )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **READER_SPEC,
            "gpu_facts": {"type": "dict"},
            "host_facts": {"type": "dict"},
            "earlier": {"type": "dict"},
            "earlier_file": {"type": "path"},
            "expected": {"type": "dict", "default": {}, "options": EXPECTED_SPEC},
            "policy": {"type": "dict", "default": {}},
            "xids": {"type": "dict", "default": {}},
            "accept": {"type": "list", "elements": "dict", "default": []},
            "containers": {"type": "bool", "default": False},
            "allowed_processes": {
                "type": "list",
                "elements": "str",
                "default": list(OLLAMA_PROCESSES),
            },
            "more_processes": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "list", "elements": "str", "default": []},
            "foreign_processes": {
                "type": "str",
                "choices": list(REACTIONS),
                "default": "fail",
            },
            "host": {"type": "str"},
            "fail": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    name = name_of(module)
    if params["host_facts"] is not None:
        refuse_other(module, "host_facts", params["host_facts"], ("errors",), "gpu_host_info")
    facts = read(module)
    inventory = Inventory(
        expected=params["expected"],
        allowed_processes=params["allowed_processes"],
        foreign_processes=params["foreign_processes"],
        policy=params["policy"],
        xids=params["xids"],
        accept=params["accept"],
        containers=params["containers"],
        more_processes=params["more_processes"],
        units=params["units"],
    )
    now, path = time.time(), params["earlier_file"]
    boot, kept = "", Recalled(None, "", False)
    try:
        if path:
            policy = merge(params["policy"], params["xids"], params["foreign_processes"])
            boot = this_boot(Host())
            kept = recall(path, facts, boot, now, policy)
        earlier = params["earlier"] or kept.reading
        report = judge(facts, params["host_facts"], inventory, now, earlier, lacking=kept.lacking)
    except HostError as error:
        module.fail_json(msg=f"{name}: {error}")
    for note in report.notes:
        module.warn(f"{name}: {note}")
    result = {
        "changed": False,
        "actions": [],
        "plan": [],
        "source": facts.get("source", "none"),
        **report.as_dict(),
    }
    if path:
        written = kept.replace and not module.check_mode
        problem = keep(path, facts, boot, now) if written else ""
        if problem:
            module.warn(
                f"{name}: the GPUs' counters can't be kept in {path}: {problem}. Rates of PCI "
                "Express replays and slowdowns are not judged until a run can write it."
            )
        result["earlier"] = {
            "used": kept.reading is not None and not params["earlier"],
            "kept": written and not problem,
            "message": kept.lacking,
        }
    message = report.message(name)
    if message and params["fail"]:
        module.fail_json(msg=message, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
