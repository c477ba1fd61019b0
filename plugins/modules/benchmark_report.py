#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark_report
short_description: Make reports from the runs of benchmarks
version_added: 0.3.0
description:
  - Reads the JSON files that M(hx_infra.llm.inference_benchmark) left below its O(dest) on the
    controller, prints what they amount to and writes it as a page, as Markdown and as JSON.
  - V(fleet) lays hosts side by side and marks those that stand out. It goes to
    C(<dest>/fleet-benchmark.html).
  - V(performance) tells of one host whether it is ready for production, with what has to be done.
    It goes to C(<dest>/<host>/performance-report.html).
  - It is never changed, because a report is not a part of the host's state.
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
    details: Prints the report and writes nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  kind:
    description: Which report.
    type: str
    choices: [fleet, performance]
    required: true
  dest:
    description:
      - Directory on the controller.
      - The same as O(hx_infra.llm.inference_benchmark#module:report_dir).
    type: path
    required: true
  hosts:
    description:
      - The hosts by their names in the inventory; one for V(performance).
      - Those of which nothing was measured are named.
    type: list
    elements: str
    required: true
  files:
    description:
      - JSON files of the runs.
      - Without it, of each of the hosts the runs of the last O(days) are taken; of runs of the same
        models under the same load, the newest one.
    type: list
    elements: path
  days:
    description: Age of the oldest run that counts. V(0) takes all.
    type: float
    default: 30.0
  models:
    description: The host's catalog with C(name), C(digest) and C(size_bytes), for V(performance).
    type: list
    elements: dict
    default: []
  disk:
    description:
      - Disk of the models with C(path), C(total_bytes) and C(free_bytes), for V(performance).
    type: dict
    default: {}
  limits:
    description:
      - Limits of single rules of V(performance), such as C(disk_percent). C(docs/benchmark.md) has
        all of them.
    type: dict
    default: {}
seealso:
  - module: hx_infra.llm.inference_benchmark
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: Lay the hosts side by side
  hx_infra.llm.benchmark_report:
    kind: fleet
    dest: "{{ playbook_dir }}/runs"
    hosts: "{{ groups['llm_hosts'] }}"
  run_once: true

- name: Is the host ready for production?
  hx_infra.llm.benchmark_report:
    kind: performance
    dest: "{{ playbook_dir }}/runs"
    hosts: ["{{ inventory_hostname }}"]
    disk: {path: /data/llm_bulk_storage, total_bytes: 7301444403200, free_bytes: 2190433320960}
    limits: {disk_percent: 80}
"""

RETURN = r"""
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
verdict:
  description:
    - Of V(fleet) the gravest of all rows, V(PASS), V(WARN), V(FAIL), V(UNRELIABLE) or V(INVALID).
    - Of V(performance) V(READY), V(READY WITH CONDITIONS) or V(NOT READY).
  returned: success
  type: str
summary:
  description: The lines that were printed.
  returned: success
  type: list
  elements: str
html_path:
  description: Path of the page.
  returned: success
  type: str
markdown_path:
  description: Path of the same as Markdown.
  returned: success
  type: str
json_path:
  description: Path of the same as JSON.
  returned: success
  type: str
"""
