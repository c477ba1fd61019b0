# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Whether a model store is being filled at this moment, so that its engine must not be stopped.

A restart breaks a download off, and servers before 0.21 delete what there is of it when they
start.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._env_file import human_size
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    Store,
    StoredFile,
    read_store,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._open_files import open_inodes
from ansible_collections.hx_infra.llm.plugins.module_utils._store_lock import held

POLL_S = 1.0
FRESH_S = 60.0  # where open files can't be seen, a file that changed within a minute counts
_SHOWN = 3

Inodes = Callable[[], "tuple[set[tuple[int, int]], bool]"]


def pulls_going_on(
    root: str, *, inodes: Inodes = open_inodes, now: Callable[[], float] = time.time
) -> list[str]:
    """Say what is filling a store, one sentence part each; empty when nothing does.

    Args:
        root: the store's directory; one that isn't there is filled by nobody.
        inodes: device and inode of every open file, and whether all processes could be seen.
        now: the time, in seconds since the epoch.

    Raises:
        HostError: the store or its lock can't be looked at.
    """
    return [*runs_going_on(root), *downloads_going_on(root, inodes=inodes, now=now)]


def runs_going_on(root: str) -> list[str]:
    """Say which other run works on a store, as a sentence part; empty when none does.

    Raises:
        HostError: the lock can't be looked at.
    """
    holder = held(root) if os.path.isdir(root) else ""
    return [f"{holder} holds the store {root}"] if holder else []


def downloads_going_on(
    root: str, *, inodes: Inodes = open_inodes, now: Callable[[], float] = time.time
) -> list[str]:
    """Say which downloads are writing into a store; arguments as of :func:`pulls_going_on`.

    Raises:
        HostError: the store can't be looked at.
    """
    if not os.path.isdir(root):
        return []
    store = read_store(root)
    # A pull verifies its blobs when all have come, and writes the manifest last. What a manifest
    # that can't be read refers to, an engine may just as well have open because it answers with it.
    used = store.blobs.keys() if store.corrupt else store.referenced()
    verifying = [blob for digest, blob in store.blobs.items() if digest not in used]
    files = [*store.partials, *store.incoming, *verifying]
    if not files:
        return []
    opened, complete = inodes()
    fresh = now() - FRESH_S
    live = {
        file.digest: file
        for file in reversed(files)  # of a download's files the first stands for all
        if file.inode in opened or (not complete and file.mtime > fresh)
    }
    return [_download(root, live[digest], store) for digest in sorted(live)]


def _download(root: str, file: StoredFile, store: Store) -> str:
    path = os.path.join(root, file.path)
    if store.blobs.get(file.digest) is file:
        return f"a download that has come is reading {path}, which no model refers to yet"
    return f"a download is writing {path} ({human_size(file.held)} so far)"


def wait_for_pulls(
    root: str,
    wait_s: float,
    *,
    look: Callable[[str], list[str]] = pulls_going_on,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> tuple[list[str], float]:
    """Wait until nothing fills a store any more.

    Returns:
        What still does when the time is up (empty when nothing does), and the seconds waited.
    """
    begin = clock()
    while True:
        going_on = look(root)
        waited = clock() - begin
        if not going_on or waited >= wait_s:
            return going_on, waited
        pause(min(POLL_S, wait_s - waited))


def outwait(what: str, verb: str, root: str, wait_s: float, result: dict[str, Any]) -> None:
    """Wait until nothing fills a store any more, or refuse what has to wait for that.

    Args:
        what: what has to wait, for the message.
        verb: what is done with it then.
        root: the store.
        wait_s: how long, in seconds; with 0 it is refused at once.
        result: a module's; gets the seconds as ``waited_s``, also when it is refused.

    Raises:
        HostError: something still fills it.
    """
    going_on, waited = wait_for_pulls(root, wait_s)
    result["waited_s"] = round(waited, 1)
    if going_on:
        raise refusal(what, verb, going_on, waited)


def refusal(what: str, verb: str, going_on: Sequence[str], waited_s: float) -> HostError:
    """Return the error for something that isn't done because of a download.

    Args:
        what: a unit, a store, or what was to be done.
        verb: what was to be done with it: ``restarted``, ``moved``, ``begun``.
        going_on: what :func:`pulls_going_on` said.
        waited_s: how long was waited for its end.
    """
    waited = f" and had not ended after {waited_s:.0f} s" if waited_s >= 1 else ""
    return HostError(
        f"{what} was not {verb}: {several(going_on)}{waited}; wanted a store that nobody fills,"
        f" because older servers delete unfinished downloads when they start.",
        "Let it end or end it yourself, then run again.",
    )


def several(parts: Sequence[str]) -> str:
    """Join sentence parts; of many only the first are told."""
    shown = "; ".join(parts[:_SHOWN])
    return f"{shown}; and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else shown
