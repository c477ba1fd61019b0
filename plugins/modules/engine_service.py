#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_service
short_description: Keeps an inference engine's systemd unit enabled, active and up to date
version_added: 0.1.0
description:
  - Reloads systemd, enables, starts or restarts the unit, each only when needed, and waits until
    the engine's API answers. An active unit isn't taken as proof of a working engine.
  - A service is restarted when one of the files that it was started with (O(watch)) is newer than
    its start, so that a run that was killed before its restart is completed by the next one.
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
  platform:
    platforms: linux
options:
  unit:
    description: The unit's name.
    type: str
    required: true
  enabled:
    description: Whether the unit has to start at boot.
    type: bool
    default: true
  watch:
    description: Files that the service is started with, among them unit, drop-ins and binary.
    type: list
    elements: path
    default: []
  files_changed:
    description:
      - Whether earlier tasks of this run changed any of them. In check mode nothing was written, so
        this is how a dry run knows that a restart will follow.
    type: bool
    default: false
  url:
    description: An address that answers with status 200 when the engine is ready.
    type: str
    required: true
  environment:
    description:
      - Variables that the running process has to have, with their values. They are read from the
        process itself, because an environment file that nobody loads looks just as good.
    type: dict
    default: {}
  ready_timeout:
    description: How many seconds the engine has to become ready.
    type: int
    default: 60
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: Keep Ollama running with its present configuration
  hx_infra.llm.engine_service:
    unit: ollama.service
    url: http://127.0.0.1:11434/api/version
    watch:
      - /etc/systemd/system/ollama.service
      - /usr/local/bin/ollama
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  returned: always
  type: list
  elements: str
plan:
  description: The same as data, with C(action) and C(target).
  returned: always
  type: list
  elements: dict
unit_state:
  description: The unit's properties as systemd shows them, read after the last action.
  returned: always
  type: dict
newer:
  description: Files that were newer than the service's start.
  returned: always
  type: list
  elements: str
verdicts:
  description:
    - State, readiness and effective environment, read after the last action; empty in check mode.
  returned: always
  type: list
  elements: dict
ready_seconds:
  description: How long the engine took to answer, in seconds; absent in check mode.
  returned: when the engine answered
  type: float
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ansible_collections.hx_infra.llm.plugins.module_utils import _engine_service as service
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    as_dicts,
    failure_message,
)


def answers(url: str) -> str:
    """Return an empty string when the address answers with 200, else what it did instead."""
    try:
        response = open_url(url, timeout=10, http_agent="hx_infra.llm", use_proxy=False)
    except Exception as error:  # open_url raises a dozen unrelated classes
        return str(error)
    return "" if response.getcode() == 200 else f"HTTP status {response.getcode()}"


def wait_ready(module: AnsibleModule, url: str, budget: int) -> float:
    """Poll until the engine answers; fail with the unit's state and journal when it doesn't."""
    begin = time.monotonic()
    while True:
        problem = answers(url)
        if not problem:
            return round(time.monotonic() - begin, 3)
        if time.monotonic() - begin > budget:
            break
        time.sleep(0.25)
    unit = module.params["unit"]
    state = service.observe(unit, module.run_command)
    _rc, journal, _err = module.run_command(
        ["journalctl", "--unit", unit, "--lines=15", "--no-pager", "--output=cat"]
    )
    module.fail_json(
        msg=(
            f"{os.uname().nodename}: {unit} is {state.get('ActiveState')}"
            f" ({state.get('SubState')}) and {url} did not answer within {budget} s ({problem});"
            f" wanted: active and status 200. Look at: journalctl -u {unit}"
        ),
        unit_state=state,
        journal=journal.splitlines(),
    )
    return 0.0


def effective_environment(state: dict[str, str]) -> dict[str, str]:
    """Read the environment of the unit's main process; empty when there is none."""
    try:
        with open(f"/proc/{state.get('MainPID', '0')}/environ", "rb") as handle:
            return service.parse_environ(handle.read())
    except OSError:
        return {}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "enabled": {"type": "bool", "default": True},
            "watch": {"type": "list", "elements": "path", "default": []},
            "files_changed": {"type": "bool", "default": False},
            "url": {"type": "str", "required": True},
            "environment": {"type": "dict", "default": {}},
            "ready_timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C.UTF-8"}
    params = module.params
    unit = params["unit"]
    state = service.observe(unit, module.run_command)
    since = service.started_at(state, time.time(), time.clock_gettime(time.CLOCK_MONOTONIC))
    newer = service.newer_files(params["watch"], since) if since else []
    plan = service.plan(unit, state, params["enabled"], params["files_changed"], newer)
    result: dict[str, Any] = {
        "changed": bool(plan),
        "actions": [item["say"] for item in plan],
        "plan": [{"action": item["action"], "target": item["target"]} for item in plan],
        "newer": newer,
        "unit_state": state,
        "verdicts": [],
    }
    if not module.check_mode:
        for command in service.commands(plan):
            rc, out, err = module.run_command(command)
            if rc != 0:
                module.fail_json(
                    msg=f"{os.uname().nodename}: '{' '.join(command)}' ended with {rc}: "
                    f"{(err or out).strip()}. Look at: journalctl -u {unit}",
                    **result,
                )
        result["ready_seconds"] = wait_ready(module, params["url"], params["ready_timeout"])
        result["unit_state"] = service.observe(unit, module.run_command)
        verdicts = service.judge_service(
            unit,
            result["unit_state"],
            result["ready_seconds"],
            params["ready_timeout"],
            wanted=params["environment"],
            effective=effective_environment(result["unit_state"]),
        )
        result["verdicts"] = as_dicts(verdicts)
        problem = failure_message(result["verdicts"], "FAIL", os.uname().nodename)
        if problem:
            module.fail_json(msg=f"{problem}. Look at: systemctl cat {unit}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
