# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Comparison of a measurement with a named baseline, by a test that accounts for noise.

A change counts when it is both large enough to matter and too large to be chance: two-sided
Mann-Whitney U below 5 %, and a bootstrap interval of the ratio of medians that excludes no change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_baselines import (
    ARRAYS,
    Identity,
    Record,
    find,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_stats import (
    mann_whitney,
    median,
    ratio_interval,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    PASS,
    WARN,
    Verdict,
)

SIGNIFICANCE = 0.05
LEAST_SAMPLES = 5
GREATER_IS_BETTER = ("tokens_per_s",)
TOKEN_SLACK = (2, 0.05)  # a nonce may take a token more or less

# Parts of the identity that a comparison may be about: D4 compares two versions of a model, of
# which one may wrap the same prompt into more tokens.
MAY_DIFFER = (
    "model_digest",
    "prompt_tokens",
    "engine",
    "engine_version",
    "dialect",
    "gpus",
    "driver",
)
SYNTHETIC = "synthetic"  # prompts whose length was asked for
NAMES = {
    "model_digest": "digest of the model",
    "engine_version": "version of the engine",
    "stream": "streaming",
    "shape": "shape of the load",
    "rate": "requests per second",
    "prompt_kind": "kind of prompts",
    "prompt_digest": "digest of the prompts",
    "prompt_tokens": "tokens of a prompt",
    "max_tokens": "tokens to generate",
    "think": "thinking",
    "extra_digest": "digest of extra_body",
    "unique_prompts": "uniqueness of prompts",
    "run_from": "place that requests come from",
    "gpus": "GPUs",
    "driver": "version of the driver",
}
CHECKS = {
    "ttft_ms": "comparison_ttft",
    "tpot_ms": "comparison_tpot",
    "latency_ms": "comparison_latency",
    "tokens_per_s": "comparison_tokens_per_s",
    "gap_p99_ms": "comparison_itl_p99",
}


@dataclass(frozen=True)
class Rules:
    """How a comparison is judged.

    Attributes:
        fail_percent: a significant change for the worse beyond it is a FAIL.
        warn_percent: a significant change for the worse beyond it is a WARN.
        may_differ: parts of the identity, of ``MAY_DIFFER``, whose change is what is looked at.
    """

    fail_percent: float = 20.0
    warn_percent: float = 5.0
    may_differ: Collection[str] = ()

    def __post_init__(self) -> None:
        """Refuse to look past something that makes figures incomparable."""
        odd = sorted(set(self.may_differ) - set(MAY_DIFFER))
        if odd:
            raise HostError(
                f"{', '.join(odd)} may not differ in a comparison, wanted some of"
                f" {', '.join(MAY_DIFFER)}."
            )


def compare(
    baseline: str,
    records: Sequence[Record],
    identity: Identity,
    *,
    arrays: Mapping[str, Sequence[float]],
    gap_p99_ms: float | None,
    rules: Rules,
) -> dict[str, Any]:
    """Return how a measurement differs from a named baseline.

    Args:
        baseline: its name.
        records: what it holds of the model, as ``read_baseline`` returns it.
        identity: what was measured now.
        arrays: figures of the answered requests, as ``arrays_of`` returns them.
        gap_p99_ms: p99 of all gaps.
        rules: how to judge.

    Returns:
        ``baseline``, ``comparable``, ``why_not`` (sentences), ``notes`` (sentences) and
        ``metrics``, per metric ``before`` and ``after`` (medians), ``change_percent``,
        ``low_percent``, ``high_percent`` (95 % interval), ``p_value``, ``count_before``,
        ``count_after``, ``verdict``, ``better`` (None when it can't be told from noise), ``note``.
    """
    result: dict[str, Any] = {
        "baseline": baseline,
        "comparable": False,
        "why_not": [],
        "notes": [],
        "metrics": {},
    }
    before = find(records, identity.stage)
    if before is None:
        stages = ", ".join(record.identity.stage.label for record in records)
        has = f"only {stages}" if stages else "nothing of it"
        result["why_not"] = [
            f"baseline {baseline} holds {has}, wanted {identity.model} under {identity.stage.label}"
        ]
        return result
    result["why_not"] = mismatches(before.identity, identity, rules.may_differ)
    if result["why_not"]:
        return result
    result["comparable"] = True
    result["notes"] = _notes(before, identity)
    for name in ARRAYS:
        result["metrics"][name] = _metric(
            before.values[name], arrays.get(name) or [], name in GREATER_IS_BETTER, rules
        )
    result["metrics"]["gap_p99_ms"] = _single(before.gap_p99_ms, gap_p99_ms, rules)
    return result


def mismatches(before: Identity, after: Identity, may_differ: Collection[str] = ()) -> list[str]:
    """Return why two measurements are not of the same thing, one sentence per difference.

    What is known on one side only differs.
    """
    old, new = asdict(before), asdict(after)
    passed_over = set(may_differ)
    if SYNTHETIC in (before.prompt_kind, after.prompt_kind):
        passed_over.discard("prompt_tokens")  # other lengths are another load
    reasons = []
    for name, was in old.items():
        now = new[name]
        if was == now or name in passed_over or (name == "prompt_tokens" and _near(was, now)):
            continue
        label = NAMES.get(name, name)
        reasons.append(f"{label} is {_shown(now)}, the baseline's is {_shown(was)}")
    return reasons


def comparison_verdicts(model: str, comparison: Mapping[str, Any], rules: Rules) -> list[Verdict]:
    """Return the verdicts of a comparison: one per metric, or a WARN that there can be none."""
    name = comparison["baseline"]
    if not comparison["comparable"]:
        return [
            Verdict(
                "comparison",
                WARN,
                subject=model,
                value="not comparable",
                limit="comparable",
                evidence=f"baseline {name}: {'; '.join(comparison['why_not'])}",
            )
        ]
    verdicts = []
    for metric, found in comparison["metrics"].items():
        if found["change_percent"] is None:
            continue  # a metric that one side lacks says nothing
        sign = -1 if metric in GREATER_IS_BETTER else 1
        verdicts.append(
            Verdict(
                CHECKS[metric],
                found["verdict"],
                subject=model,
                value=found["change_percent"],
                limit=sign * (rules.warn_percent if found["note"] else rules.fail_percent),
                unit="%",
                evidence=f"baseline {name}: {_words(metric, found)}",
            )
        )
    return verdicts


def _metric(
    before: Sequence[float], after: Sequence[float], greater_is_better: bool, rules: Rules
) -> dict[str, Any]:
    found = _change(median(before), median(after))
    found.update(count_before=len(before), count_after=len(after))
    interval, test = ratio_interval(before, after), mann_whitney(before, after)
    if interval:
        found["low_percent"] = round(100 * (interval[0] - 1), 2)
        found["high_percent"] = round(100 * (interval[1] - 1), 2)
    if test:
        found["p_value"] = float(f"{test.p_value:.4g}")
    change = found["change_percent"]
    if change is None:
        return {**found, "note": "a side has no figure to compare"}
    worse = -change if greater_is_better else change
    if min(len(before), len(after)) < LEAST_SAMPLES:
        few = f"fewer than {LEAST_SAMPLES} requests on a side: judged by the size of the change"
        return {**found, **_by_size(worse, rules), "note": few}
    significant = bool(
        test and test.p_value < SIGNIFICANCE and interval and not interval[0] <= 1 <= interval[1]
    )
    if not significant:
        return found
    found["better"] = worse < 0
    if worse > rules.fail_percent:
        found["verdict"] = FAIL
    elif worse > rules.warn_percent:
        found["verdict"] = WARN
    return found


def _single(before: float | None, after: float | None, rules: Rules) -> dict[str, Any]:
    """Compare two figures that have no noise of their own: the p99 of all gaps."""
    found = _change(before, after)
    found.update(count_before=int(before is not None), count_after=int(after is not None))
    if found["change_percent"] is None:
        return {**found, "note": "a side has no figure to compare"}
    note = "one figure on each side: judged by the size of the change"
    return {**found, **_by_size(found["change_percent"], rules), "note": note}


def _by_size(worse: float, rules: Rules) -> dict[str, Any]:
    grave = worse > rules.warn_percent
    told = abs(worse) > rules.warn_percent
    return {"verdict": WARN if grave else PASS, "better": worse < 0 if told else None}


def _change(before: float | None, after: float | None) -> dict[str, Any]:
    known = before is not None and after is not None and before > 0
    return {
        "before": None if before is None else round(before, 3),
        "after": None if after is None else round(after, 3),
        "change_percent": round(100 * (after / before - 1), 2) if known else None,
        "low_percent": None,
        "high_percent": None,
        "p_value": None,
        "verdict": PASS,
        "better": None,
        "note": "",
    }


def _notes(before: Record, identity: Identity) -> list[str]:
    notes = []
    if before.validity != "VALID":
        notes.append(f"the baseline itself is {before.validity}")
    differ = mismatches(before.identity, identity)
    notes += [f"compared although the {reason}" for reason in differ]
    thinned = [name for name in ARRAYS if before.counts[name] > len(before.values[name])]
    if thinned:
        kept = len(before.values[thinned[0]])
        notes.append(
            f"the baseline keeps {kept} of {before.counts[thinned[0]]} values, taken evenly"
        )
    return notes


def _near(was: int | None, now: int | None) -> bool:
    if was is None or now is None:
        return False
    least, share = TOKEN_SLACK
    return abs(was - now) <= max(least, share * was)


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value) or "not known"
    return "not known" if value in ("", None) else str(value)


def _words(metric: str, found: Mapping[str, Any]) -> str:
    text = f"{metric} {found['before']:g} to {found['after']:g}, {found['change_percent']:+.1f} %"
    if found["low_percent"] is not None:
        text += f" (95 % interval {found['low_percent']:+.1f} to {found['high_percent']:+.1f} %)"
    if found["p_value"] is not None:
        text += f", p = {found['p_value']:.2g}"
    if found["note"]:
        text += f"; {found['note']}"
    return text
