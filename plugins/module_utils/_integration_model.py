# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""What is declared of an integration, what a check found, and what went wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._errors import HostError
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import Verdict

NAMES = {
    "postgresql": "PostgreSQL",
    "redis": "Redis",
    "qdrant": "Qdrant",
    "prometheus": "Prometheus",
    "grafana": "Grafana",
}
PORTS = {"postgresql": 5433, "redis": 6379, "qdrant": 6333, "prometheus": 9090, "grafana": 3000}
GRPC_PORT = 6334
CHECKS = ("reachable", "authenticated", "version", "ready")

_VERSION = re.compile(r"\d+(?:\.\d+)*")


class IntegrationError(HostError):
    """A check that failed, and which one.

    Args:
        check: the check that fails by it, one of ``CHECKS``.
        message: what was found.
        remedy: what the operator can look at.
        cause: a word for the kind of failure, such as ``refused`` or ``password``.
    """

    def __init__(self, check: str, message: str, remedy: str = "", cause: str = "") -> None:
        super().__init__(message, remedy)
        self.check = check
        self.cause = cause


@dataclass(frozen=True)
class Wanted:
    """One integration as the inventory declares it; the password never shows in its text."""

    kind: str
    host: str
    name: str = ""
    port: int = 0
    tls: bool = False
    validate_certs: bool = True
    ca_path: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    database: str = ""
    version_min: str = ""
    version_max: str = ""
    required: bool = True
    path: str = ""
    grpc_port: int = GRPC_PORT
    job: str = ""
    instance: str = ""
    datasources: tuple[str, ...] = ()
    timeout: float = 5.0

    @property
    def service(self) -> str:
        """Name of the kind of service, as people write it."""
        return NAMES[self.kind]

    @property
    def place(self) -> str:
        """Host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass
class Found:
    """What a check learnt, filled in step by step; empty where it didn't get that far."""

    address: str = ""
    tls: str = ""
    connect_ms: float | None = None
    answer_ms: float | None = None
    authenticated: str = ""
    unasked: bool = False
    version: str = ""
    ready: str = ""
    role: str = ""
    trouble: IntegrationError | None = None
    more: list[Verdict] = field(default_factory=list)


def wanted_from(entry: dict[str, Any], timeout: float) -> Wanted:
    """Make the declaration of one integration from a module's option."""
    given = {key: value for key, value in entry.items() if value is not None}
    given.pop("password_file", None)
    given["name"] = given.get("name") or given["kind"]
    given["port"] = given.get("port") or PORTS[given["kind"]]
    given["datasources"] = tuple(given.get("datasources", ()))
    return Wanted(**given, timeout=timeout)


def problems(entries: list[dict[str, Any]]) -> list[str]:
    """Return what is wrong with a declaration as a whole; each with field, found and wanted."""
    found = []
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        field_name = f"integrations[{index}]"
        name = entry.get("name") or entry["kind"]
        if name in seen:
            found.append(f"{field_name}.name: found {name!r} twice, wanted a name of its own")
        seen.add(name)
        if entry.get("password") and entry.get("password_file"):
            found.append(f"{field_name}: found password and password_file, wanted one of them")
        if entry["kind"] == "postgresql" and not entry.get("user"):
            found.append(f"{field_name}.user: found nothing, wanted the account for PostgreSQL")
        for key in ("version_min", "version_max"):
            if entry.get(key) and not _VERSION.fullmatch(entry[key]):
                found.append(
                    f"{field_name}.{key}: found {entry[key]!r}, wanted digits such as 15.4"
                )
        for key in ("port", "grpc_port"):
            if entry.get(key) is not None and not 0 <= entry[key] <= 65535:
                found.append(f"{field_name}.{key}: found {entry[key]}, wanted 1 to 65535")
        if entry.get("path") and not entry["path"].startswith("/"):
            found.append(f"{field_name}.path: found {entry['path']!r}, wanted '/' at its beginning")
    return found


def version_key(text: str) -> tuple[int, ...]:
    """Return the numbers at the beginning of a version; empty when there are none."""
    match = _VERSION.match(text.strip().lstrip("v"))
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def version_fits(found: str, least: str, most: str) -> bool:
    """Say whether a version lies within both limits; ``most`` = 15 takes in every 15.x."""
    have = version_key(found)
    if not have:
        return not (least or most)
    low, high = version_key(least), version_key(most)
    width = max(len(have), len(low))
    padded = have + (0,) * (width - len(have))
    if padded < low:
        return False
    return not high or padded[: len(high)] <= high


def printable(text: str | bytes, limit: int = 160) -> str:
    """Return a server's text in one short line that no terminal trips over."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    line = " ".join(text.split())
    line = "".join(char if char.isprintable() else "?" for char in line)
    return line if len(line) <= limit else f"{line[: limit - 3]}..."
