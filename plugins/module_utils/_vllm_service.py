# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Plans for one vLLM service: lead it to a release, start, restart, roll back, remove.

As with the other engine, whether a running service is out of date is read from the host: a file
that it was started with is newer than its start. Its start is when the process began, not when it
became ready, because files may change in the minutes between.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.hx_infra.llm.plugins.module_utils._engine_service import parse_show
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._vllm_service_memory import (
    GOOD,
    PREVIOUS,
    Kept,
    Memory,
    same,
)

Runner = Callable[[Sequence[str]], "tuple[int, str, str]"]

PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NeedDaemonReload",
    "MainPID",
    "ExecMainStartTimestampMonotonic",
    "ExecMainStatus",
    "Result",
    "NRestarts",
    "ControlGroup",
)
INTERRUPTS = ("restart", "stop")
# What a generator makes, as of a container file, carries its own enabling.
_ENABLED = ("enabled", "generated")
_ALIVE = ("active", "activating", "reloading", "deactivating")


@dataclass(frozen=True)
class Declared:
    """What a service has to be.

    Attributes:
        unit: its systemd unit.
        folder: the directory of its link and its memories.
        release: the release that it has to lead to; empty for none, None for the one that it has.
        changed: earlier tasks of this run changed, or in check mode would change, its files.
    """

    unit: str
    folder: str
    release: str | None = None
    changed: bool = False


@dataclass(frozen=True)
class Endpoint:
    """Where a service answers, and with what."""

    url: str
    port: int
    models: tuple[str, ...]
    key_file: str
    own_process: bool


def endpoint_of(text: bytes) -> Endpoint:
    """Read what is written for the readiness probe.

    Raises:
        ValueError: it isn't that.
    """
    try:
        known = json.loads(text)
        return Endpoint(
            str(known["url"]),
            int(known["port"]),
            tuple(str(name) for name in known["models"]),
            str(known.get("key_file") or ""),
            bool(known.get("own_process", True)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def observe(unit: str, run: Runner) -> dict[str, str]:
    """Read the unit's state; a unit that doesn't exist has ``LoadState=not-found``."""
    _rc, out, _err = run(["systemctl", "show", unit, "--property=" + ",".join(PROPERTIES)])
    return parse_show(out)


def began_at(state: Mapping[str, str], now: float, monotonic: float) -> float:
    """Return the wall-clock time at which the main process began, 0 when there is none."""
    try:
        begun = int(state.get("ExecMainStartTimestampMonotonic", "0")) / 1e6
    except ValueError:
        return 0.0
    if begun <= 0 or state.get("MainPID", "0") == "0":
        return 0.0
    return now - (monotonic - begun)


def newer_files(paths: Iterable[str], since: float) -> list[str]:
    """Return the paths that changed after ``since``: what a link leads to, and the link itself."""
    result = []
    for path in paths:
        try:
            changed = max(os.lstat(path).st_ctime, os.stat(path).st_ctime)
        except FileNotFoundError:
            continue
        if changed > since:
            result.append(path)
    return result


def plan_started(
    declared: Declared, state: Mapping[str, str], release_now: str, newer: Sequence[str]
) -> list[dict[str, str]]:
    """Return the steps that bring the service to its release, enabled, active and up to date."""
    unit = declared.unit
    steps = []
    wanted = release_now if declared.release is None else declared.release
    switch = wanted != release_now
    if switch:
        where = f"from {release_now} " if release_now else ""
        say = f"lead {unit} {where}to {'the release ' + wanted if wanted else 'no release'}"
        steps.append({"action": "switch_release", "target": wanted, "say": say})
    missing = state.get("LoadState") == "not-found"
    if declared.changed or missing or state.get("NeedDaemonReload") == "yes":
        steps.append(_step("reload_systemd", unit, "reload systemd"))
    if state.get("UnitFileState") not in _ENABLED:
        steps.append(_step("enable", unit))
    if state.get("ActiveState") != "active":
        steps.append(_step("start", unit))
    elif switch or declared.changed or newer:
        steps.append(_step("restart", unit))
    return steps


def plan_restored(
    declared: Declared, state: Mapping[str, str], memory: Memory, now: Kept, host: str
) -> tuple[str, list[dict[str, str]]]:
    """Return which memory to go back to, and the steps.

    A rollback that was begun is brought to its end. Then a state that never served is undone: the
    good state is the one to go back to.
    """
    unit, good, previous = declared.unit, memory.good, memory.previous
    begun = memory.unfinished
    if begun is not None and same(good, begun):
        name, target = GOOD, begun
    elif begun is not None and same(previous, begun):
        name, target = PREVIOUS, begun
    elif good is not None and not same(good, now):
        name, target = GOOD, good
    elif previous is not None:
        name, target = PREVIOUS, previous
    else:
        told = "".join(f" {sentence}" for sentence in memory.damage)
        raise HostError(
            f"{host}: {unit} has no earlier state that served a request; wanted one to go back to."
            f"{told}",
            "Change the declaration instead and run the playbook vllm.",
        )
    steps = []
    if state.get("ActiveState") in _ALIVE:
        steps.append(_step("stop", unit))
    say = f"put back what {unit} served with before"
    if target.release:
        say += f", the release {target.release}"
    steps.append({"action": "restore", "target": unit, "say": say})
    steps.append(_step("reload_systemd", unit, "reload systemd"))
    if not _carries_its_enabling(target) and state.get("UnitFileState") != "enabled":
        steps.append(_step("enable", unit))
    steps.append(_step("start", unit))
    return name, steps


def _carries_its_enabling(kept: Kept) -> bool:
    return any(entry["path"].endswith(".container") for entry in kept.files)


def plan_absent(
    unit: str, state: Mapping[str, str], paths: Iterable[str], folder: str
) -> list[dict[str, str]]:
    """Return the steps that leave nothing of the service."""
    steps = []
    alive = state.get("ActiveState") in _ALIVE
    if alive:
        steps.append(_step("stop", unit))
    if state.get("UnitFileState") == "enabled":
        steps.append(_step("disable", unit))
    present = [path for path in [*paths, folder] if os.path.lexists(path)]
    steps += [_step("remove", path) for path in present]
    if steps:
        steps.append(_step("reload_systemd", unit, "reload systemd"))
    return steps


def _step(action: str, target: str, say: str = "") -> dict[str, str]:
    return {"action": action, "target": target, "say": say or f"{action} {target}"}


def as_plan(steps: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return the steps as results carry them."""
    return [{"action": step["action"], "target": step["target"]} for step in steps]
