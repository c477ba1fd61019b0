# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Turns the record of a run into what a report shows: pure, the templates only lay it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_compare as compare
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_svg as svg
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_text as text
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _run_record as records
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _run_traffic as traffic

TONES = {"PASS": "good", "WARN": "warn", "FAIL": "bad", records.PLAN: "plan"}
FOLDED = 9  # actions of a step that are shown without being asked for
GRAVITY = {"FAIL": 0, "WARN": 1, "PASS": 2}
CHECKS = {"ttft": "time to first token", "gpu_used": "GPU used", "api": "API"}
TITLES = {
    "prepare": "Prepare",
    "storage": "Storage",
    "services": "Services",
    "models": "Models",
    "validate": "Validate",
    "harden": "Harden",
    "undrain": "Undrain",
}


def view(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that a template needs to lay out a report."""
    before, after = record["state"]["before"], record["state"]["after"]
    dry = record["mode"] == records.CHECK
    # Observed once, there is nothing to compare: a dry run, a run that started in the middle, or
    # one after which the host didn't answer any more.
    once = dry or not after or not before
    observed = "before" if before else "after"
    speeds = model_speeds(record)
    phases = _phases(record)
    return {
        "host": record["host"],
        "run_id": record["run_id"],
        "dry": dry,
        "verdict": record["verdict"] or "not known",
        "tone": TONES.get(str(record["verdict"]), "plan"),
        "headline": headline(record),
        "started": record["started"],
        "took": text.duration(record["seconds"]),
        "controller": record["controller"],
        "figures": _figures(record, speeds),
        "phases": phases,
        "failure": record["failure"],
        "after_failure": after_failure(record["failure"]),
        "once": once,
        "observed": observed,
        "comparison": compare.rows(before or after, {} if once else after),
        "groups": _plan_groups(record),
        "verdicts": _verdict_groups(record),
        "counts": _counts(record["verdicts"]),
        "timeline": svg.timeline(phases, float(record["seconds"] or 0)),
        "latency": svg.latency(speeds),
        "models": _models(record, speeds),
        "backup": record["data"].get("backup") or {},
        "record": record,
    }


def headline(record: Mapping[str, Any]) -> str:
    """Say in one sentence how the run ended."""
    changes = text.counted(record["changed"], "change")
    failure = record["failure"]
    if failure:
        return f"Stopped in phase {failure['phase']}: {failure['task'] or 'a task'} failed."
    if record["status"] == "failed":
        return "Stopped before its end."
    if record["mode"] == records.CHECK:
        return f"A real run would make {changes}." if record["changed"] else "Nothing to change."
    counts = _counts(record["verdicts"])
    passed = f"{counts['PASS']} of {sum(counts.values())} checks passed"
    what = f"{changes} made" if record["changed"] else "Nothing had to change"
    return f"{what}, {passed}.{_noted(record)}" if record["verdicts"] else f"{what}."


def _noted(record: Mapping[str, Any]) -> str:
    """Name the checks that did not pass, as far as they fit into a sentence."""
    names = [
        f"{_check(verdict)} of {verdict['subject']}" if verdict.get("subject") else _check(verdict)
        for verdict in record["verdicts"]
        if verdict["status"] != "PASS"
    ]
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f" Not passed: {', '.join(names[:2])}{more}." if names else ""


def _check(verdict: Mapping[str, Any]) -> str:
    name = str(verdict["check"])
    return CHECKS.get(name, name.replace("_", " "))


def after_failure(failure: Mapping[str, Any] | None) -> list[str]:
    """Say what is known of the host after a failure."""
    if not failure:
        return []
    told = {
        "drained": ("It is drained: no new requests reach it.", "It still takes requests."),
        "healthy": ("It still serves.", "It is not healthy."),
        "rolled_back": ("The phase was rolled back.", "The phase was not rolled back."),
    }
    return [
        yes if failure[key] else no
        for key, (yes, no) in told.items()
        if failure.get(key) is not None
    ]


def model_speeds(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the measured speed of each model, from whatever form the benchmark gave it."""
    measured = record["data"].get("benchmark") or []
    if isinstance(measured, Mapping):
        measured = measured.get("benchmark") or []
    limits = _limits(record["verdicts"])
    speeds: list[dict[str, Any]] = []
    for item in measured:
        model, metrics = str(item.get("model", "")), item.get("metrics") or {}
        further = any(speed["name"] == model for speed in speeds)
        own = item.get("verdicts")
        limit = (_limits(own) if own or further else limits).get(model)
        slo = (item.get("slo") or {}).get("ttft_ms")
        samples = _samples(item)
        speeds.append(
            {
                "name": model,
                "label": str(item.get("series") or "further run") if further else model,
                "further": further,  # the model was measured before, in another way
                "samples": samples,
                "median": _median(metrics.get("ttft_ms", item.get("ttft_ms")), samples),
                "limit": _number(slo if slo is not None else limit),
                "rate": _median(metrics.get("tokens_per_s", item.get("tokens_per_s")), []),
            }
        )
    return sorted(speeds, key=lambda speed: speed["name"])


def _limits(verdicts: Any) -> dict[str, Any]:
    """Return the largest time to the first token that is declared for each model."""
    return {
        str(verdict.get("subject")): verdict.get("limit")
        for verdict in verdicts or []
        if verdict.get("check") == "ttft"
    }


def _samples(item: Mapping[str, Any]) -> list[float]:
    values: list[Any] = []
    if isinstance(item.get("ttft_ms"), (list, tuple)):
        values = list(item["ttft_ms"])
    else:
        values = [sample.get("ttft_ms") for sample in item.get("samples") or []]
    numbers = [_number(value) for value in values]
    return [number for number in numbers if number is not None]


def _median(value: Any, samples: Sequence[float]) -> float | None:
    if isinstance(value, Mapping):
        return _number(value.get("median"))
    if isinstance(value, (list, tuple)):
        samples = [number for number in map(_number, value) if number is not None]
        value = None
    if value is None:
        return median(samples) if samples else None
    return _number(value)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


def _phases(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    ran = {phase["name"]: phase for phase in record["phases"]}
    names = list(dict.fromkeys([*records.PHASES, *ran]))
    shown = []
    for number, name in enumerate(names, start=1):
        phase = ran.get(name)
        verdict = str(phase["verdict"] or "running") if phase else "not run"
        shown.append(
            {
                "number": number,
                "name": name,
                "title": TITLES.get(name, name.capitalize()),
                "verdict": verdict,
                "tone": TONES.get(verdict, "idle"),
                "changes": phase["changed"] if phase else 0,
                "seconds": phase["seconds"] if phase else None,
                "took": text.duration(phase["seconds"]) if phase else "",
                "offset_seconds": phase["offset_seconds"] if phase else 0,
                "checks": _counts(v for v in record["verdicts"] if v["phase"] == name),
            }
        )
    return shown


def _figures(
    record: Mapping[str, Any], speeds: Sequence[Mapping[str, Any]]
) -> list[dict[str, str]]:
    """Return the few numbers that stand in large type."""
    before, after = record["state"]["before"], record["state"]["after"]
    dry = record["mode"] == records.CHECK
    counts = _counts(record["verdicts"])
    one = "change" if record["changed"] == 1 else "changes"
    figures = [
        {
            "label": f"{one} {'planned' if dry else 'made'}",
            "value": str(record["changed"]),
            "note": f"in {text.duration(record['seconds'])}" if record["seconds"] else "",
        }
    ]
    if record["verdicts"]:
        noted = [f"{counts[key]} {key}" for key in ("WARN", "FAIL") if counts[key]]
        figures.append(
            {
                "label": "checks pass now" if dry else "checks passed",
                "value": f"{counts['PASS']}/{sum(counts.values())}",
                "note": "before any change" if dry else ", ".join(noted) or "none failed",
            }
        )
    gone = (record["data"].get("reclaimed") or {}).get("bytes")
    gone = compare.reclaimed(before, after) if gone is None else gone
    left = compare.left_over(before)
    if gone and not dry:
        figures.append(
            {"label": "reclaimed", "value": text.size(gone), "note": "partial downloads, orphans"}
        )
    elif left and dry:
        figures.append(
            {"label": "to reclaim", "value": text.size(left), "note": "partial downloads, orphans"}
        )
    interruption = (record["data"].get("interruption") or {}).get("seconds")
    if interruption:
        figures.append(
            {
                "label": "service interruption",
                "value": text.duration(interruption),
                "note": "while the store changed its place",
            }
        )
    drain = traffic.figure(record)
    figures.extend([drain] if drain else [])
    first = [speed["median"] for speed in speeds if not speed["further"]]
    medians = [value for value in first if value is not None]
    if medians:
        figures.append(
            {
                "label": "slowest first token",
                "value": text.milliseconds(max(medians)),
                "note": f"median, {text.counted(len(medians), 'model')}",
            }
        )
    return figures


def _plan_groups(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for entry in record["plan"]:
        groups.setdefault(entry["phase"], []).append(entry)
    return [
        {
            "phase": name,
            "title": TITLES.get(name, name.capitalize()),
            "entries": entries,
            "steps": _steps(entries),
        }
        for name, entries in groups.items()
    ]


def _steps(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Gather what one step does; a long one is folded under its name."""
    steps: list[dict[str, Any]] = []
    for entry in entries:
        sentence = str(entry["action"])
        if not steps or (entry["role"], entry["step"]) != steps[-1]["key"]:
            title = str(entry["step"]).replace("_", " ").capitalize()
            steps.append(
                {
                    "key": (entry["role"], entry["step"]),
                    "title": title,
                    "role": entry["role"],
                    "actions": [],
                }
            )
        steps[-1]["actions"].append(f"{sentence[:1].upper()}{sentence[1:]}")
    return [{**step, "folded": len(step["actions"]) > FOLDED} for step in steps]


def _verdict_groups(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for verdict in record["verdicts"]:
        unit = str(verdict.get("unit") or "")
        groups.setdefault(verdict["phase"], []).append(
            {
                "check": _check(verdict),
                "status": verdict["status"],
                "tone": TONES.get(str(verdict["status"]), "idle"),
                "subject": verdict.get("subject") or "",
                "value": text.figure(verdict.get("value"), unit),
                "limit": text.figure(verdict.get("limit"), unit),
                "evidence": verdict.get("evidence") or "",
            }
        )
    return [
        {
            "phase": name,
            "title": TITLES.get(name, name.capitalize()),
            "rows": sorted(rows, key=lambda row: GRAVITY.get(row["status"], 3)),
            "counts": _counts(rows),
        }
        for name, rows in groups.items()
    ]


def _models(record: Mapping[str, Any], speeds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what is known of each model: its digest and size before and after, its speed."""
    states = record["state"]
    old = {model["name"]: model for model in compare.models(states["before"])}
    new = {model["name"]: model for model in compare.models(states["after"])}
    speed_of = {speed["name"]: speed for speed in speeds if not speed["further"]}
    shown = []
    for name in sorted({*old, *new}):
        model = new.get(name) or old[name]
        state = "unchanged"
        if name not in old:
            state = "new"
        elif states["after"] and name not in new:
            state = "removed"
        elif name in new and new[name]["digest"] != old[name]["digest"]:
            state = "replaced"
        speed = speed_of.get(name, {})
        limit = speed.get("limit")
        shown.append(
            {
                "name": name,
                "digest": model["digest"][:12],
                "size": text.size(model["size_bytes"]),
                "state": state,
                "ttft": text.milliseconds(speed["median"]) if speed.get("median") else "",
                "limit": text.milliseconds(limit) if limit is not None else "",
                "rate": f"{speed['rate']:.1f}" if speed.get("rate") else "",
            }
        )
    return shown


def _counts(verdicts: Any) -> dict[str, int]:
    counts = dict.fromkeys(("PASS", "WARN", "FAIL"), 0)
    for verdict in verdicts:
        if verdict["status"] in counts:
            counts[verdict["status"]] += 1
    return counts
