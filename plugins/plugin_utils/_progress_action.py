# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The action of a module that takes long: runs it as a job and shows where it stands."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.hx_infra.llm.plugins.plugin_utils._progress import (
    read_deadline,
    run_with_progress,
)


class ProgressAction(ActionBase):
    """Runs the module of the same name, which takes ``progress_file``.

    Attributes:
        module_name: its full name.
        deadline_s: seconds that it may take where the task has no ``deadline_s``.
        grace_s: seconds that the controller waits on top, for a module that ends by itself at its
            deadline and has something left to do then.
    """

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = True

    module_name = ""
    deadline_s = 0.0
    grace_s = 0.0

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run it, as a job if it takes long, and return its result."""
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = self._arguments(variables)
        if self._takes_long(arguments):
            found = run_with_progress(
                self,
                self.module_name,
                arguments,
                variables,
                deadline_s=read_deadline(arguments, self.deadline_s) + self.grace_s,
            )
        else:
            found = self._execute_module(
                module_name=self.module_name, module_args=arguments, task_vars=variables
            )
        result.update(found)
        return result

    def _arguments(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the module's options; those of the task if no action says otherwise."""
        return dict(self._task.args)

    def _takes_long(self, arguments: dict[str, Any]) -> bool:
        """Tell whether the module takes long enough with these options to be worth a job."""
        return True
