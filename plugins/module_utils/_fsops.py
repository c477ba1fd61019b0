# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""File-system operations that survive a kill and a power cut, and the one atomic exchange.

Modules run as root in trees that other accounts may write to. What walks such a tree opens each
entry without following links and compares it with what was listed, so that nobody can put a link
to another file in its place in between.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import grp
import hashlib
import os
import platform
import pwd
import stat
from collections.abc import Callable, Iterator

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_RENAMEAT2_NUMBER = {"x86_64": 316, "aarch64": 276, "ppc64le": 357, "s390x": 347}
_TEMPORARY = ".hx-new"
CHUNK = 4 * 1024 * 1024


def _temporary(path: str) -> str:
    """Name a file beside another: hidden, and always the same, so that a crash leaves one."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}{_TEMPORARY}")


def fsync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(
    path: str,
    data: bytes,
    mode: int = 0o644,
    owner: tuple[int, int] = (-1, -1),
    mtime_ns: int | None = None,
) -> None:
    """Replace a file as a whole: readers, and a power cut, see the old or the new content.

    Args:
        path: the file; a link there is replaced, not followed.
        data: its content.
        mode: its permissions, given to it before it gets its name.
        owner: user and group id; -1 stands for the ones of this process.
        mtime_ns: time of its last change; now when not given.
    """
    temporary = _temporary(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchown(stream.fileno(), *owner)  # first: it takes the set-user-ID bit away
            os.fchmod(stream.fileno(), mode)
            if mtime_ns is not None:
                os.utime(stream.fileno(), ns=(mtime_ns, mtime_ns))
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    fsync_directory(os.path.dirname(path) or ".")


def place_symlink(path: str, value: str) -> None:
    """Create a symbolic link, or replace the one at this name, in one atomic step."""
    temporary = _temporary(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    os.symlink(value, temporary)
    os.rename(temporary, path)
    fsync_directory(os.path.dirname(path) or ".")


def make_directories(path: str, mode: int = 0o755) -> list[str]:
    """Create a directory and its missing parents with exactly this mode; return those created."""
    missing = []
    current = path
    while not os.path.isdir(current):
        missing.append(current)
        current = os.path.dirname(current) or "."
    for name in reversed(missing):
        os.mkdir(name)
        os.chmod(name, mode)
        fsync_directory(os.path.dirname(name) or ".")
    return list(reversed(missing))


def exchange(first: str, second: str) -> None:
    """Swap two names of one file system in a single step (Linux ``RENAME_EXCHANGE``).

    Raises:
        OSError: ``ENOSYS`` or ``EINVAL`` when the kernel, the C library or the file system has no
            such operation; ``EBUSY`` when one of them is a mount point.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (
        _AT_FDCWD,
        ctypes.c_char_p(os.fsencode(first)),
        _AT_FDCWD,
        ctypes.c_char_p(os.fsencode(second)),
        ctypes.c_uint(_RENAME_EXCHANGE),
    )
    function = getattr(libc, "renameat2", None)
    if function is not None:
        failed = function(*arguments)
    else:  # C libraries older than 2.28 know the call by number only
        number = _RENAMEAT2_NUMBER.get(platform.machine())
        if number is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), first)
        failed = libc.syscall(number, *arguments)
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), first, None, second)
    for parent in sorted({os.path.dirname(first), os.path.dirname(second)}):
        fsync_directory(parent)


def exchange_missing(error: OSError) -> bool:
    """Tell whether an error of :func:`exchange` means that there is no such operation here."""
    return error.errno in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)


def walk(root: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield relative path and lstat of everything below a directory, itself first as ``.``.

    A directory that is not the one that was listed any more is passed over like one that is gone.
    """
    yield ".", os.lstat(root)
    pending = [("", os.stat(root))]
    while pending:
        directory, known = pending.pop()
        path = os.path.join(root, directory) if directory else os.path.realpath(root)
        for name, info in _listed(path, known):
            relative = os.path.join(directory, name)
            yield relative, info
            if stat.S_ISDIR(info.st_mode):
                pending.append((relative, info))


def _listed(path: str, known: os.stat_result) -> list[tuple[str, os.stat_result]]:
    found = []
    try:
        descriptor = open_same(path, known, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return []
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    found.append((entry.name, entry.stat(follow_symlinks=False)))
    finally:
        os.close(descriptor)
    return sorted(found, key=lambda item: item[0])


def open_same(path: str, known: os.stat_result, flags: int = os.O_RDONLY) -> int:
    """Open what was listed at a path, whatever was put there since.

    Raises:
        FileNotFoundError: it is not there any more.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
        raise
    if not os.path.samestat(os.fstat(descriptor), known):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return descriptor


def set_access(
    path: str,
    known: os.stat_result,
    *,
    owner: tuple[int, int] | None = None,
    mode: int | None = None,
) -> None:
    """Give what was listed at a path an owner and a mode; a link there is never followed.

    Raises:
        FileNotFoundError: it is not there any more.
    """
    descriptor = open_same(path, known, os.O_PATH)
    try:
        handle = f"/proc/self/fd/{descriptor}"  # the entry itself, whatever its name leads to
        if owner is not None and owner != (known.st_uid, known.st_gid):
            os.chown(handle, *owner)
        if mode is not None and not stat.S_ISLNK(known.st_mode):
            os.chmod(handle, mode)
    finally:
        os.close(descriptor)


def remove_empty_tree(path: str) -> None:
    """Remove a directory below which only directories stand.

    Raises:
        OSError: ``ENOTEMPTY`` when something else stands there; nothing but directories is gone.
    """
    for name, info in reversed(list(walk(path))):
        if stat.S_ISDIR(info.st_mode):
            os.rmdir(os.path.normpath(os.path.join(path, name)))


def file_sha256(path: str, progress: Callable[[int], None] = lambda _count: None) -> str:
    """Read a file and return its SHA-256 in hexadecimal digits."""
    checksum = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        while True:
            data = stream.read(CHUNK)
            if not data:
                return checksum.hexdigest()
            checksum.update(data)
            progress(len(data))


def user_name(uid: int) -> str:
    """Return a user's name, or its number when it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """Return a group's name, or its number when it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
