# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Plan how a bulk disk comes to its declared mount point; no host is touched here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._engine_unit import RUNNING
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._mounts import (
    FstabEntry,
    Mount,
    UnitFile,
    unit_name,
)

MARKER = ".hx-llm-store.json"
_SHOWN = 3

_UNIT_TEMPLATE = """\
# Written by hx_infra.llm (bulk_mount).
[Unit]
Description=Bulk storage for models at {where}

[Mount]
What={what}
Where={where}
Type={fstype}
Options={options}

[Install]
WantedBy=local-fs.target
"""


@dataclass(frozen=True)
class Declared:
    """Which disk belongs where."""

    host: str
    device: str
    path: str
    fstype: str = "ext4"
    options: str = "defaults,noatime"
    links: tuple[str, ...] = ()
    unit: str = ""
    allow_format: bool = False
    store_id: str = ""
    unit_dir: str = "/etc/systemd/system"
    fstab: str = "/etc/fstab"


@dataclass(frozen=True)
class Spot:
    """What stands at a path: ``absent``, ``link``, ``directory`` or ``other``."""

    path: str
    kind: str = "absent"
    value: str = ""
    content: tuple[str, ...] = ()


@dataclass(frozen=True)
class Disk:
    """What the device is and holds."""

    kind: str = "absent"
    number: str = ""
    holds: str = ""
    uuid: str = ""
    label: str = ""
    stable_path: str = ""
    empty: bool = False
    not_empty_because: str = ""


@dataclass(frozen=True)
class OldUnit:
    """A mount unit that contradicts the declaration."""

    file: UnitFile
    name: str
    enabled: bool


@dataclass(frozen=True)
class Observed:
    """What was found on the host."""

    disk: Disk
    mounts: tuple[Mount, ...] = ()
    spot: Spot = Spot("")
    real_parent: str = ""
    links: tuple[Spot, ...] = ()
    unit_text: str = ""
    unit_enabled: bool = False
    old_units: tuple[OldUnit, ...] = ()
    fstab: tuple[FstabEntry, ...] = ()
    busy: tuple[str, ...] = ()
    engine_state: str = "inactive"
    engine_inside: bool = False
    engine_models: str = ""
    marker: dict[str, Any] | None = None
    interrupted: bool = False
    root_owner: tuple[int, int] = (0, 0)
    root_mode: int = 0o755


@dataclass(frozen=True)
class Step:
    """One line of the plan."""

    action: str
    target: str
    sentence: str
    detail: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, str]:
        """Return the step as data."""
        return {"action": self.action, "target": self.target, **self.detail}


def unit_text(declared: Declared, what: str) -> str:
    """Return the content of the mount unit."""
    return _UNIT_TEMPLATE.format(
        what=what, where=declared.path, fstype=declared.fstype, options=declared.options
    )


def own_mounts(found: Observed) -> list[Mount]:
    """List the places where the whole disk is mounted."""
    number = found.disk.number
    return [mount for mount in found.mounts if mount.device == number and mount.root == "/"]


def plan_mount(declared: Declared, found: Observed) -> list[Step]:
    """Compare what is declared with what was found.

    Raises:
        HostError: the disk cannot be mounted there safely; nothing was changed.
    """
    _check_disk(declared, found.disk)
    wrong = [mount.point for mount in own_mounts(found) if mount.point != declared.path]
    _check_path(declared, found)
    _check_links(declared, found, wrong)
    _check_marker(declared, found)
    if wrong and found.busy:
        raise HostError(
            f"{declared.host}: {declared.device} is mounted at {wrong[0]}, wanted at "
            f"{declared.path}, but is in use: {_some(found.busy)}.",
            "End these processes, then run again.",
        )
    return _build(declared, found, wrong)


def _check_disk(declared: Declared, disk: Disk) -> None:
    where = f"{declared.host}: the device {declared.device}"
    if disk.kind == "absent":
        raise HostError(
            f"{where} does not exist; wanted a block device with {declared.fstype}.",
            "Attach the disk, or correct storage_topology_device.",
        )
    if disk.kind != "block":
        raise HostError(f"{where} is a {disk.kind}; wanted a block device.")
    if not disk.holds and not disk.empty:
        raise HostError(
            f"{where} holds no known file system but is not empty either "
            f"({disk.not_empty_because}); wanted {declared.fstype}.",
            "It is never formatted in this state. Look at what it holds.",
        )
    if not disk.holds and not declared.allow_format:
        raise HostError(
            f"{where} is not formatted; wanted {declared.fstype}.",
            "Format it, or allow it with storage_topology_allow_format: true.",
        )
    if disk.holds and disk.holds != declared.fstype:
        raise HostError(
            f"{where} holds {disk.holds}; wanted {declared.fstype}.",
            "It is never overwritten. Declare what it holds, or choose another device.",
        )


