# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What operators accept, and what the outcomes mean for a run: its verdicts and its message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_check import (
    NA,
    STATUSES,
    UNKNOWN,
    Found,
    Gpu,
    Health,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_health_check import PASS as HEALTHY
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy import Policy
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_checks import (
    ACTIONS,
    CHECKS,
    CRITICAL,
    INFO,
    NONE,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._gpu_policy_checks import (
    WARN as NOTED,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    PASS,
    WARN,
    Verdict,
    sentence,
)

FIELDS = ("check", "gpu", "reason", "until")
EVERY = "*"
ACCEPTABLE = frozenset({NOTED, UNKNOWN, CRITICAL})
REFUSED = "What is accepted of the GPU checks is refused."
REMEDY = "docs/gpu.md tells how a check is accepted."


@dataclass(frozen=True)
class Acceptance:
    """What an operator accepts.

    Attributes:
        check: name of the check.
        gpu: index or UUID of a GPU, or ``*`` for all of them and for the host.
        reason: why; a run's report shows it.
        until: the last day on which it holds; None for ever.
    """

    check: str
    gpu: str
    reason: str
    until: date | None = None

    def covers(self, health: Health) -> bool:
        """Tell whether it is meant for an outcome, whatever the day."""
        same = self.gpu == EVERY or self.gpu in (str(health.gpu), health.uuid)
        return self.check == health.check and same

    def __str__(self) -> str:
        """Name what is accepted."""
        return self.check if self.gpu == EVERY else f"{self.check} of GPU {self.gpu}"


def acceptances(entries: Any) -> list[Acceptance]:
    """Return what the inventory accepts.

    Args:
        entries: list of ``{check, gpu, reason, until}``; ``gpu`` is ``*`` by default, ``until``
            a date such as ``2027-01-31``.

    Raises:
        HostError: something in it is unknown, or has no reason; names every problem.
    """
    problems = list(_problems(entries or []))
    if problems:
        raise HostError(f"{REFUSED} {'; '.join(problems)}.", REMEDY)
    return [
        Acceptance(
            entry["check"], _gpu(entry), str(entry["reason"]).strip(), _day(entry.get("until"))
        )
        for entry in entries or []
    ]


def accept(
    found: Iterable[Health], accepted: Sequence[Acceptance], gpus: Sequence[Gpu], today: date
) -> tuple[Found, list[str]]:
    """Mark what is accepted, and say which acceptances don't hold any more.

    Args:
        found: the outcomes.
        accepted: what the inventory accepts.
        gpus: the GPUs that the driver names.
        today: the day of the run.

    Returns:
        The outcomes, and sentences about acceptances that have ended or name no GPU of the host.
    """
    ended = [entry for entry in accepted if entry.until is not None and entry.until < today]
    notes = [f"the acceptance of {entry} ended on {entry.until}: {entry.reason}" for entry in ended]
    known = {EVERY, *(str(gpu["index"]) for gpu in gpus), *(gpu.get("uuid") for gpu in gpus)}
    notes += [
        f"the acceptance of {entry} is for a GPU that this host does not show"
        for entry in accepted
        if entry not in ended and entry.gpu not in known
    ]
    return [_marked(health, accepted, ended) for health in found], notes


def verdicts_of(found: Sequence[Health], policy: Policy) -> list[Verdict]:
    """Return the outcomes in the words of a run, which knows PASS, WARN and FAIL.

    N/A is left out, and so is what could not be judged because of another check that says so
    itself.
    """
    grave = {health.check for health in found if health.status not in (NA, HEALTHY)}
    return [
        _verdict(health, policy)
        for health in found
        if health.status != NA and health.because not in grave
    ]


def summary(found: Sequence[Health]) -> tuple[str, str]:
    """Return the host's own status and next action: the gravest status that isn't accepted.

    What is accepted counts as WARN at most, and asks for no action.
    """
    status, action = HEALTHY, NONE
    for health in found:
        counted = NOTED if health.accepted else health.status
        mine = NONE if health.accepted else health.action
        rank = STATUSES.index(counted) - STATUSES.index(status)
        if rank > 0 and not health.because:
            status, action = counted, mine
        elif rank == 0 and not health.because:
            action = max(action, mine, key=ACTIONS.index)
    return status, action


def failure(verdicts: Iterable[Verdict], host: str) -> str:
    """Say in one message what failed, where, and against which limit; empty when nothing did."""
    failed = [verdict for verdict in verdicts if verdict.status == FAIL]
    if not failed:
        return ""
    checks = "1 GPU check" if len(failed) == 1 else f"{len(failed)} GPU checks"
    return f"{checks} failed. " + ". ".join(sentence(verdict, host) for verdict in failed) + "."


def _verdict(health: Health, policy: Policy) -> Verdict:
    status = {HEALTHY: PASS, INFO: PASS, NOTED: WARN, CRITICAL: FAIL}.get(health.status, WARN)
    if health.status == UNKNOWN and policy.checks[health.check].severity == CRITICAL:
        status = FAIL
    words = [health.evidence]
    if status != PASS and not health.accepted:
        words.append(f"next action: {health.action}, {health.remedy}")
    if health.accepted:
        status = WARN
        words.append(f"accepted: {health.accepted}")
    return Verdict(
        health.check, status, health.subject, health.value, health.limit, health.unit,
        "; ".join(word for word in words if word),
    )  # fmt: skip


def _marked(health: Health, accepted: Sequence[Acceptance], ended: Sequence[Acceptance]) -> Health:
    if health.status not in ACCEPTABLE:
        return health
    mine = [entry for entry in accepted if entry.covers(health)]
    for entry in mine:
        if entry not in ended:
            return replace(health, accepted=entry.reason)
    if mine:
        words = f"its acceptance ended on {mine[0].until}: {mine[0].reason}"
        evidence = f"{health.evidence}; {words}" if health.evidence else words
        return replace(health, evidence=evidence)
    return health


def _problems(entries: Any) -> Iterator[str]:
    if not isinstance(entries, (list, tuple)):
        yield f"accept: found {entries!r}, wanted a list of {{{', '.join(FIELDS)}}}"
        return
    names = [check.name for check in CHECKS]
    for number, entry in enumerate(entries):
        field = f"accept[{number}]"
        if not isinstance(entry, Mapping):
            yield f"{field}: found {entry!r}, wanted a mapping with {', '.join(FIELDS)}"
            continue
        for key in entry:
            if key not in FIELDS:
                yield f"{field}.{key}: found {entry[key]!r}, wanted one of {', '.join(FIELDS)}"
        if entry.get("check") not in names:
            wanted = f"one of the checks {', '.join(names)}"
            yield f"{field}.check: found {entry.get('check')!r}, wanted {wanted}"
        if not str(entry.get("reason") or "").strip():
            yield f"{field}.reason: found nothing, wanted a reason that the report can show"
        gpu = _gpu(entry)
        if gpu != EVERY and not gpu.isdigit() and "-" not in gpu:
            yield f"{field}.gpu: found {gpu!r}, wanted an index, a UUID, or {EVERY}"
        try:
            _day(entry.get("until"))
        except ValueError:
            wanted = "a date such as 2027-01-31"
            yield f"{field}.until: found {entry['until']!r}, wanted {wanted}"


def _gpu(entry: Mapping[str, Any]) -> str:
    gpu = entry.get("gpu")
    return EVERY if gpu is None or gpu == "" else str(gpu)


def _day(value: Any) -> date | None:
    if value is None or value == "":
        return None
    return date.fromisoformat(str(value).strip()[:10])
