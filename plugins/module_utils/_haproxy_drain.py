# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Wait until a drained host has no open stream in any worker, and act when time is up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_observe import (
    Gateway,
    Worker,
    observe,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_places import misled, moved
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_plan import Plan, refusal
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_stat import Key
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_traffic import Traffic
from ansible_collections.hx_infra.llm.plugins.module_utils._progress import ProgressWriter
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    WARN,
    as_dicts,
    judge,
)

POLL_S = 0.5
_CONFIRM_S = 0.1  # a request that was given away in the moment of the drain counts by then
_CUT_S = 10.0  # a cut stream is gone at once


def steer(traffic: Traffic, check_mode: bool, progress: ProgressWriter) -> dict[str, Any]:
    """Plan and, outside of check mode, set, save and wait.

    Raises:
        HostError: nothing was changed, or a drain was undone by somebody else.
    """
    wish = traffic.wish
    gateway = observe(traffic.runtime)
    before = traffic.plan(gateway, check_mode)
    drains = any(step.action == "drain" for step in before.steps)
    if drains and not check_mode:
        refused = refusal(wish, before)
        if refused is not None:
            raise refused
        _wait_for_old_workers(traffic, gateway, progress)
    with traffic.lock(dry=check_mode):
        gateway = observe(traffic.runtime)
        plan = traffic.plan(gateway, check_mode)
        refused = refusal(wish, plan) or _astray(traffic, gateway, plan)
        if refused is not None:
            raise refused
        if not check_mode:
            gateway = traffic.apply(plan, gateway)
    if check_mode:
        return {**traffic.result(plan, plan.after, True), "verdicts": []}
    if wish.state == "drained":
        gateway = Drain(traffic, plan, progress).wait(gateway)
    keys = [server.key for server in plan.after]
    result = traffic.result(plan, gateway.these(keys), False)
    return {**result, "verdicts": _verdicts(traffic, result)}


def _astray(traffic: Traffic, gateway: Gateway, plan: Plan) -> HostError | None:
    """Warn of servers whose host has moved; return the error for a drain that wouldn't be one."""
    where = (traffic.wish.gateway, gateway, plan.after, traffic.routes.places, traffic.resolve)
    traffic.out.warnings.extend(moved(*where))
    return misled(*where) if traffic.wish.state == "drained" else None


def _wait_for_old_workers(traffic: Traffic, gateway: Gateway, progress: ProgressWriter) -> None:
    """Give the old workers time to end: they still send requests to a host that is drained."""
    runtime, limit = traffic.runtime, traffic.settings.reload_wait_s
    begun = runtime.clock()
    while gateway.old_workers and runtime.clock() - begun < limit:
        waited = runtime.clock() - begun
        note = f"a reload left {_named(gateway.old_workers, ())}"
        progress.update(traffic.wish.subject, "before draining", waited, limit, unit="s", note=note)
        runtime.sleep(min(POLL_S, max(0.0, limit - waited)))
        gateway = observe(runtime)
    traffic.out.waited_s += runtime.clock() - begun


