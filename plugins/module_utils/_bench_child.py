# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Child programs of the benchmark: fed to an interpreter as text, ended by the end of their input.

What runs beside a measurement runs in a process of its own, so that it never holds the lock of the
interpreter that measures. Its settings are the first line of its standard input, where no list of
processes shows them. The pipe stays open as long as the child is wanted: a parent that dies closes
it, and the child ends by itself.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import IO, Any

PATIENCE_S = 1.0  # between being asked to end and being killed
REAP_S = 2.0  # for a killed process; one stuck in a driver call is left to its fate


def start_child(
    python: str,
    program: ModuleType,
    settings: Mapping[str, Any],
    out: int | IO[bytes],
    flags: Sequence[str] = ("-I", "-B"),
) -> subprocess.Popen[bytes]:
    """Run a module's text with an interpreter, in a process group of its own.

    Raises:
        OSError: the interpreter can't be run, or ended before it took its settings.
    """
    process = subprocess.Popen(
        [python, *flags, "-c", inspect.getsource(program)],
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        bufsize=0,
    )
    try:
        process.stdin.write(json.dumps(settings).encode() + b"\n")  # type: ignore[union-attr]
    except OSError:
        end_child(process)
        raise
    return process


def end_child(process: subprocess.Popen[bytes], patience_s: float = PATIENCE_S) -> bool:
    """End a child and what it started; tell whether it is gone."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience_s)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # the group outlives its leader
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(REAP_S)
    if process.stdout is not None:
        process.stdout.close()
    return process.poll() is not None
