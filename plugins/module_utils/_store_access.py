# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Owners, modes and links in a store: what is seen, and what isn't as it must be."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import BLOBS, MANIFESTS

FILE, DIRECTORY, LINK, OTHER = "file", "directory", "link", "other"


@dataclass(frozen=True)
class Entry:
    """A name in a store with its permissions, links not followed.

    Attributes:
        path: relative to the store; ``.`` is the store itself.
        kind: file, directory, link or other.
        owner: name of its owner.
        group: name of its group.
        mode: its permission bits.
        target: where a link leads.
        dangling: whether that isn't there.
    """

    path: str
    kind: str
    owner: str = ""
    group: str = ""
    mode: int = 0
    target: str = ""
    dangling: bool = False


@dataclass(frozen=True)
class Access:
    """Whom the files have to belong to, and their modes.

    Attributes:
        owner: name of the owner; any when empty.
        group: name of the group; any when empty.
        file_mode: permission bits of files. With None the owner has to be able to read them, and
            nobody but the owner and the group may write.
        dir_mode: permission bits of directories; None as with files.
    """

    owner: str = ""
    group: str = ""
    file_mode: int | None = None
    dir_mode: int | None = None


def usual_access(entries: Sequence[Entry]) -> Access:
    """Return owner and group of most blobs, or those of the store when it has none."""
    counts = Counter(
        (entry.owner, entry.group)
        for entry in entries
        if entry.kind == FILE and entry.path.startswith(f"{BLOBS}/")
    )
    if counts:
        return Access(*max(counts, key=lambda pair: (counts[pair], pair)))
    return next((Access(item.owner, item.group) for item in entries if item.path == "."), Access())


def wrong_access(entries: Iterable[Entry], access: Access) -> list[dict[str, Any]]:
    """List the files and directories that belong to others, or have another mode."""
    found = []
    for entry in entries:
        if entry.kind not in (FILE, DIRECTORY):
            continue
        problem = "; ".join(_problems(entry, access))
        if problem:
            found.append(
                {
                    "path": entry.path,
                    "owner": entry.owner,
                    "group": entry.group,
                    "mode": f"{entry.mode:04o}",
                    "problem": problem,
                }
            )
    return found


def links(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """List the symbolic links of a store.

    ``odd`` are those that lead nowhere, and those in place of a file: an engine may well have its
    directories elsewhere, but it replaces and removes the files as if they were its own.
    """
    return [
        {
            "path": entry.path,
            "target": entry.target,
            "dangling": entry.dangling,
            "odd": entry.dangling or entry.path not in (".", BLOBS, MANIFESTS),
        }
        for entry in entries
        if entry.kind == LINK
    ]


def _problems(entry: Entry, access: Access) -> Iterator[str]:
    if access.owner not in ("", entry.owner):
        yield f"the owner is {entry.owner}, wanted {access.owner}"
    if access.group not in ("", entry.group):
        yield f"the group is {entry.group}, wanted {access.group}"
    folder = entry.kind == DIRECTORY
    wanted = access.dir_mode if folder else access.file_mode
    if wanted is not None:
        if entry.mode != wanted:
            yield f"the mode is {entry.mode:04o}, wanted {wanted:04o}"
        return
    if entry.mode & stat.S_IWOTH:
        yield f"the mode is {entry.mode:04o}, so that everybody may write"
    needed = stat.S_IRUSR | (stat.S_IXUSR if folder else 0)
    if entry.mode & needed != needed:
        yield f"the mode is {entry.mode:04o}, so that the owner can't read"
