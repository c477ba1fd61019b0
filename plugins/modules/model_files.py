#!/usr/bin/python

# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model_files
short_description: Has the files of one model in a directory, exactly as declared and verified
version_added: 0.2.0
description:
  - Compares the files in a directory with a declared source (a model hub, a directory, an archive),
    makes one plan, carries it out, and reads the directory back.
  - Files that are there as declared are adopted and nothing is downloaded. A file that is missing
    or corrupt is downloaded again, alone.
  - The directory never holds half a model. New files are collected beside it, each is verified
    before it gets its name, those that stay are hard-linked, and then both directories change
    places in one step. A server that has the old files open keeps them.
  - Everything that can be known before the first byte is checked before the first byte, which
    covers disk space, access, and checksums that the hub itself states.
  - A run that was cut off at any point is completed by the next one, which doesn't download again
    what is there already.
options:
  name:
    description:
      - The model's name, for messages, progress and the note in O(dest). It decides nothing, so
        several names may stand for one directory with one O(source).
    type: str
    required: true
  dest:
    description:
      - The directory that the model is served from. Its parent gets the hidden directory in which
        new files are collected.
      - Without it the files in O(source.path) are verified where they are.
    type: path
  source:
    description:
      - Where the files come from, exactly one of V(hub), V(path) and V(archive). Required unless
        O(state=absent).
    type: dict
    suboptions:
      hub:
        description: The model's id on a hub that speaks Hugging Face's protocol, V(org/name).
        type: str
        default: ""
      revision:
        description:
          - The commit, 40 hexadecimal digits. The name of a branch or tag is refused unless
            O(allow_unpinned).
        type: str
        default: ""
      endpoint:
        description: Base URL of the hub, or of a mirror of it.
        type: str
        default: https://huggingface.co
      insecure:
        description: Whether O(source.endpoint) or O(source.archive) may speak plain HTTP.
        type: bool
        default: false
      include:
        description:
          - Patterns of the paths that are wanted, in which V(*) matches V(/) too. By default
            safetensors, JSON, files of tokenizers and chat templates. Not used when O(source.files)
            is given, nor for archives and directories.
        type: list
        elements: str
        default: []
      exclude:
        description: Patterns of paths that are not wanted though they match O(source.include).
        type: list
        elements: str
        default: []
      files:
        description:
          - The files that are wanted and their SHA-256, which pins the model whatever the hub says.
            Nothing else is taken from the source.
          - Without it, a hub's own statement at the pinned commit counts (the SHA-256 of large
            files, git's own checksum of small ones), and an archive's O(source.sha256).
        type: dict
        default: {}
      path:
        description: A directory on the host that holds the files.
        type: path
      manifest:
        description:
          - For O(source.path), a file with checksums instead of O(source.files), either written by
            C(sha256sum) or by this module.
        type: path
      archive:
        description:
          - Path on the host, or URL, of an archive (tar, tar.gz, tar.bz2, tar.xz, tar.zst, zip). A
            single folder around everything is left out. For tar.zst the program C(zstd) has to be
            on the host.
        type: str
        default: ""
      sha256:
        description: The archive's SHA-256. Required for an archive.
        type: str
        default: ""
  token_file:
    description:
      - A file with the token for the hub, readable by its owner alone. The token goes to the hub's
        own host and port only, never along with a redirect, and never into a result or a log.
    type: path
  owner:
    description: The account that the files belong to. Without it they belong to who made them.
    type: str
  group:
    description: The group that the files belong to.
    type: str
  mode:
    description:
      - Octal mode of the files, in quotes. Directories get the right to enter wherever files are
        readable. Without it new files are C(0644) and others stay as they are.
    type: str
    default: ""
  reserve_bytes:
    description: Disk space that must stay free.
    type: int
    default: 0
  verify:
    description:
      - With V(quick), a file whose size, time of change and inode are still those that were noted
        after it was verified is taken as verified.
      - With V(full), every file is read.
    type: str
    choices: [quick, full]
    default: quick
  update:
    description:
      - With O(allow_unpinned), whether a branch that has moved on the hub, or a directory that has
        changed, is followed.
    type: bool
    default: false
  exclusive:
    description:
      - Whether files in O(dest) that are neither declared nor came from an earlier source are
        removed. Otherwise they are kept and reported.
    type: bool
    default: false
  allow_unpinned:
    description:
      - Whether O(source.revision) may be a branch, and O(source.path) may come without checksums,
        in which case what is found at first counts from then on.
    type: bool
    default: false
  allow_pickle:
    description:
      - Whether weights in Python's pickle format are taken (C(.bin), C(.pt), C(.pth), C(.pkl),
        C(.ckpt), C(.pickle)). Reading one can run any code.
    type: bool
    default: false
  allow_code:
    description: Whether programs (C(.py), C(.so), C(.sh)) are taken. A server may run them.
    type: bool
    default: false
  prune_partials:
    description: Whether what unfinished runs left and nobody needs is removed.
    type: bool
    default: true
  stall_timeout_s:
    description: Seconds without a byte after which a download is asked for again from there.
    type: int
    default: 30
  deadline_s:
    description: Seconds after which the download stops. The next run goes on from there.
    type: int
    default: 7200
  state:
    description:
      - Whether the model is there. V(absent) removes O(dest), provided that this module put it
        there or it holds a C(config.json).
    type: str
    choices: [present, absent]
    default: present
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
    details: The hub is asked, nothing is downloaded.
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - What was verified is noted in C(.hx-model.json) in O(dest).
  - Proxies of the environment are honoured (C(https_proxy), C(no_proxy)).
  - Has to run as root, or as an account that may write in the parent of O(dest).
