# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Read what the runtime interface of HAProxy 2.4 to 3.x answers.

Columns are found by their names. No I/O here: each function takes the text of one answer.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass

# Bits of srv_admin_state in `show servers state`.
FORCED_MAINT = 0x01
CONFIGURED_MAINT = 0x04
FORCED_DRAIN = 0x08
MAINT = 0x01 | 0x02 | 0x04 | 0x20 | 0x40  # forced, inherited, configured, unresolved name or host
DRAIN = 0x08 | 0x10  # forced, inherited

_SERVER_ROW = "2"  # of the column "type": 0 is a frontend, 1 a backend, 3 a listener
_NOT_SERVERS = ("FRONTEND", "BACKEND")
_ERRORS = ("econ", "eresp", "srv_abrt", "hrsp_5xx")  # what went wrong on the server's side

Key = tuple[str, str]  # (backend, server)


@dataclass(frozen=True)
class Load:
    """One server's row of ``show stat`` in one worker; ``errors`` grows until its reload."""

    status: str
    streams: int
    queued: int
    errors: int = 0


@dataclass(frozen=True)
class AdminState:
    """What was set for a server: the bits of its administrative state, and its weights."""

    bits: int
    weight: int
    configured_weight: int

    @property
    def name(self) -> str:
        """Say ``maint``, ``drained`` or ``ready``; a dead server can be any of them."""
        if self.bits & MAINT:
            return "maint"
        return "drained" if self.bits & DRAIN else "ready"


@dataclass(frozen=True)
class Processes:
    """The workers that the master knows: present ones, and those that a reload left behind."""

    workers: tuple[int, ...]
    old_workers: tuple[int, ...]


Counts = Mapping[str, Mapping[str, int]]  # errors by worker and by backend/server


def new_errors(now: Counts, before: Counts) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return each server's errors since an earlier look, and the workers that were cleared.

    A worker that a reload has started since then counts from 0. One whose count is lower than it
    was has been cleared, so what it has now is new.
    """
    found: dict[str, int] = {}
    cleared = []
    for worker, counts in now.items():
        base = before.get(worker, {})
        if any(counts.get(target, 0) < count for target, count in base.items()):
            cleared.append(worker)
            base = {}
        for target, count in counts.items():
            found[target] = found.get(target, 0) + count - base.get(target, 0)
    return found, tuple(cleared)


def parse_info(text: str) -> dict[str, str]:
    """Parse ``show info``: one ``name: value`` on each line."""
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _colon, value in pairs}


def parse_stat(text: str) -> dict[Key, Load]:
    """Parse the servers' rows of ``show stat``; ValueError when it is something else."""
    rows = _table(text, "# pxname")
    result = {}
    for row in csv.DictReader(rows):
        if None in (row.get("pxname"), row.get("status"), row.get("scur"), row.get("qcur")):
            raise ValueError(f"no pxname, status, scur or qcur in {dict(row)!r}")
        kind = row.get("type") or ""
        name = row.get("svname") or ""
        if (kind and kind != _SERVER_ROW) or name in _NOT_SERVERS:
            continue
        key = (row["pxname"], name)
        errors = sum(int(row.get(column) or 0) for column in _ERRORS)
        result[key] = Load(row["status"], int(row["scur"] or 0), int(row["qcur"] or 0), errors)
    return result


def parse_servers_state(text: str) -> dict[Key, AdminState]:
    """Parse ``show servers state``, or a file of it; ValueError when it is something else."""
    lines = _table(text, "# be_id")
    columns = lines[0].split()
    result = {}
    for line in lines[1:]:
        row = dict(zip(columns, line.split()))
        try:
            result[(row["be_name"], row["srv_name"])] = AdminState(
                int(row["srv_admin_state"]), int(row["srv_uweight"]), int(row["srv_iweight"])
            )
        except KeyError as error:
            raise ValueError(f"no column {error} in {line!r}") from error
    return result


def parse_places(text: str) -> dict[Key, tuple[str, int]]:
    """Parse each server's address and port out of ``show servers state``; ``-`` has none."""
    lines = _table(text, "# be_id")
    columns = lines[0].split()
    rows = (dict(zip(columns, line.split())) for line in lines[1:])
    return {
        (row["be_name"], row["srv_name"]): (row.get("srv_addr", "-"), int(row.get("srv_port", 0)))
        for row in rows
    }


def with_ports(text: str, places: Mapping[Key, tuple[str, int]]) -> str:
    """Return a state file's text with the ports of some servers' places."""
    columns: list[str] = []
    lines = []
    for line in text.splitlines():
        words = line.split(" ")
        if line.startswith("# be_id"):
            columns = words[1:]
        elif columns and len(words) == len(columns) and "srv_port" in columns:
            row = dict(zip(columns, words))
            place = places.get((row["be_name"], row["srv_name"]))
            if place is not None:
                words[columns.index("srv_port")] = str(place[1])
        lines.append(" ".join(words))
    return "\n".join(lines) + "\n"


def parse_proc(text: str) -> Processes:
    """Parse the master's ``show proc``; ValueError when it is something else."""
    if "# workers" not in text:
        raise ValueError(f"no list of workers in {text[:80]!r}")
    sections: dict[str, list[int]] = {}
    section = ""
    for line in text.splitlines():
        words = line.split()
        if line.startswith("# "):
            section = line[2:].strip()
        elif words and words[0].isdigit():
            sections.setdefault(section, []).append(int(words[0]))
    return Processes(tuple(sections.get("workers", ())), tuple(sections.get("old workers", ())))


def parse_sessions(text: str) -> dict[str, Key]:
    """Parse ``show sess``: backend and server by the session's id, where it has a server."""
    result = {}
    for line in text.splitlines():
        session, *words = line.split() or [""]
        fields = dict(word.partition("=")[::2] for word in words)
        if session.startswith("0x") and "be" in fields and "srv" in fields:
            result[session.rstrip(":")] = (fields["be"], fields["srv"])
    return result


def _table(text: str, head: str) -> list[str]:
    """Return a table's lines from its head, less the ``# ``, to the first empty line."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith(head):
            end = next((at for at in range(number, len(lines)) if not lines[at].strip()), None)
            return [line[2:], *lines[number + 1 : end]]
    raise ValueError(f"no line that begins with {head!r} in {text[:80]!r}")
