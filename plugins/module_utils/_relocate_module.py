# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""From a module's parameters to the result of a store's move."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._copytree import Ownership
from ansible_collections.hx_infra.llm.plugins.module_utils._engine_unit import Runner
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._journal import Journal, RunLock
from ansible_collections.hx_infra.llm.plugins.module_utils._open_files import open_inodes
from ansible_collections.hx_infra.llm.plugins.module_utils._progress import ProgressWriter
from ansible_collections.hx_infra.llm.plugins.module_utils._pull_guard import Inodes
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate import (
    Declared,
    Observed,
    Plan,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate_copy import Outcome
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate_observe import (
    DiskPlace,
    find_obstacle,
    look_up_owner,
    observe,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate_pulls import (
    Patience,
    StoreGuard,
    settle,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate_run import Relocation
from ansible_collections.hx_infra.llm.plugins.module_utils._relocate_service import (
    Fetch,
    Service,
)


@dataclass(frozen=True)
class HostAccess:
    """How the host is asked: commands, HTTP and open files; how to wait; who is told of a step."""

    command: Runner
    fetch: Fetch
    on_step: Callable[[str], None] = lambda _step: None
    inodes: Inodes = open_inodes
    pause: Callable[[float], None] = time.sleep


def relocate(params: dict[str, Any], check_mode: bool, host: HostAccess) -> dict[str, Any]:
    """Plan the move and, outside of check mode, carry it out.

    Raises:
        HostError: the move is refused or failed.
    """
    declared = _declared(params)
    now = params["mount_now"]
    disk = DiskPlace(declared.mount_path, declared.mount_path if now is None else now.rstrip("/"))
    if not check_mode and disk.now != disk.path:
        raise HostError(
            f"{declared.host}: mount_now is {disk.now!r}; a real run wants the disk at "
            f"{disk.path!r}.",
            "Leave mount_now out.",
        )
    name = declared.target.strip("/").replace("/", "-")
    journal = Journal(f"{params['journal_dir']}/relocate-{name}.json")
    lock = f"{params['journal_dir']}/relocate-{name}.lock"
    with RunLock(lock, f"the store {declared.target}", create=not check_mode):
        young = params["partial_minutes"] * 60.0
        patience = Patience(params["pull_wait_s"], host.inodes, host.pause)

        def look() -> Observed:
            return observe(declared, disk, host.command, journal.read(), young)

        settled = settle(declared, look, patience, check_mode)
        found, plan = settled.found, settled.plan
        outcome = Outcome()
        if plan.steps and not check_mode:
            with StoreGuard(declared, patience) as guard:
                guard.hold(plan.source or declared.target)
                relocation = Relocation(
                    declared,
                    plan,
                    found,
                    owner=_owner(declared),
                    service=_service(declared, params, host),
                    guard=guard,
                    journal=journal,
                    progress=ProgressWriter(params["progress_file"]),
                    check_way=lambda: _check_way(declared),
                    stamp=time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
                    on_step=host.on_step,
                )
                outcome = relocation.apply()
        elif not check_mode:
            journal.remove()  # a run was killed after its last step
    store_now = declared.target
    if check_mode:
        tree = found.trees.get(plan.source or declared.target)
        store_now = tree.at if tree is not None else declared.target
    return {
        **_result(plan, found, outcome),
        "store_now": store_now,
        "waits_for": settled.waits_for,
        "waited_s": settled.waited_s,
    }


def _declared(params: dict[str, Any]) -> Declared:
    def clean(path: str) -> str:
        return path.rstrip("/") or path

    return Declared(
        host=params["host"] or platform.node(),
        target=clean(params["target"]),
        canonical=clean(params["canonical"]),
        old_paths=tuple(dict.fromkeys(clean(path) for path in params["old_paths"])),
        owner=params["owner"],
        group=params["group"],
        unit=params["unit"],
        url=params["url"],
        mount_path=clean(params["mount_path"] or ""),
        reserve_bytes=params["reserve_bytes"],
        allow_damaged=params["allow_damaged"],
    )


def _owner(declared: Declared) -> Ownership:
    owner = look_up_owner(declared.owner, declared.group)
    if owner is None:
        raise HostError(
            f"{declared.host}: the account {declared.owner}:{declared.group} does not exist.",
            "Create it first; the role host_baseline does.",
        )
    return owner


def _check_way(declared: Declared) -> None:
    obstacle = find_obstacle(declared, DiskPlace("", ""))
    if obstacle:
        raise HostError(f"{declared.host}: {obstacle}")


def _service(declared: Declared, params: dict[str, Any], host: HostAccess) -> Service:
    return Service(
        declared.host,
        declared.unit,
        declared.url,
        host.command,
        host.fetch,
        stop_s=params["stop_timeout"],
        start_s=params["start_timeout"],
    )


def _result(plan: Plan, found: Observed, outcome: Outcome) -> dict[str, Any]:
    before = {place.path: place for place in found.names}
    linked = {step.target: step.value for step in plan.of("link")}
    lines_before = [_line(name, place.kind, place.value) for name, place in before.items()]
    lines_after = [
        _line(name, "link", linked[name])
        if name in linked
        else _line(name, place.kind, place.value)
        for name, place in before.items()
    ]
    return {
        "changed": bool(plan.steps),
        "actions": [step.sentence for step in plan.steps],
        "plan": [step.as_dict() for step in plan.steps],
        "mode": plan.mode,
        "source": plan.source,
        "interruption": outcome.interruption(),
        "bytes_copied": outcome.bytes_copied,
        "blobs_verified": outcome.blobs_verified,
        "owned": outcome.owned,
        "retained": outcome.retained,
        "warnings": outcome.warnings,
        "diff": {"before": "".join(lines_before), "after": "".join(lines_after)},
    }


def _line(name: str, kind: str, value: str) -> str:
    return f"{name}: {f'link to {value}' if kind == 'link' else kind}\n"
