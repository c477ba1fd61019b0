# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What a run amounts to in one word, and why, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_text as text

# From harmless to grave. What can't be trusted is graver than what is slow: it says nothing.
WORDS = ("PASS", "WARN", "FAIL", "UNRELIABLE", "INVALID")
TONES = {"PASS": "good", "WARN": "warn", "FAIL": "bad", "UNRELIABLE": "warn", "INVALID": "bad"}
SAID = {
    "PASS": "Every objective was kept.",
    "WARN": "Nothing failed; something deserves a look.",
    "FAIL": "At least one objective was missed.",
    "UNRELIABLE": "The figures can't be trusted; measure again.",
    "INVALID": "The figures say nothing about the server.",
}
NO_OBJECTIVES = "No objective was declared; the requests were answered."
MINUS = "\N{MINUS SIGN}"
OBJECTIVES = ("ttft", "tpot", "latency", "tokens_per_s", "itl_p99", "throughput", "goodput")
LEAST = ("tokens_per_s", "throughput", "goodput")  # checks whose limit is a smallest value
CHECKS = {
    "ttft": "TTFT",
    "tpot": "TPOT",
    "itl_p99": "gap between tokens (p99)",
    "throughput": "requests per second",
    "latency": "end-to-end latency",
    "tokens_per_s": "tokens per second",
    "stability": "variation of tokens per second",
    "out_of_memory": "out-of-memory errors",
    "server_errors": "server errors (5xx)",
    "ttft_vs_baseline": "TTFT against the baseline",
    "tokens_per_s_vs_baseline": "tokens per second against the baseline",
}
METRICS = {
    "ttft_ms": ("TTFT", "ms"),
    "latency_ms": ("End-to-end latency", "ms"),
    "tpot_ms": ("TPOT", "ms"),
    "gap_ms": ("Gap between tokens (ITL)", "ms"),
    "gap_p99_ms": ("Gap between tokens, p99", "ms"),
    "tokens_per_s": ("Tokens per second of a request", "tokens/s"),
    "total_tokens_per_s": ("Tokens per second in all", "tokens/s"),
    "requests_per_s": ("Requests per second", "requests/s"),
    "prompt_tokens_per_s": ("Prompt tokens per second", "tokens/s"),
}


