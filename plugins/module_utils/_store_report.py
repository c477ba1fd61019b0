# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The result of ``model_store_info``: what was seen of a store, put into lists for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import group_name, user_name
from ansible_collections.hx_infra.llm.plugins.module_utils._ollama_store import StoredFile
from ansible_collections.hx_infra.llm.plugins.module_utils._store_access import (
    Access,
    usual_access,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._store_audit import Audit
from ansible_collections.hx_infra.llm.plugins.module_utils._store_info import Inventory, Row, Seen
from ansible_collections.hx_infra.llm.plugins.module_utils._timestamp import utc
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import as_dicts

LISTED = 100  # rows of a list in a summary
NAMED = 20  # models named in a row of a summary


def describe(params: Mapping[str, Any], seen: Seen) -> dict[str, Any]:
    """Put everything that is known about a store into the form of the module's result."""
    store, full = seen.store, params["details"] == "full"
    inventory = Inventory(seen)
    access = read_access(params, usual_access(seen.entries))
    audit = Audit(inventory, access, checked=params["verify"] != "none")
    lists: dict[str, list[Any]] = {
        "blobs": inventory.blobs(full=full),
        "missing": inventory.missing_blobs(),
        "shared": inventory.shared(),
        "partials": inventory.partials(),
        "unreadable_manifests": [
            {"path": path, "reason": why} for path, why in store.corrupt.items()
        ],
        "twins": [{"name": str(model.name), "path": model.path} for model in store.twins],
        "stray": list(store.stray),
        "foreign": [_file(file, seen) for file in store.foreign],
        "old_names": [_file(file, seen) for file in store.old_names],
        "aside": [_file(file, seen) for file in store.aside.values()],
        "incoming": [_file(file, seen) for file in store.incoming],
        "links": audit.links,
        "access": audit.access,
    }
    omitted = {name: len(rows) - LISTED for name, rows in lists.items() if len(rows) > LISTED}
    return {
        "store": store.root,
        "exists": store.exists,
        "read_at": utc(seen.now),
        "holder": seen.holder,
        "models": inventory.models(full=full),
        **(lists if full else {name: _short(rows) for name, rows in lists.items()}),
        "omitted": {} if full else omitted,
        "totals": inventory.totals(),
        "expected_access": {
            "owner": access.owner,
            "group": access.group,
            "file_mode": _octal(access.file_mode),
            "dir_mode": _octal(access.dir_mode),
        },
        "sees_all_processes": seen.sees_all,
        "findings": audit.findings(),
        "verdicts": as_dicts(audit.verdicts()),
    }


def _short(rows: list[Any]) -> list[Any]:
    return [_shorter(row) if isinstance(row, dict) else row for row in rows[:LISTED]]


def _shorter(row: Row) -> Row:
    names = row.get("models", ())
    if len(names) <= NAMED:
        return row
    return {**row, "models": names[:NAMED], "more_models": len(names) - NAMED}


def _file(file: StoredFile, seen: Seen) -> Row:
    return {
        "path": file.path,
        "digest": file.digest,
        "size_bytes": file.size,
        "held_bytes": file.held,
        "age_s": max(0, int(seen.now - file.mtime)),
    }


def read_access(params: Mapping[str, Any], usual: Access) -> Access:
    """Read from the options what owners and modes have to be.

    Raises:
        HostError: a mode is none.
    """
    return Access(
        owner=_account(params["owner"], user_name) or usual.owner,
        group=_account(params["group"], group_name) or usual.group,
        file_mode=_mode(params, "file_mode"),
        dir_mode=_mode(params, "dir_mode"),
    )


def _account(text: str, name: Callable[[int], str]) -> str:
    return name(int(text)) if text.isdigit() else text


def _mode(params: Mapping[str, Any], option: str) -> int | None:
    text = params[option]
    if not text:
        return None
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise HostError(f"{option} is {text!r}, wanted an octal number such as '0644'.")
    return mode


def _octal(mode: int | None) -> str:
    return "" if mode is None else f"{mode:04o}"
