# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The renames that put a store at its place and take it back, each safe to repeat after a kill.

Where kernel and file system have ``RENAME_EXCHANGE``, every path leads to the whole old or the
whole new store at each instant. Without it a path is absent between two renames, while the engine
is stopped, and the next run puts it back.
"""

from __future__ import annotations

import os

from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    exchange,
    exchange_missing,
    fsync_directory,
    make_directories,
    place_symlink,
    remove_empty_tree,
)


def place_copy(staging: str, target: str) -> None:
    """Give the verified copy its final name; what stands there is a link or empty directories."""
    if os.path.islink(target):
        exchange(staging, target)
        os.unlink(staging)
    else:
        if os.path.isdir(target):
            remove_empty_tree(target)
        os.rename(staging, target)
    fsync_directory(os.path.dirname(target))


def switch(source: str, retained: str, target: str) -> None:
    """Put a link to the target in the place of the old store, which gets another name."""
    place_symlink(retained, target)
    try:
        exchange(source, retained)
    except OSError as error:
        if not exchange_missing(error):
            raise
        os.unlink(retained)
        os.rename(source, retained)
        place_symlink(source, target)


def rename_with_link(source: str, target: str) -> None:
    """Move a directory within its file system and leave a link in its place."""
    make_directories(os.path.dirname(target))
    if os.path.isdir(target) and not os.path.islink(target):
        remove_empty_tree(target)
    if not os.path.islink(target):
        place_symlink(target, target)  # leads nowhere here, and to the store once it is at source
    try:
        exchange(source, target)
    except OSError as error:
        if not exchange_missing(error):
            raise
        os.unlink(target)
        os.rename(source, target)
    place_symlink(source, target)
    fsync_directory(os.path.dirname(target))


def switch_back(source: str, old: str) -> bool:
    """Put the old store, which has another name now, back in the place of the link."""
    if not os.path.isdir(old) or os.path.islink(old):
        return False
    try:
        exchange(source, old)
        os.unlink(old)
    except OSError as error:
        if not exchange_missing(error):
            raise
        os.unlink(source)
        os.rename(old, source)
    fsync_directory(os.path.dirname(source))
    return True


def restore_links(links: dict[str, str]) -> None:
    """Give links their earlier values; an empty value stands for a name that was not there."""
    for name, value in links.items():
        if value:
            place_symlink(name, value)
        elif os.path.islink(name):
            os.unlink(name)
            fsync_directory(os.path.dirname(name))
