# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The rules of a performance report: from a figure and its limit to what should be done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_collect as collect
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_outcome as outcome
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_text as text

BLOCKER, CONDITION, ADVICE = "blocker", "condition", "advice"
ORDER = (BLOCKER, CONDITION, ADVICE)
MOST_TOLD = 3  # loads, reasons in one sentence
READY, CONDITIONS, NOT_READY = "READY", "READY WITH CONDITIONS", "NOT READY"
LIMITS: dict[str, float] = {
    "error_percent": 1.0,  # requests without a whole answer
    "cv_percent": 20.0,  # coefficient of variation of tokens per second
    "stalls_per_1000": 1.0,  # gaps over the limit for stalls
    "gpu_ratio": 1.0,  # part of a model in GPU memory
    "gpu_memory_percent": 90.0,
    "gpu_temperature_c": 80.0,
    "gpu_util_percent": 50.0,  # median while requests are under way
    "host_memory_percent": 90.0,
    "disk_percent": 85.0,
    "cold_ttft_ms": 5000.0,
    "cold_ratio": 5.0,  # cold over warm TTFT
    "samples": 20.0,  # good requests of a model
}


def rules_of(
    report: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    limits: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Return what the rules say, the gravest first.

    Each has ``rule``, ``severity``, ``subject``, ``text``, ``value``, ``limit``, ``unit``.
    """
    told = [
        *_trust(runs),
        *_objectives(report, runs),
        *_stability(report["stability"], limits),
        *_models(report["models"], limits),
        *_capacity(report["capacity"]),
        *_machine(report["machine"], report["models"], limits),
        *_disk(report["disk"], limits),
    ]
    return sorted(told, key=lambda item: (ORDER.index(item["severity"]), item["rule"]))


def verdict_of(recommendations: Iterable[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """Return whether the host is ready, and the sentences that decide it."""
    told = list(recommendations)
    for severity, verdict in ((BLOCKER, NOT_READY), (CONDITION, CONDITIONS)):
        reasons = [
            f"{item['subject']}: {item['text']}" for item in told if item["severity"] == severity
        ]
        if reasons:
            return verdict, reasons
    return READY, [
        "No rule objects: every objective was kept and every figure is within its limit."
    ]


def _say(
    rule: str, severity: str, subject: str, sentence: str, figures: tuple[Any, Any, str]
) -> dict[str, Any]:
    value, limit, unit = figures
    return {
        "rule": rule,
        "severity": severity,
        "subject": subject,
        "text": sentence,
        "value": outcome.rounded(value) if isinstance(value, float) else value,
        "limit": limit,
        "unit": unit,
    }


def _trust(runs: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    if not any(run.get("entries") for run in runs):
        yield _say(
            "R01", BLOCKER, "host", "Nothing was measured. Run the benchmark.", (0, 1, "runs")
        )
    measured: dict[str, int] = {}
    doubted: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for run in runs:
        for entry in run.get("entries") or []:
            if outcome.beyond_knee(entry, run):
                continue
            model, validity = str(entry["model"]), entry.get("validity") or {}
            measured[model] = measured.get(model, 0) + 1
            state = str(validity.get("state") or "VALID")
            if state != "VALID":
                loads, reasons = doubted.setdefault((model, state), ([], []))
                loads.append(_load(entry, run))
                reasons += [str(reason).rstrip(".") for reason in validity.get("reasons") or []]
    for (model, state), (loads, reasons) in doubted.items():
        which = f"at {loads[0]}"
        if len(loads) > 1:
            which = f"at {len(loads)} of {measured[model]} loads ({_some(loads)})"
        sentence = f"The figures {which} are {state}: {_some(reasons)}. Measure again."
        severity = BLOCKER if state == "INVALID" else CONDITION
        yield _say("R02", severity, model, sentence, (state, "VALID", ""))


def _load(entry: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    return collect.load_label(str(entry["stage"]["label"]), collect.request_of(run))


def _some(told: Iterable[str]) -> str:
    """Return the first of some texts, each once, and how many others there are."""
    every = list(dict.fromkeys(told))
    more = len(every) - MOST_TOLD
    return "; ".join([*every[:MOST_TOLD], *([f"{more} more"] if more > 0 else [])])


def _objectives(
    report: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    declared = {
        item["model"] for item in report["capacity"] if item["objectives"] or item["missed"]
    }
    for run in runs:
        for entry in run.get("entries") or []:
            model = str(entry["model"])
            for verdict in entry.get("verdicts") or []:
                check = str(verdict["check"])
                if not outcome.is_objective(check):
                    continue
                declared.add(model)
                if verdict["status"] == "PASS" or outcome.beyond_knee(entry, run):
                    continue
                figures = (
                    verdict.get("value"),
                    verdict.get("limit"),
                    str(verdict.get("unit") or ""),
                )
                sentence = f"{outcome.sentence(verdict)} Load: {_load(entry, run)}."
                severity = BLOCKER if verdict["status"] == "FAIL" else CONDITION
                yield _say("R03", severity, model, sentence, figures)
            yield from _against_baseline(model, entry)
    for row in report["models"]:
        if row["requests"] and row["model"] not in declared:
            sentence = "No objective is declared, so nothing proves that it is fast enough."
            yield _say("R04", CONDITION, row["model"], sentence, (0, 1, "objectives"))


def _against_baseline(model: str, entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for verdict in entry.get("verdicts") or []:
        if str(verdict["check"]).endswith("_vs_baseline") and verdict["status"] != "PASS":
            severity = BLOCKER if verdict["status"] == "FAIL" else CONDITION
            figures = (verdict.get("value"), verdict.get("limit"), str(verdict.get("unit") or ""))
            yield _say("R05", severity, model, outcome.sentence(verdict), figures)
    comparison = entry.get("comparison") or {}
    name = str(comparison.get("baseline") or "")
    for metric, change in (comparison.get("metrics") or {}).items():
        status = change.get("verdict")
        if status in ("WARN", "FAIL"):
            severity = BLOCKER if status == "FAIL" else CONDITION
            sentence = outcome.change_sentence(metric, change, name)
            sentence += " Find what changed, or promote the new figures as baseline."
            figures = (
                change.get("after"),
                change.get("before"),
                outcome.METRICS.get(metric, ("", ""))[1],
            )
            yield _say("R05", severity, model, sentence, figures)


def _stability(
    rows: Sequence[Mapping[str, Any]], limits: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    for row in rows:
        model, failed = row["model"], row["error_percent"]
        memory = row["errors"].get("out_of_memory", 0)
        if memory:
            sentence = (
                f"{text.counted(memory, 'request')} ran out of memory."
                " Fewer requests at once, a shorter context or a smaller model."
            )
            yield _say("R06", BLOCKER, model, sentence, (memory, 0, "requests"))
        if failed:
            limit = limits["error_percent"]
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(row["errors"].items()))
            sentence = f"{failed:.2g} % of {row['requests']:,} requests failed"
            sentence += f" ({kinds}), limit {limit:g} %." if kinds else f", limit {limit:g} %."
            severity = BLOCKER if failed > limit else CONDITION
            yield _say("R07", severity, model, sentence, (failed, limit, "%"))
        variation, limit = row["cv_percent"], limits["cv_percent"]
        if variation is not None and variation > limit:
            sentence = (
                f"Tokens per second vary by {variation:.1f} % (CV), limit {limit:g} %."
                " Look for other load on the host and for clocks that were held down."
            )
            yield _say("R08", CONDITION, model, sentence, (variation, limit, "%"))
        stalls, limit = row["stalls_per_1000"], limits["stalls_per_1000"]
        if stalls is not None and stalls > limit:
            sentence = (
                f"{stalls:.2g} of 1,000 gaps between tokens are stalls, limit {limit:g}."
                " Users see the answer stop; fewer requests at once, or a smaller context."
            )
            yield _say("R09", CONDITION, model, sentence, (stalls, limit, "per 1,000 gaps"))
        good, limit = row["requests"] - row["failed"], limits["samples"]
        if row["requests"] and good < limit:
            sentence = (
                f"{good} good requests say little about the slowest ones, wanted at least"
                f" {limit:g}."
            )
            yield _say("R10", CONDITION, model, sentence, (good, limit, "requests"))


def _models(
    rows: Sequence[Mapping[str, Any]], limits: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    for row in rows:
        model, ratio = row["model"], row["gpu_ratio"]
        if not row["measured"]:
            sentence = "It is in the catalog and was not measured."
            yield _say("R11", CONDITION, model, sentence, (0, 1, "requests"))
        if ratio is not None and ratio < limits["gpu_ratio"]:
            severity = BLOCKER if ratio == 0 else CONDITION
            where = (
                "runs on the CPU" if ratio == 0 else f"lies to {100 * ratio:.0f} % in GPU memory"
            )
            sentence = f"The model {where}, wanted {100 * limits['gpu_ratio']:.0f} %."
            sentence += " Free GPU memory, shorten the context or take a smaller quantisation."
            yield _say(
                "R12", severity, model, sentence, (100 * ratio, 100 * limits["gpu_ratio"], "%")
            )
        cold, warm = row["cold_ttft_ms"], row["ttft_ms"]
        late = limits["cold_ttft_ms"]
        if cold and warm and cold > late and cold > limits["cold_ratio"] * warm:
            sentence = (
                f"The first token takes {text.milliseconds(cold)} while the model is cold,"
                f" {cold / warm:.0f} times the warm {text.milliseconds(warm)}."
                " Keep it loaded, or warm it up before users come."
            )
            yield _say("R13", ADVICE, model, sentence, (cold, late, "ms"))


def _capacity(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        over = "requests/s" if row["over"] == "rate" else "at once"
        if row["missed"]:
            yield _say("R14", BLOCKER, row["model"], row["text"], (None, None, over))
        elif row["source"] == "sweep":
            reach = "at least " if row["at_least"] else ""
            sentence = f"Admit up to {reach}{row['value']:g} {over}: {row['text']}"
            yield _say("R15", ADVICE, row["model"], sentence, (row["value"], None, over))
        else:
            sentence = f"Its capacity is not known: {row['text']} Run a sweep."
            yield _say("R16", CONDITION, row["model"], sentence, (row["value"], None, over))


def _machine(
    found: Mapping[str, Any], models: Sequence[Mapping[str, Any]], limits: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    for gpu in found["gpus"]:
        name = f"GPU {gpu['index']}"
        peak, limit = gpu["memory_percent"], limits["gpu_memory_percent"]
        if peak is not None and peak > limit:
            sentence = (
                f"Its memory was filled to {peak:.0f} %, limit {limit:g} %:"
                " little is left for longer contexts."
            )
            yield _say("R17", CONDITION, name, sentence, (peak, limit, "%"))
        hot, limit = gpu["temperature_max_c"], limits["gpu_temperature_c"]
        if hot is not None and hot > limit:
            sentence = (
                f"It reached {hot:.0f} °C, limit {limit:g} °C. Look at fans, dust and power limit."
            )
            yield _say("R18", CONDITION, name, sentence, (hot, limit, "°C"))
        # At its power limit a card regulates itself whenever it works hard.
        held = [reason for reason in gpu["throttle"] if reason != "sw_power_cap"]
        if held:
            sentence = f"Its clocks were held down: {', '.join(held)}."
            yield _say("R19", CONDITION, name, sentence, (len(held), 0, "reasons"))
    busy = [g["util_median_percent"] for g in found["gpus"] if g["util_median_percent"] is not None]
    limit = limits["gpu_util_percent"]
    # One GPU at work is enough: an engine may place a small model on one of several.
    if busy and max(busy) < limit and any(row["requests"] for row in models):
        sentence = (
            f"The busiest GPU was used to {max(busy):.0f} % (median) under load, wanted"
            f" {limit:g} %. More requests at once may cost nothing, or the CPU is the limit."
        )
        yield _say("R20", ADVICE, "GPUs", sentence, (max(busy), limit, "%"))
    peak, limit = found["memory_percent"], limits["host_memory_percent"]
    if peak is not None and peak > limit:
        sentence = f"Host memory was filled to {peak:.0f} %, limit {limit:g} %."
        yield _say("R21", CONDITION, "host", sentence, (peak, limit, "%"))


def _disk(found: Mapping[str, Any], limits: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    used, limit = found["used_percent"], limits["disk_percent"]
    if used is not None and used > limit:
        sentence = (
            f"The disk of the store is filled to {used:.0f} %, limit {limit:g} %."
            f" {text.size(found['free_bytes'])} are free; the next pull may not fit."
        )
        yield _say("R22", CONDITION, found["path"] or "disk", sentence, (used, limit, "%"))
