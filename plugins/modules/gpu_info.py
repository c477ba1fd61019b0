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
    package:
      description: Python package of the binding, with C(name) and C(version).
      returned: when NVML was asked and the package is known
      type: dict
      sample: {name: nvidia-ml-py, version: 13.615.71}
errors:
  description: What could not be read, with C(source), C(state), C(message) and, from NVML, C(code).
  returned: always
  type: list
  elements: dict
notes:
  description: What is odd about the host's NVML binding, with C(what) and C(message); each is shown
    as a warning, too.
  returned: always
  type: list
  elements: dict
gpus:
  description: The GPUs. A key is absent where the card gives no such reading.
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
      returned: when told
      type: str
      sample: NVIDIA GeForce RTX 4070 Ti
    uuid:
      description: The card's own identifier.
      returned: when told
      type: str
      sample: GPU-5d8bb7a4-3c0e-4f5c-9d55-2b1f2c1f7a10
    pci_bus_id:
      description: PCI address.
      returned: when told
      type: str
      sample: "00000000:01:00.0"
    minor_number:
      description: Number in the name of the device node, as in C(/dev/nvidia0).
      returned: when told
      type: int
    serial:
      description: Serial number of the board; GeForce cards have none.
      returned: when told
      type: str
    brand:
      description: Brand, in the words of C(nvidia-smi).
      returned: when told
      type: str
      sample: GeForce
    architecture:
      description: Generation, in the words of C(nvidia-smi).
      returned: when told
      type: str
      sample: Ada Lovelace
    compute_capability:
      description: Compute capability of CUDA; only NVML tells it.
      returned: when told
      type: str
      sample: "8.9"
    vbios_version:
      description: Version of the card's firmware.
      returned: when told
      type: str
      sample: 95.04.31.00.3B
    memory_total_bytes:
      description: Memory of the card, in bytes.
      returned: when told
      type: int
      sample: 12878610432
    memory_used_bytes:
      description: Memory in use, in bytes, without what the driver keeps for itself.
      returned: when told
      type: int
      sample: 3221225472
    memory_free_bytes:
      description: Memory that nobody uses, in bytes.
      returned: when told
      type: int
    memory_reserved_bytes:
      description: Memory that the driver keeps for itself, in bytes.
      returned: when told
      type: int
    bar1_total_bytes:
      description: Size of the window through which the CPU sees the memory, in bytes.
      returned: when told
      type: int
    bar1_used_bytes:
      description: Share of that window in use, in bytes.
      returned: when told
      type: int
    utilization_gpu_ratio:
      description: Share of the last sample period in which a kernel ran, 0 to 1.
      returned: when told
      type: float
      sample: 0.87
    utilization_memory_ratio:
      description: Share in which memory was read or written, 0 to 1.
      returned: when told
      type: float
    encoder_ratio:
      description: Share in which video was encoded, 0 to 1.
      returned: when told
      type: float
    decoder_ratio:
      description: Share in which video was decoded, 0 to 1.
      returned: when told
      type: float
    temperature_c:
      description: Temperature in degrees Celsius.
      returned: when told
      type: int
      sample: 43
    temperature_shutdown_c:
      description: Where the card switches itself off, in degrees Celsius.
      returned: when told
      type: int
    temperature_slowdown_c:
      description: Where the card slows itself down, in degrees Celsius.
      returned: when told
      type: int
      sample: 96
    temperature_max_c:
      description: Highest temperature for operation, in degrees Celsius.
      returned: when told
      type: int
    temperature_memory_c:
      description: Temperature of the memory in degrees Celsius.
      returned: when told
      type: int
    temperature_memory_max_c:
      description: Highest temperature of the memory, in degrees Celsius.
      returned: when told
      type: int
    temperature_margin_c:
      description: Distance to the card's limit, in degrees Celsius.
      returned: when told
      type: int
    temperature_shutdown_margin_c:
      description: Margin at which the card switches itself off, in degrees Celsius.
      returned: when told
      type: int
    temperature_slowdown_margin_c:
      description: Margin at which the card slows itself down, in degrees Celsius.
      returned: when told
      type: int
    temperature_max_margin_c:
      description: Lowest margin for operation, in degrees Celsius.
      returned: when told
      type: int
    temperature_tlimit_supported:
      description: Whether the card has these margins in place of thresholds.
      returned: when told
      type: bool
    power_draw_watts:
      description: Power draw in watts, averaged over a second where the card can.
      returned: when told
      type: float
      sample: 25.92
    power_limit_watts:
      description: Limit that is in force, in watts.
      returned: when told
      type: float
    power_management_limit_watts:
      description: Limit that was asked for, in watts.
      returned: when told
      type: float
    power_default_limit_watts:
      description: Limit as made, in watts.
      returned: when told
      type: float
    power_min_limit_watts:
      description: Lowest limit that can be set, in watts.
      returned: when told
      type: float
    power_max_limit_watts:
      description: Highest limit that can be set, in watts.
      returned: when told
      type: float
    power_violation_ns:
      description: Time below the wanted clocks because of power, in nanoseconds; only NVML tells
        it.
      returned: when told
      type: int
    energy_joules:
      description: Energy since the driver was loaded, in joules; only NVML tells it.
      returned: when told
      type: float
    clock_graphics_hz:
      description: Clock of the graphics part, in hertz.
      returned: when told
      type: int
    clock_sm_hz:
      description: Clock of the multiprocessors, in hertz.
      returned: when told
      type: int
    clock_memory_hz:
      description: Clock of the memory, in hertz.
      returned: when told
      type: int
    clock_graphics_max_hz:
      description: Highest clock of the graphics part, in hertz.
      returned: when told
      type: int
    clock_sm_max_hz:
      description: Highest clock of the multiprocessors, in hertz.
      returned: when told
      type: int
    clock_memory_max_hz:
      description: Highest clock of the memory, in hertz.
      returned: when told
      type: int
    clocks_event_reasons:
      description: Active reasons why the clocks are where they are.
      returned: when told
      type: list
      elements: str
      sample: [gpu_idle]
    throttle_ns:
      description: Time for which clocks were held down, by reason, in nanoseconds since the
        driver was loaded.
      returned: when told
      type: dict
      sample: {sw_power_cap: 84000, hw_thermal_slowdown: 0}
    performance_state:
      description: Performance state, 0 (fastest) to 15.
      returned: when told
      type: int
    fan_speed_ratio:
      description: Speed that the fan is told to have, 0 to 1.
      returned: when told
      type: float
    pcie_link_width_current:
      description: Lanes in use.
      returned: when told
      type: int
    pcie_link_width_max:
      description: Lanes that card and slot could use.
      returned: when told
      type: int
    pcie_link_gen_current:
      description: PCI Express generation in use; lower than possible while idle.
      returned: when told
      type: int
    pcie_link_gen_max:
      description: Generation that card and slot could use.
      returned: when told
      type: int
    pcie_link_gen_gpu_max:
      description: Generation that the card could use in a better slot.
      returned: when told
      type: int
    pcie_replay_count:
      description: Packets sent again since the last reset.
      returned: when told
      type: int
    persistence_mode:
      description: Whether the driver stays loaded while nobody uses the GPU.
      returned: when told
      type: bool
    compute_mode:
      description: V(default), V(exclusive_thread), V(prohibited) or V(exclusive_process).
      returned: when told
      type: str
    mig_mode:
      description: Whether the GPU is cut into instances (MIG).
      returned: when told
      type: bool
    mig_mode_pending:
      description: That mode after the next reset.
      returned: when told
      type: bool
    recovery_action:
      description: What the driver asks for, 0 nothing, 1 reset, 2 reboot, 3 drain P2P, 4 drain
        and reset, 5 recover the IMEX domain, 6 reset of the bus, 7 reboot of the system.
      returned: when told
      type: int
      sample: 0
    ecc_mode:
      description: Whether errors of the memory are corrected.
      returned: when told
      type: bool
    ecc_mode_pending:
      description: That mode after the next reset.
      returned: when told
      type: bool
    ecc_errors_corrected:
      description: Errors corrected since the driver was loaded.
      returned: when told
      type: int
    ecc_errors_uncorrected:
      description: Errors not corrected since the driver was loaded.
      returned: when told
      type: int
    sram_threshold_exceeded:
      description: Whether the caches had more errors than the maker allows; NVML tells it to root.
      returned: when told
      type: bool
    unrepairable_memory:
      description: Whether memory is broken for good.
      returned: when told
      type: bool
    retired_pages_single_bit:
      description: Pages given up for corrected errors.
      returned: when told
      type: int
    retired_pages_double_bit:
      description: Pages given up for errors that can't be corrected.
      returned: when told
      type: int
    retired_pages_pending:
      description: Whether a page is given up at the next reset.
      returned: when told
      type: bool
    remapped_rows_correctable:
      description: Rows replaced for corrected errors.
      returned: when told
      type: int
    remapped_rows_uncorrectable:
      description: Rows replaced for errors that can't be corrected.
      returned: when told
      type: int
    remapped_rows_pending:
      description: Whether a row is replaced at the next reset.
      returned: when told
      type: bool
    remapped_rows_failure:
      description: Whether a row could not be replaced.
      returned: when told
      type: bool
    inforom_valid:
      description: Whether the card's configuration memory is whole; C(nvidia-smi) tells only that
        it isn't.
      returned: when told
      type: bool
    processes:
      description: Programs that use the GPU, each with C(pid), C(type) (V(C), V(G) or V(C+G))
        and, where known, C(name), C(memory_bytes), C(user), C(unit) (systemd's unit), C(container)
        (the container's identifier) and C(gone) (true when there is no such process any more,
        though the driver still lists it).
      returned: when told
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

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_facts import (
    READER_SPEC,
    read_gpus,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import run_killable
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process_owner import with_owners


def main() -> None:
    module = AnsibleModule(argument_spec=READER_SPEC, supports_check_mode=True)
    params = module.params
    smi = module.get_bin_path("nvidia-smi")

    def read() -> dict[str, Any]:
        return read_gpus(params["source"], params["python"], smi, params["timeout_s"], run_killable)

    facts = with_owners(read(), read)
    for note in facts["notes"]:
        module.warn(note["message"])
    module.exit_json(changed=False, actions=[], plan=[], **facts)


if __name__ == "__main__":
    main()
