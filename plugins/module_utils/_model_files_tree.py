# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A directory with a model's files as it is on disk, and the note of what was verified there."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    CHUNK,
    open_same,
    walk,
    write_atomic,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._hub import COMMIT, SHA256
from ansible_collections.hx_infra.llm.plugins.module_utils._hub_download import Digests
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files import (
    MANIFEST,
    Wanted,
    check_path,
)

FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """A file, or a link, as it was found; checksums are empty until it was read."""

    path: str
    info: os.stat_result
    sha256: str = ""
    git_sha1: str = ""

    @property
    def size(self) -> int:
        """Its length."""
        return self.info.st_size

    @property
    def regular(self) -> bool:
        """Whether it is a file and not a link or something else."""
        return stat.S_ISREG(self.info.st_mode)

    def noted(self) -> dict[str, Any]:
        """Return what is noted about it: how to recognise it, and its checksums."""
        return {
            "sha256": self.sha256,
            "git_sha1": self.git_sha1,
            "size": self.size,
            "mtime_ns": self.info.st_mtime_ns,
            "inode": self.info.st_ino,
        }


@dataclass
class Tree:
    """What stands in a directory; paths are relative to it.

    Attributes:
        exists: whether there is such a directory.
        entries: everything but directories, without the note.
        directories: with the directory itself as ``.``.
        note: the note, empty when there is none that can be read.
        note_info: the state of the note's file.
        follow: whether links were followed.
    """

    root: str
    exists: bool = False
    entries: dict[str, Entry] = field(default_factory=dict)
    directories: dict[str, os.stat_result] = field(default_factory=dict)
    note: dict[str, Any] = field(default_factory=dict)
    note_info: os.stat_result | None = None
    follow: bool = False

    def path(self, relative: str) -> str:
        """Return the full path."""
        return os.path.join(self.root, relative)

    @property
    def noted_files(self) -> Mapping[str, Any]:
        """What the note says about files."""
        files = self.note.get("files")
        return files if isinstance(files, dict) else {}


def read_tree(root: str, *, follow: bool = False) -> Tree:
    """Look at a directory without reading its files, but for the note.

    Raises:
        HostError: it is something else than a directory.
    """
    tree = Tree(root, follow=follow)
    if not os.path.lexists(root):
        return tree
    if not os.path.isdir(root) or (os.path.islink(root) and not follow):
        raise HostError(f"{root} is no directory.", "Give the directory itself.")
    tree.exists = True
    for path, listed in walk(root):
        info = listed
        if follow and stat.S_ISLNK(listed.st_mode):
            try:
                info = os.stat(tree.path(path))
            except OSError:
                info = listed  # it leads nowhere, so it stays a link
        if stat.S_ISDIR(info.st_mode):
            tree.directories[path] = info
        elif path == MANIFEST:
            tree.note, tree.note_info = _read_note(tree.path(path), info), info
        else:
            tree.entries[path] = Entry(path, info)
    return tree


def _read_note(path: str, info: os.stat_result) -> dict[str, Any]:
    try:
        with os.fdopen(open_same(path, info), "rb") as stream:
            note = json.load(stream)
        if not isinstance(note, dict) or note.get("format") != FORMAT:
            return {}
        wanted_from_note(note, path)
    except (OSError, ValueError, HostError):
        return {}  # then everything is read, and it is written anew
    return note


def wanted_from_note(note: Mapping[str, Any], where: str) -> list[Wanted]:
    """Take the files of a note as what is wanted.

    Raises:
        HostError: it isn't one.
    """
    found = []
    try:
        for path, item in sorted(note["files"].items()):
            check_path(path, where)
            sha256, git_sha1 = item["sha256"], item["git_sha1"]
            if not SHA256.fullmatch(sha256) and (sha256 or not COMMIT.fullmatch(git_sha1)):
                raise ValueError(f"{path} has the checksum {sha256!r}")
            found.append(Wanted(path, int(item["size"]), sha256, git_sha1))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HostError(f"{where} can't be understood: {error!r}.") from error
    return found


def identify(
    tree: Tree, wanted: Iterable[Wanted], full: bool, tell: Callable[[int, str], None]
) -> None:
    """Learn the checksums of the wanted files that are there, from the note or by reading them."""
    to_read = []
    for item in wanted:
        entry = tree.entries.get(item.path)
        if entry is None or not entry.regular:
            continue
        noted = tree.noted_files.get(item.path)
        if not full and _recognised(entry, noted, item):
            tree.entries[item.path] = replace(
                entry, sha256=noted["sha256"], git_sha1=noted["git_sha1"]
            )
        elif item.size < 0 or item.size == entry.size:
            to_read.append(entry)
    total = sum(entry.size for entry in to_read)
    if total:
        tell(-total, "")
    for entry in to_read:
        sha256, git_sha1 = read_checksums(tree, entry, tell)
        tree.entries[entry.path] = replace(entry, sha256=sha256, git_sha1=git_sha1)


def _recognised(entry: Entry, noted: Any, wanted: Wanted) -> bool:
    if not isinstance(noted, dict):
        return False
    same = all(
        noted.get(key) == value
        for key, value in entry.noted().items()
        if key not in ("sha256", "git_sha1")
    )
    has = all(isinstance(noted.get(key), str) for key in ("sha256", "git_sha1"))
    return same and has and bool(noted["sha256"]) and bool(noted["git_sha1"] or wanted.sha256)


def read_checksums(tree: Tree, entry: Entry, tell: Callable[[int, str], None]) -> tuple[str, str]:
    """Read a file and return its SHA-256 and git's checksum; empty when it has just gone."""
    path = tree.path(entry.path)
    try:
        if tree.follow:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        else:
            descriptor = open_same(path, entry.info)
    except FileNotFoundError:
        return "", ""
    digests = Digests(entry.size)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        while True:
            data = stream.read(CHUNK)
            if not data:
                return digests.sha256.hexdigest(), digests.git.hexdigest()
            digests.update(data)
            tell(len(data), entry.path)


def defect(wanted: Wanted, entry: Entry | None) -> str:
    """Say what keeps a file from being the wanted one; empty when nothing does."""
    if entry is None:
        return "it is missing"
    if not entry.regular:
        return "it is a link or no file"
    if wanted.size >= 0 and entry.size != wanted.size:
        return f"it has {entry.size} bytes, wanted {wanted.size}"
    if wanted.sha256:
        if entry.sha256 != wanted.sha256:
            return f"it has sha256 {entry.sha256[:16]}, wanted {wanted.sha256[:16]}"
    elif entry.git_sha1 != wanted.git_sha1:
        return f"it has git's checksum {entry.git_sha1[:16]}, wanted {wanted.git_sha1[:16]}"
    return ""


def write_note(root: str, note: Mapping[str, Any], access: os.stat_result | None = None) -> None:
    """Write the note, with the access that the one before had."""
    data = json.dumps(note, indent=1, sort_keys=True).encode() + b"\n"
    if access is None:
        write_atomic(os.path.join(root, MANIFEST), data, 0o644)
    else:
        owner = (access.st_uid, access.st_gid)
        write_atomic(
            os.path.join(root, MANIFEST), data, stat.S_IMODE(access.st_mode) & 0o777, owner
        )
