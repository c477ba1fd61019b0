# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packs the controller's files for the module of the same name."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

MODULE = "hx_infra.llm.host_files"


class ActionModule(ActionBase):
    _supports_check_mode = True
    _supports_async = False
    _supports_diff = True
    _requires_connection = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        files = arguments.get("files") or []
        if isinstance(files, (list, tuple)):  # the module says what is wrong with anything else
            arguments["files"] = [
                self._packed(entry, number) if isinstance(entry, dict) else entry
                for number, entry in enumerate(files)
            ]
        result.update(
            self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        )
        return result

    def _packed(self, entry: dict[str, Any], number: int) -> dict[str, Any]:
        """Return an entry with its bytes in place of the name or the text."""
        given = [key for key in ("src", "content") if entry.get(key) is not None]
        if len(given) != 1:
            raise AnsibleActionFail(
                f"files[{number}] ({entry.get('path', 'no path')}): found"
                f" {' and '.join(given) or 'neither src nor content'}, wanted one of the two."
            )
        rest = {key: value for key, value in entry.items() if key not in ("src", "content")}
        if given == ["content"]:
            if not isinstance(entry["content"], str):
                raise AnsibleActionFail(
                    f"files[{number}] ({entry.get('path', 'no path')}): found data as the content,"
                    " wanted text; to_json makes one of it."
                )
            data = entry["content"].encode()
        else:
            data = self._read(str(entry["src"]))
        return {**rest, "data": base64.b64encode(zlib.compress(data, 9)).decode()}

    def _read(self, src: str) -> bytes:
        try:
            path = self._find_needle("files", src)
        except AnsibleError as error:
            raise AnsibleActionFail(str(error)) from error
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise AnsibleActionFail(f"{path} can't be read: {error.strerror}.") from error
