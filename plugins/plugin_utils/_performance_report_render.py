# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A performance report as Markdown and as one self-contained page; both hold the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_plots_load as load_plots
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_view as views
from ansible_collections.hx_infra.llm.plugins.plugin_utils import (
    _performance_report_rules as rules,
)
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_files as files
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_text as text

TEMPLATES = Path(__file__).with_name("templates")
TONES = {rules.READY: "good", rules.CONDITIONS: "warn", rules.NOT_READY: "bad"}
SEVERITIES = {rules.BLOCKER: "bad", rules.CONDITION: "warn", rules.ADVICE: "idle"}
SAID = {
    rules.READY: "Nothing stands against production.",
    rules.CONDITIONS: "Production is possible once the conditions below are met or accepted.",
    rules.NOT_READY: "At least one finding stands against production.",
}
UNKNOWN = "not known"
Table = dict[str, Any]  # title, note, head, rows of texts, figures (columns to the right), plot


def render_markdown(report: Mapping[str, Any]) -> str:
    """Return the report as Markdown."""
    return files.render(str(TEMPLATES / "performance.md.j2"), report_view(report))


def render_html(report: Mapping[str, Any]) -> str:
    """Return the report as one self-contained page."""
    return files.render(str(TEMPLATES / "performance.html.j2"), report_view(report))


