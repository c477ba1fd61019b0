# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prints figures for docs/performance.md; asserts nothing about time.

Needs a lab that is up (``make lab``). Every figure names what was measured and how often.

    run.py [ROUNDS]          everything
    run.py client [ROUNDS]   only the benchmark client and its peers; needs no lab
    run.py telemetry [ROUNDS]   only the GPU collector beside the users' own loop; needs no lab
    run.py store [ROUNDS]    only the model catalog and the verification of stores; needs no lab
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import client
import gateway
import store
import telemetry

ROOT = Path(__file__).resolve().parents[2]
PARTS = (["client"], ["telemetry"], ["store"])


def playbook(*arguments):
    """Run a playbook; return its wall-clock seconds and its recap for llm-01."""
    begin = time.monotonic()
    process = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), *arguments],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - begin
    if process.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{process.stdout[-4000:]}{process.stderr[-2000:]}")
    recap = re.search(r"^(?:llm-01|localhost)\s+:(.*)$", process.stdout, re.M)
    return seconds, " ".join(recap[1].split()) if recap else ""


def show(name, samples, unit, note=""):
    middle = statistics.median(samples)
    spread = f"{min(samples):.2f} .. {max(samples):.2f}"
    print(f"{name:44} {middle:8.2f} {unit:3} ({spread}, n={len(samples)}) {note}")


def main():
    arguments = sys.argv[1:]
    part = arguments.pop(0) if arguments[:1] in PARTS else ""
    if part == "client":
        client.main(rounds=int(arguments[0]) if arguments else 1)
        return
    runs = int(arguments[0]) if arguments else 3
    if part:
        {"telemetry": telemetry, "store": store}[part].main(runs, show)
        return
    reset, first, check, second = [], [], [], []
    notes = {}
    for _turn in range(runs):
        seconds, _recap = playbook("tests/lab/reset.yml", "-e", "lab_only=llm-01")
        reset.append(seconds)
        playbook("playbooks/gateway.yml")
        seconds, notes["check"] = playbook("playbooks/remediate.yml", "-l", "llm-01", "--check")
        check.append(seconds)
        seconds, notes["first"] = playbook("playbooks/remediate.yml", "-l", "llm-01")
        first.append(seconds)
        seconds, notes["second"] = playbook("playbooks/remediate.yml", "-l", "llm-01")
        second.append(seconds)
    print(f"{os.cpu_count()} cores, {runs} rounds, median (min .. max)")
    show("bring llm-01's drift back", reset, "s")
    show("remediate --check, drifted host", check, "s", notes["check"])
    show("remediate, drifted host", first, "s", notes["first"])
    show("remediate, healthy host", second, "s", notes["second"])
    ratio = statistics.median(second) / statistics.median(first)
    print(f"healthy host / drifted host: {ratio:.2f}")
    moved = []
    for path in sorted((ROOT / "runs" / "llm-01").glob("*-real/run-record.json"))[-2 * runs :]:
        data = json.loads(path.read_text()).get("data") or {}
        moved += [data["interruption"]["seconds"]] if "interruption" in data else []
    if moved:
        show("interruption by the move of the store", moved, "s", "100 MB, 38 files")
    gateway.main(runs, show)
    telemetry.main(runs, show)
    store.main(runs, show)
    client.main()


if __name__ == "__main__":
    main()
