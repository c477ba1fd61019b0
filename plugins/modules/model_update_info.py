#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model_update_info
short_description: Tells which models of an Ollama host have a new version at their registry
version_added: 0.5.0
description:
  - Compares each declared model with what its registry offers under the same tag. Nothing is
    pulled, and nothing is changed.
  - Says also which updates of M(hx_infra.llm.model_version) were begun and not decided, so that a
    run that was cut off can be completed.
extends_documentation_fragment:
  - hx_infra.llm.attributes
  - hx_infra.llm.declared_models
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  models:
    description:
      - The declared models, as M(hx_infra.llm.model_catalog) takes them. O(models[].update) has no
        meaning here.
    required: true
  store:
    description: The directory with C(blobs) and C(manifests).
    type: path
    required: true
  url:
    description:
      - Base URL of the engine's API, which is asked for its version only. Without an answer layers
        are compared, as for a version before 0.19.
    type: str
    default: http://127.0.0.1:11434
  state_dir:
    description: Directory in which M(hx_infra.llm.model_version) remembers updates.
    type: path
    default: /var/lib/hx-llm
  ask:
    description:
      - Whether registries are asked. Otherwise the result says what is known on the host alone.
    type: bool
    default: true
  retry:
    description: Whether a version that was gone back from is to be tried again.
    type: bool
    default: false
seealso:
  - module: hx_infra.llm.model_version
  - module: hx_infra.llm.model_catalog
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: Which models have a new version?
  hx_infra.llm.model_update_info:
    models: "{{ llm_models }}"
    store: /mnt/active_llm_models
  register: updates

- name: Show them
  ansible.builtin.debug:
    msg: "{{ updates.moved }}"
"""

RETURN = r"""
models:
  description: The declared models, in their order.
  returned: always
  type: list
  elements: dict
  contains:
    declared:
      description: Its name as declared.
      type: str
    name:
      description: The model, as Ollama shows it.
      type: str
    source:
      description: The name that it is pulled by.
      type: str
    present:
      description: Whether it is there.
      type: bool
    digest:
      description: Its digest in the store.
      type: str
    size_bytes:
      description: Its size, as its manifest says.
      type: int
    pinned:
      description: Whether the declaration pins it to a digest.
      type: bool
    registry_digest:
      description: The digest of the registry's manifest; empty when the registry can't tell.
      type: str
    moved:
      description: Whether the registry has another version under this tag; null when not known.
      type: bool
    compared_by:
      description:
        - V(digest) or V(layers). Versions before 0.19 store manifests written anew, whose digests
          may differ from the registry's although nothing has changed.
      type: str
    bytes_to_download:
      description: What a pull brings; layers and parts of them that are there don't count.
      type: int
    reason:
      description: How the model stands, a part of a sentence.
      type: str
      sample: the registry has 8f68893c685c
    todo:
      description:
        - V(update) when there is a new version to try, V(judge) when one was pulled and not judged,
          V(go_back) when a way back was broken off or the model is gone, V(drop) when a kept
          version is of no use any more, else V(none).
      type: str
    version:
      description: How its kept version stands, as RV(hx_infra.llm.model_version#module:version).
      type: dict
moved:
  description: Names of the models whose tag has moved, pinned ones too.
  returned: always
  type: list
  elements: str
unknown:
  description: Names of the models of which it isn't known.
  returned: always
  type: list
  elements: str
pending:
  description: Names of the models with an update that was begun and not decided.
  returned: always
  type: list
  elements: str
to_update:
  description: Names of the models that have a new version to try.
  returned: always
  type: list
  elements: str
engine_version:
  description: The engine's version; empty when it doesn't answer.
  returned: always
  type: str
"""

import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import read_declaration
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._model_options import (
    MODEL_SPEC,
    REGISTRY_OPTIONS,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._model_updates import (
    NOT_ASKED,
    ask_all,
    counts,
    describe_update,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_api import OllamaApi
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import read_store
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import ansible_http

ARGUMENT_SPEC: dict[str, Any] = {
    "models": {"type": "list", "elements": "dict", "required": True, "options": MODEL_SPEC},
    "store": {"type": "path", "required": True},
    "url": {"type": "str", "default": "http://127.0.0.1:11434"},
    **REGISTRY_OPTIONS,
    "state_dir": {"type": "path", "default": "/var/lib/hx-llm"},
    "ask": {"type": "bool", "default": True},
    "retry": {"type": "bool", "default": False},
}
NOT_DECLARED: dict[str, Any] = {
    "forbidden": [],
    "exclusive": False,
    "reserve_bytes": 0,
    "prune_partials": False,
    "partial_min_age_s": 0,
    "prune_orphans": False,
}


def look(params: dict[str, Any]) -> dict[str, Any]:
    """Return what the result says.

    Raises:
        HostError: a name is none, or the store can't be read.
    """
    wanted = read_declaration({**NOT_DECLARED, **params}).wanted
    store = read_store(params["store"])
    if not store.exists:
        raise HostError(
            f"the model store {params['store']} is not there.", "Check that its disk is mounted."
        )
    try:
        version = OllamaApi(params["url"], ansible_http(use_proxy=False)).version()
    except HostError:
        version = ""  # stopped: the store tells enough
    answers = ask_all(ansible_http(), wanted) if params["ask"] else {}
    entries = [
        {
            "declared": declared["name"],
            **describe_update(
                item,
                store,
                answers.get(item.name.key, NOT_ASKED),
                version,
                params["state_dir"],
                retry=params["retry"],
            ),
        }
        for declared, item in zip(params["models"], wanted)
    ]
    return {"models": entries, "engine_version": version, **counts(entries)}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = look(module.params)
    except HostError as error:
        module.fail_json(msg=f"{platform.node()}: {error}")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
