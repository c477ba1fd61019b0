# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Make one directory tree the same as another: what a migration needs of rsync, and no more.

Content, modes, times, hard links, symbolic links, extended attributes and holes are kept; owners
are set to what the caller declares. Every file is on disk before its name is, and a pass over an
unfinished copy only does what is missing.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    CHUNK,
    fsync_directory,
    open_same,
    walk,
)

_PART = ".hx-part"
_SKIPPED_ATTRIBUTES = ("security.selinux", "security.evm", "security.ima")
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "ppc64le": 273, "s390x": 282}
_IOPRIO_IDLE = 3 << 13

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Ownership:
    """Owner and group that every entry gets, and what modes become."""

    uid: int
    gid: int

    def mode(self, mode: int) -> int:
        """Return the permission bits wanted: usable by the owner, written by nobody else."""
        bits = stat.S_IMODE(mode) & 0o755 | 0o600
        return bits | 0o100 if stat.S_ISDIR(mode) else bits

    def differs(self, info: os.stat_result) -> bool:
        """Tell whether an entry has another owner, group or mode than wanted."""
        if (info.st_uid, info.st_gid) != (self.uid, self.gid):
            return True
        is_link = stat.S_ISLNK(info.st_mode)
        return not is_link and stat.S_IMODE(info.st_mode) != self.mode(info.st_mode)


@dataclass
class Copied:
    """What one pass did."""

    bytes: int = 0
    changed: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)


@dataclass
class _Job:
    """The state of one pass over a tree."""

    source: str
    target: str
    owner: Ownership
    progress: Progress
    done: Copied = field(default_factory=Copied)
    first_of: dict[tuple[int, int], str] = field(default_factory=dict)


def set_idle_io(idle: bool) -> None:
    """Give way to every other process that reads or writes, or stop doing so; best effort."""
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None, use_errno=True).syscall(number, 1, 0, _IOPRIO_IDLE if idle else 0)


def copy_tree(
    source: str,
    target: str,
    owner: Ownership,
    *,
    progress: Progress = lambda _count: None,
    live: bool = False,
    sealed: bool = False,
) -> Copied:
    """Make the tree below a target the same as the one below a source.

    Args:
        source: an existing directory.
        target: an existing directory; what is not in the source is removed from it.
        owner: owner, group and modes of the copy.
        progress: called with the number of bytes each time some are written.
        live: the source is in use, so that entries may vanish while they are read.
        sealed: nobody else gets into the target until :func:`unseal` gives it its owner and mode.

    Raises:
        HostError: the source holds something that is neither a file, a directory nor a link.
        OSError: reading or writing failed; a further pass continues.
    """
    job = _Job(source, target, owner, progress)
    done = job.done
    if sealed:
        os.chown(target, os.geteuid(), os.getegid())
        os.chmod(target, 0o700)
    wanted: set[str] = set()
    directories: list[tuple[str, os.stat_result]] = []
    for name, info in walk(source):
        wanted.add(name)
        try:
            if stat.S_ISDIR(info.st_mode):
                _copy_directory(os.path.join(target, name), name, done)
                directories.append((name, info))
            else:
                _copy_entry(job, name, info)
        except FileNotFoundError:
            if not live:
                raise
            wanted.discard(name)
    _delete_others(target, wanted, done)
    for name, info in reversed(directories):
        path = os.path.normpath(os.path.join(target, name))
        if not (sealed and name == "."):
            _set_metadata(path, info, owner, os.path.normpath(os.path.join(source, name)))
        fsync_directory(path)
    return done


def unseal(source: str, target: str, owner: Ownership) -> None:
    """Give a sealed copy's directory the owner, mode and times that it has to have."""
    _set_metadata(target, os.lstat(source), owner, source)
    fsync_directory(target)


def _copy_directory(path: str, name: str, done: Copied) -> None:
    try:
        info = os.lstat(path)
        if stat.S_ISDIR(info.st_mode):
            return
        os.unlink(path)
    except FileNotFoundError:
        pass
    os.mkdir(path, 0o700)
    done.changed.append(name)