def _check_path(declared: Declared, found: Observed) -> None:
    where = f"{declared.host}: the mount point {declared.path}"
    parent = declared.path.rpartition("/")[0] or "/"
    if found.real_parent != parent:
        raise HostError(
            f"{where} lies below a link: {parent} leads to {found.real_parent}; wanted a path "
            "without links, as systemd asks for.",
            f"Declare {found.real_parent.rstrip('/')}/{declared.path.rpartition('/')[2]}.",
        )
    here = [mount for mount in found.mounts if mount.point == declared.path]
    if here and here[-1].device != found.disk.number:
        raise HostError(
            f"{where} is occupied by {here[-1].source} ({here[-1].fstype}); wanted "
            f"{declared.device}.",
            "Unmount that first.",
        )
    if here:
        return
    if found.spot.kind == "other":
        raise HostError(f"{where} is neither a directory nor a link; wanted a directory.")
    if found.spot.content:
        raise HostError(
            f"{where} is a directory that is not empty ({_some(found.spot.content)}); wanted an "
            "empty one, because the mount would hide what is in it.",
            "Move its content away, then run again.",
        )


def _check_links(declared: Declared, found: Observed, wrong: Sequence[str]) -> None:
    points = {mount.point: mount for mount in found.mounts}
    for spot in found.links:
        if spot.path in wrong:
            continue
        if spot.path in points:
            raise HostError(
                f"{declared.host}: {spot.path} is a mount point of {points[spot.path].source}; "
                f"wanted a link to {declared.path}.",
                "Unmount that first.",
            )
        if spot.kind == "other" or spot.content:
            what = f"a directory with {_some(spot.content)}" if spot.content else "a file"
            raise HostError(
                f"{declared.host}: {spot.path} is {what}; wanted a link to {declared.path}.",
                "Move it away, then run again.",
            )


def _check_marker(declared: Declared, found: Observed) -> None:
    store = (found.marker or {}).get("store_id")
    if store and store != declared.store_id:
        raise HostError(
            f"{declared.host}: {declared.device} carries the marker of the store {store!r}; wanted "
            f"{declared.store_id!r}.",
            f"If the disk was moved here on purpose, remove {MARKER} from its root.",
        )


def _build(declared: Declared, found: Observed, wrong: Sequence[str]) -> list[Step]:
    name = unit_name(declared.path)
    steps: list[Step] = []
    mounted = any(mount.point == declared.path for mount in own_mounts(found))
    if not found.disk.holds:
        text = f"Format {declared.device} as {declared.fstype}, which is empty"
        steps.append(Step("format", declared.device, text))
    what = found.disk.stable_path or declared.device
    if not found.disk.holds or found.unit_text != unit_text(declared, what):
        path = f"{declared.unit_dir}/{name}"
        steps.append(Step("write_unit", path, f"Write the mount unit {path}", {"unit": name}))
    if found.fstab:
        points = ", ".join(entry.point for entry in found.fstab)
        text = f"Turn the lines of {declared.fstab} for {points} into comments, a copy is kept"
        steps.append(Step("comment_fstab", declared.fstab, text))
    if not found.unit_enabled:
        steps.append(Step("enable", name, f"Enable {name}, so that it is mounted at each boot"))
    running = bool(declared.unit) and found.engine_state in RUNNING
    stop = bool(wrong) and running and found.engine_inside
    if stop:
        text = f"Stop {declared.unit}, whose files are on the disk"
        steps.append(Step("stop", declared.unit, text))
    for old in found.old_units:
        text = f"Retire the mount unit {old.name} ({old.file.where}), its file is kept"
        steps.append(Step("retire_unit", old.name, text, {"path": old.file.path}))
    steps += [Step("unmount", point, f"Unmount {declared.device} from {point}") for point in wrong]
    if not mounted:
        text = f"Mount {declared.device} at {declared.path}"
        steps.append(Step("mount", declared.path, text, {"unit": name}))
    for spot in found.links:
        if not (spot.kind == "link" and spot.value == declared.path):
            text = f"Link {spot.path} to {declared.path}"
            steps.append(Step("link", spot.path, text, {"value": declared.path}))
    if found.root_owner != (0, 0) or found.root_mode & 0o022:
        # Whoever may write there may rename the whole store away and put another in its place.
        was = f"{found.root_owner[0]}:{found.root_owner[1]} {found.root_mode:04o}"
        text = f"Let only root write to the top of the disk (it is {was})"
        steps.append(Step("own_root", declared.path, text, {"was": was}))
    if not _marker_right(declared, found):
        text = f"Mark the disk as the store {declared.store_id} ({MARKER})"
        steps.append(Step("mark", f"{declared.path}/{MARKER}", text))
    if stop or (declared.unit and found.interrupted and not running):
        steps.append(Step("start", declared.unit, f"Start {declared.unit}"))
    return steps


def _marker_right(declared: Declared, found: Observed) -> bool:
    marker = found.marker or {}
    wanted = {"store_id": declared.store_id, "uuid": found.disk.uuid}
    return all(marker.get(key) == value for key, value in wanted.items())


def _some(items: Sequence[str]) -> str:
    more = len(items) - _SHOWN
    return "; ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
