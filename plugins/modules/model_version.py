#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model_version
short_description: Keeps the present version of an Ollama model, and goes back to it
version_added: 0.5.0
description:
  - Ollama can't pull an earlier version of a tag, and removes the layers of the present one when it
    pulls a new one. This module gives the present version a second name, C(<tag>-hx-previous), by
    the engine's own copy. That takes no disk space, and the engine keeps the layers.
  - Going back is another copy. The version that is given up is removed by the engine, with the
    layers that nothing else needs, so that nothing is left behind.
  - A file in O(state_dir) remembers what came of an update. A run that was cut off at any point is
    completed by the next one with the same O(state).
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
  name:
    description: The model's name as Ollama takes it. The tag V(latest) is the default.
    type: str
    required: true
  state:
    description:
      - V(kept), the present version is also there as C(<tag>-hx-previous). Refused while another
        version is kept there and nobody has decided about the one in use.
      - V(accepted), the version in use stays. The earlier one stays kept until it is dropped, or
        until the next update takes its place.
      - V(restored), the model is the kept version again, by its digest.
      - V(dropped), no version is kept. Refused while nobody has decided about the one in use.
    type: str
    choices: [kept, accepted, restored, dropped]
    default: kept
  store:
    description: The directory with C(blobs) and C(manifests) that the engine at O(url) serves.
    type: path
    required: true
  url:
    description: Base URL of the engine's API.
    type: str
    default: http://127.0.0.1:11434
  state_dir:
    description: Directory in which updates and verified blobs are remembered.
    type: path
    default: /var/lib/hx-llm
  offered:
    description: The digest that an update is to bring; remembered with O(state=kept).
    type: str
    default: ""
  reason:
    description: Why a version is given up; remembered with O(state=restored).
    type: str
    default: ""
  remember:
    description:
      - Whether O(state=restored) remembers the version that is given up, so that the same one isn't
        tried again. Of no meaning when a way back that was broken off is completed.
    type: bool
    default: true
  verify:
    description:
      - Whether blobs that changed since they were last verified are read in full before
        a version is kept or restored. Otherwise their sizes are compared.
    type: bool
    default: true
  prove:
    description: Whether the model must answer one short prompt after O(state=restored).
    type: bool
    default: true
  deadline_s:
    description: Seconds after which the engine is not waited for any more.
    type: int
    default: 1800
seealso:
  - module: hx_infra.llm.model_update_info
  - module: hx_infra.llm.model_catalog
author:
  - hx_infra.llm contributors (@hx-infra)
notes:
  - Has to run as root, or as the account that owns the store.
"""

EXAMPLES = r"""
- name: Keep what is there before the tag is pulled again
  hx_infra.llm.model_version:
    name: qwen3:1.7b
    store: /mnt/active_llm_models

- name: Go back
  hx_infra.llm.model_version:
    name: qwen3:1.7b
    state: restored
    store: /mnt/active_llm_models
    reason: answers in the wrong language

- name: The new version is fine, give the disk space of the old one back
  hx_infra.llm.model_version:
    name: qwen3:1.7b
    state: "{{ item }}"
    store: /mnt/active_llm_models
  loop: [accepted, dropped]
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in sentences.
  returned: always
  type: list
  elements: str
  sample: ["Keep qwen3:1.7b (8f68893c685c) as qwen3:1.7b-hx-previous"]
plan:
  description: The same steps as data.
  returned: always
  type: list
  elements: dict
  contains:
    action:
      description: V(copy), V(delete) or V(note).
      type: str
    target:
      description: The name that is made or removed; of V(note) the model.
      type: str
    source:
      description: The name that is copied.
      type: str
    digest:
      description: The digest of what is copied, removed or accepted, as far as there is one.
      type: str
version:
  description: How the model and its kept version stand after the run; in check mode, now.
  returned: success
  type: dict
  contains:
    name:
      description: The model.
      type: str
    state:
      description:
        - V(none) when no version is kept, V(kept) when the model is still the kept version,
          V(pending) when another one is in use and nobody has decided, V(restoring) when a way back
          was broken off, V(accepted) or V(restored) when it was decided and the version is still
          kept.
      type: str
    digest:
      description: The digest of the version in use; empty when the model isn't there.
      type: str
    kept_as:
      description: The name of the kept version; empty without one.
      type: str
    kept_digest:
      description: Its digest.
      type: str
    kept_whole:
      description: Whether all its blobs are there.
      type: bool
    since:
      description: When it was kept, RFC 3339.
      type: str
    offered:
      description: The digest that the update was to bring.
      type: str
    rejected:
      description: The version that was last gone back from, with C(digest), C(at) and C(reason).
      type: dict
proof_s:
  description: Seconds that the restored model took to answer; null when it wasn't asked.
  returned: when a version was restored
  type: float
"""

import platform
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._model_version import WISHES
from ansible_collections.hx_infra.llm.plugins.module_utils._model_version_run import (
    VersionIo,
    run_version,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_api import OllamaApi
from ansible_collections.hx_infra.llm.plugins.module_utils._timestamp import utc
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import ansible_http

ARGUMENT_SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": list(WISHES), "default": "kept"},
    "store": {"type": "path", "required": True},
    "url": {"type": "str", "default": "http://127.0.0.1:11434"},
    "state_dir": {"type": "path", "default": "/var/lib/hx-llm"},
    "offered": {"type": "str", "default": ""},
    "reason": {"type": "str", "default": ""},
    "remember": {"type": "bool", "default": True},
    "verify": {"type": "bool", "default": True},
    "prove": {"type": "bool", "default": True},
    "deadline_s": {"type": "int", "default": 1800},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    deadline = time.monotonic() + params["deadline_s"]
    io = VersionIo(
        api=OllamaApi(params["url"], ansible_http(use_proxy=False), deadline=deadline),
        at=lambda: utc(time.time()),
    )
    result: dict[str, Any] = {"changed": False, "actions": [], "plan": []}
    try:
        run_version(params, io, module.check_mode, result)
    except HostError as error:
        result.pop("diff", None)
        module.fail_json(msg=f"{platform.node()}: {error}", **result)
    if not module._diff:
        result.pop("diff", None)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
