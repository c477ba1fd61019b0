# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""File-system operations that survive a kill and a power cut, and the one atomic exchange."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import stat
from collections.abc import Iterator

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_RENAMEAT2_NUMBER = {"x86_64": 316, "aarch64": 276, "ppc64le": 357, "s390x": 347}
_TEMPORARY = ".hx-new"


def fsync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(
    path: str, data: bytes, mode: int = 0o644, owner: tuple[int, int] = (-1, -1)
) -> None:
    """Replace a file as a whole: readers, and a power cut, see the old or the new content."""
    temporary = f"{path}{_TEMPORARY}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fchown(stream.fileno(), *owner)
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    fsync_directory(os.path.dirname(path) or ".")


def place_symlink(path: str, value: str) -> None:
    """Create a symbolic link, or replace the one at this name, in one atomic step."""
    temporary = f"{path}{_TEMPORARY}"
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
        current = os.path.dirname(current)
    for name in reversed(missing):
        os.mkdir(name)
        os.chmod(name, mode)
        fsync_directory(os.path.dirname(name))
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
    """Yield relative path and lstat of everything below a directory, itself first as ``.``."""
    yield ".", os.lstat(root)
    pending = [""]
    while pending:
        directory = pending.pop()
        try:
            entries = sorted(os.scandir(os.path.join(root, directory)), key=lambda e: e.name)
        except FileNotFoundError:
            continue
        for entry in entries:
            relative = os.path.join(directory, entry.name)
            try:
                info = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield relative, info
            if stat.S_ISDIR(info.st_mode):
                pending.append(relative)
