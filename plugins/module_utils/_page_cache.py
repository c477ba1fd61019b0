# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Reading large files without being in the way of the programs that serve them."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform

WINDOW = 16 * 1024 * 1024  # what is kept in the page cache, or dropped, as a whole

_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282}
_WHO_PROCESS = 1
_IDLE_CLASS = 3 << 13
_LOWEST = 19
_FAILED = ctypes.c_void_p(-1).value


def cached_windows(descriptor: int, size: int) -> list[bool]:
    """Tell which windows of a file have pages in the page cache.

    A kernel that doesn't tell (it does so for those who may write to the file) is taken to have
    cached everything.

    Args:
        descriptor: the open file.
        size: its length in bytes.
    """
    count = -(-size // WINDOW)
    if not count:
        return []
    libc = _libc()
    address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address in (None, _FAILED):
        return [True] * count
    try:
        pages = ctypes.create_string_buffer(WINDOW // mmap.PAGESIZE)
        found = []
        for start in range(0, size, WINDOW):  # nothing is read: a page that is gone does no harm
            length = min(WINDOW, size - start)
            failed = libc.mincore(address + start, length, pages)
            used = pages.raw[: -(-length // mmap.PAGESIZE)]
            found.append(bool(failed) or any(page & 1 for page in used))
        return found
    finally:
        libc.munmap(address, size)


def drop_window(descriptor: int, index: int) -> None:
    """Let the page cache forget a window; pages that a program maps or wrote stay."""
    os.posix_fadvise(descriptor, index * WINDOW, WINDOW, os.POSIX_FADV_DONTNEED)


def be_idle() -> bool:
    """Give this thread the idle I/O class and the lowest CPU priority; tell whether it got both."""
    number = _IOPRIO_SET.get(platform.machine())
    if number is None:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _LOWEST)  # on Linux this is the thread, not the process
    except OSError:  # a sandbox forbids it
        return False
    return libc.syscall(number, _WHO_PROCESS, 0, _IDLE_CLASS) == 0


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int64,
    ]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc
