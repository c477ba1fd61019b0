# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run a command: wall clock, CPU of its whole process tree, peak memory (PSS) and processes.

client_measure.py SECONDS LOG -- COMMAND...   prints one JSON object

It adopts what the command leaves behind, so that daemons count, and ends those at the end.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
INTERVAL_S = 0.1


def tree():
    """Return the processes below this one."""
    children = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (folder / "stat").read_text()
                parent = int(stat[stat.rindex(")") + 2 :].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    found, todo = [], [os.getpid()]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def memory_mb(processes):
    """Return the proportional set size: shared pages count once."""
    total = 0
    for process in processes:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def end(number):
    for process in tree():
        with contextlib.suppress(OSError):
            os.kill(process, number)


def main():
    seconds, log, argv = float(sys.argv[1]), sys.argv[2], sys.argv[4:]
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    begin = time.monotonic()
    with open(log, "wb") as output:
        child = subprocess.Popen(argv, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    peak = count = 0
    timed_out = False
    while child.poll() is None:
        processes = tree()
        peak, count = max(peak, memory_mb(processes)), max(count, len(processes))
        if time.monotonic() - begin > seconds:
            timed_out = True
            end(signal.SIGKILL)
        time.sleep(INTERVAL_S)
    wall = time.monotonic() - begin
    end(signal.SIGTERM)
    time.sleep(INTERVAL_S)
    end(signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {"rc": child.returncode, "timed_out": timed_out, "wall_s": wall}
    found |= {"cpu_s": used.ru_utime + used.ru_stime, "pss_mb": peak, "processes": count}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
