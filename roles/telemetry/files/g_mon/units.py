# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collector's systemd units: which of them leads, how it stands, and what is done to it.

A one-shot service is led by its timer, a long-running one leads itself. systemd is asked which it
is, so the command is right too on a host whose interval was changed since.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Callable

from .data import iso
from .settings import GMonError, Settings

# A service that keeps running is ready after its first collection, and has 20 s for its end.
ASK_SECONDS, ACT_SECONDS = 15.0, 180.0
PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "Type",
    "MainPID",
    "MemoryCurrent",
    "Result",
    "ExecMainStatus",
    "ExecMainExitTimestamp",
    "ActiveEnterTimestamp",
    "NextElapseUSecRealtime",
    "NextElapseUSecMonotonic",
)
STAMP = re.compile(r"(\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}) UTC")
RUNNING = frozenset({"active", "activating", "reloading"})
# systemd's word for a number that it doesn't have: UINT64_MAX, or this text since version 239.
NOT_SET = frozenset({"", "[not set]", str(2**64 - 1)})

Runner = Callable[[Sequence[str], float], "tuple[int, str, str]"]


def run(argv: Sequence[str], seconds: float) -> tuple[int, str, str]:
    """Run a program with a deadline; return exit status, output and error output.

    Its locale and time zone are fixed, because its output is parsed. GMonError when it can't be
    started or doesn't end.
    """
    fixed = {"LC_ALL": "C", "TZ": "UTC", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
    try:
        ended = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            env={**os.environ, **fixed},
            check=False,
        )
    except FileNotFoundError as error:
        raise GMonError(f"{argv[0]} isn't there: this host isn't run by systemd") from error
    except OSError as error:
        raise GMonError(f"{argv[0]} can't be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        message = f"{' '.join(argv[:2])} didn't end within {seconds:g} s: see journalctl -b -p err"
        raise GMonError(message) from error
    return (
        ended.returncode,
        ended.stdout.decode("utf-8", "replace"),
        ended.stderr.decode("utf-8", "replace"),
    )


@dataclass(frozen=True)
class Collector:
    """Both units as ``systemctl show`` has them, and the one that leads."""

    settings: Settings
    service: dict[str, str]
    timer: dict[str, str]

    @property
    def installed(self) -> bool:
        """Whether there is a service at all."""
        return self.service.get("LoadState") not in (None, "not-found")

    @property
    def long_running(self) -> bool:
        """Whether the service runs all the time, rather than once per sample."""
        return self.installed and self.service.get("Type") not in (None, "", "oneshot")

    @property
    def mode(self) -> str:
        """What takes samples: a timer, or the service itself."""
        return "service" if self.long_running else "timer"

    @property
    def lead(self) -> str:
        """The unit that is started and stopped."""
        return self.settings.service if self.long_running else self.settings.timer

    @property
    def leading(self) -> dict[str, str]:
        """The properties of that unit."""
        return self.service if self.long_running else self.timer

    @property
    def running(self) -> bool:
        """Whether samples are taken."""
        return self.leading.get("ActiveState") in RUNNING

    @property
    def starts_at_boot(self) -> bool:
        """Whether samples are taken after the next boot; enabled-runtime ends with this one."""
        return self.leading.get("UnitFileState") == "enabled"

    @property
    def pid(self) -> int | None:
        """The collector's process; None between samples."""
        return _number(self.service.get("MainPID")) or None

    @property
    def memory(self) -> int | None:
        """Bytes that the service's processes hold; None when none runs."""
        return _number(self.service.get("MemoryCurrent"))

    @property
    def next_sample(self) -> float | None:
        """When the timer elapses next, in seconds since 1970."""
        return None if self.long_running else parse_stamp(self.timer.get("NextElapseUSecRealtime"))

    @property
    def scheduled(self) -> bool:
        """Whether the timer has a next time, be it of the clock or counted from the boot."""
        monotonic = self.timer.get("NextElapseUSecMonotonic", "")
        return self.next_sample is not None or monotonic not in ("", "0", "infinity")

    @property
    def since(self) -> float | None:
        """Since when the leading unit is active."""
        return parse_stamp(self.leading.get("ActiveEnterTimestamp"))

    def json(self) -> dict[str, Any]:
        """Return the state under names of our own; what isn't known is null."""
        lead = self.leading
        return {
            "name": self.lead,
            "mode": self.mode,
            "load_state": lead.get("LoadState"),
            "state": lead.get("ActiveState"),
            "substate": lead.get("SubState"),
            "enabled": self.starts_at_boot,
            "enabled_state": lead.get("UnitFileState") or None,
            "pid": self.pid,
            "memory_bytes": self.memory,
            "last_result": self.service.get("Result") or None,
            "last_exit_status": _number(self.service.get("ExecMainStatus")),
            "last_end": iso(parse_stamp(self.service.get("ExecMainExitTimestamp"))),
            "active_since": iso(self.since),
            "next_start": iso(self.next_sample),
        }


def _number(text: str | None) -> int | None:
    return int(text) if text and text not in NOT_SET and text.isdigit() else None


def parse_stamp(text: str | None) -> float | None:
    """Return a time as systemctl prints it for the zone UTC, in seconds since 1970."""
    found = STAMP.search(text or "")
    if not found:
        return None
    moment = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S")
    return moment.replace(tzinfo=timezone.utc).timestamp()


def show(unit: str, runner: Runner = run) -> dict[str, str]:
    """Return a unit's properties; GMonError when systemd doesn't answer."""
    argv = ["systemctl", "show", "--no-pager", f"--property={','.join(PROPERTIES)}", unit]
    status, out, err = runner(argv, ASK_SECONDS)
    found = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    if status or "LoadState" not in found:
        raise GMonError(f"systemctl show {unit} failed: {_last_line(err or out)}")
    return found


def find(settings: Settings, runner: Runner = run) -> Collector:
    """Ask systemd for both units."""
    return Collector(settings, show(settings.service, runner), show(settings.timer, runner))


def require_installed(collector: Collector) -> None:
    """Raise GMonError when the unit that has to be steered isn't there."""
    for name, unit in (
        (collector.settings.service, collector.service),
        (collector.lead, collector.leading),
    ):
        if unit.get("LoadState") == "not-found":
            raise GMonError(
                f"{name} isn't installed: run the role hx_infra.llm.telemetry on this host"
            )


def act(verb: str, settings: Settings, now: float, runner: Runner = run) -> list[str]:
    """Start, stop, restart, enable or disable the unit that leads; return what came of it.

    GMonError without root, when systemd refuses, and when the unit isn't as wanted afterwards.
    """
    before = find(settings, runner)
    require_installed(before)
    if os.geteuid() != 0:
        raise GMonError(f"{verb} needs root, {before.lead} is the system's: sudo g-mon {verb}")
    units = [before.lead]
    if verb == "stop" and not before.long_running:
        units.append(settings.service)  # a sample may be under way
    seconds = ACT_SECONDS + settings.timeout_s
    status, out, err = runner(["systemctl", "--no-ask-password", verb, *units], seconds)
    if status:
        reason = _last_line(err or out)
        raise GMonError(f"systemctl {verb} {' '.join(units)} failed: {reason}")
    after = find(settings, runner)
    _check(verb, after)
    return _tell(verb, before, after, now)


def _check(verb: str, after: Collector) -> None:
    """Raise GMonError when systemd took the order and the unit isn't so."""
    wanted = {
        "start": after.running,
        "restart": after.running,
        "stop": not after.running,
        "enable": after.starts_at_boot,
        "disable": not after.starts_at_boot,
    }
    if not wanted[verb]:
        state = f"{after.leading.get('ActiveState')}, {after.leading.get('UnitFileState')}"
        raise GMonError(f"{after.lead} is {state} after {verb}: journalctl -u {after.lead} -n 20")


def _tell(verb: str, before: Collector, after: Collector, now: float) -> list[str]:
    name = after.lead
    if verb in ("start", "restart"):
        again = verb == "start" and before.running
        said = [f"{name} {'was running already' if again else 'is running'}."]
        if after.next_sample is not None:
            said.append(f"The next sample is due in {max(0, round(after.next_sample - now))} s.")
        if not after.starts_at_boot:
            said.append("It won't start at boot: sudo g-mon enable changes that.")
        return said
    if verb == "stop":
        said = [f"{name} {'is stopped' if before.running else 'was not running'}."]
        if after.starts_at_boot:
            said.append("It starts again at boot: sudo g-mon disable changes that.")
        return said
    if verb == "enable":
        said = [f"{name} starts at boot."]
        return said if after.running else [*said, "It isn't running now: sudo g-mon start."]
    said = [f"{name} doesn't start at boot any more."]
    return [*said, "It goes on running until then: sudo g-mon stop."] if after.running else said


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
