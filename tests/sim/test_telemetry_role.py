# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role telemetry, as far as it needs no systemd."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
ACCOUNT = "hxmon-of-the-test"
PARTS = "telemetry_account,telemetry_install,telemetry_g_mon"
PROGRAMS = [{"src": "gpu_files.py", "dest": "gpu_files.py"}]  # one tells as much as all
# Stand-ins for python3 -m venv and for pip: they make files as their umask has it.
SIM_PYTHON = """#!/bin/sh
mkdir -p "$3/bin" && cp "$0.pip" "$3/bin/pip" && chmod +x "$3/bin/pip"
"""
SIM_PIP = """#!/bin/sh
mkdir -p "${0%/bin/pip}/lib" && touch "${0%/bin/pip}/lib/package.py"
"""
# The mounts end with the processes; the account's program stays at work in them.
INSIDE = r"""
set -e
mount --make-rprivate /
mount --bind "$1" /etc
id "$2" >/dev/null 2>&1 || useradd --system --shell /bin/false "$2"
setpriv --reuid="$2" --regid="$2" --clear-groups sleep 300 &
trap 'kill $!' EXIT
shift 2
umask 077
"$@"
"""


def way_through(top, name):
    """Return whether every account gets from a folder to a file below it, and can read that."""
    path = top / name
    folders = [folder for folder in path.parents if top in folder.parents]
    return bool(path.stat().st_mode & 0o004) and all(
        folder.stat().st_mode & 0o001 for folder in folders
    )


ENV = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}


def command(folder, tasks):
    """Write a playbook for a host whose files are in a folder; return the line that runs it."""
    (folder / "play.yml").write_text(
        json.dumps([{"hosts": "llm-02", "gather_facts": False, "tasks": tasks}])
    )
    hosts = f"llm-02 ansible_connection=local ansible_python_interpreter={sys.executable}\n"
    (folder / "hosts").write_text(hosts)
    return [str(PLAYBOOK), "-i", str(folder / "hosts"), str(folder / "play.yml")]


def role(tasks_from="main", **variables):
    """Return the task that enters the role."""
    entered = {"name": "hx_infra.llm.telemetry", "tasks_from": tasks_from}
    return {"name": "Run", "ansible.builtin.import_role": entered, "vars": variables}


class Host:
    """A hardened host with a copy of this machine's accounts, in a folder.

    Everything runs as root in a mount namespace, so that accounts can be made.
    """

    def __init__(self, folder):
        self.folder = folder
        self.etc = folder / "etc"
        subprocess.run(["cp", "-a", "/etc", str(self.etc)], check=True)
        for name, text in (("python", SIM_PYTHON), ("python.pip", SIM_PIP)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        self.alias = folder / "Run"

    def account(self):
        """Return the account's line, from its home on."""
        (line,) = re.findall(rf"^{ACCOUNT}:.*$", (self.etc / "passwd").read_text(), re.M)
        return line.split(":")[5:]

    def inside(self, *argv):
        """Run a program while one of the account's is at work."""
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", INSIDE, "sh", str(self.etc), ACCOUNT, *argv],
            cwd=ROOT,
            env=ENV,
            capture_output=True,
            text=True,
            check=False,
        )

    def play(self):
        """Run the role's parts; return how many tasks changed, and the output in one line."""
        given = {
            "telemetry_user": ACCOUNT,
            "telemetry_group": ACCOUNT,
            "telemetry_python": str(self.folder / "python"),
            "telemetry_venv": str(self.folder / "opt" / "venv"),
            "telemetry_lib_dir": str(self.folder / "opt" / "lib" / "telemetry"),
            "telemetry_data_dir": str(self.folder / "node" / "logs" / "gpu"),
            "telemetry_textfile_dir": str(self.folder / "var" / "hxmon" / "textfile"),
            "telemetry_g_mon_path": str(self.folder / "g-mon"),
            "telemetry_g_mon_alias": str(self.alias),
        }
        argv = command(self.folder, [role(**given)])
        fewer = json.dumps({"__telemetry_programs": PROGRAMS})
        done = self.inside(*argv, "--tags", PARTS, "-e", fewer)
        assert done.returncode == 0, done.stdout + done.stderr
        changed = re.search(r"changed=(\d+)", done.stdout)[1]
        return int(changed), " ".join(done.stdout.split())


@pytest.fixture
def host(tmp_path):
    tools = ("unshare", "setpriv", "useradd", "usermod")
    if os.geteuid() != 0 or not all(map(shutil.which, tools)):
        pytest.skip("accounts in a namespace of their own take root")
    found = Host(tmp_path)
    if found.inside("true").returncode:
        pytest.skip("no such namespace can be made here")
    return found


def test_an_account_at_work_and_a_hardened_umask(host):
    host.alias.write_text("#!/bin/sh\n# the operators' own\n")
    home = host.account()[0]
    changed, said = host.play()
    assert changed > 0
    assert host.account() == [home, "/usr/sbin/nologin"]
    for name in ("opt/venv/bin/pip", "opt/venv/lib/package.py", "opt/lib/telemetry/gpu_files.py"):
        assert way_through(host.folder, name), name
    for name in ("node/logs/gpu/file", "var/hxmon/textfile/file"):
        (host.folder / name).touch(0o644)
        assert way_through(host.folder, name), name
    assert f"llm-02: {host.alias} is another program and stays, wanted: a link to" in said
    assert "the operators' own" in host.alias.read_text()

    host.alias.unlink()
    changed, said = host.play()
    assert changed == 1  # the link, and nothing a second time
    assert host.alias.readlink() == host.folder / "g-mon"
    assert "is another program" not in said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "not there"),
        ('hx_infra_gpu_collect_state{state="timeout"} 1.0\n', "timeout"),
    ],
)
def test_what_does_not_work_is_named(tmp_path, text, told):
    if text:
        (tmp_path / "gpu_telemetry.prom").write_text(text)
    given = {"telemetry_textfile_dir": str(tmp_path), "telemetry_data_dir": "/srv/gpu"}
    done = subprocess.run(
        command(tmp_path, [role("verify", **given)]),
        cwd=ROOT,
        env=ENV,
        capture_output=True,
        text=True,
        check=False,
    )
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2, said
    assert (
        f"the latest collection in {tmp_path}/gpu_telemetry.prom is {told}, wanted: ok. "
        "See /srv/gpu/nvidia-smi-ping.events." in said
    )
