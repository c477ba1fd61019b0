# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Look at the places of a model store: what stands there, how much it is, who uses it."""

from __future__ import annotations

import filecmp
import grp
import json
import os
import pwd
import re
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._copytree import Ownership
from ansible_collections.hx_infra.llm.plugins.module_utils._engine_unit import (
    RUNNING,
    Runner,
    engine_models_path,
    unit_state,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import group_name, user_name, walk
from ansible_collections.hx_infra.llm.plugins.module_utils._mounts import (
    Mount,
    mount_of,
    parse_mountinfo,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._procs import holders
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate import (
    Declared,
    Observed,
    Place,
    Tree,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._traversal import (
    Account,
    describe_obstacle,
    elements,
    first_obstacle,
)

STAGING = ".hx-staging"
_BLOB = re.compile(r"^sha256[-:]([0-9a-f]{64})$")
_PARTIAL = re.compile(r"-partial(-\d+)?$|\.tmp$")


@dataclass(frozen=True)
class DiskPlace:
    """Where the target's disk belongs and where it can be read now.

    ``now`` is empty when the disk is mounted nowhere yet and its mount is only predicted.
    """

    path: str
    now: str

    def to_now(self, path: str) -> str:
        """Translate a declared path into one that can be read now."""
        return _swap(path, self.path, self.now) if self.path and self.now else path

    def to_declared(self, path: str) -> str:
        """Translate a path of now into the one it has once the disk is at its place."""
        return _swap(path, self.now, self.path) if self.path and self.now else path


def _swap(path: str, old: str, new: str) -> str:
    if path == old or path.startswith(f"{old}/"):
        return new + path[len(old) :]
    return path


def look_up_owner(user: str, group: str) -> Ownership | None:
    """Return the numeric owner; None when the account doesn't exist."""
    try:
        return Ownership(pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid)
    except KeyError:
        return None


def blob_digest(name: str) -> str:
    """Return the digest that a blob's file name promises; empty for other files."""
    match = _BLOB.match(os.path.basename(name))
    return match.group(1) if match else ""


def closure_problems(root: str) -> list[str]:
    """List what keeps the store's manifests from being complete, without reading the blobs."""
    problems = []
    manifests = os.path.join(root, "manifests")
    if not os.path.isdir(manifests):
        return []
    for name, info in walk(manifests):
        if stat.S_ISREG(info.st_mode):
            problems += _manifest_problems(root, name, os.path.join(manifests, name))
    return problems


def _manifest_problems(root: str, name: str, path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as stream:
            manifest = json.load(stream)
        parts = [manifest["config"], *manifest.get("layers", [])]
        wanted = [(str(part["digest"]), int(part["size"])) for part in parts]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [f"manifest {name} cannot be read"]
    problems = []
    for digest, size in wanted:
        found = _blob_size(root, digest)
        if found is None:
            problems.append(f"{name} needs blob {digest[:19]}, which is missing")
        elif found != size:
            problems.append(f"{name} needs blob {digest[:19]} with {size} bytes, found {found}")
    return problems


def _blob_size(root: str, digest: str) -> int | None:
    for name in (digest.replace(":", "-"), digest):
        try:
            return os.stat(os.path.join(root, "blobs", name)).st_size
        except OSError:
            continue
    return None


def scan(path: str, at: str, owner: Ownership | None) -> Tree:
    """Count a directory's content; ``at`` is where it can be read now."""
    files = entries = size = blobs = manifests = differing = 0
    for name, info in walk(at):
        entries += 1
        differing += owner is None or owner.differs(info)
        if stat.S_ISDIR(info.st_mode):
            continue
        files += 1
        size += min(info.st_size, info.st_blocks * 512)
        blobs += name.startswith("blobs/") and bool(blob_digest(name))
        manifests += name.startswith("manifests/")
    is_store = any(os.path.isdir(os.path.join(at, part)) for part in ("blobs", "manifests"))
    problems = tuple(closure_problems(at)) if is_store else ()
    return Tree(path, at, files, entries, size, is_store, blobs, manifests, differing, problems)


def growing_partials(
    root: str,
    young_s: float,
    *,
    probe_s: float = 2.0,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[str, ...]:
    """Name the partial downloads that somebody is writing at this moment.

    A young file alone is no proof (an engine may have been killed a minute ago): it has to be open
    for writing, or to change while it is watched.
    """
    before = {
        name: (info.st_size, info.st_mtime_ns, info.st_blocks)
        for name, info in _partials(root)
        if clock() - info.st_mtime < young_s
    }
    if not before:
        return ()
    is_open = {os.path.basename(item.path) for item in holders(root) if item.writes}
    sleep(probe_s)
    after = {
        name: (info.st_size, info.st_mtime_ns, info.st_blocks) for name, info in _partials(root)
    }
    return tuple(
        name for name in sorted(before) if name in is_open or after.get(name) != before[name]
    )


def _partials(root: str) -> list[tuple[str, os.stat_result]]:
    blobs = os.path.join(root, "blobs")
    if not os.path.isdir(blobs):
        return []
    return [(name, info) for name, info in walk(blobs) if _PARTIAL.search(name)]


def same_content(first: str, second: str) -> bool:
    """Tell whether two stores hold the same files; blobs by name and size, others by content."""
    trees = []
    for root in (first, second):
        trees.append({name: info for name, info in walk(root) if not stat.S_ISDIR(info.st_mode)})
    if trees[0].keys() != trees[1].keys():
        return False
    for name, info in trees[0].items():
        if info.st_size != trees[1][name].st_size:
            return False
        one, other = os.path.join(first, name), os.path.join(second, name)
        if not blob_digest(name) and not filecmp.cmp(one, other, shallow=False):
            return False
    return True


def find_obstacle(declared: Declared, disk: DiskPlace) -> str:
    """Say what keeps the service's account from reaching the store; empty when nothing does."""
    try:
        entry = pwd.getpwnam(declared.owner)
        gids = frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid))
        account = Account(declared.owner, entry.pw_uid, gids)
    except KeyError:
        account = Account(declared.owner, None, frozenset())

    def lstat(path: str) -> os.stat_result:
        try:
            return os.lstat(disk.to_now(path))
        except FileNotFoundError:
            if disk.path.startswith(f"{path}/"):
                return os.lstat("/")  # will be made with the rights of the root directory
            raise

    for path in (os.path.dirname(declared.canonical), os.path.dirname(declared.target)):
        obstacle = first_obstacle(elements(path, lstat), account)
        if obstacle is not None:
            owners = f"{user_name(obstacle.uid)}:{group_name(obstacle.gid)}"
            return describe_obstacle(obstacle, account, path, owners)
    return ""


def observe(
    declared: Declared,
    disk: DiskPlace,
    run: Runner,
    journal: dict[str, Any],
    partial_young_s: float,
) -> Observed:
    """Read everything that the plan depends on; writes nothing."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        mounts = parse_mountinfo(stream.read())
    points = {mount.point for mount in mounts}
    owner = look_up_owner(declared.owner, declared.group)

    def place(path: str) -> Place:
        here = disk.to_now(path)
        try:
            info = os.lstat(here)
        except (FileNotFoundError, NotADirectoryError):
            return Place(path)
        real = os.path.realpath(here)
        resolved = disk.to_declared(real) if os.path.isdir(disk.to_now(real)) else ""
        if stat.S_ISLNK(info.st_mode):
            return Place(path, "link", os.readlink(here), resolved)
        kind = "directory" if stat.S_ISDIR(info.st_mode) else "other"
        return Place(path, kind, "", resolved, here in points)

    target = place(declared.target)
    paths = [*declared.old_paths, declared.canonical, str(journal.get("source", ""))]
    names = tuple(place(path) for path in dict.fromkeys(paths) if path)
    state = unit_state(run, declared.unit)
    models = engine_models_path(run, declared.unit) if state in RUNNING else ""
    engine = place(models).resolved if models else ""
    trees = {}
    for path in {item.resolved for item in (*names, target)} | {engine}:
        if path:
            trees[path] = scan(path, disk.to_now(path), owner)
    found = Observed(target, names, trees, unit_state=state, engine_path=engine, journal=journal)
    return _with_target(declared, disk, found, mounts, partial_young_s)


def _with_target(
    declared: Declared,
    disk: DiskPlace,
    found: Observed,
    mounts: Sequence[Mount],
    partial_young_s: float,
) -> Observed:
    """Add what depends on the target's file system and on the source."""
    points = {mount.point for mount in mounts}
    predicted = bool(disk.path) and not disk.now
    values = dict(vars(found))
    values["mounted"] = not disk.path or predicted or os.path.realpath(disk.now) in points
    values["obstacle"] = find_obstacle(declared, disk)
    retained = str(found.journal.get("retained", ""))
    if retained and os.path.isdir(retained) and not os.path.islink(retained):
        values["retained"] = retained
    for path, tree in found.trees.items():
        if path == declared.target or not tree.files:
            continue
        values["trees"] = {
            **values["trees"],
            path: Tree(**{**vars(tree), "partials": growing_partials(tree.at, partial_young_s)}),
        }
        at_target = found.trees.get(declared.target)
        if at_target is not None and at_target.files == tree.files:
            values["identical"] = same_content(tree.at, at_target.at)
        if not predicted:
            ancestor = existing_ancestor(os.path.dirname(disk.to_now(declared.target)))
            same_device = os.stat(tree.at).st_dev == os.stat(ancestor).st_dev
            mount = mount_of(os.path.realpath(ancestor), mounts)
            values["same_filesystem"] = same_device and mount == mount_of(tree.at, mounts)
    if not predicted and values["mounted"]:
        room = os.statvfs(existing_ancestor(os.path.dirname(disk.to_now(declared.target))))
        values["free_bytes"] = room.f_bavail * room.f_frsize
        values["free_inodes"] = room.f_favail if room.f_files else None
        values["staged_bytes"], values["staged_entries"] = _staged(declared, disk)
    return Observed(**values)


def _staged(declared: Declared, disk: DiskPlace) -> tuple[int, int]:
    size = count = 0
    for name in (declared.target, f"{declared.target}{STAGING}"):
        path = disk.to_now(name)
        if os.path.isdir(path) and not os.path.islink(path):
            tree = scan(path, path, None)
            size, count = size + tree.size, count + tree.entries
    return size, count


def existing_ancestor(path: str) -> str:
    """Return the nearest existing directory at or above a path."""
    while not os.path.isdir(path):
        path = os.path.dirname(path) or "."
    return path
