#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: run_record
short_description: Keep the record of a run as a fact of the host
version_added: 0.1.0
description:
  - Opens, fills and closes the record of a run, the JSON document that the report is rendered from.
  - The record is kept in the fact C(llm_run_record) of the host; P(hx_infra.llm.run_report#module)
    writes it down.
  - Registered results are read for what they say they did. A result of a module of this collection
    carries C(plan), C(actions) and C(verdicts), which are taken as they are. Any other result that
    changed something becomes one entry, named after the step and the thing that was changed.
  - A dry run and a real run of the same host give the same C(plan).
  - Runs on the controller and needs no connection to the host.
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  event:
    description:
      - What has just happened.
      - V(open) begins a record and forgets an earlier one. Every other event opens a record by
        itself when there is none, or when the one there is closed.
      - V(phase_start) and V(phase_end) enclose a phase. A phase begun again replaces its earlier
        entries.
      - V(attach) only adds O(data).
      - V(failed) ends a phase by a failure.
      - V(close) ends the record.
    type: str
    required: true
    choices: [open, phase_start, phase_end, attach, failed, close]
  phase:
    description: Name of the phase; required when O(event) is V(phase_start), V(phase_end) or
      V(failed).
    type: str
    default: ''
  roles:
    description:
      - Roles of the phase, in their order. Registered variables named C(__<role>_result_<step>)
        become entries of the plan, and the C(verdicts) of every variable whose name begins with
        C(__<role>_) are kept.
      - A result that an earlier phase recorded already is not recorded twice.
    type: list
    elements: str
    default: []
  results:
    description: Further registered results by the name of their step.
    type: dict
    default: {}
  data:
    description:
      - Further data by name, merged into the record.
      - The report knows C(backup) (C(path), C(bytes)), C(reclaimed) (C(bytes), C(files)),
        C(interruption) (C(seconds)), C(benchmark) (a list of measurements) and C(gpu).
    type: dict
    default: {}
  state:
    description:
      - State of the host, as P(hx_infra.llm.host_state_info#module) returns it. Before the run when
        O(event=open), after it when O(event=close).
    type: dict
    default: {}
  declaration:
    description: What is wanted for the host; shown in the report. Read when the record is opened.
    type: dict
    default: {}
  run_id:
    description: Identifier of the run. Made from the time and the mode when empty.
    type: str
    default: ''
  record_dir:
    description:
      - Directory on the controller where the record is written after every event, as
        C(<run_id>/run-record.json), so that a run which is killed leaves one too. Read when the
        record is opened; not written when empty.
    type: path
    default: ''
  task:
    description: Name of the task that failed.
    type: str
    default: ''
  result:
    description: Result of the task that failed; its message is kept.
    type: dict
    default: {}
  drained:
    description:
      - Whether the host was left drained after the failure. Leave it out when that is not known.
      - With O(event=phase_end) it corrects what an earlier V(failed) said, with O(next_step).
    type: bool
  healthy:
    description: Whether the host still serves after the failure. Leave it out when that is not
      known.
    type: bool
  rolled_back:
    description: Whether the phase was rolled back. Leave it out when that is not known.
    type: bool
  next_step:
    description: One sentence that says what to do after the failure.
    type: str
    default: ''
seealso:
  - module: hx_infra.llm.run_report
  - module: hx_infra.llm.host_state_info
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: Open the record of the run
  hx_infra.llm.run_record:
    event: open
    state: "{{ observed.state }}"

- name: Record what the storage phase did
  hx_infra.llm.run_record:
    event: phase_end
    phase: storage
    roles:
      - storage_topology

- name: Record where to go back to
  hx_infra.llm.run_record:
    event: attach
    data:
      backup:
        path: /opt/hx-infrastructure/llm-01/backups/llm-01-20250814-151121.tgz
        bytes: 4096
"""

RETURN = r"""
record:
  description: The record after the event. C(docs/run-record.md) describes it field by field.
  returned: success
  type: dict
  sample:
    schema: 1
    run_id: 20261120T101500Z-real
    host: llm-01
    mode: real
    status: ok
    verdict: PASS
    changed: 2
ansible_facts:
  description: The record as a fact of the host.
  returned: success
  type: dict
  contains:
    llm_run_record:
      description: The same as RV(record).
      returned: success
      type: dict
"""
