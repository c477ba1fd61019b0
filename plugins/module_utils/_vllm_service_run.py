# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Bring one vLLM service up and prove that it serves, or put back what served before.

``systemctl start`` returns when the unit's own probe has seen the model listed, or when the process
has ended. A listed model is no proof yet: a streamed request follows, because an engine that can't
compute its model dies at the first one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_service as service
from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_service_memory as memory
from ansible_collections.hx_infra.llm.plugins.module_utils import _vllm_service_stable as stable
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import Prepare
from ansible_collections.hx_infra.llm.plugins.module_utils._endpoint_check import (
    Wanted,
    listed_verdicts,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._endpoint_check_ask import (
    Clock,
    Reply,
    ask,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import FAIL
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_observe import (
    Listener,
    listeners,
    unit_pids,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_service_causes import (
    diagnose,
    explain,
)

JOURNAL_LINES = 3000
FREE_S = 10.0  # what forwards a container's port ends some moments after the container
AFTERMATH_S = 8.0  # an engine's death reaches the journal some seconds after the request's failure


@dataclass(frozen=True)
class Io:
    """How the host is reached; tests pass their own."""

    run: service.Runner
    prepare: Prepare | None
    listeners: Callable[[], list[Listener]] = listeners
    pids: Callable[[frozenset[str]], dict[str, frozenset[int]]] = unit_pids
    look: Callable[[str, service.Runner], stable.Sight] = stable.look
    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Target:
    """One service and what proves it.

    Attributes:
        declared: unit, folder, release.
        host: name of the host in messages.
        files: what it is started with, for its memory.
        models: ids that it has to list; the first is asked. None for a member that doesn't serve.
        port: where it listens; 0 for a member that doesn't serve.
        request_s: time for the proving request.
        own_process: whether the listening process belongs to the unit's control group.
        settle_s: seconds that what was rolled back has to stay as it is.
    """

    declared: service.Declared
    host: str
    files: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    port: int = 0
    request_s: float = 60.0
    own_process: bool = True
    settle_s: float = 5.0
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """Return the unit's name."""
        return self.declared.unit


Proven = tuple[Target, Io]


def apply_started(
    target: Target,
    steps: Sequence[Mapping[str, str]],
    io: Io,
    before: Proven | None = None,
) -> dict[str, Any]:
    """Carry the steps out and prove the service; go back to the last good state when that fails.

    ``before`` is where and how the last good state answers; as the target when not given.
    """
    declared = target.declared
    memory.forget_rollback(declared.folder)  # a new state takes the place of an unfinished one
    release = memory.release_of(declared.folder)
    try:
        _carry_out(target, steps, io)
        reply = prove(target, io)
    except HostError as error:
        if not any(step["action"] in ("start", "restart") for step in steps):
            raise
        raise _recover(target, error, release, io, before or (target, io)) from error
    memory.remember(declared.folder, target.files)
    return {"ttft_ms": reply.ttft_ms, "finish_reason": reply.finish_reason, **target.timings}


def apply_restored(
    target: Target, name: str, steps: Sequence[Mapping[str, str]], io: Io
) -> dict[str, Any]:
    """Put a remembered state back, and prove that it serves and that the host is stable.

    A run that is killed in here is gone on with by the next one.
    """
    folder = target.declared.folder
    if target.own_process or not any(step["action"] == "stop" for step in steps):
        check_port(target, io)  # before anything is stopped
    seen = io.look(target.unit, io.run)
    pids = io.pids(frozenset([target.unit])).get(target.unit, frozenset())
    if any(step["action"] == "stop" for step in steps):
        begin = io.monotonic()
        _plain(target, ["systemctl", "stop", target.unit], io)
        target.timings["stop_seconds"] = round(io.monotonic() - begin, 1)
    check_free(target, pids, io)
    memory.begin_rollback(folder, name)
    try:
        memory.put_back(folder, name, target.files)
        _carry_out(
            target, [step for step in steps if step["action"] not in ("stop", "restore")], io
        )
        begun = service.observe(target.unit, io.run)
        reply = prove(target, io)
        proof = _settled(target, begun, seen, io)
    except HostError as error:
        raise HostError(
            f"{error.message} The rollback isn't finished.",
            f"{error.remedy} The playbook vllm_rollback goes on with it, the playbook vllm brings"
            " what is declared.",
        ) from error
    memory.end_rollback(folder, name)
    proof = {
        "port": target.port,
        "port_free": target.port > 0,
        "release": memory.release_of(folder),
        "ttft_ms": reply.ttft_ms,
        "finish_reason": reply.finish_reason,
        **target.timings,
        **proof,
    }
    return {**proof, "sentence": f"{target.host}: {stable.sentence(target.unit, proof)}"}


def _settled(
    target: Target, begun: Mapping[str, str], seen: stable.Sight, io: Io
) -> dict[str, Any]:
    """Wait, and check that service and host are as they were."""
    begin, since = io.monotonic(), io.now()
    io.sleep(target.settle_s)
    ended = service.observe(target.unit, io.run)
    now = io.look(target.unit, io.run)
    seconds = round(io.monotonic() - begin, 1)
    changed = stable.unchanged(target.unit, begun, ended)
    if changed:
        symptom = f"answered and was not stable: {seconds:g} s later {changed}"
        what, remedy = explain(target.unit, ended, read_journal(target.unit, since, io), symptom)
        raise HostError(f"{target.host}: {what}", remedy)
    unstable = stable.unstable(target.unit, seen, now)
    if unstable:
        raise HostError(
            f"{target.host}: {target.unit} answers, but the host isn't stable: {unstable}.",
            f"Look at: systemctl list-units '{target.unit.partition('@')[0]}@*'; journalctl -k.",
        )
    return {
        "stable_seconds": seconds,
        "main_pid": int(ended.get("MainPID") or 0),
        "restarts": int(ended.get("NRestarts") or 0),
        "active_units": sorted(now.active - {target.unit}),
        "oom_kills": stable.killed_between(seen, now),
        "memory_available_bytes": now.memory,
    }


def _recover(target: Target, error: HostError, release: str, io: Io, before: Proven) -> HostError:
    """Go back to the good state, and return the error that says what holds now."""
    declared = target.declared
    try:
        good = memory.read(declared.folder, memory.GOOD)
    except memory.DamagedError as damage:
        _never(target, release, io)
        return HostError(
            f"{error.message} What served before can't be put back: {damage} It is stopped and not"
            " enabled.",
            f"{error.remedy} Then run the playbook vllm again.",
        )
    now = memory.current(declared.folder, target.files)
    if good is not None and memory.same(good, now):
        # Nothing to go back to: it is what served before. systemd keeps trying.
        return HostError(
            f"{error.message} Nothing was changed that could be put back.", error.remedy
        )
    if good is None:
        _never(target, release, io)
        return HostError(
            f"{error.message} It never served before, so it is stopped and not enabled.",
            error.remedy,
        )
    _quiet(target, io)
    memory.put_back(declared.folder, memory.GOOD, target.files)
    io.run(["systemctl", "daemon-reload"])
    try:
        _systemctl(target, "start", io)
        prove(*before)
    except HostError as second:
        return HostError(
            f"{error.message} The state that served before was put back, and does not serve either:"
            f" {second.message}",
            second.remedy,
        )
    back = f" on the release {good.release}" if good.release else ""
    return HostError(
        f"{error.message} What served before was put back and serves{back}.", error.remedy
    )


def _never(target: Target, release: str, io: Io) -> None:
    """Stop a service that has nothing to go back to, and see that no boot starts it."""
    _quiet(target, io)
    memory.place_release(target.declared.folder, release)
    generated = service.observe(target.unit, io.run).get("UnitFileState") == "generated"
    if not generated:
        io.run(["systemctl", "disable", target.unit])
        return
    for path in target.files:
        if path.endswith(".container"):  # what is generated can't be disabled
            _remove(path)
    io.run(["systemctl", "daemon-reload"])


def _quiet(target: Target, io: Io) -> None:
    """End what systemd would go on restarting, and forget how often it did."""
    io.run(["systemctl", "stop", target.unit])
    io.run(["systemctl", "reset-failed", target.unit])


def _carry_out(target: Target, steps: Sequence[Mapping[str, str]], io: Io) -> None:
    verbs = {step["action"] for step in steps}
    if "start" in verbs:
        check_port(target, io)
    for step in steps:
        if step["action"] == "switch_release":
            memory.place_release(target.declared.folder, step["target"])
        elif step["action"] == "reload_systemd":
            _plain(target, ["systemctl", "daemon-reload"], io)
        elif step["action"] == "enable":
            _plain(target, ["systemctl", "enable", target.unit], io)
        else:
            # Tries of an earlier run must not count against this start.
            io.run(["systemctl", "reset-failed", target.unit])
            _systemctl(target, step["action"], io)


def _plain(target: Target, argv: list[str], io: Io) -> None:
    rc, out, err = io.run(argv)
    if rc != 0:
        raise HostError(
            f"{target.host}: '{' '.join(argv)}' ended with {rc}: {(err or out).strip()}"
        )


def _systemctl(target: Target, verb: str, io: Io) -> None:
    begin, since = io.monotonic(), io.now()
    rc, _out, _err = io.run(["systemctl", verb, target.unit])
    target.timings[f"{verb}_seconds"] = round(io.monotonic() - begin, 1)
    if rc != 0:
        state = service.observe(target.unit, io.run)
        what, remedy = explain(
            target.unit, state, read_journal(target.unit, since, io), "did not become ready"
        )
        raise HostError(f"{target.host}: {what}", remedy)


def read_journal(unit: str, since: float, io: Io) -> list[str]:
    """Return what a unit, and systemd about it, has said since a moment."""
    io.run(["journalctl", "--sync"])  # what ended the unit is still on its way there
    _rc, out, _err = io.run(
        [
            "journalctl",
            f"--unit={unit}",
            f"--since=@{int(since)}",
            f"--lines={JOURNAL_LINES}",
            "--no-pager",
            "--output=cat",
        ]
    )
    return out.splitlines()


def check_port(target: Target, io: Io) -> None:
    """Refuse to start on a port that somebody else holds: both would claim to be ready."""
    for listener in io.listeners() if target.port else []:
        if listener.port == target.port and target.unit not in listener.units:
            raise _held(target, listener)


def _held(target: Target, listener: Listener, when: str = "") -> HostError:
    units = "".join(f", {unit}" for unit in sorted(listener.units))
    return HostError(
        f"{target.host}: port {target.port} of {target.unit} is held by"
        f" {listener.name or 'a process'} (pid {listener.pid}{units}){when}; wanted it free.",
        "Stop that process, or change service.port.",
    )


def check_free(target: Target, pids: frozenset[int], io: Io) -> None:
    """Check that after a stop nobody listens on the port, and no process is left.

    Raises:
        HostError: somebody does, or one is.
    """
    end = io.monotonic() + FREE_S
    while True:
        held = [item for item in io.listeners() if target.port and item.port == target.port]
        left = sorted(pids & io.pids(frozenset([target.unit])).get(target.unit, frozenset()))
        if not held and not left:
            return
        if io.monotonic() >= end:
            break
        io.sleep(0.5)
    if held:
        raise _held(target, held[0], " after its stop; nothing was put back, and it is stopped")
    raise _left(target, left)


def _left(target: Target, pids: Sequence[int]) -> HostError:
    numbers = [str(pid) for pid in pids]
    return HostError(
        f"{target.host}: processes {', '.join(numbers)} of {target.unit} are still there,"
        " wanted none.",
        f"End them: kill -9 {' '.join(numbers)}",
    )


def prove(target: Target, io: Io) -> Reply:
    """Check that the unit's own process lists the models and answers a streamed request.

    Raises:
        HostError: it doesn't.
    """
    state = service.observe(target.unit, io.run)
    if state.get("ActiveState") != "active":
        since = io.now() - 600
        what, remedy = explain(
            target.unit, state, read_journal(target.unit, since, io), "is not active"
        )
        raise HostError(f"{target.host}: {what}", remedy)
    if not target.port or io.prepare is None:
        return Reply(ok=True)
    since = io.now()
    check_owner(target, io)
    wanted = Wanted(models=target.models, budget_s=target.request_s)
    clock = Clock(io.monotonic, io.sleep, io.monotonic() + target.request_s)
    for verdict in listed_verdicts(wanted, io.prepare, clock):
        if verdict.status == FAIL:
            raise HostError(
                f"{target.host}: {target.unit} lists {verdict.value}, wanted {verdict.limit}"
                f" ({verdict.evidence}).",
                "Check model.served_names, and the key file when the status is 401.",
            )
    reply = ask(io.prepare, clock, wanted.question, target.models[0], stream=True)
    if not reply.ok:
        journal = _aftermath(target, since, io)
        state = service.observe(target.unit, io.run)
        symptom = f"listed its models, but the first request failed with '{reply.error}'"
        what, remedy = explain(target.unit, state, journal, symptom)
        raise HostError(f"{target.host}: {what}", remedy)
    return reply


def check_owner(target: Target, io: Io) -> None:
    """Check that who listens is a process of the unit."""
    if not target.own_process:
        return
    found = [listener for listener in io.listeners() if listener.port == target.port]
    foreign = [listener for listener in found if target.unit not in listener.units]
    if foreign or not found:
        who = ", ".join(f"{item.name} (pid {item.pid})" for item in foreign) or "nobody"
        raise HostError(
            f"{target.host}: {who} listens on port {target.port}, wanted a process of"
            f" {target.unit}.",
            "See who listens with: ss -ltnp. Stop that, or change service.port.",
        )


def _aftermath(target: Target, since: float, io: Io) -> list[str]:
    end = io.monotonic() + AFTERMATH_S
    while True:
        journal = read_journal(target.unit, since, io)
        if diagnose(journal) is not None or io.monotonic() > end:
            return journal
        io.sleep(0.5)


def apply_absent(target: Target, steps: Sequence[Mapping[str, str]], io: Io) -> None:
    """Leave nothing of the service, and check that its port is free and its processes are gone."""
    pids = io.pids(frozenset([target.unit])).get(target.unit, frozenset())
    for step in steps:
        if step["action"] == "remove":
            _remove(step["target"])
        elif step["action"] == "reload_systemd":
            _plain(target, ["systemctl", "daemon-reload"], io)
        else:
            _plain(target, ["systemctl", step["action"], target.unit], io)
            if step["action"] == "stop":
                io.run(["systemctl", "reset-failed", target.unit])
    left = sorted(pids & io.pids(frozenset([target.unit])).get(target.unit, frozenset()))
    if left:
        raise _left(target, left)
    if steps:
        check_port(target, io)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
