#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_state_info
short_description: Observe how a host stands, without touching it
version_added: 0.1.0
description:
  - Returns the state of a host for the before and after of a run's report and for the migration
    map.
  - Looks at the mounts of the bulk disk, at links and directories, model stores, the environment
    file, units and timers, the operators' scripts, files that everybody may write to, the engine's
    API, the baseline and the GPU telemetry.
  - What is missing is reported as missing, never as an error.
extends_documentation_fragment:
  - hx_infra.llm.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  node_dir:
    description: Directory of the host's own tree.
    type: path
    required: true
  scripts_dir:
    description: Directory of the shared operator scripts.
    type: path
    default: /opt/scripts
  logs_dir:
    description: Directory of the engine's logs; the baseline is C(perf/baseline.csv) below it.
    type: path
    default: /opt/logs/services/ollama
  models_dir:
    description: Canonical path of the models.
    type: path
    default: /mnt/active_llm_models
  store_dir:
    description: Where the store really is.
    type: path
    default: /data/llm_bulk_storage/ollama/models
  store_candidates:
    description: Other places where a store may be.
    type: list
    elements: path
    default: []
  bulk_mount:
    description: Where the bulk disk is to be mounted.
    type: path
    default: /data/llm_bulk_storage
  bulk_device:
    description: The bulk disk; no mounts are reported when it is empty.
    type: str
    default: ''
  env_file:
    description: The engine's environment file. V(config/ollama/ollama.env) below O(node_dir) when
      it is left out.
    type: path
  units:
    description: Units to report.
    type: list
    elements: str
    default:
      - ollama.service
  timers:
    description: Timers to report.
    type: list
    elements: str
    default: []
  links:
    description: Further paths to report as links, directories or mounts.
    type: list
    elements: path
    default: []
  audit_paths:
    description: Trees that are searched for files and directories that everybody may write to.
    type: list
    elements: path
    default: []
  audit_exclude:
    description: Trees that this search leaves out.
    type: list
    elements: path
    default: []
  audit_allow:
    description: Paths that everybody may write to on purpose; they aren't reported.
    type: list
    elements: path
    default: []
  url:
    description: Address of the engine's API; it isn't asked when this is empty.
    type: str
    default: http://127.0.0.1:11434
  timeout:
    description: Seconds to wait for one answer of the engine.
    type: int
    default: 5
seealso:
  - module: hx_infra.llm.migration_map_info
  - module: hx_infra.llm.run_record
author:
  - hx_infra.llm contributors (@hx-infra)
"""

EXAMPLES = r"""
- name: Observe the host
  hx_infra.llm.host_state_info:
    node_dir: /opt/hx-infrastructure/llm-01
    bulk_device: /dev/sda1
    timers:
      - gpu-telemetry.timer
  register: observed
"""

RETURN = r"""
state:
  description: The state of the host.
  returned: always
  type: dict
  contains:
    mounts:
      description: Mounts of the bulk disk with C(device), C(target), C(fstype), C(size_bytes) and
        C(used_bytes).
      returned: always
      type: list
      elements: dict
    links:
      description:
        - Standard paths with C(path), C(kind) (C(missing), C(link), C(mount), C(dir) or C(file)),
          C(target), C(realpath), and where they exist C(mode), C(owner) and C(group).
      returned: always
      type: list
      elements: dict
    stores:
      description:
        - Stores with C(path), C(models) (C(name), C(digest), C(size_bytes)), C(partial_files),
          C(partial_bytes), C(orphans), C(orphan_bytes), C(unreadable) manifests, C(used_bytes), and
          C(owners), a count of files by owner.
      returned: always
      type: list
      elements: dict
    env_file:
      description: The environment file, its mode and owner, and the models that it names.
      returned: always
      type: dict
    units:
      description: Units with C(name), C(load), C(active), C(sub), C(enabled), C(path), C(drop_ins)
        and C(main_pid).
      returned: always
      type: list
      elements: dict
    timers:
      description: The same for timers.
      returned: always
      type: list
      elements: dict
    scripts:
      description: Operator scripts with C(name), and C(shared) and C(local) as in RV(state.links).
      returned: always
      type: list
      elements: dict
    world_writable:
      description: The C(count) and C(paths) of what everybody may write to.
      returned: always
      type: dict
    engine:
      description: Whether the engine C(answers), its C(version) and C(models).
      returned: always
      type: dict
    baseline:
      description: Number of C(rows) of the baseline and its C(models).
      returned: always
      type: dict
    telemetry:
      description: Age of the last GPU sample as C(age_seconds).
      returned: always
      type: dict
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
import time
from urllib.error import HTTPError

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ansible_collections.hx_infra.llm.plugins.module_utils import _host_state


def getter(timeout: int) -> _host_state.Http:
    """Return a function that fetches an address and never raises."""

    def fetch(url: str) -> tuple[int, str]:
        try:
            response = open_url(url, timeout=timeout, http_agent="hx_infra.llm", use_proxy=False)
            return response.getcode(), response.read().decode("utf-8", "replace")
        except HTTPError as error:
            return error.code, ""
        except Exception as error:  # open_url raises a dozen unrelated classes
            return 0, str(error)

    return fetch


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "node_dir": {"type": "path", "required": True},
            "scripts_dir": {"type": "path", "default": "/opt/scripts"},
            "logs_dir": {"type": "path", "default": "/opt/logs/services/ollama"},
            "models_dir": {"type": "path", "default": "/mnt/active_llm_models"},
            "store_dir": {"type": "path", "default": "/data/llm_bulk_storage/ollama/models"},
            "store_candidates": {"type": "list", "elements": "path", "default": []},
            "bulk_mount": {"type": "path", "default": "/data/llm_bulk_storage"},
            "bulk_device": {"type": "str", "default": ""},
            "env_file": {"type": "path"},
            "units": {"type": "list", "elements": "str", "default": ["ollama.service"]},
            "timers": {"type": "list", "elements": "str", "default": []},
            "links": {"type": "list", "elements": "path", "default": []},
            "audit_paths": {"type": "list", "elements": "path", "default": []},
            "audit_exclude": {"type": "list", "elements": "path", "default": []},
            "audit_allow": {"type": "list", "elements": "path", "default": []},
            "url": {"type": "str", "default": "http://127.0.0.1:11434"},
            "timeout": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C.UTF-8"}
    options = dict(module.params)
    timeout = options.pop("timeout")
    options["env_file"] = options["env_file"] or os.path.join(
        options["node_dir"], "config", "ollama", "ollama.env"
    )
    access = _host_state.Access(
        run=module.run_command,
        http=getter(timeout),
        now=time.time(),
    )
    state = _host_state.observe(_host_state.Layout(**options), access)
    module.exit_json(changed=False, actions=[], plan=[], state=state)


if __name__ == "__main__":
    main()
