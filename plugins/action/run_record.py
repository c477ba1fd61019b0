# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeps the record of a run as a fact of the host; runs on the controller and changes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_files as files
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _run_record as records
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _run_results as results
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _run_traffic as traffic

ARGUMENTS = {
    "event": {
        "type": "str",
        "required": True,
        "choices": ["open", "phase_start", "phase_end", "attach", "failed", "close"],
    },
    "phase": {"type": "str", "default": ""},
    "roles": {"type": "list", "elements": "str", "default": []},
    "results": {"type": "dict", "default": {}},
    "data": {"type": "dict", "default": {}},
    "state": {"type": "dict", "default": {}},
    "declaration": {"type": "dict", "default": {}},
    "run_id": {"type": "str", "default": ""},
    "record_dir": {"type": "path", "default": ""},
    "task": {"type": "str", "default": ""},
    "result": {"type": "dict", "default": {}},
    "drained": {"type": "bool"},
    "healthy": {"type": "bool"},
    "rolled_back": {"type": "bool"},
    "next_step": {"type": "str", "default": ""},
}
NEEDS_PHASE = ("phase_start", "phase_end", "failed")


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict | None = None) -> dict:
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        _validation, options = self.validate_argument_spec(argument_spec=ARGUMENTS)
        options = results.plain(options)
        if options["event"] in NEEDS_PHASE and not options["phase"]:
            raise AnsibleActionFail(
                f"run_record: event={options['event']} without phase. Name the phase."
            )
        try:
            record = self._next(options, variables, datetime.now(timezone.utc))
        except HostError as error:
            raise AnsibleActionFail(str(error)) from error
        directory = record["controller"].get("record_dir")
        if directory:
            files.write_record(os.path.join(directory, record["run_id"], files.RECORD), record)
        result.update(changed=False, record=record, ansible_facts={records.FACT: record})
        return result

    def _next(
        self, options: dict[str, Any], variables: Mapping[str, Any], now: datetime
    ) -> records.Record:
        """Return the record as it is after the event."""
        event, phase = options["event"], options["phase"]
        facts = variables.get("ansible_facts") or {}
        record = results.plain(facts.get(records.FACT)) or None
        if event == "open" or record is None or record.get("ended"):
            record = self._open(options, variables, now)
        if event == "phase_start":
            record = records.start_phase(record, phase, now)
        elif event in ("phase_end", "failed"):
            steps, verdicts = _collected(options, variables)
            record = records.end_phase(
                record, phase, now, steps=steps, verdicts=verdicts, failed=event == "failed"
            )
        if event == "failed":
            keys = ("task", "drained", "healthy", "rolled_back", "next_step")
            failure = {key: options[key] for key in keys}
            failure["message"] = results.message_of(options["result"])
            record = records.fail(record, phase, failure)
        if event in ("phase_end", "failed"):
            for role in options["roles"]:
                record = records.attach(record, results.figures_of_role(role, variables))
            if traffic.ROLE in options["roles"]:
                record = records.attach(record, traffic.as_data(variables))
            if event == "phase_end":
                record = records.corrected(record, options["drained"], options["next_step"])
        if options["data"]:
            record = records.attach(record, options["data"])
        if event == "close":
            record = records.close(record, now, options["state"])
        return record

    def _open(
        self, options: dict[str, Any], variables: Mapping[str, Any], now: datetime
    ) -> records.Record:
        version = variables.get("ansible_version") or {}
        playbook = variables.get("ansible_play_name") or ""
        return records.open_record(
            now,
            host=results.plain_text(variables.get("inventory_hostname", "unknown")),
            mode=records.CHECK if self._task.check_mode else records.REAL,
            run_id=options["run_id"],
            declaration=options["declaration"],
            state=options["state"],
            controller={
                "ansible_core": results.plain_text(version.get("full", "")),
                "play": results.plain_text(playbook),
                "tags": results.plain(variables.get("ansible_run_tags") or []),
                "limit": results.plain_text(variables.get("ansible_limit") or ""),
                "record_dir": options["record_dir"],
            },
        )


def _collected(options: dict[str, Any], variables: Mapping[str, Any]) -> tuple[list, list]:
    """Return the steps and verdicts of the roles and of the results that were handed over."""
    steps = [("playbook", step, result) for step, result in options["results"].items()]
    verdicts = [v for result in options["results"].values() for v in results.verdicts_in(result)]
    for role in options["roles"]:
        found = results.steps_of_role(role, variables)
        steps.extend((role, step, result) for step, result in found.items())
        verdicts.extend(results.verdicts_of_role(role, variables))
    return steps, verdicts
