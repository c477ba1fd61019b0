# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the collector's unit hides from it: processes that an earlier run has left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

READER = Path(__file__).resolve().parents[2] / "roles" / "telemetry" / "files" / "gpu_reader.py"
# An account that may read neither this checkout nor this test's folder: programs come as text.
ACCOUNT = ["setpriv", "--reuid=61234", "--regid=61234", "--clear-groups", "unshare", "--user"]
PYTHON = [os.path.realpath(sys.executable), "-I", "-c"]
# As PrivateUsers=yes, ProtectProc=invisible and User= have it.
SANDBOX = ["unshare", "--mount", "sh", "-c",
           'mount -t proc -o hidepid=invisible proc /proc && exec "$@"', "sh"]  # fmt: skip
LOOK = """
import os, sys
found = {"__file__": "/gpu_reader.py", "__name__": "gpu_reader"}
exec(sys.stdin.read(), found)
left = found["Left"](int(sys.argv[1]), sys.argv[2])
print(os.path.exists(f"/proc/{left.pid}"), left.is_there())
"""


def look(pid, start):
    """Return whether a later run sees the process, and what it takes it for."""
    argv = [*SANDBOX, *ACCOUNT, *PYTHON, LOOK, str(pid), start]
    done = subprocess.run(
        argv, input=READER.read_text(), capture_output=True, text=True, check=True, cwd="/"
    )
    return [word == "True" for word in done.stdout.split()]


@pytest.fixture
def left():
    """Leave a process of an earlier run behind; returns it with its start."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("setpriv", "unshare"))):
        pytest.skip("namespaces and another account take root, setpriv and unshare")
    if subprocess.run([*SANDBOX, *ACCOUNT, *PYTHON, ""], check=False, cwd="/").returncode:
        pytest.skip("no such sandbox can be made here")
    argv = [*ACCOUNT, *PYTHON, "import time; print(flush=True); time.sleep(60)"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd="/") as child:
        child.stdout.readline()
        yield child, Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        child.kill()


def test_a_child_that_an_earlier_run_has_left_is_known_though_it_is_hidden(left):
    child, start = left
    assert look(child.pid, start) == [False, True]
    child.kill()
    child.wait()
    assert look(child.pid, start) == [False, False]


def test_another_accounts_process_is_not_taken_for_it(left):
    _child, start = left
    assert look(os.getpid(), start) == [False, False]
