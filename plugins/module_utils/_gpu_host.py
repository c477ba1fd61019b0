# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What the host around the GPUs is like: each part read for itself, the unknown ones named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import (
    _gpu_cuda,
    _gpu_host_containers,
    _gpu_host_dcgm,
    _gpu_host_driver,
    _gpu_host_kernels,
    _gpu_host_nodes,
    _gpu_host_signing,
    _gpu_host_units,
    _gpu_xid,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import Host, UnknownError

Notes = list[str]


@dataclass(frozen=True)
class Wanted:
    """What to look at.

    Attributes:
        service_user: whom nodes are opened and CUDA is tried as; none: the present user.
        more_users: further accounts that do the same, each for itself.
        units: units whose environment is read.
        cuda: whether CUDA is tried.
        dcgm: whether DCGM, where it is installed, is asked for its diagnosis.
        open_nodes: whether nodes are opened; of a driver that hangs each one may keep a child.
        python: interpreter for the children.
        history_file: Xids that were kept; none when nobody keeps them.
        days: how far back Xids are looked for.
        journalctl: the program that reads the journal.
    """

    python: str
    service_user: str | None = None
    more_users: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    cuda: bool = True
    dcgm: bool = True
    open_nodes: bool = True
    history_file: str | None = None
    days: float = 30.0
    journalctl: str = "journalctl"


@dataclass
class Findings:
    """The parts that are known, and why the others are not."""

    parts: dict[str, Any] = field(default_factory=dict)
    errors: list[dict[str, str]] = field(default_factory=list)

    def take(self, what: str, read: Callable[[Notes], Any]) -> Any:
        """Read a part and keep it; None when it can't be known."""
        notes: Notes = []
        value = None
        try:
            value = read(notes)
        except UnknownError as error:
            notes.append(str(error))
        except OSError as error:
            notes.append(f"{error.filename or what}: {error.strerror or error}")
        self.errors += [{"what": what, "message": note} for note in notes]
        if value is not None:
            self.parts[what] = value
        return value


def observe(host: Host, wanted: Wanted) -> dict[str, Any]:
    """Return every part that can be known, and ``errors`` for the rest."""
    found = Findings()
    module = found.take("module", lambda _notes: _gpu_host_driver.loaded_module(host))
    found.take("library", lambda notes: _gpu_host_driver.library(host, notes))
    kernels = found.take("kernels", lambda notes: _gpu_host_kernels.kernels(host, notes))
    if kernels is not None:
        found.parts["kernels"], choice = kernels
        found.parts["next_kernel"] = {
            "release": choice.release,
            "decided_by": choice.decided_by,
            "message": choice.message,
        }
    pci = found.take("pci", lambda _notes: _gpu_host_driver.pci_devices(host))
    loaded = module["loaded"] if module is not None else None
    found.take(
        "secure_boot", lambda notes: _gpu_host_signing.secure_boot(host, loaded, notes) or None
    )
    found.take("persistence_daemon", lambda _notes: _gpu_host_units.persistence_daemon(host))
    found.take("toolkit", lambda notes: _gpu_host_containers.toolkit(host, notes))
    if wanted.dcgm:
        found.take("dcgm", lambda _notes: _gpu_host_dcgm.diagnosis(host))
    units = _units(host, wanted, found)
    _as_service(host, wanted, found, units, pci or [])
    found.take(
        "xids",
        lambda notes: _gpu_xid.xids(
            host, wanted.history_file, wanted.days, notes, wanted.journalctl
        ),
    )
    return {**found.parts, "errors": found.errors}


def _units(host: Host, wanted: Wanted, found: Findings) -> list[_gpu_host_units.Unit]:
    """Read the units; where none of them can be read there is no part ``environment``."""
    units: list[_gpu_host_units.Unit] = []

    def read(notes: Notes) -> list[dict[str, str]] | None:
        units.extend(_gpu_host_units.read_units(host, wanted.units, notes))
        return _gpu_host_units.variables(units) if units or not wanted.units else None

    found.take("environment", read)
    return units


