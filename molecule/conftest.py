# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the scenarios' testinfra suites share: the lab's hosts, reached through the engine."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import testinfra
from testinfra.backend import get_backend_class

ROOT = Path(__file__).resolve().parent.parent
ENGINE = subprocess.run(
    [ROOT / "tests" / "lab" / "engine.sh"], check=True, capture_output=True, text=True
).stdout.strip()


ENTER = ROOT / "tests" / "lab" / "enter.sh"


def run(backend, command, *args, **_options):
    """Run a command on a lab host; the engine itself takes three times as long to get there."""
    text = backend.get_command(command, *args)
    done = backend.run_local("%s %s %s /bin/sh -c %s", str(ENTER), ENGINE, backend.name, text)
    done.command = backend.encode(text)
    return done


get_backend_class(ENGINE).run = run


def lab_host(name):
    return testinfra.get_host(f"{ENGINE}://hx-llm-lab-{name}")


@pytest.fixture(scope="session")
def llm_01():
    return lab_host("llm-01")


@pytest.fixture(scope="session")
def llm_02():
    return lab_host("llm-02")


@pytest.fixture(scope="session")
def api():
    """Call an engine's API on its own host: ``api(host, "/api/tags")`` returns the JSON."""

    def call(host, path, data=None):
        arguments = ["curl", "--silent", "--fail", "--max-time", "30"]
        if data is not None:
            arguments += ["--data", json.dumps(data)]
        command = " ".join(f"'{argument}'" for argument in arguments)
        answer = host.run(f"{command} http://127.0.0.1:11434{path}")
        assert answer.rc == 0, answer
        return json.loads(answer.stdout)

    return call


@pytest.fixture(scope="session")
def playbook():
    """Run a playbook against the lab's inventory; returns the finished process."""

    def run(*arguments, cwd=ROOT, **environment):
        return subprocess.run(
            ["ansible-playbook", *arguments],
            cwd=cwd,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_FORCE_COLOR": "false",  # suites read what it says
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    return run
