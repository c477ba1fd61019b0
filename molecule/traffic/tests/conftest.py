# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gateway as HAProxy itself tells of it, and inventories that lack something."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import pytest
import testinfra
import yaml

ROOT = Path(__file__).resolve().parents[3]
LAB = ROOT / "inventories" / "lab"
ENGINE = subprocess.run(
    [ROOT / "tests" / "lab" / "engine.sh"], check=True, capture_output=True, text=True
).stdout.strip()
ASK = """
import socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect("/run/haproxy/admin.sock")
link.sendall(b"show stat\\n")
while True:
    data = link.recv(65536)
    if not data:
        break
    sys.stdout.write(data.decode())
"""


@pytest.fixture(scope="session")
def gw_01():
    return testinfra.get_host(f"{ENGINE}://hx-llm-lab-gw-01")


@pytest.fixture(scope="session")
def llm_03():
    return testinfra.get_host(f"{ENGINE}://hx-llm-lab-llm-03")


@pytest.fixture(scope="session")
def address(gw_01):
    return gw_01.run("hostname -i").stdout.split()[0]


@pytest.fixture
def servers(gw_01):
    """Return every server's row of ``show stat``, by backend and name."""

    def ask():
        answer = gw_01.run(f"python3 -c '{ASK}'")
        assert answer.rc == 0, answer
        rows = csv.DictReader(answer.stdout.removeprefix("# ").splitlines())
        return {
            f"{row['pxname']}/{row['svname']}": row
            for row in rows
            if row["pxname"].startswith("m_") and row["svname"] != "BACKEND"
        }

    return ask


@pytest.fixture
def states(servers):
    """Return the status of each server of a host, less what the health checks add to it."""

    def of(host):
        return {
            name: row["status"].split()[0] for name, row in servers().items() if f"/{host}." in name
        }

    return of


@pytest.fixture
def inventory(tmp_path):
    """Write an inventory like the lab's with other gateways; returns its folder."""

    def write(gateways):
        hosts = yaml.safe_load((LAB / "hosts.yml").read_text())
        groups = hosts["lab"]["children"]
        groups["llm_gateway"] = {
            "hosts": {name: {"ansible_host": where} for name, where in gateways.items()}
        }
        folder = tmp_path / "inventory"
        folder.mkdir()
        (folder / "hosts.yml").write_text(json.dumps(hosts))
        for name in ("group_vars", "host_vars"):
            (folder / name).symlink_to(LAB / name)
        return str(folder)

    return write


@pytest.fixture
def fault():
    """Switch a fault of a host's engine on for one test."""
    changed = []

    def write(host, **faults):
        path = "/etc/sim-ollama/config.json"
        before = host.file(path).content_string
        changed.append((host, path, before))
        text = json.dumps({**json.loads(before), "faults": faults})
        assert host.run(f"printf '%s' '{text}' >{path}.new && mv {path}.new {path}").rc == 0

    yield write
    for host, path, before in changed:
        assert host.run(f"printf '%s' '{before}' >{path}.new && mv {path}.new {path}").rc == 0
