#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Reads a host's NVIDIA GPUs and their driver
version_added: 0.1.0
description:
  - Returns facts per GPU in base units, from NVML or C(nvidia-smi -q -x), and names the source.
  - A reading that a card doesn't give is absent from the result, never V(0).
  - A driver that is missing or broken or doesn't answer is an answer too (RV(state)), not a
    failed task.
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
author:
  - hx_infra.llm contributors (@hx-infra)
seealso:
  - module: hx_infra.llm.gpu_health
"""

EXAMPLES = r"""
- name: Read the GPUs
  hx_infra.llm.gpu_info:
    python: /opt/hx-infrastructure/venv/bin/python
    timeout_s: 20
  register: gpus

- name: Show how much memory is free
  ansible.builtin.debug:
    msg: "{{ item.name }}: {{ item.memory_free_bytes | human_readable }}"
  loop: "{{ gpus.gpus }}"
  loop_control:
    label: "{{ item.index }}"
"""

RETURN = r"""
state:
  description:
    - V(ok) when the driver answered, whatever it said about single GPUs.
    - Otherwise what is wrong, V(no_gpu), V(driver_not_loaded), V(library_missing),
      V(version_mismatch) (the driver's library doesn't fit the loaded kernel module),
      V(no_permission), V(timeout), V(no_binding) (the interpreter lacks nvidia-ml-py),
      V(no_reader) or V(error).
  returned: always
  type: str
  sample: ok
source:
  description: What was asked, V(nvml), V(nvidia-smi) or V(none).
  returned: always
  type: str
  sample: nvml
driver:
  description: Versions; a key is absent when the source doesn't know it.
  returned: always
  type: dict
  contains:
    version:
      description: Version of the driver.
      returned: when known
      type: str
      sample: 575.64.03
    cuda_version:
      description: Newest CUDA version that the driver supports.
      returned: when known
      type: str
      sample: "12.9"
    nvml_version:
      description: Version of NVML; C(nvidia-smi) doesn't tell it.
      returned: when known
      type: str
      sample: 12.575.64.03
errors:
  description: What could not be read, with C(source), C(state), C(message) and, from NVML, C(code).
  returned: always
  type: list
  elements: dict
gpus:
  description:
    - The GPUs. Beside the keys below a GPU may have C(minor_number), C(vbios_version),
      C(compute_capability), C(memory_reserved_bytes), C(memory_free_bytes),
      C(utilization_memory_ratio), C(temperature_shutdown_c), C(temperature_max_c),
      C(temperature_margin_c), C(temperature_slowdown_margin_c), C(power_limit_watts),
      C(power_default_limit_watts), C(clock_graphics_hz), C(clock_sm_hz), C(clock_memory_hz),
      C(performance_state), C(fan_speed_ratio), C(pcie_link_width_current), C(pcie_link_width_max),
      C(pcie_link_gen_current), C(pcie_link_gen_max), C(persistence_mode), C(compute_mode),
      C(recovery_action), C(ecc_mode), C(ecc_mode_pending), C(ecc_errors_corrected),
      C(ecc_errors_uncorrected), C(retired_pages_single_bit), C(retired_pages_double_bit),
      C(retired_pages_pending), C(remapped_rows_correctable), C(remapped_rows_uncorrectable),
      C(remapped_rows_pending) and C(remapped_rows_failure).
  returned: always
  type: list
  elements: dict
  contains:
    index:
      description: Number of the GPU, as C(nvidia-smi) counts.
      returned: always
      type: int
      sample: 0
    state:
      description: V(ok), V(lost), V(reset_required) or V(error).
      returned: always
      type: str
      sample: ok
    errors:
      description: Reads that failed, with C(what), C(message) and, from NVML, C(code).
      returned: always
      type: list
      elements: dict
    name:
      description: Name of the product.
      returned: when the card tells it
      type: str
      sample: NVIDIA GeForce RTX 4070 Ti
    uuid:
      description: The card's own identifier.
      returned: when the card tells it
      type: str
      sample: GPU-5d8bb7a4-3c0e-4f5c-9d55-2b1f2c1f7a10
    pci_bus_id:
      description: PCI address.
      returned: when the card tells it
      type: str
      sample: "00000000:01:00.0"
    memory_total_bytes:
      description: Memory of the card, in bytes.
      returned: when the card tells it
      type: int
      sample: 12878610432
    memory_used_bytes:
      description: Memory in use, in bytes, without what the driver keeps for itself.
      returned: when the card tells it
      type: int
      sample: 3221225472
    utilization_gpu_ratio:
      description: Share of the last sample period in which a kernel ran, 0 to 1.
      returned: when the card tells it
      type: float
      sample: 0.87
    temperature_c:
      description: Temperature in degrees Celsius.
      returned: when the card tells it
      type: int
      sample: 43
    temperature_slowdown_c:
      description: Temperature at which the card slows itself down, in degrees Celsius.
      returned: when the card tells it
      type: int
      sample: 96
    power_draw_watts:
      description: Power draw in watts.
      returned: when the card tells it
      type: float
      sample: 25.92
    clocks_event_reasons:
      description: Active reasons why the clocks are where they are.
      returned: when the card tells it
      type: list
      elements: str
      sample: [gpu_idle]
    processes:
      description: Programs that use the GPU, each with C(pid), C(type) (V(C), V(G) or V(C+G)) and,
        where known, C(name) and C(memory_bytes).
      returned: when the card tells it
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

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_facts import (
    READER_SPEC,
    read_gpus,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import run_killable


def main() -> None:
    module = AnsibleModule(argument_spec=READER_SPEC, supports_check_mode=True)
    facts = read_gpus(
        module.params["source"],
        module.params["python"],
        module.get_bin_path("nvidia-smi"),
        module.params["timeout_s"],
        run_killable,
    )
    module.exit_json(changed=False, actions=[], plan=[], **facts)


if __name__ == "__main__":
    main()
