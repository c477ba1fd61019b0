#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_service
short_description: Keeps one vLLM service on its release, running and proven, or removes it
version_added: 0.2.0
description:
  - Leads the service to its release, reloads systemd, enables, starts or restarts it, each only
    when needed. A service is restarted when a file that it was started with is newer than its
    process.
  - Proves it by each run, whether it changed anything or not. The process that listens belongs to
    the unit, the models are listed, and a streamed request comes to its end. An engine that can't
    compute its model dies at the first request and not before.
  - When a new state doesn't serve, the files and the release that served last are put back, the
    service is started with them and proven, and the module fails with the cause from the journal.
  - A rollback proves that the port is free after the stop, that a request is answered, and that
    some seconds later the host is stable. The service is active with the same process and without
    a restart, the other active instances of its template still are, the kernel has killed nothing
    for want of memory, and 256 MiB of it are available.
  - A rollback that was killed, or that failed, is gone on with by the next one.
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - V(restored) goes back at each call that has come to its end; a second call returns to where
        the first began.
  platform:
    platforms: linux
options:
  state:
    description:
      - V(started) brings the service to what is declared.
      - V(restored) brings it back to what it served with before.
      - V(absent) stops it, removes its files and checks that port and processes are gone.
    type: str
    choices: [started, restored, absent]
    default: started
  unit:
    description: The systemd unit.
    type: str
    required: true
  folder:
    description: The service's own directory, with the link to its release and its memories.
    type: path
    required: true
  release:
    description:
      - The release that it has to lead to. An empty one stands for none, as for a container, and
        its link goes. When left out, the link stays as it is.
    type: path
  files:
    description:
      - The files that it is started with. They are remembered when they served, and put back when
        their successors don't. With O(state=absent) they are removed.
    type: list
    elements: path
    default: []
  records:
    description: Files that are remembered and removed with O(files) but ask for no restart.
    type: list
    elements: path
    default: []
  watch:
    description: Further files that ask for a restart when they are newer than the process.
    type: list
    elements: path
    default: []
  remove:
    description: Further paths that go with O(state=absent), such as its caches.
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
    description: Its base URL, as the host itself reaches it.
    type: str
    default: http://127.0.0.1:8001
  port:
    description: Its port; V(0) for a member of a group that answers no requests.
    type: int
    default: 0
  models:
    description: The ids that it has to list; the first is asked.
    type: list
    elements: str
    default: []
  key_file:
    description: File with its API key, as for M(hx_infra.llm.endpoint_check).
    type: path
  ready_file:
    description:
      - A JSON file with C(url), C(port), C(models), C(key_file) and C(own_process), which count
        instead of the options. With O(state=restored) it is the remembered one, because the
        declaration of today may be another. With O(state=started) the remembered one tells how to
        prove what is put back when the new state doesn't serve.
    type: path
  own_process:
    description:
      - Whether the listening process has to belong to the unit's control group, which is not so
        where a container engine runs it.
    type: bool
    default: true
  request_timeout:
    description: Seconds for the proving request.
    type: float
    default: 60.0
  settle:
    description: Seconds that a service has to stay as it is to be stable, with O(state=restored).
    type: float
    default: 5.0
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: Keep a service running with its present configuration
  hx_infra.llm.vllm_service:
    unit: citadel-llm@mixtral.service
    folder: /opt/citadel/services/mixtral
    release: /opt/citadel/venvs/gpu-0.32.0-0f1e2d3c4b
    files: [/opt/citadel/config/vllm/mixtral.yaml, /opt/citadel/config/vllm/mixtral.env]
    url: http://127.0.0.1:8001
    port: 8001
    models: [mixtral]

- name: Go back to what it served with before
  hx_infra.llm.vllm_service:
    state: restored
    unit: citadel-llm@mixtral.service
    folder: /opt/citadel/services/mixtral
    files: [/opt/citadel/config/vllm/mixtral.yaml, /opt/citadel/config/vllm/mixtral.env]
    port: 8001
    models: [mixtral]
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
interrupts:
  description: The actions among them that end running requests.
  returned: always
  type: list
  elements: str
