#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: permissions_audit
short_description: Find what everybody may write to, judge critical files, and put both right
version_added: 0.1.0
description:
  - Searches declared trees for files and directories that everybody may write to, and compares
    critical paths with the owner, group and mode that they must have.
  - Symbolic links and sticky directories are not counted, and other file systems are not entered.
  - Before a path is changed its old mode and owner are appended to O(undo_log), one JSON object a
    line.
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
  paths:
    description: Trees to search.
    type: list
    elements: path
    default: []
  exclude:
    description: Trees that the search leaves out.
    type: list
    elements: path
    default: []
  handled:
    description:
      - Paths that another part of the same run puts right.
      - In check mode that part was only predicted, so these are left out there; in a real run this
        option has no effect.
    type: list
    elements: str
    default: []
  allow:
    description: Paths that everybody may write to.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The path, with its links resolved.
        type: path
        required: true
      reason:
        description: Why this is right.
        type: str
        required: true
  expectations:
    description: What critical paths must be.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The path; it is judged as V(WARN) when it doesn't exist.
        type: path
        required: true
      owner:
        description: Name of the owner; not looked at when empty.
        type: str
        default: ''
      group:
        description: Name of the group; not looked at when empty.
        type: str
        default: ''
      mode:
        description: Mode as an octal number, like V(0640); not looked at when empty.
        type: str
        default: ''
      fix:
        description: Whether to put the path right; otherwise it is only judged.
        type: bool
        default: true
  fix:
    description: Whether to change anything; otherwise everything is only judged.
    type: bool
    default: true
  undo_log:
    description: File that keeps the old modes and owners.
    type: path
    default: /var/lib/hx-llm/permissions-undo.jsonl
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: Nobody else may write into the host's tree
  hx_infra.llm.permissions_audit:
    paths:
      - /opt/hx-infrastructure/llm-01
    exclude:
      - /opt/hx-infrastructure/llm-01/models
    allow:
      - path: /opt/hx-infrastructure/llm-01/health/drop
        reason: the monitoring of another team leaves its files there
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  returned: always
  type: list
  elements: str
  sample:
    - Take the write permission for everybody from /opt/scripts/notes.txt (0666 -> 0664).
plan:
  description: The same as data, with C(action), C(target), and the old and new values.
  returned: always
  type: list
  elements: dict
world_writable:
  description: What everybody may write to, as found before anything was changed.
  returned: always
  type: list
  elements: str
verdicts:
  description: Verdicts on the permissions, after the changes of a real run or as found in check
    mode.
  returned: always
  type: list
  elements: dict
"""

import grp
import json
import os
import pwd
import re
import stat
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils import _permissions, _verdict
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import group_name, user_name
from ansible_collections.hx_infra.llm.plugins.module_utils._timestamp import utc

_MODE = re.compile(r"[0-7]{3,4}")


def look(path: str) -> _permissions.Found | None:
    """Return a path's permissions; ``None`` when it doesn't exist."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    owner, group = user_name(status.st_uid), group_name(status.st_gid)
    return _permissions.Found(path, stat.S_IMODE(status.st_mode), owner, group)


