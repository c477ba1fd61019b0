# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The performance report of a host: what its benchmark runs amount to, and whether it is ready."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils import (
    _performance_report_figures as figures,
)
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _performance_report_rules as rules

SCHEMA = 1


def build_report(
    runs: Sequence[Mapping[str, Any]],
    host_facts: Mapping[str, Any],
    limits: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return the report of one host.

    Args:
        runs: what ``schemas/benchmark.json`` describes; all of the same host, at any load.
        host_facts: ``host``; ``models`` (``name``, ``size_bytes``, ``digest``) of the catalog;
            ``disk`` of the store (``path``, ``total_bytes``, ``free_bytes``). What is missing is
            reported as not known.
        limits: in place of single ones of ``_performance_report_rules.LIMITS``.

    Raises:
        HostError: the runs are of several hosts, or a limit is none that a rule has.
    """
    host = _host(runs, host_facts)
    used = _limits(host, limits or {})
    known = {str(model["name"]): model for model in host_facts.get("models") or []}
    measured = figures.entries_of(runs)
    names = sorted({*known, *measured})
    entries = {name: measured.get(name, []) for name in names}
    every = [entry for group in entries.values() for entry in group]
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "host": host,
        "engines": _engines(runs),
        "measured_at": sorted(str(run["started_at"]) for run in runs),
        "models": [figures.model_row(name, measured, known) for name in names],
        "same_load": figures.common_load(measured) is not None,
        "prompt_lengths": [
            shown
            for name in names
            if entries[name] and (shown := figures.prompt_lengths(name, entries[name]))
        ],
        "capacity": [figures.capacity(name, runs, entries[name]) for name in measured],
        "machine": figures.machine(every),
        "disk": figures.disk(host_facts),
        "stability": [figures.stability(name, entries[name]) for name in measured],
        "limits": used,
    }
    report["recommendations"] = rules.rules_of(report, runs, used)
    report["verdict"], report["reasons"] = rules.verdict_of(report["recommendations"])
    report["unknown"] = _unknown(report, host_facts)
    return report


def _host(runs: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    found = sorted({str(run["host"]) for run in runs} | {str(facts.get("host") or "")} - {""})
    if len(found) > 1:
        raise HostError(
            f"The performance report was given runs or facts of {', '.join(found)},"
            " wanted those of one host.",
            "Build one report for each host.",
        )
    return found[0] if found else "unknown"


def _limits(host: str, given: Mapping[str, float]) -> dict[str, float]:
    strange = sorted(set(given) - set(rules.LIMITS))
    if strange:
        raise HostError(
            f"{host}: the performance report has no limit {', '.join(strange)},"
            f" wanted of {', '.join(rules.LIMITS)}.",
            "Correct the name.",
        )
    return {**rules.LIMITS, **{name: float(value) for name, value in given.items()}}


def _engines(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    told = []
    for run in runs:
        engine = run.get("engine") or {}
        told.append(" ".join(str(engine[key]) for key in ("name", "version") if engine.get(key)))
    return sorted({name for name in told if name})


def _unknown(report: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Say what the report doesn't know, so that silence is not taken for health."""
    told = []
    sizes = [row["model"] for row in report["models"] if row["size_bytes"] is None]
    if sizes:
        told.append(f"Size of {', '.join(sizes)}: not in the catalog's facts.")
    loads = [row["model"] for row in report["models"] if row["requests"] and not row["load_ms"]]
    if loads:
        told.append(f"Load time of {', '.join(loads)}: the server didn't say, or it was loaded.")
    told += [
        f"TTFT of {row['model']}: no answer was streamed."
        for row in report["models"]
        if row["requests"] and row["ttft_ms"] is None
    ]
    lengths = {item["model"]: item for item in report["prompt_lengths"]}
    for row in report["models"]:
        if not row["requests"]:
            continue
        item = lengths.get(row["model"])
        if not item:
            told.append(
                f"Latency by prompt length of {row['model']}: no prompt was counted or streamed."
            )
        elif item["ms_per_1000"] is None:
            told.append(
                f"Latency by prompt length of {row['model']}: its prompts are about as long."
            )
    told += [
        f"GPU placement of {row['model']}: the server didn't say."
        for row in report["models"]
        if row["requests"] and row["gpu_ratio"] is None
    ]
    if not report["machine"]["gpus"]:
        told.append("GPU memory, temperature and power: no GPU was observed.")
    if report["machine"]["memory_percent"] is None:
        told.append("Host memory under load: not observed.")
    if report["disk"]["used_percent"] is None:
        told.append("Disk of the store: not in the facts.")
    if not facts.get("models"):
        told.append("The catalog: no facts were given, so a model that was not measured is missed.")
    return told
