# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The page of a benchmark run: one HTML file without scripts or anything from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_outcome as outcome
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_plots as plots
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_plots_load as load_plots
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_view as views
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_files as files
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_text as text

TEMPLATE = Path(__file__).with_name("templates") / "benchmark.html.j2"
POINTS = 3600  # of all clouds together
LEAST_POINTS = 40  # of one cloud
SHOWN_REASONS = 12
OPEN = 3  # entries that are shown unfolded
# Requests that stand in no row are in the JSON file; beside the figures they would fill the page.
OPTIONS = {
    "api": "asked as",
    "run_from": "sent from",
    "num_predict": "tokens at most",
    "think": "think",
    "warmup": "warm-up requests",
    "stream": "streaming",
}
DEFINITIONS = (
    (
        "TTFT",
        "from sending a request (open loop: from when it was due) to the arrival of the first"
        " record with content, reasoning or a tool call",
    ),
    ("end to end", "from the same start to the arrival of the end of the answer"),
    (
        "gap, ITL",
        "time between the arrivals of two such records that follow each other; every one is kept",
    ),
    ("stall", "a gap over the limit that the plot marks"),
    ("TPOT", "(last arrival - first arrival) / (tokens - tokens of the first record)"),
    (
        "tokens/s of a request",
        "generated tokens per second of generation, without the time to the first token",
    ),
    ("tokens/s in all", "tokens of all answered requests over the time of the load"),
    ("goodput", "requests that kept every declared objective, per second"),
    ("p50, p90, p99", "percentiles by linear interpolation; p50 is the median"),
    ("95 % interval", "of the median, by bootstrap; another run would likely fall into it"),
    ("CV", "coefficient of variation: standard deviation over mean"),
    (
        "cold",
        "the first request of the warm-up, which may have loaded the model; never averaged in",
    ),
    (
        "client overhead",
        "what this client added at the same concurrency against a loopback server whose times are"
        " known, measured right before the load",
    ),
    (
        "knee",
        "the last step of a sweep that kept the objectives; without objectives the step where"
        " throughput lies highest above the straight line from the first to the last (Kneedle)",
    ),
    (
        "UNRELIABLE, INVALID",
        "UNRELIABLE: something disturbed the figures. INVALID: they describe the client or nothing",
    ),
)


def render_page(run: Mapping[str, Any]) -> str:
    """Return the page of a run; ``run`` is what schemas/benchmark.json describes."""
    return files.render(str(TEMPLATE), page_view(run))