def apply(change: _permissions.Change, undo_log: str) -> None:
    """Make one change, on the file itself and never through a link; log how to undo it."""
    try:
        handle = os.open(change.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise HostError(
            f"{os.uname().nodename}: {change.path} cannot be opened ({error.strerror}),"
            " so its permissions stay as they are.",
            "See what it is, and run again.",
        ) from error
    try:
        status = os.fstat(handle)
        mode = change.mode
        if change.action == "remove_world_write":
            # Everybody could write here: a directory above may have become a link meanwhile.
            real = os.readlink(f"/proc/self/fd/{handle}")
            if real != change.path:
                raise HostError(
                    f"{os.uname().nodename}: {change.path} leads to {real} now, so the"
                    " permissions there stay as they are.",
                    "See who put a link there, and run again.",
                )
            mode = stat.S_IMODE(status.st_mode) & ~_permissions.OTHERS_WRITE
        remember(undo_log, change, status)
        if change.action == "chown":
            try:
                numbers = (pwd.getpwnam(change.owner).pw_uid, grp.getgrnam(change.group).gr_gid)
            except KeyError as error:
                raise HostError(
                    f"{os.uname().nodename}: {change.path} must belong to"
                    f" {change.owner}:{change.group}, but {error}.",
                    "Create the account first.",
                ) from error
            os.fchown(handle, *numbers)
        if mode is not None:
            os.fchmod(handle, mode)
    finally:
        os.close(handle)


def remember(undo_log: str, change: _permissions.Change, status: os.stat_result) -> None:
    """Append the present permissions of a path to the log."""
    os.makedirs(os.path.dirname(undo_log), mode=0o750, exist_ok=True)
    entry = {
        "timestamp": utc(time.time()),
        "path": change.path,
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "uid": status.st_uid,
        "gid": status.st_gid,
    }
    handle = os.open(undo_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o640)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(entry) + "\n")


def audit(params: dict[str, Any], skipped: list[str]) -> tuple[list, dict, list]:
    """Return what everybody may write to, the expected paths as they are, and the verdicts."""
    expectations = [_permissions.Expectation(**item) for item in params["expectations"]]
    found = [
        item
        for item in _permissions.world_writable(params["paths"], params["exclude"])
        if item.path not in skipped
    ]
    observed = {item.path: look(item.path) for item in expectations}
    allowed = [item["path"] for item in params["allow"]]
    return found, observed, _permissions.verdicts(found, observed, expectations, allowed)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "default": []},
            "exclude": {"type": "list", "elements": "path", "default": []},
            "handled": {"type": "list", "elements": "str", "default": []},
            "allow": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "reason": {"type": "str", "required": True},
                },
            },
            "expectations": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "owner": {"type": "str", "default": ""},
                    "group": {"type": "str", "default": ""},
                    "mode": {"type": "str", "default": ""},
                    "fix": {"type": "bool", "default": True},
                },
            },
            "fix": {"type": "bool", "default": True},
            "undo_log": {"type": "path", "default": "/var/lib/hx-llm/permissions-undo.jsonl"},
        },
        supports_check_mode=True,
    )
    params = module.params
    for item in params["expectations"]:
        if item["mode"] and not _MODE.fullmatch(item["mode"]):
            module.fail_json(
                msg=f"{os.uname().nodename}: the mode of {item['path']} is {item['mode']!r},"
                " wanted octal digits such as '0640'."
            )
    skipped = params["handled"] if module.check_mode else []
    found, observed, verdicts = audit(params, skipped)
    expectations = [_permissions.Expectation(**item) for item in params["expectations"]]
    allowed = [item["path"] for item in params["allow"]]
    changes = _permissions.plan(found, observed, expectations, allowed) if params["fix"] else []
    result: dict[str, Any] = {
        "changed": bool(changes),
        "actions": [change.sentence() for change in changes],
        "plan": [change.as_dict() for change in changes],
        "world_writable": [item.path for item in found],
        "diff": _permissions.diff(changes),
    }
    if changes and not module.check_mode:
        try:
            for change in changes:
                apply(change, params["undo_log"])
        except HostError as error:
            module.fail_json(msg=str(error), verdicts=_verdict.as_dicts(verdicts), **result)
        except OSError as error:
            module.fail_json(
                msg=f"{os.uname().nodename}: the permissions of {error.filename or 'a file'} could"
                f" not be changed: {error.strerror}.",
                verdicts=_verdict.as_dicts(verdicts),
                **result,
            )
        verdicts = audit(params, skipped)[2]
    module.exit_json(verdicts=_verdict.as_dicts(verdicts), **result)


if __name__ == "__main__":
    main()
