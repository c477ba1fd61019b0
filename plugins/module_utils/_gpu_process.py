# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Run a program that may never answer, and be back before a deadline all the same."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

REAP_SECONDS = 2.0  # for a killed process; one stuck in the kernel is left to its fate


@dataclass(frozen=True)
class Outcome:
    """What came of a run; ``rc`` is None when the program was killed at the deadline."""

    rc: int | None
    out: str
    err: str

    @property
    def timed_out(self) -> bool:
        """Tell whether the deadline passed before the program ended."""
        return self.rc is None


def run_killable(argv: Sequence[str], timeout_s: float) -> Outcome:
    """Run a program in a process group of its own and kill the group at the deadline.

    A process in an uninterruptible driver call does not die from a signal. It is waited for
    a moment and then left behind, so that the caller is never held up by it.
    """
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        return Outcome(127, "", f"{argv[0]}: {error.strerror or error}")
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as expired:
        _kill_group(process.pid)
        try:
            out, err = process.communicate(timeout=REAP_SECONDS)
        except subprocess.TimeoutExpired as stuck:
            out, err = stuck.stdout or expired.stdout, stuck.stderr or expired.stderr
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        return Outcome(None, _text(out), _text(err))
    return Outcome(process.returncode, _text(out), _text(err))


def json_line(line: str) -> dict[str, Any]:
    """Return the JSON object in a line that a child printed; an empty one for any other line."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _kill_group(pid: int) -> None:
    # Not permitted where nothing is left of the group but what runs as somebody else.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")
