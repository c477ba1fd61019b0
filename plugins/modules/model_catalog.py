#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model_catalog
short_description: Makes the models of an Ollama host exactly the declared ones
version_added: 0.1.0
description:
  - Compares the declared models with the store on disk, makes one plan, carries it out through the
    engine's API, and reads the store back.
  - A declared model that is there as declared is adopted and nothing is downloaded. One that is
    missing, whose pin isn't met, whose manifest can't be used, or that misses blobs, is pulled.
  - Forbidden models go. Undeclared ones are kept and reported in RV(undeclared), unless
    O(exclusive).
  - Files of unfinished downloads go, except of a download that is going on, or one that a pull of
    this plan resumes.
  - Everything that can be known before the first byte is checked before the first byte, which
    covers disk space, the registry, and the pins.
  - A model that fails doesn't stop the others; RV(outcomes) says how each of them went. A run that
    was cut off at any point is completed by the next one.
options:
  models:
    description: The declared models, in the order in which they are pulled.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The model's name as Ollama takes it. The tag V(latest) is the default.
        type: str
        required: true
      digest:
        description:
          - The digest that C(ollama list) shows, 12 digits or more. The model must have it.
        type: str
        default: ""
      source:
        description:
          - Full name C(host[:port]/namespace/model:tag) to pull it from. The model then gets its
            declared name, with the same digest.
        type: str
        default: ""
      insecure:
        description: Whether the source speaks plain HTTP.
        type: bool
        default: false
      update:
        description: Whether the model is pulled when its tag has moved in the registry. A pin wins.
        type: bool
        default: false
      slo:
        description: Service level objectives. Other modules read them; this one doesn't.
        type: dict
        default: {}
  forbidden:
    description: Names of models that must not be there.
    type: list
    elements: str
    default: []
  exclusive:
    description: Whether undeclared models are removed.
    type: bool
    default: false
  store:
    description:
      - The directory with C(blobs) and C(manifests), as it can be read now. The engine at O(url)
        has to serve the same store.
    type: path
    required: true
  space_path:
    description:
      - A path on the disk whose free space counts, when it isn't that of O(store), for instance in
        check mode before the store moves.
    type: path
  url:
    description: Base URL of the engine's API.
    type: str
    default: http://127.0.0.1:11434
  registry:
    description:
      - C(host[:port]) of a registry that models without O(models[].source) come from instead of
        Ollama's own.
    type: str
    default: ""
  registry_insecure:
    description: Whether O(registry) speaks plain HTTP.
    type: bool
    default: false
  reserve_bytes:
    description: Disk space that must stay free while models are pulled.
    type: int
    default: 0
  prune_partials:
    description: Whether files of unfinished downloads are removed.
    type: bool
    default: true
  partial_min_age_s:
    description: A download that changed more recently than this is taken for one that is going on.
    type: int
    default: 3600
  prune_orphans:
    description: Whether blobs that no model refers to are removed. Otherwise they are reported.
    type: bool
    default: false
  prove:
    description: Whether each new model must answer one short prompt.
    type: bool
    default: true
  deadline_s:
    description: Seconds after which a pull is stopped. The next run resumes it.
    type: int
    default: 7200
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
    details: The registry is asked, nothing is pulled; without an engine the disk alone is read.
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - Has to run as root, or as the account that owns the store.
"""

EXAMPLES = r"""
- name: Have these three models and none of the other node's
  hx_infra.llm.model_catalog:
    store: /mnt/active_llm_models
    models:
      - {name: "llama3.2:3b", digest: a80c4f17acd5}
      - {name: "qwen3:1.7b", digest: 8f68893c685c}
      - {name: mistral-small3.2}
    forbidden: ["phi3:latest", "gemma2:2b"]
    reserve_bytes: 50000000000
  register: catalog

- name: Have one model from a private registry, and nothing else
  hx_infra.llm.model_catalog:
    store: /mnt/active_llm_models
    exclusive: true
    models:
      - name: qwen3:1.7b
        source: registry.example.com:5000/library/qwen3:1.7b
        insecure: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in sentences.
  returned: always
  type: list
  elements: str
  sample: ["Pull phi3:latest (2.2GB): it is not there"]
plan:
  description:
    - The same steps as data, and the models that stay as they are. Paths are relative to the store.
  returned: always
  type: list
  elements: dict
  contains:
    action:
      description: V(adopt), V(pull), V(repull), V(remove), V(prune_partial) or V(prune_orphan).
      type: str
    target:
      description: The model, or the file relative to the store.
      type: str
    reason:
      description: Why.
      type: str
    bytes:
      description: What the step downloads, or frees on disk.
      type: int
    files:
      description: Number of blobs downloaded, or files freed.
      type: int
    digest:
      description: Digest of the model or blob, as far as it is known.
      type: str
    source:
      description: The name that a model is pulled by.
      type: str
