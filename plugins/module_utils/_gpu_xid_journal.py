# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Reads the driver's Xid messages from the kernel's journal; a text that stands alone.

The standard library is all that it needs: the telemetry installs it beside ``gpu_xid_history.py``.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any, Callable

CHUNK = 65536
LINE_LIMIT = 1 << 20  # bytes; a longer line is no kernel message
STDERR_TAIL = 4096
REAP_S = 2.0
DAY_S = 86400
TEXT_LIMIT = 200

# Printed by krcReportXid_IMPL in src/nvidia/src/kernel/gpu/rc/kernel_rc.c of NVIDIA's open kernel
# modules; drivers before the 300 branch left "PCI:" out.
_XID = re.compile(
    r"NVRM: Xid \((?:PCI:)?(?P<pci>[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2})[^)]*\): "
    r"(?P<xid>\d+)(?:,[ ]?(?P<rest>.*))?",
    re.DOTALL,
)
_PROCESS = re.compile(
    r"pid='?(?:(?P<pid>\d+)|<unknown>)'?(?:, name=(?P<name>[^,]*))?(?:,\s?|$)(?P<text>.*)",
    re.DOTALL,
)
# A card that is gone before the driver's probe is logged without a number, as one record of three
# lines (nv_printf in RmProbe, osinit.c); it is what Xid 79 says.
_FALLEN = re.compile(
    r"NVRM: The NVIDIA GPU (?P<pci>[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2})\.[0-9a-fA-F].*"
    r"fallen off the bus",
    re.DOTALL,
)
_FALLEN_XID = 79
# journalctl writes a message that is no clean text as a list of bytes; this is "NVRM" in it.
_NVRM = re.compile(rb"NVRM|78,\s*86,\s*82,\s*77\b")
_NO_GREP = "without pattern matching"
_NOT_ALLOWED = ("not seeing messages", "insufficient permissions", "No journal files were found")

Event = dict[str, Any]


class JournalError(Exception):
    """The journal can't be read; the text says why."""


@dataclass
class Reading:
    """What was read from the journal.

    Attributes:
        events: the Xid events, the oldest first.
        cursor: the last message that was read, where the next reading goes on; empty without one.
        complete: false when the deadline came first; the events up to ``cursor`` are there.
    """

    events: list[Event] = field(default_factory=list)
    cursor: str = ""
    complete: bool = True


def pci_bus_id(address: str) -> str:
    """Return an address of the kernel log (``0000:01:00``) as NVML spells it."""
    domain, bus, device = address.partition(".")[0].split(":")
    return f"{int(domain, 16):08X}:{bus.upper()}:{device.upper()}.0"


def parse_message(message: str) -> Event | None:
    """Return what a kernel message says of an Xid; None when it says nothing of one."""
    match = _XID.search(message)
    if match is None:
        fallen = _FALLEN.search(message)
        if fallen is None:
            return None
        text = "GPU has fallen off the bus (logged without an Xid)"
        return {"pci_bus_id": pci_bus_id(fallen["pci"]), "xid": _FALLEN_XID, "text": text}
    event: Event = {"pci_bus_id": pci_bus_id(match["pci"]), "xid": int(match["xid"])}
    rest = match["rest"] or ""
    process = _PROCESS.match(rest)
    if process is not None:
        rest = process["text"]
        if process["pid"]:
            event["pid"] = int(process["pid"])
        if process["name"] and process["name"] != "<unknown>":
            event["process"] = _printable(process["name"])
    event["text"] = _printable(rest)[:TEXT_LIMIT]
    return event


def _printable(text: str) -> str:
    """Return a text on one line; any program names itself as it likes, with escape codes too."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))


def event_from_line(line: bytes) -> Event | None:
    """Return the event in a line of ``journalctl -o json``; None for any other line."""
    if not _NVRM.search(line):
        return None
    try:
        entry = json.loads(line)
        event = parse_message(_text(entry.get("MESSAGE")))
        if event is None:
            return None
        stamp = _first(entry.get("_SOURCE_MONOTONIC_TIMESTAMP")) or entry["__MONOTONIC_TIMESTAMP"]
        event["boot"] = str(_first(entry["_BOOT_ID"]))
        event["monotonic_us"] = int(stamp)
        event["time"] = timestamp(int(entry["__REALTIME_TIMESTAMP"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return event


def _first(value: Any) -> Any:
    """Return a field's value; one that stands several times in an entry comes as a list."""
    return value[0] if isinstance(value, list) and value else value


def _text(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(item, int) for item in value):
        return bytes(value).decode("utf-8", "replace")
    value = _first(value)
    return value if isinstance(value, str) else ""


def identity(event: Event) -> tuple[str, int, str, int]:
    """Return what tells an event from all others."""
    return event["boot"], event["monotonic_us"], event["pci_bus_id"], event["xid"]


