# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which models are loaded, who waits for a load, and what must make room."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from sim_ollama import gguf, log, schedule, version
from sim_ollama.envconfig import FOREVER, Environment
from sim_ollama.errors import ApiError, ClientGoneError
from sim_ollama.gpu import Discovery, place
from sim_ollama.models import Model
from sim_ollama.runner import POLL_SECONDS, Cancelled, Runner, runner_command
from sim_ollama.settings import Settings

QUEUE_FULL = "server busy, please try again.  maximum pending requests exceeded"
GIB = 1024.0**3
LOAD_SLICE_SECONDS = 0.02


class Scheduler:
    """Loads one model at a time and keeps the loaded ones for their keep-alive time."""

    def __init__(self, env: Environment, settings: Settings, playing: str) -> None:
        self.env = env
        self.settings = settings
        self.playing = playing
        self.discovery = Discovery([], "", "")
        self._runners: dict[str, Runner] = {}
        self._pending = 0
        self._loading = False
        self._changed = threading.Condition()
        threading.Thread(target=self._expire_forever, daemon=True).start()

    def loaded(self) -> list[Runner]:
        """Return the runners, the one that stays longest first."""
        with self._changed:
            found = list(self._runners.values())
        return sorted(found, key=lambda r: -int(r.expires_at))

    def acquire(
        self,
        model: Model,
        options: dict[str, Any],
        keep_alive: float | None,
        cancelled: Cancelled,
    ) -> Runner:
        """Return a ready runner and hold it; 503 when too many wait, 499 when the client left."""
        with self._changed:
            runner = self._ready(model, options)
            if runner is None:
                if self._pending >= self.env.max_queue + (0 if self._loading else 1):
                    raise ApiError(503, QUEUE_FULL)
                runner = self._wait(model, options, cancelled)
            runner.references += 1
            if keep_alive is not None:
                runner.keep_alive = keep_alive
            runner.touch()
            return runner

    def release(self, runner: Runner) -> None:
        """Give a runner back; its keep-alive clock starts when the last request ends."""
        with self._changed:
            runner.references -= 1
            if runner.references == 0 and runner.keep_alive > 0:
                runner.touch()
            self._changed.notify_all()

    def expire(self, model: Model) -> None:
        """Ask for a model to be unloaded as soon as it is idle."""
        with self._changed:
            runner = self._runners.get(model.key)
            if runner is not None:
                runner.keep_alive = 0.0
                runner.expires_at = time.time()
            self._changed.notify_all()

    def stop(self) -> None:
        """Unload everything."""
        with self._changed:
            for runner in self._runners.values():
                runner.stop()
            self._runners.clear()

    # With the lock held

    def _ready(self, model: Model, options: dict[str, Any]) -> Runner | None:
        runner = self._runners.get(model.key)
        if runner is None or not runner.ready or runner.needs_reload(options):
            return None
        if self._loading and not version.at_least(self.playing, "0.30.0"):
            return None
        return runner

    def _wait(self, model: Model, options: dict[str, Any], cancelled: Cancelled) -> Runner:
        self._pending += 1
        waiting = True
        try:
            while True:
                runner = self._ready(model, options)
                if runner is not None:
                    return runner
                if not self._loading and self._make_room(model, options):
                    self._pending -= 1
                    waiting = False
                    return self._load(model, options, cancelled)
                self._changed.wait(POLL_SECONDS)
                if cancelled():
                    raise ApiError(499, "request canceled")
        finally:
            if waiting:
                self._pending -= 1

    def _make_room(self, model: Model, options: dict[str, Any]) -> bool:
        """Evict idle models while this one finds no place; False while one must be waited for."""
        same = self._runners.get(model.key)
        if same is not None:
            return self._evict(same)
        limit = self.env.max_loaded or 3 * max(1, len(self.discovery.gpus))
        while self._runners:
            wanted = self._wanted_bytes(model)
            fits = self._share(model, options, wanted) >= wanted or not self._gpus(model, options)
            if fits and len(self._runners) < limit:
                return True
            idle = [r for r in self._runners.values() if r.references == 0]
            if not idle:
                return False
            self._evict(min(idle, key=lambda r: r.last_used))
        return True

    def _evict(self, runner: Runner) -> bool:
        if runner.references > 0:
            return False
        self._unload(runner)
        return True

    def _unload(self, runner: Runner) -> None:
        self._runners.pop(runner.model.key, None)
        runner.stop()
        self._changed.notify_all()

    def _load(self, model: Model, options: dict[str, Any], cancelled: Cancelled) -> Runner:
        wanted = self._wanted_bytes(model)
        memory = self._placement(model, options, wanted)
        context = int(options.get("num_ctx") or self.env.context_length)
        parallel = self.env.num_parallel
        runner = Runner(model, dict(options), context, wanted, memory, parallel)
        runner.keep_alive = self.env.keep_alive
        runner.touch()
        self._check_memory(model, wanted - runner.size_vram)
        self._runners[model.key] = runner
        self._loading = True
        self._changed.release()
        failure: Exception | None = None
        try:
            self._load_slowly(runner, cancelled)
        except Exception as exc:
            failure = exc
        finally:
            self._changed.acquire()
            self._loading = False
            runner.ready = failure is None
            self._changed.notify_all()
        if failure is not None:
            self._unload(runner)
            if isinstance(failure, ApiError):
                raise failure
            raise ApiError(500, f"llama-server binary not found: {failure}")
        return runner

    # Without the lock

    def _load_slowly(self, runner: Runner, cancelled: Cancelled) -> None:
        model = runner.model
        started = time.monotonic()
        self._check_weights(model)
        command = runner_command(model, self.playing, runner.context, self.env.num_parallel)
        new = version.at_least(self.playing, "0.30.0")
        runner.start(command, command[0] if new else f"{command[0]} runner")
        timing = schedule.schedule_for(
            self.settings, model.name, model.manifest.size, runner.gpu_share
        )
        failing = self.settings.fault_for_model("out_of_memory", model.name)
        end = started + timing.load_seconds * (0.5 if failing else 1.0)
        while time.monotonic() < end:
            time.sleep(min(LOAD_SLICE_SECONDS, max(0.0, end - time.monotonic())))
            if cancelled():
                raise ApiError(499, "request canceled")
        if failing:
            raise ApiError(500, self._out_of_memory(model, runner.size))
        blocks = int((model.head() or {}).get("llama.block_count", 28)) + 1
        on_gpu = int(blocks * runner.gpu_share)
        log.info("ggml.go:365", f"offloaded {on_gpu}/{blocks} layers to GPU")
        seconds = time.monotonic() - started
        word = "llama-server" if new else "llama runner"
        log.info("server.go:637", f"{word} started in {seconds:.2f} seconds")

    def _check_weights(self, model: Model) -> None:
        path = model.weights
        try:
            if path is None:
                raise ValueError("no weights")
            gguf.read(path)
            if path.stat().st_size < model.weights_size:
                raise ValueError("tensor data is not within the file bounds")
        except (OSError, ValueError) as exc:
            if version.at_least(self.playing, "0.30.0"):
                text = f"llama-server process has terminated: error loading model: {exc}"
            else:
                text = f"unable to load model: {path}"
            raise ApiError(500, text) from None

    def _check_memory(self, model: Model, needed: int) -> None:
        limit = self.settings.data().get("system_memory_bytes")
        if limit is not None and needed > int(limit):
            raise ApiError(500, self._out_of_memory(model, needed, int(limit)))

    def _out_of_memory(self, model: Model, size: int, limit: int | None = None) -> str:
        if version.at_least(self.playing, "0.30.0"):
            return (
                "llama-server reported out-of-memory during startup: "
                f"failed to allocate buffer of size {size} for {model.name}"
            )
        available = limit if limit is not None else size // 2
        return (
            f"model requires more system memory ({size / GIB:.1f} GiB) "
            f"than is available ({available / GIB:.1f} GiB)"
        )

    def _wanted_bytes(self, model: Model) -> int:
        values = schedule.model_values(self.settings, model.name, model.manifest.size)
        return int(values.get("vram_bytes") or model.manifest.size)

    def _gpus(self, model: Model, options: dict[str, Any]) -> bool:
        off = options.get("num_gpu") == 0 or self.settings.fault_for_model("cpu_only", model.name)
        return bool(self.discovery.gpus) and not off

    def _share(self, model: Model, options: dict[str, Any], wanted: int) -> int:
        return sum(self._placement(model, options, wanted).values())

    def _placement(self, model: Model, options: dict[str, Any], wanted: int) -> dict[int, int]:
        if not self._gpus(model, options):
            return {}
        held: dict[int, int] = {}
        for runner in self._runners.values():
            for index, size in runner.memory.items():
                held[index] = held.get(index, 0) + size
        return place(self.discovery.gpus, held, wanted, self.env.sched_spread)

    def _expire_forever(self) -> None:
        while True:
            with self._changed:
                now = time.time()
                for runner in list(self._runners.values()):
                    due = runner.keep_alive != FOREVER and runner.expires_at <= now
                    if runner.ready and runner.references == 0 and due:
                        self._unload(runner)
                self._changed.wait(POLL_SECONDS)


def wait_for_slot(runner: Runner, cancelled: Cancelled) -> None:
    """Wait for a parallel slot of a loaded model; 499 when the client left."""
    try:
        runner.slots.acquire(cancelled)
    except ClientGoneError:
        raise ApiError(499, "request canceled") from None


def system_memory() -> int:
    """Return the machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
