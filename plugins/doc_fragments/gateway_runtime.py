# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of the modules that talk to a gateway's HAProxy."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment ``hx_infra.llm.gateway_runtime``."""

    DOCUMENTATION = r"""
options:
  socket:
    description: The socket of HAProxy's runtime interface; its line needs C(level admin).
    type: path
    default: /run/haproxy/admin.sock
  master_socket:
    description:
      - The socket of HAProxy's master process (C(-S) on its command line). It is how streams are
        counted in the old workers that a reload leaves behind.
      - Empty when HAProxy runs without a master; then only the present worker is seen.
    type: str
    default: /run/haproxy-master.sock
  unit:
    description: HAProxy's systemd unit, named in messages when a socket doesn't answer.
    type: str
    default: haproxy.service
  gateway:
    description: Name of the gateway in messages. The host's own name when not given.
    type: str
  notes_file:
    description: Where it is noted who drained what.
    type: path
    default: /var/lib/hx-llm/gateway/drained.json
  routes_file:
    description: The routes as the gateway's role has rendered them; it maps models to backends.
    type: path
    default: /etc/haproxy/hx/routes.json
"""
