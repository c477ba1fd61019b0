# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The figures of a performance report, gathered from runs; None where the runs don't tell one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_stats import percentile
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_collect as collect
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_outcome as outcome

SHORTEST = 64  # tokens; prompts below stand in one group
LEAST_SPAN = 256  # tokens between the shortest and the longest prompt of a fit
ALONE = (0, 1.0)  # how the key of a load begins where one request is sent at a time
SLOPE_SAMPLES = 300  # of a fit, whose work grows with the square
Entry = Mapping[str, Any]
Load = tuple[int, float, int, int]


def entries_of(runs: Iterable[Mapping[str, Any]]) -> dict[str, list[Entry]]:
    """Return the entries of each model, those at the lowest load first.

    An entry beyond the knee of its sweep and an INVALID one are left out: neither says how the
    model serves. Each has ``request``, what its run asked of a request.
    """
    found: dict[str, list[Entry]] = {}
    for run in runs:
        for entry in run.get("entries") or []:
            group = found.setdefault(str(entry["model"]), [])
            state = (entry.get("validity") or {}).get("state")
            if state != "INVALID" and not outcome.beyond_knee(entry, run):
                group.append({**entry, "request": collect.request_of(run)})
    return {model: sorted(group, key=load_key) for model, group in sorted(found.items())}


def load_key(entry: Entry) -> Load:
    """Return what loads are ordered by: closed ones by requests at once, then open ones by rate.

    Of equal ones by the tokens of prompt and answer.
    """
    stage = entry["stage"]
    prompt, answer = entry.get("request") or (0, 0)
    if stage.get("shape") in (None, "closed"):
        return 0, float(stage.get("concurrency") or 1), prompt, answer
    return 1, float(stage.get("rate") or 0), prompt, answer


def common_load(measured: Mapping[str, Sequence[Entry]]) -> Load | None:
    """Return the lowest load that every model was measured at; None where there is none."""
    loads = [{load_key(entry) for entry in entries} for entries in measured.values() if entries]
    return min(set.intersection(*loads), default=None) if loads else None


