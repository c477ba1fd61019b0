# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The record of a run: opened, filled phase by phase, closed; a new record from each step."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._timestamp import utc
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import FAIL, worst
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _run_results as results

SCHEMA = 1
FACT = "llm_run_record"
CHECK, REAL = "check", "real"
PUTS_RIGHT = ("make_directory", "permissions")  # of a module, with the access that is wanted
PLAN = "PLAN"  # the verdict of a phase that was only predicted
PHASES = ("prepare", "storage", "services", "models", "validate", "harden")
SIGNATURE = ("phase", "role", "step", "target", "action")
RUN_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")

Record = dict[str, Any]


def timestamp(now: datetime) -> str:
    """Return a point in time as ISO 8601 in UTC."""
    return utc(now.timestamp())


def new_run_id(now: datetime, mode: str) -> str:
    """Return an identifier that sorts by time and tells dry from real."""
    return now.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%SZ") + f"-{mode}"


def open_record(
    now: datetime,
    *,
    host: str,
    mode: str,
    run_id: str = "",
    declaration: Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
    controller: Mapping[str, Any] | None = None,
) -> Record:
    """Return the record of a run that begins now."""
    run_id = run_id or new_run_id(now, mode)
    if not RUN_ID.match(run_id):
        raise HostError(
            f"{host}: run_id is {run_id!r}, wanted letters, digits, '.', '_' and '-' (64 at most).",
            "Leave run_id out to have one made from the time.",
        )
    return {
        "schema": SCHEMA,
        "run_id": run_id,
        "host": host,
        "mode": mode,
        "status": "running",
        "verdict": None,
        "started": timestamp(now),
        "ended": None,
        "seconds": None,
        "started_epoch": round(now.timestamp(), 3),
        "changed": 0,
        "controller": dict(controller or {}),
        "declaration": dict(declaration or {}),
        "state": {"before": dict(state or {}), "after": {}},
        "phases": [],
        "plan": [],
        "verdicts": [],
        "failure": None,
        "data": {},
    }


def start_phase(record: Record, phase: str, now: datetime) -> Record:
    """Return the record with a phase begun; a phase begun again starts from nothing."""
    record = _without_phase(record, phase)
    record["phases"].append(
        {
            "name": phase,
            "status": "running",
            "verdict": None,
            "started": timestamp(now),
            "ended": None,
            "seconds": None,
            "started_epoch": round(now.timestamp(), 3),
            "offset_seconds": round(now.timestamp() - record["started_epoch"], 3),
            "changed": 0,
            "steps": [],
        }
    )
    return record


def end_phase(
    record: Record,
    phase: str,
    now: datetime,
    *,
    steps: Iterable[tuple[str, str, Mapping[str, Any]]] = (),
    verdicts: Iterable[Mapping[str, Any]] = (),
    failed: bool = False,
) -> Record:
    """Return the record with a phase ended.

    Args:
        record: the record so far.
        phase: name of the phase; begun now when it was not begun before.
        now: the time.
        steps: (role, step, registered result) of the changing steps, in execution order.
        verdicts: verdicts that the phase's checks gave.
        failed: whether the phase ended by a failure.
    """
    if not any(item["name"] == phase for item in record["phases"]):
        record = start_phase(record, phase, now)
    record = copy.deepcopy(record)
    current = next(item for item in record["phases"] if item["name"] == phase)
    seen = {step["digest"] for item in record["phases"] for step in item["steps"]}
    for role, step, result in steps:
        digest = results.fingerprint([role, step, result])
        if digest in seen:  # an earlier phase's result, still among the host's variables
            continue
        entries = _fresh(record, results.entries_in(step, result))
        record["plan"].extend({"phase": phase, "role": role, **entry} for entry in entries)
        current["changed"] += len(entries)
        current["steps"].append(
            {
                "role": role,
                "step": step,
                "actions": len(entries),
                "failed": results.is_failed(result),
                "digest": digest,
            }
        )
    known = [{k: v for k, v in item.items() if k != "phase"} for item in record["verdicts"]]
    fresh = []
    for verdict in verdicts:
        if dict(verdict) not in known:
            known.append(dict(verdict))
            fresh.append({"phase": phase, **verdict})
    record["verdicts"].extend(fresh)
    mine = [item for item in record["verdicts"] if item["phase"] == phase]
    current["status"] = "failed" if failed else "ok"
    current["ended"] = timestamp(now)
    current["seconds"] = round(now.timestamp() - current["started_epoch"], 3)
    current["verdict"] = _phase_verdict(record["mode"], mine, failed)
    record["changed"] = len(record["plan"])
    return record


