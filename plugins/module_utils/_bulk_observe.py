# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Look at a bulk disk: what it is and holds, where it is mounted, who mounts and who uses it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bulk_plan import (
    MARKER,
    Declared,
    Disk,
    Observed,
    OldUnit,
    Spot,
    own_mounts,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._engine_unit import (
    RUNNING,
    Runner,
    engine_models_path,
    unit_state,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._mounts import (
    FstabEntry,
    Mount,
    names_device,
    parse_blkid,
    parse_fstab,
    parse_mountinfo,
    parse_unit,
    unit_name,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._procs import holders

_BLKID_NOTHING = 2
_PROBED = 1024 * 1024
_MAX_CONTENT = 5


def read_text(path: str) -> str:
    """Return a file's text, bytes that are no UTF-8 included; empty when there is no file."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def read_mounts() -> tuple[Mount, ...]:
    """Return the mounts of this process's namespace."""
    return tuple(parse_mountinfo(read_text("/proc/self/mountinfo")))


def read_disk(device: str, run: Runner) -> Disk:
    """Find out what a device is and holds."""
    try:
        info = os.stat(device)
    except OSError:
        return Disk()
    if not stat.S_ISBLK(info.st_mode):
        return Disk("directory" if stat.S_ISDIR(info.st_mode) else "file")
    number = f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
    code, out, err = run(["blkid", "-p", "-o", "export", device])
    values = parse_blkid(out)
    if code not in (0, _BLKID_NOTHING):
        raise HostError(
            f"blkid cannot tell what {device} holds (exit code {code}): {err.strip()}.",
            "It may hold several signatures at once; look at it with wipefs.",
        )
    holds = values.get("TYPE") or (
        f"a partition table ({values['PTTYPE']})" if values.get("PTTYPE") else ""
    )
    uuid = values.get("UUID", "")
    stable = f"/dev/disk/by-uuid/{uuid}"
    reason = "" if holds else _why_not_empty(device, run)
    return Disk(
        "block",
        number,
        holds,
        uuid,
        values.get("LABEL", ""),
        stable if uuid and os.path.exists(stable) else "",
        empty=not holds and not reason,
        not_empty_because=reason,
    )


def _why_not_empty(device: str, run: Runner) -> str:
    code, out, err = run(["wipefs", "--no-act", "--parsable", device])
    signatures = [line for line in out.splitlines() if line and not line.startswith("#")]
    if code or signatures:
        return f"wipefs: {(signatures or [err.strip()])[0]}"
    users = f"/sys/class/block/{os.path.basename(os.path.realpath(device))}/holders"
    if os.path.isdir(users) and os.listdir(users):
        return f"in use by {', '.join(sorted(os.listdir(users)))}"
    with open(device, "rb", buffering=0) as stream:
        if any(stream.read(_PROBED)):
            return "its first megabyte holds data"
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, end - _PROBED))
        if any(stream.read(_PROBED)):
            return "its last megabyte holds data"
    return ""


def look_at(path: str) -> Spot:
    """Say what stands at a path, links not followed."""
    try:
        info = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Spot(path)
    if stat.S_ISLNK(info.st_mode):
        return Spot(path, "link", os.readlink(path))
    if not stat.S_ISDIR(info.st_mode):
        return Spot(path, "other")
    return Spot(path, "directory", content=tuple(sorted(os.listdir(path))[:_MAX_CONTENT]))


def find_units(declared: Declared, disk: Disk, points: set[str], run: Runner) -> list[OldUnit]:
    """List the mount units on disk that mount the device elsewhere, or something at its place."""
    own = unit_name(declared.path)
    found = []
    names = sorted(os.listdir(declared.unit_dir)) if os.path.isdir(declared.unit_dir) else []
    for name in names:
        path = os.path.join(declared.unit_dir, name)
        if not name.endswith(".mount") or name == own or not os.path.isfile(path):
            continue
        unit = parse_unit(path, read_text(path))
        if unit.where in points or _is_device(unit.what, declared.device, disk):
            enabled = run(["systemctl", "is-enabled", name])[1].strip() == "enabled"
            found.append(OldUnit(unit, name, enabled))
    return found


def find_fstab(declared: Declared, disk: Disk) -> list[FstabEntry]:
    """List the lines of fstab that mount the device, or something at its place."""
    return [
        entry
        for entry in parse_fstab(read_text(declared.fstab))
        if entry.point.rstrip("/") == declared.path or _is_device(entry.spec, declared.device, disk)
    ]


def _is_device(spec: str, device: str, disk: Disk) -> bool:
    if names_device(spec, device, disk.uuid, disk.label):
        return True
    return spec.startswith("/dev/") and os.path.realpath(spec) == os.path.realpath(device)


def read_marker(root: str) -> dict[str, Any] | None:
    """Return the marker below a mounted disk's root; None when there is none."""
    text = read_text(os.path.join(root, MARKER))
    if not text:
        return None
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def observe(
    declared: Declared, unit_paths: Sequence[str], run: Runner, interrupted: bool
) -> Observed:
    """Read everything that the plan depends on; writes nothing."""
    disk = read_disk(declared.device, run)
    mounts = read_mounts()
    mine = own_mounts(Observed(disk, mounts))
    wrong = [mount.point for mount in mine if mount.point != declared.path]
    state = unit_state(run, declared.unit)
    models = engine_models_path(run, declared.unit) if state in RUNNING else ""
    busy, inside = _users(declared, wrong, [*unit_paths, *([models] if models else [])], state)
    for mount in mounts:
        if any(mount.point.startswith(f"{point}/") for point in wrong):
            busy.append(f"{mount.source} is mounted below it at {mount.point}")
    own_unit = os.path.join(declared.unit_dir, unit_name(declared.path))
    here = [mount.point for mount in mine]
    root = declared.path if declared.path in here else (here[0] if here else "")
    top = os.stat(root) if root else None
    is_mount = any(mount.point == declared.path for mount in mounts)
    enabled = run(["systemctl", "is-enabled", unit_name(declared.path)])[1].strip() == "enabled"
    return Observed(
        disk=disk,
        mounts=mounts,
        spot=Spot(declared.path, "directory") if is_mount else look_at(declared.path),
        real_parent=os.path.realpath(os.path.dirname(declared.path)),
        links=tuple(look_at(path) for path in declared.links),
        unit_text=read_text(own_unit),
        unit_enabled=enabled,
        old_units=tuple(find_units(declared, disk, set(wrong), run)),
        fstab=tuple(find_fstab(declared, disk)),
        busy=tuple(busy),
        engine_state=state,
        engine_inside=inside,
        engine_models=models,
        marker=read_marker(root) if root else None,
        interrupted=interrupted,
        root_owner=(top.st_uid, top.st_gid) if top else (0, 0),
        root_mode=top.st_mode & 0o7777 if top else 0o755,
    )


def _users(
    declared: Declared, wrong: Sequence[str], unit_paths: Sequence[str], state: str
) -> tuple[list[str], bool]:
    """Return who holds the wrong mounts beside the engine, and whether the engine is there too."""
    busy: list[str] = []
    inside = False
    for point in wrong:
        for holder in holders(point):
            if declared.unit in holder.units and state in RUNNING:
                inside = True
            else:
                busy.append(str(holder))
        for path in unit_paths:
            real = os.path.realpath(path)
            inside = inside or real == point or real.startswith(f"{point}/")
    return busy, inside
