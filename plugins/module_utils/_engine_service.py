# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Plans for an engine's systemd unit: enable, reload, start, restart.

Whether a running service is out of date is read from the host, not from what the present run has
changed: a file that it was started with is newer than its start, or its environment isn't what
systemd would load. So a run that was killed between writing a file and restarting is completed by
the next one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    Verdict,
    at_most,
    judge,
)

Runner = Callable[[list[str]], "tuple[int, str, str]"]

PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NeedDaemonReload",
    "MainPID",
    "ActiveEnterTimestampMonotonic",
    "FragmentPath",
    "Result",
)


def parse_show(text: str) -> dict[str, str]:
    """Parse the output of ``systemctl show``: one ``Name=value`` a line."""
    result = {}
    for line in text.splitlines():
        name, separator, value = line.partition("=")
        if separator:
            result[name] = value
    return result


def observe(unit: str, run: Runner) -> dict[str, str]:
    """Read the unit's state; a unit that doesn't exist has ``LoadState=not-found``."""
    _rc, out, _err = run(["systemctl", "show", unit, "--property=" + ",".join(PROPERTIES)])
    return parse_show(out)


def started_at(state: dict[str, str], now: float, monotonic: float) -> float:
    """Return the wall-clock time in seconds at which the service became active, 0 when it isn't."""
    try:
        entered = int(state.get("ActiveEnterTimestampMonotonic", "0")) / 1e6
    except ValueError:
        return 0.0
    if entered <= 0 or state.get("ActiveState") != "active":
        return 0.0
    return now - (monotonic - entered)


def newer_files(paths: list[str], since: float) -> list[str]:
    """Return the paths whose content or place changed after ``since`` (change time, seconds)."""
    result = []
    for path in paths:
        try:
            if os.stat(path).st_ctime > since:
                result.append(path)
        except FileNotFoundError:
            continue
    return result


def plan(
    unit: str,
    state: dict[str, str],
    enabled: bool,
    changed: bool,
    newer: Sequence[str],
    *,
    outdated: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Return the actions that bring the unit to active, enabled and up to date.

    Args:
        unit: the unit's name.
        state: what :func:`observe` returned.
        enabled: whether it has to start at boot.
        changed: the present run changed, or in check mode would change, what it is started with.
        newer: files that are newer than the service's start.
        outdated: variables that the running process has otherwise than systemd would set them.
    """
    actions: list[dict[str, Any]] = []
    missing = state.get("LoadState") == "not-found"
    if changed or missing or state.get("NeedDaemonReload") == "yes":
        actions.append({"action": "reload_systemd", "target": unit, "say": "reload systemd"})
    if enabled and state.get("UnitFileState") != "enabled":
        actions.append({"action": "enable", "target": unit, "say": f"enable {unit}"})
    if state.get("ActiveState") != "active":
        actions.append({"action": "start", "target": unit, "say": f"start {unit}"})
    elif changed or newer or outdated:
        actions.append({"action": "restart", "target": unit, "say": f"restart {unit}"})
    return actions


def interrupts(actions: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether planned actions break off what a running engine is doing."""
    return any(item["action"] == "restart" for item in actions)


def waiting(reason: str, wait_s: float) -> str:
    """Return the words for what something planned has to wait for."""
    return f"waits at most {wait_s:.0f} s because {reason}"


def postponed(
    actions: Sequence[Mapping[str, Any]], reason: str, wait_s: float
) -> list[dict[str, Any]]:
    """Return a plan that says what its restart has to wait for."""
    waits = f" ({waiting(reason, wait_s)})"
    return [
        {**item, "say": item["say"] + waits} if item["action"] == "restart" else dict(item)
        for item in actions
    ]


def commands(actions: list[dict[str, Any]]) -> list[list[str]]:
    """Return the command that each planned action stands for."""
    verbs = {
        "reload_systemd": ["systemctl", "daemon-reload"],
        "enable": ["systemctl", "enable"],
        "start": ["systemctl", "start"],
        "restart": ["systemctl", "restart"],
    }
    result = []
    for item in actions:
        command = list(verbs[item["action"]])
        if item["action"] != "reload_systemd":
            command.append(item["target"])
        result.append(command)
    return result


def parse_environ(content: bytes) -> dict[str, str]:
    """Parse ``/proc/<pid>/environ``: assignments, each ended by a zero byte."""
    result = {}
    for item in content.split(b"\0"):
        name, separator, value = item.partition(b"=")
        if separator:
            result[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    return result


def judge_service(
    unit: str,
    state: Mapping[str, str],
    ready_seconds: float,
    ready_budget: float,
    *,
    wanted: Mapping[str, str],
    effective: Mapping[str, str],
) -> list[Verdict]:
    """Judge a unit after it was brought up: state, readiness in seconds, effective environment."""
    verdicts = [
        judge(
            "engine_active",
            state.get("ActiveState") == "active",
            subject=unit,
            value=state.get("ActiveState", "unknown"),
            limit="active",
            evidence="systemctl show",
        ),
        at_most(
            "engine_ready",
            ready_seconds,
            ready_budget,
            subject=unit,
            unit="s",
            evidence="time until the API answered",
        ),
    ]
    for name in sorted(wanted):
        verdicts.append(
            judge(
                "effective_environment",
                effective.get(name) == str(wanted[name]),
                subject=name,
                value=effective.get(name, "not set"),
                limit=str(wanted[name]),
                evidence=f"/proc/{state.get('MainPID', '?')}/environ",
            )
        )
    return verdicts
