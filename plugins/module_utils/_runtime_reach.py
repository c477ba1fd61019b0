# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Judge whether other hosts reach a service, from what they were told when they asked it.

A peer that Ansible doesn't reach proves nothing about the service. It is told, and it is a failure
where no other peer could be asked instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._runtime_model import Seen, Service
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    PASS,
    WARN,
    Verdict,
)

OK, ASKS_FOR_A_KEY = 200, (401, 403)
ANSWERS, NOTHING = "an answer", "no answer"


@dataclass(frozen=True)
class Answer:
    """What a peer got when it asked a service.

    Attributes:
        peer: its inventory name.
        status: the HTTP status; 0 when nobody answered.
        version: the version in the answer; empty without one.
        message: what went wrong.
        asked: whether it could be asked; False for a peer that Ansible doesn't reach.
    """

    peer: str
    status: int = 0
    version: str = ""
    message: str = ""
    asked: bool = True


def understand(peer: Mapping[str, Any], service: str) -> Answer:
    """Return what a peer got of one service.

    Args:
        peer: ``peer`` (its name) and what the task has registered: ``results`` with one item of a
            loop over the services, or, for a peer that was lost, ``msg`` alone.
        service: the service's name.
    """
    name = str(peer.get("peer") or "a peer without a name")
    for item in peer.get("results") or []:
        asked = item.get(str(item.get("ansible_loop_var"))) if isinstance(item, Mapping) else None
        if not isinstance(asked, Mapping) or asked.get("name") != service:
            continue
        status, body = item.get("status"), item.get("json")
        return Answer(
            name,
            status=status if isinstance(status, int) and status > 0 else 0,
            version=str(body.get("version") or "") if isinstance(body, Mapping) else "",
            message=_line(item.get("msg")),
            # A task that could not be run at all has no status: no interpreter, for example.
            asked=isinstance(status, int) and not item.get("unreachable"),
        )
    return Answer(name, message=_line(peer.get("msg")), asked=False)


def _line(text: Any) -> str:
    return " ".join(str(text or "").split())[:300]


def reach_verdicts(
    service: Service, seen: Seen, peers: Sequence[Mapping[str, Any]]
) -> list[Verdict]:
    """Judge what each peer got of a running service; nothing when no peer had to ask it."""
    if not peers or not service.reach or not seen.active:
        return []
    answers = [understand(peer, service.name) for peer in peers]
    verdicts = [_judged(service, seen, answer) for answer in answers if answer.asked]
    status = WARN if verdicts else FAIL
    for answer in answers:
        if not answer.asked:
            subject = f"{service.unit} from {answer.peer}"
            text = f"{answer.peer} could not be asked: {answer.message or 'it gave no reason'}"
            limit = NOTHING if service.local_only else ANSWERS
            verdicts.append(Verdict("reachable", status, subject, "not known", limit, "", text))
    return verdicts


def _judged(service: Service, seen: Seen, answer: Answer) -> Verdict:
    subject, text = f"{service.unit} from {answer.peer}", f"GET {service.reach}"
    found = f"status {answer.status}" if answer.status else NOTHING
    if service.local_only:
        status = FAIL if answer.status else PASS
        text += f"; it is declared to listen on {service.address} alone"
        return Verdict("reachable", status, subject, found, NOTHING, "", text)
    if answer.status in ASKS_FOR_A_KEY:
        text += " asks for a key"
        return Verdict("reachable", PASS, subject, found, ANSWERS, "", text)
    if answer.status != OK:
        text += f": {answer.message}" if answer.message else ""
        return Verdict("reachable", FAIL, subject, found, ANSWERS, "", text)
    here = seen.api.version
    if answer.version and here and answer.version != here:
        text += ": another engine answers under this address"
        found, wanted = f"version {answer.version}", f"version {here}"
        return Verdict("reachable", FAIL, subject, found, wanted, "", text)
    return Verdict("reachable", PASS, subject, ANSWERS, ANSWERS, "", text)
