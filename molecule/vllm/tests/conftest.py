# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the scenario's suite needs: the host, its service and ways to run the playbooks."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path

import pytest
import testinfra
import yaml

ROOT = Path(__file__).resolve().parents[3]
DECLARED = yaml.safe_load((ROOT / "molecule/vllm/vars/declared.yml").read_text(encoding="utf-8"))
ENGINE = subprocess.run(
    [ROOT / "tests" / "lab" / "engine.sh"], check=True, capture_output=True, text=True
).stdout.strip()


def adhoc(host, module, options):
    """Run one module on a lab host."""
    return subprocess.run(
        ["ansible", host, "-i", "inventories/lab", "--become", "-m", module, "-a", options],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )


class Vllm:
    """The service `tiny` on the host llm-03."""

    unit = "citadel-llm@tiny"
    key = DECLARED["llm_vllm_api_key"]
    config = "/opt/citadel/config/vllm/tiny.yaml"
    release = "/opt/citadel/services/tiny/release"

    def __init__(self):
        self.host = testinfra.get_host(f"{ENGINE}://hx-llm-lab-llm-03")

    def show(self, name, unit=None):
        """Return one of the unit's properties."""
        return self.host.check_output("systemctl show %s -p %s --value", unit or self.unit, name)

    def target(self):
        """Return where the service's link leads to."""
        return self.host.check_output("readlink %s", self.release)

    def processes(self):
        """Return command line by process of the unit's control group."""
        script = (
            "for p in $(cat '/sys/fs/cgroup/systemd%s/cgroup.procs' '/sys/fs/cgroup%s/cgroup.procs'"
            " 2>/dev/null); do echo $p $(tr '\\0' ' ' </proc/$p/cmdline); done"
        )
        group = self.show("ControlGroup")
        lines = self.host.check_output(script % (group, group)).splitlines()
        return {int(line.split()[0]): line.partition(" ")[2] for line in lines if line.split()[1:]}

    def curl(self, path, data=None, key=key, extra=""):
        """Return status and body of a request from the host itself; the key isn't an argument."""
        body = f"--data '{json.dumps(data)}' -H 'Content-Type: application/json'" if data else ""
        header = f"-H @- <<<'Authorization: Bearer {key}'" if key else ""
        run = self.host.run(
            f"bash -c \"$(cat <<'EOF'\ncurl -sS --max-time 60 -w '\\n%{{http_code}}' {extra} {body}"
            f' http://127.0.0.1:8001{path} {header}\nEOF\n)"'
        )
        text, _newline, status = run.stdout.rpartition("\n")
        assert status.isdigit(), run
        return int(status), text


@pytest.fixture(scope="session")
def vllm():
    """The service; skipped where the wheels can't be had."""
    if not (ROOT / "build" / "lab" / "wheelhouse-vllm.stamp").exists():
        pytest.skip("the wheels of vLLM's CPU build can't be had on this machine")
    return Vllm()


@pytest.fixture(scope="session")
def declared():
    """Return a copy of the scenario's declaration, to change parts of it."""
    return lambda: copy.deepcopy(DECLARED)


@pytest.fixture(scope="session")
def bring(playbook, vllm):
    """Run the playbook vllm.yml, or another, with a declaration; returns the finished process."""

    def run(declaration, *arguments, name="vllm"):
        given = {**declaration, "llm_gateway": False}
        return playbook(
            f"playbooks/{name}.yml",
            "--limit=llm-03",
            "--inventory=inventories/lab",
            f"--extra-vars={json.dumps(given)}",
            *arguments,
        )

    return run