def _copy_entry(job: _Job, name: str, info: os.stat_result) -> None:
    origin, path = os.path.join(job.source, name), os.path.join(job.target, name)
    identity = (info.st_dev, info.st_ino)
    if info.st_nlink > 1 and identity in job.first_of:
        if not _same_inode(path, job.first_of[identity]):
            remove_tree(path)
            os.link(job.first_of[identity], path, follow_symlinks=False)
            job.done.changed.append(name)
        return
    if stat.S_ISLNK(info.st_mode):
        changed = _copy_link(origin, path, job.owner)
    elif stat.S_ISREG(info.st_mode):
        changed = not _same_file(path, info)
        if changed:
            job.done.bytes += _copy_file(origin, info, path, job.owner, job.progress)
        else:
            job.progress(info.st_size)
            _set_metadata(path, info, job.owner, origin)
    else:
        raise HostError(
            f"{origin} is neither a file, a directory nor a link and cannot be copied.",
            "Remove it from the store, then run again.",
        )
    if changed:
        job.done.changed.append(name)
    job.first_of[identity] = path


def _copy_link(origin: str, path: str, owner: Ownership) -> bool:
    value = os.readlink(origin)
    with contextlib.suppress(OSError):
        if os.readlink(path) == value:
            return False
    remove_tree(path)
    os.symlink(value, path)
    os.lchown(path, owner.uid, owner.gid)
    return True


def _copy_file(
    origin: str, listed: os.stat_result, path: str, owner: Ownership, progress: Progress
) -> int:
    part = os.path.join(os.path.dirname(path), f"{_PART}-{os.path.basename(path)[-200:]}")
    remove_tree(part)
    handle = open_same(origin, listed)
    with open(handle, "rb", buffering=0) as reader, open(part, "xb", buffering=0) as writer:
        info = os.fstat(reader.fileno())  # of what is read: a file that grows later differs again
        written = _copy_data(reader.fileno(), writer.fileno(), info.st_size, progress)
        _set_metadata(part, info, owner, origin)
        os.fsync(writer.fileno())
        # Later reads, the verification first, come from the disk instead of from memory.
        os.posix_fadvise(writer.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if os.path.isdir(path) and not os.path.islink(path):
        remove_tree(path)
    os.rename(part, path)
    return written


def _copy_data(reader: int, writer: int, size: int, progress: Progress) -> int:
    position = written = 0
    while position < size:
        try:
            begin = os.lseek(reader, position, os.SEEK_DATA)
            end = min(os.lseek(reader, begin, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                break
            if error.errno != errno.EINVAL:
                raise
            begin, end = position, size
        progress(max(0, min(begin, size) - position))
        position = begin
        while position < end:
            data = os.pread(reader, min(CHUNK, end - position), position)
            if not data:
                break
            view = memoryview(data)
            while view:
                count = os.pwrite(writer, view, position)
                position += count
                written += count
                view = view[count:]
            progress(len(data))
        if position < end:  # cut short while it was read: its time differs, the next pass sees it
            break
    os.ftruncate(writer, size)
    return written


def _same_file(path: str, info: os.stat_result) -> bool:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return (
        stat.S_ISREG(there.st_mode)
        and there.st_size == info.st_size
        and there.st_mtime_ns == info.st_mtime_ns
    )


def _same_inode(path: str, other: str) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.lstat(other))
    except FileNotFoundError:
        return False


def _set_metadata(path: str, info: os.stat_result, owner: Ownership, origin: str) -> None:
    there = os.lstat(path)
    if (there.st_uid, there.st_gid) != (owner.uid, owner.gid):
        os.lchown(path, owner.uid, owner.gid)
    _copy_attributes(origin, path)
    if stat.S_IMODE(os.lstat(path).st_mode) != owner.mode(info.st_mode):
        os.chmod(path, owner.mode(info.st_mode))
    if there.st_mtime_ns != info.st_mtime_ns:
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def _copy_attributes(origin: str, path: str) -> None:
    try:
        names = os.listxattr(origin)
    except OSError:
        return
    for name in names:
        if name in _SKIPPED_ATTRIBUTES:
            continue
        value = os.getxattr(origin, name)
        with contextlib.suppress(OSError):
            if os.getxattr(path, name) == value:
                continue
        try:
            os.setxattr(path, name, value)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                raise


def _delete_others(target: str, wanted: set[str], done: Copied) -> None:
    others = [(name, info) for name, info in walk(target) if name not in wanted]
    for name, info in reversed(others):
        path = os.path.join(target, name)
        if stat.S_ISDIR(info.st_mode):
            os.rmdir(path)
        else:
            os.unlink(path)
        done.deleted.append(name)


def remove_tree(path: str) -> None:
    """Remove whatever has this name, a directory with everything below it."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            return
        for name, info in reversed(list(walk(path))):
            entry = os.path.normpath(os.path.join(path, name))
            if stat.S_ISDIR(info.st_mode):
                os.rmdir(entry)
            else:
                os.unlink(entry)
