# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).resolve().parents[1]


def _shared():
    spec = importlib.util.spec_from_file_location("scenarios", HERE.parent / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def svc_01():
    return _shared().lab_host("svc-01")


@pytest.fixture(scope="session")
def passwords():
    return yaml.safe_load((HERE / "vars" / "lab.yml").read_text())["lab_passwords"]


@pytest.fixture(scope="session")
def check(playbook):
    """Run the entry point for a list of services; returns its status and its text in one line."""

    def run(services, *arguments, target="svc-01"):
        declared = json.dumps({"target": target, "llm_integrations": services})
        ended = playbook("playbooks/check_integrations.yml", "-e", declared, *arguments)
        return ended.returncode, " ".join((ended.stdout + ended.stderr).split())

    return run
