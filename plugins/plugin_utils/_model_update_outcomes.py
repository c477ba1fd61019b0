# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Whether a new version of a model is accepted, and what became of each, for people to read.

What is worse was decided by the comparison with the version before (`_bench_compare`): a change
that is larger than the limit and can be told from noise. A measurement that can't be relied on is
no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._bench_compare import (
    GREATER_IS_BETTER,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.plugin_utils import _bench_outcome as bench

ACCEPTED, ROLLED_BACK, UNCHANGED = "ACCEPTED", "ROLLED BACK", "UNCHANGED"
UNKNOWN, FAILED, PLANNED = "UNKNOWN", "FAILED", "PLANNED"
WORDS = (FAILED, UNKNOWN, ROLLED_BACK, PLANNED, ACCEPTED, UNCHANGED)  # from what needs a look
METRICS = ("ttft_ms", "tpot_ms", "latency_ms", "tokens_per_s", "gap_p99_ms")
JUDGED = ("ttft_ms", "tpot_ms", "tokens_per_s")
BROKEN = ("answered", "out_of_memory", "server_errors")  # checks that outweigh any figure
DIGITS = 12
NOTHING = "\N{EN DASH}"


def judge(
    outcome: Mapping[str, Any] | None,
    *,
    problem: str = "",
    fail_percent: float = 20.0,
    metrics: Sequence[str] = JUDGED,
    accept_unreliable: bool = False,
) -> dict[str, Any]:
    """Return whether a new version is accepted.

    Args:
        outcome: what the role benchmark said about the new version, compared with the old one;
            None when it could not be measured.
        problem: why not.
        fail_percent: the limit that the comparison was made with.
        metrics: which figures count, of ``METRICS``.
        accept_unreliable: whether a version is accepted that nobody could judge.

    Returns:
        ``accepted``, ``worse`` (whether the version itself is worse, or broken: a fault of the
        measurement says nothing about it), ``reason`` (a sentence), ``metrics``: per
        figure ``name``, ``before``, ``after``, ``change_percent``, ``verdict``, ``judged``.

    Raises:
        HostError: a figure, or the limit, is none.
    """
    odd = [name for name in metrics if name not in METRICS]
    if odd or not metrics:
        raise HostError(
            f"{', '.join(map(str, odd)) or 'nothing'} is to be judged, wanted some of"
            f" {', '.join(METRICS)}."
        )
    if math.isnan(fail_percent) or fail_percent < 0:
        raise HostError(f"the limit is {fail_percent:g} %, wanted a number from 0.")
    if outcome is None:
        told = problem or "nothing was measured"
        return _verdict(False, f"the new version could not be measured: {told}", [])
    comparison = outcome.get("comparison") or {}
    found = [
        _metric(name, change, name in metrics)
        for name, change in (comparison.get("metrics") or {}).items()
    ]
    broken = [
        bench.sentence(verdict)
        for verdict in outcome.get("verdicts") or []
        if verdict["check"] in BROKEN and verdict["status"] == "FAIL"
    ]
    if broken:
        return _verdict(False, " ".join(broken), found, worse=True)
    worse = [item for item in found if item["judged"] and item["verdict"] == "FAIL"]
    if worse:
        changes = ", ".join(f"{_label(item['name'])} {_changed(item)}" for item in worse)
        limit = f"worse by more than {fail_percent:g} %: {changes}"
        return _verdict(False, limit, found, worse=True)
    doubts = _doubts(outcome, comparison, found, fail_percent)
    if doubts and not accept_unreliable:
        return _verdict(False, f"no verdict is possible: {'; '.join(doubts)}", found)
    if doubts:
        accepted = "accepted without a verdict, as accept_unreliable says"
        return _verdict(True, f"{accepted}: {'; '.join(doubts)}", found)
    changes = ", ".join(
        f"{_label(item['name'])} {_changed(item)}" for item in found if item["judged"]
    )
    return _verdict(True, f"not worse by more than {fail_percent:g} %: {changes}", found)


def rest(
    entries: Sequence[Mapping[str, Any]],
    host: str,
    done: Sequence[Mapping[str, Any]] = (),
    problem: str = "",
) -> list[dict[str, Any]]:
    """Return a row for each model that has none.

    Args:
        entries: the models, as ``_model_updates.describe_update`` describes them.
        host: their host.
        done: the rows that there are.
        problem: why the run did not come to what was to be done; empty when it did.
    """
    named = {row["model"] for row in done}
    found = []
    for entry in entries:
        if entry["name"] in named:
            continue
        verdict, reason = UNCHANGED, str(entry["reason"])
        if entry["todo"] not in ("none", "drop"):
            verdict, reason = FAILED, f"{reason}; {problem or 'the run ended before it'}"
        elif entry["present"] and entry["moved"] is None:
            verdict = UNKNOWN
        found.append(
            {
                "host": host,
                "model": entry["name"],
                "old": entry["digest"],
                "new": entry["registry_digest"],
                "verdict": verdict,
                "reason": reason,
                "metrics": [],
            }
        )
    return found


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table of what became of the models, and a sentence for each.

    Args:
        rows: ``host``, ``model``, ``old``, ``new`` (digests), ``verdict`` (of ``WORDS``),
            ``reason``, ``metrics`` as ``judge`` returns them.
    """
    if not rows:
        return ["No model was looked at."]
    table = [["host", "model", "old", "new", "figure", "before", "after", "change", "verdict"]]
    for row in rows:
        table += _cells(row)
    widths = [max(len(line[at]) for line in table) for at in range(len(table[0]))]
    told = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)) for line in table]
    told = [line.rstrip() for line in told]
    told.append("")
    for row in sorted(rows, key=lambda item: WORDS.index(item["verdict"])):
        reason = str(row.get("reason") or "no reason was given").strip().rstrip(".")
        told.append(f"{row['verdict']}: {row['host']}, {row['model']}: {reason}.")
    return told


def _cells(row: Mapping[str, Any]) -> list[list[str]]:
    """Return a line for each figure of a model, the model named in the first."""
    names = [str(row["host"]), str(row["model"]), _short(row.get("old")), _short(row.get("new"))]
    figures = [item for item in row.get("metrics") or [] if item["change_percent"] is not None]
    if not figures:
        return [[*names, NOTHING, NOTHING, NOTHING, NOTHING, str(row["verdict"])]]
    found = []
    for at, item in enumerate(figures):
        head = names if at == 0 else ["", "", "", ""]
        tail = str(row["verdict"]) if at == 0 else ""
        figure = _label(item["name"]) + ("" if item["judged"] else " (not judged)")
        unit = bench.METRICS[item["name"]][1]
        values = [f"{bench.rounded(item[key]):g} {unit}" for key in ("before", "after")]
        found.append([*head, figure, *values, bench.signed(item["change_percent"]), tail])
    return found


def _metric(name: str, change: Mapping[str, Any], judged: bool) -> dict[str, Any]:
    kept = ("before", "after", "change_percent", "verdict", "better", "note")
    return {"name": name, "judged": judged, **{key: change.get(key) for key in kept}}


def _doubts(
    outcome: Mapping[str, Any],
    comparison: Mapping[str, Any],
    found: Sequence[Mapping[str, Any]],
    fail_percent: float,
) -> list[str]:
    """Say why the figures are no verdict."""
    doubts = []
    validity = outcome.get("validity") or {}
    if validity.get("state") != "VALID":
        reasons = "; ".join(validity.get("reasons") or []) or "no reason was given"
        doubts.append(f"the measurement is {validity.get('state') or 'not judged'} ({reasons})")
    if not comparison.get("comparable"):
        why = "; ".join(comparison.get("why_not") or []) or "nothing was measured before"
        return [*doubts, f"it can't be compared with the version before ({why})"]
    known = [item for item in found if item["judged"] and item["change_percent"] is not None]
    if not known:
        doubts.append("no figure that is judged is known of both versions")
    for item in known:
        worse = item["change_percent"] * (-1 if item["name"] in GREATER_IS_BETTER else 1)
        if item["note"] and worse > fail_percent:
            doubts.append(f"{_label(item['name'])} {_changed(item)}, {item['note']}")
    return doubts


def _verdict(
    accepted: bool, reason: str, metrics: list[dict[str, Any]], *, worse: bool = False
) -> dict[str, Any]:
    told = reason.rstrip(".")
    return {"accepted": accepted, "worse": worse, "reason": told, "metrics": metrics}


def _label(name: str) -> str:
    label: str = bench.METRICS[name][0]
    return label


def _changed(item: Mapping[str, Any]) -> str:
    doubt = "" if item["better"] is not None or not item["change_percent"] else " (could be chance)"
    return f"{bench.signed(item['change_percent'])}{doubt}"


def _short(digest: Any) -> str:
    return str(digest or "")[:DIGITS] or NOTHING
