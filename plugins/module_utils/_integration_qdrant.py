# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Checking a Qdrant server: its HTTP API, and that its gRPC port speaks HTTP/2."""

from __future__ import annotations

import struct

from ansible_collections.hx_infra.llm.plugins.module_utils._integration_http import Client
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_model import (
    Found,
    IntegrationError,
    Wanted,
    printable,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._integration_wire import Dialer
from ansible_collections.hx_infra.llm.plugins.module_utils._verdict import FAIL, PASS, Verdict

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = 4
EMPTY_SETTINGS = struct.pack("!HBBBI", 0, 0, SETTINGS, 0, 0)


def check(wanted: Wanted, dial: Dialer, found: Found) -> None:
    """Read version, collections and readiness; what is learnt goes to ``found``."""
    key = {"api-key": wanted.password} if wanted.password else {}
    client = Client(wanted, dial, found, key)
    root = client.get("/")
    if root.locked:
        raise client.locked_out(root, "API key")
    if "qdrant" not in root.field("title").lower():
        raise client.not_this(root)
    found.version = root.field("version")
    if wanted.grpc_port:
        found.more.append(grpc_verdict(wanted, dial))
    listed = client.get("/collections", "authenticated")
    if listed.locked:
        raise client.locked_out(listed, "API key")
    found.authenticated = "API key" if wanted.password else "without an API key"
    if wanted.password and listed.status == 200:
        bare = client.get("/collections", "authenticated", credentials=False)
        found.unasked = bare.status == 200
    ready = client.get("/readyz", "ready")
    for reply in (ready, listed):
        if reply.status != 200:
            text = f"the server is not ready ({reply.said})"
            raise IntegrationError(
                "ready", text, "See the server's log and its shards.", "not_ready"
            )
    found.answer_ms = ready.took_ms
    found.ready = "GET /readyz answers"


def grpc_verdict(wanted: Wanted, dial: Dialer) -> Verdict:
    """Judge whether the gRPC port speaks HTTP/2; gRPC itself isn't spoken."""
    place = f"{wanted.host}:{wanted.grpc_port}"
    limit = f"Qdrant's gRPC on {place}"
    try:
        took = _greet(wanted, dial)
    except IntegrationError as trouble:
        remedy = trouble.remedy or "Correct grpc_port; 0 leaves it out."
        return Verdict("grpc_reachable", FAIL, "", trouble.message, limit, "", remedy)
    evidence = f"{place} answers HTTP/2 with SETTINGS"
    return Verdict("grpc_reachable", PASS, "", took, None, "ms", evidence)


def _greet(wanted: Wanted, dial: Dialer) -> float:
    if dial.context is not None:
        dial.context.set_alpn_protocols(["h2"])
    try:
        wire, _address, took = dial.open(wanted.grpc_port, tls=wanted.tls)
    finally:
        if dial.context is not None:
            dial.context.set_alpn_protocols(["http/1.1"])
    try:
        wire.step("reachable", "HTTP/2's answer on the gRPC port")
        wire.send(PREFACE + EMPTY_SETTINGS)
        head = wire.exactly(9)
    finally:
        wire.close()
    if not is_settings(head):
        text = f"the answer {printable(repr(head))} is not HTTP/2's"
        raise IntegrationError(
            "reachable", text, "Correct grpc_port; 0 leaves it out.", "wrong_service"
        )
    return took


def is_settings(head: bytes) -> bool:
    """Say whether a frame's header is that of the server's first settings."""
    high, low, kind, flags, stream = struct.unpack("!BHBBI", head)
    return kind == SETTINGS and flags == 0 and stream == 0 and (high * 65536 + low) % 6 == 0