newer:
  description: Files that were newer than the process.
  returned: always
  type: list
  elements: str
unit_state:
  description: The unit's properties as systemd shows them, read after the last action.
  returned: always
  type: dict
proof:
  description:
    - C(ttft_ms) and C(finish_reason) of the proving request, C(start_seconds) or
      C(restart_seconds) when it was started. Empty in check mode.
    - With O(state=restored) also C(port) and C(port_free) after the stop, C(stop_seconds),
      C(release), C(stable_seconds), C(main_pid), C(restarts), C(active_units) for the other
      services that are active as before, C(oom_kills) meanwhile, C(memory_available_bytes), and
      C(sentence), which says all of it in a line.
  returned: always
  type: dict
"""

import os
import platform
import time
from dataclasses import replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_service as service
from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_service_memory as memory
from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_service_run as run
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import http_prepare
from ansible_collections.hx_infra.llm.plugins.module_utils._endpoint_check import (
    key_headers,
    read_key,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

ARGUMENT_SPEC: dict[str, Any] = {
    "state": {
        "type": "str",
        "choices": ["started", "restored", "absent"],
        "default": "started",
    },
    "unit": {"type": "str", "required": True},
    "folder": {"type": "path", "required": True},
    "release": {"type": "path"},
    "files": {"type": "list", "elements": "path", "default": []},
    "records": {"type": "list", "elements": "path", "default": []},
    "watch": {"type": "list", "elements": "path", "default": []},
    "remove": {"type": "list", "elements": "path", "default": []},
    "files_changed": {"type": "bool", "default": False},
    "url": {"type": "str", "default": "http://127.0.0.1:8001"},
    "port": {"type": "int", "default": 0},
    "models": {"type": "list", "elements": "str", "default": []},
    "key_file": {"type": "path", "no_log": False},  # a path; the key itself is never a parameter
    "ready_file": {"type": "path"},
    "own_process": {"type": "bool", "default": True},
    "request_timeout": {"type": "float", "default": 60.0},
    "settle": {"type": "float", "default": 5.0},
}


def target_of(params: dict[str, Any], host: str) -> run.Target:
    """Return the service that the parameters declare."""
    if params["port"] and not params["models"] and params["state"] == "started":
        raise HostError(f"{host}: {params['unit']} has a port and no models, wanted both or none.")
    return run.Target(
        declared=service.Declared(
            unit=params["unit"],
            folder=params["folder"],
            release=params["release"],
            changed=params["files_changed"],
        ),
        host=host,
        files=(*params["files"], *params["records"]),
        models=tuple(params["models"]),
        port=params["port"],
        request_s=params["request_timeout"],
        own_process=params["own_process"],
        settle_s=params["settle"],
    )


def known_endpoint(
    module: AnsibleModule, target: run.Target, memory_name: str
) -> service.Endpoint | None:
    """Return what the ready file, or its remembered copy, says; None when there is none."""
    path = module.params["ready_file"]
    if not path:
        return None
    text = b""
    if memory_name:
        text = memory.content(target.declared.folder, memory_name, path)
    elif os.path.exists(path):
        with open(path, "rb") as stream:
            text = stream.read()
    if not text:
        return None
    try:
        return service.endpoint_of(text)
    except ValueError as error:
        what = f"{'the remembered ' if memory_name else ''}{path} is damaged ({error})"
        if module.params["state"] == "absent":
            module.warn(f"{target.host}: {what}, so the port of {target.unit} isn't known.")
            return None
        raise HostError(
            f"{target.host}: {what}, wanted JSON with url, port and models.",
            "Run the playbook vllm, which writes it anew.",
        ) from error


def io_for(module: AnsibleModule, url: str, key_file: str | None) -> run.Io:
    """Return how the host is reached, and the service at an address with the key of a file."""
    key = read_key(key_file) if key_file and module.params["state"] != "absent" else ""
    if key:
        module.no_log_values.add(key)
    return run.Io(run=module.run_command, prepare=http_prepare(url, headers=key_headers(key)))


def proven_at(
    module: AnsibleModule, target: run.Target, memory_name: str
) -> tuple[run.Target, run.Io]:
    """Return the service with the endpoint that is known of it, and how it is reached."""
    known = known_endpoint(module, target, memory_name)
    if known is None:
        return target, io_for(module, module.params["url"], module.params["key_file"])
    target = replace(target, port=known.port, models=known.models, own_process=known.own_process)
    return target, io_for(module, known.url, known.key_file)


def remembered_good(module: AnsibleModule, target: run.Target) -> tuple[run.Target, run.Io] | None:
    """Return where the last good state answers; None when that isn't known."""
    try:
        return proven_at(module, target, memory.GOOD)
    except (HostError, OSError, memory.DamagedError):
        return None  # of no matter unless the new state doesn't serve, and told then