"""

EXAMPLES = r"""
- name: Have a model of a hub at one commit
  hx_infra.llm.model_files:
    name: qwen3-8b-awq
    dest: /opt/citadel/models/qwen3-8b-awq
    source:
      hub: Qwen/Qwen3-8B-AWQ
      revision: 0123456789abcdef0123456789abcdef01234567
    reserve_bytes: 50000000000
    mode: "0644"

- name: Have a gated model with every checksum declared
  hx_infra.llm.model_files:
    name: llama
    dest: /opt/citadel/models/llama
    token_file: /etc/hx-llm/hub-token
    source:
      hub: meta-llama/Llama-3.2-3B-Instruct
      revision: 0123456789abcdef0123456789abcdef01234567
      files:
        config.json: a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1
        model.safetensors: b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2

- name: Verify every byte of a directory that somebody copied there
  hx_infra.llm.model_files:
    name: mixtral
    source: {path: /srv/models/mixtral, manifest: /srv/models/mixtral.sha256}
    verify: full

- name: Have a model from an archive
  hx_infra.llm.model_files:
    name: tiny
    dest: /opt/citadel/models/tiny
    source:
      archive: https://files.example.com/tiny.tar.gz
      sha256: c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in sentences.
  returned: always
  type: list
  elements: str
  sample: ["Pull qwen3-8b-awq (6.1GB) from Qwen/Qwen3-8B-AWQ: it is not there"]
plan:
  description: The same steps as data, and V(adopt) where the files stay as they are.
  returned: always
  type: list
  elements: dict
  contains:
    action:
      description:
        - V(adopt), V(record) (note the checksums of files that are there), V(pull), V(repull),
          V(remove), V(set_access) or V(prune_partial).
      type: str
    target:
      description: The model, or a path.
      type: str
    reason:
      description: Why.
      type: str
    bytes:
      description: What the step downloads, or frees on disk.
      type: int
    files:
      description: Number of files.
      type: int
totals:
  description: What the plan takes and gives.
  returned: always
  type: dict
  contains:
    bytes_to_download:
      description: What is downloaded, copied or unpacked, without what is there already.
      type: int
    bytes_to_free:
      description: What the plan frees on disk.
      type: int
    space_needed:
      description: The disk space needed at the worst moment, compared with the start.
      type: int
model:
  description: The model after the run; in check mode as it would be.
  returned: always
  type: dict
  contains:
    name:
      description: The option O(name).
      type: str
    dest:
      description: The directory to serve from.
      type: str
    revision:
      description: The commit, when the source is a hub.
      type: str
    pinned:
      description:
        - V(files) when every checksum is declared, V(source) when the commit or the archive is, and
          V(no) otherwise.
      type: str
    size_bytes:
      description: Sum of the sizes, as far as they are known.
      type: int
    files:
      description: Each file with path, size_bytes and sha256, as far as they are known.
      type: list
      elements: dict
undeclared:
  description: Paths in O(dest) that are kept though nobody declared them.
  returned: always
  type: list
  elements: str
downloaded_bytes:
  description: What was downloaded; in check mode what would be downloaded.
  returned: always
  type: int
resumed_bytes:
  description: What earlier runs had downloaded and this one didn't have to.
  returned: always
  type: int
reclaimed_bytes:
  description: Disk space given back; in check mode what would be given back.
  returned: always
  type: int
verdicts:
  description:
    - The files judged (model_whole, model_pin, model_undeclared). Each entry has check, status,
      subject, value, limit, unit and evidence.
  returned: always
  type: list
  elements: dict
"""

import platform
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._hub_http import hub_http
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_run import Io, reconcile
from ansible_collections.hx_infra.llm.plugins.module_utils._progress import ProgressWriter

SOURCE_SPEC: dict[str, Any] = {
    "hub": {"type": "str", "default": ""},
    "revision": {"type": "str", "default": ""},
    "endpoint": {"type": "str", "default": "https://huggingface.co"},
    "insecure": {"type": "bool", "default": False},
    "include": {"type": "list", "elements": "str", "default": []},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "files": {"type": "dict", "default": {}},
    "path": {"type": "path"},
    "manifest": {"type": "path"},
    "archive": {"type": "str", "default": ""},
    "sha256": {"type": "str", "default": ""},
}
ARGUMENT_SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "dest": {"type": "path"},
    "source": {"type": "dict", "options": SOURCE_SPEC},
    "token_file": {"type": "path", "no_log": False},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "mode": {"type": "str", "default": ""},
    "reserve_bytes": {"type": "int", "default": 0},
    "verify": {"type": "str", "choices": ["quick", "full"], "default": "quick"},
    "update": {"type": "bool", "default": False},
    "exclusive": {"type": "bool", "default": False},
    "allow_unpinned": {"type": "bool", "default": False},
    "allow_pickle": {"type": "bool", "default": False},
    "allow_code": {"type": "bool", "default": False},
    "prune_partials": {"type": "bool", "default": True},
    "stall_timeout_s": {"type": "int", "default": 30},
    "deadline_s": {"type": "int", "default": 7200},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "progress_file": {"type": "path"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    io = Io(
        http=hub_http(),
        progress=ProgressWriter(params["progress_file"]),
        deadline=time.monotonic() + params["deadline_s"],
    )
    result: dict[str, Any] = {"changed": False, "actions": [], "plan": []}
    message = ""
    try:
        reconcile(params, io, module.check_mode, result)
    except HostError as error:
        message = str(error)
    if not module._diff:
        result.pop("diff", None)
    if message:
        module.fail_json(msg=f"{platform.node()}: {params['name']}: {message}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
