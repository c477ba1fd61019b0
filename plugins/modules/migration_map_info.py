#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_map_info
short_description: Check that every part of a host stands where the standard says
version_added: 0.1.0
description:
  - Judges the state of a host, as M(hx_infra.llm.host_state_info) returns it, against the standard
    layout.
  - Gives one verdict each for the service scripts, smoke tests, performance logs, data path,
    environment file, models, old paths, permissions and units.
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
    details:
      - In check mode the host still stands as before the run, so O(enforce) has no effect there.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  state:
    description: State of the host. Its C(links) must name every path of O(old_paths) and their
      targets.
    type: dict
    required: true
  node_dir:
    description: Directory of the host's own tree.
    type: path
    required: true
  models:
    description:
      - The declared models, each with C(name), the name with its tag, and perhaps C(digest), the
        beginning of its digest. Other fields are ignored.
    type: list
    elements: dict
    required: true
  forbidden:
    description: Names of models that must not be on the host.
    type: list
    elements: str
    default: []
  models_dir:
    description: Canonical path of the models.
    type: path
    default: /mnt/active_llm_models
  store_dir:
    description: Where the store really is.
    type: path
    default: /data/llm_bulk_storage/ollama/models
  bulk_mount:
    description: Where the bulk disk is to be mounted.
    type: path
    default: /data/llm_bulk_storage
  bulk_device:
    description: The bulk disk; its mount isn't judged when this is empty.
    type: str
    default: ''
  env_owner:
    description: Owner and group of the environment file.
    type: str
    default: root:ollama
  env_mode:
    description: Mode of the environment file.
    type: str
    default: '0640'
  old_paths:
    description: Paths that worked before and must lead to their new place.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The old path.
        type: path
        required: true
      target:
        description: Where it must lead.
        type: path
        required: true
  enforce:
    description: Fail when a verdict is C(FAIL); no effect in check mode.
    type: bool
    default: false
  host:
    description: Name of the host in messages. The host's own name when it is left out.
    type: str
seealso:
  - module: hx_infra.llm.host_state_info
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: Check the migration map
  hx_infra.llm.migration_map_info:
    state: "{{ observed.state }}"
    node_dir: /opt/hx-infrastructure/llm-01
    bulk_device: /dev/sda1
    models:
      - name: llama3.2:3b
        digest: a80c4f17acd5
"""

RETURN = r"""
verdicts:
  description: One verdict for each part of the map.
  returned: always
  type: list
  elements: dict
  sample:
    - check: data_path
      status: PASS
      subject: ''
      value: as the standard says
      limit: as the standard says
      unit: ''
      evidence: /opt/hx-infrastructure/llm-01/data/llm_bulk_storage -> /data/llm_bulk_storage
ok:
  description: Whether no verdict is C(FAIL).
  returned: always
  type: bool
actions:
  description: Always empty.
  returned: always
  type: list
  elements: str
plan:
  description: Always empty.
  returned: always
  type: list
  elements: dict
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils import _migration_map, _verdict


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "dict", "required": True},
            "node_dir": {"type": "path", "required": True},
            "models": {"type": "list", "elements": "dict", "required": True},
            "forbidden": {"type": "list", "elements": "str", "default": []},
            "models_dir": {"type": "path", "default": "/mnt/active_llm_models"},
            "store_dir": {"type": "path", "default": "/data/llm_bulk_storage/ollama/models"},
            "bulk_mount": {"type": "path", "default": "/data/llm_bulk_storage"},
            "bulk_device": {"type": "str", "default": ""},
            "env_owner": {"type": "str", "default": "root:ollama"},
            "env_mode": {"type": "str", "default": "0640"},
            "old_paths": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "target": {"type": "path", "required": True},
                },
            },
            "enforce": {"type": "bool", "default": False},
            "host": {"type": "str"},
        },
        supports_check_mode=True,
    )
    options = dict(module.params)
    state, enforce = options.pop("state"), options.pop("enforce")
    host, node_dir = options.pop("host") or os.uname().nodename, options.pop("node_dir")
    nameless = [model for model in options["models"] if not model.get("name")]
    if nameless:
        module.fail_json(
            msg=f"{host}: models has the entry {nameless[0]} without a name. Name the model."
        )
    options["node_data_link"] = os.path.join(node_dir, "data", "llm_bulk_storage")
    judged = _migration_map.judge_map(state, _migration_map.Declaration(**options))
    broken = [verdict for verdict in judged if verdict.status == _verdict.FAIL]
    result = {
        "changed": False,
        "actions": [],
        "plan": [],
        "verdicts": _verdict.as_dicts(judged),
        "ok": not broken,
    }
    if broken and enforce and not module.check_mode:
        told = "; ".join(f"{verdict.check}: {verdict.evidence}" for verdict in broken)
        module.fail_json(
            msg=(
                f"{host}: {len(broken)} of {len(judged)} parts do not stand as the standard says:"
                f" {told}. Run remediate.yml again; it completes what is missing."
            ),
            **result,
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
