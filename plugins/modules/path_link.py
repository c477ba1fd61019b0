#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make a path a symbolic link and keep the file that stood there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: path_link
short_description: Make a path a symbolic link and keep the file that stood there
version_added: 0.1.0
description:
  - Puts a symbolic link at a path. A link that stands there is replaced atomically,
    a regular file is kept beside it and then replaced atomically, an empty directory
    is removed first.
  - A directory with content, a mount point and special files are never touched. They are an error
    that names them.
options:
  path:
    description: Where the link stands, an absolute path.
    type: path
    required: true
  target:
    description:
      - The text of the link, absolute or relative to the directory of O(path).
      - It is used as it is given, only a link with exactly this text counts as right.
    type: str
    required: true
  keep:
    description:
      - Whether a regular file that stands at O(path) is kept as C(<path>.local-<timestamp>.bak)
        and replaced. With V(false) it is an error.
      - The timestamp is the time of the file's last change, in UTC, so that check mode names the
        same file as the real run. Its group and others lose the right to write to it.
    type: bool
    default: true
  require_target:
    description: Whether the target must exist. Check mode does not ask for it.
    type: bool
    default: true
author:
  - hx_infra.llm contributors (@hx-infra)
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Let the node's own start script be the shared one
  hx_infra.llm.path_link:
    path: /opt/hx-infrastructure/llm-01/scripts/service/ollama/start.sh
    target: /opt/scripts/service/ollama/start.sh

- name: Reach the bulk disk through the node's tree, never replacing a file
  hx_infra.llm.path_link:
    path: /opt/hx-infrastructure/llm-01/data/llm_bulk_storage
    target: /data/llm_bulk_storage
    keep: false
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in sentences.
  returned: always
  type: list
  elements: str
  sample: ["Point /opt/hx/start.sh to /opt/scripts/start.sh"]
plan:
  description: The same steps as data.
  returned: always
  type: list
  elements: dict
  contains:
    action:
      description: >-
        V(create_link), V(replace_link), V(keep_file), V(replace_file) or
        V(remove_empty_directory).
      type: str
    target:
      description: The path that the step changes.
      type: str
path:
  description: Where the link stands.
  returned: always
  type: str
target:
  description: The text of the link.
  returned: always
  type: str
kept_file:
  description: The name under which a file that stood in the way is kept. Empty when none did.
  returned: always
  type: str
previous_kind:
  description: What stood at the path.
  returned: always
  type: str
  sample: file
previous_target:
  description: The text of the link that stood there. Empty when none did.
  returned: always
  type: str
"""

import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils import _links
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

ARGUMENT_SPEC: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "target": {"type": "str", "required": True},
    "keep": {"type": "bool", "default": True},
    "require_target": {"type": "bool", "default": True},
}


def run(params: dict[str, Any], host: str, check_mode: bool) -> dict[str, Any]:
    """Plan, act unless in check mode, and return the result."""
    path, target = params["path"].rstrip("/") or "/", params["target"]
    _links.check_path(path, target, host)
    state = _links.read_path(path)
    kept = _links.kept_name(path, state) if state.kind == _links.FILE else ""
    plan = _links.plan_link(path, target, state, keep=params["keep"], kept=kept, host=host)
    if not check_mode:
        if params["require_target"]:
            _links.check_target(path, target, host)
        _links.apply_link(plan, host)
    return {
        "changed": bool(plan),
        "actions": [_sentence(step) for step in plan],
        "plan": plan,
        "path": path,
        "target": target,
        "kept_file": kept,
        "previous_kind": state.kind,
        "previous_target": state.link,
        "diff": {
            "before": f"{path}: {_describe(state)}\n",
            "after": f"{path}: link to {target}\n",
        },
    }


def _describe(state: _links.PathState) -> str:
    return f"link to {state.link}" if state.kind == _links.LINK else state.kind


def _sentence(step: dict[str, Any]) -> str:
    path = step["target"]
    if step["action"] == "keep_file":
        return f"Keep the file {step['source']} as {path}"
    if step["action"] == "remove_empty_directory":
        return f"Remove the empty directory {path}"
    was = f" instead of {step['was']}" if "was" in step else ""
    return f"Point {path} to {step['link']}{was}"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    host = platform.node()
    try:
        result = run(module.params, host, module.check_mode)
    except HostError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        path = error.filename or module.params["path"]
        module.fail_json(msg=f"{host}: {path} can't become a link: {error.strerror}.")
    if not module._diff:
        del result["diff"]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
