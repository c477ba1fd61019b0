#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model_store_info
short_description: Audits an Ollama store, with the service running or stopped
version_added: 0.5.0
description:
  - Reads every manifest and every blob's name, size, owner and mode, and says what is missing, cut,
    corrupt, left over, foreign, or in the wrong hands; which models share a blob; and what each
    model really occupies.
  - On request reads the blobs, too, and compares their content with their digests. An engine never
    does that with a blob that is in place.
  - What was read and found good is remembered in O(state_dir), with the size, the time of the last
    change, the inode and the device of the blob's file. As long as these stay, the blob counts as
    verified, also for M(hx_infra.llm.model_catalog). A disk that changes content silently is found
    by O(verify=full) only.
  - Asks nothing of an engine, and changes nothing in the store.
options:
  store:
    description: The directory with C(blobs) and C(manifests).
    type: path
    required: true
  verify:
    description:
      - Which blobs are read. V(none) trusts what is remembered, V(changed) reads those that are not
        remembered as they are now, V(full) reads all.
    type: str
    choices: [none, changed, full]
    default: none
  models:
    description:
      - Names of the models whose blobs O(verify) is about, as in C(llm_models). All blobs of the
        store when empty, also those of no model. It limits nothing else that is said of the store.
    type: list
    elements: str
    default: []
  idle_io:
    description:
      - Whether to read at the idle I/O class and the lowest CPU priority. Disks whose I/O scheduler
        knows no classes (V(none), V(kyber)) don't heed the former.
    type: bool
    default: false
  workers:
    description:
      - How many blobs are read at once, each with 1 MiB of memory. As many as there are cores when
        not given.
    type: int
  deadline_s:
    description:
      - Seconds after which reading is stopped and the module fails. What was read until then is
        remembered.
    type: int
    default: 14400
  state_dir:
    description: Directory on the host in which verified blobs are remembered.
    type: path
    default: /var/lib/hx-llm
  partial_min_age_s:
    description:
      - A download, or a blob without a model, that changed more recently than this is taken for one
        that is being worked on. So is what a process has open.
    type: int
    default: 3600
  owner:
    description:
      - Name or number of the account that everything in the store has to belong to. That of most
        blobs when empty.
    type: str
    default: ""
  group:
    description: Name or number of the group, likewise.
    type: str
    default: ""
  file_mode:
    description:
      - Mode of all files, an octal number such as V('0644'). When empty, it is enough that the
        owner can read them and that not everybody may write.
    type: str
    default: ""
  dir_mode:
    description: Mode of all directories, likewise.
    type: str
    default: ""
  details:
    description:
      - With V(summary) the RV(blobs) are those that something is to be said about, and a list has
        100 rows at most. V(full) returns everything, which is 5 MB for 10,000 blobs.
    type: str
    choices: [summary, full]
    default: summary
  fail_on:
    description: The gravest verdict that the module fails with; the result is the same.
    type: str
    choices: [never, WARN, FAIL]
    default: never
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
    details: Reads the same, and remembers nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
notes:
  - Has to run as root, or as the account that owns the store. Others can't tell which files are
    open.
  - Pages of blobs that were not in the page cache before are dropped from it again; those that an
    engine uses stay.
seealso:
  - module: hx_infra.llm.model_catalog
"""

EXAMPLES = r"""
- name: What is in the store, and what is wrong with it
  hx_infra.llm.model_store_info:
    store: /mnt/active_llm_models
  register: store

- name: Read what changed since the last time, out of the engine's way, and fail on a bad blob
  hx_infra.llm.model_store_info:
    store: /mnt/active_llm_models
    verify: changed
    idle_io: true
    owner: ollama
    group: ollama
    fail_on: FAIL

- name: Read every blob, once a month
  hx_infra.llm.model_store_info:
    store: /mnt/active_llm_models
    verify: full
    idle_io: true
"""

RETURN = r"""
store:
  description: The directory.
  returned: always
  type: str
exists:
  description: Whether it is there.
  returned: success
  type: bool
read_at:
  description: When the files were looked at, in UTC.
  returned: success
  type: str
  sample: "2026-11-22T04:00:00Z"
holder:
  description:
    - Who is changing the store right now, in words; empty when nobody is. What is set aside or
      copied then is no finding.
  returned: success
  type: str
findings:
  description: What is wrong, in sentences, the gravest first; of each kind 20 at most.
  returned: success
  type: list
  elements: str
  sample:
    - >-
      Blob sha256-dde5aa3fc5ff (2.0GB) of llama3.2:3b is missing. The engine lists the model as if
      it were whole.
