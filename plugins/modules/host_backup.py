#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_backup
short_description: Archives a host's configuration, reads it back, and restores it
version_added: 0.1.0
description:
  - Writes one timestamped archive of the given files and directories with an index beside it, and
    reads every member back before the archive gets its name.
  - A host whose content is the same as in an existing archive gets no second one.
  - Restores an archive, touching only the members that differ.
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
  state:
    description:
      - V(present) makes sure that an archive with the present content exists.
      - V(restored) puts the members of O(archive) back.
    type: str
    choices: [present, restored]
    default: present
  directory:
    description: Where the archives are kept. Needed for O(state=present).
    type: path
  name:
    description: The archives' names start with this. Needed for O(state=present).
    type: str
  paths:
    description: Files and directories to archive; those that don't exist are left out.
    type: list
    elements: path
    default: []
  max_file_bytes:
    description: Larger files are left out and listed in RV(left_out).
    type: int
    default: 16777216
  keep:
    description: How many archives stay; V(0) keeps all.
    type: int
    default: 20
  archive:
    description: The archive to restore. Needed for O(state=restored).
    type: path
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: Back up the configuration
  hx_infra.llm.host_backup:
    directory: /opt/hx-infrastructure/llm-01/backups
    name: llm-01-pre-remediation
    paths:
      - /opt/hx-infrastructure/llm-01/config
      - /etc/systemd/system/ollama.service

- name: Go back
  hx_infra.llm.host_backup:
    state: restored
    archive: /opt/hx-infrastructure/llm-01/backups/llm-01-pre-remediation-20261121-024500.tgz
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
archive:
  description: The archive with the present content, or the one that was restored.
  returned: always
  type: str
size_bytes:
  description: The archive's size in bytes; absent in check mode when it doesn't exist yet.
  returned: when the archive exists
  type: int
members:
  description: How many files, directories and links the archive holds.
  returned: always
  type: int
left_out:
  description: Files larger than O(max_file_bytes).
  returned: always
  type: list
  elements: str
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils import _backup
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError


def present(params: dict[str, Any], check_mode: bool, stamp: str) -> dict[str, Any]:
    members, left_out = _backup.collect(params["paths"], params["max_file_bytes"])
    directory, name = params["directory"], params["name"]
    archive = os.path.join(directory, f"{name}-{stamp}.tgz")
    decision = _backup.plan(members, _backup.archives(directory, name), params["keep"], archive)
    # The archive's name holds the time, so the plan names its place: a dry run and the real run
    # that follows it must say the same.
    plan = []
    actions = []
    if decision["create"]:
        target = os.path.join(directory, name)
        plan.append({"action": "archive", "target": target, "members": len(members)})
        actions.append(f"archive {len(members)} files, directories and links under {target}")
    for item in decision["remove"]:
        plan.append({"action": "remove_archive", "target": item["path"]})
        actions.append(f"remove the old archive {item['path']}")
    leftovers = _backup.leftovers(directory, name) if decision["create"] else []
    for path in leftovers:
        plan.append({"action": "remove_leftover", "target": path})
        actions.append(f"remove {path}, which a killed run left")
    if not check_mode:
        for path in leftovers:
            os.unlink(path)
        if decision["create"]:
            os.makedirs(directory, mode=0o750, exist_ok=True)
            _backup.write(archive, members, {"created": stamp, "left_out": left_out})
        else:
            _backup.verify(decision["path"], members)
        for item in decision["remove"]:
            os.unlink(item["index"])
            os.unlink(item["path"])
    result = {
        "changed": bool(actions),
        "actions": actions,
        "plan": plan,
        "archive": decision["path"],
        "members": len(members),
        "left_out": left_out,
    }
    if os.path.exists(decision["path"]):
        result["size_bytes"] = os.path.getsize(decision["path"])
    return result


def restored(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    archive = params["archive"]
    index = _backup.load_index(archive)
    _backup.verify(archive, index["members"])
    members = _backup.differing(index["members"])
    if not check_mode and members:
        _backup.restore(archive, members)
        still = _backup.differing(members)
        if still:
            raise HostError(f"{still[0]['path']} is not as {archive} has it after the restore.")
    return {
        "changed": bool(members),
        "actions": [f"restore {member['path']}" for member in members],
        "plan": [{"action": "restore", "target": member["path"]} for member in members],
        "archive": archive,
        "size_bytes": os.path.getsize(archive),
        "members": len(index["members"]),
        "left_out": index.get("left_out", []),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "restored"], "default": "present"},
            "directory": {"type": "path"},
            "name": {"type": "str"},
            "paths": {"type": "list", "elements": "path", "default": []},
            "max_file_bytes": {"type": "int", "default": 16 * 1024 * 1024},
            "keep": {"type": "int", "default": 20},
            "archive": {"type": "path"},
        },
        required_if=[
            ("state", "present", ["directory", "name", "paths"]),
            ("state", "restored", ["archive"]),
        ],
        supports_check_mode=True,
    )
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    try:
        if module.params["state"] == "present":
            result = present(module.params, module.check_mode, stamp)
        else:
            result = restored(module.params, module.check_mode)
    except (HostError, OSError) as error:
        module.fail_json(msg=f"{os.uname().nodename}: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
