# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A benchmark from its options to its result: measure, judge, record."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_baselines import (
    Record,
    read_baseline,
    record_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_csv import (
    append_baselines,
    append_results,
    baseline_of,
    read_baselines,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_entry import (
    Known,
    judge_entry,
    limits_of,
    rules_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_judge import fit_for_baseline
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import Measurement
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_metrics import measurement_from
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_options import (
    load_in_words,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_promote import (
    labels_to_replace,
    set_baseline,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_session import Session
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_sweep import stages_of
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._fsops import write_atomic
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import as_dicts

# Checks that are about all requests of a stage together, and the figure that each of them judges.
TOGETHER = {"throughput": "requests_per_s", "goodput": "goodput_per_s"}


def refuse_in_service(params: Mapping[str, Any]) -> None:
    """Raise HostError when the host serves clients and nobody has allowed to load it."""
    if params["in_service"] and not params["allow_in_service"]:
        raise HostError(
            f"{params['url']} takes requests of clients, wanted it drained: the load would slow"
            " them down, and they would falsify the figures.",
            "Drain it (playbooks/drain.yml), or say allow_in_service.",
        )


def run(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Measure, judge and record.

    ``problems`` of the result names what could not be written; the figures are there all the same.
    """
    path = params["baseline_file"]
    first = read_baselines(path) if path else {}
    due = [m["name"] for m in params["models"] if m["name"] not in first] if path else []
    refuse_in_service(params)
    problems: list[str] = []
    to_set: list[dict[str, Any]] = []
    declared = params  # as the run tells it
    try:
        to_set = _steps_to_set(params)
    except HostError as error:
        if params["measurements"] is None:
            raise  # before anything is sent
        problems.append(str(error))
        params = {**params, "baseline": None}
    if check_mode:
        return _predicted(params, list(first), due, to_set)
    limits, trust = limits_of(params)
    session = Session(declared)
    measured, facts, sweeps = _measured(session, params)
    known = Known(params, facts, limits, trust, first)
    rows, records = [], []
    entries = []
    for measurement, entry in measured:
        identity = judge_entry(entry, measurement, known)
        sound = fit_for_baseline(entry["verdicts"])
        if sound and measurement.model in due and measurement.model not in [r.model for r in rows]:
            row = baseline_of(measurement.model, measurement.begun_at, entry["metrics"])
            rows += [row] if row else []
            entry["baseline_recorded"] = row is not None
        if (params["baseline"] or {}).get("set"):
            records += _record(measurement, entry, identity, params, problems)
        entries.append(entry)
    _judge_together(entries, sweeps)
    for entry in entries:
        entry["verdicts"] = as_dicts(entry["verdicts"])
    _keep(problems, lambda: append_baselines(path, rows))
    if params["results_file"]:
        samples = [sample for measurement, _entry in measured for sample in measurement.samples]
        _keep(problems, lambda: append_results(params["results_file"], samples))
    result = {**empty_result(params), **_result(params, list(first), [row.model for row in rows])}
    if records:
        _keep(problems, lambda: _merge(result, _set(params, records, check_mode=False)))
    result["benchmark"] = entries
    result["verdicts"] = [
        verdict
        for entry in entries
        if not beyond_knee(entry, sweeps)
        for verdict in entry["verdicts"]
    ]
    result["run"] = {**session.describe(facts), "sweeps": sweeps}
    if params["json_dir"]:
        _keep(problems, lambda: _write_json(params["json_dir"], result))
    result["problems"] = problems
    return result


def empty_result(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of a run that has not begun."""
    return {**_result(params, [], []), "run": {}, "json_file": "", "problems": []}


def beyond_knee(entry: Mapping[str, Any], sweeps: list[dict[str, Any]]) -> bool:
    """Tell whether an entry is a step of a sweep at a load over its knee, or cut off after others.

    A sweep goes on until an objective breaks: that it breaks there is no failure. Nor is it one
    that the time of the run ended a step, where whole ones went before.
    """
    for sweep in sweeps:
        if sweep["model"] != entry["model"]:
            continue
        if entry.get("cut") and sweep["points"]:
            return True
        if sweep["knee"]:
            return float(entry["stage"][sweep["over"]]) > float(sweep["knee"]["value"])
    return False


def _judge_together(entries: list[dict[str, Any]], sweeps: list[dict[str, Any]]) -> None:
    """Leave a sweep's verdicts about all requests together to the step that comes closest.

    A small load misses them by being small: what counts is whether any load up to the knee
    reaches them.
    """
    for sweep in sweeps:
        steps = [entry for entry in entries if entry["model"] == sweep["model"]]
        counted = [entry for entry in steps if not beyond_knee(entry, sweeps)]
        for check, figure in TOGETHER.items():
            best = max(counted, key=lambda entry: entry["metrics"][figure] or 0.0, default=None)
            for entry in steps:
                if entry is not best:
                    entry["verdicts"] = [v for v in entry["verdicts"] if v.check != check]


def _measured(
    session: Session, params: Mapping[str, Any]
) -> tuple[list[tuple[Measurement, dict[str, Any]]], dict[str, Any], list[dict[str, Any]]]:
    """Send the requests, or take what was measured elsewhere."""
    elsewhere = params["measurements"]
    if elsewhere is None:
        return session.measure()
    facts = session.facts()
    pairs = []
    for entry in elsewhere:
        facts["engine"] = (entry.get("asked") or {}).get("engine") or facts["engine"]
        measurement = measurement_from(entry)
        measurement.begun_at = str(entry.get("begun_at") or "")
        measurement.in_flight = int(entry.get("in_flight") or 0)
        measurement.cut = bool(entry.get("cut"))
        pairs.append((measurement, dict(entry)))
    return pairs, facts, session.sweeps_from(elsewhere)


def _record(
    measurement: Measurement,
    entry: Mapping[str, Any],
    identity: Any,
    params: Mapping[str, Any],
    problems: list[str],
) -> list[Record]:
    try:
        return [
            record_of(
                measurement,
                entry["metrics"],
                entry["validity"],
                identity,
                params["baseline"]["accept_unreliable"],
            )
        ]
    except HostError as error:
        problems.append(str(error))
        return []


def _set(params: Mapping[str, Any], records: list[Record], *, check_mode: bool) -> dict[str, Any]:
    wanted = params["baseline"]
    return set_baseline(
        wanted["directory"],
        wanted["set"],
        records,
        replace=wanted["replace"],
        check_mode=check_mode,
    )


def _keep(problems: list[str], write: Any) -> None:
    """Write something; what was measured must not be lost because that fails."""
    try:
        write()
    except HostError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"{error.filename or 'a file'} cannot be written: {error}")


def _write_json(directory: str, result: dict[str, Any]) -> None:
    whole = {**result["run"], "entries": result["benchmark"]}
    stamp = "".join(c for c in whole["started_at"] if c.isalnum())
    path = os.path.join(directory, f"benchmark-{stamp}-{whole['run_id']}.json")
    # Errors are the server's own words, prompts the operators': not for everybody.
    write_atomic(path, json.dumps(whole, sort_keys=True).encode() + b"\n", 0o640)
    result["json_file"] = path


def _steps_to_set(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a run would do to the named baseline that it sets, if all it measures is sound.

    Raises:
        HostError: a comparison or the baseline to set can't be had as declared: better said now
            than after a load, which would have to be repeated.
    """
    wanted = params["baseline"] or {}
    models = [model["name"] for model in params["models"]]
    if wanted.get("compare"):
        rules_of(wanted)
        for model in models:
            read_baseline(wanted["directory"], wanted["compare"], model)
    if not wanted.get("set"):
        return []
    directory, name = wanted["directory"], wanted["set"]
    labels = [stage.label for stage in stages_of(params)]
    steps = []
    for model in models:
        there = labels_to_replace(directory, name, model, labels, replace=wanted["replace"])
        for label in labels:
            step = "replace" if label in there else "set"
            steps.append(
                {
                    "action": f"{step}_baseline",
                    "target": model,
                    "baseline": name,
                    "stage": label,
                }
            )
    return steps


def _predicted(
    params: Mapping[str, Any], known: list[str], due: list[str], to_set: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return what a run would do if everything it measures is sound."""
    result = {**empty_result(params), **_result(params, known, due)}
    result["would_send"] = load_in_words(params)
    for step in to_set:
        verb = step["action"].split("_")[0]
        result["changed"] = True
        result["actions"].append(
            f"{verb} baseline {step['baseline']} of {step['target']} ({step['stage']})"
        )
        result["plan"].append(step)
    return result


def _merge(result: dict[str, Any], more: Mapping[str, Any]) -> None:
    result["changed"] = result["changed"] or more["changed"]
    result["actions"] += more["actions"]
    result["plan"] += more["plan"]


def _result(params: Mapping[str, Any], known: list[str], recorded: list[str]) -> dict[str, Any]:
    """Return the part of the result that check mode predicts."""
    path = params["baseline_file"]
    return {
        "changed": bool(recorded),
        "actions": [f"record the first baseline of {model}" for model in recorded],
        "plan": [
            {"action": "record_baseline", "target": model, "path": path} for model in recorded
        ],
        "baseline_recorded": recorded,
        "benchmark": [],
        "verdicts": [],
        "would_send": [],
        "diff": {
            "before_header": f"models with a baseline in {path}",
            "after_header": f"models with a baseline in {path}",
            "before": "".join(f"{model}\n" for model in known),
            "after": "".join(f"{model}\n" for model in [*known, *recorded]),
        },
    }
