# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs ``gpu_nvml.py`` as a child that is killed when the driver does not answer.

A driver call that hangs can't be interrupted from within, and sometimes not even SIGKILL ends the
process that made it. Such a process is never joined by a second one: as long as it is there, no
reader is started, and the state is ``stuck``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

READER = Path(__file__).with_name("gpu_nvml.py")
KILL_SECONDS = 2.0  # a process that can be killed is gone long before
STDERR_BYTES = 4096


class Left(NamedTuple):
    """A child that was killed and is still there: its number, and its start, for numbers return."""

    pid: int
    start: str

    def is_there(self) -> bool:
        """Tell whether it is still running.

        ``ProtectProc=invisible`` hides it from every later run of the unit, for ``PrivateUsers=``
        gives each a user namespace of its own, ptrace(2). A signal still finds it: kill(2) compares
        accounts alone. What this account may signal and can't see is taken for it.
        """
        if not self.start:
            return False
        found = start_of(self.pid)
        if found is not None:
            return found == self.start
        try:
            os.kill(self.pid, 0)
        except OSError:  # it is gone, or the number is another account's by now
            return False
        return True


class CollectError(Exception):
    """The GPUs could not be read; ``state`` is one word for it, ``code`` what NVML returned."""

    def __init__(
        self, state: str, message: str, code: int | None = None, left: Left | None = None
    ) -> None:
        super().__init__(message)
        self.state = state
        self.code = code
        self.left = left
        self.renews = False  # a session that ends only for a new one to find a lost GPU again


class Sample(NamedTuple):
    """The readings of all GPUs, begun at a time in seconds since 1970, and how long it took."""

    driver: dict[str, Any]
    gpus: list[dict[str, Any]]
    time: float
    seconds: float


class Block:
    """One sample as it comes in, line by line."""

    def __init__(self) -> None:
        self.time, self._began = time.time(), time.monotonic()
        self.driver: dict[str, Any] = {}
        self.gpus: list[dict[str, Any]] = []
        self.reading: int | None = None  # the GPU that it was reading when it fell silent
        self.begun = self.done = False

    def feed(self, line: str) -> bool:
        """Take a line; return whether the sample is complete. CollectError when it is none."""
        try:
            entry = dict(json.loads(line))
        except (TypeError, ValueError) as error:
            raise CollectError("error", f"the reader printed {line[:80]!r}") from error
        self.begun = True
        if "error" in entry:
            error = entry["error"]
            raise CollectError(error["state"], error["message"], error.get("code"))
        self.time = entry.get("at", self.time)
        self.driver = entry.get("driver", self.driver)
        self.reading = entry.get("reading", self.reading)
        if "gpu" in entry:
            self.gpus.append(entry["gpu"])
        self.done = "done" in entry
        return self.done

    def sample(self) -> Sample:
        """Return the sample; CollectError when no GPU could be read."""
        if not self.gpus:
            raise CollectError("no_gpu", "the driver sees no GPU")
        if all(gpu["state"] != "ok" for gpu in self.gpus):
            states = ", ".join(f"GPU {gpu['index']} is {gpu['state']}" for gpu in self.gpus)
            raise CollectError("gpu_lost", states)
        seconds = time.monotonic() - self._began
        return Sample(self.driver, self.gpus, self.time, round(seconds, 3))

    def late(self, seconds: float, left: Left | None) -> CollectError:
        """Return the error of a sample that did not come within so many seconds."""
        where = "" if self.reading is None else f" while GPU {self.reading} was read"
        more = f"; process {left.pid} can't be killed" if left else ""
        return CollectError(
            "timeout", f"NVML did not answer within {seconds:g} s{where}{more}", left=left
        )


def command(reader: Path, *arguments: str) -> list[str]:
    """Return the reader's command line: what a sample needs, nothing else."""
    return [sys.executable, "-B", str(reader), "--set", "sample", *arguments]


def collect(reader: Path, timeout_s: float, left: Left | None = None) -> Sample:
    """Read all GPUs once; kill the child's group when the deadline passes.

    Args:
        reader: the program that reads.
        timeout_s: seconds that it has.
        left: a child of an earlier collection that could not be killed.
    """
    refuse(left)
    block = Block()
    child = start(command(reader))
    try:
        out, err = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as expired:
        survivor = kill(child)
        whole = (expired.stdout or b"").rpartition(b"\n")[0]
        try:
            for line in whole.decode("utf-8", "replace").splitlines():
                block.feed(line)
        except CollectError as error:  # it said what was wrong, and then didn't end
            error.left = survivor
            raise
        raise block.late(timeout_s, survivor) from expired
    for line in out.decode("utf-8", "replace").splitlines():
        block.feed(line)
    if not block.done:
        raise ended(child.returncode, err)
    return block.sample()


