# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""Samples a host while it is measured, from a process of its own.

The sampler is started once, before the load, and stopped after it; timelines of any number of
stages are cut from what it wrote. Whatever it can't do, the measurement goes on, and
``sources`` says what is missing and why.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.hx_infra.llm.plugins.module_utils import (
    _bench_sampler_child,
    _gpu_nvml_child,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_child import (
    end_child,
    start_child,
)
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_measure import Measurement
from ansible_collections.hx_infra.llm.plugins.module_utils._bench_timeline import (
    SOURCES,
    timeline,
)

LIMIT_S = 24 * 3600.0
READ_LIMIT = 64 * 2**20
SETTLE_S = 3.0  # a driver that takes longer starts while the load runs
SILENT = "it has not answered"  # a source that is still being opened
SMI_STEP_S, GPU_READINGS = _bench_sampler_child.SMI_STEP_S, _bench_sampler_child.READINGS


@dataclass(frozen=True)
class Watch:
    """What to sample, and how.

    Attributes:
        step_s: seconds between two readings.
        limit_s: the sampler ends by itself after it.
        local: whether this process runs on the host that is measured; else GPU, CPU and memory
            would be those of another machine and are left out.
        gpu_python: an interpreter with nvidia-ml-py; empty when there is none.
        smi: path of nvidia-smi, for hosts without such an interpreter.
        url: base URL of the engine; empty to leave it out.
        engine: ``vllm``, ``ollama``, or ``auto`` to try both.
        headers: sent with each request to the engine, such as the key.
        ca_path, validate_certs: for TLS.
        proc: where the host's /proc is.
        host: whether the host's processors and memory are sampled too.
        gpu_readings: what is read of each GPU, by the names that ``_bench_sampler_child`` knows.
        smi_step_s: seconds between two runs of nvidia-smi at least.
    """

    step_s: float = 1.0
    limit_s: float = LIMIT_S
    local: bool = True
    gpu_python: str = ""
    smi: str = ""
    url: str = ""
    engine: str = "auto"
    headers: tuple[tuple[str, str], ...] = ()
    ca_path: str | None = None
    validate_certs: bool = True
    proc: str = "/proc"
    host: bool = True
    gpu_readings: tuple[str, ...] = GPU_READINGS
    smi_step_s: float = SMI_STEP_S


class Sampler:
    """The sampler's process; use it as a context, or call ``start`` and ``stop``."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._process: subprocess.Popen[bytes] | None = None
        self._out: Any = None
        self._lines: list[dict[str, Any]] = []
        self._failed = ""

    def __enter__(self) -> Sampler:
        self.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start sampling; what keeps it from starting is stated in the timelines."""
        wanted = self._wanted()
        if not wanted:
            return
        python = self._watch.gpu_python if self._watch.local and self._watch.gpu_python else ""
        tries = [python, sys.executable] if python else [sys.executable]
        # A file, as nobody would empty a pipe while the load runs.
        self._out = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the sampler
        why = "no interpreter with nvidia-ml-py was named"
        for interpreter in tries:
            settings = self._settings(wanted, bool(python) and interpreter == python, why)
            try:
                self._process = start_child(interpreter, _bench_sampler_child, settings, self._out)
                self._settle(len(wanted))
                return
            except OSError as error:
                why = str(error)
        self._failed = why

    def _settle(self, sources: int) -> None:
        """Wait until every source is open: what that costs must not fall into the load."""
        end = time.monotonic() + SETTLE_S
        while time.monotonic() < end and self._process is not None:
            if self._process.poll() is not None:
                return
            if sum("source" in line for line in self._written()) >= sources:
                return
            time.sleep(0.02)

    def stop(self) -> None:
        """End the sampler and keep what it wrote."""
        if self._process is not None:
            status = self._process.poll()
            if status is not None:
                self._failed = self._failed or f"the sampler ended by itself with status {status}"
            if not end_child(self._process):
                self._failed = f"the sampler hangs in the kernel as process {self._process.pid}"
            self._process = None
        if self._out is not None:
            self._lines = self._written()
            self._out.close()
            self._out = None

    def timeline(self, measured: Measurement) -> dict[str, Any]:
        """Return what was sampled during a stage; best after ``stop``, when all of it is there."""
        if self._out is not None:
            self._lines = self._written()
        return timeline(measured, self._lines, self._states(), self._watch.step_s)

    def lines(self, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Return what was written from an offset on while it runs, and the offset behind that."""
        if self._out is None:
            return [], offset
        data = self._whole_lines(offset)
        return [json.loads(line) for line in data.splitlines()], offset + len(data)

    def state(self, source: str) -> str:
        """Return where a source's readings come from, or ``none: why``."""
        if self._out is not None:
            self._lines = self._written()
        return self._states().get(source, "none: it isn't sampled")

    def _wanted(self) -> list[str]:
        wanted = ["gpu", "host"] if self._watch.local else []
        if not self._watch.host:
            wanted = wanted[:1]
        return [*wanted, "engine"] if self._watch.url else wanted

    def _settings(self, wanted: list[str], nvml: bool, why: str) -> Mapping[str, Any]:
        watch = self._watch
        return {
            "sources": wanted,
            "step_s": watch.step_s,
            "limit_s": watch.limit_s,
            "proc": watch.proc,
            "gpu": {
                "nvml": nvml,
                "why": why,
                "smi": watch.smi,
                "readers": inspect.getsource(_gpu_nvml_child) if nvml else "",
                "readings": watch.gpu_readings,
                "smi_step_s": watch.smi_step_s,
            },
            "engine": {
                "url": watch.url,
                "engine": watch.engine,
                "headers": dict(watch.headers),
                "ca_path": watch.ca_path,
                "validate_certs": watch.validate_certs,
            },
        }

    def _states(self) -> dict[str, str]:
        """Return per source where its readings come from."""
        wanted = self._wanted()
        states = {}
        for name in SOURCES:
            if name in wanted:
                states[name] = f"none: {self._failed or SILENT}"
            elif name == "engine":
                states[name] = "none: no address of the engine was given"
            else:
                states[name] = "none: the requests were sent from another machine"
        states.update({line["source"]: line["state"] for line in self._lines if "source" in line})
        return states

    def _written(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._whole_lines().splitlines()]

    def _whole_lines(self, offset: int = 0) -> bytes:
        """Return the whole lines written so far, leaving the file's position to the child."""
        size = min(os.fstat(self._out.fileno()).st_size - offset, READ_LIMIT)
        data = os.pread(self._out.fileno(), size, offset)
        return data[: data.rfind(b"\n") + 1]
