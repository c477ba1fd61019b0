# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Finds the benchmark runs on the controller from which reports are made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_options import ARGUMENT_SPEC
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError

SCHEMA = 1
PATTERN = "benchmark-*.json"
USUAL_ANSWER = ARGUMENT_SPEC["num_predict"]["default"]
NEEDED = ("schema", "host", "url", "started_at", "entries")
# Options that change what is measured. Of runs that agree in these the newest tells how it is now.
LOAD = (
    "arrival",
    "concurrency",
    "duration",
    "extra_body",
    "iterations",
    "num_predict",
    "prompt_file",
    "prompt_tokens",
    "prompts",
    "rate",
    "run_from",
    "stream",
    "sweep",
    "think",
    "unique_prompts",
)

Run = dict[str, Any]


def read_run(path: str | Path) -> Run:
    """Return the run that a file holds.

    Raises:
        HostError: the file can't be read, or holds no run.
    """
    try:
        run = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HostError(f"{path} can't be read as a benchmark's run: {error}.") from error
    lacking = [name for name in NEEDED if name not in run] if isinstance(run, dict) else NEEDED
    if lacking or run["schema"] != SCHEMA:
        found = f"lacks {', '.join(lacking)}" if lacking else f"has schema {run['schema']}"
        raise HostError(f"{path} {found}, wanted a benchmark's run of schema {SCHEMA}.")
    return dict(run)


def runs_of(directory: str, host: str, now: datetime, days: float) -> tuple[list[Run], list[str]]:
    """Return a host's runs of the last days, the newest of each load, oldest first.

    A file that is no run is left out and told, in the second list.
    """
    since = now - timedelta(days=days) if days else None
    found: list[Run] = []
    told: list[str] = []
    for path in sorted((Path(directory) / host).glob(PATTERN)):
        try:
            run = read_run(path)
            started = datetime.fromisoformat(str(run["started_at"]).replace("Z", "+00:00"))
        except (HostError, ValueError) as error:
            told.append(str(error))
            continue
        if run["host"] == host and (since is None or started >= since):
            found.append({**run, "file": str(path)})
    return newest(found), told


def newest(runs: Iterable[Run]) -> list[Run]:
    """Return the newest run of each load, oldest first."""
    kept: dict[str, Run] = {}
    for run in sorted(runs, key=lambda item: str(item["started_at"])):
        kept[key_of(run)] = run
    return sorted(kept.values(), key=lambda item: str(item["started_at"]))


def key_of(run: Mapping[str, Any]) -> str:
    """Return what two runs agree in when one replaces the other."""
    options = run.get("options") or {}
    models = sorted({str(entry["model"]) for entry in run["entries"]})
    load = {name: options.get(name) for name in LOAD}
    return json.dumps([run["url"], run.get("dialect"), models, load], sort_keys=True, default=str)


def request_of(run: Mapping[str, Any]) -> tuple[int, int]:
    """Return the tokens of a synthetic prompt (0: none) and of the longest answer (0: not told).

    Loads that differ in these have different times at the same number of requests at once.
    """
    options = run.get("options") or {}
    return int(options.get("prompt_tokens") or 0), int(options.get("num_predict") or 0)


def load_label(label: str, request: tuple[int, int]) -> str:
    """Return a load's label with what ``request_of`` says, where that isn't the usual."""
    prompt, answer = request
    told = [label]
    told += [f"prompts of {prompt:,} tokens"] if prompt else []
    told += [f"answers of {answer:,} tokens"] if answer not in (0, USUAL_ANSWER) else []
    return ", ".join(told)


def without_runs(hosts: Sequence[str], runs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the hosts of which nothing was measured."""
    measured = {str(run["host"]) for run in runs if run["entries"]}
    return [host for host in hosts if host not in measured]