def model_row(
    model: str, measured: Mapping[str, Sequence[Entry]], known: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the figures of a model, with its size where it is known.

    They are those at the lowest load that every model was measured at, so that models can be
    compared, or at the model's own lowest load where there is none.
    """
    fact = known.get(model) or {}
    entries = measured.get(model) or []
    at = common_load(measured)
    entry: Entry = next((e for e in entries if load_key(e) == at), entries[0] if entries else {})
    metrics = entry.get("metrics") or {}
    ttft, rate = metrics.get("ttft_ms") or {}, metrics.get("tokens_per_s") or {}
    loads = [(e.get("metrics") or {}).get("load_ms") for e in entries]
    colds = [(e.get("metrics") or {}).get("cold_ttft_ms") for e in entries]
    load_ms = max((value for value in loads if value is not None), default=None)
    size = fact.get("size_bytes")
    return {
        "model": model,
        "digest": str(fact.get("digest") or ""),
        "size_bytes": size,
        "measured": model in measured,
        "load": collect.load_label(entry["stage"]["label"], entry.get("request") or (0, 0))
        if entry
        else None,
        "requests": sum(len(e.get("samples") or []) for e in entries),
        "ttft_ms": ttft.get("median"),
        "ttft_p99_ms": ttft.get("p99"),
        "latency_ms": (metrics.get("latency_ms") or {}).get("median"),
        "tokens_per_s": rate.get("median"),
        "gpu_ratio": metrics.get("gpu_ratio"),
        # The longest one seen: a model that lay in memory already reports next to nothing.
        "load_ms": load_ms,
        "cold_ttft_ms": max((value for value in colds if value is not None), default=None),
        "load_bytes_per_s": size / load_ms * 1000 if size and load_ms else None,
    }


def prompt_lengths(model: str, entries: Sequence[Entry]) -> dict[str, Any] | None:
    """Return TTFT by prompt length at the lowest load; None when the server counted no prompts.

    Groups double in length. ``ms_per_1000`` is the slope of TTFT over tokens, the median of the
    slopes between all pairs of requests (Theil-Sen), where prompts differ by at least
    ``LEAST_SPAN`` tokens: a slope must not be drawn out over lengths that nobody sent.
    """
    lowest = [entry for entry in entries if load_key(entry)[:2] == load_key(entries[0])[:2]]
    points = [
        (int(sample["prompt_tokens"]), float(sample["ttft_ms"]))
        for entry in lowest
        for sample in entry.get("samples") or []
        if not sample["error_kind"]
        and sample.get("prompt_tokens")
        and sample.get("ttft_ms") is not None
    ]
    if not points:
        return None
    groups: dict[int, list[float]] = {}
    for tokens, ttft in points:
        low = 0 if tokens < SHORTEST else 2 ** int(math.log2(tokens))
        groups.setdefault(low, []).append(ttft)
    rows = [
        {
            "low": low,
            "high": 2 * low - 1 if low else SHORTEST - 1,
            "requests": len(values),
            "ttft_ms": round(median(values), 2),
            "ttft_p95_ms": round(percentile(values, 95) or 0.0, 2),
        }
        for low, values in sorted(groups.items())
    ]
    return {"model": model, "rows": rows, "ms_per_1000": _slope(points)}


def _slope(points: Sequence[tuple[int, float]]) -> float | None:
    tokens = [at for at, _ttft in points]
    if max(tokens) - min(tokens) < LEAST_SPAN:
        return None
    step = max(1, len(points) // SLOPE_SAMPLES)
    kept = sorted(points)[::step]
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for number, earlier in enumerate(kept)
        for later in kept[number + 1 :]
        if later[0] != earlier[0]
    ]
    return round(1000 * median(slopes), 3) if slopes else None


def capacity(
    model: str, runs: Iterable[Mapping[str, Any]], entries: Sequence[Entry]
) -> dict[str, Any]:
    """Return the load that a model serves: from the newest sweep, or the highest that passed.

    Returns:
        ``value`` (None: not known), ``over``, ``at_least`` (it may serve more), ``source``
        (``sweep``, ``load`` or ``unknown``), ``objectives`` (whether any were declared), ``text``.
    """
    swept = False
    for run in sorted(runs, key=lambda item: str(item["started_at"]), reverse=True):
        for sweep in outcome.sweeps_of(run):
            if sweep["model"] not in ("", model) or not sweep.get("points"):
                continue
            if sweep["model"] == "" and model not in {e["model"] for e in run["entries"]}:
                continue
            swept = True
            knee = sweep.get("knee")
            if knee:
                return {
                    "model": model,
                    "value": float(knee["value"]),
                    "over": str(sweep.get("over") or "concurrency"),
                    "at_least": bool(knee.get("at_least")),
                    "source": "sweep",
                    "objectives": knee.get("rule") == "slo",
                    "text": str(knee.get("text") or ""),
                    "missed": False,
                }
            broken = any(point.get("broken") for point in sweep["points"])
            if broken:
                lowest = min(float(point["value"]) for point in sweep["points"])
                return {
                    **_unknown(model),
                    "source": "sweep",
                    "missed": True,
                    "text": f"The lowest load of the sweep, {lowest:g}, missed an objective.",
                }
    passed = [entry for entry in entries if outcome.of_entry(entry)[0] in ("PASS", "WARN")]
    closed = [entry for entry in passed if load_key(entry)[0] == 0]
    if not closed:
        why = "The sweep shows no knee" if swept else "No sweep was run"
        return {**_unknown(model), "text": f"{why}, and no load passed."}
    highest = max(load_key(entry)[1] for entry in closed)
    return {
        **_unknown(model),
        "value": highest,
        "at_least": True,
        "source": "load",
        "text": f"No sweep tells the limit; {highest:g} at once is the highest load that passed.",
    }


def _unknown(model: str) -> dict[str, Any]:
    return {
        "model": model,
        "value": None,
        "over": "concurrency",
        "at_least": False,
        "source": "unknown",
        "objectives": False,
        "text": "",
        "missed": False,
    }


def machine(entries: Iterable[Entry]) -> dict[str, Any]:
    """Return the peaks of GPUs and host memory while requests were under way."""
    gpus: dict[int, dict[str, Any]] = {}
    used: list[float] = []
    total: float | None = None
    cpu: list[float] = []
    for entry in entries:
        for row in (entry.get("timeline") or {}).get("rows") or []:
            if row.get("memory_used_bytes") is not None:
                used.append(float(row["memory_used_bytes"]))
            total = row.get("memory_total_bytes") or total
            if row.get("cpu_percent") is not None:
                cpu.append(float(row["cpu_percent"]))
            for gpu in row.get("gpu") or []:
                _take(gpus.setdefault(int(gpu["index"]), {}), gpu)
    return {
        "gpus": [_gpu(index, kept) for index, kept in sorted(gpus.items())],
        "memory_peak_bytes": max(used, default=None),
        "memory_total_bytes": total,
        "memory_percent": 100 * max(used) / total if used and total else None,
        "cpu_median_percent": round(median(cpu), 1) if cpu else None,
    }


def _take(kept: dict[str, Any], gpu: Mapping[str, Any]) -> None:
    for name in ("util_percent", "memory_used_bytes", "temperature_c", "power_w"):
        if gpu.get(name) is not None:
            kept.setdefault(name, []).append(float(gpu[name]))
    kept["total"] = gpu.get("memory_total_bytes") or kept.get("total")
    kept.setdefault("throttle", set()).update(str(why) for why in gpu.get("throttle") or [])


def _gpu(index: int, kept: Mapping[str, Any]) -> dict[str, Any]:
    memory, total = kept.get("memory_used_bytes") or [], kept.get("total")
    utilisation = kept.get("util_percent") or []
    return {
        "index": index,
        "memory_peak_bytes": max(memory, default=None),
        "memory_total_bytes": total,
        "memory_percent": 100 * max(memory) / total if memory and total else None,
        "util_median_percent": round(median(utilisation), 1) if utilisation else None,
        "temperature_max_c": max(kept.get("temperature_c") or [], default=None),
        "power_max_w": max(kept.get("power_w") or [], default=None),
        "throttle": sorted(kept.get("throttle") or []),
    }


def disk(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the disk of the store and what each model takes of it."""
    found = facts.get("disk") or {}
    total, free = found.get("total_bytes"), found.get("free_bytes")
    rows = [
        {
            "model": str(model["name"]),
            "size_bytes": model.get("size_bytes"),
            "percent": 100 * model["size_bytes"] / total
            if total and model.get("size_bytes") is not None
            else None,
        }
        for model in facts.get("models") or []
    ]
    rows.sort(key=lambda row: -(row["size_bytes"] or 0))
    sizes = [row["size_bytes"] for row in rows if row["size_bytes"] is not None]
    return {
        "path": str(found.get("path") or ""),
        "total_bytes": total,
        "free_bytes": free,
        "used_percent": 100 * (total - free) / total if total and free is not None else None,
        "models_bytes": sum(sizes) if sizes else None,
        "rows": rows,
    }


def stability(model: str, entries: Sequence[Entry]) -> dict[str, Any]:
    """Return how evenly a model served: stalls and errors over all its loads, and variation.

    Tokens per second vary where clients share a GPU, so the variation is of one request at a time.
    """
    requests = sum(len(e.get("samples") or []) + int(e.get("not_sent") or 0) for e in entries)
    good = sum(not s["error_kind"] for e in entries for s in e.get("samples") or [])
    errors: dict[str, int] = {}
    gaps = stalls = 0
    variations, longest = [], []
    for entry in entries:
        metrics = entry.get("metrics") or {}
        gap = metrics.get("gap_ms") or {}
        gaps += int(gap.get("count") or 0)
        stalls += int(gap.get("stalls") or 0)
        longest += [gap["max"]] if gap.get("max") is not None else []
        variation = (metrics.get("tokens_per_s") or {}).get("cv_percent")
        if variation is not None and load_key(entry)[:2] == ALONE:
            variations.append(variation)
        for kind, count in (entry.get("errors") or {}).items():
            errors[kind] = errors.get(kind, 0) + int(count)
    return {
        "model": model,
        "requests": requests,
        "failed": requests - good,
        "error_percent": 100 * (requests - good) / requests if requests else None,
        "errors": errors,
        # The largest of all loads, each by itself: pooled, the loads themselves would vary.
        "cv_percent": max(variations, default=None),
        "gaps": gaps,
        "stalls": stalls,
        "stalls_per_1000": 1000 * stalls / gaps if gaps else None,
        "gap_max_ms": max(longest, default=None),
    }
