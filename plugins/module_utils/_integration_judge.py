# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""From what a check found to verdicts, to one row of data and to the lines of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._integration_model import (
    CHECKS,
    Found,
    Wanted,
    version_fits,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import (
    FAIL,
    PASS,
    WARN,
    Verdict,
    sentence,
    worst,
)

COLUMNS = ("integration", "kind", "address", "reachable", "authenticated", "version", "ready", "")


def judge(wanted: Wanted, found: Found) -> list[Verdict]:
    """Return the verdicts as far as the check got; what wasn't reached isn't judged."""
    verdicts = []
    for name in CHECKS:
        if found.trouble is not None and found.trouble.check == name:
            verdicts.append(_failure(wanted, found, name))
        else:
            verdicts += _JUDGES[name](wanted, found)
    verdicts += [replace(verdict, subject=wanted.name) for verdict in found.more]
    if wanted.required:
        return verdicts
    return [replace(one, status=WARN) if one.status == FAIL else one for one in verdicts]


def row(wanted: Wanted, found: Found, verdicts: Sequence[Verdict], host: str) -> dict[str, Any]:
    """Return one integration's part of the result."""
    status = {verdict.check: verdict.status for verdict in verdicts}
    return {
        "name": wanted.name,
        "kind": wanted.kind,
        "host": wanted.host,
        "port": wanted.port,
        "required": wanted.required,
        "status": worst(verdicts),
        **{check: status.get(check, "") for check in CHECKS},
        "found_version": found.version,
        "role": found.role,
        "tls": found.tls,
        "connect_ms": found.connect_ms,
        "answer_ms": found.answer_ms,
        "cause": found.trouble.cause if found.trouble else "",
        "problems": [
            f"{verdict.status}: {sentence(verdict, host)}"
            for verdict in verdicts
            if verdict.status != PASS
        ],
    }


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the rows as lines, with the problems of each below it."""
    cells = [COLUMNS, *(_cells(entry) for entry in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(COLUMNS))]
    lines = []
    for number, line in enumerate(cells):
        padded = (cell.ljust(width) for cell, width in zip(line, widths))
        lines.append("  ".join(padded).rstrip())
        if number:
            lines += [f"    {problem}" for problem in rows[number - 1]["problems"]]
    return lines


def _cells(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        entry["name"],
        entry["kind"],
        f"{entry['host']}:{entry['port']}",
        _cell(entry["reachable"], _ms(entry["connect_ms"])),
        _cell(entry["authenticated"], "yes"),
        " ".join(
            part
            for part in (
                entry["found_version"].split(" ")[0],
                entry["version"] if entry["version"] in (FAIL, WARN) else "",
            )
            if part
        )
        or "-",
        _cell(entry["ready"], _ms(entry["answer_ms"])),
        entry["status"],
    )


def _cell(status: str, passed: str) -> str:
    if not status:
        return "-"
    return passed if status == PASS else status


def _ms(value: float | None) -> str:
    return "yes" if value is None else f"{value:.1f} ms"


def _failure(wanted: Wanted, found: Found, name: str) -> Verdict:
    trouble = found.trouble
    wishes = {
        "reachable": f"{wanted.service} on {wanted.place}",
        "authenticated": f"a login as {wanted.user}" if wanted.user else "access",
        "version": _range(wanted) or "a version",
        "ready": f"{wanted.service} ready for requests",
    }
    value = trouble.message if trouble else ""
    remedy = trouble.remedy if trouble else ""
    return Verdict(name, FAIL, wanted.name, value, wishes[name], "", remedy)


def _reachable(wanted: Wanted, found: Found) -> list[Verdict]:
    if not found.address:
        return []
    evidence = f"{wanted.service} on {wanted.place}, {found.address}, {found.tls or 'without TLS'}"
    return [Verdict("reachable", PASS, wanted.name, found.connect_ms, None, "ms", evidence)]


def _authenticated(wanted: Wanted, found: Found) -> list[Verdict]:
    if not found.authenticated:
        return []
    if found.unasked:
        value = "the server answers without the credentials that are declared"
        remedy = "Protect the server, or take the credentials out of the declaration."
        wish = "a server that asks for them"
        return [Verdict("authenticated", WARN, wanted.name, value, wish, "", remedy)]
    return [Verdict("authenticated", PASS, wanted.name, found.authenticated)]


def _version(wanted: Wanted, found: Found) -> list[Verdict]:
    limits = _range(wanted)
    if not found.version and (not limits or not found.authenticated):
        return []
    fits = version_fits(found.version, wanted.version_min, wanted.version_max)
    status = PASS if fits else FAIL
    return [Verdict("version", status, wanted.name, found.version or None, limits or None)]


def _ready(wanted: Wanted, found: Found) -> list[Verdict]:
    if not found.ready:
        return []
    evidence = f"{found.ready}, {found.role}" if found.role else found.ready
    return [Verdict("ready", PASS, wanted.name, found.answer_ms, None, "ms", evidence)]


def _range(wanted: Wanted) -> str:
    parts = []
    if wanted.version_min:
        parts.append(f"{wanted.version_min} or newer")
    if wanted.version_max:
        parts.append(f"at most {wanted.version_max}")
    return " and ".join(parts)


_JUDGES = {
    "reachable": _reachable,
    "authenticated": _authenticated,
    "version": _version,
    "ready": _ready,
}
