# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Checking a Prometheus server over its HTTP API."""

from __future__ import annotations

import urllib.parse
from typing import Any

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
    """Read readiness, version and the declared targets; what is learnt goes to ``found``."""
    headers, credentials = user_or_bearer(wanted)
    client = Client(wanted, dial, found, headers)
    ready = client.get("/-/ready")
    if ready.locked:
        raise client.locked_out(ready, credentials)
    if ready.status not in (200, 503):
        raise client.not_this(ready)
    build = client.get("/api/v1/status/buildinfo", "version")
    if build.locked:
        raise client.locked_out(build, credentials)
    if ready.status == 503:
        text = f"the server is not ready ({ready.said})"
        remedy = "It reads its log after a start: wait. Otherwise see the server's log."
        raise IntegrationError("ready", text, remedy, "not_ready")
    found.version = build.field("data", "version")
    if not found.version:
        raise client.not_this(build)
    found.authenticated = credentials or "without credentials"
    if credentials:
        bare = client.get("/-/ready", "authenticated", credentials=False)
        found.unasked = bare.status == 200
    found.answer_ms = ready.took_ms
    found.ready = "GET /-/ready answers"
    if wanted.job:
        query = urllib.parse.urlencode({"query": up_query(wanted)})
        found.more.append(targets_verdict(wanted, client.get(f"/api/v1/query?{query}", "ready")))


def up_query(wanted: Wanted) -> str:
    """Return the query for the state of the declared targets."""
    labels = [f'job="{_quoted(wanted.job)}"']
    if wanted.instance:
        labels.append(f'instance="{_quoted(wanted.instance)}"')
    return f"up{{{','.join(labels)}}}"


def targets_verdict(wanted: Wanted, reply: Reply) -> Verdict:
    """Judge whether the declared targets are scraped."""
    query = up_query(wanted)
    samples = targets(reply.json())
    if reply.status != 200 or samples is None:
        return Verdict("targets_up", FAIL, "", reply.said, "an answer to the query", "", query)
    down = sorted(name for name, up in samples.items() if not up)
    if not samples:
        remedy = f"{query}; add the target to Prometheus' scrape_configs"
        return Verdict("targets_up", FAIL, "", "no such target", "at least one", "", remedy)
    if down:
        remedy = f"{query}; see the exporters on these hosts"
        text = f"{len(down)} of {len(samples)} down: {', '.join(down)}"
        return Verdict("targets_up", FAIL, "", text, "all up", "", remedy)
    return Verdict("targets_up", PASS, "", f"all {len(samples)} up", None, "", query)


def targets(answer: Any) -> dict[str, bool] | None:
    """Return the targets of an answer and whether each is up; ``None`` when it is no answer."""
    try:
        return {
            printable(str(sample["metric"].get("instance", "?"))): str(sample["value"][1]) == "1"
            for sample in answer["data"]["result"]
        }
    except (KeyError, IndexError, TypeError, AttributeError):
        return None


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
