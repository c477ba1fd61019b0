#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: run_report
short_description: Render the record of a run and print its summary
version_added: 0.1.0
description:
  - Writes the record of a run, an HTML report and a Markdown report to a directory on the
    controller, and prints a summary that fits one screen.
  - The documents are C(<dest>/<host>/<run_id>/run-record.json), C(report.html) and C(report.md).
    C(<dest>/<host>/latest.html) leads to the newest report.
  - It is never changed, because the record of a run is not a part of the host's state.
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
    details:
      - The documents of a dry run are written too; they say that nothing was changed.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  record:
    description: The record. The one that P(hx_infra.llm.run_record#module) keeps when it is empty.
    type: dict
    default: {}
  dest:
    description: Directory on the controller.
    type: path
    required: true
  html_template:
    description: Path of the HTML template on the controller; its name must end in C(.html.j2).
    type: path
    required: true
  markdown_template:
    description: Path of the Markdown template on the controller.
    type: path
    required: true
  keep:
    description: Number of runs of a host to keep; older ones are removed. V(0) keeps all.
    type: int
    default: 20
  documents:
    description: Whether to write the documents; otherwise the summary only names them.
    type: bool
    default: true
  summary:
    description: Whether to print the summary.
    type: bool
    default: true
seealso:
  - module: hx_infra.llm.run_record
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: Write the report of the run
  hx_infra.llm.run_report:
    dest: "{{ playbook_dir }}/runs"
    html_template: "{{ role_path }}/templates/report.html.j2"
    markdown_template: "{{ role_path }}/templates/report.md.j2"
"""

RETURN = r"""
run_id:
  description: Identifier of the run.
  returned: success
  type: str
json_path:
  description: Path of the record on the controller.
  returned: success
  type: str
html_path:
  description: Path of the HTML report on the controller.
  returned: success
  type: str
markdown_path:
  description: Path of the Markdown report on the controller.
  returned: success
  type: str
latest:
  description: The link that leads to the newest report of the host.
  returned: success
  type: str
removed:
  description: Runs that were removed because they were older than those to keep.
  returned: success
  type: list
  elements: str
summary:
  description: The lines that were printed.
  returned: success
  type: list
  elements: str
"""
