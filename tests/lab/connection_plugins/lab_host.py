# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reach a lab host through tests/lab/enter.sh, where community.docker.docker runs `docker exec`."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.community.docker.plugins.connection import docker

DOCUMENTATION = """
name: lab_host
short_description: Run tasks in a container of the lab
description: As P(community.docker.docker#connection) does, at less cost.
author: hx_infra.llm contributors (@hx-infra)
options:
  remote_addr:
    description: Name of the container.
    vars:
      - name: ansible_host
  remote_user:
    description: Nobody but root.
  docker_extra_args:
    description: Arguments of the engine.
    default: ""
  container_timeout:
    description: Seconds to wait for output.
    type: integer
    default: 10
"""

ENTER = Path(__file__).resolve().parent.parent / "enter.sh"


class Connection(docker.Connection):
    """The connection to a container that nobody asks the engine to enter."""

    transport = "lab_host"

    def _build_exec_cmd(self, cmd):
        return [str(ENTER), self.docker_cmd, self.get_option("remote_addr"), *cmd]
