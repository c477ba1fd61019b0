# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Show the progress of a benchmark, choose where its requests are sent from, write its page."""

from __future__ import annotations

import os
import sys
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import connection_loader
from jinja2 import TemplateError

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_options import (
    ARGUMENT_SPEC,
    option_errors,
)
from ansible_collections.hx_infra.llm.plugins.plugin_utils._bench_files import write_run
from ansible_collections.hx_infra.llm.plugins.plugin_utils._progress import run_with_progress

MODULE = "hx_infra.llm.inference_benchmark"
# What stands on the target is read and written there, whoever sends the requests.
ON_TARGET = ("baseline_file", "results_file", "json_dir", "baseline")
WHERE_SENT = ("key_file", "prompt_file", "ca_path")
OF_THE_RUN = ("run_id", "started_at", "seconds")
SLACK_S = 60.0  # for starting Python, reading files and judging
CALIBRATION_S = 10.0  # of a load, at most
STEPS = 32  # of a sweep, at most


class ActionModule(ActionBase):
    """Run the module, on the target or with the load generated on the controller."""

    _supports_check_mode = True
    _supports_async = False
    _supports_diff = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        options = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)[1]
        host = options["host"] or variables.get("inventory_hostname", "localhost")
        wrong = option_errors(options)
        if wrong:
            raise AnsibleActionFail(f"{host}: {'; '.join(wrong)}.")
        args = {key: value for key, value in self._task.args.items() if key != "report_dir"}
        args["host"] = host
        loads = len(options["models"]) * (STEPS if options["sweep"] else 1)
        wait_s = options["max_duration"] + options["timeout"] + SLACK_S + CALIBRATION_S * loads
        result = self._measure(args, options, variables, wait_s)
        if options["report_dir"] and result.get("run") and not self._task.check_mode:
            self._report(result, options["report_dir"], host)
        return result

    @staticmethod
    def _report(result: dict[str, Any], directory: str, host: str) -> None:
        """Write the page; what was measured must not be lost because that fails."""
        whole = {**result["run"], "entries": result["benchmark"]}
        try:
            result["report_file"] = write_run(directory, whole)
        except (OSError, TemplateError) as error:
            problem = f"the page of the benchmark can't be written: {error}. Correct report_dir."
            result["problems"] = [*result.get("problems", []), problem]
            result["failed"] = True
            result["msg"] = f"{result.get('msg', '')} {host}: {problem}".strip()

    def _measure(
        self,
        args: dict[str, Any],
        options: dict[str, Any],
        variables: dict[str, Any],
        wait_s: float,
    ) -> dict[str, Any]:
        elsewhere = options["run_from"] == "controller" and not self._task.check_mode
        if not elsewhere or options["measurements"] is not None:
            return self._execute(args, options, variables, wait_s)
        measured = self._measure_here(args, options, variables, wait_s)
        if measured.get("failed"):
            return measured
        judged = {key: value for key, value in args.items() if key not in WHERE_SENT}
        return self._execute_module(
            module_name=MODULE,
            module_args={
                **judged,
                "measurements": measured["benchmark"],
                "measured_run": {key: measured["run"][key] for key in OF_THE_RUN},
            },
            task_vars=variables,
        )

    def _execute(
        self,
        args: dict[str, Any],
        options: dict[str, Any],
        variables: dict[str, Any],
        wait_s: float,
    ) -> dict[str, Any]:
        if not options["progress"]:
            return self._execute_module(module_name=MODULE, module_args=args, task_vars=variables)
        return run_with_progress(self, MODULE, args, variables, deadline_s=wait_s)

    def _measure_here(
        self,
        args: dict[str, Any],
        options: dict[str, Any],
        variables: dict[str, Any],
        wait_s: float,
    ) -> dict[str, Any]:
        """Generate the load on the controller; nothing is judged or recorded there."""
        target = self._connection
        bare = {key: value for key, value in args.items() if key not in ON_TARGET}
        self._connection = connection_loader.get(
            "ansible.builtin.local", self._play_context, os.devnull
        )
        try:
            return self._execute(
                {**bare, "fail_on": "never"},
                options,
                {**variables, "ansible_python_interpreter": sys.executable},
                wait_s,
            )
        finally:
            self.cleanup(force=True)
            self._connection = target
