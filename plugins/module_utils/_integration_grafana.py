# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Checking a Grafana server over its HTTP API."""

from __future__ import annotations

from ansible_collections.hx_infra.llm.plugins.module_utils._integration_http import (
    Client,
    Reply,
    user_or_bearer,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_model import (
    Found,
    IntegrationError,
    Wanted,
    printable,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_wire import Dialer
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import FAIL, PASS, Verdict


def check(wanted: Wanted, dial: Dialer, found: Found) -> None:
    """Read health, version, login and data sources; what is learnt goes to ``found``."""
    headers, credentials = user_or_bearer(wanted)
    client = Client(wanted, dial, found, headers)
    health = client.get("/api/health")
    if health.locked:
        raise client.locked_out(health, credentials)
    database = health.field("database")
    if not database:
        raise client.not_this(health)
    found.version = health.field("version")
    organisation = client.get("/api/org", "authenticated")
    # 403: known, but without the right to read the organisation, which this check doesn't need.
    if organisation.status == 401:
        raise client.locked_out(organisation, credentials)
    if database == "ok" and organisation.status not in (200, 403):
        text = f"whether the login is accepted can't be read ({organisation.said})"
        raise IntegrationError("authenticated", text, "See Grafana's log.", "server_error")
    found.authenticated = credentials or "without credentials"
    if credentials:
        bare = client.get("/api/org", "authenticated", credentials=False)
        found.unasked = bare.status == 200
    if database != "ok" or health.status != 200:
        text = f"its database is {database} ({health.said})"
        raise IntegrationError("ready", text, "See Grafana's log and its database.", "not_ready")
    found.answer_ms = health.took_ms
    found.ready = "GET /api/health: the database is ok"
    if wanted.datasources:
        reply = client.get("/api/datasources", "ready")
        found.more.append(datasources_verdict(wanted, reply))


def datasources_verdict(wanted: Wanted, reply: Reply) -> Verdict:
    """Judge whether the declared data sources are there."""
    limit = ", ".join(wanted.datasources)
    listed = reply.json()
    if reply.status != 200 or not isinstance(listed, list):
        remedy = "give the account the right to read data sources"
        return Verdict("datasources", FAIL, "", reply.said, limit, "", remedy)
    names = {str(entry.get("name", "")) for entry in listed if isinstance(entry, dict)}
    missing = [name for name in wanted.datasources if name not in names]
    if missing:
        there = ", ".join(sorted(printable(name) for name in names)) or "none"
        text = f"without {', '.join(missing)}"
        return Verdict("datasources", FAIL, "", text, limit, "", f"there are: {there}")
    return Verdict("datasources", PASS, "", f"all {len(wanted.datasources)} there", None, "", limit)
