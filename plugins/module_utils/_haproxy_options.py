# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The options that the gateway's modules share, and the connection that they describe."""

from __future__ import annotations

from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils._haproxy_socket import Runtime

RUNTIME_OPTIONS: dict[str, dict[str, Any]] = {
    "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
    "master_socket": {"type": "str", "default": "/run/haproxy-master.sock"},
    "unit": {"type": "str", "default": "haproxy.service"},
    "gateway": {"type": "str"},
    "notes_file": {"type": "path", "default": "/var/lib/hx-llm/gateway/drained.json"},
    "routes_file": {"type": "path", "default": "/etc/haproxy/hx/routes.json"},
}


def runtime_of(params: dict[str, Any], gateway: str) -> Runtime:
    """Return the runtime interface that a module's parameters name."""
    return Runtime(gateway, params["socket"], params["master_socket"], unit=params["unit"])
