#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model_archive
short_description: Writes models of a store to an archive for sites without a network
version_added: 0.5.0
description:
  - Writes named models of an Ollama store, manifests and blobs, to one uncompressed tar archive,
    and the archive's checksum to a file beside it. In M(hx_infra.llm.model_catalog) such an archive
    is a source of the type V(archive).
  - Every blob is verified while it is written. The archive gets its name when it is complete, so
    that what has the name is whole.
  - The same models give the same archive, byte for byte, whatever host it is made on.
  - An archive that begins with the same index and manifests, has the right length, and has its
    checksum beside it, stays as it is.
  - The engine isn't involved, and may run.
options:
  state:
    description: Whether there is such an archive.
    type: str
    choices: [present, absent]
    default: present
  path:
    description: The archive. Its directory has to be there.
    type: path
    required: true
  store:
    description: The directory with C(blobs) and C(manifests). Required when O(state=present).
    type: path
  models:
    description: Names of the models, in the order in which they are written.
    type: list
    elements: str
    default: []
  verify:
    description:
      - Whether an archive that is there is read and compared with its checksum. One that is damaged
        is written anew.
    type: bool
    default: false
  deadline_s:
    description: Seconds after which the controller stops waiting.
    type: int
    default: 14400
  progress_file:
    description: File that tells the controller how far the work is. The action plugin sets it.
    type: path
author:
  - hx_infra.llm contributors (@hx-infra)
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
notes:
  - Has to run as an account that can read the store.
"""

EXAMPLES = r"""
- name: Pack two models for the site without a network
  hx_infra.llm.model_archive:
    store: /mnt/active_llm_models
    models: ["llama3.2:3b", "qwen3:1.7b"]
    path: /data/llm_bulk_storage/models.tar
  register: packed

- name: Unpack them there
  hx_infra.llm.model_catalog:
    store: /mnt/active_llm_models
    models: [{name: "llama3.2:3b"}, {name: "qwen3:1.7b"}]
    sources:
      - type: archive
        path: /media/models.tar
        checksum: sha256:4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865
"""

RETURN = r"""
path:
  description: The archive.
  returned: always
  type: str
checksum:
  description:
    - The archive's checksum, as M(hx_infra.llm.model_catalog) takes it. Empty in check mode when
      the archive would be written, and when it is gone.
  returned: always
  type: str
  sample: sha256:4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865
bytes:
  description: Length of the archive, which is known in check mode too.
  returned: always
  type: int
models:
  description: The models in it.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The model.
      type: str
    digest:
      description: Its digest.
      type: str
    size_bytes:
      description: Its size.
      type: int
actions:
  description: What was done, or would be done in check mode, in sentences.
  returned: always
  type: list
  elements: str
"""

import os
import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils import _model_archive as archives
from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import human_size
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import read_store
from ansible_collections.hx_infra.llm.plugins.module_utils._progress import ProgressWriter

ARGUMENT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "path": {"type": "path", "required": True},
    "store": {"type": "path"},
    "models": {"type": "list", "elements": "str", "default": []},
    "verify": {"type": "bool", "default": False},
    "deadline_s": {"type": "int", "default": 14400},
    "progress_file": {"type": "path"},
}


def export(params: dict[str, Any], check_mode: bool, progress: ProgressWriter) -> dict[str, Any]:
    """Have the archive as declared, or say what would be done.

    Raises:
        HostError: it can't be had.
    """
    path = params["path"]
    if not params["models"]:
        raise HostError(f"no models are named for the archive {path}.")
    store = read_store(params["store"])
    wanted = archives.draft(store, params["models"])
    name = os.path.basename(path)
    checksum = archives.standing(path, wanted)
    damaged = False
    if checksum and params["verify"]:
        damaged = not archives.intact(
            path,
            checksum,
            lambda done: progress.update(name, "verifying", done, wanted.size, unit="B"),
        )
    changed = damaged or not checksum
    if changed:
        checksum = ""
        archives.check_space(path, wanted)
        if not check_mode:
            checksum = archives.write(
                store,
                path,
                wanted,
                lambda done: progress.update(name, "writing", done, wanted.size, unit="B"),
            )
    why = " since it is damaged" if damaged else ""
    count, size = len(wanted.models), human_size(wanted.size)
    return {
        "changed": changed,
        "actions": [f"Write {path} ({size}, models: {count}){why}."] if changed else [],
        "path": path,
        "checksum": f"sha256:{checksum}" if checksum else "",
        "bytes": wanted.size,
        "models": [
            {"name": str(model.name), "digest": model.digest, "size_bytes": model.size}
            for model in wanted.models
        ],
    }


def remove(path: str, check_mode: bool) -> dict[str, Any]:
    """Have no archive, and nothing that belongs to it.

    Raises:
        HostError: something can't be removed.
    """
    found = archives.leftovers(path)
    for name in () if check_mode else found:
        try:
            os.unlink(name)
        except OSError as error:
            raise HostError(f"{name} can't be removed: {error.strerror}.") from error
    return {
        "changed": bool(found),
        "actions": [f"Remove {name}." for name in found],
        "path": path,
        "checksum": "",
        "bytes": 0,
        "models": [],
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENT_SPEC,
        required_if=[("state", "present", ("store", "models"))],
        supports_check_mode=True,
    )
    params = module.params
    try:
        if params["state"] == "absent":
            result = remove(params["path"], module.check_mode)
        else:
            result = export(params, module.check_mode, ProgressWriter(params["progress_file"]))
    except HostError as error:
        module.fail_json(msg=f"{platform.node()}: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
