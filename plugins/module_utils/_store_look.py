# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A look at a store: its names, its files, and on request their content, put into one result.

Nothing in the store is changed, and nothing is asked of an engine: it may run or not.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import (
    group_name,
    user_name,
    walk,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_names import parse_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import (
    BLOBS,
    MANIFESTS,
    Store,
    read_store,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._open_files import open_inodes
from ansible_collections.hx_infra.llm.plugins.module_utils._store_access import (
    DIRECTORY,
    FILE,
    LINK,
    OTHER,
    Access,
    Entry,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._store_info import Row, Seen
from ansible_collections.hx_infra.llm.plugins.module_utils._store_ledger import (
    SAVE_S,
    Ledger,
    ledger_path,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._store_lock import held
from ansible_collections.hx_infra.llm.plugins.module_utils._store_report import (
    describe,
    read_access,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._store_verify import verify

Progress = Callable[[str, int, int], None]


def entries(root: str) -> list[Entry]:
    """List the store and all names of its two directories, which may be links themselves.

    Raises:
        HostError: something can't be read.
    """
    make = _Entries()
    found = [make.entry(root, ".", os.lstat(os.path.realpath(root)))]
    try:
        for top in (BLOBS, MANIFESTS):
            path = os.path.join(root, top)
            if os.path.islink(path):
                found.append(make.entry(path, top, os.lstat(path)))
            if os.path.isdir(path):
                for relative, status in walk(os.path.realpath(path)):
                    below = top if relative == "." else f"{top}/{relative}"
                    found.append(make.entry(os.path.join(path, relative), below, status))
    except OSError as error:
        raise HostError(
            f"the model store {root} can't be read: {error.filename}: {error.strerror}."
        ) from error
    return found


class _Entries:
    """Describe names; accounts are looked up once."""

    def __init__(self) -> None:
        self._owner, self._group = lru_cache(None)(user_name), lru_cache(None)(group_name)

    def entry(self, path: str, relative: str, status: os.stat_result) -> Entry:
        found = Entry(
            path=relative,
            kind=_kind(status.st_mode),
            owner=self._owner(status.st_uid),
            group=self._group(status.st_gid),
            mode=stat.S_IMODE(status.st_mode),
        )
        if found.kind == LINK:
            with contextlib.suppress(FileNotFoundError):  # it went away
                target = os.readlink(path)
                return replace(found, target=target, dangling=not os.path.exists(path))
        return found


def _kind(mode: int) -> str:
    for test, kind in ((stat.S_ISREG, FILE), (stat.S_ISDIR, DIRECTORY), (stat.S_ISLNK, LINK)):
        if test(mode):
            return kind
    return OTHER


def inspect(
    params: Mapping[str, Any], *, write: bool, progress: Progress, result: dict[str, Any]
) -> list[str]:
    """Look at a store as the options of the module say; ``result`` is filled as far as it gets.

    Args:
        params: the options of ``model_store_info``.
        write: whether what was verified may be written down.
        progress: called with the path of a blob, bytes read and bytes to read.
        result: the result of the module.

    Returns:
        what went wrong on the way without being a fault of the store, in sentences.

    Raises:
        HostError: the store can't be read, or an option makes no sense, or the verification has
            taken longer than its deadline.
    """
    root = params["store"]
    read_access(params, Access())  # a wrong option is told before anything is read
    store = read_store(root)
    path = ledger_path(params["state_dir"], root)
    ledger = Ledger(path)
    wanted = params["verify"] != "none"
    warnings = [f"{ledger.problem}, so it counts for nothing."] if ledger.problem else []
    result["verification"] = {"mode": params["verify"], "ledger": path}
    if wanted and store.exists:
        try:
            result["verification"].update(_verify(params, store, ledger, write, progress))
        finally:
            if write:
                try:  # blobs that came during the reading may be in the ledger by now, from others
                    ledger.save(keep=read_store(root).blobs)
                except HostError as error:
                    warnings.append(str(error))
    holder = ""
    try:
        holder = held(root)
    except HostError as error:
        warnings.append(str(error))
    result.update(describe(params, _seen(params, store, ledger, holder)))
    return warnings


def _verify(
    params: Mapping[str, Any], store: Store, ledger: Ledger, write: bool, progress: Progress
) -> Row:
    begin = saved = time.monotonic()

    def tell(name: str, done: int, total: int) -> None:
        nonlocal saved
        progress(name, done, total)
        now = time.monotonic()
        if now - begin > params["deadline_s"] and done < total:
            raise HostError(
                f"the verification of {store.root} has read {done:,} of {total:,} bytes within"
                f" {params['deadline_s']} s.",
                "What it read is remembered; the next one goes on, unless it is a full one."
                if write
                else "Raise deadline_s.",
            )
        if write and now - saved >= SAVE_S:
            saved = now
            with contextlib.suppress(HostError):  # told when it fails at the end, too
                ledger.save()

    found = verify(
        store,
        _digests(store, params["models"]),
        ledger,
        full=params["verify"] == "full",
        workers=params["workers"],
        idle=params["idle_io"],
        progress=tell,
    )
    return {
        "read": found.read,
        "remembered": found.remembered,
        "bytes_read": found.bytes_read,
        "seconds": round(found.seconds, 3),
        "corrupt": sorted(found.corrupt),
        "unreadable": sorted(found.unreadable),
        "idle": found.idle,
    }


def _digests(store: Store, names: Iterable[str]) -> list[str]:
    """Return the blobs to verify: those of the named models, or all when none is named."""
    wanted = {parse_name(name).key for name in names}
    if not wanted:
        return list(store.blobs)
    models = [*store.models.values(), *store.twins]
    needed = store.referenced(model for model in models if model.name.key in wanted)
    return [digest for digest in store.blobs if digest in needed]


def _seen(params: Mapping[str, Any], store: Store, ledger: Ledger, holder: str) -> Seen:
    times = {digest: ledger.verified_at(blob) for digest, blob in store.blobs.items()}
    seen = Seen(
        store=store,
        entries=entries(store.root) if store.exists else [],
        verified={digest: moment for digest, moment in times.items() if moment is not None},
        now=time.time(),
        min_age_s=params["partial_min_age_s"],
        holder=holder,
    )
    if store.partials or len(store.referenced() & set(store.blobs)) < len(store.blobs):
        busy, sees_all = open_inodes()
        seen = replace(seen, busy=busy, sees_all=sees_all)
    return seen