totals:
  description: What the plan takes and gives.
  returned: always
  type: dict
  contains:
    bytes_to_download:
      description: What the pulls download.
      type: int
    bytes_to_free:
      description: What the plan frees on disk.
      type: int
    space_needed:
      description: The disk space needed at the worst moment, compared with the start.
      type: int
catalog:
  description: The models before and after; in check mode as they would be after.
  returned: always
  type: dict
  contains:
    before:
      description:
        - List of models, each with name, digest, size_bytes, declared, pinned and complete.
      type: list
      elements: dict
    after:
      description: The same after the run.
      type: list
      elements: dict
env:
  description:
    - The models after the run, with what an environment file says about them, in the form that
      M(hx_infra.llm.ollama_env) takes.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The model.
      type: str
    size_bytes:
      description: The model's size.
      type: int
    digest:
      description: The model's digest.
      type: str
undeclared:
  description: Names of models that are kept though nobody declared them.
  returned: always
  type: list
  elements: str
outcomes:
  description: How each step went; empty in check mode.
  returned: always
  type: list
  elements: dict
  contains:
    action:
      description: The step's action.
      type: str
    target:
      description: The step's target.
      type: str
    ok:
      description: Whether it succeeded.
      type: bool
    detail:
      description: Why it failed.
      type: str
    proof_s:
      description: Seconds that a new model took to answer.
      type: float
verdicts:
  description:
    - The catalog judged. Each entry has check, status, subject, value, limit, unit and evidence.
  returned: always
  type: list
  elements: dict
reclaimed_bytes:
  description: Disk space given back; in check mode what would be given back.
  returned: always
  type: int
reclaimed_apparent_bytes:
  description:
    - The lengths of the files that are gone. Those of unfinished downloads are longer than what
      they occupy.
  returned: always
  type: int
reclaimed_files:
  description: Number of files that are gone; in check mode that would go.
  returned: always
  type: int
downloaded_bytes:
  description: What was downloaded; in check mode what would be downloaded.
  returned: always
  type: int
"""

import platform
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog import Moment
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_apply import open_inodes
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_run import (
    Io,
    free_bytes,
    reconcile,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_api import OllamaApi
from ansible_collections.hx_infra.llm.plugins.module_utils._progress import ProgressWriter
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import ansible_http

MODEL_SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "digest": {"type": "str", "default": ""},
    "source": {"type": "str", "default": ""},
    "insecure": {"type": "bool", "default": False},
    "update": {"type": "bool", "default": False},
    "slo": {"type": "dict", "default": {}},
}
ARGUMENT_SPEC: dict[str, Any] = {
    "models": {"type": "list", "elements": "dict", "default": [], "options": MODEL_SPEC},
    "forbidden": {"type": "list", "elements": "str", "default": []},
    "exclusive": {"type": "bool", "default": False},
    "store": {"type": "path", "required": True},
    "space_path": {"type": "path"},
    "url": {"type": "str", "default": "http://127.0.0.1:11434"},
    "registry": {"type": "str", "default": ""},
    "registry_insecure": {"type": "bool", "default": False},
    "reserve_bytes": {"type": "int", "default": 0},
    "prune_partials": {"type": "bool", "default": True},
    "partial_min_age_s": {"type": "int", "default": 3600},
    "prune_orphans": {"type": "bool", "default": False},
    "prove": {"type": "bool", "default": True},
    "deadline_s": {"type": "int", "default": 7200},
    "progress_file": {"type": "path"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    host = platform.node()
    params = module.params
    writer = ProgressWriter(params["progress_file"])
    deadline = time.monotonic() + params["deadline_s"]
    io = Io(
        api=OllamaApi(params["url"], ansible_http(use_proxy=False), deadline=deadline),
        registry=ansible_http(),
        progress=lambda item, phase, done, total, note: writer.update(
            item, phase, done if total else None, total or None, unit="B", note=note
        ),
        moment=lambda: Moment(time.time(), *open_inodes()),
        free_bytes=free_bytes,
    )
    result: dict[str, Any] = {"changed": False, "actions": [], "plan": []}
    try:
        reconcile(params, io, module.check_mode, result)
    except HostError as error:
        if not module._diff:
            result.pop("diff", None)
        module.fail_json(msg=f"{host}: {error}", **result)
    if not module._diff:
        result.pop("diff", None)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
