#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bring directories and files to a host in one step."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_files
short_description: Bring directories and files to a host in one step
version_added: 0.4.0
description:
  - Makes directories and writes files with their owner, group and mode, all in one run on the host.
    A loop over M(ansible.builtin.copy) and M(ansible.builtin.file) does the same with two or three
    runs for each of them.
  - Everything is looked at, and every file is validated, before the first one is written. Each file
    is replaced as a whole. A link at a file's path is replaced, one to a directory is followed.
  - What else stands in a directory stays.
options:
  directories:
    description:
      - The directories, parents before what is in them. Missing parents are made like them.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where it is, an absolute path.
        type: path
        required: true
      owner:
        description: Its user, O(owner) by default.
        type: str
      group:
        description: Its group, O(group) by default.
        type: str
      mode:
        description: Its mode in octal digits, O(directory_mode) by default.
        type: str
  files:
    description: The files; of O(files[].src) and O(files[].content) one has to be given.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - Where it is, an absolute path. Its directory has to be there, or in O(directories).
        type: path
        required: true
      src:
        description: A file on the controller, looked up as M(ansible.builtin.copy) does.
        type: str
      content:
        description: The text of the file.
        type: str
      data:
        description:
          - The file's bytes, compressed with zlib, in base64. The action plugin puts them here in
            place of O(files[].src) and O(files[].content).
        type: str
      owner:
        description: Its user, O(owner) by default.
        type: str
      group:
        description: Its group, O(group) by default.
        type: str
      mode:
        description: Its mode in octal digits, O(mode) by default.
        type: str
  owner:
    description: The user of everything without one of its own.
    type: str
    default: root
  group:
    description: The group of everything without one of its own.
    type: str
    default: root
  mode:
    description: The mode of files without one of their own.
    type: str
    default: "0644"
  directory_mode:
    description: The mode of directories without one of their own.
    type: str
    default: "0755"
  validate:
    description:
      - A command that accepts a new file before it is put in its place, with V(%s) for its path. It
        runs in check mode, too.
    type: str
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
- name: Install a program with its library
  hx_infra.llm.host_files:
    directories:
      - path: /opt/hx-infrastructure/lib
    files:
      - {src: collector.py, path: /opt/hx-infrastructure/lib/collector.py, mode: "0755"}
      - {src: library.py, path: /opt/hx-infrastructure/lib/library.py}

- name: Write two settings that only the service may read
  hx_infra.llm.host_files:
    files:
      - {content: "{{ first | to_json }}", path: /etc/hx-llm/first.json}
      - {content: "{{ second | to_json }}", path: /etc/hx-llm/second.json}
    group: hxmon
    mode: "0640"
    validate: python3 -m json.tool %s /dev/null
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in sentences.
  returned: always
  type: list
  elements: str
  sample: ["Write /opt/hx-infrastructure/lib/library.py, 812 bytes, root:root 0644"]
plan:
  description: The same steps as data.
  returned: always
  type: list
  elements: dict
  contains:
    action:
      description: V(make_directory), V(create), V(update) or V(permissions).
      type: str
    target:
      description: The path that the step changes.
      type: str
    access:
      description: Owner, group and mode as they have to be.
      type: str
    found:
      description: What they were, for V(permissions).
      type: str
"""

import base64
import binascii
import os
import platform
import shlex
import tempfile
import zlib
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils import _env_install as install
from ansible_collections.hx_infra.llm.plugins.module_utils import _host_files as host_files
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

ACCESS: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "mode": {"type": "str"},
}
ARGUMENT_SPEC: dict[str, Any] = {
    "directories": {"type": "list", "elements": "dict", "default": [], "options": ACCESS},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            **ACCESS,
            "src": {"type": "str"},
            "content": {"type": "str"},
            "data": {"type": "str"},
        },
    },
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str", "default": "0644"},
    "directory_mode": {"type": "str", "default": "0755"},
    "validate": {"type": "str"},
}


def access_of(
    entry: dict[str, Any], params: dict[str, Any], mode: str, host: str
) -> install.Access:
    """Return who may use an entry, by its own options or by those of all."""
    owner, group = entry["owner"] or params["owner"], entry["group"] or params["group"]
    return install.find_access(owner, group, entry["mode"] or mode, host)


def content_of(entry: dict[str, Any], host: str) -> bytes:
    """Return the bytes that the action plugin has packed."""
    try:
        return zlib.decompress(base64.b64decode(entry["data"] or "", validate=True))
    except (binascii.Error, zlib.error) as error:
        raise HostError(
            f"{host}: {entry['path']} has no content that can be unpacked ({error}), wanted src or"
            " content, which the action plugin of hx_infra.llm.host_files packs."
        ) from error


def validate(module: AnsibleModule, entry: host_files.File, host: str) -> None:
    """Let the command judge a new file.

    Raises:
        HostError: it refuses the file.
    """
    command = module.params["validate"]
    if "%s" not in command:
        raise HostError(f"{host}: validate is {command!r}, wanted a command with %s.")
    handle, path = tempfile.mkstemp(dir=module.tmpdir)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(entry.content)
        rc, out, err = module.run_command(
            [word.replace("%s", path) for word in shlex.split(command)]
        )
    finally:
        os.unlink(path)
    if rc:
        said = (err or out).strip().replace(path, entry.path)
        raise HostError(f"{host}: {entry.path} is refused by {command!r} (status {rc}): {said}")


def run(module: AnsibleModule, host: str) -> dict[str, Any]:
    """Plan, act unless in check mode, and return the result."""
    params = module.params
    directories = [
        host_files.Directory(
            entry["path"].rstrip("/") or "/",
            access_of(entry, params, params["directory_mode"], host),
        )
        for entry in params["directories"]
    ]
    files = [
        host_files.File(
            entry["path"], access_of(entry, params, params["mode"], host), content_of(entry, host)
        )
        for entry in params["files"]
    ]
    found = host_files.plan(directories, files, host)
    written = {step["target"] for step in found.steps if step["action"] in ("create", "update")}
    if params["validate"]:
        for entry in files:
            if entry.path in written:
                validate(module, entry, host)
    if not module.check_mode:
        host_files.apply(found, host)
    return {
        "changed": bool(found.steps),
        "actions": [host_files.sentence(step, files) for step in found.steps],
        "plan": found.steps,
        "diff": found.diff,
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    host = platform.node()
    try:
        result = run(module, host)
    except HostError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{host}: {error.filename} can't be written: {error.strerror}.")
    if not module._diff:
        del result["diff"]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
