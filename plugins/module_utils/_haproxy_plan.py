# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Choose servers of a gateway, plan what is set for them, and see what that leaves without a host.

No I/O here. Servers are named ``<host>.<engine>`` or ``<host>.<engine>.<service>``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_observe import Server
from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_stat import (
    CONFIGURED_MAINT,
    FORCED_DRAIN,
    FORCED_MAINT,
    AdminState,
    Key,
)

ENGINES = ("ollama", "vllm")
_RELEASABLE = FORCED_MAINT | CONFIGURED_MAINT | FORCED_DRAIN  # bits that `state ready` clears


@dataclass(frozen=True)
class Wish:
    """What a run is asked for.

    Attributes:
        gateway: its name in messages.
        host: selects ``<host>.*``; ``server`` selects one name. One of them is empty.
        state: ``drained``, ``ready`` or ``weighted``.
    """

    gateway: str
    host: str
    server: str
    engine: str
    model: str
    state: str
    weight: int | None = None
    owner: str = ""
    only_owner: bool = False
    allow_last: bool = False

    @property
    def subject(self) -> str:
        """Name what is selected, for sentences."""
        words = [self.host or self.server]
        if self.engine:
            words.append(f"({self.engine})")
        if self.model:
            words.append(f"for {self.model}")
        return " ".join(words)


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Attributes:
        action: ``note``, ``drain``, ``ready``, ``weight``, ``save_state`` or ``forget``.
        target: the server, or the file.
    """

    action: str
    target: str
    sentence: str
    key: Key | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the form in which results carry a step."""
        return {"action": self.action, "target": self.target}


@dataclass(frozen=True)
class Plan:
    """The steps, the selected servers as they will be, and what else there is to say.

    Attributes:
        last_for: models that no server but the selected ones serves.
        refused_for: those of them that this plan would take away from the clients.
        left: drained servers that belong to somebody else, with the owner's name.
    """

    steps: tuple[Step, ...]
    after: tuple[Server, ...]
    last_for: tuple[str, ...] = ()
    refused_for: tuple[str, ...] = ()
    left: tuple[tuple[str, str], ...] = ()


Notes = Mapping[str, Mapping[str, Any]]
Owners = Mapping[Key, tuple[str, str]]  # host and engine by server


def split_name(name: str) -> tuple[str, str, str] | None:
    """Return host, engine and service of a server's name; None when it isn't one of ours.

    Read from its end: a host's name may hold dots and an engine's name, a service's has no dot,
    and only vLLM has services.
    """
    words = name.split(".")
    if len(words) > 2 and words[-2] == "vllm":
        return ".".join(words[:-2]), words[-2], words[-1]
    if len(words) > 1 and words[-1] in ENGINES:
        return ".".join(words[:-1]), words[-1], ""
    return None


def owner_parts(server: Server, owners: Owners) -> tuple[str, str]:
    """Return a server's host and engine: as the routes have them, else out of its name."""
    return owners.get(server.key) or (split_name(server.name) or ("", ""))[:2]


def model_of(backend: str, routes: Mapping[str, str]) -> str:
    """Return the model that a backend serves; its own name when the routes don't know it."""
    return next((model for model, pool in routes.items() if pool == backend), backend)


def select(
    servers: Sequence[Server], wish: Wish, routes: Mapping[str, str], owners: Owners
) -> tuple[Server, ...]:
    """Return the servers that a wish is about.

    Args:
        servers: all servers of the gateway.
        wish: what is asked for.
        routes: backend by model.
        owners: host and engine by server, as the routes have them.

    Raises:
        HostError: there is none; the message lists what there is.
    """
    if wish.model and wish.model not in routes:
        raise _unknown(wish, f"the model {wish.model}", "models", routes)
    backend = routes.get(wish.model, "")
    hosts = {server.key: owner_parts(server, owners)[0] for server in servers}
    if wish.server:
        found = [server for server in servers if server.name == wish.server]
    else:
        found = [server for server in servers if hosts[server.key] == wish.host]
    if not found and wish.server:
        names = {server.name for server in servers}
        raise _unknown(wish, f"the server {wish.server}", "servers", names)
    if not found:
        known = {host for host in hosts.values() if host}
        raise _unknown(wish, f"the host {wish.host}", "hosts", known)
    named = [server.target for server in found]
    if wish.engine:
        found = [server for server in found if owner_parts(server, owners)[1] == wish.engine]
    if backend:
        found = [server for server in found if server.backend == backend]
    if not found:
        raise _unknown(wish, f"a server of {wish.subject}", "servers of this name", named)
    return tuple(found)


def _unknown(wish: Wish, what: str, kind: str, known: Iterable[str]) -> HostError:
    listed = ", ".join(sorted(known)) or "none"
    return HostError(
        f"{wish.gateway}: the gateway does not know {what}; it knows these {kind}: {listed}.",
        "Correct the name, or let the gateway role write the configuration anew.",
    )


def wanted(server: Server, wish: Wish) -> AdminState:
    """Return what is to be set for a server."""
    admin = server.admin
    if wish.state == "weighted":
        return admin if wish.weight is None else replace(admin, weight=wish.weight)
    if wish.state == "ready":
        return replace(admin, bits=admin.bits & ~_RELEASABLE)
    if admin.name == "ready":
        return replace(admin, bits=admin.bits | FORCED_DRAIN)
    return admin  # a server in maintenance takes no requests either; whoever set that had a reason


