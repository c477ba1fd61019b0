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
    missing, whose pin isn't met, whose manifest can't be used, or one of whose blobs is missing,
    of wrong length or of wrong content, is brought from the first of O(sources) that can give it.
  - The content of blobs is compared with their digests. What was read and found good is remembered
    in O(state_dir), so that only new and changed files are read again.
  - Bad blobs are repaired while the engine serves. They are set aside in C(.hx/aside) of the store
    right before a source is tried, removed when good ones are in place and were read, and put back
    when no source can give good ones.
  - Forbidden models go. Undeclared ones are kept and reported in RV(undeclared), unless
    O(exclusive). So are versions that M(hx_infra.llm.model_version) keeps of declared models.
  - Files of unfinished downloads go, except of a download that is going on, or one that a pull of
    this plan resumes.
  - Everything that can be known before the first byte is checked before the first byte, which
    covers disk space, the sources, and the pins.
  - A model that fails, or that no source can give, doesn't stop the others; RV(outcomes) says how
    each of them went. A run that was cut off at any point is completed by the next one.
  - One run at a time works on a store. Another one refuses at once and names the first.
options:
  models:
    description: The declared models, in the order in which they are pulled.
    default: []
  forbidden:
    description: Names of models that must not be there.
    type: list
    elements: str
    default: []
  exclusive:
    description: Whether undeclared models are removed.
    type: bool
    default: false
  sources:
    description:
      - Where models come from, tried in this order. Without any it is V(registry) alone.
      - A pin decides which version it has to be. Without one the registry does; only when no
        registry is among the sources, or none can be reached, the first source that has the model.
    type: list
    elements: dict
    default: []
    version_added: 0.5.0
    suboptions:
      type:
        description:
          - V(registry) lets the engine pull, from the model's own O(models[].source), or from
            O(registry), or from Ollama's.
          - V(peer) copies from another host that serves its store with
            M(hx_infra.llm.model_store_serve).
          - V(archive) reads what M(hx_infra.llm.model_archive) has written.
        type: str
        choices: [registry, peer, archive]
        required: true
      name:
        description: What messages call the source.
        type: str
        default: ""
      url:
        description: Address of a peer, or of an archive, with V(http://) or V(https://).
        type: str
        default: ""
      path:
        description: Path of an archive on this host.
        type: path
      checksum:
        description: Checksum of an archive as C(sha256:) and 64 digits. An archive has to have one.
        type: str
        default: ""
      token:
        description: What a peer wants to see before it gives anything.
        type: str
      ca_path:
        description: File with the certificates that are trusted for O(sources[].url).
        type: path
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
  reserve_bytes:
    description: Disk space that must stay free while models are pulled.
    type: int
    default: 0
  prune_partials:
    description: Whether files of unfinished downloads are removed.
    type: bool
    default: true
  partial_min_age_s:
    description:
      - A download, or a blob that no model refers to, that changed more recently than this is taken
        for one that is being worked on, and is kept. So is what a process has open.
    type: int
    default: 3600
  prune_orphans:
    description:
      - Whether blobs that no model refers to are removed once they are O(partial_min_age_s) old.
        Otherwise they are reported.
    type: bool
    default: false
  prove:
    description: Whether each new model must answer one short prompt.
    type: bool
    default: true
  verify:
    description:
      - Which blobs of declared models that are there are read and compared with their digests.
      - V(changed) reads those that are new or whose file has changed since they were read last.
        V(full) reads them all. V(none) reads none; what a download brings is read all the same.
    type: str
    choices: [none, changed, full]
    default: changed
    version_added: 0.5.0
  idle_io:
    description:
      - Whether blobs are read at the idle I/O class and the lowest CPU priority. Disks whose I/O
        scheduler is V(none) or V(kyber) heed only the latter.
    type: bool
    default: false
    version_added: 0.5.0
  parallel:
    description: How many models are brought at once. They are proven one after the other.
    type: int
    default: 1
    version_added: 0.5.0
  stall_s:
    description:
      - Seconds without a new byte after which a pull counts as failed, so that the next source is
        tried. The next run resumes it. That the engine says nothing while it verifies a download
        doesn't count.
      - Peers and archives are asked again when they give nothing for 30 seconds, and have failed
        after seven such attempts in a row.
    type: int
    default: 300
    version_added: 0.5.0
  state_dir:
    description: Directory that remembers which blobs were verified.
    type: path
    default: /var/lib/hx-llm
    version_added: 0.5.0
  deadline_s:
    description:
      - Seconds after which the run is stopped; reading blobs counts as downloads do. The next run
        goes on from what was read and what has come.
    type: int
    default: 7200
  progress_file:
    description: File that tells the controller how far the work is. The action plugin sets it.
    type: path
author:
  - hx_infra.llm contributors (@hx-infra)
extends_documentation_fragment:
  - hx_infra.llm.attributes
  - hx_infra.llm.declared_models
attributes:
  check_mode:
    support: full
    details:
      - The sources are asked and blobs are read. Nothing is written, not even in O(state_dir).
        Without an engine the disk alone is read.
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - Has to run as root, or as the account that owns the store.
  - On V(SIGTERM), V(SIGINT) and V(SIGHUP) it ends in order within a second or two. Blobs that it
    had set aside are back in their places then.
  - The progress names the model, percent, rate, and time left. After ten seconds without a new
    byte it says that the download is stalled.
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

- name: Copy from the other host, else pull, else read the archive that came on a disk
  hx_infra.llm.model_catalog:
    store: /mnt/active_llm_models
    models: [{name: "qwen3:1.7b", digest: 8f68893c685c}]
    sources:
      - {type: peer, name: llm-02, url: "http://llm-02:11500", token: "{{ peer_token }}"}
      - {type: registry}
      - type: archive
        path: /mnt/usb/models.tar
        checksum: sha256:5a408ab55df5c1b5cf46533c368813b30bf9e4d8fc39263bf2a3338cfa3b895b
    parallel: 2
    verify: full
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
      description:
        - V(adopt); V(pull), V(update), V(repull) or V(repair), which download a model; V(remove);
          V(prune_partial), V(prune_orphan); V(restore) or V(discard), for a blob that a repair had
          set aside; V(unavailable), for a model that no source can give and that stays as it is.
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
    sources:
      description: The sources that can give the model, in the order in which they are tried.
      type: list
      elements: str
totals:
  description: What the plan takes and gives.
  returned: when a plan could be made
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
  returned: when a plan could be made
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
      M(hx_infra.llm.ollama_env) takes. Without RV(kept_versions).
    - A run that is refused returns the models that are there. One that breaks off before it could
      look at the store again returns none.
  returned: when the models are known
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
env_before:
  description:
    - The same of the models before the run, which are those that are there when it is in check
      mode or refused.
  returned: when a plan could be made
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
  returned: when a plan could be made
  type: list
  elements: str
kept_versions:
  description: Names of the versions that are kept of declared models to go back to.
  returned: when a plan could be made
  type: list
  elements: str
unasked:
  description:
    - Names of models that are there as declared, but whose registry couldn't say whether their tag
      has moved.
  returned: when a plan could be made
  type: list
  elements: str
unavailable:
  description: Declared models that are not as declared and that no source can give.
  returned: when a plan could be made
  type: list
  elements: dict
  contains:
    name:
      description: The model.
      type: str
    reason:
      description: What is wrong with it, and why each source can't help.
      type: str
aside:
  description: Paths in the store of bad blobs that are set aside after the run.
  returned: when a plan could be made
  type: list
  elements: str
verified:
  description: The content of blobs as far as it was looked at.
  returned: when the store could be read
  type: dict
  contains:
    read:
      description: Number of blobs that were read.
      type: int
    remembered:
      description: Number of blobs that hadn't changed since they were read.
      type: int
    bytes:
      description: What was read.
      type: int
    seconds:
      description: How long that took.
      type: float
    corrupt:
      description: The bad blobs that were found, repaired or not, each with path and flaw.
      type: list
      elements: dict
outcomes:
  description: How each step went; empty in check mode.
  returned: when a plan could be made
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
    source:
      description: The source that gave the model.
      type: str
    attempts:
      description: Each source that was tried, with source, ok and detail.
      type: list
      elements: dict
    bytes:
      description: What was downloaded.
      type: int
    seconds:
      description: How long the step took.
      type: float
    refuted:
      description:
        - Whether a new model came and then didn't answer as it should. One that the deadline cut
          off, or that had no engine to answer for it, is not.
      type: bool
verdicts:
  description:
    - The catalog judged. Each entry has check, status, subject, value, limit, unit and evidence.
  returned: when a plan could be made
  type: list
  elements: dict
reclaimed_bytes:
  description: Disk space given back; in check mode what would be given back.
  returned: when a plan could be made
  type: int
reclaimed_apparent_bytes:
  description:
    - The lengths of the files that are gone. Those of unfinished downloads are longer than what
      they occupy.
  returned: when a plan could be made
  type: int
reclaimed_files:
  description: Number of files that are gone; in check mode that would go.
  returned: when a plan could be made
  type: int
downloaded_bytes:
  description: What was downloaded; in check mode what would be downloaded.
  returned: when a plan could be made
  type: int
"""

import platform
import signal
import time
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_plan import Moment
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_progress import CatalogProgress
from ansible_collections.hx_infra.llm.plugins.module_utils._catalog_run import (
    Io,
    free_bytes,
    reconcile,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._model_options import (
    MODEL_SPEC,
    REGISTRY_OPTIONS,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_api import OllamaApi
from ansible_collections.hx_infra.llm.plugins.module_utils._open_files import open_inodes
from ansible_collections.hx_infra.llm.plugins.module_utils._progress import ProgressWriter
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_stream import Watch
from ansible_collections.hx_infra.llm.plugins.module_utils._transport import ansible_http

SOURCE_SPEC: dict[str, Any] = {
    "type": {"type": "str", "required": True, "choices": ["registry", "peer", "archive"]},
    "name": {"type": "str", "default": ""},
    "url": {"type": "str", "default": ""},
    "path": {"type": "path"},
    "checksum": {"type": "str", "default": ""},
    "token": {"type": "str", "no_log": True},
    "ca_path": {"type": "path"},
}
ARGUMENT_SPEC: dict[str, Any] = {
    "models": {"type": "list", "elements": "dict", "default": [], "options": MODEL_SPEC},
    "forbidden": {"type": "list", "elements": "str", "default": []},
    "exclusive": {"type": "bool", "default": False},
    "sources": {"type": "list", "elements": "dict", "default": [], "options": SOURCE_SPEC},
    "store": {"type": "path", "required": True},
    "space_path": {"type": "path"},
    "url": {"type": "str", "default": "http://127.0.0.1:11434"},
    **REGISTRY_OPTIONS,
    "reserve_bytes": {"type": "int", "default": 0},
    "prune_partials": {"type": "bool", "default": True},
    "partial_min_age_s": {"type": "int", "default": 3600},
    "prune_orphans": {"type": "bool", "default": False},
    "prove": {"type": "bool", "default": True},
    "verify": {"type": "str", "choices": ["none", "changed", "full"], "default": "changed"},
    "idle_io": {"type": "bool", "default": False},
    "parallel": {"type": "int", "default": 1},
    "stall_s": {"type": "int", "default": 300},
    "state_dir": {"type": "path", "default": "/var/lib/hx-llm"},
    "deadline_s": {"type": "int", "default": 7200},
    "progress_file": {"type": "path"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    host = platform.node()
    params = module.params
    watch = Watch(
        stall_s=params["stall_s"],
        deadline=time.monotonic() + params["deadline_s"],
        stopped=_signals(),
    )
    io = Io(
        api=OllamaApi(params["url"], ansible_http(use_proxy=False), watch=watch),
        registry=ansible_http(),
        progress=CatalogProgress(ProgressWriter(params["progress_file"])),
        moment=lambda: Moment(time.time(), *open_inodes()),
        free_bytes=free_bytes,
        watch=watch,
        warn=module.warn,
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
        module.fail_json(msg=f"{host}: {message}", **result)
    module.exit_json(**result)


def _signals() -> Callable[[], str]:
    """Take the signals that ask a program to end; return what says which one has come."""
    seen: list[str] = []

    def note(number: int, _frame: Any) -> None:
        seen.append(signal.Signals(number).name)

    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    return lambda: seen[0] if seen else ""


if __name__ == "__main__":
    main()
