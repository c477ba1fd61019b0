# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Bring servers of a gateway to what is wished, and keep what a reload or a restart needs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_files import (
    DrainNotes,
    Routes,
    check_state_directory,
    locked,
    read_routes,
    read_state,
    write_state,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_observe import (
    Gateway,
    Server,
    as_dict,
    observe,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_places import (
    Resolve,
    addresses_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_plan import (
    Plan,
    Wish,
    lines,
    model_of,
    orders,
    owner_of,
    plan_traffic,
    select,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_socket import Runtime
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_stat import (
    FORCED_DRAIN,
    Key,
)

_ATTEMPTS = 3  # one for the work, two for reloads that come in between


@dataclass(frozen=True)
class Settings:
    """What a run is told besides the wish."""

    state_file: str
    notes_file: str
    routes_file: str
    budget_s: float
    reload_wait_s: float
    on_deadline: str
    assume_drained: str = ""


@dataclass
class Outcome:
    """What a run has done so far; the result is made of it."""

    before: str = ""
    drained_before: bool = False
    waited_s: float = 0.0
    cut_streams: int = 0
    failure: str = ""
    warnings: list[str] = field(default_factory=list)


class Traffic:
    """One run on one gateway.

    Args:
        runtime: HAProxy's sockets.
        wish: what is asked for.
        settings: files, budgets.
        on_step: is told of each thing that was done, for tests that interrupt a run.
        resolve: returns the addresses of a name.
    """

    def __init__(
        self,
        runtime: Runtime,
        wish: Wish,
        settings: Settings,
        on_step: Callable[[str], None] = lambda _step: None,
        resolve: Resolve = addresses_of,
    ) -> None:
        self.runtime = runtime
        self.wish = wish
        self.settings = settings
        self.on_step = on_step
        self.resolve = resolve
        self.notes = DrainNotes(settings.notes_file)
        self.routes: Routes = read_routes(wish.gateway, settings.routes_file)
        self.out = Outcome()
        if not self.routes.found:
            self.out.warnings.append(
                f"{wish.gateway}: {settings.routes_file} is missing; models are called by the "
                "names of their backends."
            )
        check_state_directory(wish.gateway, settings.state_file)

    def plan(self, gateway: Gateway, dry: bool) -> Plan:
        """Compare the gateway with the wish, and note what the result has to say about before."""
        notes = self.notes.read()
        selected = select(gateway.servers, self.wish, self.routes.backends, self.routes.owners)
        if dry and self.settings.assume_drained and self.wish.state == "ready":
            selected, notes = _assumed(selected, notes, self.settings.assume_drained)
        self.out.before = lines(selected, notes)
        self.out.drained_before = all(server.admin.name != "ready" for server in selected)
        return plan_traffic(
            self.wish,
            gateway.servers,
            selected,
            notes=notes,
            saved=read_state(self.settings.state_file),
            routes=self.routes.backends,
            files=(self.settings.state_file, self.settings.notes_file),
        )

    def lock(self, dry: bool = False) -> contextlib.AbstractContextManager[None]:
        """Hold the gateway's lock; in check mode an existing one is shared."""
        return locked(
            self.settings.notes_file,
            self.wish.gateway,
            create=not dry,
            clock=self.runtime.clock,
            sleep=self.runtime.sleep,
        )

    def apply(self, plan: Plan, gateway: Gateway) -> Gateway:
        """Carry the plan out and return the gateway as it is then.

        The note stands before the drain and goes after the release, so that a run that was killed
        in between leaves nothing that the next one takes for somebody else's.
        """
        noted = [step.target for step in plan.steps if step.action == "drain"]
        if noted:
            self.notes.add(noted, self.wish.owner)
            self.on_step("note")
        gateway = self.settle(plan, gateway)
        forgotten = [server.target for server in plan.after if server.admin.name == "ready"]
        if any(step.action == "forget" for step in plan.steps):
            self.notes.remove(forgotten)
            self.on_step("forget")
        return gateway

    def settle(self, plan: Plan, gateway: Gateway) -> Gateway:
        """Set what differs, save it, and see that a reload in between has not undone it."""
        keys = [server.key for server in plan.after]
        kept = {target for target, _owner in plan.left}
        save = any(step.action == "save_state" for step in plan.steps)
        for _attempt in range(_ATTEMPTS):
            commands = self._missing(gateway, keys, kept)
            for command in commands:
                self.runtime.order(command)
                self.on_step(command)
            now = observe(self.runtime)
            still = self._missing(now, keys, kept)
            if still and now.pid == gateway.pid:
                raise HostError(
                    f"{self.wish.gateway}: HAProxy took '{commands[0]}' without a complaint, but "
                    f"'{still[0]}' is still needed.",
                    "See what 'show servers state' says about this server; a server whose name "
                    "can't be resolved stays in maintenance.",
                )
            gateway = now
            if still:
                continue
            if not save and not commands:
                return now
            if self.settings.state_file:
                write_state(self.settings.state_file, now.state_text, self.routes.places)
                self.on_step("save_state")
            gateway = observe(self.runtime)
            if not self._missing(gateway, keys, kept):
                return gateway
        raise HostError(
            f"{self.wish.gateway}: HAProxy was reloaded {_ATTEMPTS} times while "
            f"{self.wish.subject} was set to {self.wish.state}, and forgot it each time.",
            "Let the reloads end, and see that the unit saves the servers' state before a reload.",
        )

    def _missing(self, gateway: Gateway, keys: Sequence[Key], kept: set[str]) -> list[str]:
        return [
            command
            for server in gateway.these(keys)
            if server.target not in kept
            for command in orders(server, self.wish)
        ]

    def result(self, plan: Plan, servers: Sequence[Server], dry: bool) -> dict[str, Any]:
        """Return what the module returns, the same keys in check mode and for real."""
        notes = self.notes.read()
        if dry:
            notes = self._predicted(plan, notes)
        held = [notes[server.target] for server in servers if owner_of(server, notes) is not None]
        shown = [
            as_dict(server, model_of(server.backend, self.routes.backends)) for server in servers
        ]
        return {
            "changed": bool(plan.steps),
            "actions": [step.sentence for step in plan.steps],
            "plan": [step.as_dict() for step in plan.steps],
            "servers": shown,
            "open_streams": sum(server.streams for server in servers),
            "queued": sum(server.queued for server in servers),
            "waited_seconds": round(self.out.waited_s, 1),
            "last_for": list(plan.last_for),
            "drained_before": self.out.drained_before,
            "drained_by": ", ".join(sorted({str(note["owner"]) for note in held})),
            "noted_since": min((str(note["since"]) for note in held), default=""),
            "cut_streams": self.out.cut_streams,
            "left_alone": [{"server": target, "owner": owner} for target, owner in plan.left],
            "warnings": [*self._left_alone(plan), *self.out.warnings],
            "failure": self.out.failure,
            "diff": {"before": self.out.before, "after": lines(servers, notes)},
        }

    def _left_alone(self, plan: Plan) -> Iterator[str]:
        for target, owner in plan.left:
            who = f"drained by {owner}" if owner else "drained by somebody who left no note"
            yield f"{self.wish.gateway}: {target} stays as it is, {who}, not by {self.wish.owner}."

    def _predicted(self, plan: Plan, notes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        fresh = {
            step.target: {"owner": self.wish.owner, "since": ""}
            for step in plan.steps
            if step.action == "drain"
        }
        ready = {server.target for server in plan.after if server.admin.name == "ready"}
        return {target: note for target, note in {**notes, **fresh}.items() if target not in ready}


def _assumed(
    servers: Sequence[Server], notes: dict[str, dict[str, Any]], owner: str
) -> tuple[tuple[Server, ...], dict[str, dict[str, Any]]]:
    """Return servers and notes as an earlier step of the same dry run would have left them."""
    ready = [server for server in servers if server.admin.name == "ready"]
    fresh = {server.target: {"owner": owner, "since": ""} for server in ready}
    drained = tuple(
        replace(server, admin=replace(server.admin, bits=server.admin.bits | FORCED_DRAIN))
        if server in ready
        else server
        for server in servers
    )
    return drained, {**notes, **fresh}
