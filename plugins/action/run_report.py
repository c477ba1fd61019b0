# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Renders the record of a run on the controller and prints its summary; changes no host."""

from __future__ import annotations

import os

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from jinja2 import TemplateError

from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report as report
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_files as files
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_summary as summary
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _run_record as records
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _run_results as results

ARGUMENTS = {
    "record": {"type": "dict", "default": {}},
    "dest": {"type": "path", "required": True},
    "html_template": {"type": "path", "required": True},
    "markdown_template": {"type": "path", "required": True},
    "keep": {"type": "int", "default": 20},
    "documents": {"type": "bool", "default": True},
    "summary": {"type": "bool", "default": True},
}


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict | None = None) -> dict:
        result = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(argument_spec=ARGUMENTS)
        options = results.plain(options)
        facts = (task_vars or {}).get("ansible_facts") or {}
        record = options["record"] or results.plain(facts.get(records.FACT)) or {}
        if record.get("schema") != records.SCHEMA:
            raise AnsibleActionFail(
                f"run_report: the record has schema {record.get('schema')!r}, wanted"
                f" {records.SCHEMA}. Open a record with run_record first, or give one."
            )
        for name in ("host", "run_id"):
            if os.path.basename(str(record[name])) != record[name] or record[name] in ("", ".."):
                raise AnsibleActionFail(
                    f"run_report: the record's {name} is {record[name]!r}, wanted the name of"
                    " a directory."
                )
        directory = os.path.join(options["dest"], record["host"])
        run_directory = os.path.join(directory, record["run_id"])
        paths = {
            "json": os.path.join(run_directory, files.RECORD),
            "html": os.path.join(run_directory, files.HTML),
            "markdown": os.path.join(run_directory, files.MARKDOWN),
        }
        shown = report.view(record)
        removed: list[str] = []
        if options["documents"]:
            try:
                files.write_record(paths["json"], record)
                for name in ("html", "markdown"):
                    content = files.render(options[f"{name}_template"], shown)
                    files.write(paths[name], content)
                files.point_latest(directory, record["run_id"])
                removed = files.keep_newest(directory, options["keep"])
            except (OSError, TemplateError) as error:
                raise AnsibleActionFail(
                    f"{record['host']}: the report could not be written to {run_directory}:"
                    f" {error}. See that the controller may write there."
                ) from error
        lines = summary.lines(shown, paths)
        if options["summary"]:
            self._display.display("\n" + "\n".join(lines) + "\n", color=_color(shown["tone"]))
        result.update(
            changed=False,
            run_id=record["run_id"],
            json_path=paths["json"],
            html_path=paths["html"],
            markdown_path=paths["markdown"],
            latest=os.path.join(directory, files.LATEST),
            removed=removed,
            summary=lines,
        )
        return result


def _color(tone: str) -> str:
    return {"good": "green", "warn": "yellow", "bad": "red"}.get(tone, "cyan")
