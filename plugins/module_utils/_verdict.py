# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""A verdict: one check, its outcome, and the figures that led to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Union

PASS = "PASS"  # noqa: S105 - an outcome, not a password
WARN = "WARN"
FAIL = "FAIL"
STATUSES = (PASS, WARN, FAIL)  # from harmless to grave

Figure = Union[int, float, str, bool, list, None]


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check on one subject.

    Attributes:
        check: name of the check, a word such as ``ttft`` or ``gpu_used``.
        status: ``PASS``, ``WARN`` or ``FAIL``.
        subject: what was looked at: a model, a GPU, a path, a service.
        value: what was found.
        limit: what was wanted.
        unit: unit of value and limit; empty when they have none.
        evidence: where the value comes from, in one plain sentence.
    """

    check: str
    status: str
    subject: str = ""
    value: Figure = None
    limit: Figure = None
    unit: str = ""
    evidence: str = ""

    def __post_init__(self) -> None:
        """Refuse a status that nobody would count."""
        if self.status not in STATUSES:
            raise ValueError(
                f"verdict {self.check}: status {self.status!r} is not one of {STATUSES}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the form in which results, records and reports carry a verdict."""
        return {
            "check": self.check,
            "status": self.status,
            "subject": self.subject,
            "value": self.value,
            "limit": self.limit,
            "unit": self.unit,
            "evidence": self.evidence,
        }


def judge(
    check: str,
    ok: bool,
    *,
    subject: str = "",
    value: Figure = None,
    limit: Figure = None,
    unit: str = "",
    evidence: str = "",
    otherwise: str = FAIL,
) -> Verdict:
    """Give ``PASS`` when ``ok`` holds and ``otherwise`` when it does not."""
    return Verdict(check, PASS if ok else otherwise, subject, value, limit, unit, evidence)


def at_most(
    check: str,
    value: float | None,
    limit: float,
    *,
    subject: str = "",
    unit: str = "",
    evidence: str = "",
    otherwise: str = FAIL,
) -> Verdict:
    """Judge a value that must not exceed its limit; no value is no pass."""
    return judge(
        check,
        value is not None and value <= limit,
        subject=subject,
        value=value,
        limit=limit,
        unit=unit,
        evidence=evidence,
        otherwise=otherwise,
    )


def at_least(
    check: str,
    value: float | None,
    limit: float,
    *,
    subject: str = "",
    unit: str = "",
    evidence: str = "",
    otherwise: str = FAIL,
) -> Verdict:
    """Judge a value that must reach its limit; no value is no pass."""
    return judge(
        check,
        value is not None and value >= limit,
        subject=subject,
        value=value,
        limit=limit,
        unit=unit,
        evidence=evidence,
        otherwise=otherwise,
    )


def worst(verdicts: Iterable[Verdict | Mapping[str, Any]]) -> str:
    """Return the gravest status of some verdicts; ``PASS`` when there are none."""
    ranks = [STATUSES.index(_status(verdict)) for verdict in verdicts]
    return STATUSES[max(ranks, default=0)]


def sentence(verdict: Verdict | Mapping[str, Any], host: str = "") -> str:
    """Say in one line what was found and what was wanted."""
    fields = verdict.as_dict() if isinstance(verdict, Verdict) else dict(verdict)
    where = " ".join(part for part in (host, fields.get("subject") or "") if part)
    unit = f" {fields['unit']}" if fields.get("unit") else ""
    text = f"{fields['check']} is {_figure(fields.get('value'))}{unit}"
    if fields.get("limit") is not None:
        text += f", wanted {_figure(fields['limit'])}{unit}"
    if fields.get("evidence"):
        text += f" ({fields['evidence']})"
    return f"{where}: {text}" if where else text


def failure_message(verdicts: Iterable[Mapping[str, Any]], fail_on: str, host: str) -> str:
    """Return what to fail with when verdicts are as grave as ``fail_on``; empty otherwise.

    ``fail_on`` is ``WARN``, ``FAIL`` or anything else for never.
    """
    if fail_on not in STATUSES:
        return ""
    least = STATUSES.index(fail_on)
    grave = [verdict for verdict in verdicts if STATUSES.index(_status(verdict)) >= least]
    return "; ".join(f"{_status(verdict)}: {sentence(verdict, host)}" for verdict in grave)


def as_dicts(verdicts: Iterable[Verdict]) -> list[dict[str, Any]]:
    """Return verdicts in the form that results carry."""
    return [verdict.as_dict() for verdict in verdicts]


def _status(verdict: Verdict | Mapping[str, Any]) -> str:
    return verdict.status if isinstance(verdict, Verdict) else str(verdict["status"])


def _figure(value: Figure) -> str:
    if value is None:
        return "not known"
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    return str(value)
