# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Turns one model under one load into what the page shows of it; nothing is computed anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_outcome as outcome
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_plots as plots
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_plots_load as load_plots
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_text as text

ROWS = ("ttft_ms", "latency_ms", "tpot_ms", "gap_ms", "tokens_per_s", "prompt_tokens_per_s")
ERROR_LENGTH = 300  # characters of a server's error that are shown
LOWER_IS_BETTER = ("ttft_ms", "latency_ms", "tpot_ms", "gap_ms", "gap_p99_ms")
DASH = "\N{EN DASH}"
UNKNOWN = "not known"


def entry_view(entry: Mapping[str, Any], number: int, budget: int) -> dict[str, Any]:
    """Return what the page shows of an entry.

    Args:
        entry: of the run.
        number: its place, from 1.
        budget: points that a cloud may have.
    """
    word, reasons = outcome.of_entry(entry)
    metrics = entry.get("metrics") or {}
    limits = limits_of(entry)
    samples = entry.get("samples") or []
    requests = plots.request_panels(entry, limits, budget)
    machine = plots.machine_panels(entry, max(16, budget // 5))
    until = max([float(entry.get("wall_s") or 0), *(float(s.get("at_s") or 0) for s in samples)])
    good = sum(not sample["error_kind"] for sample in samples)
    return {
        "id": f"m{number}",
        "model": entry["model"],
        "label": entry["stage"]["label"],
        "word": word,
        "tone": outcome.TONES[word],
        "reasons": reasons,
        "figures": _figures(entry, metrics, good),
        "cold": _cold(metrics),
        "own_error": _own_error(entry),
        "distribution": plots.distribution(entry, limits, budget),
        "gaps": plots.gaps(metrics.get("gap_ms") or {}),
        "gap_note": gap_note(metrics.get("gap_ms") or {}),
        "requests": plots.stacked(requests, "Requests over time", until),
        "thinned": good if good > budget else 0,
        "machine": plots.stacked(machine, "The machine on the same axis of time", until),
        "missing": _missing(entry),
        "comparison": comparison_view(entry.get("comparison")),
        "errors": _errors(entry),
        "table": _table(metrics),
        "verdicts": _verdicts(entry.get("verdicts") or []),
        "counted": _counted(metrics),
    }


def limits_of(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the declared objectives of latency, by metric."""
    found = {}
    for verdict in entry.get("verdicts") or []:
        check = str(verdict["check"]).removesuffix("_ms")
        if check in ("ttft", "latency", "tpot", "gap") and isinstance(
            verdict.get("limit"), (int, float)
        ):
            found[f"{check}_ms"] = float(verdict["limit"])
    return found


def ms(value: float | None) -> str:
    """Return a latency with three digits that mean something."""
    if value is None:
        return DASH
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


def rate(value: float | None, unit: str = "") -> str:
    """Return a rate."""
    return DASH if value is None else f"{value:,.4g} {unit}".strip()


def gap_note(summary: Mapping[str, Any]) -> str:
    """Say how many gaps were stalls."""
    count, limit = summary.get("count") or 0, summary.get("stall_limit_ms")
    if not count:
        return ""
    stalls = summary.get("stalls") or 0
    told = f"{count:,} gaps, the longest {ms(summary.get('max'))}"
    if limit is None:
        return f"{told}."
    return f"{told}; {text.counted(stalls, 'stall')} of more than {ms(limit)}."


def comparison_view(comparison: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the table of a comparison with a baseline."""
    if not comparison:
        return None
    changes = comparison.get("metrics") or {}
    reach = load_plots.reach_of(list(changes.values()))
    rows = []
    order = list(outcome.METRICS)
    for name in sorted(
        changes, key=lambda item: order.index(item) if item in order else len(order)
    ):
        change = changes[name]
        label, unit = outcome.METRICS.get(name, (name.replace("_", " "), ""))
        better = change.get("better")
        tone = outcome.TONES.get(str(change.get("verdict")), "idle")
        if better is True:
            tone = "good"
        p_value = change.get("p_value")
        low, high = change.get("low_percent"), change.get("high_percent")
        rows.append(
            {
                "label": label,
                "before": _figure(change.get("before"), unit),
                "after": _figure(change.get("after"), unit),
                "change": outcome.signed(change.get("change_percent")),
                "interval": f"{outcome.signed(low)} to {outcome.signed(high)}"
                if low is not None and high is not None
                else "",
                "drawing": load_plots.interval(change, reach, tone),
                "direction": "lower is better" if name in LOWER_IS_BETTER else "higher is better",
                "p": "" if p_value is None else "< 0.001" if p_value < 0.001 else f"{p_value:.3f}",
                "verdict": change.get("verdict") or "",
                "tone": outcome.TONES.get(str(change.get("verdict")), "idle"),
                "note": change.get("note") or "",
                "better": "" if better is None else "better" if better else "worse",
            }
        )
    return {
        "baseline": comparison.get("baseline"),
        "comparable": bool(comparison.get("comparable")),
        "why_not": list(comparison.get("why_not") or []),
        "notes": list(comparison.get("notes") or []),
        "reach": f"{reach:.0f}",
        "rows": rows,
    }


def _figures(
    entry: Mapping[str, Any], metrics: Mapping[str, Any], good: int
) -> list[dict[str, str]]:
    """Return the key figures, each with its interval and with what of it is the client's."""
    client = entry.get("client") or {}
    ttft, gap = metrics.get("ttft_ms") or {}, metrics.get("gap_ms") or {}
    latency, speed = metrics.get("latency_ms") or {}, metrics.get("tokens_per_s") or {}
    adds = client.get("overhead_ms")
    adds_gap = client.get("itl_overhead_ms")
    found = []

    def add(label: str, value: str, *notes: str) -> None:
        found.append({"label": label, "value": value, "notes": [note for note in notes if note]})

    if ttft.get("median") is not None:
        add(
            "TTFT, median",
            ms(ttft["median"]),
            _between(ttft, ms),
            f"p99 {ms(ttft.get('p99'))}",
            f"client adds {ms(adds)}" if adds is not None else "",
        )
    if gap.get("median") is not None:
        add(
            "gap between tokens, median",
            ms(gap["median"]),
            f"p99 {ms(gap.get('p99'))}",
            text.counted(gap.get("stalls") or 0, "stall"),
            f"client adds {ms(adds_gap)}" if adds_gap is not None else "",
        )
    if latency.get("median") is not None:
        add(
            "end to end, median",
            ms(latency["median"]),
            _between(latency, ms),
            f"p99 {ms(latency.get('p99'))}",
        )
    if speed.get("median") is not None:
        cv = speed.get("cv_percent")
        add(
            "tokens/s of a request, median",
            rate(speed["median"]),
            _between(speed, rate),
            f"CV {cv:.1f} %" if cv is not None else "",
        )
    if metrics.get("total_tokens_per_s") is not None:
        share = metrics.get("slo_attainment")
        add(
            "tokens/s in all",
            rate(metrics["total_tokens_per_s"]),
            f"{rate(metrics.get('requests_per_s'))} requests/s",
            f"goodput {rate(metrics.get('goodput_per_s'))}/s, {100 * share:.1f} % within objectives"
            if share is not None
            else "",
        )
    due = len(entry.get("samples") or []) + int(entry.get("not_sent") or 0)
    add(
        "requests answered",
        f"{good:,}",
        f"of {due:,}" + (f" in {text.duration(entry['wall_s'])}" if entry.get("wall_s") else ""),
        f"{entry['not_sent']} not sent" if entry.get("not_sent") else "",
    )
    return found


def _between(summary: Mapping[str, Any], write: Any) -> str:
    low, high = summary.get("median_low"), summary.get("median_high")
    if low is None or high is None:
        return ""
    return f"{write(low)} to {write(high)} (95 %)"


def _cold(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the first request met that the measured ones did not."""
    told = [
        ("load of the model, by the server", metrics.get("load_ms")),
        ("first token while cold", metrics.get("cold_ttft_ms")),
        ("first token once warm, median", (metrics.get("ttft_ms") or {}).get("median")),
    ]
    if all(value is None for _label, value in told[:2]):
        return []
    return [(label, ms(value)) for label, value in told if value is not None]


def _own_error(entry: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return what the number's own error is: label, value, what it means."""
    client, truth = entry.get("client") or {}, entry.get("server_truth") or {}
    limit, stamps = client.get("limit_ms"), client.get("kernel_stamps")
    over = f"from the calibration at the same concurrency; the run is INVALID over {ms(limit)}"
    rows = [
        ("client overhead on TTFT", client.get("overhead_ms"), over if limit else over[:40]),
        ("client overhead on a gap", client.get("itl_overhead_ms"), "from the same calibration"),
        ("loop lag, p99", client.get("loop_lag_p99_ms"), "from bytes being ready to reading them"),
        ("dispatch lag, p99", client.get("dispatch_lag_p99_ms"), "from being due to being sent"),
    ]
    told = [(label, ms(value), note) for label, value, note in rows if value is not None]
    if client and client.get("overhead_ms") is None:
        why = (client.get("calibration") or {}).get("failed") or "the client was not calibrated"
        told.insert(0, ("client overhead", UNKNOWN, str(why)))
    if client.get("cpu_percent_of_core") is not None:
        share = f"{client['cpu_percent_of_core']:.1f} %"
        told.append(("client's processor time", share, "of one core"))
    if stamps is not None:
        source = "the kernel" if stamps else "the client after its read"
        told.append(("arrivals stamped by", source, ""))
    explained = str(truth.get("explained") or "")
    if truth.get("ttft_ms") is not None:
        difference = truth.get("client_minus_server_ttft_ms")
        more = f"the client saw {ms(difference)} more" if difference is not None else ""
        name = f"mean TTFT by {truth.get('engine') or 'the server'}"
        told.append((name, ms(truth["ttft_ms"]), ". ".join(filter(None, (more, explained)))))
    elif explained:
        told.append(("TTFT by the server", UNKNOWN, explained))
    return told


def _missing(entry: Mapping[str, Any]) -> str:
    """Say which part of the timeline is missing, and why."""
    timeline = entry.get("timeline") or {}
    if not timeline.get("rows"):
        return "The machine was not observed during this load."
    told = [
        f"{name}: {str(source).removeprefix('none').lstrip(': ') or 'not available'}"
        for name, source in (timeline.get("sources") or {}).items()
        if str(source).startswith("none")
    ]
    return f"Not observed: {'; '.join(told)}." if told else ""


def _errors(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the errors by kind, the first one of each in the server's words."""
    first: dict[str, str] = {}
    for sample in [*(entry.get("warmup") or []), *(entry.get("samples") or [])]:
        if sample["error_kind"]:
            first.setdefault(str(sample["error_kind"]), str(sample.get("error") or ""))
    counts = entry.get("errors") or {}
    return [
        {
            "kind": kind.replace("_", " "),
            "count": count,
            "first": first.get(kind, "")[:ERROR_LENGTH],
        }
        for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def _table(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Return a row for each metric that has values."""
    rows = []
    for name in ROWS:
        summary = metrics.get(name) or {}
        if not summary.get("count"):
            continue
        label, unit = outcome.METRICS[name]
        write = ms if unit == "ms" else rate
        cv = summary.get("cv_percent")
        figures = [summary.get(key) for key in ("median", "mean", "stdev")]
        tail = [summary.get(key) for key in ("min", "p90", "p95", "p99", "p999", "max")]
        rows.append(
            [
                label
                if unit == "ms"
                else f"{label}, {unit}"
                if "per second" not in label
                else label,
                f"{summary['count']:,}",
                *(write(value) for value in figures),
                DASH if cv is None else f"{cv:.1f} %",
                *(write(value) for value in tail),
            ]
        )
    return rows


def _verdicts(verdicts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    ordered = sorted(verdicts, key=lambda item: -outcome.WORDS.index(str(item["status"])))
    return [
        {
            "check": outcome.check_name(str(v["check"])),
            "status": v["status"],
            "tone": outcome.TONES[str(v["status"])],
            "value": text.figure(v.get("value"), str(v.get("unit") or "")),
            "limit": text.figure(v.get("limit"), str(v.get("unit") or "")),
            "evidence": v.get("evidence") or "",
        }
        for v in ordered
    ]


def _counted(metrics: Mapping[str, Any]) -> str:
    """Say who counted the tokens and whose clock the rates are by."""
    counted, clock = metrics.get("tokens_from") or [], metrics.get("rate_from") or []
    words = {"server": "by the server", "chunks": "by records of the stream, for want of a count"}
    told = " and ".join(words.get(str(item), str(item)) for item in counted)
    if not told:
        return ""
    clocks = " and ".join(f"the {item}'s" for item in clock)
    return f"Tokens were counted {told}" + (f"; rates are over {clocks} time." if clocks else ".")


def _figure(value: float | None, unit: str) -> str:
    return ms(value) if unit == "ms" else rate(value, unit)
