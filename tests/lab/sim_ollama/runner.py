# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One loaded model: its child process, its memory and its parallel slots."""

from __future__ import annotations

import collections
import subprocess
import sys
import threading
import time
from typing import Callable

from sim_ollama import log, version
from sim_ollama.envconfig import FOREVER
from sim_ollama.errors import ClientGoneError
from sim_ollama.gpu import Activity
from sim_ollama.models import Model

Cancelled = Callable[[], bool]
POLL_SECONDS = 0.05
FOREVER_SECONDS = float(2**63 // 10**9)
RELOAD_OPTIONS = (
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "use_mmap",
    "num_thread",
)


class Slots:
    """So many requests run at a time; the others wait in order, without a limit."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: collections.deque[object] = collections.deque()
        self._changed = threading.Condition()

    def acquire(self, cancelled: Cancelled) -> None:
        """Wait for a slot; ClientGoneError when the client leaves first."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or self._free <= 0:
                    self._changed.wait(POLL_SECONDS)
                    if cancelled():
                        raise ClientGoneError
                self._free -= 1
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def release(self) -> None:
        """Give a slot back."""
        with self._changed:
            self._free += 1
            self._changed.notify_all()


def own_command() -> list[str]:
    """Return how this program is started again."""
    if version.is_packed():
        return [str(version.executable())]
    return [sys.executable, "-B", str(version.executable())]


def runner_command(model: Model, playing: str, context: int, parallel: int) -> list[str]:
    """Return the command line of a runner process, as the played version shows it."""
    command = [*own_command(), "runner"]
    library = version.library_dir()
    if version.at_least(playing, "0.30.0") and library is not None:
        command = [str(library / "llama-server")]
    options = ["--model", model.key, "--ctx-size", str(context * parallel)]
    return [*command, *options, "--parallel", str(parallel)]


class Runner:
    """One loaded model."""

    def __init__(
        self,
        model: Model,
        options: dict[str, object],
        context: int,
        size: int,
        memory: dict[int, int],
        parallel: int,
    ) -> None:
        self.model = model
        self.options = options
        self.context = context
        self.size = size
        self.memory = memory
        self.slots = Slots(parallel)
        self.ready = False
        self.gone = False
        self.references = 0
        self.keep_alive = 0.0
        self.expires_at = 0.0
        self.last_prompt = ""
        self.last_used = time.monotonic()
        self._process: subprocess.Popen | None = None
        self._activity: Activity | None = None
        self._busy: dict[object, float] = {}
        self._lock = threading.Lock()

    @property
    def size_vram(self) -> int:
        """The bytes that lie on GPUs."""
        return sum(self.memory.values())

    @property
    def gpu_share(self) -> float:
        """The part of the model that lies on GPUs."""
        return self.size_vram / self.size if self.size else 0.0

    def start(self, command: list[str], name: str) -> None:
        """Start the child process and publish the memory that it holds."""
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if self.memory:
            self._activity = Activity(self._process.pid, name, self.memory)
            self._activity.write()

    def stop(self) -> None:
        """End the child process and give the memory back."""
        self.gone = True
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            try:
                process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                log.warn("sim", "runner did not end, killing it", pid=process.pid)
                process.kill()
                process.wait()
        if self._activity is not None:
            self._activity.remove()

    def computing(self, job: object, until: float, util: int) -> None:
        """Publish that a job computes until a time of the wall clock."""
        with self._lock:
            self._busy[job] = until
            if self._activity is not None:
                self._activity.write(util, max(self._busy.values()))

    def finished(self, job: object) -> None:
        """Publish that a job is over."""
        with self._lock:
            self._busy.pop(job, None)
            if self._activity is not None and not self.gone:
                busy = max(self._busy.values(), default=0.0)
                self._activity.write(97 if self._busy else 0, busy)

    def needs_reload(self, options: dict[str, object]) -> bool:
        """Tell whether a request's load options differ from what is loaded."""
        return any(
            key in options and options[key] != self.options.get(key) for key in RELOAD_OPTIONS
        )

    def touch(self) -> None:
        """Restart the keep-alive clock."""
        seconds = FOREVER_SECONDS if self.keep_alive == FOREVER else self.keep_alive
        self.last_used = time.monotonic()
        self.expires_at = time.time() + seconds


def runner_child() -> int:
    """Wait until the server closes the pipe or dies: the body of a runner process."""
    while sys.stdin.buffer.read(1 << 12):
        pass
    return 0