def owner_of(server: Server, notes: Notes) -> str | None:
    """Return who drained a server: None when it is not drained, or nobody noted it."""
    note = notes.get(server.target)
    if note is None or server.admin.name == "ready":
        return None
    return str(note.get("owner", ""))


def plan_traffic(
    wish: Wish,
    servers: Sequence[Server],
    selected: Sequence[Server],
    *,
    notes: Notes,
    saved: Mapping[Key, AdminState],
    routes: Mapping[str, str],
    files: tuple[str, str],
) -> Plan:
    """Compare what is with what is wished.

    Args:
        wish: what is asked for.
        servers: all servers of the gateway.
        selected: those that the wish is about.
        notes: who drained what, by ``backend/server``.
        saved: the state file's content.
        routes: backend by model.
        files: path of the state file (empty when nothing is saved) and of the notes.
    """
    state_file, notes_file = files
    left = tuple(
        (server.target, owner_of(server, notes) or "")
        for server in selected
        if wish.state == "ready" and wish.only_owner and not _ours(server, wish, notes)
    )
    kept = {target for target, _owner in left}
    after = tuple(
        server if server.target in kept else replace(server, admin=wanted(server, wish))
        for server in selected
    )
    sets = [_set_step(old, new) for old, new in zip(selected, after) if old.admin != new.admin]
    steps: list[Step] = []
    drained = [step.target for step in sets if step.action == "drain"]
    if drained:
        steps.append(_note_step(notes_file, wish, drained))
    steps += sets
    if state_file and (sets or any(_needs_saving(server, saved) for server in after)):
        steps.append(Step("save_state", state_file, f"Save the servers' state to {state_file}"))
    stale = [
        server.target
        for server in after
        if wish.state == "ready" and server.admin.name == "ready" and server.target in notes
    ]
    if stale:
        what = f"Remove the note about {', '.join(stale)} from {notes_file}"
        steps.append(Step("forget", notes_file, what))
    last_for, refused_for = _last(wish, servers, selected, after, routes)
    return Plan(tuple(steps), after, last_for, refused_for, left)


def _ours(server: Server, wish: Wish, notes: Notes) -> bool:
    return server.admin.name == "ready" or owner_of(server, notes) == wish.owner


def _note_step(notes_file: str, wish: Wish, targets: Sequence[str]) -> Step:
    who = wish.owner or "an unnamed owner"
    return Step("note", notes_file, f"Note in {notes_file} that {who} drains {', '.join(targets)}")


def _set_step(old: Server, new: Server) -> Step:
    if old.admin.weight != new.admin.weight:
        what = f"Set the weight of {old.target} to {new.admin.weight}"
        return Step("weight", old.target, what, old.key)
    if new.admin.name == "drained" and old.admin.name == "ready":
        return Step("drain", old.target, f"Give {old.target} no new requests", old.key)
    return Step("ready", old.target, f"Give {old.target} requests again", old.key)


def orders(server: Server, wish: Wish) -> list[str]:
    """Return the commands that bring one server to what is wished; none when it is there."""
    goal = wanted(server, wish)
    result = []
    if goal.weight != server.admin.weight:
        result.append(f"set server {server.target} weight {goal.weight}")
    if goal.bits != server.admin.bits:
        state = "drain" if wish.state == "drained" else "ready"
        result.append(f"set server {server.target} state {state}")
    return result


def _needs_saving(server: Server, saved: Mapping[Key, AdminState]) -> bool:
    """Tell whether HAProxy would come back with something else after a restart."""
    admin = server.admin
    file = saved.get(server.key)
    if file is None:
        return admin.name != "ready" or admin.weight != admin.configured_weight
    same = file.configured_weight == admin.configured_weight  # else the configuration's weight wins
    weight = file.weight if same else admin.configured_weight
    return file.name != admin.name or weight != admin.weight


def _last(
    wish: Wish,
    servers: Sequence[Server],
    selected: Sequence[Server],
    after: Sequence[Server],
    routes: Mapping[str, str],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the models without a serving server then, and those that lose their last one."""
    if wish.state == "ready":
        return (), ()
    keys = {server.key for server in selected}
    then = [server for server in servers if server.key not in keys] + list(after)
    last, lost = [], []
    for backend in dict.fromkeys(server.backend for server in selected):
        if any(server.serves for server in then if server.backend == backend):
            continue
        model = model_of(backend, routes)
        last.append(model)
        if any(server.serves for server in servers if server.backend == backend):
            lost.append(model)
    return tuple(sorted(last)), tuple(sorted(lost))


def refusal(wish: Wish, plan: Plan) -> HostError | None:
    """Return the error for a plan that takes the last serving host of a model away."""
    if not plan.refused_for or wish.allow_last:
        return None
    if wish.state == "drained":
        deed = f"draining {wish.subject}"
    else:
        deed = f"weight {wish.weight} for {wish.subject}"
    return HostError(
        f"{wish.gateway}: {deed} would leave no serving host for {', '.join(plan.refused_for)}. "
        "A host that is down, in maintenance, drained or of weight 0 doesn't serve.",
        "Bring another host of these models back first, or allow it with allow_last=true.",
    )


def lines(servers: Iterable[Server], notes: Notes) -> str:
    """Return servers with state, weight and owner, for a diff."""
    text = ""
    for server in servers:
        owner = owner_of(server, notes)
        by = f", drained by {owner or 'an unnamed owner'}" if owner is not None else ""
        text += f"{server.target}: {server.admin.name}, weight {server.admin.weight}{by}\n"
    return text
