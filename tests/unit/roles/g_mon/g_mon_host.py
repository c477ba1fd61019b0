# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host for g-mon in a directory: settings, data, and a simulated systemd."""

from __future__ import annotations

import getpass
import json
import os
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES = HERE.parents[3] / "roles" / "telemetry" / "files"
sys.path.insert(0, str(FILES))

from g_mon import settings as g_mon_settings  # noqa: E402 - found by the path above

SERVICE, TIMER = "gpu-telemetry.service", "gpu-telemetry.timer"
COLUMNS = (
    "timestamp,index,name,uuid,pci.bus_id,temperature.gpu,utilization.gpu,memory.used,"
    "memory.total,power.draw,clocks.sm,enforced.power.limit,clocks_event_reasons.active"
)
GIB = 1024**3
# What a process of its own runs, with the command line's words behind it.
PROGRAM = f"""
import sys
sys.path.insert(0, {str(FILES)!r})
from g_mon.cli import main
sys.exit(main())
"""
CARD = "NVIDIA GeForce RTX 5060 Ti"


def stamp(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def systemd_stamp(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%a %Y-%m-%d %H:%M:%S UTC")


def line(
    seconds, gpu=0, util=87, used=3411, temp=40, power="121.54", total=16311, card=CARD,
    limit="180", reasons="0x0000000000000000",
):  # fmt: skip
    """Return a line of the data without its end; memory in MiB."""
    when = seconds if isinstance(seconds, str) else stamp(seconds)
    return (
        f"{when},{gpu},{card},GPU-{gpu},00000000:0{gpu + 1}:00.0,{temp},{util},{used},{total},"
        f"{power},2745,{limit},{reasons}"
    )


class Host:
    """Everything that g-mon looks at."""

    def __init__(self, folder, interval=300):
        self.folder = folder
        self.data_dir = folder / "gpu"
        self.data_dir.mkdir()
        self.textfile = folder / "textfile" / "gpu_telemetry.prom"
        self.textfile.parent.mkdir()
        self.interval = interval
        self.reader = folder / "reader.py"
        self.settings_path = folder / "settings.json"
        self.state = folder / "systemd.json"
        self.now = int(time.time())
        self.given = {
            "host": "llm-02",
            "data_dir": str(self.data_dir),
            "textfile": str(self.textfile),
            "service": SERVICE,
            "timer": TIMER,
            "interval_seconds": interval,
            "timeout_seconds": 5,
            "user": getpass.getuser(),
            "python": sys.executable,
            "reader": str(self.reader),
            "packages": [],
        }
        self.save()
        self.units_are()
        self.metrics_are()

    def save(self, **changes):
        self.given.update(changes)
        self.settings_path.write_text(json.dumps(self.given))

    @property
    def settings(self):
        return g_mon_settings.load_settings(self.settings_path)

    def day(self, seconds):
        """Return the data file of a day."""
        return self.data_dir / f"nvidia-smi-ping-{stamp(seconds)[:10]}.csv"

    @property
    def stable(self):
        return self.data_dir / "nvidia-smi-ping.csv"

    @property
    def events(self):
        return self.data_dir / "nvidia-smi-ping.events"

    def write(self, seconds, *rows, end="\n", header=COLUMNS):
        """Add lines to the day's file and let the stable name lead to it."""
        path = self.day(seconds)
        text = "" if path.exists() else header + "\n"
        with path.open("a") as file:
            file.write(text + "\n".join(rows) + end)
        self.stable.unlink(missing_ok=True)
        self.stable.symlink_to(path.name)
        return path

    def sample(self, age=60, gpus=2, **fields):
        """Add a sample that was taken so many seconds ago."""
        seconds = self.now - age
        return self.write(seconds, *(line(seconds, gpu, **fields) for gpu in range(gpus)))

    def series(self, count=12, gpus=2, newest=60, **fields):
        """Add samples an interval apart, the last one so many seconds ago."""
        for number in reversed(range(count)):
            self.sample(newest + number * self.interval, gpus, **fields)

    def metrics_are(self, success=1, state="ok", age=60, mode=0o644):
        self.textfile.write_text(
            f"# HELP hx_infra_gpu_collect_success Whether the last collection worked.\n"
            f"hx_infra_gpu_collect_success {success}\n"
            f'hx_infra_gpu_collect_state{{state="{state}"}} 1\n'
            f"hx_infra_gpu_last_success_timestamp_seconds {self.now - age}\n"
        )
        self.textfile.chmod(mode)

    def cards_are(self, *present, **state):
        """Let the collector know a GPU per flag, which tells whether it answers."""
        cards = {
            str(number): {
                "uuid": f"GPU-{number}",
                "pci_bus_id": f"00000000:0{number + 1}:00.0",
                "index": number,
                "seen": self.now - 7 * 86400.5,
                "present": answers,
            }
            for number, answers in enumerate(present)
        }
        path = self.settings.state
        path.write_text(json.dumps({"cards": cards, "gpus": {}, **state}))
        return path

    def units_are(self, mode="timer", active=True, enabled=True, **service):
        """Set up the units as they are on a host with a timer, or with a long-running service."""
        now, state = self.now, "active" if active else "inactive"
        boot = "enabled" if enabled else "disabled"
        one = {
            "LoadState": "loaded",
            "ActiveState": state,
            "ActiveEnterTimestamp": systemd_stamp(now - 7200),
            "UnitFileState": boot,
        }
        timer = {
            **one,
            "SubState": "waiting" if active else "dead",
            "NextElapseUSecRealtime": systemd_stamp(now + 120) if active else "n/a",
            "NextElapseUSecMonotonic": "0",
        }
        unit = {
            **one,
            "SubState": "running" if active else "dead",
            "Type": "exec",
            "MainPID": "4711" if active else "0",
            "MemoryCurrent": str(12 * 1024 * 1024) if active else "[not set]",
            "Result": "success",
            "ExecMainStatus": "0",
            "ExecMainExitTimestamp": "",
        }
        if mode == "timer":
            unit.update(
                Type="oneshot",
                ActiveState="inactive",
                SubState="dead",
                UnitFileState="static",
                MainPID="0",
                MemoryCurrent="[not set]",
                ExecMainExitTimestamp=systemd_stamp(now - 60),
            )
        unit.update(service)
        units = {SERVICE: unit, TIMER: timer} if mode == "timer" else {SERVICE: unit}
        self.systemd(units={} if mode == "none" else units)

    def systemd(self, **changes):
        state = json.loads(self.state.read_text()) if self.state.exists() else {"calls": []}
        self.state.write_text(json.dumps({**state, "csv": str(self.stable), **changes}))

    def calls(self, program_verb):
        """Return the calls with this verb, without options."""
        found = json.loads(self.state.read_text())["calls"]
        plain = [[word for word in call if not word.startswith("-")] for call in found]
        return [call for call in plain if call and call[0] == program_verb]

    def reader_prints(self, *lines, tail=""):
        """Write a program in place of the reader."""
        text = "".join(f"print({json.dumps(entry)!r}, flush=True)\n" for entry in lines)
        self.reader.write_text(text + tail)

    def put_on_path(self, monkeypatch):
        """Let systemctl and journalctl be the simulated ones."""
        programs = self.folder / "bin"
        programs.mkdir()
        for name in ("systemctl", "journalctl"):
            script = programs / name
            command = f'exec "{sys.executable}" -S "{HERE / "sim_systemd.py"}" {name} "$@"'
            script.write_text(f"#!/bin/sh\n{command}\n")
            script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("SIM_SYSTEMD", str(self.state))
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
