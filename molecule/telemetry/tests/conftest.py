# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re

import pytest
from telemetry_host import PROFILE, Host


@pytest.fixture(scope="module")
def host(llm_02):
    return Host(llm_02)


@pytest.fixture
def gpus(host):
    """Let a test change the GPUs; they are healthy again at its end."""
    host.output(f"cp {PROFILE} {PROFILE}.kept")
    yield host.use
    host.output(f"mv {PROFILE}.kept {PROFILE}")


@pytest.fixture(scope="session")
def converge(playbook):
    """Run the role again with other variables; returns the recap's figures."""

    def run(*arguments):
        ended = playbook("-i", "inventories/lab", "molecule/telemetry/converge.yml", *arguments)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        recap = re.search(r"^llm-02 +: (.*)$", ended.stdout, re.M)[1]
        return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", recap)}

    return run
