# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Simulates systemctl and journalctl for the collector's two units, with their state in a file.

Called as ``systemctl`` or ``journalctl`` by a small script on the PATH. ``SIM_SYSTEMD`` names the
state: a JSON object with ``units`` (name to properties), ``calls`` (what was asked), and, to play
faults, ``refuse`` (verb to message), ``ignore`` (verbs that do nothing), ``hang`` (verbs), and
``row`` (a line that a one-shot service adds to ``csv``, in place of TIME the time).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

STATE = Path(os.environ["SIM_SYSTEMD"])


def stamp(seconds: float) -> str:
    """Return a time as systemctl prints it."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%a %Y-%m-%d %H:%M:%S UTC")


def show(state: dict, words: list[str]) -> int:
    wanted = next(word for word in words if word.startswith("--property=")).split("=", 1)[1]
    assert os.environ["TZ"] == "UTC"
    assert os.environ["LC_ALL"] == "C"
    unit = state["units"].get(words[-1], {"LoadState": "not-found", "ActiveState": "inactive"})
    for name in wanted.split(","):
        if name in unit:
            print(f"{name}={unit[name]}")
    return 0


def act(state: dict, verb: str, names: list[str]) -> int:
    if verb in state.get("refuse", {}):
        print(state["refuse"][verb], file=sys.stderr)
        return 1
    if verb in state.get("ignore", []):
        return 0
    for name in names:
        unit = state["units"][name]
        if verb == "stop":
            unit.update(ActiveState="inactive", SubState="dead", MainPID="0")
            unit.update(NextElapseUSecRealtime="n/a")
        elif verb in ("enable", "disable"):
            unit["UnitFileState"] = f"{verb}d"
        elif unit.get("Type") == "oneshot":
            with Path(state["csv"]).open("a") as file:
                now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
                file.write(state.get("row", "").replace("TIME", now))
            unit["ExecMainExitTimestamp"] = stamp(time.time())
        else:
            unit.update(ActiveState="active", SubState="running")
            if name.endswith(".timer"):
                unit.update(SubState="waiting", NextElapseUSecRealtime=stamp(time.time() + 200))
    return 0


def systemctl(state: dict, words: list[str]) -> int:
    verb = next(word for word in words if not word.startswith("-"))
    state["calls"].append(words)
    if verb in state.get("hang", []):
        time.sleep(60)
    if verb == "show":
        return show(state, words)
    return act(state, verb, [word for word in words if not word.startswith("-")][1:])


def journalctl(state: dict, words: list[str]) -> int:
    state["calls"].append(words)
    if "journalctl" in state.get("refuse", {}):
        print(state["refuse"]["journalctl"], file=sys.stderr)
        return 1
    count = int(words[words.index("-n") + 1])
    for line in state.get("journal", [])[-count:] if count else []:
        print(line, flush=True)
    if "-f" in words:
        STATE.write_text(json.dumps(state))
        print("the journal is followed", flush=True)
        time.sleep(60)
    return 0


def main() -> int:
    """Play the program that was called."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as the real ones end
    state = json.loads(STATE.read_text())
    program, *words = sys.argv[1:]
    status = (systemctl if program == "systemctl" else journalctl)(state, words)
    STATE.write_text(json.dumps(state))
    return status


if __name__ == "__main__":
    sys.exit(main())
