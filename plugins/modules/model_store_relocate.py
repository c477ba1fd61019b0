#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Move a model store to its declared place with seconds of interruption."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_store_relocate
short_description: Move a model store to its declared place with seconds of interruption
version_added: 0.1.0
description:
  - Brings the store of an Ollama engine to O(target) and makes O(canonical) and all O(old_paths)
    links that lead there.
  - The store is copied and verified by digest while the engine works. The engine stands still only
    while the rest is copied and the paths are switched, however large the store is.
  - On one file system the store is renamed and not copied.
  - The old tree is never written to. It is kept, read-only, beside its old name as
    C(<name>.hx-retained-<time>); removing it is up to the operator.
  - Each step is noted in a journal, so that a run that was killed at any point is completed by the
    next one.
  - When the engine does not serve the same models afterwards, the switch is taken back and the
    engine runs on the old store again.
  - A store that a download or another run is filling isn't moved, and while it is moved
    M(hx_infra.llm.model_catalog) and others refuse to work on it. Unfinished downloads and copies
    move with the store.
options:
  target:
    description: Directory that holds the store in the end.
    type: path
    required: true
  canonical:
    description: Path at which the engine finds the models. It becomes a link to O(target).
    type: path
    required: true
  old_paths:
    description:
      - Paths at which the store stood or may stand. Each becomes a link to O(canonical).
      - At most one of these paths, O(canonical) included, may lead to a store with files
        outside of O(target).
    type: list
    elements: path
    default: []
  owner:
    description: Account that the store belongs to and that the engine runs as.
    type: str
    default: ollama
  group:
    description: Group that the store belongs to.
    type: str
    default: ollama
  unit:
    description:
      - The engine's systemd unit. It is stopped for the switch and started again if it was running.
      - When empty, nothing is stopped.
    type: str
    default: ""
  url:
    description:
      - Base URL of the engine's API. Its list of models before and after the move must be the same.
      - When empty, it is enough that the unit is active.
    type: str
    default: ""
  mount_path:
    description:
      - Mount point of the disk that holds O(target). Nothing is written while it is not mounted.
      - When empty, O(target) may stand on any file system.
    type: path
  mount_now:
    description:
      - Where that disk is mounted at this moment, when it differs from O(mount_path). Lets check
        mode look at a disk that a preceding task would mount.
      - V("") means that it is mounted nowhere yet.
      - Only for check mode; a real run expects the disk at O(mount_path).
    type: str
  reserve_bytes:
    description:
      - Bytes that stay free on the file system of O(target), beside five percent of what is copied.
    type: int
    default: 268435456
  partial_minutes:
    description:
      - Partial downloads that were written to within this time are watched for two seconds; if
        they grow, or are open for writing, the store is not moved.
    type: int
    default: 10
  pull_wait_s:
    description:
      - How many seconds to wait until nothing fills the store any more, before anything is done.
        The move is refused then; with V(0) at once.
      - A download that begins during the copy isn't waited for. The engine isn't stopped then, and
        the copy is kept.
    type: int
    default: 0
    version_added: 0.5.0
  allow_damaged:
    description:
      - Whether a store with missing, cut or damaged blobs is moved as it is. With V(false) it is an
        error that names them, and the engine is not touched.
    type: bool
    default: false
  stop_timeout:
    description: Seconds that the unit may take to stop.
    type: int
    default: 60
  start_timeout:
    description: Seconds that the engine may take to answer after its start.
    type: int
    default: 120
  journal_dir:
    description: Directory for the journal and the lock.
    type: path
    default: /var/lib/hx-llm
  progress_file:
    description: File into which the module writes how far it is. Set by the action plugin.
    type: path
  host:
    description: Name of the host in messages. The host's own name when not given.
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
- name: Bring the models to the bulk disk
  hx_infra.llm.model_store_relocate:
    target: /data/llm_bulk_storage/ollama/models
    canonical: /mnt/active_llm_models
    old_paths:
      - /opt/hx-infrastructure/llm-01/models/production
    mount_path: /data/llm_bulk_storage
    unit: ollama.service
    url: http://127.0.0.1:11434

- name: Keep a store on the root file system at its canonical path
  hx_infra.llm.model_store_relocate:
    target: /opt/hx-infrastructure/llm-03/models/store
    canonical: /mnt/active_llm_models
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in sentences.
  returned: always
  type: list
  elements: str
