# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Archives of a host's configuration: collect, write, read back, restore, retain.

An archive ``<name>-<stamp>.tgz`` has an index ``<name>-<stamp>.json`` beside it: the digest of the
archive's content (paths, owners, modes, bytes) and one entry per member. The content digest does
not depend on time, so an unchanged host needs no second archive.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import tarfile
from collections.abc import Iterable
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    file_sha256,
    fsync_directory,
    make_directories,
    place_symlink,
    set_access,
    write_atomic,
)

_STAMP = r"-\d{8}-\d{6}"


def _member(path: str) -> dict[str, Any]:
    info = os.lstat(path)
    entry: dict[str, Any] = {
        "path": path,
        "mode": f"{info.st_mode & 0o7777:04o}",
        "uid": info.st_uid,
        "gid": info.st_gid,
    }
    if os.path.islink(path):
        entry.update(kind="link", target=os.readlink(path))
    elif os.path.isdir(path):
        entry.update(kind="directory")
    else:
        entry.update(kind="file", size=info.st_size, sha256=file_sha256(path))
    return entry


def collect(paths: Iterable[str], max_file_bytes: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Walk the given files and directories.

    Symbolic links are kept as links and never followed. Returns the members, sorted by path, and
    the files that were left out because they are larger than ``max_file_bytes`` (weights belong to
    the store and its registry, not into a configuration archive).
    """
    members: dict[str, dict[str, Any]] = {}
    left_out: list[str] = []

    def add(path: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # gone since its directory was listed
            info = os.lstat(path)
            regular = stat.S_ISREG(info.st_mode)
            if regular and info.st_size > max_file_bytes:
                left_out.append(path)
            elif regular or stat.S_ISLNK(info.st_mode) or stat.S_ISDIR(info.st_mode):
                members[path] = _member(path)

    for top in paths:
        if not os.path.lexists(top):
            continue
        add(top)
        if os.path.isdir(top) and not os.path.islink(top):
            for folder, folders, files in os.walk(top):
                for name in folders + files:
                    add(os.path.join(folder, name))
    return [members[path] for path in sorted(members)], sorted(left_out)


def content_digest(members: list[dict[str, Any]]) -> str:
    """Return the hex SHA-256 of what an archive would hold, independent of time and order."""
    ordered = sorted(members, key=lambda member: member["path"])
    return hashlib.sha256(json.dumps(ordered, sort_keys=True).encode()).hexdigest()


def archives(directory: str, name: str) -> list[dict[str, Any]]:
    """Return the complete archives of ``name``, oldest first; half-written ones have no index."""
    found = []
    try:
        entries = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    ours = re.compile(re.escape(name) + _STAMP + r"\.json")
    for entry in entries:
        if not ours.fullmatch(entry):
            continue
        index = os.path.join(directory, entry)
        archive = index[: -len(".json")] + ".tgz"
        try:
            with open(index, encoding="utf-8") as handle:
                content = json.load(handle)
        except (OSError, ValueError):
            continue
        if os.path.isfile(archive):
            found.append({"path": archive, "index": index, "content": content.get("content")})
    return found


def leftovers(directory: str, name: str) -> list[str]:
    """Return what runs that were killed left of their archives: no index names it."""
    try:
        entries = set(os.listdir(directory))
    except FileNotFoundError:
        return []
    partial = re.compile(
        re.escape(name) + _STAMP + r"\.(tgz|json)\.partial|"
        r"\." + re.escape(name) + _STAMP + r"\.json\.hx-new"
    )
    whole = re.compile("(" + re.escape(name) + _STAMP + r")\.tgz")
    found = []
    for entry in sorted(entries):
        match = whole.fullmatch(entry)
        if partial.fullmatch(entry) or (match and f"{match.group(1)}.json" not in entries):
            found.append(os.path.join(directory, entry))
    return found


def plan(
    members: list[dict[str, Any]],
    existing: list[dict[str, Any]],
    keep: int,
    archive: str,
) -> dict[str, Any]:
    """Decide whether an archive is needed and which old ones go.

    The newest archive is never removed, and one that holds today's content is reused.
    """
    wanted = content_digest(members)
    reuse = [item for item in existing if item["content"] == wanted]
    create = not reuse
    path = archive if create else reuse[-1]["path"]
    excess = max(len(existing) + int(create) - keep, 0) if keep else 0
    remove = [item for item in existing if item["path"] != path][:excess]
    return {"create": create, "path": path, "content": wanted, "remove": remove}


def write(archive: str, members: list[dict[str, Any]], details: dict[str, Any]) -> int:
    """Write archive and index, both under a temporary name first; return the archive's bytes.

    Both may hold secrets, so nobody but their owner may read them, from their first byte on.
    """
    partial = archive + ".partial"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(partial)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        with tarfile.open(fileobj=handle, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
            for member in members:
                tar.add(member["path"], arcname=member["path"].lstrip("/"), recursive=False)
        handle.flush()
        os.fsync(handle.fileno())
    verify(partial, members)
    os.rename(partial, archive)
    fsync_directory(os.path.dirname(archive))
    index = archive[: -len(".tgz")] + ".json"
    document = dict(details, schema=1, content=content_digest(members), members=members)
    write_atomic(index, json.dumps(document, indent=1, sort_keys=True).encode(), 0o600)
    return os.path.getsize(archive)


def verify(archive: str, members: list[dict[str, Any]]) -> None:
    """Read an archive back and compare every member with what was collected.

    Raises:
        HostError: the archive can't be read, or a member is missing or differs.
    """
    wanted = {member["path"].lstrip("/"): member for member in members}
    seen = set()
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for item in tar:
                member = wanted.get(item.name)
                if member is None:
                    raise HostError(f"{archive} holds {item.name}, which was not collected.")
                seen.add(item.name)
                if member["kind"] == "link" and item.linkname != member["target"]:
                    raise HostError(
                        f"{archive}: the link {item.name} reads back as {item.linkname!r}, "
                        f"wanted {member['target']!r}.",
                        "It changed while it was archived: run again.",
                    )
                if member["kind"] == "file":
                    handle = tar.extractfile(item)
                    found = hashlib.sha256(handle.read() if handle else b"").hexdigest()
                    if found != member["sha256"]:
                        raise HostError(
                            f"{archive}: {item.name} reads back as sha256 {found}, "
                            f"wanted {member['sha256']}.",
                            "It changed while it was archived, or the disk is bad: run again.",
                        )
    except (tarfile.TarError, OSError, EOFError) as error:
        raise HostError(
            f"{archive} can't be read back: {error}.",
            "Move it and its index away; the next run writes a new one.",
        ) from error
    missing = sorted(set(wanted) - seen)
    if missing:
        raise HostError(f"{archive} lacks {len(missing)} members, the first is /{missing[0]}.")


def load_index(archive: str) -> dict[str, Any]:
    """Return the index that belongs to an archive."""
    index = archive[: -len(".tgz")] + ".json"
    try:
        with open(index, encoding="utf-8") as handle:
            return json.load(handle)
    except (OSError, ValueError) as error:
        raise HostError(f"{index} can't be read: {error}.") from error


def differing(members: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the members whose place on the host is not as the archive has it."""
    result = []
    for member in members:
        if not os.path.lexists(member["path"]) or _member(member["path"]) != member:
            result.append(member)
    return result


def restore(archive: str, members: list[dict[str, Any]]) -> None:
    """Put members back, each by a rename, directories first; nothing else is touched."""
    verify(archive, load_index(archive)["members"])
    with tarfile.open(archive, "r:gz") as tar:
        for member in sorted(members, key=lambda item: item["path"]):
            path, owner = member["path"], (member["uid"], member["gid"])
            make_directories(os.path.dirname(path))
            if member["kind"] == "directory":
                if os.path.islink(path) or not os.path.isdir(path):
                    _clear(path, also_files=True)
                    os.mkdir(path, 0o700)
                set_access(path, os.lstat(path), owner=owner, mode=int(member["mode"], 8))
                fsync_directory(os.path.dirname(path))
            elif member["kind"] == "link":
                _clear(path)
                place_symlink(path, member["target"])
                set_access(path, os.lstat(path), owner=owner)
            else:
                handle = tar.extractfile(path.lstrip("/"))
                content = handle.read() if handle else b""
                _clear(path)
                write_atomic(path, content, int(member["mode"], 8), owner)


def _clear(path: str, also_files: bool = False) -> None:
    """Move a directory aside, or whatever stands there, when it can't be replaced by a rename."""
    if not os.path.lexists(path):
        return
    if not also_files and (os.path.islink(path) or not os.path.isdir(path)):
        return
    aside = f"{path}.hx-before-restore"
    if os.path.lexists(aside):
        raise HostError(f"{aside} stands in the way.", "Look at it and move it, then run again.")
    os.rename(path, aside)
