# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A directory below a store that is written to through its descriptor, never through a link."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Any, BinaryIO

from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import BLOBS

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_DIRECTORY_MODE = 0o2755  # of the store's own mode; more is given to nothing that is made here
_FILE_MODE = 0o644
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK)  # of file systems that have no hard links


class Folder:
    """A directory that is open, and what new entries get from the store's own directory.

    Attributes:
        path: what people call it.
    """

    def __init__(self, descriptor: int, path: str, owner: tuple[int, int], mode: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._owner = owner
        self._mode = mode

    @classmethod
    def below(
        cls,
        root: str,
        relative: str,
        owner: tuple[int | None, int | None],
        *,
        make: bool = False,
        any_case: bool = False,
    ) -> Folder:
        """Open a directory below a store.

        Args:
            root: the store, itself maybe a link.
            relative: names of directories.
            owner: who gets what is made; None for the owner of the store's blobs.
            make: whether missing ones are made.
            any_case: whether a name stands for one that differs in upper and lower case only,
                as Ollama reads the names of models.

        Raises:
            FileNotFoundError: one isn't there.
            OSError: one can't be opened, or is a link.
        """
        descriptor = os.open(root, _FLAGS)
        status = _model_of(descriptor)
        uid, gid = owner
        given = (status.st_uid if uid is None else uid, status.st_gid if gid is None else gid)
        folder = cls(descriptor, root, given, stat.S_IMODE(status.st_mode))
        for name in relative.split("/"):
            with folder:
                folder = folder._enter(folder.spelled(name) if any_case else name, make)
        return folder

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_unused: object) -> None:
        os.close(self._descriptor)

    def spelled(self, name: str) -> str:
        """Return the entry that a name means, whatever the case; the name when there is none."""
        entries = os.listdir(self._descriptor)
        if name in entries:
            return name
        alike = sorted(entry for entry in entries if entry.lower() == name.lower())
        return alike[0] if alike else name

    def status(self, name: str, *, follow: bool = False) -> os.stat_result | None:
        """Return what is known about an entry itself; None when there is none.

        Args:
            name: the entry.
            follow: whether to tell of what a link leads to instead, as engines see it.
        """
        try:
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=follow)
        except FileNotFoundError:
            return None

    def open_new(self, name: str) -> BinaryIO:
        """Create a file for writing; what a killed run left under its name goes."""
        self.remove(name)
        return self._open(name, os.O_WRONLY | os.O_EXCL, "wb")

    def open_part(self, name: str) -> BinaryIO:
        """Open a file for reading and writing, created when it isn't there."""
        return self._open(name, os.O_RDWR | os.O_NONBLOCK, "r+b")

    def move(self, name: str, folder: Folder, new_name: str) -> None:
        """Rename a file into another directory of the same disk, durably."""
        os.rename(name, new_name, src_dir_fd=self._descriptor, dst_dir_fd=folder._descriptor)
        os.fsync(folder._descriptor)
        os.fsync(self._descriptor)

    def move_beside(self, name: str, folder: Folder, new_name: str) -> bool:
        """Rename a file like ``move``, unless there is one of the new name; say whether it was."""
        ends = {"src_dir_fd": self._descriptor, "dst_dir_fd": folder._descriptor}
        try:
            os.link(name, new_name, follow_symlinks=False, **ends)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if folder.status(new_name) is not None:
                return False
            os.rename(name, new_name, **ends)
        else:
            os.unlink(name, dir_fd=self._descriptor)
        os.fsync(folder._descriptor)
        os.fsync(self._descriptor)
        return True

    def remove(self, name: str) -> None:
        """Remove a file; its being gone is no error."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    def make_like_the_store(self, descriptor: int) -> None:
        """Give an open file the store's owner, and as much of its openness as the engine would."""
        _own(descriptor, self._owner)
        os.fchmod(descriptor, self._mode & _FILE_MODE | 0o600)

    def _enter(self, name: str, make: bool) -> Folder:
        path = f"{self.path}/{name}"
        made = make and self._make(name)
        try:
            descriptor = os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=self._descriptor)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                text = "is no directory, or a symbolic link, through which nothing is written"
                raise OSError(error.errno, f"{path} {text}") from error
            raise
        if made or (make and _half_made(descriptor)):
            _own(descriptor, self._owner)
            os.fchmod(descriptor, self._mode & _DIRECTORY_MODE | 0o700)
            os.fsync(self._descriptor)
        return Folder(descriptor, path, self._owner, self._mode)

    def _make(self, name: str) -> bool:
        try:
            os.mkdir(name, 0o700, dir_fd=self._descriptor)
        except FileExistsError:
            return False
        return True

    def _open(self, name: str, flags: int, mode: str) -> Any:
        """Open a file that nothing but this directory refers to."""
        flags |= os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=self._descriptor)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is no plain file of its own")
        return os.fdopen(descriptor, mode, buffering=0)


def _model_of(root: int) -> os.stat_result:
    """Return whose owner and openness new entries get: the blobs' directory, else the store's."""
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(BLOBS, dir_fd=root, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            return status
    return os.fstat(root)


def _half_made(descriptor: int) -> bool:
    """Say whether it looks as ``mkdir`` leaves it, so that a run was killed right after that."""
    status = os.fstat(descriptor)
    mine = status.st_uid == os.geteuid() and status.st_mode & 0o777 == 0o700
    return mine and not os.listdir(descriptor)


def _own(descriptor: int, owner: tuple[int, int]) -> None:
    """Change the owner where it differs; without privileges a store of one's own needs nothing."""
    status = os.fstat(descriptor)
    if (status.st_uid, status.st_gid) != owner:
        os.fchown(descriptor, *owner)
