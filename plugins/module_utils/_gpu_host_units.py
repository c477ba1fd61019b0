# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What systemd says of the units that use the GPUs: account, groups, environment."""

from __future__ import annotations

import glob
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_host_io import (
    Host,
    UnknownError,
    said,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_checks import (
    BAD_ENVIRONMENT,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._model_config import parse

_PROPERTIES = (
    "LoadState",
    "User",
    "SupplementaryGroups",
    "NoNewPrivileges",
    "Environment",
    "EnvironmentFiles",
)
_DAEMON, _DAEMON_COMM = "nvidia-persistenced", "nvidia-persiste"  # the kernel keeps 15 characters


@dataclass(frozen=True)
class Unit:
    """One unit, as systemd has it.

    Attributes:
        name: its name.
        user: whom it runs as; empty for root.
        groups: the groups that it adds.
        no_new_privileges: whether it can't start set-user-ID programs.
        environment: its variables, with the place that each was read in.
    """

    name: str
    user: str = ""
    groups: tuple[str, ...] = ()
    no_new_privileges: bool = False
    environment: tuple[tuple[str, str, str], ...] = ()


def read_units(host: Host, names: Iterable[str], notes: list[str]) -> list[Unit]:
    """Read units; one that can't be read is noted, one that systemd doesn't know has nothing."""
    units = []
    for name in names:
        argv = ("systemctl", "show", f"--property={','.join(_PROPERTIES)}", "--", name)
        outcome = host.call(*argv)
        if outcome.rc != 0:
            notes.append(said(outcome, f"systemctl show {name}", host.timeout_s))
            continue
        fields = _fields(outcome.out)
        if fields.get("LoadState", [""])[-1] == "not-found":
            continue  # not installed yet: it has no environment, which is known
        units.append(_unit(host, name, fields, notes))
    return units


def _fields(text: str) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, mark, value = line.partition("=")
        if mark:
            fields.setdefault(name, []).append(value)
    return fields


def _unit(host: Host, name: str, fields: dict[str, list[str]], notes: list[str]) -> Unit:
    last = {key: values[-1] for key, values in fields.items()}
    variables: dict[str, tuple[str, str]] = {}
    try:
        words = shlex.split(last.get("Environment", ""))
    except ValueError as error:
        notes.append(f"{name}: its Environment can't be read: {error}")
        words = []
    for word in words:
        key, mark, value = word.partition("=")
        if mark:
            variables[key] = (value, "Environment=")
    for entry in fields.get("EnvironmentFiles", []):
        path, _mark, flags = entry.partition(" (")
        for key, value, source in _from_files(host, path, "=yes" in flags, f"{name}: ", notes):
            variables[key] = (value, source)  # a file outranks the unit's own line
    return Unit(
        name,
        last.get("User", ""),
        tuple(last.get("SupplementaryGroups", "").split()),
        last.get("NoNewPrivileges") == "yes",
        tuple((key, value, source) for key, (value, source) in variables.items()),
    )


def _from_files(
    host: Host, pattern: str, optional: bool, prefix: str, notes: list[str]
) -> list[tuple[str, str, str]]:
    if not pattern:
        return []
    base = host.path("/").rstrip("/")
    paths = [path[len(base) :] for path in sorted(glob.glob(base + pattern))]
    if not paths and not optional:
        notes.append(f"{prefix}{pattern} is not there")
    found = []
    for path in paths:
        try:
            text = host.text(path) or ""
        except UnknownError as error:
            notes.append(f"{prefix}{error}")
            continue
        found += [(key, value, path) for key, value in parse(text).settings.items()]
    return found


def variables(units: Iterable[Unit]) -> list[dict[str, str]]:
    """List the variables of units by name, as a policy may want any of them gone.

    Only CUDA's own switches come with their value: others may be keys and tokens.
    """
    return [
        {
            "unit": unit.name,
            "name": name,
            **({"value": value} if name in BAD_ENVIRONMENT else {}),
            "source": source,
        }
        for unit in units
        for name, value, source in unit.environment
    ]


def persistence_daemon(host: Host) -> str:
    """Return ``active`` or ``inactive``; it may run without a unit of its own.

    Raises:
        UnknownError: neither systemd nor /proc can be asked.
    """
    outcome = host.call("systemctl", "is-active", _DAEMON)
    state = outcome.out.strip()
    if state in ("active", "reloading", "activating"):
        return "active"
    processes = host.names("/proc")
    if processes is None and not state:
        raise UnknownError(said(outcome, "systemctl is-active", host.timeout_s))
    numbers = [name for name in processes or [] if name.isdigit()]
    return (
        "active" if any(_comm(host, number) == _DAEMON_COMM for number in numbers) else "inactive"
    )


def _comm(host: Host, number: str) -> str:
    try:
        return (host.text(f"/proc/{number}/comm") or "").strip()
    except UnknownError:  # it ended meanwhile
        return ""


def groups_of(units: Iterable[Unit], user: str) -> list[str]:
    """Return the groups that the units of a user add to it."""
    return [group for unit in units if unit.user == user for group in unit.groups]