def page_view(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that the template lays out."""
    entries = run.get("entries") or []
    word, reasons = outcome.of_run(run)
    budget = max(LEAST_POINTS, min(plots.BUDGET, POINTS // max(1, len(entries))))
    sweeps = outcome.sweeps_of(run)
    shown = []
    for number, entry in enumerate(entries, start=1):
        view = views.entry_view(entry, number, budget)
        view["beyond"] = outcome.beyond_knee(entry, run)
        view["open"] = len(entries) <= OPEN
        shown.append(view)
    engine = run.get("engine") or {}
    return {
        "host": run["host"] or run["url"],
        "url": run["url"],
        "engine": " ".join(str(engine[key]) for key in ("name", "version") if engine.get(key)),
        "models": list(dict.fromkeys(entry["model"] for entry in entries)),
        "started": run["started_at"],
        "word": word,
        "tone": outcome.TONES[word],
        "headline": outcome.headline(run, word),
        "reasons": reasons[:SHOWN_REASONS],
        "more_reasons": max(0, len(reasons) - SHOWN_REASONS),
        "entries": shown,
        "overview": _overview(entries, shown),
        "sweeps": [_sweep(item, len(sweeps)) for item in sweeps],
        "facts": _facts(run),
        "definitions": DEFINITIONS,
        "schema": run.get("schema"),
    }


def _overview(
    entries: Sequence[Mapping[str, Any]], shown: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Return a row for each entry, and a drawing of them; None when there is one entry."""
    if len(entries) < 2:
        return None
    models = len({entry["model"] for entry in entries})
    drawn, rows = [], []
    for entry, view in zip(entries, shown, strict=True):
        metrics = entry.get("metrics") or {}
        ttft, speed = metrics.get("ttft_ms") or {}, metrics.get("tokens_per_s") or {}
        name = str(entry["model"]) if models > 1 else str(view["label"])
        drawn.append(
            {
                "label": name if models in (1, len(entries)) else f"{name}, {view['label']}",
                "p50": ttft.get("median"),
                "p99": ttft.get("p99"),
                "limit": views.limits_of(entry).get("ttft_ms"),
                "rate": speed.get("median"),
                "tone": view["tone"] if view["word"] == "FAIL" else "",
            }
        )
        errors = sum((entry.get("errors") or {}).values())
        rows.append(
            {
                "view": view,
                "cells": [
                    views.ms(ttft.get("median")),
                    views.ms(ttft.get("p99")),
                    views.ms((metrics.get("gap_ms") or {}).get("p99")),
                    views.ms((metrics.get("latency_ms") or {}).get("median")),
                    views.rate(speed.get("median")),
                    views.rate(metrics.get("total_tokens_per_s")),
                    views.ms(metrics.get("load_ms")),
                    str(errors) if errors else views.DASH,
                ],
            }
        )
    return {"rows": rows, "plot": load_plots.models(drawn), "models": models}


def _sweep(item: Mapping[str, Any], number: int) -> dict[str, Any]:
    over = "requests/s" if item.get("over") == "rate" else "at once"
    knee = item.get("knee") or {}
    broken = [point for point in item.get("points") or [] if point.get("broken")]
    rows = [
        {
            "knee": point["value"] == knee.get("value"),
            "word": "the highest tried" if knee.get("at_least") else "knee",
            "cells": [
                f"{point['value']:g}",
                views.rate(point.get("total_tokens_per_s")),
                views.rate(point.get("requests_per_s")),
                views.ms(point.get("ttft_p50_ms")),
                views.ms(point.get("ttft_p95_ms")),
                views.ms(point.get("ttft_p99_ms")),
                views.rate(point.get("goodput_per_s")),
                f"{point.get('failed') or 0}/{point.get('requests') or 0}",
            ],
            "broken": "; ".join(point.get("broken") or []),
        }
        for point in item.get("points") or []
    ]
    if knee:
        said = str(knee.get("text") or "")
    elif broken:
        said = "The lowest load already missed an objective: there is no knee."
    else:
        said = "The steps show no knee."
    return {
        "title": str(item.get("model") or "") if number > 1 else "",
        "over": over,
        "plot": load_plots.sweep(item),
        "said": said,
        "stopped": item.get("stopped_because") or "",
        "rows": rows,
    }


def _facts(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a reader needs to repeat the run."""
    facts, options = run.get("facts") or {}, run.get("options") or {}
    told: list[tuple[str, str]] = []
    gpus = facts.get("gpus") or []
    names = [str(gpu.get("name") if isinstance(gpu, Mapping) else gpu) for gpu in gpus]
    counts = {name: names.count(name) for name in names}
    told.append(
        (
            "GPU",
            ", ".join(f"{count} x {name}" for name, count in counts.items()) or "none known",
        )
    )
    if facts.get("driver"):
        told.append(("driver", str(facts["driver"])))
    settings = {"api": run.get("dialect"), **options}
    told += [
        (label, text.figure(settings[name]))
        for name, label in OPTIONS.items()
        if settings.get(name) not in (None, "")
    ]
    digests = facts.get("digests") or {}
    if len(digests) <= OPEN:
        told += [
            (f"digest of {name}", str(digest).removeprefix("sha256:")[:12])
            for name, digest in digests.items()
            if digest
        ]
    return told