def _as_service(
    host: Host,
    wanted: Wanted,
    found: Findings,
    units: list[_gpu_host_units.Unit],
    pci: list[dict[str, Any]],
) -> None:
    """Do what the services will do, as each account: open the nodes, and use CUDA."""
    taken = sum(1 for device in pci if device.get("driver") == "nvidia")
    trial = _Trial(host, wanted, units, taken)
    first = _who(units, wanted.service_user)
    nodes = found.take("nodes", lambda notes: trial.nodes(first, notes))
    cuda = found.take("cuda", lambda _notes: trial.cuda(first, nodes or []))
    others = [user for user in dict.fromkeys(wanted.more_users) if user != wanted.service_user]
    if not others:
        return
    accounts = found.parts["accounts"] = []
    stuck = _stuck(nodes or [], cuda)
    for user in others:
        accounts.append(_as_other(trial, _who(units, user), stuck))
        stuck = stuck or _stuck(accounts[-1].get("nodes", []), accounts[-1].get("cuda", {}))


@dataclass(frozen=True)
class _Who:
    """Whom to be: nobody else without a name; ``unknown`` says why it can't be.

    Attributes:
        user: the account's name.
        account: the account, where it is known.
        unknown: why it isn't, or why its groups aren't.
        missing: whether the host has no such account.
    """

    user: str
    account: _gpu_host_nodes.Account | None = None
    unknown: str = ""
    missing: bool = False


def _who(units: list[_gpu_host_units.Unit], user: str | None) -> _Who:
    if not user:
        return _Who("")
    try:
        groups = _gpu_host_units.groups_of(units, user)
        return _Who(user, _gpu_host_nodes.account(user, groups))
    except _gpu_host_nodes.NoUserError as error:
        return _Who(user, unknown=str(error), missing=True)
    except UnknownError as error:
        return _Who(user, unknown=str(error))


@dataclass(frozen=True)
class _Trial:
    """What every account tries.

    Attributes:
        host: the host.
        wanted: what to look at.
        units: the units, for the groups and limits that they give their accounts.
        taken: number of GPUs that the driver nvidia has taken.
    """

    host: Host
    wanted: Wanted
    units: list[_gpu_host_units.Unit]
    taken: int

    def nodes(self, who: _Who, notes: Notes, stuck: str = "") -> list[dict[str, Any]]:
        """Open the nodes; those that are not opened are described."""
        present = self.host.names(_gpu_host_nodes.DEV) or []
        names = _gpu_host_nodes.expected_nodes(present, self.taken)
        listed = _gpu_host_nodes.describe(self.host, names)
        if not self.wanted.open_nodes:
            return listed
        if who.unknown or stuck:
            notes.append(who.unknown or f"not tried: {stuck}")
            return listed
        try:
            return _gpu_host_nodes.try_to_open(self.host, self.wanted.python, listed, who.account)
        except UnknownError as error:
            notes.append(str(error))
            return listed

    def cuda(self, who: _Who, nodes: list[dict[str, Any]], stuck: str = "") -> dict[str, Any]:
        """Use CUDA, unless it would be kept where the nodes were."""
        if not self.wanted.cuda:
            return _gpu_cuda.not_tried("it was not asked for")
        node = _gpu_host_nodes.hanging(nodes)
        if node:  # CUDA would open it too, and leave a second process behind that can't be killed
            stuck = f"opening {node} did not end"
        if who.unknown or stuck:
            return _gpu_cuda.not_tried(who.unknown or stuck)
        limited = any(unit.no_new_privileges for unit in self.units if unit.user == who.user)
        return _gpu_cuda.try_cuda(self.host, self.wanted.python, who.account, limited)


def _as_other(trial: _Trial, who: _Who, stuck: str) -> dict[str, Any]:
    """Return what a further account can do."""
    entry: dict[str, Any] = {"user": who.user, "known": not who.missing, "message": who.unknown}
    if who.missing:
        return entry
    notes: Notes = []
    nodes = trial.nodes(who, notes, stuck)
    entry["message"] = "; ".join(notes) or who.unknown
    return {**entry, "nodes": nodes, "cuda": trial.cuda(who, nodes, stuck)}


def _stuck(nodes: list[dict[str, Any]], cuda: dict[str, Any]) -> str:
    """Say what did not end: each further try may leave a process behind that can't be killed."""
    node = _gpu_host_nodes.hanging(nodes)
    if node:
        return f"opening {node} did not end"
    return str(cuda["message"]) if cuda.get("state") == "timeout" else ""
