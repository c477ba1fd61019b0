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
    its start, or when its process lacks what its environment file says (O(environment_file)), so
    that a run that was killed before its restart is completed by the next one.
  - A restart while models are being pulled (O(pull_store)) waits or is refused. A stopped unit is
    started in any case.
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
  environment_file:
    description:
      - The environment file that has to be in force. The service is restarted when the environment
        files that systemd has loaded for the unit set a variable otherwise than the running process
        has it.
      - C(MODEL_*) variables, E(OLLAMA_MODELS_AVAILABLE), the models' count and total size inform
        people and scripts, so that a change of them restarts nothing. Leave the file out of
        O(watch) then.
      - After the last action the verdict C(environment_file) says whether the file is in force.
    type: path
    version_added: 0.5.0
  pull_store:
    description:
      - The model store of the engine. While a download or another run is filling it, a running
        engine isn't restarted, because servers before 0.21 delete unfinished downloads when they
        start.
    type: path
    version_added: 0.5.0
  pull_wait_s:
    description:
      - How many seconds a restart waits until nothing fills O(pull_store) any more. It is refused
        then, and nothing is done; with V(0) at once.
    type: int
    default: 0
    version_added: 0.5.0
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
    environment_file: /etc/ollama/ollama.env
    pull_store: /mnt/active_llm_models
    pull_wait_s: 600
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
outdated:
  description:
    - Names of the variables that the running process has otherwise than its environment files say;
      empty without O(environment_file).
  returned: always
  type: list
  elements: str
  version_added: 0.5.0
waits_for:
  description: What was filling O(pull_store) when a restart was planned, in sentence parts.
  returned: always
  type: list
  elements: str
  version_added: 0.5.0
waited_s:
  description: How long the restart waited for that, in seconds; V(0) in check mode.
  returned: always
  type: float
  version_added: 0.5.0
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

from ansible_collections.hx_infra.llm.plugins.module_utils import _engine_environment as environment
from ansible_collections.hx_infra.llm.plugins.module_utils import _engine_service as service
from ansible_collections.hx_infra.llm.plugins.module_utils import _pull_guard as pulls
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
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


def out_of_date(
    module: AnsibleModule, state: dict[str, str], since: float
) -> tuple[list[str], list[str]]:
    """Return files that are newer than the service's start, and variables that it has otherwise.

    Args:
        module: with the options ``watch`` and ``environment_file``.
        state: the unit's properties.
        since: when the service became active; 0 when it isn't.
    """
    if not since:
        return [], []
    watch, file = list(module.params["watch"]), module.params["environment_file"]
    process = effective_environment(state)
    if not file:
        return service.newer_files(watch, since), []
    if not process:  # it can't be asked: then the file's time has to do
        return service.newer_files([*watch, file], since), []
    outdated = environment.outdated(
        environment.observe(module.params["unit"], module.run_command),
        process,
        since=since,
        inherited=lambda: environment.inherited(module.run_command),
    )
    return service.newer_files(watch, since), outdated


def guard(module: AnsibleModule, plan: list[dict[str, Any]], result: dict[str, Any]) -> None:
    """Let a restart wait until nobody fills the store; in check mode say that it would.

    Raises:
        HostError: the time is up.
    """
    store, wait_s = module.params["pull_store"], module.params["pull_wait_s"]
    if not store or not service.interrupts(plan):
        return
    going_on = pulls.pulls_going_on(store)
    if not going_on:
        return
    result["waits_for"] = going_on
    told = service.postponed(plan, pulls.several(going_on), wait_s)
    result["actions"] = [item["say"] for item in told]
    if not (wait_s and module.check_mode):
        pulls.outwait(module.params["unit"], "restarted", store, wait_s, result)


def judge(module: AnsibleModule, result: dict[str, Any]) -> list[dict[str, Any]]:
    """Judge the unit as it stands after the last action."""
    params, state = module.params, result["unit_state"]
    process = effective_environment(state)
    verdicts = service.judge_service(
        params["unit"],
        state,
        result["ready_seconds"],
        params["ready_timeout"],
        wanted=params["environment"],
        effective=process,
    )
    if params["environment_file"]:
        unit = environment.observe(params["unit"], module.run_command)
        verdicts.append(environment.judge_files(params["environment_file"], unit, process))
    return as_dicts(verdicts)


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
            "environment_file": {"type": "path"},
            "pull_store": {"type": "path"},
            "pull_wait_s": {"type": "int", "default": 0},
            "ready_timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C.UTF-8"}
    params = module.params
    unit = params["unit"]
    state = service.observe(unit, module.run_command)
    since = service.started_at(state, time.time(), time.clock_gettime(time.CLOCK_MONOTONIC))
    newer, outdated = out_of_date(module, state, since)
    plan = service.plan(
        unit, state, params["enabled"], params["files_changed"], newer, outdated=outdated
    )
    result: dict[str, Any] = {
        "changed": bool(plan),
        "actions": [item["say"] for item in plan],
        "plan": [{"action": item["action"], "target": item["target"]} for item in plan],
        "newer": newer,
        "outdated": outdated,
        "waits_for": [],
        "waited_s": 0.0,
        "unit_state": state,
        "verdicts": [],
    }
    try:
        guard(module, plan, result)
    except HostError as error:
        result["changed"] = False
        module.fail_json(msg=f"{os.uname().nodename}: {error}", **result)
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
        result["verdicts"] = judge(module, result)
        problem = failure_message(result["verdicts"], "FAIL", os.uname().nodename)
        if problem:
            module.fail_json(msg=f"{problem}. Look at: systemctl cat {unit}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
