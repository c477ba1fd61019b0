# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A benchmark from its options to its result: read the baselines, measure, judge, record."""

from __future__ import annotations

import datetime
import time
import uuid
from collections.abc import Mapping
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_csv import (
    Baseline,
    append_baselines,
    append_results,
    baseline_of,
    read_baselines,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_judge import (
    Limits,
    errors_of,
    fit_for_baseline,
    judge_model,
    measurement_from,
    metrics_of,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_load import (
    Load,
    Measurement,
    Tools,
    run_load,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_wire import http_prepare
from ansible_collections.hx_infra.llm.plugins.module_utils._progress import ProgressWriter
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import as_dicts


def timestamp() -> str:
    """Return the time of day as RFC 3339 in UTC."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def measure(params: Mapping[str, Any]) -> list[Measurement]:
    """Send the requests, or take what was measured elsewhere."""
    if params["measurements"] is not None:
        return [measurement_from(entry) for entry in params["measurements"]]
    writer = ProgressWriter(params["progress_file"])
    load = Load(
        prompts=params["prompts"],
        run_id=uuid.uuid4().hex[:8],
        iterations=params["iterations"],
        warmup=params["warmup"],
        concurrency=params["concurrency"],
        num_predict=params["num_predict"],
        think=params["think"],
        timeout_s=params["timeout"],
        max_duration_s=params["max_duration"],
    )
    tools = Tools(
        prepare=http_prepare(
            params["url"], ca_path=params["ca_path"], validate_certs=params["validate_certs"]
        ),
        clock=time.perf_counter,
        timestamp=timestamp,
        tell=lambda model, phase, done, total, note: writer.update(
            model, phase, done, total, unit="requests", note=note
        ),
    )
    return run_load([model["name"] for model in params["models"]], load, tools)


def entry_of(measured: Measurement, limits: Limits, baseline: Baseline | None) -> dict[str, Any]:
    """Return what the result says about one model; verdicts are still objects."""
    metrics = metrics_of(measured)
    return {
        "model": measured.model,
        "metrics": metrics,
        "samples": [sample.as_dict() for sample in measured.samples],
        "warmup": [sample.as_dict() for sample in measured.warmup],
        "wall_s": round(measured.wall_s, 3),
        "not_sent": measured.not_sent,
        "errors": errors_of(measured),
        "verdicts": judge_model(measured, metrics, limits, baseline),
        "baseline_recorded": False,
    }


def result_of(
    recorded: list[str], known: Mapping[str, Baseline], params: Mapping[str, Any]
) -> dict[str, Any]:
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
        "diff": {
            "before_header": f"models with a baseline in {path}",
            "after_header": f"models with a baseline in {path}",
            "before": "".join(f"{model}\n" for model in known),
            "after": "".join(f"{model}\n" for model in [*known, *recorded]),
        },
    }


def run(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Measure, judge and record."""
    path = params["baseline_file"]
    known = read_baselines(path) if path else {}
    due = [m["name"] for m in params["models"] if m["name"] not in known] if path else []
    if check_mode:
        return result_of(due, known, params)
    limits = Limits(
        slo={model["name"]: model["slo"] or {} for model in params["models"]},
        cv_percent=params["cv_limit"],
        tolerance_percent=params["baseline_tolerance"],
    )
    measurements = measure(params)
    if params["results_file"]:
        samples = [sample for measured in measurements for sample in measured.samples]
        append_results(params["results_file"], samples)
    entries = [entry_of(measured, limits, known.get(measured.model)) for measured in measurements]
    rows = []
    for entry in entries:
        if entry["model"] in due and fit_for_baseline(entry["verdicts"]):
            row = baseline_of(entry["model"], timestamp(), entry["metrics"])
            rows += [row] if row else []
            entry["baseline_recorded"] = row is not None
        entry["verdicts"] = as_dicts(entry["verdicts"])
    append_baselines(path, rows)
    result = result_of([row.model for row in rows], known, params)
    result["benchmark"] = entries
    result["verdicts"] = [verdict for entry in entries for verdict in entry["verdicts"]]
    return result