def recall(module: AnsibleModule, target: run.Target) -> memory.Memory:
    """Return what is remembered of the service, and warn of what can't be read."""
    try:
        found = memory.recall(target.declared.folder)
    except memory.DamagedError as error:
        raise HostError(
            f"{target.host}: {error}",
            "It says what an unfinished rollback goes back to. Run the playbook vllm for what is"
            " declared, or remove the file and run the rollback again.",
        ) from error
    for sentence in found.damage:
        module.warn(f"{target.host}: {sentence} It counts as not remembered.")
    return found


def newer_than(state: dict[str, str], params: dict[str, Any]) -> list[str]:
    """Return the watched files that are newer than the unit's process."""
    began = service.began_at(state, time.time(), time.clock_gettime(time.CLOCK_MONOTONIC))
    if not began:
        return []
    paths = [*params["files"], *params["watch"], memory.link_of(params["folder"])]
    return service.newer_files(paths, began)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.run_command_environ_update = {"LC_ALL": "C.UTF-8"}
    params = module.params
    host = platform.node()
    result: dict[str, Any] = {
        "changed": False,
        "actions": [],
        "plan": [],
        "interrupts": [],
        "newer": [],
        "unit_state": {},
        "proof": {},
    }
    try:
        work(module, target_of(params, host), result)
    except (HostError, OSError, memory.DamagedError) as error:
        state = service.observe(params["unit"], module.run_command)
        known = isinstance(error, HostError)
        module.fail_json(
            msg=str(error) if known else f"{host}: {error}", **{**result, "unit_state": state}
        )
    module.exit_json(**result)


def work(module: AnsibleModule, target: run.Target, result: dict[str, Any]) -> None:
    """Plan, show, and unless in check mode carry out."""
    params, folder = module.params, module.params["folder"]
    state = service.observe(target.unit, module.run_command)
    back_to = ""
    if params["state"] == "absent":
        steps = service.plan_absent(target.unit, state, [*target.files, *params["remove"]], folder)
    elif params["state"] == "restored":
        remembered = recall(module, target)
        target = replace(target, files=tuple(sorted({*target.files, *memory.paths_of(folder)})))
        now = memory.current(folder, target.files)
        back_to, steps = service.plan_restored(target.declared, state, remembered, now, target.host)
    else:
        result["newer"] = newer_than(state, params)
        release_now = memory.release_of(folder)
        steps = service.plan_started(target.declared, state, release_now, result["newer"])
        if target.declared.release is not None:
            after = target.declared.release
            result["diff"] = {"before": f"{release_now}\n", "after": f"{after}\n"}
    result.update(
        changed=bool(steps),
        plan=service.as_plan(steps),
        actions=[step["say"] for step in steps],
        interrupts=[step["say"] for step in steps if step["action"] in service.INTERRUPTS],
        unit_state=state,
    )
    if module.check_mode:
        return
    if params["state"] == "absent":
        target, io = proven_at(module, target, "")
        run.apply_absent(target, steps, io)
    elif params["state"] == "restored":
        target, io = proven_at(module, target, back_to)
        result["proof"] = run.apply_restored(target, back_to, steps, io)
    else:
        io = io_for(module, params["url"], params["key_file"])
        good = remembered_good(module, target)
        result["proof"] = run.apply_started(target, steps, io, good)
    result["unit_state"] = service.observe(target.unit, module.run_command)


if __name__ == "__main__":
    main()