verdicts:
  description:
    - The store judged. Each entry has check, status, subject, value, limit, unit and evidence. The
      checks are C(store_manifests) and C(store_blobs), which fail, and C(store_orphans),
      C(store_partials), C(store_foreign), C(store_names), C(store_leftovers), C(store_access) and,
      when blobs were to be read, C(store_verified), which warn.
  returned: success
  type: list
  elements: dict
models:
  description: Each model that has a readable manifest.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name, as C(ollama list) shows it.
      type: str
    digest:
      description: Its digest.
      type: str
    manifest:
      description: Path of its manifest, relative to the store.
      type: str
    size_bytes:
      description: The sum of the sizes in its manifest, which is what C(ollama list) shows.
      type: int
    held_bytes:
      description: What its blobs occupy on disk.
      type: int
    own_bytes:
      description: The part of it that no other model refers to, and that comes free when it goes.
      type: int
    shared_bytes:
      description: The other part.
      type: int
    blobs:
      description: Number of its blobs.
      type: int
    whole:
      description: Whether all are there with the right size, and none is known to be corrupt.
      type: bool
    verified:
      description: Whether all were read in full and found good since they last changed.
      type: bool
    verified_at:
      description: When the first of them was, in UTC. Empty unless all were.
      type: str
    defects:
      description:
        - The blobs that keep it from being whole, each with digest, media_type, state (V(missing),
          V(wrong size) or V(corrupt)) and detail.
      type: list
      elements: dict
    layers:
      description: The digests of all its blobs, with O(details=full).
      type: list
      elements: str
blobs:
  description:
    - The files in C(blobs) that are complete by their names. With O(details=summary) only those
      that are orphans, have a wrong size, or are corrupt.
  returned: success
  type: list
  elements: dict
  contains:
    digest:
      description: The digest in its name.
      type: str
    path:
      description: Its path, relative to the store.
      type: str
    size_bytes:
      description: Its length.
      type: int
    held_bytes:
      description: What it occupies on disk.
      type: int
    state:
      description: V(present), V(wrong size) or V(corrupt).
      type: str
    detail:
      description: What is wrong with it.
      type: str
    verified_at:
      description: When it was last read and found good, in UTC; empty when it never was.
      type: str
    orphan:
      description: Whether no readable manifest refers to it.
      type: bool
    in_use:
      description: Whether an orphan is open or so young that a download may be about to use it.
      type: bool
    models:
      description:
        - The models that refer to it. With O(details=summary) 20 at most, here and elsewhere, and
          C(more_models) says how many there are besides.
      type: list
      elements: str
missing:
  description:
    - The blobs that models refer to and that aren't there, each with digest, size_bytes,
      media_type, resumable_bytes (of an unfinished download or copy) and models.
  returned: success
  type: list
  elements: dict
shared:
  description:
    - The blobs that several models refer to, the largest first, each with digest, size_bytes and
      models.
  returned: success
  type: list
  elements: dict
partials:
  description: The engine's unfinished downloads, one entry for each blob.
  returned: success
  type: list
  elements: dict
  contains:
    digest:
      description: The digest of the blob.
      type: str
    files:
      description: Its files, relative to the store.
      type: list
      elements: str
    size_bytes:
      description: The length that it will have; 0 when that isn't known.
      type: int
    completed_bytes:
      description: What is downloaded, as its records say.
      type: int
    percent:
      description: The same in percent; null when the length isn't known.
      type: float
    held_bytes:
      description: What its files occupy on disk.
      type: int
    age_s:
      description: Seconds since the last change.
      type: int
    damaged:
      description: Whether a record can't be read, so that each pull fails with C(EOF).
      type: bool
    open:
      description: Whether a process has it open; null when not all processes can be seen.
      type: bool
    going_on:
      description: Whether it is open, or changed less than O(partial_min_age_s) ago.
      type: bool
    models:
      description: The models that refer to the blob.
      type: list
      elements: str
unreadable_manifests:
  description: Manifests that can't be used, each with path and reason.
  returned: success
  type: list
  elements: dict
twins:
  description:
    - Manifests that differ from one in RV(models) in upper and lower case only, each with name and
      path.
  returned: success
  type: list
  elements: dict
stray:
  description: Paths below C(manifests) that are no manifests.
  returned: success
  type: list
  elements: str
foreign:
  description:
    - Files in C(blobs) that are no blobs. Each has path, digest, size_bytes, held_bytes and age_s,
      as the entries of the next three lists do.
  returned: success
  type: list
  elements: dict
old_names:
  description: Blobs named with a colon, as old servers did.
  returned: success
  type: list
  elements: dict
aside:
  description: Blobs that a repair has set aside and that were neither restored nor discarded.
  returned: success
  type: list
  elements: dict