plan:
  description: The same steps as data.
  returned: always
  type: list
  elements: dict
  contains:
    action:
      description: >-
        V(create), V(resume), V(copy), V(verify), V(stop), V(rename), V(switch), V(link), V(own),
        V(start) or V(retain).
      type: str
    target:
      description: The path or unit that the step is about.
      type: str
    source:
      description: Where the store comes from.
      type: str
    value:
      description: Text of the link that is placed.
      type: str
mode:
  description: How the store gets to its place.
  returned: always
  type: str
  sample: copy
source:
  description: The directory that holds the store now. Empty when it is in place or there is none.
  returned: always
  type: str
verdicts:
  description: Whether every path leads to the store, read back at the end; empty in check mode.
  returned: always
  type: list
  elements: dict
store_now:
  description: A path at which the store can be read now. In check mode that is the old one.
  returned: always
  type: str
waits_for:
  description: What was filling the store at first, in sentence parts.
  returned: always
  type: list
  elements: str
  version_added: 0.5.0
waited_s:
  description: How long that took to end, in seconds; V(0) in check mode.
  returned: always
  type: float
  version_added: 0.5.0
interruption:
  description: Seconds in which the engine did not answer; zeros when it was not stopped.
  returned: always
  type: dict
  contains:
    stop:
      description: From the request to stop until no process was left.
      type: float
    delta:
      description: Copying and verifying what changed during the copy.
      type: float
    commit:
      description: Switching the paths.
      type: float
    start:
      description: From the request to start until the models were listed.
      type: float
    total:
      description: The sum.
      type: float
bytes_copied:
  description: Bytes written to the target's file system.
  returned: always
  type: int
blobs_verified:
  description: Blobs of the copy whose content has the digest that their name promises.
  returned: always
  type: int
owned:
  description: Entries that got another owner, group or mode.
  returned: always
  type: int
retained:
  description: Where the old tree is kept. Empty when there is none.
  returned: always
  type: str
"""

import os
import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate_module import (
    HostAccess,
    relocate,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    Verdict,
    as_dicts,
    judge,
)

ARGUMENTS: dict[str, dict[str, Any]] = {
    "target": {"type": "path", "required": True},
    "canonical": {"type": "path", "required": True},
    "old_paths": {"type": "list", "elements": "path", "default": []},
    "owner": {"type": "str", "default": "ollama"},
    "group": {"type": "str", "default": "ollama"},
    "unit": {"type": "str", "default": ""},
    "url": {"type": "str", "default": ""},
    "mount_path": {"type": "path"},
    "mount_now": {"type": "str"},
    "reserve_bytes": {"type": "int", "default": 268435456},
    "partial_minutes": {"type": "int", "default": 10},
    "pull_wait_s": {"type": "int", "default": 0},
    "allow_damaged": {"type": "bool", "default": False},
    "stop_timeout": {"type": "int", "default": 60},
    "start_timeout": {"type": "int", "default": 120},
    "journal_dir": {"type": "path", "default": "/var/lib/hx-llm"},
    "progress_file": {"type": "path"},
    "host": {"type": "str"},
}


def verdicts_of(params: dict[str, Any]) -> list[Verdict]:
    """Judge whether every path leads to the store, as read back after the last step."""
    paths = [params["canonical"], *params["old_paths"]]
    return [
        judge(
            "path_leads_to_store",
            os.path.isdir(path) and os.path.realpath(path) == os.path.realpath(params["target"]),
            subject=path,
            value=os.path.realpath(path),
            limit=params["target"],
            evidence="the path, followed to its end",
        )
        for path in paths
    ]


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)

    def command(argv: Any) -> tuple[int, str, str]:
        return module.run_command(list(argv))

    def fetch(url: str, timeout: float) -> bytes:
        try:
            return open_url(url, timeout=timeout, use_proxy=False).read()
        except Exception as error:  # urllib, ssl and socket have no common base
            raise OSError(str(error)) from error

    try:
        result = relocate(module.params, module.check_mode, HostAccess(command, fetch))
    except HostError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        host = module.params["host"] or platform.node()
        module.fail_json(
            msg=f"{host}: the move of the store failed: {error}. Nothing is lost; correct the "
            "cause and run again, the next run goes on from here."
        )
    result["verdicts"] = [] if module.check_mode else as_dicts(verdicts_of(module.params))
    if not module._diff:
        del result["diff"]
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
