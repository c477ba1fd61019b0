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

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterable
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

CHUNK = 1024 * 1024
_STAMP = re.compile(r"-\d{8}-\d{6}\.json$")


def file_sha256(path: str) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(CHUNK), b""):
            digest.update(block)
    return digest.hexdigest()


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
        info = os.lstat(path)
        regular = os.path.isfile(path) and not os.path.islink(path)
        if regular and info.st_size > max_file_bytes:
            left_out.append(path)
        elif regular or os.path.islink(path) or os.path.isdir(path):
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
    for entry in entries:
        if not (entry.startswith(name + "-") and _STAMP.search(entry)):
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


def _fsync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(archive: str, members: list[dict[str, Any]], details: dict[str, Any]) -> int:
    """Write archive and index, both under a temporary name first; return the archive's bytes."""
    directory = os.path.dirname(archive)
    partial = archive + ".partial"
    with tarfile.open(partial, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            tar.add(member["path"], arcname=member["path"].lstrip("/"), recursive=False)
    os.chmod(partial, 0o600)
    verify(partial, members)
    with open(partial, "rb") as handle:
        os.fsync(handle.fileno())
    os.rename(partial, archive)
    index = archive[: -len(".tgz")] + ".json"
    document = dict(details, schema=1, content=content_digest(members), members=members)
    temporary = index + ".partial"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        json.dump(document, handle, indent=1, sort_keys=True)
        handle.flush()
        os.fsync(handle.fileno())
    os.rename(temporary, index)
    _fsync_directory(directory)
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
        raise HostError(f"{archive} can't be read back: {error}.") from error
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
            path = member["path"]
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if member["kind"] == "directory":
                if os.path.islink(path) or not os.path.isdir(path):
                    _replace(path, os.mkdir)
            elif member["kind"] == "link":
                target = member["target"]
                _replace(path, lambda new, target=target: os.symlink(target, new))
            else:
                handle = tar.extractfile(path.lstrip("/"))
                content = handle.read() if handle else b""
                _replace(path, lambda new, content=content: _write_file(new, content))
            os.lchown(path, member["uid"], member["gid"])
            if member["kind"] != "link":
                os.chmod(path, int(member["mode"], 8))


def _write_file(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())


def _replace(path: str, make: Any) -> None:
    """Make the new thing beside ``path`` and move it into place; a directory is moved aside."""
    new = f"{path}.hx-restore"
    if os.path.lexists(new):
        os.unlink(new)
    make(new)
    if os.path.isdir(path) and not os.path.islink(path):
        aside = f"{path}.hx-before-restore"
        if os.path.lexists(aside):
            raise HostError(
                f"{aside} stands in the way.", "Look at it and move it, then run again."
            )
        os.rename(path, aside)
    os.rename(new, path)
    _fsync_directory(os.path.dirname(path))