def fail(record: Record, phase: str, failure: Mapping[str, Any]) -> Record:
    """Return the record with the failure that ended the run; the first failure stays."""
    record = copy.deepcopy(record)
    record["status"] = "failed"
    record["verdict"] = FAIL
    if record["failure"] is None:
        record["failure"] = {"phase": phase, **failure}
    return record


def corrected(record: Record, drained: bool | None, next_step: str) -> Record:
    """Return the record with what became of the host after a failure was noted."""
    if record["failure"] is None or drained is None:
        return record
    record = copy.deepcopy(record)
    record["failure"].update(drained=drained, next_step=next_step or record["failure"]["next_step"])
    return record


def attach(record: Record, data: Mapping[str, Any]) -> Record:
    """Return the record with further data; dicts of the same name are merged."""
    record = copy.deepcopy(record)
    for name, value in data.items():
        present = record["data"].get(name)
        if isinstance(present, dict) and isinstance(value, Mapping):
            present.update(value)
        else:
            record["data"][name] = copy.deepcopy(value)
    return record


def close(record: Record, now: datetime, state: Mapping[str, Any] | None = None) -> Record:
    """Return the finished record."""
    record = copy.deepcopy(record)
    for phase in record["phases"]:
        if phase["status"] == "running":
            phase["status"], phase["verdict"] = "failed", FAIL
            phase["ended"] = timestamp(now)
            phase["seconds"] = round(now.timestamp() - phase["started_epoch"], 3)
    broken = record["failure"] is not None
    broken = broken or any(phase["status"] == "failed" for phase in record["phases"])
    if state:
        record["state"]["after"] = dict(state)
    record["status"] = "failed" if broken else "ok"
    record["verdict"] = _phase_verdict(record["mode"], record["verdicts"], broken)
    record["ended"] = timestamp(now)
    record["seconds"] = round(now.timestamp() - record["started_epoch"], 3)
    return record


def signature(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return what a dry and a real run of the same host must have in common."""
    return [tuple(str(entry.get(key, "")) for key in SIGNATURE) for entry in record["plan"]]


def _fresh(record: Record, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what a dry run predicts twice, because the first time was only predicted.

    Two roles may both see to it that a directory is there; a real run makes it once, unless the
    second one wants another owner, group or mode.
    """
    if record["mode"] != CHECK:
        return entries
    made: dict[str, dict[str, Any]] = {}
    for entry in record["plan"]:
        if _puts_right(entry):
            made.setdefault(entry["target"], {}).update(_access(entry))
    return [entry for entry in entries if not _is_made(entry, made.get(entry["target"]))]


def _puts_right(entry: Mapping[str, Any]) -> bool:
    """Tell whether an entry is a path that is put right, by a builtin or by a module of ours."""
    return results.is_item(entry) or entry.get("verb") in PUTS_RIGHT


def _access(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an entry says of owner, group and mode; ours say ``root:root 0755``."""
    details = dict(entry.get("details", {}))
    words = re.fullmatch(r"([^:]*):(\S*) (\d+)", str(details.pop("access", "")))
    return {**details, **(dict(zip(results.ACCESS, words.groups())) if words else {})}


def _is_made(entry: Mapping[str, Any], made: Mapping[str, Any] | None) -> bool:
    if made is None or not _puts_right(entry):
        return False
    wanted = _access(entry)
    if not str(wanted.get("mode", "0")).isdigit():  # such as u+rwx, what any directory has
        wanted.pop("mode")
    return all(wanted[key] == made.get(key) for key in results.ACCESS if key in wanted)


def _phase_verdict(mode: str, verdicts: Iterable[Mapping[str, Any]], failed: bool) -> str:
    if failed:
        return FAIL
    return PLAN if mode == CHECK else worst(verdicts)


def _without_phase(record: Record, phase: str) -> Record:
    record = copy.deepcopy(record)
    for part, key in (("phases", "name"), ("plan", "phase"), ("verdicts", "phase")):
        record[part] = [item for item in record[part] if item[key] != phase]
    return record