class Drain:
    """The wait for a drained host's last stream.

    Args:
        traffic: the run.
        plan: what it has set.
        progress: is told how many streams are left.
    """

    def __init__(self, traffic: Traffic, plan: Plan, progress: ProgressWriter) -> None:
        self._traffic = traffic
        self._plan = plan
        self._progress = progress
        self._runtime = traffic.runtime
        self._keys = [server.key for server in plan.after]

    def wait(self, gateway: Gateway) -> Gateway:
        """Return the gateway as it is when no stream is left, or when time is up."""
        settings = self._traffic.settings
        if settings.budget_s <= 0 and settings.on_deadline != "cut":
            return gateway
        begun = self._runtime.clock()
        try:
            gateway, quiet = self._until(gateway, settings.budget_s)
            if not quiet:
                gateway = self._time_is_up(gateway)
        finally:
            self._traffic.out.waited_s += self._runtime.clock() - begun
        return gateway

    def _until(self, gateway: Gateway, limit: float) -> tuple[Gateway, bool]:
        """Wait until nothing is open, seen twice, or the limit has passed."""
        begun = self._runtime.clock()
        quiet = False
        while True:
            waited = self._runtime.clock() - begun
            if not self._open(gateway) and not gateway.old_workers:
                if quiet:
                    return gateway, True
                quiet = True
                self._runtime.sleep(_CONFIRM_S)
            else:
                quiet = False
                if waited >= limit:
                    return gateway, False
                self._tell(gateway, waited, limit)
                self._runtime.sleep(min(POLL_S, limit - waited))
            gateway = self._kept(gateway, observe(self._runtime))

    def _tell(self, gateway: Gateway, waited: float, limit: float) -> None:
        note = self._amount(gateway)
        if gateway.old_workers:
            note += f", {_named(gateway.old_workers, self._keys)}"
        subject = self._traffic.wish.subject
        self._progress.update(subject, "draining", waited, limit, unit="s", note=note)

    def _open(self, gateway: Gateway) -> int:
        servers = gateway.these(self._keys)
        return sum(server.streams + server.queued for server in servers)

    def _amount(self, gateway: Gateway) -> str:
        servers = gateway.these(self._keys)
        streams = sum(server.streams for server in servers)
        queued = sum(server.queued for server in servers)
        return f"{streams} open streams, {queued} queued"

    def _kept(self, before: Gateway, now: Gateway) -> Gateway:
        """See that the drain still stands; set it again when a reload has lost it."""
        lost = [server for server in now.these(self._keys) if server.admin.name == "ready"]
        if not lost:
            return now
        wish = self._traffic.wish
        names = ", ".join(server.target for server in lost)
        if now.pid == before.pid:
            raise HostError(
                f"{wish.gateway}: {names} got requests again while its last streams were awaited: "
                "somebody else has set it ready.",
                "Find out who it was, then drain it again.",
            )
        self._traffic.out.warnings.append(
            f"{wish.gateway}: a reload lost the drain of {names}; it was set again."
        )
        with self._traffic.lock():
            return self._traffic.settle(self._plan, now)

    def _time_is_up(self, gateway: Gateway) -> Gateway:
        out, settings = self._traffic.out, self._traffic.settings
        if settings.on_deadline == "cut" and self._open(gateway):
            gateway = self._cut(gateway)
        problem = self._problem(gateway)
        if not problem:
            return gateway
        if settings.on_deadline == "fail" or (
            settings.on_deadline == "cut" and self._open(gateway)
        ):
            out.failure = (
                f"{problem} The host stays drained: run again to go on waiting, choose "
                "on_deadline=cut or leave, or bring it back with state=ready."
            )
        else:
            out.warnings.append(problem)
        return gateway

    def _cut(self, gateway: Gateway) -> Gateway:
        """End the open streams in every worker; their clients see a broken answer."""
        servers = gateway.these(self._keys)
        streams = sum(server.streams for server in servers)
        others = [pid for pid in gateway.workers if pid != gateway.pid]
        others += [worker.pid for worker in gateway.old_workers]
        for server in servers:
            self._runtime.order(f"shutdown sessions server {server.target}")
        for pid in others:
            self._runtime.end_sessions(pid, self._keys)
        self._traffic.out.cut_streams += streams
        end = self._runtime.clock() + _CUT_S
        while self._open(gateway) and self._runtime.clock() < end:
            self._runtime.sleep(_CONFIRM_S)
            gateway = self._kept(gateway, observe(self._runtime))
        self._traffic.out.warnings.append(
            f"{self._traffic.wish.gateway}: {streams} streams of {self._traffic.wish.subject} were "
            f"cut after {self._traffic.settings.budget_s:g} s."
        )
        return gateway

    def _problem(self, gateway: Gateway) -> str:
        """Say what is still open; empty when nothing is."""
        wish, seconds = self._traffic.wish, self._traffic.settings.budget_s
        problems = []
        if self._open(gateway):
            problems.append(
                f"{wish.gateway}: {wish.subject} still has {self._amount(gateway)} after "
                f"{seconds:g} s; wanted none."
            )
        if gateway.old_workers:
            problems.append(
                f"{wish.gateway}: a reload left {_named(gateway.old_workers, self._keys)}; they "
                "can't be drained and may still give this host a client's request."
            )
        return " ".join(problems)


def _named(workers: Sequence[Worker], keys: Sequence[Key]) -> str:
    names = []
    for worker in workers:
        count = worker.open_on(keys)
        names.append(f"{worker.pid} ({count} streams of this host)" if keys else str(worker.pid))
    return f"old worker{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _verdicts(traffic: Traffic, result: dict[str, Any]) -> list[dict[str, Any]]:
    """Judge a drain that was awaited."""
    settings = traffic.settings
    if traffic.wish.state != "drained" or settings.budget_s <= 0:
        return []
    verdict = judge(
        "drained",
        not result["failure"] and not result["open_streams"] + result["queued"],
        subject=traffic.wish.subject,
        value=result["open_streams"] + result["queued"],
        limit=0,
        unit="streams",
        evidence=f"all workers of {traffic.wish.gateway}, {result['waited_seconds']:g} s waited",
        **({} if settings.on_deadline == "fail" else {"otherwise": WARN}),
    )
    return as_dicts([verdict])