def report_view(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that the templates lay out."""
    verdict = str(report["verdict"])
    measured = report["measured_at"]
    return {
        "host": report["host"],
        "engines": ", ".join(report["engines"]) or "engine not known",
        "measured": " to ".join(dict.fromkeys([measured[0], measured[-1]]))
        if measured
        else "never",
        "verdict": verdict,
        "tone": TONES[verdict],
        "headline": SAID[verdict],
        "reasons": report["reasons"],
        "findings": [
            {
                **{key: item[key] for key in ("rule", "severity", "subject", "text")},
                "tone": SEVERITIES[item["severity"]],
                "value": text.figure(item["value"], item["unit"]),
                "limit": text.figure(item["limit"], item["unit"]),
            }
            for item in report["recommendations"]
        ],
        "tables": [table for table in _tables(report) if table["rows"]],
        "unknown": report["unknown"],
        "limits": [f"{name} {value:g}" for name, value in report["limits"].items()],
    }


def _tables(report: Mapping[str, Any]) -> list[Table]:
    return [
        _models(report["models"], report["same_load"]),
        _loads(report["models"]),
        *[_lengths(item) for item in report["prompt_lengths"]],
        _capacity(report["capacity"]),
        _gpus(report["machine"]),
        _host(report["machine"]),
        _disk(report["disk"]),
        _stability(report["stability"]),
    ]


def _table(
    title: str, note: str, head: Sequence[str], rows: Sequence[Sequence[str]], plot: Any = ""
) -> Table:
    return {"title": title, "note": note, "head": head, "rows": rows, "plot": plot}


def _models(rows: Sequence[Mapping[str, Any]], common: bool) -> Table:
    measured = [row for row in rows if row["requests"]]
    told = (
        "All at the same load."
        if common
        else "Each at its lowest load, and the loads differ: compare models only within one load."
    )
    fastest = max((row["tokens_per_s"] or 0 for row in measured), default=0)
    drawn = [
        {
            "label": row["model"],
            "p50": row["ttft_ms"],
            "p99": row["ttft_p99_ms"],
            "limit": None,
            "rate": row["tokens_per_s"],
        }
        for row in measured
    ]
    return _table(
        "Models compared",
        f"{told} Tokens per second are those of one request; relative is to the fastest model.",
        (
            "Model",
            "Size",
            "Load",
            "TTFT",
            "TTFT p99",
            "End to end",
            "Tokens/s",
            "Relative",
            "In GPU",
        ),
        [
            [
                row["model"],
                text.size(row["size_bytes"]),
                str(row["load"]),
                views.ms(row["ttft_ms"]),
                views.ms(row["ttft_p99_ms"]),
                views.ms(row["latency_ms"]),
                views.rate(row["tokens_per_s"]),
                f"{100 * row['tokens_per_s'] / fastest:.0f} %"
                if row["tokens_per_s"] and fastest
                else views.DASH,
                UNKNOWN if row["gpu_ratio"] is None else f"{100 * row['gpu_ratio']:.0f} %",
            ]
            for row in measured
        ],
        load_plots.models(drawn),
    )


def _loads(rows: Sequence[Mapping[str, Any]]) -> Table:
    known = [row for row in rows if row["load_ms"] is not None or row["cold_ttft_ms"] is not None]
    known.sort(key=lambda row: row["size_bytes"] or 0)
    points = [
        {"x": float(row["size_bytes"]), "y": float(row["load_ms"]), "label": row["model"]}
        for row in known
        if row["size_bytes"] and row["load_ms"]
    ]
    return _table(
        "Load time by size",
        "The longest load that the server told, and the first token while it was cold.",
        ("Model", "Size", "Load", "Bytes per second", "First token, cold", "Warm"),
        [
            [
                row["model"],
                text.size(row["size_bytes"]),
                views.ms(row["load_ms"]),
                f"{text.size(row['load_bytes_per_s'])}/s"
                if row["load_bytes_per_s"]
                else views.DASH,
                views.ms(row["cold_ttft_ms"]),
                views.ms(row["ttft_ms"]),
            ]
            for row in known
        ],
        load_plots.scatter(
            points, "Load time", "size of the model", (text.size, text.milliseconds)
        ),
    )


def _lengths(item: Mapping[str, Any]) -> Table:
    slope = item["ms_per_1000"]
    note = "Time to the first token at the lowest load."
    if slope is not None:
        note += f" 1,000 more tokens of prompt take {views.ms(slope)} more (Theil-Sen)."
    return _table(
        f"Latency by prompt length: {item['model']}",
        note,
        ("Prompt tokens", "Requests", "TTFT, median", "TTFT p95"),
        [
            [
                f"{row['low']:,} to {row['high']:,}",
                f"{row['requests']:,}",
                views.ms(row["ttft_ms"]),
                views.ms(row["ttft_p95_ms"]),
            ]
            for row in item["rows"]
        ],
    )


def _capacity(rows: Sequence[Mapping[str, Any]]) -> Table:
    def told(row: Mapping[str, Any]) -> str:
        if row["value"] is None:
            return UNKNOWN
        over = "requests/s" if row["over"] == "rate" else "at once"
        return f"{'at least ' if row['at_least'] else ''}{row['value']:g} {over}"

    return _table(
        "Concurrency capacity",
        "The highest load at which every objective held, by a sweep where one was run.",
        ("Model", "Capacity", "Why"),
        [[row["model"], told(row), row["text"]] for row in rows],
    )


def _gpus(machine: Mapping[str, Any]) -> Table:
    def number(value: float | None, unit: str) -> str:
        return UNKNOWN if value is None else f"{value:.0f} {unit}"

    return _table(
        "GPU memory and load",
        "Peaks while requests were under way; utilisation is the median.",
        (
            "GPU",
            "Memory, peak",
            "Of",
            "Share",
            "Utilisation",
            "Temperature",
            "Power",
            "Held down by",
        ),
        [
            [
                f"GPU {gpu['index']}",
                text.size(gpu["memory_peak_bytes"]),
                text.size(gpu["memory_total_bytes"]),
                number(gpu["memory_percent"], "%"),
                number(gpu["util_median_percent"], "%"),
                number(gpu["temperature_max_c"], "°C"),
                number(gpu["power_max_w"], "W"),
                ", ".join(gpu["throttle"]) or "nothing",
            ]
            for gpu in machine["gpus"]
        ],
    )


def _host(machine: Mapping[str, Any]) -> Table:
    rows = []
    if machine["memory_peak_bytes"] is not None:
        share = machine["memory_percent"]
        rows.append(
            [
                text.size(machine["memory_peak_bytes"]),
                text.size(machine["memory_total_bytes"]),
                UNKNOWN if share is None else f"{share:.0f} %",
                UNKNOWN
                if machine["cpu_median_percent"] is None
                else f"{machine['cpu_median_percent']:.0f} %",
            ]
        )
    return _table(
        "System memory and processor",
        "Peak of the memory and median of the processor's use, all cores, under load.",
        ("Memory, peak", "Of", "Share", "Processor"),
        rows,
    )


def _disk(disk: Mapping[str, Any]) -> Table:
    note = f"Disk of the store: {UNKNOWN}."
    if disk["used_percent"] is not None:
        note = (
            f"{disk['path'] or 'The disk'}: {text.size(disk['total_bytes'])},"
            f" {disk['used_percent']:.0f} % used, {text.size(disk['free_bytes'])} free;"
            f" models take {text.size(disk['models_bytes'])}."
        )
    return _table(
        "Disk use of the store",
        f"{note} Models that share layers take less together.",
        ("Model", "Size", "Share of the disk"),
        [
            [
                row["model"],
                text.size(row["size_bytes"]),
                UNKNOWN if row["percent"] is None else _share(row["percent"]),
            ]
            for row in disk["rows"]
        ],
    )


def _share(percent: float) -> str:
    return "< 0.1 %" if 0 < percent < 0.1 else f"{percent:.1f} %"


def _stability(rows: Sequence[Mapping[str, Any]]) -> Table:
    return _table(
        "Stability",
        "Over all loads up to the knee; CV is the largest of any load.",
        ("Model", "Requests", "Failed", "CV of tokens/s", "Stalls", "Of gaps", "Longest gap"),
        [
            [
                row["model"],
                f"{row['requests']:,}",
                f"{row['failed']:,}",
                views.DASH if row["cv_percent"] is None else f"{row['cv_percent']:.1f} %",
                f"{row['stalls']:,}" if row["gaps"] else views.DASH,
                f"{row['gaps']:,}" if row["gaps"] else views.DASH,
                views.ms(row["gap_max_ms"]),
            ]
            for row in rows
            if row["requests"]
        ],
    )
