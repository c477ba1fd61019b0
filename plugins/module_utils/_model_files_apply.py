# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Building a model's directory beside the one that is served, and letting them change places.

Whatever has its final name in the new directory is verified, so a run that is cut off anywhere
leaves something that the next one goes on from.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    CHUNK,
    exchange,
    exchange_missing,
    fsync_directory,
    set_access,
    walk,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._hub_download import (
    Digests,
    Fetch,
    Line,
    Wish,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._hub_http import Reply
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files import MANIFEST, Wanted
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_plan import Access, Plan
from ansible_collections.hx_infra.llm.plugins.module_utils._model_files_tree import (
    Entry,
    Tree,
    write_note,
)

NEW_MODE = 0o644
Opened = Callable[[str, int, float], Reply]  # path, first byte, timeout


@dataclass(frozen=True)
class Places:
    """The directory and its neighbours."""

    dest: str

    def _beside(self, suffix: str) -> str:
        parent, name = os.path.split(self.dest)
        return os.path.join(parent, f".{name}.hx-{suffix}")

    @property
    def staging(self) -> str:
        """Where the new directory is built."""
        return self._beside("new")

    @property
    def old(self) -> str:
        """Where the replaced directory waits for its end."""
        return self._beside("old")

    @property
    def lock(self) -> str:
        """The lock against a second run."""
        return self._beside("lock")


class Builder:
    """The new directory while it is built.

    Args:
        places: where it is built.
        dest: the directory that is served, its kept files identified.
        staging: what an earlier run had built.
        note: the note without its files.
    """

    def __init__(self, places: Places, dest: Tree, staging: Tree, note: Mapping[str, Any]) -> None:
        self.root = places.staging
        self._places = places
        self._dest = dest
        self._note = dict(note)
        self._known = dict(staging.entries)
        self._files: dict[str, Entry] = {}
        if not os.path.isdir(self.root):
            os.mkdir(self.root, 0o700)
        os.chmod(self.root, 0o700)  # nobody else gets at it before it is served

    def keep(self, plan: Plan) -> None:
        """Link what stays, and take over what an earlier run verified."""
        declared = set(plan.keep) - set(plan.undeclared)
        for path, info in self._dest.directories.items():
            if path != "." and any(name.startswith(f"{path}/") for name in plan.keep):
                self._folder(path, info)
        for path in plan.keep:
            self._link(self._dest.entries[path])
            if path in declared:
                self._files[path] = self._dest.entries[path]
        for path in plan.staged:
            self._files[path] = self._known[path]
        self.save()

    def save(self) -> None:
        """Note what is verified so far."""
        files = {path: entry.noted() for path, entry in self._files.items()}
        write_note(self.root, {**self._note, "files": files}, self._dest.note_info)

    def download(self, wanted: Wanted, opened: Opened, line: Line) -> Fetch:
        """Bring one file, and give it its name when it is verified."""
        wish = Wish(wanted.path, wanted.size, wanted.sha256, wanted.git_sha1)
        fetch = Fetch(wish, self.root, lambda at, wait: opened(wanted.path, at, wait), line)
        self._name(wanted.path, fetch.path, *fetch.run())
        return fetch

    def copy(self, wanted: Wanted, source: Tree, line: Line) -> int:
        """Bring one file from another directory of the host."""
        partial = os.path.join(self.root, Wish("", 0, wanted.sha256).partial_name)
        digests, size = Digests(wanted.size), 0
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with (
            open(source.path(wanted.path), "rb", buffering=0) as reader,
            os.fdopen(os.open(partial, flags, 0o600), "wb") as writer,
        ):
            while True:
                data = reader.read(CHUNK)
                if not data:
                    break
                writer.write(data)
                digests.update(data)
                size += len(data)
                line.tell(len(data), wanted.path)
            writer.flush()
            os.fsync(writer.fileno())
        found = digests.sha256.hexdigest()
        if found != wanted.sha256:
            os.unlink(partial)
            raise HostError(
                f"{source.path(wanted.path)} has sha256 {found}, wanted {wanted.sha256}.",
                "Bring the right file there.",
            )
        self._name(wanted.path, partial, found, digests.git.hexdigest())
        return size

    def add_unpacked(self, paths: list[str], checksum: Callable[[str], tuple[str, str]]) -> None:
        """Take over the files that an archive brought."""
        for path in paths:
            sha256, git_sha1 = checksum(path)
            info = os.lstat(os.path.join(self.root, path))
            self._files[path] = Entry(path, info, sha256, git_sha1)
        self.save()

    def give_access(self, access: Access) -> None:
        """Give the new directory owner and mode; undeclared files stay as they are."""
        before = self._dest.directories.get(".")
        mode = stat.S_IMODE(before.st_mode) if before else 0o755
        owner = (before.st_uid, before.st_gid) if before else (-1, -1)
        for path, info in list(walk(self.root)):
            if path != "." and (path in self._files or path == MANIFEST or _folder(info)):
                change_access(os.path.join(self.root, path), info, access)
        os.chown(self.root, *owner)
        os.chmod(self.root, mode)
        change_access(self.root, os.lstat(self.root), access)

    def switch(self) -> None:
        """Let the new directory take the place of the old one, which goes."""
        for path, info in walk(self.root):
            if _folder(info):
                fsync_directory(os.path.join(self.root, path))
        places, gone = self._places, ""
        if not os.path.lexists(places.dest):
            os.rename(self.root, places.dest)
        else:
            try:
                exchange(self.root, places.dest)
                gone = self.root
            except OSError as error:
                if not exchange_missing(error):
                    raise
                os.rename(places.dest, places.old)  # the next run puts it back if this one ends
                os.rename(self.root, places.dest)
                gone = places.old
        fsync_directory(os.path.dirname(places.dest))
        if gone:
            remove_tree(gone)

    def _name(self, path: str, partial: str, sha256: str, git_sha1: str) -> None:
        target = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        os.chmod(partial, NEW_MODE)
        os.rename(partial, target)
        self._files[path] = Entry(path, os.lstat(target), sha256, git_sha1)
        self.save()

    def _folder(self, path: str, info: os.stat_result) -> None:
        target = os.path.join(self.root, path)
        os.makedirs(target, mode=0o755, exist_ok=True)
        os.chown(target, info.st_uid, info.st_gid)
        os.chmod(target, stat.S_IMODE(info.st_mode))

    def _link(self, entry: Entry) -> None:
        target = os.path.join(self.root, entry.path)
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.lstat(target), entry.info):
                return
            os.unlink(target)
        os.link(self._dest.path(entry.path), target, follow_symlinks=False)
        now = os.lstat(target)
        if not os.path.samestat(now, entry.info) or now.st_mtime_ns != entry.info.st_mtime_ns:
            os.unlink(target)
            raise HostError(f"{self._dest.path(entry.path)} was changed meanwhile.", "Run again.")


def rename_aside(path: str, aside: str) -> None:
    """Take a directory away in one step."""
    if os.path.lexists(aside):
        remove_tree(aside)
    os.rename(path, aside)
    fsync_directory(os.path.dirname(path))


def remove_tree(path: str) -> None:
    """Remove a directory, or a file, if it is there."""
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        return


def change_access(path: str, info: os.stat_result, access: Access) -> None:
    """Give what was listed at a path its owner and mode."""
    if not access.differs(info):
        return
    uid = info.st_uid if access.uid is None else access.uid
    gid = info.st_gid if access.gid is None else access.gid
    mode = access.directory_mode if _folder(info) else access.mode
    set_access(path, info, owner=(uid, gid), mode=mode)


def _folder(info: os.stat_result) -> bool:
    return stat.S_ISDIR(info.st_mode)
