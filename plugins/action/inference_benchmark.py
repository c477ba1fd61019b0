# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Show the progress of a benchmark and choose where its requests are sent from."""

from __future__ import annotations

import os
import sys
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import connection_loader

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_options import (
    ARGUMENT_SPEC,
    option_errors,
)
from ansible_collections.hx_infra.llm.plugins.plugin_utils._progress import run_with_progress

MODULE = "hx_infra.llm.inference_benchmark"
FILES = ("baseline_file", "results_file")
SLACK_S = 60.0  # for starting Python, reading files and judging


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
        args = {**self._task.args, "host": host}
        wait_s = options["max_duration"] + options["timeout"] + SLACK_S
        elsewhere = options["run_from"] == "controller" and not self._task.check_mode
        if not elsewhere or options["measurements"] is not None:
            return run_with_progress(self, MODULE, args, variables, deadline_s=wait_s)
        measured = self._measure_here(args, variables, wait_s)
        if measured.get("failed"):
            return measured
        return self._execute_module(
            module_name=MODULE,
            module_args={**args, "measurements": measured["benchmark"]},
            task_vars=variables,
        )

    def _measure_here(
        self, args: dict[str, Any], variables: dict[str, Any], wait_s: float
    ) -> dict[str, Any]:
        """Generate the load on the controller; nothing is judged or recorded there."""
        target = self._connection
        bare = {key: value for key, value in args.items() if key not in FILES}
        self._connection = connection_loader.get(
            "ansible.builtin.local", self._play_context, os.devnull
        )
        try:
            return run_with_progress(
                self,
                MODULE,
                {**bare, "fail_on": "never"},
                {**variables, "ansible_python_interpreter": sys.executable},
                deadline_s=wait_s,
            )
        finally:
            self.cleanup(force=True)
            self._connection = target
