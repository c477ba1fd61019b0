#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Configure the NVIDIA container toolkit for Podman or Docker."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_toolkit
short_description: Configure the NVIDIA container toolkit for Podman or Docker
version_added: 0.2.0
description:
  - Brings a host to where its container engine can hand out the host's GPUs. The toolkit has to be
    installed.
  - With V(mode=cdi), compares the CDI specification that engines use with the GPUs and the driver
    that the host has, and writes it anew when it names other GPUs, another driver or files that
    are gone. The new one is read and judged before it takes the place of the old one.
  - With V(mode=runtime), adds the runtime C(nvidia) to Docker's C(daemon.json) and reloads Docker,
    which stops no container. What else stands in the file stays as it is.
  - Docker reads the CDI feature only when it starts. A restart that would stop running containers
    is refused with their names, unless O(allow_stop) is set or Docker's live-restore is on.
  - Makes missing links in C(/dev/char), without which a daemon-reload of systemd takes the GPUs
    from running containers.
  - A host without a working GPU is refused; a container that starts there computes on the CPU.
options:
  engine:
    description: The container engine.
    type: str
    choices: [podman, docker]
    required: true
  mode:
    description:
      - How GPUs are handed to containers. V(auto) is V(cdi) for Podman and V(runtime) for Docker.
    type: str
    choices: [auto, cdi, runtime]
    default: auto
  spec_path:
    description: Where a CDI specification is written when there is none yet.
    type: path
    default: /etc/cdi/nvidia.yaml
  spec_dirs:
    description: Directories of CDI specifications, the one that outranks the others first.
    type: list
    elements: path
    default: [/var/run/cdi, /etc/cdi]
  daemon_json:
    description: Docker's configuration.
    type: path
    default: /etc/docker/daemon.json
  docker_unit:
    description: Docker's unit.
    type: str
    default: docker.service
  allow_stop:
    description: Whether a restart of Docker may stop containers that run.
    type: bool
    default: false
  program:
    description: Path of C(nvidia-ctk); looked for in /usr/bin and /usr/local/bin when not given.
    type: path
  keep_dir:
    description: Directory for copies of the files that are replaced.
    type: path
    default: /var/lib/hx-llm/container
  host:
    description: Name of the host in messages. The host's own name when not given.
    type: str
author:
  - hx_infra.llm contributors (@hx-infra)
extends_documentation_fragment:
  - hx_infra.llm.attributes
  - hx_infra.llm.gpu_reader
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: hx_infra.llm.container_gpu_check
"""

EXAMPLES = r"""
- name: Let Podman hand out the GPUs
  hx_infra.llm.container_toolkit:
    engine: podman

- name: Let Docker hand out the GPUs by its runtime
  hx_infra.llm.container_toolkit:
    engine: docker
    mode: runtime
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
        V(link_devices), V(write_spec), V(write_daemon_json), V(reload) or V(restart).
      type: str
    target:
      description: The file or unit that the step is about.
      type: str
mode:
  description: How GPUs are handed to containers, V(cdi) or V(runtime).
  returned: always
  type: str
toolkit_version:
  description: Version of the toolkit; empty when it is not installed yet, in check mode only.
  returned: always
  type: str
  sample: 1.18.0
gpus:
  description: UUIDs of the host's GPUs.
  returned: always
  type: list
  elements: str
spec:
  description: The CDI specification that engines use; empty when there is none or it isn't used.
  returned: always
  type: str
  sample: /etc/cdi/nvidia.yaml
kept:
  description: Copies of the files that were replaced.
  returned: always
  type: list
  elements: str
verdicts:
  description: What was read back after the last step; empty in check mode.
  returned: always
  type: list
  elements: dict