incoming:
  description: Unfinished copies from peers and archives.
  returned: success
  type: list
  elements: dict
links:
  description:
    - Symbolic links in the store, each with path, target, dangling, and odd (it dangles, or stands
      in place of a file).
  returned: success
  type: list
  elements: dict
access:
  description:
    - Files and directories with a wrong owner, group or mode, each with path, owner, group, mode
      and problem.
  returned: success
  type: list
  elements: dict
expected_access:
  description: The owner, group, file_mode and dir_mode that they were compared with.
  returned: success
  type: dict
omitted:
  description: How many rows were left out with O(details=summary), by the name of the list.
  returned: success
  type: dict
totals:
  description: Counts and sums.
  returned: success
  type: dict
  contains:
    models:
      description: Models with a readable manifest.
      type: int
    whole_models:
      description: Those of them that are whole.
      type: int
    declared_bytes:
      description: The sum of the models' sizes; shared blobs count for each.
      type: int
    blobs:
      description: Complete blobs.
      type: int
    blob_bytes:
      description: The sum of their lengths.
      type: int
    held_bytes:
      description: What they occupy on disk.
      type: int
    verified_blobs:
      description: Those that were read in full and found good since they last changed.
      type: int
    missing_blobs:
      description: Blobs that aren't there.
      type: int
    missing_bytes:
      description: Their sizes.
      type: int
    bad_blobs:
      description: Blobs with a wrong size or content.
      type: int
    bad_bytes:
      description: What they occupy on disk.
      type: int
    orphans:
      description: Blobs that no readable manifest refers to.
      type: int
    orphan_bytes:
      description: What they occupy on disk.
      type: int
    partial_files:
      description: Files of unfinished downloads.
      type: int
    partial_bytes:
      description: What they occupy on disk.
      type: int
verification:
  description: How the blobs were verified; all but mode and ledger only when they were to be read.
  returned: success
  type: dict
  contains:
    mode:
      description: The option O(verify).
      type: str
    ledger:
      description: The file that remembers.
      type: str
    read:
      description: Blobs that were read.
      type: int
    remembered:
      description: Blobs that were not, because they are remembered.
      type: int
    bytes_read:
      description: What was read.
      type: int
    seconds:
      description: How long that took.
      type: float
    corrupt:
      description: Digests of the blobs whose content has another digest.
      type: list
      elements: str
    unreadable:
      description: Digests of the blobs that can't be read.
      type: list
      elements: str
    idle:
      description: Whether they were read at the idle class.
      type: bool
sees_all_processes:
  description: Whether every process could be asked for its open files, where that mattered.
  returned: success
  type: bool
"""

import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._progress import ProgressWriter
from ansible_collections.hx_infra.llm.plugins.module_utils._store_look import inspect
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import failure_message

ARGUMENT_SPEC: dict[str, Any] = {
    "store": {"type": "path", "required": True},
    "verify": {"type": "str", "choices": ["none", "changed", "full"], "default": "none"},
    "models": {"type": "list", "elements": "str", "default": []},
    "idle_io": {"type": "bool", "default": False},
    "workers": {"type": "int"},
    "deadline_s": {"type": "int", "default": 14400},
    "state_dir": {"type": "path", "default": "/var/lib/hx-llm"},
    "partial_min_age_s": {"type": "int", "default": 3600},
    "owner": {"type": "str", "default": ""},
    "group": {"type": "str", "default": ""},
    "file_mode": {"type": "str", "default": ""},
    "dir_mode": {"type": "str", "default": ""},
    "details": {"type": "str", "choices": ["summary", "full"], "default": "summary"},
    "fail_on": {"type": "str", "choices": ["never", "WARN", "FAIL"], "default": "never"},
    "progress_file": {"type": "path"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    host = platform.node()
    result: dict[str, Any] = {"changed": False, "store": params["store"]}
    if params["workers"] is not None and params["workers"] < 1:
        module.fail_json(msg=f"workers is {params['workers']}, wanted 1 or more.", **result)
    writer = ProgressWriter(params["progress_file"])

    def tell(name: str, done: int, total: int) -> None:
        note = name.rpartition("/")[2][:19]  # the digits that people compare
        writer.update(params["store"], "verifying", done, total or None, unit="B", note=note)

    try:
        warnings = inspect(params, write=not module.check_mode, progress=tell, result=result)
    except HostError as error:
        module.fail_json(msg=f"{host}: {error}", **result)
    for text in warnings:
        module.warn(f"{host}: {text}")
    message = failure_message(result["verdicts"], params["fail_on"], host)
    if message:
        module.fail_json(msg=message, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