def stream(
    argv: list[str], timeout_s: float, take: Callable[[bytes], bool]
) -> tuple[int | None, str]:
    """Run a program and hand over its lines one by one, until its end or the deadline.

    Args:
        argv: the program and its arguments.
        timeout_s: it is killed then.
        take: gets each complete line without its end; false ends the program early.

    Returns:
        The exit status, 0 after an early end, None when it was killed at the deadline; and the
        last of what it said on standard error.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"},
        )
    except OSError as error:
        return 127, f"{argv[0]}: {error.strerror or error}"
    end = time.monotonic() + timeout_s
    lines, said, stopped = _Lines(take), b"", False
    with selectors.DefaultSelector() as selector:
        for pipe in (process.stdout, process.stderr):
            selector.register(pipe, selectors.EVENT_READ)  # type: ignore[arg-type]
        while selector.get_map() and not stopped:
            ready = selector.select(max(end - time.monotonic(), 0))
            if not ready:
                break
            for key, _events in ready:
                data = os.read(key.fd, CHUNK)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    said = (said + data)[-STDERR_TAIL:]
                else:
                    stopped = stopped or not lines.feed(data)
        at_end = not selector.get_map()
    rc = _finish(process, max(end - time.monotonic(), 0) if at_end else 0)
    if rc == 0 and at_end:
        lines.finish()
    return 0 if stopped else rc, said.decode("utf-8", "replace")


class _Lines:
    """Cuts what arrives in pieces of any size into lines."""

    def __init__(self, take: Callable[[bytes], bool]) -> None:
        self._take = take
        self._rest = b""
        self._skip = False  # within a line that is too long

    def feed(self, data: bytes) -> bool:
        """Take the next piece; false when the reader wants no more."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            skip, self._skip = self._skip, False
            if not skip and line and not self._take(line):
                return False
        if len(self._rest) > LINE_LIMIT:
            self._rest, self._skip = b"", True
        return True

    def finish(self) -> None:
        """Take what stands behind the last line's end."""
        if self._rest and not self._skip:
            self._take(self._rest)


def _finish(process: subprocess.Popen[bytes], patience_s: float) -> int | None:
    """Wait for a process, then kill its group; one that is stuck in the kernel is left behind."""
    rc = None
    with contextlib.suppress(subprocess.TimeoutExpired):
        rc = process.wait(patience_s)
    if rc is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(REAP_S)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    return rc


def journal_argv(journalctl: str, *arguments: str) -> list[str]:
    """Return the command that prints kernel messages of all boots as JSON.

    Not ``-k``: it means this boot only.
    """
    fields = "--output-fields=MESSAGE,_BOOT_ID,_SOURCE_MONOTONIC_TIMESTAMP"
    argv = [journalctl, "--no-pager", "--all", "--output=json", fields]
    return [*argv, *arguments, "_TRANSPORT=kernel"]


def read_journal(journalctl: str, timeout_s: float, *arguments: str) -> Reading:
    """Read kernel messages and return the Xid events among them.

    Raises:
        JournalError: there is no journal, or this account may not read it.
    """
    reading = Reading()
    last = b""

    def take(line: bytes) -> bool:
        nonlocal last
        if line.startswith(b"{"):
            last = line
            event = event_from_line(line)
            if event is not None:
                reading.events.append(event)
        return True

    rc, said = stream(journal_argv(journalctl, *arguments), timeout_s, take)
    if rc == 1 and not last and not said.strip():
        rc = 0  # some releases say in this way that the pattern matched nothing
    if rc is None:
        reading.complete = False
        if not last:
            raise JournalError(f"journalctl did not answer within {timeout_s:g} s")
    elif rc != 0 and _NO_GREP in said:
        plain = [word for word in arguments if not word.startswith("--grep=")]
        return read_journal(journalctl, timeout_s, *plain)
    elif rc != 0 or (not last and any(text in said for text in _NOT_ALLOWED)):
        raise JournalError(f"journalctl ended with status {rc}: {' '.join(said.split())}")
    reading.cursor = _field(last, "__CURSOR")
    return reading


def read_since(journalctl: str, timeout_s: float, days: float, *arguments: str) -> Reading:
    """Return the Xid events of the last days.

    With ``--grep=NVRM`` that is fast; without it a reading that is cut short can be gone on with,
    as it knows the last message that it has seen.

    Raises:
        JournalError: the journal can't be read.
    """
    since = f"--since=@{int(time.time() - days * DAY_S)}"
    return read_journal(journalctl, timeout_s, since, *arguments)


def read_on(journalctl: str, timeout_s: float, cursor: str, days: float) -> Reading:
    """Return the Xid events from a cursor on, or of the last days where it has no meaning.

    The cursor's own message is read again: ``--after-cursor`` would skip the message behind it
    when the journal has dropped the cursor's.

    Raises:
        JournalError: the journal can't be read.
    """
    if cursor:
        try:
            return read_journal(journalctl, timeout_s, f"--cursor={cursor}")
        except JournalError as error:
            if "cursor" not in str(error):
                raise
    return read_since(journalctl, timeout_s, days)


def oldest_message(journalctl: str, timeout_s: float) -> str:
    """Return the time of the journal's first kernel message (RFC 3339); empty without one."""
    first: list[bytes] = []

    def take(line: bytes) -> bool:
        if line.startswith(b"{"):
            first.append(line)
        return not first

    stream(journal_argv(journalctl), timeout_s, take)
    stamp = _field(first[0], "__REALTIME_TIMESTAMP") if first else ""
    return timestamp(int(stamp)) if stamp.isdigit() else ""


def timestamp(microseconds: int) -> str:
    """Write microseconds since 1970 as RFC 3339 in UTC."""
    moment = datetime.datetime.fromtimestamp(microseconds // 1000000, datetime.timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{microseconds % 1000000:06d}Z"


def days_ago(days: float) -> str:
    """Return a time in the past (RFC 3339)."""
    return timestamp(int((time.time() - days * DAY_S) * 1e6))


def _field(line: bytes, name: str) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        return str(_first(json.loads(line).get(name)) or "")
    return ""
