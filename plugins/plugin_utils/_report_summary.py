# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The end of a run on one screen of a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from ansible_collections.hx_infra.llm.plugins.plugin_utils import _report_text as text

WIDTH = 96
HEIGHT = 24
MARKS = {"PASS": "PASS", "WARN": "WARN", "FAIL": "FAIL", "PLAN": "plan"}


def lines(shown: Mapping[str, Any], paths: Mapping[str, str]) -> list[str]:
    """Return at most 24 lines: phases, figures, what is wrong, where the report is, what next.

    Args:
        shown: the view of the record.
        paths: where ``html``, ``json`` and ``host`` were written.
    """
    rule = "─" * WIDTH
    title = f"{shown['host']}  {shown['verdict']}"
    if shown["dry"]:
        title = f"{shown['host']}  PLAN ONLY, nothing was changed"
    told = [rule, title, *_wrapped(shown["headline"], 2), ""]
    told.extend(_phase(phase, shown["dry"]) for phase in shown["phases"])
    told.append("")
    told.extend(_labelled("figures", ", ".join(_figure(item) for item in shown["figures"])))
    told.extend(_trouble(shown)[: HEIGHT - len(told) - 4])
    if shown["backup"].get("path") and not shown["dry"]:
        told.append(f"backup   {shown['backup']['path']}")
    if paths.get("html"):
        told.append(f"report   {paths['html']}")
    told.extend(_labelled("next", next_step(shown))[:2])
    told.append(rule)
    return [*told[: HEIGHT - 1], rule] if len(told) > HEIGHT else told


def next_step(shown: Mapping[str, Any]) -> str:
    """Say what to do after the run."""
    if shown["failure"]:
        return str(
            shown["failure"].get("next_step") or "Correct what the message names, run again."
        )
    if shown["verdict"] == "FAIL":
        return "Look at the failed checks in the report."
    if shown["dry"]:
        changes = any(phase["changes"] for phase in shown["phases"])
        return "Run again without --check to apply the plan." if changes else "Nothing."
    if shown["verdict"] == "WARN":
        return "Look at the warnings in the report."
    return "Nothing. A second run changes nothing."


def _phase(phase: Mapping[str, Any], dry: bool) -> str:
    verdict = MARKS.get(phase["verdict"], phase["verdict"])
    line = f"  {phase['number']} {phase['title']:<10} {verdict:<8}"
    if phase["seconds"] is None:
        return line.rstrip()
    checks = phase["checks"]
    number = sum(checks.values())
    passed = f"{checks['PASS']}/{number} checks{' now' if dry else ''}" if number else ""
    changes = text.counted(phase["changes"], "change")
    return f"{line} {changes:<12} {passed:<17} {phase['took']}".rstrip()


def _trouble(shown: Mapping[str, Any]) -> list[str]:
    failure = shown["failure"]
    if failure:
        told = _labelled("failed", _failure(failure))[:4]
        state = " ".join(shown["after_failure"])
        return [*told, *(_labelled("host", state) if state else [])]
    rows = [
        f"{row['status']:<8} {row['check']} {row['subject']}: {row['value']}"
        + (f", wanted {row['limit']}" if row["limit"] else "")
        for group in shown["verdicts"]
        for row in group["rows"]
        if row["status"] != "PASS" and not shown["dry"]
    ]
    return [_cut(row) for row in sorted(rows)[:5]]


def _failure(failure: Mapping[str, Any]) -> str:
    task = f"{failure['task']}: " if failure["task"] else ""
    return f"{task}{failure['message']}"


def _figure(item: Mapping[str, Any]) -> str:
    return f"{item['value']} {item['label']}"


def _wrapped(line: str, indent: int) -> list[str]:
    return textwrap.wrap(" ".join(line.split()), WIDTH, subsequent_indent=" " * indent) or [""]


def _labelled(label: str, line: str) -> list[str]:
    wrapped = textwrap.wrap(" ".join(line.split()), WIDTH - 9) or [""]
    return [f"{label if number == 0 else '':<9}{part}" for number, part in enumerate(wrapped)]


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