def refuse(left: Left | None) -> None:
    """Raise CollectError while a child that could not be killed is there."""
    if left is not None and left.is_there():
        message = f"process {left.pid} hangs in the driver and can't be killed: reboot the host"
        raise CollectError("stuck", message, left=left)


def ended(status: int, err: bytes) -> CollectError:
    """Return the error of a reader that ended without a sample."""
    last = err.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
    return CollectError("error", f"the reader ended with status {status}: {last[0]}")


def start(argv: list[str], stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that its whole group can be killed."""
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(argv, stdin=stdin, stdout=pipe, stderr=pipe, start_new_session=True)
    except OSError as error:
        raise CollectError("error", f"{argv[0]} can't be started: {error.strerror}") from error


def kill(child: subprocess.Popen[bytes]) -> Left | None:
    """Kill a child's group; return the child when it is still there after that."""
    left = Left(child.pid, start_of(child.pid) or "")
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(KILL_SECONDS)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    return left if child.returncode is None else None


def start_of(pid: int) -> str | None:
    """Return when a process started, in clock ticks since the boot.

    Empty when it has ended and nobody has asked how; None when there is nothing to be seen of it.
    Field 22 of ``/proc/PID/stat``, proc(5); the second field is a name that may hold anything.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


class Stream:
    """The reader that takes a sample every so many seconds, with one session of NVML.

    It prints a block of lines per sample: ``{"begin": n}``, those of a sample, ``{"done": true}``.
    It ends when its input closes, and after a sample in which a GPU was lost: only a new session
    can find that one again.
    """

    def __init__(self, reader: Path, interval_s: float, timeout_s: float) -> None:
        self.interval_s = interval_s
        self.timeout_s = timeout_s
        self._block = Block()
        self._driver: dict[str, Any] = {}
        self._lost = False
        self._rest = self._err = b""
        # It opens the session and may wait then for a time that all hosts have in common.
        self.deadline = time.monotonic() + interval_s + timeout_s
        argv = command(reader, "--interval", f"{interval_s:g}")
        self.child = start(argv, stdin=subprocess.PIPE)
        for pipe in (self.child.stdout, self.child.stderr):
            os.set_blocking(pipe.fileno(), False)  # type: ignore[union-attr]

    def read_errors(self) -> bool:
        """Pass on what is there of the reader's messages; return whether there can be more."""
        data = _read(self.child.stderr)
        if data:
            sys.stderr.write(data.decode("utf-8", "replace"))
            self._err = (self._err + data)[-STDERR_BYTES:]
        return data != b""

    def read(self) -> list[Sample | CollectError]:
        """Take what is there and return what it completes.

        An error is the last thing that a stream gives: it has to be closed then.
        """
        data = _read(self.child.stdout)
        if data is None:
            return []
        found: list[Sample | CollectError] = []
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        between = True
        try:
            for line in lines:
                between = not self._block.begun
                found += self._take(line.decode("utf-8", "replace"))
            if not data:
                between = not self._block.begun
                raise self._end()
        except CollectError as error:
            error.renews = between and self._lost
            found.append(error)
        return found

    def _take(self, line: str) -> list[Sample]:
        if not self._block.begun:
            self._block = Block()
            self.deadline = time.monotonic() + self.timeout_s
        if not self._block.feed(line):
            return []
        block, self._block = self._block, Block()
        self.deadline = time.monotonic() + self.interval_s + self.timeout_s
        self._driver = block.driver = block.driver or self._driver
        sample = block.sample()
        self._lost = any(gpu["state"] != "ok" for gpu in sample.gpus)
        return [sample]

    def _end(self) -> CollectError:
        self.read_errors()
        try:
            return ended(self.child.wait(KILL_SECONDS), self._err)
        except subprocess.TimeoutExpired:
            return CollectError("error", "the reader closed its output and goes on")

    def late(self) -> CollectError | None:
        """Kill a reader that is past its deadline and return the error; None for one that isn't."""
        if time.monotonic() < self.deadline:
            return None
        return self._block.late(self.timeout_s, kill(self.child))

    def close(self) -> Left | None:
        """End the reader, by force after a moment; return it when even that didn't end it."""
        if self.child.poll() is None:
            with contextlib.suppress(OSError):
                self.child.stdin.close()  # type: ignore[union-attr]
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(KILL_SECONDS)
        return kill(self.child)


def _read(pipe: Any) -> bytes | None:
    """Return what a pipe holds: nothing at its end, None when there is nothing yet."""
    try:
        return os.read(pipe.fileno(), 65536)
    except BlockingIOError:
        return None
    except (OSError, ValueError):  # it is closed
        return b""
