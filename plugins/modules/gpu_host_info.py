#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_host_info
short_description: Reads what the host around its NVIDIA GPUs is like
version_added: 0.4.0
description:
  - Returns facts about driver module, driver library, kernels, PCI devices, device nodes, Secure
    Boot, container toolkit, the units' environment, CUDA and past Xid messages.
  - A part that can't be known is absent and named in RV(errors). A sick host is an answer, not a
    failed task.
  - Whatever asks the driver is done by a child process that is killed at a deadline.
  - Nothing is changed on the host. Trying CUDA takes a context of some hundred MiB on one GPU after
    the other for a moment; as with any CUDA program, the driver's own helper may create device
    nodes that are missing.
  - The sandbox of a unit isn't entered. Nodes that a unit's C(DeviceAllow) hides can be opened
    here.
extends_documentation_fragment:
  - hx_infra.llm.attributes
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
  service_user:
    description:
      - The account that nodes are opened and CUDA is tried as, with the groups that its units add.
        Another account than the present one takes root.
      - The account of the task by default.
    type: str
  more_users:
    description:
      - Further accounts that compute, such as a second engine's. Each opens the nodes and tries
        CUDA for itself, see RV(accounts). One that the host doesn't know yet is no error.
    type: list
    elements: str
    default: []
  units:
    description:
      - Units that use the GPUs. The names of the variables in their environment are listed.
      - When one of them that runs as an account has C(NoNewPrivileges=yes), CUDA is tried under the
        same limit as this account.
    type: list
    elements: str
    default: []
  cuda:
    description: Whether CUDA is tried on each GPU.
    type: bool
    default: true
  dcgm:
    description:
      - Whether DCGM, where C(dcgmi) is installed, is asked for the first level of its diagnosis. It
        takes seconds, at most a minute, and does not disturb what computes on the GPUs.
    type: bool
    default: true
  open_nodes:
    description:
      - Whether the device nodes are opened. A driver that hangs may keep the child that does it,
        which can't be killed then.
    type: bool
    default: true
  python:
    description:
      - Interpreter on the host for the child processes; it needs the standard library only. The
        one that runs the module by default.
    type: path
  timeout_s:
    description: Seconds that each program and each child may take.
    type: float
    default: 20.0
  history_file:
    description:
      - Xid messages that the telemetry role has kept; they outlive the journal. Without it only the
        journal is read.
    type: path
  since:
    description: Days to look back for Xid messages.
    type: float
    default: 30.0
author:
  - hx_infra.llm contributors (@hx-infra)
seealso:
  - module: hx_infra.llm.gpu_info
  - module: hx_infra.llm.gpu_health
"""

EXAMPLES = r"""
- name: Read what the host around the GPUs is like
  hx_infra.llm.gpu_host_info:
    service_user: ollama
    units:
      - ollama.service
    history_file: /opt/hx-infrastructure/llm-01/logs/gpu/xid-history.jsonl
  register: gpu_host

- name: Say when the next start of a service meets another driver than the kernel has loaded
  ansible.builtin.debug:
    msg: >-
      The kernel has {{ gpu_host.module.loaded_version }}, on disk is
      {{ gpu_host.library.version }}: a reboot is due.
  when: gpu_host.module.loaded_version | default('') != gpu_host.library.version | default('')
"""

RETURN = r"""
module:
  description: The driver's kernel module.
  returned: when known
  type: dict
  contains:
    loaded:
      description: Whether it is loaded.
      returned: always
      type: bool
    loaded_version:
      description: Version of what is loaded, whatever is on disk by now.
      returned: when it is loaded
      type: str
      sample: 575.64.03
    flavour:
      description: V(open) or V(proprietary).
      returned: when it is loaded
      type: str
      sample: open
library:
  description: The management library that the next process loads; empty when there is none.
  returned: when known
  type: dict
  contains:
    path:
      description: The file to which its links lead.
      returned: when there is one
      type: str
      sample: /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.575.64.03
    version:
      description: The version in that name.
      returned: when the name has one
      type: str
      sample: 575.64.03
kernels:
  description: The installed kernels, the oldest first, with C(release), C(running), C(default)
    (boots next), C(has_module), C(module_version) where it can be read, and C(message) when the
    module is there but won't be found.
  returned: when known
  type: list
  elements: dict
next_kernel:
  description: C(release) of the kernel that boots next; C(decided_by), V(next_entry),
    V(saved_entry), V(default), V(newest), V(only) or V(unknown); and C(message), the same as a
    sentence. V(newest) is a guess for want of a boot loader's list.
  returned: when known
  type: dict
pci:
  description: NVIDIA's display controllers with C(address), C(device_id) and, when one has taken
    them, C(driver).
  returned: when known
  type: list
  elements: dict
  sample: [{"address": "0000:01:00.0", "device_id": "2782", "driver": "nvidia"}]
