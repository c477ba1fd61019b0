#!/usr/bin/python
# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mount a bulk disk at its declared place and take over from a wrong one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bulk_mount
short_description: Mount a bulk disk at its declared place and take over from a wrong one
version_added: 0.1.0
description:
  - Mounts O(device) at O(path) through a systemd mount unit, by UUID where the system knows devices
    by UUID.
  - Takes over from a wrong mount. Contradicting units are retired, contradicting lines of fstab
    become comments, the disk is unmounted there, and the old mount point becomes a link. Every file
    that is replaced is kept in O(journal_dir).
  - No file on the disk is touched, except for a marker in its root that tells it from other disks.
  - Everything that speaks against it is found before anything is changed. This holds for a device
    that is missing, foreign or unformatted, a place that is occupied, and files that are in use.
  - A systemd mount unit is used and not fstab, because a line of fstab for a device is ignored
    in containers.
options:
  device:
    description: The block device, for example V(/dev/sda1) or V(/dev/disk/by-uuid/...).
    type: path
    required: true
  path:
    description: Where it belongs. A path without links.
    type: path
    required: true
  fstype:
    description: The file system that it holds, or gets when it may be formatted.
    type: str
    choices: [ext4, xfs]
    default: ext4
  options:
    description: Mount options.
    type: str
    default: defaults,noatime
  links:
    description: Paths that become links to O(path), old mount points for example.
    type: list
    elements: path
    default: []
  unit:
    description:
      - A unit that may have its files on the disk. It is stopped while the disk changes its place,
        and started again.
    type: str
    default: ""
  unit_paths:
    description:
      - Paths that O(unit) reads; the unit is stopped if one of them is on the disk.
      - The mount is refused while a model is downloaded into one of them, because older servers
        delete unfinished downloads when they start.
    type: list
    elements: path
    default: []
  allow_format:
    description: Whether a device without any content is formatted. One with content never is.
    type: bool
    default: false
  store_id:
    description:
      - The name in the marker file. A disk with another name is refused.
      - O(host) when not given.
    type: str
  unit_dir:
    description: Directory of the system's unit files.
    type: path
    default: /etc/systemd/system
  fstab:
    description: The table of file systems.
    type: path
    default: /etc/fstab
  journal_dir:
    description: Directory for the journal, the lock and the kept files.
    type: path
    default: /var/lib/hx-llm
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
- name: Mount the bulk disk, also where the node's tree had it
  hx_infra.llm.bulk_mount:
    device: /dev/sda1
    path: /data/llm_bulk_storage
    links:
      - /opt/hx-infrastructure/llm-01/data/llm_bulk_storage
    unit: ollama.service
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
        V(format), V(write_unit), V(comment_fstab), V(enable), V(stop), V(retire_unit), V(unmount),
        V(mount), V(link), V(own_root), V(mark) or V(start).
      type: str
    target:
      description: The file, unit, device or path that the step is about.
      type: str
    unit:
      description: The mount unit.
      type: str
    path:
      description: The retired unit's file.
      type: str
    value:
      description: Text of the link that is placed.
      type: str
verdicts:
  description: Where the disk is mounted, read back after the last step; empty in check mode.
  returned: always
  type: list
  elements: dict
uuid:
  description: UUID of the file system. Empty in check mode when the device would be formatted.
  returned: always
  type: str
mountpoint_now:
  description: Where the disk can be read now. Empty when it is mounted nowhere.
  returned: always
  type: str
  sample: /data/llm_bulk_storage
mount_unit:
  description: Name of the mount unit.
  returned: always
  type: str
  sample: data-llm_bulk_storage.mount
kept:
  description: Copies of the files that were replaced.
  returned: always
  type: list
  elements: str
