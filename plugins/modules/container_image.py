#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Have a pinned container image on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_image
short_description: Have a pinned container image on a host
version_added: 0.2.0
description:
  - Pulls an image by its digest, or loads one from an archive whose checksum is declared.
  - A tag alone is refused, for it names another image tomorrow.
  - Which archive became which image is remembered in O(state_file). An archive is loaded again when
    its image is gone, and needn't be kept on the host otherwise.
options:
  engine:
    description: The container engine.
    type: str
    choices: [podman, docker]
    required: true
  reference:
    description: Name with digest, V(registry/name@sha256:...). Excludes O(archive).
    type: str
    default: ""
  archive:
    description: Path of an archive on the host, for sites that reach no registry.
    type: str
    default: ""
  sha256:
    description: Checksum of O(archive).
    type: str
    default: ""
  form:
    description:
      - What the archive holds. V(image) is what C(podman save) or C(docker save) wrote, with one
        image. V(rootfs) is a tar file of a root directory.
    type: str
    choices: [image, rootfs]
    default: image
  authfile:
    description: File on the host with the registry's credentials, in the form of both engines.
    type: path
  pull_timeout_s:
    description: Seconds that fetching or loading may take.
    type: float
    default: 3600.0
  state_file:
    description: Where it is remembered which archive became which image.
    type: path
    default: /var/lib/hx-llm/container/images.json
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
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Pull vLLM's image by digest
  hx_infra.llm.container_image:
    engine: podman
    reference: docker.io/vllm/vllm-openai@sha256:{{ vllm_image_digest }}

- name: Load it from an archive where no registry can be reached
  hx_infra.llm.container_image:
    engine: docker
    archive: /srv/images/vllm-openai.tar
    sha256: "{{ vllm_archive_sha256 }}"
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
      description: V(pull) or V(load).
      type: str
    target:
      description: The reference or the archive.
      type: str
image_id:
  description: The image's id; empty in check mode when it is not on the host yet.
  returned: always
  type: str
image:
  description:
    - What to name in a unit. The reference, or the id of what was loaded. In check mode, of an
      archive that is not loaded yet, the archive's checksum.
  returned: always
  type: str
"""

import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._container_engine import Engine
from ansible_collections.hx_infra.llm.plugins.module_utils._container_image import (
    Source,
    check_source,
    load,
    pull,
    remember,
    remembered,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import run_killable

ARGUMENTS: dict[str, dict[str, Any]] = {
    "engine": {"type": "str", "choices": ["podman", "docker"], "required": True},
    "reference": {"type": "str", "default": ""},
    "archive": {"type": "str", "default": ""},
    "sha256": {"type": "str", "default": ""},
    "form": {"type": "str", "choices": ["image", "rootfs"], "default": "image"},
    "authfile": {"type": "path"},
    "pull_timeout_s": {"type": "float", "default": 3600.0},
    "state_file": {"type": "path", "default": "/var/lib/hx-llm/container/images.json"},
    "host": {"type": "str"},
}


def run(
    params: dict[str, Any], check_mode: bool, engine: Engine, installed: bool
) -> dict[str, Any]:
    """Find the image or fetch it.

    Args:
        params: the module's parameters.
        check_mode: whether nothing is fetched.
        engine: the container engine.
        installed: whether the engine is there; in a dry run it may not be yet.

    Raises:
        HostError: the declaration is refused, or the image cannot be had.
    """
    source = Source(
        engine.host, params["reference"], params["archive"], params["sha256"], params["form"]
    )
    check_source(source)
    identity = ""
    if installed and source.reference:
        identity = engine.image_id(source.reference)
    elif installed:
        identity = remembered(params["state_file"], engine, source)
    target = source.reference or source.archive
    verb = "pull" if source.reference else "load"
    missing = not identity
    if missing and not check_mode:
        if source.reference:
            identity = pull(engine, source, params["pull_timeout_s"], params["authfile"] or "")
        else:
            identity = load(engine, source, params["pull_timeout_s"])
            remember(params["state_file"], engine, source, identity)
    return {
        "changed": missing,
        "actions": [f"{verb.capitalize()} the image {target}"] if missing else [],
        "plan": [{"action": verb, "target": target}] if missing else [],
        "image_id": identity,
        "image": source.reference or identity or f"sha256:{source.sha256}",
    }


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    host = params["host"] or platform.node()
    engine = Engine(params["engine"], host, run_killable)
    installed = module.get_bin_path(params["engine"]) is not None
    if not installed and not module.check_mode:
        module.fail_json(
            msg=f"{host}: {params['engine']} is not installed, wanted: the declared engine. Run "
            "the container_runtime role first."
        )
    try:
        result = run(params, module.check_mode, engine, installed)
    except (HostError, OSError) as error:
        module.fail_json(msg=f"{host}: {error}" if isinstance(error, OSError) else str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
