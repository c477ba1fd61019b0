# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's settings file: schedules and faults, re-read whenever the file changes."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any, NamedTuple

from sim_ollama import log

DEFAULT_PATH = "/etc/sim-ollama/config.json"


class HttpFault(NamedTuple):
    """An answer that replaces the real one."""

    status: int
    message: str


class Settings:
    """The settings file; a missing file means built-in defaults and no faults."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] = (-1, -1, -1)
        self._data: dict[str, Any] = {}
        self._failed_requests = 0

    def data(self) -> dict[str, Any]:
        """Return the current contents; a broken file keeps the last good contents."""
        with self._lock:
            return self._current()

    def section(self, key: str) -> dict[str, Any]:
        """Return one object of the file, empty where it is absent."""
        value = self.data().get(key)
        return dict(value) if isinstance(value, dict) else {}

    def fault(self, key: str) -> Any:
        """Return the value of one fault, None where it is off."""
        return self.section("faults").get(key) or None

    def fault_for_model(self, key: str, model: str) -> bool:
        """Tell whether a fault that is true or a list of models is on for this model."""
        value = self.fault(key)
        return model in value if isinstance(value, list) else bool(value)

    def slow_factor(self) -> float:
        """Return by how much every time is stretched."""
        return float(self.fault("slow_factor") or 1.0)

    def next_http_fault(self, path: str) -> HttpFault | None:
        """Return the answer that shall replace this request's, and count it."""
        with self._lock:
            faults = self._current().get("faults") or {}
            fault = faults.get("http_status")
            if not fault or (fault.get("paths") and path not in fault["paths"]):
                return None
            if fault.get("count") is not None and self._failed_requests >= int(fault["count"]):
                return None
            self._failed_requests += 1
        status = int(fault.get("status", 500))
        return HttpFault(status, str(fault.get("message", "simulated failure")))

    def _current(self) -> dict[str, Any]:
        try:
            stat = self.path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            stamp = (0, 0, 0)
        if stamp == self._stamp:
            return self._data
        self._stamp = stamp
        self._failed_requests = 0
        try:
            loaded = json.loads(self.path.read_text(encoding="utf-8")) if any(stamp) else {}
            if not isinstance(loaded, dict):
                raise ValueError("not an object")
            self._data = loaded
        except (OSError, ValueError) as exc:
            log.warn("sim", "settings file is not usable, keeping the last ones", error=exc)
        return self._data


def from_environment() -> Settings:
    """Return the settings named by SIM_OLLAMA_CONFIG."""
    return Settings(Path(os.environ.get("SIM_OLLAMA_CONFIG") or DEFAULT_PATH))
