# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is kept of a run: a record for the notifier and the next run, metrics for Prometheus."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nightly_engines import Outcome
from nightly_files import read_json, replace_file, series

PREFIX = "hx_infra_nightly_smoke_"
RECORD = "last-run.json"


def record_of(
    outcomes: Sequence[Outcome],
    before: Mapping[str, Any],
    *,
    host: str,
    invocation: str,
    started: float,
    ended: float,
    broken: str = "",
) -> dict[str, Any]:
    """Return the record of a run.

    Args:
        outcomes: how its checks ended.
        before: the record of the run before; empty when there was none.
        host: name of the host.
        invocation: systemd's number of the service's start; empty outside of it.
        started: when it began, seconds since 1970.
        ended: when it ended.
        broken: why the run didn't come to its end; empty when it did.
    """
    failures = sum(not outcome.ok for outcome in outcomes) + bool(broken)
    ok = failures == 0 and bool(outcomes)
    return {
        "host": host,
        "invocation": invocation,
        "started": round(started, 3),
        "ended": round(ended, 3),
        "ok": ok,
        "broken": broken,
        "checks": [asdict(outcome) for outcome in outcomes],
        "failures": failures,
        "failures_total": int(_number(before.get("failures_total")) or 0) + failures,
        "last_success": round(ended, 3) if ok else _number(before.get("last_success")),
    }


def metrics_of(record: Mapping[str, Any]) -> str:
    """Return a record as metrics; what isn't known is left out."""
    checks: list[Mapping[str, Any]] = list(record["checks"])
    models = [check for check in checks if check["check"] == "model"]
    suites = [check for check in checks if check["check"] == "suite"]
    single = [
        ("success", "Whether every check of the last run passed.", int(record["ok"])),
        ("last_run_timestamp_seconds", "When the last run ended.", float(record["ended"])),
        (
            "last_success_timestamp_seconds",
            "When a run last passed every check.",
            record["last_success"],
        ),
        (
            "duration_seconds",
            "How long the last run took.",
            float(record["ended"] - record["started"]),
        ),
        ("checks", "Checks of the last run.", len(checks)),
        ("checks_failed", "Checks of the last run that failed.", record["failures"]),
    ]
    text = "".join(
        series(PREFIX + name, about, "gauge", [({}, value)])
        for name, about, value in single
        if value is not None
    )
    text += series(
        PREFIX + "failures_total",
        "Checks that failed, of all runs.",
        "counter",
        [({}, record["failures_total"])],
    )
    for kind, found in (("suite", suites), ("model", models)):
        text += _of_checks(f"{kind}_success", f"Whether the {kind} passed.", found, "ok")
        text += _of_checks(f"{kind}_seconds", f"Time of the {kind}'s answer.", found, "seconds")
    text += _of_checks(
        "model_load_seconds", "Time until the model was loaded.", models, "load_seconds"
    )
    return text + _of_checks(
        "model_gpu_ratio", "Part of the model in GPU memory.", models, "gpu_ratio"
    )


def _of_checks(name: str, about: str, checks: Sequence[Mapping[str, Any]], field: str) -> str:
    samples = []
    for check in checks:
        labels = {check["check"]: str(check["subject"])}
        if check["engine"]:
            labels["engine"] = str(check["engine"])
        value = check[field]
        if value is not None:
            samples.append((labels, int(value) if isinstance(value, bool) else float(value)))
    return series(PREFIX + name, about, "gauge", samples)


def _number(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def load_record(folder: Path) -> dict[str, Any]:
    """Return the record of the run before; an empty one when there is none that can be read."""
    return read_json(folder / RECORD)


def save(record: Mapping[str, Any], folder: Path, textfile: Path) -> None:
    """Keep a record and its metrics.

    Raises:
        FileError: one of them could not be written; the other one was tried nevertheless.
    """
    try:
        replace_file(folder / RECORD, json.dumps(record, indent=1) + "\n", mode=0o640)
    finally:
        replace_file(textfile, metrics_of(record))


def line_of(check: Mapping[str, Any]) -> str:
    """Return a check in one line for people."""
    parts = ["PASS " if check["ok"] else "FAIL ", f"{check['check']:6}"]
    if check["engine"] and check["engine"] != check["subject"]:
        parts.append(f"{check['engine']}:")
    parts.append(str(check["subject"]))
    figures = []
    if check["seconds"] is not None:
        figures.append(f"{check['seconds']:.2f} s")
    if check["load_seconds"] is not None:
        figures.append(f"loaded in {check['load_seconds']:.2f} s")
    if check["gpu_ratio"] is not None:
        figures.append(f"{check['gpu_ratio']:.0%} on the GPU")
    if figures:
        parts.append(f"({', '.join(figures)})")
    # A record of a version before this one has no cards.
    told = [text for text in (check["message"], check.get("cards")) if text]
    if told:
        parts.append(f"- {'; '.join(told)}")
    return " ".join(parts)