def of_entry(entry: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the word for one model under one load, and the reasons for any word but PASS."""
    validity = entry.get("validity") or {}
    state = str(validity.get("state") or "VALID")
    words = [state] if state in WORDS else []
    told = [str(reason) for reason in validity.get("reasons") or []] if words else []
    verdicts = entry.get("verdicts") or []
    for verdict in sorted(verdicts, key=lambda item: -WORDS.index(str(item["status"]))):
        words.append(str(verdict["status"]))
        # What "trust" has to say are the reasons that already stand there.
        if verdict["status"] != "PASS" and not (words and verdict["check"] == "trust"):
            told.append(sentence(verdict))
    if not any(against_baseline(str(verdict["check"])) for verdict in verdicts):
        comparison = entry.get("comparison") or {}
        for name, change in (comparison.get("metrics") or {}).items():
            if change.get("verdict") in ("WARN", "FAIL"):
                words.append(str(change["verdict"]))
                told.append(change_sentence(name, change, str(comparison.get("baseline") or "")))
    return max(words, key=WORDS.index, default="PASS"), list(dict.fromkeys(told))


def of_run(run: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the word for a run, and the reasons.

    A sweep goes on until an objective breaks, so its steps beyond the knee are left out: that
    they miss their objectives is what the sweep set out to find.
    """
    entries = [entry for entry in run.get("entries") or [] if not beyond_knee(entry, run)]
    models = {entry["model"] for entry in entries}
    judged = sorted(
        ((*of_entry(entry), entry) for entry in entries), key=lambda item: -WORDS.index(item[0])
    )
    words, told = [word for word, _reasons, _entry in judged], []
    for _word, reasons, entry in judged:
        where = []
        if len(models) > 1:
            where.append(str(entry["model"]))
        if len(entries) > len(models):
            where.append(str(entry["stage"]["label"]))
        prefix = f"{', '.join(where)}: " if where else ""
        told.extend(f"{prefix}{reason}" for reason in reasons)
    if not words:
        return "INVALID", ["The run measured nothing."]
    return max(words, key=WORDS.index), list(dict.fromkeys(told))


def headline(run: Mapping[str, Any], word: str) -> str:
    """Say in a sentence or two what the word stands for and how much was measured."""
    entries = run.get("entries") or []
    requests = sum(len(entry.get("samples") or []) for entry in entries)
    good = sum(not sample["error_kind"] for sample in _samples(entries))
    models = len({entry["model"] for entry in entries})
    objectives = any(
        is_objective(str(verdict["check"]))
        for entry in entries
        for verdict in entry.get("verdicts") or []
    )
    said = SAID[word] if word != "PASS" or objectives else NO_OBJECTIVES
    loads = len(entries) - models
    counts = [text.counted(models, "model")]
    counts += [f"{len(entries)} loads"] if loads > 0 else []
    measured = ", ".join([*counts, f"{requests:,} request{'' if requests == 1 else 's'}"])
    return f"{said} {measured}, {good:,} answered."


def sweeps_of(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the sweeps of a run, each with its model."""
    listed = run.get("sweeps") or []
    models = list(dict.fromkeys(str(entry["model"]) for entry in run.get("entries") or []))
    alone = models[0] if len(models) == 1 else ""
    return [{"model": alone, **{k: v for k, v in item.items() if v is not None}} for item in listed]


def load_of(entry: Mapping[str, Any], over: str) -> float:
    """Return the load of an entry: requests at once, or requests per second."""
    return float(entry["stage"].get("rate" if over == "rate" else "concurrency") or 0)


def beyond_knee(entry: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    """Tell whether an entry is a step of a sweep over its knee, or cut off after whole ones."""
    for sweep in sweeps_of(run):
        knee = sweep.get("knee")
        if sweep["model"] not in ("", entry["model"]):
            continue
        if entry.get("cut") and sweep.get("points"):
            return True
        if knee:
            return load_of(entry, str(sweep.get("over"))) > float(knee["value"])
    return False


def check_name(check: str) -> str:
    """Return what a check is called."""
    if check.startswith("comparison_"):
        return f"change of {check_name(check.removeprefix('comparison_'))}"
    return CHECKS.get(check, check.replace("_", " "))


def is_objective(check: str) -> bool:
    """Tell whether a check holds a figure against a declared objective."""
    return check in OBJECTIVES


def against_baseline(check: str) -> bool:
    """Tell whether a check holds a figure against an earlier one."""
    return check.endswith("_vs_baseline") or check.startswith("comparison_")


def sentence(verdict: Mapping[str, Any]) -> str:
    """Say what a verdict found and what was wanted."""
    check, unit = str(verdict["check"]), str(verdict.get("unit") or "")
    value, limit = verdict.get("value"), verdict.get("limit")
    evidence = f" ({verdict['evidence']})" if verdict.get("evidence") else ""
    if check == "answered":
        return f"{value} of {limit} requests were answered completely{evidence}."
    name = check_name(check)
    name = name[:1].upper() + name[1:]
    found = text.figure(value, unit) or "not measured"
    if limit is None or limit == "":
        return f"{name}: {found}{evidence}."
    return f"{name} is {found}, wanted {_bound(check)}{text.figure(limit, unit)}{evidence}."


def change_sentence(name: str, change: Mapping[str, Any], baseline: str) -> str:
    """Say how a metric changed against a baseline."""
    label, unit = METRICS.get(name, (name, ""))
    return (
        f"{label} changed by {signed(change.get('change_percent'))} against {baseline}:"
        f" {text.figure(rounded(change.get('before')), unit)} before,"
        f" {text.figure(rounded(change.get('after')), unit)} now."
    )


def signed(value: float | None) -> str:
    """Return a change in percent with its sign."""
    return "not known" if value is None else f"{value:+.1f} %".replace("-", MINUS)


def rounded(value: float | None) -> float | None:
    """Return a figure with about four digits that mean something."""
    return None if value is None else float(f"{value:.4g}")


def _bound(check: str) -> str:
    least = check.removeprefix("comparison_").removesuffix("_vs_baseline") in LEAST
    return "at least " if least else "at most "


def _samples(entries: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    for entry in entries:
        yield from entry.get("samples") or []
