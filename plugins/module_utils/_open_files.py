# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Which files any process has open, read from /proc."""

from __future__ import annotations

import os


def open_inodes(proc: str = "/proc") -> tuple[set[tuple[int, int]], bool]:
    """Return device and inode of every open file, and whether all processes could be seen.

    Inodes, because an engine in a container knows the store by another path.
    """
    found: set[tuple[int, int]] = set()
    complete = True
    for pid in (name for name in os.listdir(proc) if name.isdigit()):
        try:
            numbers = os.listdir(f"{proc}/{pid}/fd")
        except OSError as error:
            complete = complete and not isinstance(error, PermissionError)
            continue
        for number in numbers:
            try:
                status = os.stat(f"{proc}/{pid}/fd/{number}")
            except OSError as error:
                complete = complete and not isinstance(error, PermissionError)
                continue
            found.add((status.st_dev, status.st_ino))
    return found, complete