"""

import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hx_infra.llm.plugins.module_utils._bulk_observe import observe
from ansible_collections.hx_infra.llm.plugins.module_utils._bulk_plan import (
    Declared,
    Observed,
    Step,
    own_mounts,
    plan_mount,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bulk_run import MountRun
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._journal import Journal, RunLock
from ansible_collections.hx_infra.llm.plugins.module_utils._mounts import unit_name
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    Verdict,
    as_dicts,
    judge,
)

ARGUMENTS: dict[str, dict[str, Any]] = {
    "device": {"type": "path", "required": True},
    "path": {"type": "path", "required": True},
    "fstype": {"type": "str", "choices": ["ext4", "xfs"], "default": "ext4"},
    "options": {"type": "str", "default": "defaults,noatime"},
    "links": {"type": "list", "elements": "path", "default": []},
    "unit": {"type": "str", "default": ""},
    "unit_paths": {"type": "list", "elements": "path", "default": []},
    "allow_format": {"type": "bool", "default": False},
    "store_id": {"type": "str"},
    "unit_dir": {"type": "path", "default": "/etc/systemd/system"},
    "fstab": {"type": "path", "default": "/etc/fstab"},
    "journal_dir": {"type": "path", "default": "/var/lib/hx-llm"},
    "host": {"type": "str"},
}


def run(
    params: dict[str, Any],
    check_mode: bool,
    command: Callable[[Sequence[str]], tuple[int, str, str]],
) -> dict[str, Any]:
    """Plan the mount and, outside of check mode, carry it out.

    Raises:
        HostError: the mount is refused or failed.
    """
    host = params["host"] or platform.node()
    declared = Declared(
        host=host,
        device=params["device"],
        path=params["path"].rstrip("/"),
        fstype=params["fstype"],
        options=params["options"],
        links=tuple(path.rstrip("/") for path in params["links"]),
        unit=params["unit"],
        allow_format=params["allow_format"],
        store_id=params["store_id"] or host,
        unit_dir=params["unit_dir"],
        fstab=params["fstab"],
    )
    base = params["journal_dir"]
    journal = Journal(f"{base}/bulk-mount.json")
    lock = RunLock(f"{base}/bulk-mount.lock", f"the disk {declared.device}", create=not check_mode)
    with lock:
        interrupted = bool(journal.read().get("unit_was_running"))
        found = observe(declared, params["unit_paths"], command, interrupted)
        steps = plan_mount(declared, found)
        difference = _diff(declared, found, steps)
        uuid, kept, warnings = found.disk.uuid, [], []
        now = _mounted_at(declared, found)
        if not check_mode:
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            work = MountRun(
                declared,
                found,
                command,
                journal=journal,
                keep_dir=f"{base}/kept",
                stamp=stamp,
                stores=params["unit_paths"],
            )
            uuid = work.apply(steps)
            kept, warnings = work.kept, work.warnings
            found = observe(declared, params["unit_paths"], command, False)
            now = _mounted_at(declared, found)
    return {
        "changed": bool(steps),
        "actions": [step.sentence for step in steps],
        "plan": [step.as_dict() for step in steps],
        "uuid": uuid,
        "mountpoint_now": now,
        "mount_unit": unit_name(declared.path),
        "kept": kept,
        "warnings": warnings,
        "verdicts": [] if check_mode else as_dicts([_verdict(declared, now, uuid)]),
        "diff": difference,
    }


def _verdict(declared: Declared, now: str, uuid: str) -> Verdict:
    """Judge where the disk is mounted, as it was read back after the last step."""
    return judge(
        "bulk_disk_mounted",
        now == declared.path,
        subject=declared.device,
        value=now or "not mounted",
        limit=declared.path,
        evidence=f"/proc/self/mountinfo, UUID {uuid}",
    )


def _mounted_at(declared: Declared, found: Observed) -> str:
    points = [mount.point for mount in own_mounts(found)]
    if declared.path in points:
        return declared.path
    return points[0] if points else ""


def _diff(declared: Declared, found: Observed, steps: Sequence[Step]) -> dict[str, str]:
    points = [mount.point for mount in own_mounts(found)]
    linked = {step.target for step in steps if step.action == "link"}
    before = [f"{declared.device}: mounted at {point}\n" for point in points]
    after = [f"{declared.device}: mounted at {declared.path}\n"]
    for spot in found.links:
        old = f"link to {spot.value}" if spot.kind == "link" else spot.kind
        new = f"link to {declared.path}" if spot.path in linked else old
        before.append(f"{spot.path}: {old}\n")
        after.append(f"{spot.path}: {new}\n")
    for entry in found.fstab:
        before.append(f"{declared.fstab}: {entry.text}\n")
    for old_unit in found.old_units:
        before.append(f"{old_unit.name}: {old_unit.file.what} at {old_unit.file.where}\n")
    return {"before": "".join(before), "after": "".join(after)}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)

    def command(argv: Sequence[str]) -> tuple[int, str, str]:
        return module.run_command(list(argv))

    host = module.params["host"] or platform.node()
    try:
        result = run(module.params, module.check_mode, command)
    except HostError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(
            msg=f"{host}: mounting {module.params['device']} failed: {error}. Correct the cause "
            "and run again, the next run goes on from here."
        )
    if not module._diff:
        del result["diff"]
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