nodes:
  description: The device nodes with C(path), C(mode), C(owner), C(group), C(openable) and
    C(message). One that ought to be there and isn't has neither mode nor owner. One that was not
    tried has no C(openable).
  returned: when known
  type: list
  elements: dict
secure_boot:
  description: C(enabled); C(signer) of the running kernel's module; C(refused), whether the kernel
    has refused it in this boot. What can't be known is absent.
  returned: when known
  type: dict
persistence_daemon:
  description: V(active) or V(inactive).
  returned: when known
  type: str
toolkit:
  description: NVIDIA's container toolkit with C(installed), C(version), C(cdi_file), C(cdi_gpus),
    C(driver_version) (of the libraries in that file) and C(char_links) (whether each node has its
    link in C(/dev/char)).
  returned: when known
  type: dict
dcgm:
  description: What C(dcgmi diag -r 1) says.
  returned: when it was asked for and can be read
  type: dict
  contains:
    installed:
      description: Whether C(dcgmi) is there.
      returned: always
      type: bool
    running:
      description: Whether DCGM's host engine answers.
      returned: when it is installed
      type: bool
    passed:
      description: How many results were fine or did not apply.
      returned: when it is running
      type: int
    problems:
      description: The other results with C(test), C(status) (V(warn) or V(fail)), C(gpus) (as DCGM
        counts them, empty for the host) and C(message).
      returned: when it is running
      type: list
      elements: dict
environment:
  description: The variables in the environment of O(units) with C(unit), C(name) and C(source).
    C(value) is there for CUDA's debugging and profiling switches only; others may be secret.
  returned: when the units can be read
  type: list
  elements: dict
cuda:
  description: Whether CUDA works.
  returned: always
  type: dict
  contains:
    state:
      description: V(ok), V(failed), V(timeout), V(no_library) or V(not_tried).
      returned: always
      type: str
    message:
      description: What failed, in CUDA's words.
      returned: always
      type: str
    code:
      description: The error when CUDA as a whole doesn't work.
      returned: when there is one
      type: int
    gpus:
      description: Per GPU C(index) (as C(nvidia-smi) counts), C(uuid), C(ok), C(message),
        C(milliseconds) and, after a failure, C(call) and C(code). Code 2 is a GPU whose memory is
        full.
      returned: always
      type: list
      elements: dict
accounts:
  description: What further accounts can do.
  returned: when O(more_users) names any
  type: list
  elements: dict
  contains:
    user:
      description: Name of the account.
      returned: always
      type: str
    known:
      description: Whether the host has this account.
      returned: always
      type: bool
    message:
      description: Why nothing, or not all, could be tried; empty otherwise.
      returned: always
      type: str
    nodes:
      description: The device nodes, as in RV(nodes).
      returned: for an account that the host has
      type: list
      elements: dict
    cuda:
      description: Whether CUDA works, as in RV(cuda).
      returned: for an account that the host has
      type: dict
xids:
  description: What the driver has reported.
  returned: when the journal or a history can be read
  type: dict
  contains:
    since:
      description: How far back was looked.
      returned: always
      type: str
      sample: "2026-10-21T06:00:00.000000Z"
    covered_since:
      description: From when on nothing can have been missed; later than C(since) when the journal
        begins later.
      returned: when known
      type: str
    entries:
      description: Per GPU and Xid C(pci_bus_id) (as NVML writes it), C(xid), C(count), C(boots) (in
        how many), C(this_boot) (how many of them since the present boot), C(per_boot) (C(boot),
        C(count), C(first), C(last)), C(first), C(last), C(process) and C(text) of the last.
      returned: always
      type: list
      elements: dict
    history_file:
      description: The history that was read.
      returned: when there is one
      type: str
    message:
      description: What is missing, as a sentence.
      returned: always
      type: str
errors:
  description: What can't be known, with C(what) (the part) and C(message).
  returned: always
  type: list
  elements: dict
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

import sys
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host import Wanted, observe
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import Host

SPEC: dict[str, dict[str, Any]] = {
    "service_user": {"type": "str"},
    "more_users": {"type": "list", "elements": "str", "default": []},
    "units": {"type": "list", "elements": "str", "default": []},
    "cuda": {"type": "bool", "default": True},
    "dcgm": {"type": "bool", "default": True},
    "open_nodes": {"type": "bool", "default": True},
    "python": {"type": "path"},
    "timeout_s": {"type": "float", "default": 20.0},
    "history_file": {"type": "path"},
    "since": {"type": "float", "default": 30.0},
}


def main() -> None:
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    params = module.params
    wanted = Wanted(
        python=params["python"] or sys.executable,
        service_user=params["service_user"],
        more_users=tuple(params["more_users"]),
        units=tuple(params["units"]),
        cuda=params["cuda"],
        dcgm=params["dcgm"],
        open_nodes=params["open_nodes"],
        history_file=params["history_file"],
        days=params["since"],
    )
    found = observe(Host(timeout_s=params["timeout_s"]), wanted)
    module.exit_json(changed=False, actions=[], plan=[], **found)


if __name__ == "__main__":
    main()
