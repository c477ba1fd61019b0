# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lets ``gpu_xid_history.py`` look for the driver's Xid messages, and counts its history."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from gpu_metrics import Xid
from gpu_reader import CollectError, kill, start

PROGRAM = Path(__file__).with_name("gpu_xid_history.py")
SEARCH_SECONDS = 10.0  # that the program gives its lock and each of its readings of the journal
DEADLINE_SECONDS = 45.0  # after which its process is killed


class Search:
    """One search of the journal, in a child that does not keep its parent waiting."""

    def __init__(self, program: Path, history: Path) -> None:
        argv = [sys.executable, "-B", str(program), "--history", str(history)]
        argv += ["--timeout-s", f"{SEARCH_SECONDS:g}"]
        self._deadline = time.monotonic() + DEADLINE_SECONDS
        self._child: subprocess.Popen[bytes] | None = None
        self._why = ""
        try:
            self._child = start(argv)
        except CollectError as error:
            self._why = str(error)

    def result(self, wait: bool = False) -> str | None:
        """Return what is wrong, empty when nothing is; None while it is under way.

        Args:
            wait: whether to wait until it ends, at most until its deadline.
        """
        child, left = self._child, self._deadline - time.monotonic()
        if child is None:
            return self._why
        # What it says fits into a pipe, so it may be read after its end.
        if wait:
            try:
                child.wait(max(0.0, left))
            except subprocess.TimeoutExpired:
                left = 0.0
        if child.poll() is None:
            if left > 0:
                return None
            kill(child)
            return f"the journal could not be searched within {DEADLINE_SECONDS:g} s"
        out, err = child.communicate()
        if child.returncode == 0:
            return ""
        if b'"complete": false' in out:
            return "the journal is long: the next search goes on where this one stopped"
        said = err.decode("utf-8", "replace").strip().splitlines()[-1:]
        return said[0] if said else f"the search ended with status {child.returncode}"

    def close(self) -> None:
        """End it."""
        if self._child is not None:
            kill(self._child)


class History:
    """The history file's counts; it is read again only when it has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] = (0, 0)
        self._xids: list[Xid] = []

    def xids(self) -> list[Xid]:
        """Return the counts by GPU and Xid; none when there is no history."""
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                self._xids, self._stamp = count(self.path.read_bytes()), stamp
        except OSError:
            self._xids, self._stamp = [], (0, 0)
        return self._xids


def count(data: bytes) -> list[Xid]:
    """Count a history's records, JSON objects a line; lines that are none are passed over."""
    found: dict[tuple[str, int], tuple[int, float]] = {}
    for line in data.splitlines():
        try:
            record: dict[str, Any] = json.loads(line)
            key = (str(record["pci_bus_id"]).upper(), int(record["xid"]))
            number = int(record.get("count", 1))
            last = seconds(record.get("until", record["time"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        before, latest = found.get(key, (0, 0.0))
        found[key] = (before + number, max(latest, last))
    return [Xid(*key, *found[key]) for key in sorted(found)]


def seconds(text: str) -> float:
    """Return a time of the history (RFC 3339, UTC) in seconds since 1970."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