"""

import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._container_engine import Engine
from ansible_collections.hx_infra.llm.plugins.module_utils._container_host import (
    SPEC_DIRS,
    host_gpus,
    toolkit,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._container_plan import (
    Found,
    Wanted,
    plan_toolkit,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._container_toolkit import (
    ToolkitRun,
    observe,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_facts import (
    READER_SPEC,
    read_gpus,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_process import run_killable
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    Verdict,
    as_dicts,
    judge,
)

ARGUMENTS: dict[str, dict[str, Any]] = {
    **READER_SPEC,
    "engine": {"type": "str", "choices": ["podman", "docker"], "required": True},
    "mode": {"type": "str", "choices": ["auto", "cdi", "runtime"], "default": "auto"},
    "spec_path": {"type": "path", "default": "/etc/cdi/nvidia.yaml"},
    "spec_dirs": {"type": "list", "elements": "path", "default": list(SPEC_DIRS)},
    "daemon_json": {"type": "path", "default": "/etc/docker/daemon.json"},
    "docker_unit": {"type": "str", "default": "docker.service"},
    "allow_stop": {"type": "bool", "default": False},
    "program": {"type": "path"},
    "keep_dir": {"type": "path", "default": "/var/lib/hx-llm/container"},
    "host": {"type": "str"},
}


def run(params: dict[str, Any], check_mode: bool, smi: str | None) -> dict[str, Any]:
    """Plan and, outside of check mode, carry the plan out and read the outcome back.

    Raises:
        HostError: the host cannot be brought there.
    """
    host = params["host"] or platform.node()
    mode = params["mode"]
    if mode == "auto":
        mode = "cdi" if params["engine"] == "podman" else "runtime"
    if mode == "runtime" and params["engine"] == "podman":
        raise HostError(f"{host}: mode is runtime, wanted: cdi. Podman hands out GPUs by CDI only.")
    timeout = params["timeout_s"]
    facts = read_gpus(params["source"], params["python"], smi, timeout, run_killable)
    gpus = host_gpus(facts, host)
    program, version = toolkit(run_killable, timeout, params["program"] or "")
    if not version and not check_mode:
        raise HostError(
            f"{host}: nvidia-ctk {'tells no version' if program else 'is not installed'}, wanted: "
            "the NVIDIA container toolkit.",
            "Declare the repository that has it (container_runtime_toolkit_repository), or install "
            "the package nvidia-container-toolkit.",
        )
    wanted = Wanted(
        host=host,
        engine=params["engine"],
        mode=mode,
        spec_path=params["spec_path"],
        daemon_json=params["daemon_json"],
        unit=params["docker_unit"],
        allow_stop=params["allow_stop"],
    )
    engine = Engine(params["engine"], host, run_killable, timeout)
    found = observe(wanted, engine, gpus, params["spec_dirs"])
    steps = plan_toolkit(wanted, found)
    difference = _diff(wanted, found)
    kept: list[str] = []
    verdicts: list[Verdict] = []
    if not check_mode:
        work = ToolkitRun(wanted, found, engine, program, params["keep_dir"])
        work.apply(steps)
        kept = work.kept
        found = observe(wanted, engine, gpus, params["spec_dirs"])
        verdicts = read_back(wanted, found, version)
        wrong = [verdict for verdict in verdicts if verdict.status == "FAIL"]
        if wrong:
            raise HostError(
                f"{host}: {wrong[0].check} is {wrong[0].value}, wanted {wrong[0].limit}, after "
                f"{len(steps)} steps.",
                "See journalctl -u docker for what the engine said.",
            )
    return {
        "changed": bool(steps),
        "actions": [step.sentence for step in steps],
        "plan": [step.as_dict() for step in steps],
        "mode": mode,
        "toolkit_version": version,
        "gpus": list(gpus.uuids),
        "spec": found.spec.path if found.spec else "",
        "kept": kept,
        "verdicts": as_dicts(verdicts),
        "diff": difference,
    }


def read_back(wanted: Wanted, found: Found, version: str) -> list[Verdict]:
    """Judge what stands on the host after the last step."""
    verdicts = [judge("container_toolkit", bool(version), value=version, limit="installed")]
    links = list(found.links_missing)
    verdicts.append(
        judge(
            "container_device_links",
            not links,
            value=links,
            limit=[],
            evidence="GPU device nodes without a link in /dev/char",
        )
    )
    if wanted.mode == "cdi":
        verdicts.append(
            judge(
                "container_cdi_spec",
                not found.stale,
                subject=found.spec.path if found.spec else "",
                value="; ".join(found.stale) or "fits the host",
                limit="fits the host",
                evidence=f"{len(found.gpus.uuids)} GPUs, driver {found.gpus.driver}",
            )
        )
    if wanted.engine == "docker":
        known = found.knows_cdi if wanted.mode == "cdi" else found.knows_runtime
        verdicts.append(
            judge(
                "container_engine_gpus",
                known,
                subject=wanted.unit,
                value="known" if known else "not known",
                limit="known",
                evidence=f"docker info, {wanted.mode}",
            )
        )
    return verdicts


def _diff(wanted: Wanted, found: Found) -> dict[str, str]:
    before, after = [], []
    if found.stale:
        path = found.spec.path if found.spec else wanted.spec_path
        before += [f"{path}: {reason}\n" for reason in found.stale]
        after.append(f"{path}: names {', '.join(found.gpus.uuids)}, driver {found.gpus.driver}\n")
    for added in found.daemon.added if found.daemon else ():
        after.append(f"{wanted.daemon_json}: {added}\n")
    for path in found.links_missing:
        after.append(f"/dev/char: link to {path}\n")
    return {"before": "".join(before), "after": "".join(after)}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = run(module.params, module.check_mode, module.get_bin_path("nvidia-smi"))
    except HostError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        host = module.params["host"] or platform.node()
        module.fail_json(
            msg=f"{host}: configuring the container toolkit failed: {error}. Correct the cause and "
            "run again, the next run goes on from here."
        )
    if not module._diff:
        del result["diff"]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
